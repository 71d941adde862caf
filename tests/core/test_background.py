"""A writer does things in order behind the program's back, and nothing behind a failure."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bayesdiff.core import background
from bayesdiff.core.background import Writer, collected, write_tensors
from bayesdiff.core.errors import UserError


def failing() -> None:
    raise UserError("no disk space left")


def test_things_are_done_in_order_in_another_thread() -> None:
    done: list[tuple[int, str]] = []
    with Writer() as writer:
        for number in range(100):
            writer.submit(lambda number=number: done.append((number, threading.current_thread().name)))
        writer.wait()
    assert [number for number, _ in done] == list(range(100))
    assert len({name for _, name in done}) == 1
    assert threading.current_thread().name not in {name for _, name in done}


def test_the_program_goes_on_meanwhile() -> None:
    gate, done = threading.Event(), list[int]()
    with Writer() as writer:
        writer.submit(lambda: gate.wait(30) and done.append(1))
        writer.check()
        assert done == []
        gate.set()
        writer.wait()
        assert done == [1]


def test_not_more_than_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MOST", 2)
    gate, done = threading.Event(), list[int]()
    with Writer() as writer:
        writer.submit(lambda: gate.wait(30) and done.append(0))
        writer.submit(partial(done.append, 1))
        threading.Timer(0.05, gate.set).start()
        writer.submit(partial(done.append, 2))
        assert done[:1] == [0], "the third waited for the first"


@pytest.mark.parametrize("how", ["submit", "check", "wait"])
def test_a_failure_is_raised_and_nothing_is_done_behind_it(how: str) -> None:
    done: list[int] = []
    with pytest.raises(UserError, match="no disk space left"), Writer() as writer:
        writer.submit(partial(done.append, 1))
        writer.submit(failing)
        writer.submit(partial(done.append, 2)) if how != "submit" else None
        writer._pool.submit(lambda: None).result()  # everything before has been tried
        {"submit": lambda: writer.submit(partial(done.append, 3)), "check": writer.check, "wait": writer.wait}[how]()
    assert done == [1]


def test_a_failure_is_raised_at_the_end_at_the_latest() -> None:
    with pytest.raises(UserError, match="no disk space left"), Writer() as writer:
        writer.submit(failing)


def test_whatever_ends_the_block_everything_is_written() -> None:
    gate, done = threading.Event(), list[int]()
    with pytest.raises(KeyboardInterrupt), Writer() as writer:
        writer.submit(lambda: gate.wait(30) and done.append(1))
        threading.Timer(0.05, gate.set).start()
        raise KeyboardInterrupt
    assert done == [1]


def test_tensors_are_written_as_they_were(tmp_path: Path) -> None:
    """Also those that are no copies of their own: views, and tensors whose memory lies across."""
    base = torch.arange(12.0).view(3, 4)
    tensors = {"whole": base, "row": base[1], "across": base.T, "parameter": torch.nn.Parameter(base)}
    expected = {name: value.detach().clone() for name, value in tensors.items()}
    write_tensors(tmp_path / "now", ((name, value.clone()) for name, value in tensors.items()), {"format": "pt"})
    with collected() as actions:
        write_tensors(tmp_path / "later", tensors.items(), {"format": "pt"})
    assert not (tmp_path / "later").exists()
    base.zero_()
    for action in actions:
        action()
    for name in ("now", "later"):
        found = load_file(tmp_path / name)
        assert all(torch.equal(found[key], value) for key, value in expected.items())
