"""What a person reads while a run works."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pandas as pd
import pytest
from rich.console import Console

from bayesdiff.config.work import Work
from bayesdiff.recording import progress
from bayesdiff.recording.progress import PLAIN_INTERVAL, Display, display, print_curve

ROW = {"dino": 0.71234, "clip_i": 0.8, "clip_t": 0.25, "hf_relative": 1.25}


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


WORK = Work(100, 1.0, 0.0, (0, 50, 100))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """Standard output is a terminal of 100 columns, and this is what it shows."""
    out = StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=out, force_terminal=True, width=100))
    yield out


def curve(steps: int = 3) -> pd.DataFrame:
    means = {"dino": [0.1, 0.7, 0.4], "clip_i": [0.2] * 3, "clip_t": [0.3] * 3, "hf_relative": [0.05] * 3, "failed": [0.0, 0.25, 1.0]}
    return pd.DataFrame({"step": [0, 50, 100], "images": [4] * 3, **means, "dino_se": [0.01] * 3}).head(steps)


def test_plain_lines_come_once_an_interval(clock: Clock) -> None:
    out = StringIO()
    shown = Display(WORK, 0, Console(file=out, width=100), None)
    for step in range(1, 61):
        clock.now += 1.0
        shown.step(step, 0.5)
    lines = out.getvalue().splitlines()
    assert len(lines) == int(60 // (PLAIN_INTERVAL + 1))
    assert lines[0] == "train  step 16/100  loss 0.5000  about 84 s left"


def test_time_left_counts_the_steps_of_this_session(clock: Clock) -> None:
    out = StringIO()
    shown = Display(WORK, 80, Console(file=out, width=100), None)
    clock.now += 20.0
    shown.step(90, 0.5)
    assert out.getvalue() == "train  step 90/100  loss 0.5000  about 20 s left\n"


def test_no_time_is_told_from_a_few_steps(clock: Clock) -> None:
    out = StringIO()
    shown = Display(WORK, 0, Console(file=out, width=100), None)
    clock.now += 60.0
    shown.step(1, 0.5)
    assert out.getvalue() == "train  step 1/100  loss 0.5000\n"


def test_a_checkpoint_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with display(WORK, 0) as shown:
        shown.phase("sample", 50)
        shown.checkpoint(50, ROW)
    assert capsys.readouterr().out == "step    50  dino 0.712  clip_i 0.800  clip_t 0.250  grain 1.25\n"


def test_plain_output_has_no_control_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with display(WORK, 0) as shown:
        shown.step(1, 0.5)
        shown.checkpoint(50, ROW)
    print_curve(curve(), ("rising", "peak", "corrupted"), "A sentence.", "runs/x", {})
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_shows_a_bar_with_loss_and_checkpoints(terminal: StringIO) -> None:
    with display(WORK, 40) as shown:
        shown.step(50, 0.25)
        shown.phase("sample", 50)
        shown.checkpoint(50, ROW)
        shown.step(60, 0.125)
    text = terminal.getvalue()
    assert "60/100" in text
    assert "loss 0.1250" in text
    assert "dino 0.712" in text


def test_the_closing_table_has_a_row_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    print_curve(curve(), ("rising", "peak", "corrupted"), "A sentence.", "runs/x", {})
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows[1] == ["50", "0.700", "0.010", "0.200", "0.300", "0.05", "1", "peak"]
    assert [row[0] for row in rows] == ["0", "50", "100"]
    assert [row[6] for row in rows] == ["0", "1", "4"]


def test_the_closing_words_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    sentence, folder = "Corrupted: " + "word " * 60 + "end.", "runs/" + "long" * 40
    print_curve(curve(), ("rising", "peak", "corrupted"), sentence, folder, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [sentence, f"Look at {folder}/curve.png and {folder}/grid.png"]


def test_every_checkpoint_needs_a_label() -> None:
    with pytest.raises(ValueError, match="zip"):
        print_curve(curve(2), ("rising",), "A sentence.", "runs/x", {})
