"""Tables from records: right numbers, right gaps, the same bytes every time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesdiff import claims
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies import plan as planning
from bayesdiff.studies.figures import curves_of, last_points
from bayesdiff.studies.measures import curve_shape
from bayesdiff.studies.pages import explain, write_study
from bayesdiff.studies.rows import Row, scores_of_run, values
from bayesdiff.studies.rows import rows_of as rows_of_archive
from bayesdiff.studies.tables import printed_table, study_table
from bayesdiff.tables import main
from tests import made_records

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("restored_studies")


def rows_of(study: planning.Study, results: Path) -> list[Row]:
    return rows_of_archive(study, open_archive(results))


def record_folders(results: Path) -> list[Path]:
    return [run.folder for run in open_archive(results).runs.values()]


@pytest.fixture
def study(tmp_path: Path) -> planning.Study:
    return made_records.prepare(tmp_path / "studies")


def test_a_row_is_what_differs_in_subject_and_seed_alone(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    rows = rows_of(study, results)
    assert [row.name for row in rows] == ["dreambooth, bnn off", "dreambooth, bnn on", "lora, bnn off", "lora, bnn on"]
    assert all(row.complete for row in rows)
    scores = values(rows[0], "dino")
    assert scores is not None
    assert scores.shape == (2, 2, 1, 4)


def test_means_deviations_and_differences(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    rows = rows_of(study, results)
    table = study_table(study, rows).set_index(["method", "bnn", "metric"])
    for method, row in (("dreambooth", rows[0]), ("lora", rows[2])):
        scores = values(row, "dino")
        assert scores is not None
        off = table.loc[(method, "off", "DINO")]
        assert off["mean"] == pytest.approx(scores.mean())
        assert off["sd_over_seeds"] == pytest.approx(scores.mean((1, 3)).std(ddof=1))
        on = table.loc[(method, "on", "DINO")]
        assert on["difference"] == pytest.approx(made_records.EFFECT, abs=0.02)
        assert on["low"] < on["difference"] < on["high"]
        assert on["p_holm"] >= on["p"]
    assert np.isnan(table.loc[("lora", "off", "DINO")]["difference"])
    assert table.loc[("lora", "on", "CLIP-T")]["difference"] == 0


def test_a_table_says_what_the_whole_curve_shows(study: planning.Study, tmp_path: Path) -> None:
    """A curve that rises by 0.4, falls by 0.3 and comes back, and one checkpoint of it."""
    found = rows_of(study, made_records.fill(study, tmp_path))[0].found[0]
    images = found.folder / "images.csv"
    mean = np.interp(np.arange(30), [0, 4, 11, 12, 17, 18, 29], [0.4, 0.8, 0.8, 0.5, 0.5, 0.8, 0.8])
    first = pd.read_csv(images).query("step == 0")
    noise = 0.005 * np.random.default_rng(1).standard_normal((30, len(first)))
    tables = [first.assign(step=10 * i, dino=level + noise[i]) for i, level in enumerate(mean)]
    pd.concat(tables).to_csv(images, index=False)
    curve = pd.concat(tables).groupby("step").mean().drop(columns=["prompt", "image"])
    curve.reset_index().to_csv(found.folder / "curve.csv", index=False)
    found = rows_of(study, tmp_path / "results")[0].found[0]
    dip, flagged, over = (scores_of_run(found, name) for name in ("dip", "flagged", "dino over steps"))
    assert dip == pytest.approx([0.3], abs=0.01)
    assert flagged == [1.0]
    assert over is not None and over.mean() == pytest.approx(np.trapezoid(mean) / 29, abs=0.005)


def test_the_paper_s_numbers_stand_beside_and_are_labelled(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    write_study(study, rows_of(study, results), results)
    table = pd.read_csv(results / "tables" / "table_1.csv").set_index(["method", "bnn", "metric"])
    assert table.loc[("lora", "on", "DINO")]["paper, SD 1.5: mean"] == 0.618
    assert table.loc[("dreambooth", "off", "CLIP-T")]["paper, SD 1.5: sd"] == 0.0017
    text = (results / "tables" / "table_1.md").read_text()
    assert "DINO (paper, SD 1.5)" in text
    assert "0.618 (0.0104)" in text


def test_every_run_has_a_line(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    assert main([str(results)]) == 0
    runs = pd.read_csv(results / "tables" / "runs.csv")
    assert len(runs) == 16
    assert set(runs["arm"]) == {"plain", "bnn"}
    assert (runs["minutes"] == 1).all()
    assert (runs["kind"] == "too_few_points").all()


def test_the_shape_of_a_curve_is_read_off_its_means() -> None:
    curve = {"step": np.arange(0.0, 50.0, 10.0), "dino": np.array([0.1, 0.8, 0.3, 0.55, 0.5]), "clip_t": np.full(5, 0.3)}
    shape = curve_shape(curve)
    assert (shape["at"], shape["at_step"], shape["last"]) == (10, 20, 0.5)
    assert (shape["fall"], shape["share_recovered"]) == pytest.approx((0.5, 0.5))
    assert curve_shape({name: values[:2] for name, values in curve.items()})["fall"] == 0


def test_missing_cells_are_shown_with_the_command_that_fills_them(study: planning.Study, tmp_path: Path) -> None:
    cells = tuple(cell for cell in study.cells if (cell.labels["method"], cell.labels["bnn"]) != ("lora", "on"))
    results = made_records.fill(study, tmp_path, cells)
    write_study(study, rows_of(study, results), results)
    text = (results / "tables" / "table_1.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("| lora") and "| on" in line]
    assert "0/4" in line
    assert "missing" in line
    assert f"4 runs are missing: `python -m bayesdiff.study table_1 --model toybox --results {results}`" in text
    assert main([str(results)]) == 0


def test_a_run_that_diverged_is_said_and_costs_its_pair_alone(study: planning.Study, tmp_path: Path) -> None:
    lost = study.cells[-1]
    results = made_records.fill(study, tmp_path, study.cells[:-1])
    made_records.fill_one(lost, tmp_path, "diverged")
    write_study(study, rows_of(study, results), results)
    text = (results / "tables" / "table_1.md").read_text()
    assert "3/4, 1 diverged" in text
    assert "missing" not in text
    line = pd.read_csv(results / "tables" / "table_1.csv").set_index(["method", "bnn", "metric"]).loc[("lora", "on", "DINO")]
    assert (line["runs"], line["diverged"], line["pairs"]) == (2, 1, 2)
    assert line["difference"] == pytest.approx(made_records.EFFECT, abs=0.03)


def test_the_paper_s_numbers_do_not_wait_for_runs_and_stand_beside_as_many_images_alone(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    made_records.prepare(folder)
    text = (
        (folder / "table_1.yaml")
        .read_text()
        .replace("    overrides: [shots.count=4]\n", "")
        .replace("grid:\n  method", "grid:\n  shots.count: [1, 4]\n  method", 1)
    )
    (folder / "table_1.yaml").write_text(text)
    study = planning.load_study("table_1")
    results = made_records.fill(
        study, tmp_path, tuple(c for c in study.cells if (c.labels["method"], c.labels["shots.count"]) != ("lora", "4"))
    )
    rows = rows_of(study, results)
    printed = printed_table(study, rows, study_table(study, rows)).set_index(["shots.count", "method", "bnn"])
    assert set(printed.loc["1"]["DINO (paper, SD 1.5)"]) == {"-"}
    assert printed.loc[("4", "lora", "on")]["DINO"] == "missing"
    assert printed.loc[("4", "lora", "on")]["DINO (paper, SD 1.5)"] == "0.618 (0.0104)"
    assert printed.loc[("4", "dreambooth", "off")]["HF energy"] != "missing"


def test_a_study_that_asks_for_cost_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    made_records.prepare(folder)
    (folder / "table_1.yaml").write_text((folder / "table_1.yaml").read_text().replace("grid:\n  method", "cost: true\ngrid:\n  method", 1))
    study = planning.load_study("table_1")
    rows = rows_of(study, made_records.fill(study, tmp_path))
    printed = printed_table(study, rows, study_table(study, rows))
    assert list(printed["training, s"]) == ["60.000 (0.000)", "60.000 (0.000); +0.000 [+0.000, +0.000], p 1.000"] * 2
    for row in rows:
        for found in row.found if row.labels["bnn"] == "on" else ():
            found.record.seconds["train"] = 66.0
    constant = printed_table(study, rows, study_table(study, rows))["training, s"]
    assert list(constant) == ["60.000 (0.000)", "66.000 (0.000); +6.000 [+6.000, +6.000]"] * 2, "no test, and not of one run a side"
    assert "GPU memory of training, GB" not in printed
    assert [cell.split()[0] for cell in printed["process memory to the end of training, GB"]] == ["1.049"] * 4


def test_models_with_records_are_found_and_put_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    overrides = "overrides: [data=toybox, shots.count=4, method=dreambooth]"
    of_model = f"    minutes: 1\n    {overrides}\n    grid: {{data.subject: [toy_dog, toy_robot], seed: [0, 1], method: [dreambooth]}}\n"
    head = "title: t\nexperiment: smoke\ncompare: {bnn: 'off'}\ngrid:\n  bnn: ['off', 'on']\nmodels:\n"
    (folder / "table_2.yaml").write_text(f"{head}  sd14:\n{of_model}  sd15:\n{of_model}")
    planning.EXPERIMENTS = folder
    for model in ("sd14", "sd15"):
        results = made_records.fill(planning.load_study("table_2", model), tmp_path)
    assert main([str(results)]) == 0
    assert {path.name for path in (results / "tables").glob("*.md")} == {
        "README.md",
        "runs.md",
        "table_2-sd14.md",
        "table_2-sd15.md",
        "table_2-sd14+sd15.md",
    }
    joint = pd.read_csv(results / "tables" / "table_2-sd14+sd15.csv").set_index(["model", "bnn", "metric"])
    assert joint.loc[("sd14", "on", "DINO")]["paper, same model: mean"] == 0.620
    assert joint.loc[("sd15", "on", "DINO")]["paper, same model: mean"] == 0.633
    assert joint.loc[("sd14", "on", "DINO")]["difference"] == pytest.approx(made_records.EFFECT, abs=0.02)
    assert "# t, on sd14, sd15\n" in (results / "tables" / "table_2-sd14+sd15.md").read_text()
    assert r"\caption{t, on sd14}" in (results / "tables" / "table_2-sd14.tex").read_text()
    assert main([str(results), "--model", "sd14"]) == 0
    assert main([str(results), "--model", "sd14+sd15", "--explain", "table_2", "model sd14, bnn on, dreambooth", "dino"]) == 0
    assert "difference from: model sd14, bnn off, dreambooth, 4 pairs" in capsys.readouterr().out


def test_the_last_checkpoint_is_drawn_over_the_axis_a_study_names(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    write_study(replace(study, x="method"), rows_of(study, results), results)
    assert {path.name for path in (results / "figures").iterdir()} == {
        f"table_1{part}.{kind}" for part in ("", "-last") for kind in ("png", "svg")
    }
    points = last_points(rows_of(study, results), "method", "dino")
    assert list(points) == ["plain", "Bayesian"]
    for arm in points:
        assert [label for label, _, _ in points[arm]] == ["dreambooth", "lora"]
    for (_, off, _), (_, on, _) in zip(points["plain"], points["Bayesian"], strict=True):
        assert on - off == pytest.approx(made_records.EFFECT, abs=0.02)


def test_a_study_without_records_has_no_table(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path, study.cells[:1])
    shutil.rmtree(next((results / "records").iterdir()))
    assert not write_study(study, rows_of(study, results), results)
    assert not (results / "tables").exists()


def files(results: Path) -> dict[str, bytes]:
    found = [path for folder in ("tables", "figures") for path in (results / folder).iterdir()]
    return {str(path.relative_to(results)): path.read_bytes() for path in found}


def test_the_files_are_the_same_in_any_order_of_records_and_in_any_place(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    assert main([str(results)]) == 0
    first = files(results)
    assert {name.rpartition(".")[2] for name in first} == {"csv", "md", "tex", "png", "svg"}
    shuffled = tmp_path / "shuffled" / "results"
    for folder in reversed(record_folders(results)):
        shutil.copytree(folder, shuffled / "records" / folder.name)
    code = (
        "import sys; from pathlib import Path; from bayesdiff import tables; from bayesdiff.studies import plan; "
        f"plan.EXPERIMENTS = Path({str(planning.EXPERIMENTS)!r}); sys.exit(tables.main([{str(shuffled)!r}]))"
    )
    environment = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    assert files(shuffled) == first


def test_every_number_names_its_runs(study: planning.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = made_records.fill(study, tmp_path, study.cells[:-1])
    assert main([str(results), "--explain", "table_1", "lora, bnn off", "DINO"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 4
    shown = [float(line.split()[0]) for line in lines]
    row = next(row for row in rows_of(study, results) if row.name == "lora, bnn off")
    scores = values(row, "dino")
    assert scores is not None
    assert np.mean(shown) == pytest.approx(scores.mean(), abs=1e-5)
    assert all(record.run_key in "\n".join(lines) for record in (found.record for found in row.found))
    assert main([str(results), "--explain", "table_1", "lora, bnn on", "dino"]) == 0
    out = capsys.readouterr().out
    missing = study.cells[-1].labels
    assert f"missing  {study.cells[-1].name}: python -m bayesdiff.study table_1 --model toybox --results {results} --only " in out
    assert all(f"{axis}={label}" in out for axis, label in missing.items())
    difference, *behind = out.splitlines()[4:]
    assert difference == "difference from: lora, bnn off, 0 pairs"  # as long as a run is missing
    assert behind == lines
    assert main([str(results), "--explain", "table_1", "nothing", "dino"]) == 2
    assert "rows dreambooth, bnn off;" in capsys.readouterr().err


def test_nothing_is_written_for_a_model_that_no_study_has(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    assert main([str(results), "--model", "sd9"]) == 2
    assert not (results / "tables").exists()


def test_a_folder_without_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "--results" in capsys.readouterr().err


def test_people_read_how_each_curve_went(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    assert main([str(results)]) == 0
    lines = (results / "tables" / "runs.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ") and "too_few_points" in line]
    assert len(rows) == 16
    assert rows == sorted(rows, key=lambda line: [cell.strip() for cell in line.split("|")[1:6]])


def test_a_study_with_less_than_half_of_its_runs_gets_a_table_only_when_asked(
    study: planning.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = made_records.fill(study, tmp_path, study.cells[:7])
    assert main([str(results)]) == 0
    assert "table_1: 7 of 16 runs, no table yet" in capsys.readouterr().out
    assert not (results / "tables" / "table_1.md").exists()
    index = (results / "tables" / "README.md").read_text()
    assert "7 of 16 | no table yet | `python -m bayesdiff.study table_1 --model toybox --results" in index
    assert main([str(results), "--partial"]) == 0
    before = (results / "tables" / "table_1.md").read_text()
    made_records.fill_one(study.cells[7], tmp_path)
    for folder in record_folders(results)[:2]:
        shutil.rmtree(folder)
    assert main([str(results)]) == 0
    assert (results / "tables" / "table_1.md").read_text() != before  # a table that is there does not grow old
    assert "[table_1.md](table_1.md)" in (results / "tables" / "README.md").read_text()


def test_records_on_their_way_from_another_machine_are_missing_and_stop_no_table(
    study: planning.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = made_records.fill(study, tmp_path)
    first, second, *rest = record_folders(results)
    (first / "images.csv").unlink()
    (second / "record.json").write_text('{"run_key": "ab')
    assert main([str(results)]) == 0
    out = capsys.readouterr().out
    assert "2 records are not whole and left out:" in out
    assert f"{first / 'images.csv'}: missing; copy it again" in out and f"{second / 'record.json'}: damaged (" in out
    assert sum(row.missing for row in rows_of(study, results)) == 2
    assert len(pd.read_csv(results / "tables" / "runs.csv")) == len(rest)


def test_records_of_no_study_are_said(study: planning.Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = made_records.fill(study, tmp_path)
    first = record_folders(results)[0]
    record = json.loads((first / "record.json").read_text())
    shutil.copytree(first, results / "records" / "another")
    assert main([str(results)]) == 0
    assert f"of another run ({record['run_key']}); name the folder as its run was" in capsys.readouterr().out
    (results / "records" / "another" / "record.json").write_text(json.dumps(record | {"run_key": "another"}))
    assert main([str(results)]) == 0
    assert "1 records are of no study" in capsys.readouterr().out


def test_figures_draw_what_the_table_has(study: planning.Study, tmp_path: Path) -> None:
    """An arm without all its runs would be of other subjects than the one beside it."""
    results = made_records.fill(study, tmp_path, study.cells[:-1])
    *_, off, on = rows_of(study, results)
    assert curves_of(on) is None
    whole = curves_of(off)
    assert whole is not None and list(whole.columns) == [run.place for run in off.found]
    expected = pd.read_csv(off.found[0].folder / "curve.csv").set_index("step")["dino"]
    assert whole[off.found[0].place].to_dict() == pytest.approx(expected.to_dict())
    made_records.fill_one(study.cells[-1], tmp_path, "diverged")
    left = curves_of(rows_of(study, results)[-1])
    assert left is not None and left.shape[1] == 3


def test_a_run_that_diverged_before_its_first_checkpoint_says_so(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path, study.cells[:2])
    (results / "records" / "lost").mkdir()
    record = json.loads(next((results / "records").glob("*/record.json")).read_text()) | {
        "status": "diverged", "verdict": None, "run_key": "lost",
    }  # fmt: skip
    (results / "records" / "lost" / "record.json").write_text(json.dumps(record))
    assert main([str(results)]) == 0
    assert "| diverged " in (results / "tables" / "runs.md").read_text()


def test_one_run_on_each_side_has_an_interval_and_no_p_value(study: planning.Study, tmp_path: Path) -> None:
    one = planning.narrowed(study, ["data.subject=toy_dog", "seed=0"])
    rows = rows_of(one, made_records.fill(one, tmp_path))
    table = study_table(one, rows).set_index(["method", "bnn", "metric"])
    line = table.loc[("lora", "on", "DINO")]
    assert np.isnan(line["p"]) and line["low"] < line["difference"] < line["high"]
    assert line["over"] == "prompts images"
    printed = printed_table(one, rows, study_table(one, rows))
    assert printed["DINO"][1].endswith(", these runs")


def test_a_curve_too_short_for_a_verdict_has_no_dip(study: planning.Study, tmp_path: Path) -> None:
    """Three checkpoints: a depth of 0 would be a measurement that no one made."""
    rows = rows_of(study, made_records.fill(study, tmp_path))
    verdict = rows[0].found[0].verdict
    assert verdict is not None and verdict.kind == "too_few_points"
    assert values(rows[0], "dip") is None
    assert "dip" not in set(study_table(study, rows)["metric"])


def test_dollars_and_brackets_of_a_title_are_text(study: planning.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path)
    odd = replace(study, title="Ca$$h [x] 100 %", x="method")
    assert write_study(odd, rows_of(odd, results), results)
    assert (results / "figures" / "table_1.png").exists()


def test_very_many_runs_are_drawn_as_one_collection(study: planning.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bayesdiff.studies import figures

    results = made_records.fill(study, tmp_path)
    write_study(study, rows_of(study, results), results)
    before = (results / "figures" / "table_1.png").read_bytes()
    monkeypatch.setattr(figures, "MANY", 2)
    write_study(study, rows_of(study, results), results)
    assert (results / "figures" / "table_1.svg").read_text().count("<image") == 4
    assert (results / "figures" / "table_1.png").read_bytes() != before


@pytest.mark.slow
def test_the_committed_tables_are_what_the_committed_records_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``make paper-tables`` on a clone changes nothing, under the tested set of packages."""
    committed, here = ROOT / "results", tmp_path / "results"
    shutil.copytree(committed / "toybox" / "records", here / "toybox" / "records")
    for name in ("claims.yaml", "README.md"):
        shutil.copy(committed / name, here / name)
    monkeypatch.chdir(tmp_path)
    assert main(["results/toybox"]) == claims.main(["results/toybox"]) == 0
    written = [path for folder in ("tables", "figures") for path in (here / "toybox" / folder).iterdir()]
    assert len(written) > 50
    for path in [here / "README.md", here / "toybox" / "claims.md", *written]:
        assert path.read_bytes() == (committed / path.relative_to(here)).read_bytes(), path.name


def test_arms_of_a_figure_differ_without_colour_and_are_named_in_words(
    study: planning.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bayesdiff.studies import figures

    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, *_: kept.append(figure))
    figures.draw_curves(study, rows_of(study, made_records.fill(study, tmp_path)), tmp_path / "x.png")
    for axes in kept[0].findobj(Axes):
        named = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert [line.get_label() for line in named] == ["plain (mean of 4 runs)", "Bayesian (mean of 4 runs)"]
        assert len({(line.get_marker(), line.get_linestyle()) for line in named}) == 2
    assert [axes.get_title() for axes in kept[0].findobj(Axes)] == ["dreambooth", "lora"]


def test_a_mean_says_over_how_many_runs_it_is_and_which_are_left_out(tmp_path: Path) -> None:
    """One run of four diverged, and the mean is of the two of the other subject."""
    study = made_records.prepare(tmp_path / "studies")
    lost = next(cell for cell in study.cells if list(cell.labels.values()) == ["lora", "on", "toy_dog", "1"])
    results = made_records.fill(study, tmp_path, tuple(cell for cell in study.cells if cell != lost))
    made_records.fill_one(lost, tmp_path, "diverged")
    archive = open_archive(results)
    line = study_table(study, rows_of_archive(study, archive)).set_index(["method", "bnn", "metric"]).loc[("lora", "on", "DINO")]
    assert (line["runs"], line["diverged"], line["pairs"]) == (2, 1, 2)
    said = explain(study, archive, "lora, bnn on", "DINO").split("difference from")[0].splitlines()
    used = [float(text.split()[0]) for text in said if "left out" not in text and "diverged" not in text]
    assert np.mean(used) == pytest.approx(line["mean"], abs=1e-4) and len(used) == 2
    assert [text.split("  ")[1] for text in said if "left out" in text] == ["method=lora bnn=on data.subject=toy_dog seed=0"]
