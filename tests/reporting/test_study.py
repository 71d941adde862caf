"""The page of a study and the site of a result set: right numbers, every run behind a link, and what is absent said."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import open_archive
from bayesdiff.recording.collect import collect
from bayesdiff.reporting.pages import MOST_ARMS
from bayesdiff.reporting.site import write_site
from bayesdiff.reporting.study import answer_of, costs_of, grid_uris, settings_of, study_page
from bayesdiff.studies import plan
from bayesdiff.studies.rows import rows_of
from bayesdiff.studies.tables import study_table
from tests import made_records
from tests.made_pages import HOSTILE, Page, check_whole

pytestmark = pytest.mark.usefixtures("restored_studies")


@pytest.fixture
def study(tmp_path: Path) -> plan.Study:
    return made_records.prepare(tmp_path / "studies")


def test_every_run_is_behind_a_link_and_differences_are_the_tables(study: plan.Study, tmp_path: Path) -> None:
    archive = open_archive(made_records.fill(study, tmp_path))
    page = Page(study_page(study, archive))
    check_whole(page)
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and str(attributes.get("href")).startswith("#run-")]
    there = [f"#{attributes['id']}" for tag, attributes in page.elements if tag == "details" and "data-run" in attributes]
    assert sorted(links) == sorted(there)
    assert len(there) == len(study.cells) == 16
    rows = rows_of(study, archive)
    table = study_table(study, rows)
    expected = table[(table["metric"] == "DINO") & table["difference"].notna()]
    shown = page.data["differences"]["dino"]
    assert [line["mean"] for line in shown] == pytest.approx(list(expected["difference"]))
    assert [line["low"] for line in shown] == pytest.approx(list(expected["low"]))
    assert "Against plain, DINO at the last checkpoint is higher in 2 of 2 rows" in page.text
    assert "16 of 16 runs have a record" in page.text
    assert "95 % intervals over subjects; of one subject over seeds" in page.text, "as the statistics have them"
    assert "a committed record has the scores of every image" in page.text


def test_settings_that_differ_cost_and_commands_are_there(study: plan.Study, tmp_path: Path) -> None:
    archive = open_archive(made_records.fill(study, tmp_path))
    rows = rows_of(study, archive)
    found = settings_of(rows)
    assert found["heads"] == ["method.name", "method.learning_rate", "bnn.kind"] or set(found["heads"]) >= {"method.name", "bnn.kind"}
    assert not {"seed", "data.subject"} & set(found["heads"])
    assert dict(found["rows"])["lora, Bayesian"][found["heads"].index("bnn.kind")] == "gaussian"
    cost = costs_of(rows)
    assert (cost["heads"], cost["whole"]) == (["training", "all", "memory"], "16.0 min")
    assert cost["rows"][0] == ("dreambooth, plain", ["60.0 s", "60.0 s", "1.05 GB"])
    page = Page(study_page(study, archive))
    assert "Settings that differ" in page.text and "16.0 min for all runs" in page.text
    assert "python -m bayesdiff.study table_1 --model toybox" in page.text


def test_a_study_without_pairs_says_which_arm_ends_highest(study: plan.Study, tmp_path: Path) -> None:
    alone = replace(study, compare=None)
    rows = rows_of(alone, open_archive(made_records.fill(study, tmp_path)))
    answer = answer_of(alone, rows, study_table(alone, rows))
    assert re.match(r"DINO at the last checkpoint is highest with \w+, Bayesian \(0\.\d\d\), and lowest with \w+, plain", answer["first"])
    assert "too few arms" in answer_of(alone, rows[:1], study_table(alone, rows[:1]))["first"]


def test_a_difference_that_does_not_outlast_the_correction_is_said(study: plan.Study, tmp_path: Path) -> None:
    rows = rows_of(study, open_archive(made_records.fill(study, tmp_path)))
    table = study_table(study, rows)
    answer = answer_of(study, rows, table)
    assert answer["first"].startswith("Against plain, DINO at the last checkpoint is higher in 2 of 2 rows")
    assert answer["rest"].startswith("2 of these differences outlast the correction")
    table["p_holm"] = 1.0
    answer = answer_of(study, rows, table)
    assert answer["first"].startswith("Against plain, no difference in DINO at the last checkpoint outlasts the correction")
    assert answer["rest"].startswith("One by one, DINO is higher in 2 of 2 rows")


def test_curves_of_a_row_are_its_runs_mean_and_extremes(study: plan.Study, tmp_path: Path) -> None:
    data = Page(study_page(study, open_archive(made_records.fill(study, tmp_path)))).data
    assert [group["title"] for group in data["groups"]] == ["dreambooth", "lora"]
    off = [arm["curves"]["dino"]["mean"] for arm in data["arms"] if arm["label"].startswith("dreambooth, plain")]
    assert len(off) == 4
    line = data["groups"][0]["rows"][0]["curves"]["dino"]
    for t in range(3):
        values = [curve[t] for curve in off]
        assert line["mean"][t] == pytest.approx(sum(values) / 4, abs=2e-5)
        assert (line["low"][t], line["high"][t]) == pytest.approx((min(values), max(values)), abs=2e-5)


def test_the_verdicts_that_are_counted_are_the_runs_own(study: plan.Study, tmp_path: Path) -> None:
    """Not those of whichever evaluation of the same runs stands last."""
    made_records.evaluate(made_records.make_run(study.cells[0], tmp_path / "runs"), "later")
    collect(next((tmp_path / "runs").iterdir()), tmp_path / "results")
    seen = replace(study, evaluations=("main", "later"))
    rows = rows_of(seen, open_archive(tmp_path / "results"))
    own, later = next((row.found[0], other.found[0]) for row, other in pairwise(rows) if row.found and other.found)
    assert (own.evaluation, later.evaluation) == ("main", "later")
    assert own.verdict is not None
    own.run.scores["main"] = replace(own.scores, verdict=replace(own.verdict, flagged=True))
    assert "A corruption stage is told in 1 of 1 runs" in answer_of(seen, rows, study_table(seen, rows))["rest"]


def test_missing_runs_are_said_with_their_command(study: plan.Study, tmp_path: Path) -> None:
    page = Page(study_page(study, open_archive(made_records.fill(study, tmp_path, study.cells[:3]))))
    check_whole(page)
    assert "3 of 16 runs have a record" in page.text
    assert "13 runs that are not made yet: python -m bayesdiff.study table_1" in page.text


def test_a_study_without_a_record_is_refused(study: plan.Study, tmp_path: Path) -> None:
    (tmp_path / "results" / "records").mkdir(parents=True)
    with pytest.raises(UserError, match=r"table_1: no record in .*; make some with python -m bayesdiff.study table_1"):
        study_page(study, open_archive(tmp_path / "results"))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_of_a_study_stays_text(tmp_path: Path, hostile: str) -> None:
    """Through its title, what it answers and the labels of an axis."""
    import yaml

    content = yaml.safe_load(made_records.STUDY)
    content["title"] = content["paper"] = f"x {hostile}"
    content["grid"] = {"arm": {f"plain {hostile}": 'bnn="off"', f"other {hostile}": "bnn=on"}, "bnn": ["off"]}
    content["grid"] = {"arm": {f"plain {hostile}": ["bnn=off"], f"other {hostile}": ["bnn=on"]}}
    content["compare"] = {"arm": f"plain {hostile}"}
    content["models"]["toybox"]["grid"] = {"data.subject": ["toy_dog"], "seed": [0, 1]}
    (folder := tmp_path / "studies").mkdir()
    (folder / "table_1.yaml").write_text("# head\n" + yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    plan.EXPERIMENTS = folder
    study = plan.load_study("table_1")
    cells = [
        plan.Cell({**cell.labels, "method": "dreambooth", "bnn": "on" if "other" in cell.labels["arm"] else "off"}, cell.overrides)
        for cell in study.cells
    ]
    results = made_records.fill(study, tmp_path, tuple(cells))
    page = Page(study_page(study, open_archive(results)))
    check_whole(page)
    assert page.text.count(hostile) >= 4
    index = write_site(open_archive(results), tmp_path / "site")[0]
    check_whole(Page(index.read_text()))


def test_a_site_is_an_index_and_a_page_a_study(study: plan.Study, tmp_path: Path) -> None:
    results = made_records.fill(study, tmp_path, study.cells[:4])
    index, *pages = write_site(open_archive(results), tmp_path / "site")
    assert [path.name for path in pages] == ["table_1.html"]
    links = [attributes["href"] for tag, attributes in Page(index.read_text()).elements if tag == "a"]
    assert links == ["#answer", "table_1.html"]
    assert "index.html" in [attributes.get("href") for _, attributes in Page(pages[0].read_text()).elements]
    assert index.stat().st_size < 60_000


def test_the_same_records_give_the_same_page(study: plan.Study, tmp_path: Path) -> None:
    archive = open_archive(made_records.fill(study, tmp_path, study.cells[:4]))
    assert _without_ids(study_page(study, archive)) == _without_ids(study_page(study, archive))


def _without_ids(text: str) -> str:
    """Bokeh numbers its models as they are made in a process."""
    return re.sub(r'"p\d+"|[0-9a-f]{8}-[0-9a-f-]{27}', "id", text)


def test_grids_of_samples_fit_their_budget(tmp_path: Path) -> None:
    import numpy as np

    paths = []
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (120, 240, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    whole = grid_uris([*paths, None], 10**9)
    assert all(uri.startswith("data:image/png") for uri in whole[:-1]) and whole[-1] == ""
    less = grid_uris(paths, sum(map(len, whole)) // 3)
    assert sum(map(len, less)) <= sum(map(len, whole)) / 3
    assert all(uri.startswith("data:image/webp") for uri in less)


def test_more_arms_than_marks_share_several_charts(tmp_path: Path) -> None:
    text = made_records.STUDY.replace(
        'method: [dreambooth, lora]\n  bnn: ["off", "on"]', 'bnn: ["off", "on"]\n  method.rank: [1, 2, 3, 4, 5, 6, 7, 8]'
    )
    text = (
        text.replace('compare: {bnn: "off"}', "compare: {method.rank: 1}")
        .replace("[toy_dog, toy_robot]", "[toy_dog]")
        .replace("seed: [0, 1]", "seed: [0]")
    )
    (folder := tmp_path / "studies").mkdir()
    (folder / "table_1.yaml").write_text(text.replace("experiment: smoke", "experiment: smoke\noverrides: [method=lora]").lstrip())
    plan.EXPERIMENTS = folder
    study = plan.load_study("table_1")
    cells = tuple(plan.Cell({**cell.labels, "method": "lora"}, cell.overrides) for cell in study.cells)
    data = Page(study_page(study, open_archive(made_records.fill(study, tmp_path, cells)))).data
    assert [len(group["rows"]) for group in data["groups"]] == [MOST_ARMS, 3, MOST_ARMS, 3]
    assert {group["rows"][0]["label"] for group in data["groups"]} == {"rank 1 (1 run)"}
    assert [group["title"] for group in data["groups"]] == ["plain, 1 of 2", "plain, 2 of 2", "Bayesian, 1 of 2", "Bayesian, 2 of 2"]
