"""Every checkpoint that is judged has the same samples; what is left out for that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.judging.layouts import find_samples
from bayesdiff.judging.pairing import Paired, numbers, pair


def made(folder: Path, *names: str) -> Paired:
    for name in names:
        (path := folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return pair(find_samples(folder))


def full(steps: int, prompts: int) -> list[str]:
    return [f"step-{100 * i}/{j}.png" for i in range(1, steps + 1) for j in range(prompts)]


def test_samples_stand_in_one_order_at_every_step(tmp_path: Path) -> None:
    found = made(tmp_path, *full(12, 11))
    assert list(found.paths) == [100 * i for i in range(1, 13)], "steps by their number and not by their text"
    assert found.keys == tuple((j, 0) for j in range(11))
    assert all([path.stem for path in paths] == [str(j) for j in range(11)] for paths in found.paths.values())
    assert not found.notes


def test_a_checkpoint_that_is_still_being_written_waits(tmp_path: Path) -> None:
    found = made(tmp_path, *full(4, 3), "step-500/0.png")
    assert list(found.paths) == [100, 200, 300, 400]
    assert found.notes == ("left out, because samples are missing: checkpoint 500",)


def test_a_prompt_that_was_added_later_is_left_out(tmp_path: Path) -> None:
    found = made(tmp_path, *full(5, 3), "step-400/3.png", "step-500/3.png")
    assert len(found.paths) == 5
    assert len(found.keys) == 3
    assert found.notes == ("2 samples left out, because other checkpoints do not have them",)


def test_the_newest_of_samples_with_one_name_counts(tmp_path: Path) -> None:
    names = [f"a_{100 * i:06d}_00_2024081{day}160839.png" for i in (1, 2) for day in (8, 9)]
    found = made(tmp_path, *names)
    assert [path.name for paths in found.paths.values() for path in paths] == [names[1], names[3]]
    assert found.notes == ("2 older samples of the same step, prompt and number left out",)


def test_one_checkpoint_and_checkpoints_without_a_common_sample_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples of one checkpoint"):
        made(tmp_path / "one", *full(1, 3))
    with pytest.raises(UserError, match="no sample in common"):
        made(tmp_path / "none", *[f"step-{i}/{i}.png" for i in range(4)])


def test_numbers_are_the_names_own_where_those_are_numbers() -> None:
    assert numbers({"00", "3"}) == {"00": 0, "3": 3}
    assert set(numbers({"1", "01"}).values()) == {0, 1}, "two names of one number are two samples"
    assert numbers({"dog 10", "dog 9", "cat"}) == {"cat": 0, "dog 9": 1, "dog 10": 2}


def test_a_digit_that_is_no_number_is_a_name() -> None:
    """Python calls a superscript a digit and has no number of it."""
    assert sorted(numbers({"²", "1", "³"}).values()) == [0, 1, 2]
