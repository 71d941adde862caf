"""What a run refuses or says before any model is loaded."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import stop_at
from twins import change_config

from bayesdiff.config.schema import Config
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import RECORD
from bayesdiff.diffusion import pipeline
from bayesdiff.recording.record import parse_record
from bayesdiff.run import main
from bayesdiff.runs import guards
from bayesdiff.runs.experiment import run_experiment
from bayesdiff.runs.guards import LIBRARIES, look_at_libraries


@pytest.mark.parametrize(("word", "module", "extra"), [
    ("tracker=trackio", "trackio", "trackio"), ("tracker=mlflow", "mlflow", "mlflow"),
    ("tracker=tensorboard", "tensorboard", "tensorboard"),
    ("training.optimizer=adamw_8bit", "bitsandbytes", "low-memory"), ("training=low_memory", "bitsandbytes", "low-memory"),
])  # fmt: skip
def test_a_library_that_is_not_there_is_named_with_what_installs_it(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, word: str, module: str, extra: str
) -> None:
    cfg = make_config("+experiment=smoke", word)
    monkeypatch.setattr(guards, "find_spec", lambda name: None if name == module else object())
    with pytest.raises(UserError, match=rf"{module} is not installed; pip install 'bayesdiff\[{extra}\]', or give \w+"):
        look_at_libraries(cfg)
    monkeypatch.setattr(guards, "find_spec", lambda name: object())
    look_at_libraries(cfg)


def test_every_tracker_with_a_library_is_looked_at(make_config: Callable[..., Config]) -> None:
    look_at_libraries(make_config("+experiment=smoke"))
    assert {tracker.value for tracker in LIBRARIES} == {"wandb", "tensorboard", "mlflow", "trackio"}


def test_a_run_ends_before_models_are_loaded(
    tiny_smoke: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(guards, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["run", *tiny_smoke, "training.optimizer=adamw_8bit"])
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "training.optimizer=adamw_8bit: bitsandbytes is not installed; pip install 'bayesdiff[low-memory]'" in said
    assert not any((tmp_path / "runs").rglob("record.json"))


def test_control_characters_of_a_file_s_name_do_not_reach_the_terminal(
    tiny_smoke: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name could otherwise move the cursor over what was said before."""
    (photos := tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "a.png")
    (photos / "b\x1b[2J\x07").mkdir()
    Image.fromarray(pixels).save(photos / "b\x1b[2J\x07" / "c.png")

    def enough(*_: object) -> None:
        raise UserError("enough; stop here")

    monkeypatch.setattr(pipeline, "load_pipeline", enough)
    words = ["data.source=folder", f"data.path={photos}", "data.subject=mine", "data.class_noun=backpack"]
    monkeypatch.setattr(sys, "argv", ["run", *tiny_smoke, *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    found = capsys.readouterr()
    assert "b\ufffd[2J\ufffd" in found.out
    assert not set("\x1b\x07") & set(found.out + found.err)


def test_a_photograph_of_one_colour_trains_and_its_curve_has_no_relative_grain(
    tiny_smoke: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos := tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), (90, 120, 90)).save(photos / "a.png")
    words = ["data.source=folder", f"data.path={photos}", "data.subject=mine", "data.class_noun=backpack"]
    monkeypatch.setattr(sys, "argv", ["run", *tiny_smoke, *words])
    main()
    said = capsys.readouterr().out
    assert said.count("Photographs: of one colour, without grain that samples could be compared with: hf_relative is left out") == 1
    (curve,) = (tmp_path / "runs").glob("*/curve.csv")
    head = curve.read_text().partition("\n")[0].split(",")
    assert "hf_energy" in head and "hf_relative" not in head


def test_a_run_goes_on_with_the_class_images_it_began_with_alone(make_config: Callable[..., Config], tiny_smoke: list[str]) -> None:
    words = [*tiny_smoke, "method.prior_preservation=true", "method.class_images=2", "schedule.steps=2", "schedule.checkpoints=[0,1,2]"]
    cfg = make_config(*words)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, "bayesdiff.training.loop.train", 2)
        run_experiment(cfg)
    (sets,) = {path.parent for path in Path(cfg.paths.cache).glob("class-*/*.png")}
    pictures = {path: path.read_bytes() for path in sets.glob("*.png")}
    for path in pictures:
        Image.new("RGB", Image.open(path).size, "red").save(path)
    with pytest.raises(UserError, match=r"begun with other class images than paths\.cache has now; put those back, or remove the folder"):
        run_experiment(cfg)
    shutil.rmtree(sets)
    folder, record = run_experiment(cfg)  # made again, as they were
    assert (record.status, {path: path.read_bytes() for path in sets.glob("*.png")}) == ("completed", pictures)
    assert len(record.subject["class_images"]) == 64
    (kept := json.loads((folder / RECORD).read_text()))["subject"].pop("class_images")
    assert parse_record(json.dumps(kept).encode()), "as records of before have none"


@pytest.mark.parametrize(
    ("part", "key", "words"),
    [("unet", "dropout", []), ("unet", "dropout", ["bnn=on"]), ("text_encoder", "attention_dropout", ["method.train_text_encoder=true"])],
)
def test_a_model_with_dropout_of_its_own_is_refused(
    make_config: Callable[..., Config], tiny_smoke: list[str], tiny_models: Path, tmp_path: Path, part: str, key: str, words: list[str]
) -> None:
    """The same command would train to other weights each time. It is refused before class images are made, and nothing is left."""
    folder = change_config(Path(shutil.copytree(tiny_models / "pipeline", tmp_path / "model")), part, **{key: 0.2})
    cfg = make_config(*tiny_smoke, f"model.path={folder}", *words, "method.prior_preservation=true", f"paths.cache={tmp_path / 'cache'}")
    said = rf"its {part} has dropout 0\.2, whose masks follow no seed; set it to 0 in {part}/config\.json, or add bnn=dropout"
    with pytest.raises(UserError, match=said):
        run_experiment(cfg)
    assert not (tmp_path / "cache").exists()
    assert not list((tmp_path / "runs").glob("*/record.json"))


def test_the_arm_of_dropout_takes_it_and_what_is_not_trained_may_have_it(
    make_config: Callable[..., Config], tiny_smoke: list[str], tiny_models: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_models / "pipeline", tmp_path / "model"))
    change_config(change_config(folder, "unet", dropout=0.2), "text_encoder", attention_dropout=0.2)
    short = ["bnn=dropout", "schedule.steps=1", "schedule.checkpoints=[0,1]"]
    _, record = run_experiment(make_config(*tiny_smoke, f"model.path={folder}", *short))
    assert record.status == "completed"
