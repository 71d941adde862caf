"""Samples are recognised by the names that each trainer gives them, and by no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.judging.layouts import LAYOUTS, find_samples

Name = Callable[[int, int], str]
TRAINERS: dict[str, tuple[str, Name]] = {
    "kohya": ("kohya", lambda i, j: f"sample/mylora_{100 * i:06d}_{j:02d}_20240819160839.png"),
    "kohya without a name": ("kohya", lambda i, j: f"sample/{100 * i:06d}_{j:02d}_2024081916{i:02d}39_-42.png"),
    "kohya, its folder alone": ("kohya", lambda i, j: f"my_lora_v2_{100 * i:06d}_{j:02d}_2024081916{i:02d}39_42.png"),
    "musubi-tuner": ("kohya", lambda i, j: f"sample/mylora_{100 * i:06d}_{j:02d}_2024081916{i:02d}39_42_000.png"),
    "musubi-tuner without a seed": ("kohya", lambda i, j: f"sample/mylora_{100 * i:06d}_{j:02d}_2024081916{i:02d}39_000.png"),
    "kohya, by epoch": ("kohya, by epoch", lambda i, j: f"sample/mylora_e{i:06d}_{j:02d}_20240819160839_42.png"),
    "ai-toolkit": ("ai-toolkit", lambda i, j: f"samples/1724080000__{100 * i:09d}_{j}.jpg"),
    "ai-toolkit, milliseconds": ("ai-toolkit", lambda i, j: f"{1724080000123 + i}__{100 * i:09d}_{j}.webp"),
    "ai-toolkit, several GPUs": ("ai-toolkit", lambda i, j: f"samples/rank{j:02d}_sample{j:03d}_1724080000__{100 * i:09d}_0.jpg"),
    "SimpleTuner": ("SimpleTuner", lambda i, j: f"validation_images/step_{100 * i}_a_dog_{'ab'[j]}_0_512x512.png"),
    "SimpleTuner, older": ("SimpleTuner", lambda i, j: f"validation_images/step_{100 * i}_prompt{j}_1024.png"),
    "SimpleTuner, as sides": ("SimpleTuner", lambda i, j: f"step_{100 * i}_prompt{j}_1024x768.png"),
    "OneTrainer": ("OneTrainer", lambda i, j: f"samples/{j} - a photo of sks dog/2024-08-19_16-08-39-training-sample-{100 * i}-{i}-0.png"),
    "OneTrainer with a prefix": (
        "OneTrainer",
        lambda i, j: f"samples/{j} - a photo of sks dog/dog-2024-08-19_16-08-39-training-sample-{100 * i}-{i}-0.png",
    ),
    "SimpleTuner, as megapixels": ("SimpleTuner", lambda i, j: f"validation_images/step_{100 * i}_dog{j}_0_1.0x1.0.webp"),
    "plain": ("a folder a step", lambda i, j: f"step-{100 * i}/{j}.png"),
    "checkpoints": ("a folder a step", lambda i, j: f"out/checkpoint-{100 * i}/samples/{j}.png"),
    "epochs": ("a folder an epoch", lambda i, j: f"epoch_{i}/{j}.png"),
    "a run": ("bayesdiff", lambda i, j: f"images/step-{100 * i:06d}/prompt-{j:02d}-image-00.png"),
    "an evaluation": ("bayesdiff", lambda i, j: f"step-{100 * i:06d}/prompt-{j:02d}-image-00.png"),
}


def made(folder: Path, name: Name, steps: range = range(1, 4)) -> Path:
    for i in steps:
        for j in range(2):
            (path := folder / name(i, j)).parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_layout_of_a_trainer_is_recognised(tmp_path: Path, trainer: str) -> None:
    layout, name = TRAINERS[trainer]
    found = find_samples(made(tmp_path, name))
    assert found.layout.name == layout
    assert not found.others
    unit = 1 if found.layout.unit == "epoch" else 100
    assert sorted({one.step for one in found.seen}) == [unit, 2 * unit, 3 * unit]
    assert len({(one.prompt, one.image) for one in found.seen}) == 2, "pairs over the checkpoints"
    assert len({one.prompt for one in found.seen}) == 2


def test_an_epoch_0_of_a_loop_is_trained_and_one_of_kohya_is_the_base_model(tmp_path: Path) -> None:
    """kohya counts its epochs from 1, and samples the base model as epoch 0."""
    own = find_samples(made(tmp_path / "own", TRAINERS["epochs"][1], range(4)))
    assert sorted({one.step for one in own.seen}) == [1, 2, 3, 4]
    assert {one.path.parent.name for one in own.seen if one.step == 1} == {"epoch_0"}
    (note,) = own.notes
    assert note.startswith("epochs are counted from 0, and epoch 0 is trained: it is shown as step 1, and epoch 3 as step 4")
    kohya = find_samples(made(tmp_path / "kohya", TRAINERS["kohya, by epoch"][1], range(4)))
    assert (sorted({one.step for one in kohya.seen}), kohya.notes) == ([0, 1, 2, 3], ())


def test_the_base_model_of_kohya_is_step_0_also_where_samples_count_steps(tmp_path: Path) -> None:
    """With --sample_at_first and --sample_every_n_steps its first samples alone are named by their epoch."""
    number = ("e000000", "000100", "000200", "000300")
    made(tmp_path, lambda i, j: f"sample/my_lora_{number[i]}_{j:02d}_20240819160839_42.png", range(4))
    found = find_samples(tmp_path)
    assert (found.layout.name, found.others) == ("kohya", ())
    assert sorted({one.step for one in found.seen}) == [0, 100, 200, 300]
    assert {one.series for one in found.seen} == {"my_lora"}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_example_of_a_layout_is_of_that_layout(tmp_path: Path, layout: object) -> None:
    example = next(one for one in LAYOUTS if one is layout)
    made(tmp_path, lambda i, j: example.example)
    assert find_samples(tmp_path).layout is example


def test_a_name_of_simpletuner_is_taken_apart(tmp_path: Path) -> None:
    made(tmp_path, TRAINERS["SimpleTuner"][1])
    assert {one.prompt for one in find_samples(tmp_path).seen} == {"a_dog_a", "a_dog_b"}


def test_the_prompt_is_read_off_onetrainers_folder_even_where_that_folder_is_given(tmp_path: Path) -> None:
    made(tmp_path, TRAINERS["OneTrainer"][1])
    seen = find_samples(tmp_path / "samples" / "1 - a photo of sks dog").seen
    assert {(one.prompt, one.text) for one in seen} == {("1", "a photo of sks dog")}


def test_a_prompt_that_onetrainer_cut_is_not_taken_for_the_prompt(tmp_path: Path) -> None:
    cut = "a photo of a sks dog in the snowy mountains"[:32].strip()
    made(tmp_path, lambda i, j: f"{j} - {cut}/2024-08-19_16-08-39-training-sample-{i}-0-0.png")
    assert {(one.prompt, one.text) for one in find_samples(tmp_path).seen} == {("0", ""), ("1", "")}


def test_onetrainers_samples_without_ema_are_not_mixed_with_the_others(tmp_path: Path) -> None:
    name = TRAINERS["OneTrainer"][1]
    made(made(tmp_path, name), lambda i, j: name(i, j).replace("dog/", "dog - no-ema/"))
    found = find_samples(tmp_path)
    assert (len(found.seen), len(found.others)) == (6, 6)


def test_pictures_that_are_no_samples_are_named(tmp_path: Path) -> None:
    made(tmp_path, TRAINERS["kohya"][1])
    (tmp_path / "grid.png").touch()
    assert find_samples(tmp_path).others == ("grid.png",)


def test_a_runs_own_samples_are_found_among_its_other_pictures(tmp_path: Path) -> None:
    made(tmp_path, TRAINERS["a run"][1])
    made(tmp_path, lambda i, j: f"draws/step-{100 * i:06d}/draw-{j:02d}/prompt-00-image-00.png", range(1, 30))
    found = find_samples(tmp_path)
    assert (len(found.seen), found.others) == (6, ())


def test_a_data_set_of_that_name_does_not_hide_the_samples(tmp_path: Path) -> None:
    made(tmp_path, TRAINERS["kohya"][1])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "dog.png").touch()
    assert len(find_samples(tmp_path).seen) == 6


def test_a_pattern_says_what_other_names_mean(tmp_path: Path) -> None:
    made(tmp_path, lambda i, j: f"out-{j}-at{100 * i}.png")
    with_prompt = find_samples(tmp_path, r"out-(?P<prompt>\d)-at(?P<step>\d+)").seen
    without = find_samples(tmp_path, r"at(?P<step>\d+)").seen
    assert {(one.step, one.prompt) for one in with_prompt} == {(100 * i, str(j)) for i in range(1, 4) for j in range(2)}
    assert {(one.step, one.prompt) for one in without} == {(100 * i, f"out-{j}-at.png") for i in range(1, 4) for j in range(2)}


BAD = [
    (r"(", "no regular expression"),
    (r"at(\d+)", "no group of steps"),
    (r"(?P<step>out)", "no number of steps"),
    (r"never(?P<step>\d)", "found in none of the 6 names"),
]


@pytest.mark.parametrize(("pattern", "said"), BAD)
def test_a_pattern_that_cannot_be_used_is_refused(tmp_path: Path, pattern: str, said: str) -> None:
    made(tmp_path, lambda i, j: f"out-{j}-at{100 * i}.png")
    with pytest.raises(UserError, match=said):
        find_samples(tmp_path, pattern)


def test_names_of_no_layout_are_refused_with_all_layouts_and_the_option(tmp_path: Path) -> None:
    made(tmp_path, lambda i, j: f"out-{j}-at{100 * i}.png")
    with pytest.raises(UserError) as refused:
        find_samples(tmp_path)
    assert all(layout.example in str(refused.value) for layout in LAYOUTS)
    assert "--pattern" in str(refused.value)


def test_samples_of_several_trainings_are_refused_and_the_pattern_that_is_named_chooses_one(tmp_path: Path) -> None:
    for name in ("first", "second"):
        made(tmp_path, lambda i, j, name=name: f"{name}_{100 * i:06d}_{j:02d}_20240819160839.png")
    with pytest.raises(UserError, match=r"first \(6\), second \(6\)") as refused:
        find_samples(tmp_path)
    pattern = str(refused.value).partition("--pattern '")[2].rstrip("'")
    assert {one.path.name.partition("_")[0] for one in find_samples(tmp_path, pattern).seen} == {"first"}


BESIDE_EACH_OTHER: dict[str, Callable[[str, int, int], str]] = {
    "kohya, by epoch": lambda name, i, j: f"{name}_e{i:06d}_{j:02d}_20240819160839_42.png",
    "OneTrainer": lambda name, i, j: f"samples/{j} - a dog/{name}2024-08-19_16-08-39-training-sample-{i}-1-0.png",
    "a name that ends as another": lambda name, i, j: f"{'my_' * (name == 'second')}first_{i:06d}_{j:02d}_20240819160839.png",
}


@pytest.mark.parametrize("trainer", BESIDE_EACH_OTHER)
def test_the_pattern_that_is_named_chooses_all_of_one_training_and_no_other(tmp_path: Path, trainer: str) -> None:
    name = BESIDE_EACH_OTHER[trainer]
    for series in ("first", "second"):
        made(tmp_path, partial(name, series))
    with pytest.raises(UserError, match="several trainings") as refused:
        find_samples(tmp_path)
    found = find_samples(tmp_path, str(refused.value).partition("--pattern '")[2].rstrip("'"))
    assert {one.path.name for one in found.seen} == {Path(name("first", i, j)).name for i in range(1, 4) for j in range(2)}
    assert {one.step for one in found.seen} == {1, 2, 3}
    assert len({one.prompt for one in found.seen}) == 2


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pictures"):
        find_samples(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        find_samples(tmp_path / "none")


def test_a_step_that_no_training_reaches_is_refused_by_the_name(tmp_path: Path) -> None:
    """It was said to be a setting of the detector's."""
    made(tmp_path, lambda i, j: f"step-{i}{'0' * 22}/{j}.png")
    with pytest.raises(UserError, match=r"0\.png says step 10+, which no training reaches; rename it, or give --pattern"):
        find_samples(tmp_path)
