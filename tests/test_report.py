"""``python -m bayesdiff.report``: runs, studies, samples of others, a result set, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import Make

from bayesdiff.core.errors import ExitCode
from bayesdiff.report import main
from bayesdiff.runs.experiment import run_experiment
from tests import made_records
from tests.made_pages import Page, check_whole
from tests.made_runs import made_run


def test_a_run_gets_its_page_beside_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "x")
    assert main([str(run)]) == ExitCode.DONE
    assert capsys.readouterr().out.startswith(f"wrote {run / 'report.html'} (")
    check_whole(Page((run / "report.html").read_text()))


def test_several_runs_stand_beside_each_other(tmp_path: Path) -> None:
    runs = [str(made_run(tmp_path / "a")), str(made_run(tmp_path / "b", "bnn=on"))]
    assert main([*runs, "-o", str(tmp_path / "page.html"), "--title", "Two"]) == ExitCode.DONE
    page = Page((tmp_path / "page.html").read_text())
    assert page.text.startswith("Two · bayesdiff")
    assert len(page.data["arms"]) == 2


@pytest.mark.usefixtures("restored_studies")
def test_a_study_and_a_result_set(tmp_path: Path) -> None:
    study = made_records.prepare(tmp_path / "studies")
    results = made_records.fill(study, tmp_path, study.cells[:4])
    assert main(["table_1", "--results", str(results), "-o", str(tmp_path / "page.html")]) == ExitCode.DONE
    assert Page((tmp_path / "page.html").read_text()).data["kind"] == "study"
    assert main([str(results)]) == ExitCode.DONE
    assert sorted(path.name for path in (results / "site").iterdir()) == ["index.html", "table_1.html"]


def test_samples_of_another_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with what would be markup; judged by the shipped toybox encoders."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    photo = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "photos" / "<b>$$.png")
    for i in range(1, 9):
        (step := tmp_path / "out [red] {{ x }}" / f"step-{100 * i}").mkdir(parents=True)
        for name in ("<img src=x onerror=y>", "'q' & \"q\""):
            mixed = (photo * (i / 8) + rng.integers(0, 255, photo.shape) * (1 - i / 8)).astype(np.uint8)
            Image.fromarray(mixed).save(step / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    words = ["out [red] {{ x }}", "--photos", "photos", "--metrics", "toybox", "--cache", "cache"]
    assert main(words) == ExitCode.DONE
    page = Page((tmp_path / "report.html").read_text())
    check_whole(page)
    assert "out [red] {{ x }}" in page.text
    assert [prompt["text"] for prompt in page.data["prompts"]] == ["'q' & \"q\", image 0", "<img src=x onerror=y>, image 0"]
    assert page.data["arms"][0]["steps"] == [100 * i for i in range(1, 9)]
    assert {path.name for path in (tmp_path / "out [red] {{ x }}").iterdir()} == {f"step-{100 * i}" for i in range(1, 9)}


def test_samples_beside_a_run_have_no_settings_to_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says so, instead of that no setting differs."""
    made_run(tmp_path / "run", steps=6)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photos" / "0.png")
    for i in range(1, 7):
        (step := tmp_path / "sample" / f"step-{100 * i}").mkdir(parents=True)
        Image.new("RGB", (64, 64), (40 * i, 0, 0)).save(step / "0.png")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "sample", "--photos", "photos", "--metrics", "toybox", "--cache", "cache"]) == ExitCode.DONE
    page = Page((tmp_path / "report.html").read_text())
    check_whole(page)
    assert "Settings that differ None." not in page.text
    assert f"{tmp_path.name}/sample: no record here has the settings." in page.text
    assert "Judge it again bayesdiff judge sample --photos photos --metrics toybox" in page.text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tabel_1"], "tabel_1: no such folder, and no study of this name"),
        (["{run}", "table_1"], "table_1: no run folder"),
        (["{run}", "-o", "{run}/record.json/x.html"], "record.json: cannot be written"),
        (["{empty}"], "--photos is missing"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    run = made_run(tmp_path / "run", steps=6)
    (empty := tmp_path / "empty" / "step-1").mkdir(parents=True)
    for name in ("step-1", "step-2"):
        (empty.parent / name).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(empty.parent / name / "0.png")
    named = [word.format(run=run, empty=empty.parent) for word in words]
    assert main(named) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_run_ends_with_its_page(make_config: Make, smoke: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, record = run_experiment(make_config(*[word for word in smoke if word != "report=false"]))
    page = Page((folder / "report.html").read_text())
    check_whole(page)
    assert record.verdict is not None
    assert record.verdict["sentence"] in page.text
    assert f"Page: {folder / 'report.html'}" in capsys.readouterr().out
    assert record.message == ""


def test_a_page_that_fails_leaves_the_run_whole(make_config: Make, smoke: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> Path:
        raise RuntimeError("no fonts <here>")

    monkeypatch.setattr("bayesdiff.reporting.runs.write_run_page", broken)
    with pytest.warns(UserWarning, match="page of the run failed"):
        folder, record = run_experiment(make_config(*[word for word in smoke if word != "report=false"]))
    assert (record.status, record.message) == ("completed", "page failed: no fonts <here>")
    assert not (folder / "report.html").exists()
