"""A run's own images judged anew give the run's own scores and verdict; samples of others are scored once."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import Make

from bayesdiff.core.errors import UserError
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.judging import judgement, scored
from bayesdiff.judging.judgement import Judgement, judge_folder
from bayesdiff.judging.settings import Asked
from bayesdiff.recording.record import RunRecord
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.scoring.scores import score_samples

SIX = ["method=lora", "method.rank=2", "schedule.steps=5", "schedule.checkpoints=[0,1,2,3,4,5]", "sampler.steps=1", "shots.count=2"]
PROMPTS = "sampler.prompts=['a photo of {identifier} {class_noun}','a {class_noun} of {identifier}']"
EVALUATED = "+evaluations={free:{guidance_scale:1.0,prompts:['the {class_noun} alone']}}"


def picture(seed: int, side: int = 48) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def asked(tmp_path: Path, random_encoders: dict[str, str]) -> Asked:
    (photos := tmp_path / "photos").mkdir()
    for i in range(2):
        picture(i).save(photos / f"{i}.png")
    (photos / "IMG.svg").touch()
    return Asked(photos=photos, metrics="toybox", words=tuple(f"{key}={value}" for key, value in random_encoders.items()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(1, 9):
        write(tmp_path / "out", i)
    return tmp_path / "out"


def write(folder: Path, step: int) -> None:
    """Four samples of a checkpoint as kohya names them."""
    (folder / "sample").mkdir(parents=True, exist_ok=True)
    for j in range(4):
        picture(100 * step + j).save(folder / "sample" / f"mylora_{step * 100:06d}_{j:02d}_20240819160839.png")


def same(ours: CorruptionVerdict, theirs: dict[str, object]) -> None:
    """Equal words and steps; numbers to the precision of single features."""
    for name, value in ours.to_dict().items():
        if isinstance(value, float) or name == "depth_interval":
            assert value == pytest.approx(theirs[name], abs=1e-4), name
        elif name not in ("sentence", "best_reason"):
            assert value == theirs[name], name


def test_a_runs_own_images_give_its_scores_and_its_verdict(make_config: Make, smoke: list[str], tmp_path: Path) -> None:
    run, record = run_experiment(make_config(*smoke, *SIX, PROMPTS, EVALUATED))
    assert record.verdict is not None
    assert record.verdict["kind"] != "too_few_points"
    same(judge_folder(run / "images", Asked(), tmp_path / "cache").verdict, record.verdict)
    evaluation = judge_folder(run / "evaluations" / "free", Asked(), tmp_path / "cache")
    same(evaluation.verdict, record.evaluations["free"]["verdict"])
    compare_scores(run, record, tmp_path / "cache")


def compare_scores(run: Path, record: RunRecord, cache: Path) -> None:
    """Every value of ``scores.csv`` is found again, and what the record says of the photographs."""
    from bayesdiff.judging.layouts import find_samples
    from bayesdiff.judging.pairing import pair
    from bayesdiff.judging.settings import in_order, prompts_of, run_of, subject_of

    for place in (run, run / "evaluations" / "free"):
        own, paired = run_of(place), pair(find_samples(place))
        assert own is not None
        subject, _ = subject_of(Asked(), own, paired)
        prompts, _ = prompts_of(paired, Asked(), own, own.cfg)
        found = scored.score_paired(paired, in_order(prompts), subject, own.cfg.metrics, "cpu", cache)
        theirs = pd.read_csv(place / "scores.csv", keep_default_na=False)
        keys = ["step", "prompt", "image", "metric", "reference"]
        both = found.scores.merge(theirs, on=keys, how="outer", suffixes=("", "_theirs"), indicator=True)
        assert set(both["_merge"]) == {"both"}
        assert both["value"].to_numpy() == pytest.approx(both["value_theirs"].to_numpy(dtype=float), abs=2e-6)
        assert found.ceilings == record.real_to_real
        assert found.photo_hf == pytest.approx(record.photographs["hf_energy"], abs=1e-6)


def judged(folder: Path, asked: Asked, cache: Path | None) -> Judgement:
    return judge_folder(folder, asked, cache)


def test_a_folder_that_grew_costs_the_new_samples_alone(
    folder: Path, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = judged(folder, asked, tmp_path / "cache")
    write(folder, 9)
    steps: list[int] = []

    def counted(samples: list, step: int, *rest: object) -> pd.DataFrame:  # type: ignore[type-arg]
        steps.append(step)
        return score_samples(samples, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("bayesdiff.scoring.scores.score_samples", counted)
    after = judged(folder, asked, tmp_path / "cache")
    assert (steps, before.details["scored_now"], after.details["scored_now"]) == ([900], 32, 4)
    assert after.reading.columns["dino"][:8].tolist() == before.reading.columns["dino"].tolist()
    fresh = judged(folder, asked, None)
    assert fresh.verdict.to_dict() == after.verdict.to_dict(), "what is kept is what would be computed"


def test_what_changes_scores_is_scored_again(folder: Path, asked: Asked, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    judged(folder, asked, cache)
    picture(7777).save(folder / "sample" / "mylora_000300_01_20240819160839.png")
    assert judged(folder, asked, cache).details["scored_now"] == 4
    assert asked.photos is not None
    picture(5).save(asked.photos / "1.png")
    assert judged(folder, asked, cache).details["scored_now"] == 32
    (prompts := tmp_path / "prompts.txt").write_text("one\ntwo\nthree\nfour\n")
    with_prompts = Asked(asked.photos, metrics="toybox", words=asked.words, prompts=prompts)
    assert judged(folder, with_prompts, cache).details["scored_now"] == 32
    assert judged(folder, with_prompts, cache).details["scored_now"] == 0


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_alone(folder: Path, asked: Asked, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = judged(folder, asked, cache)
    for file in cache.glob("*.json"):
        file.write_text("{")
    (tmp_path / "file").touch()
    for other in (cache, tmp_path / "file"):
        again = judged(folder, asked, other)
        assert (again.details["scored_now"], again.verdict) == (32, first.verdict)


def test_the_folder_is_left_as_it_is(folder: Path, asked: Asked, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    judged(folder, asked, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_alignment_counts_only_where_prompts_are_known(folder: Path, asked: Asked, tmp_path: Path) -> None:
    without = judged(folder, asked, tmp_path / "cache")
    assert not [name for name in without.reading.columns if name.startswith("clip_t")]
    assert any("CLIP-T is left out" in note for note in without.reading.notes)
    for path in (folder / "sample").glob("*.png"):
        path.with_suffix(".txt").write_text(f"prompt {path.name[14:16]}")
    known = judged(folder, asked, tmp_path / "cache")
    assert "clip_t" in known.reading.columns
    assert any("prompts from captions" in note for note in known.reading.notes)


def test_one_sample_a_checkpoint_says_what_it_cannot_show_and_where_to_look(folder: Path, asked: Asked, tmp_path: Path) -> None:
    for path in (folder / "sample").glob("*_0[123]_*.png"):
        path.unlink()
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(next((folder / "sample").glob("mylora_000500_00_*.png")))
    (said,) = (note for note in judged(folder, asked, None).reading.notes if "a checkpoint: " in note)
    assert said.startswith("1 sample a checkpoint: 4 or more are needed to name checkpoints to avoid; look at step 500:")


def test_photographs_and_pictures_that_are_left_out_are_named(folder: Path, asked: Asked, tmp_path: Path) -> None:
    (folder / "grid.png").touch()
    notes = "\n".join(judged(folder, asked, tmp_path / "cache").reading.notes)
    assert re.search(r"photographs left out: IMG\.svg", notes)
    assert "1 other pictures not looked at: grid.png" in notes


def test_photographs_of_nested_folders_count_and_are_said(folder: Path, asked: Asked, tmp_path: Path) -> None:
    assert asked.photos is not None
    (asked.photos / "10_qwe dog").mkdir()
    picture(3).save(asked.photos / "10_qwe dog" / "a.webp")
    (asked.photos / "10_qwe dog" / "a.txt").write_text("a photo of qwe dog")
    found = judged(folder, asked, tmp_path / "cache")
    assert found.details["photographs"] == ["0.png", "1.png", "10_qwe dog/a.webp"]
    assert "photographs of photos/ (2), 10_qwe dog/ (1)" in found.reading.notes


def test_black_samples_are_failed_ones(folder: Path, asked: Asked, tmp_path: Path) -> None:
    for path in (folder / "sample").glob("*.png"):
        Image.new("RGB", (48, 48)).save(path)
    assert judged(folder, asked, tmp_path / "cache").verdict.kind == "broken_sampling"


def test_the_first_of_folders_of_epochs_may_be_kept(asked: Asked, tmp_path: Path) -> None:
    for epoch in range(6):
        (place := tmp_path / "out" / f"epoch-{epoch}").mkdir(parents=True)
        for i in range(4):
            picture(100 * epoch + i).save(place / f"{i}.png")
    found = judged(tmp_path / "out", asked, None)
    assert found.reading.steps == (1, 2, 3, 4, 5, 6)
    assert {path.parent.name for path in found.paired.paths[1]} == {"epoch-0"}
    assert found.verdict.better_than_base
    assert any(note.startswith("epochs are counted from 0, and epoch 0 is trained") for note in found.reading.notes)


def bad(folder: Path, asked: Asked, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        judge_folder(folder, asked, None)
    assert "\n" not in str(refused.value)
    assert "data.path" not in str(refused.value)


def test_bad_input_is_refused_with_the_remedy(folder: Path, asked: Asked, tmp_path: Path) -> None:
    words = {"metrics": "toybox", "words": asked.words}
    (tmp_path / "empty").mkdir()
    (scores := tmp_path / "scores.json").write_text("[]")
    bad(scores, asked, "a file of scores to 'bayesdiff verdict'")
    bad(folder, Asked(), "--photos is missing")
    bad(folder, Asked(tmp_path / "none", **words), "no such folder; give the folder of the photographs")
    bad(folder, Asked(tmp_path / "empty", **words), "no images in it")
    bad(folder, Asked(asked.photos, metrics="dinov3"), "choose one of dinov2, paper, toybox; did you mean dinov2")
    bad(folder, Asked(asked.photos, metrics="toybox", words=("metrics.dinu=x",)), "no key metrics.dinu; did you mean metrics.dino")
    bad(folder, Asked(asked.photos, metrics="toybox", words=("metrics.dino=local-dir:none",)), "no such folder")
    bad(folder, Asked(asked.photos, metrics="toybox", words=(*asked.words, "detector.alpha=0.0001")), "detector: alpha=0.0001 must lie")
    (folder / "sample" / "mylora_000300_01_20240819160839.png").write_bytes(b"\x89PNG half")
    bad(folder, asked, "cannot read the sample .*000300_01.*: wait until it is written")


def test_two_checkpoints_are_too_few_for_a_verdict_and_still_compared(folder: Path, asked: Asked, tmp_path: Path) -> None:
    shutil.rmtree(folder)
    write(folder, 1)
    bad(folder, asked, "samples of one checkpoint")
    write(folder, 2)
    assert judgement.judge_folder(folder, asked, None).verdict.kind == "too_few_points"


def test_grain_is_no_share_of_that_of_photographs_that_had_to_be_enlarged(asked: Asked, folder: Path) -> None:
    """They lose their fine detail, and every sample beside them looks like noise."""
    assert asked.photos is not None
    fine = judge_folder(folder, asked, None)
    assert "hf_relative" in fine.reading.columns
    assert not any("enlarged" in note for note in fine.reading.notes)
    for path in asked.photos.glob("*.png"):
        picture(int(path.stem), 24).save(path)
    small = judge_folder(folder, asked, None)
    assert "hf_relative" not in small.reading.columns
    assert small.reading.photo_hf is None
    (note,) = (note for note in small.reading.notes if "enlarged" in note)
    assert note.startswith("2 of 2 photographs are smaller than the samples (24 of 48 pixels)")
    assert not small.verdict.grainy


def test_braces_in_a_caption_are_words(asked: Asked, folder: Path) -> None:
    """The command ended with advice to write them twice, in a caption that a trainer wrote."""
    for path in folder.rglob("*.png"):
        path.with_suffix(".txt").write_text("{masterpiece}, a {red|blue} dog")
    assert set(judge_folder(folder, asked, None).prompts.values()) == {"{masterpiece}, a {red|blue} dog"}


def test_samples_among_the_photographs_are_refused(asked: Asked, folder: Path) -> None:
    """A sample is like itself: every step would be as good as the photographs."""
    with pytest.raises(UserError, match=r"32 of its 34 pictures are samples that are judged \(.*\.png\); give a folder with the"):
        judge_folder(folder, replace(asked, photos=folder.parent), None)
    assert asked.photos is not None
    *most, last = sorted(folder.rglob("*000800*.png"))
    for i, path in enumerate(most):
        shutil.copy(path, asked.photos / f"copy{i}.png")
    (note,) = (note for note in judge_folder(folder, asked, None).reading.notes if "like itself" in note)
    assert "3 of its 5 pictures are samples that are judged (copy0.png), each like itself; take them out" in note
    shutil.copy(last, asked.photos / "last.png")
    with pytest.raises(UserError, match=r"4 of its 6 pictures are samples that are judged \(copy0\.png\)"):
        judge_folder(folder, asked, None)


def test_samples_of_several_sizes_are_compared_at_the_most_frequent_one(asked: Asked, folder: Path) -> None:
    """Whichever comes first: the verdict does not depend on the order of prompts."""
    alike = judge_folder(folder, asked, None)
    assert not any("several sizes" in note for note in alike.reading.notes)
    for path in folder.rglob("*_00_*.png"):
        picture(int(path.stem.split("_")[1]), 96).save(path)
    several = judge_folder(folder, asked, None)
    (note,) = (note for note in several.reading.notes if "several sizes" in note)
    assert "(24 of 48 pixels, 8 of 96 pixels)" in note and "photographs are scaled to 48" in note and "change" not in note
    assert several.reading.photo_hf == alike.reading.photo_hf


def test_one_step_of_another_size_does_not_decide_and_is_named(asked: Asked, folder: Path) -> None:
    alike = judge_folder(folder, asked, None)
    for path in folder.rglob("*_000100_*.png"):
        picture(int(path.stem.split("_")[2]), 96).save(path)
    first = judge_folder(folder, asked, None)
    (note,) = (note for note in first.reading.notes if "several sizes" in note)
    assert "they change at step 200, and so may the scores" in note
    assert first.reading.photo_hf == alike.reading.photo_hf


def test_the_same_pictures_at_every_step_say_that_the_weights_were_not_used(asked: Asked, folder: Path) -> None:
    different = judge_folder(folder, asked, None)
    assert not any("pictures" in note and "trainer" in note for note in different.reading.notes)
    for path in folder.rglob("*000300*.png"):
        shutil.copy(path, str(path).replace("000300", "000400"))
    (note,) = (note for note in judge_folder(folder, asked, None).reading.notes if "step before" in note)
    assert note.startswith("the samples of step 400 are the pictures of the step before: check that your trainer samples with")
    for path in folder.rglob("*.png"):
        shutil.copy(re.sub(r"000\d00", "000300", str(path)), path) if "000300" not in path.name else None
    notes = judge_folder(folder, asked, None).reading.notes
    assert any(note.startswith("the samples of all 8 steps are the same pictures, so that this verdict says nothing") for note in notes)


def test_black_samples_are_no_unused_weights(asked: Asked, folder: Path) -> None:
    """The verdict says that training diverged; a second remedy would lead elsewhere."""
    for path in folder.rglob("*.png"):
        Image.new("RGB", (48, 48)).save(path) if int(path.stem.split("_")[1]) >= 500 else None
    found = judge_folder(folder, asked, None)
    assert found.verdict.kind == "diverged"
    assert not any("pictures of the step before" in note for note in found.reading.notes)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("detector.metric=foo", r"detector\.metric=foo: no such choice; allowed: dino, clip_i, clip_t"),
        ("detector.alpa=1", r"no key detector\.alpa; did you mean detector\.alpha\?"),
        ("foo=1", r".*foo=1: no key foo; give settings as KEY=VALUE, such as detector\.alpha=0\.01"),
        ("detector.alpha=x", r"detector\.alpha=x: not a number; give a number, such as .*"),
    ],
)
def test_a_setting_that_is_none_says_what_can_be_given(asked: Asked, folder: Path, word: str, said: str) -> None:
    with pytest.raises(UserError) as found:
        judge_folder(folder, replace(asked, words=(*asked.words, word)), None)
    assert re.fullmatch(said, str(found.value))
