"""The registered claims find an effect that was made, find none where none was made, and say what is missing."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bayesdiff.claims import main
from bayesdiff.core.errors import UserError
from bayesdiff.recording.archive import open_archive
from bayesdiff.studies import primary_figure
from bayesdiff.studies.plan import Cell, compose_cell, load_study
from bayesdiff.studies.primary import AGAINST, HOLDS, OPEN, Primary, costs, judge, load_registered, open_primary, parse_part
from bayesdiff.studies.primary_page import answers, page
from tests.made_records import Grain, made_curves

FILE = Path(__file__).resolve().parents[2] / "results" / "primary.yaml"
REPLICATION = FILE.with_name("replication.yaml")
PLAIN_HUMP, ON_HUMP, DROPPED_HUMP = 0.25, 0.15, 0.02


def made(
    cell: Cell, steps: NDArray[np.int64], rng: np.random.Generator, humps: dict[str, float], scatter: float = 0.05
) -> NDArray[np.float64]:
    """Grain of 0.9 with a hump between steps 200 and 1,000, whose height scatters over subjects."""
    own = humps[cell.labels["bnn"]] + scatter * rng.standard_normal()
    grain: NDArray[np.float64] = 0.9 + own * ((steps > 200) & (steps < 1000)) + 0.01 * rng.standard_normal(len(steps))
    return grain


def opened(results: Path, grain: Grain, cells: slice = slice(None), evaluations: tuple[str, ...] = ()) -> Primary:
    study = load_study("primary")
    return open_primary(FILE, open_archive(made_curves(study, results, grain, study.cells[cells], evaluations)))


@pytest.fixture(scope="module")
def with_an_effect(tmp_path_factory: pytest.TempPathFactory) -> Primary:
    humps = {"off": PLAIN_HUMP, "on": ON_HUMP, "prompt_dropout": DROPPED_HUMP}
    return opened(tmp_path_factory.mktemp("effect"), partial(made, humps=humps))


def test_an_effect_that_was_made_is_found(with_an_effect: Primary) -> None:
    grain, bayesian, dropout = judge(with_an_effect)
    assert [one.verdict for one in (grain, bayesian, dropout)] == [HOLDS, HOLDS, HOLDS]
    (_, before), (_, after) = grain.parts
    assert before.difference.mean[0] == pytest.approx(PLAIN_HUMP, abs=0.05) == after.difference.mean[0]
    assert bayesian.parts[0][1].difference.mean[0] == pytest.approx(ON_HUMP - PLAIN_HUMP, abs=0.05)
    assert len(before.subjects) == 16 and before.difference.freedom[0] == 15
    assert grain.p_value == max(before.p_value, after.p_value)
    assert "**Yes.** Bayesian weights reduce" in answers(with_an_effect)[1]
    assert "16 subjects, p < 0.0001)." in answers(with_an_effect)[2]


def test_evaluations_of_other_studies_runs_are_none_of_it(tmp_path: Path) -> None:
    humps = {"off": PLAIN_HUMP, "on": ON_HUMP, "prompt_dropout": DROPPED_HUMP}
    study = load_study("primary")
    results = made_curves(study, tmp_path, partial(made, humps=humps), study.cells[:3], ("guidance_1",))
    other = load_study("mechanism_looks")
    made_curves(other, results, lambda cell, steps, rng: 0.9 + 0.0 * steps, other.cells[:1], ("guidance_12",))
    seen = {row.labels["evaluation"] for row in open_primary(FILE, open_archive(results)).rows}
    assert seen == {"main", "guidance_1"}


def test_the_page_has_the_subjects_that_nobody_had_looked_at(with_an_effect: Primary) -> None:
    text = page(with_an_effect)
    unseen = text.partition("nobody had looked at")[2].partition("##")[0]
    assert "| 10 " in unseen and "| 16 " not in unseen and "All 48 runs have ended." in text
    assert {arm for arm, _ in costs(with_an_effect)} == {"on", "prompt_dropout"}


def test_the_page_says_which_device_made_the_runs(tmp_path: Path) -> None:
    """A difference of arms may not be one of devices; that subjects differ in it does no harm."""
    results, humps = tmp_path / "results", {"off": PLAIN_HUMP, "on": ON_HUMP, "prompt_dropout": DROPPED_HUMP}
    opened(results, partial(made, humps=humps))

    def on_gpu(pattern: str) -> str:
        for path in results.glob(f"records/*{pattern}*/record.json"):
            record = json.loads(path.read_text("utf-8"))
            record["environment"]["gpu"] = "NVIDIA H200"
            path.write_text(json.dumps(record), "utf-8")
        return page(open_primary(FILE, open_archive(results)))

    assert "All arms of a subject ran on one device: 1 on NVIDIA H200, 15 on a CPU." in on_gpu("toy_dog")
    assert "1 of 16 subjects have arms on different devices." in on_gpu("-plain-toy_cat")


def test_where_nothing_was_made_nothing_is_found(tmp_path: Path) -> None:
    primary = opened(tmp_path, partial(made, humps={"off": 0.0, "on": 0.0, "prompt_dropout": 0.0}))
    assert [one.verdict for one in judge(primary)] == [OPEN, OPEN, OPEN]
    assert all(line.startswith("- **Not decided** whether ") for line in answers(primary))


def test_the_opposite_of_a_claim_contradicts_it(tmp_path: Path) -> None:
    """Also where a part holds and the other is the opposite: the claim says both."""
    primary = opened(tmp_path, partial(made, humps={"off": 0.1, "on": 0.3, "prompt_dropout": 0.3}))
    assert judge(primary)[1].verdict == AGAINST


def test_missing_runs_are_said_and_nothing_is_computed(tmp_path: Path) -> None:
    humps = {"off": PLAIN_HUMP, "on": ON_HUMP, "prompt_dropout": DROPPED_HUMP}
    primary = opened(tmp_path, partial(made, humps=humps), slice(0, 47))
    assert judge(primary) == [] and costs(primary) == {}
    assert "**47 of 48 runs.**" in page(primary)
    assert all("47 of 48 runs have ended" in line for line in answers(primary))


def repeated(results: Path, hump: float, cells: slice = slice(None)) -> Primary:
    study = load_study("replication")
    grain = partial(made, humps={"off": hump})
    return open_primary(REPLICATION, open_archive(made_curves(study, results, grain, study.cells[cells])))


def test_the_replication_repeats_the_first_claim_as_it_was_registered() -> None:
    """Windows, measure and test are the registered ones; its runs are other runs of the same training."""
    first, again = load_registered(FILE), load_registered(REPLICATION)
    assert again.windows == first.windows
    assert [part for claim in again.claims for part in claim.parts] == first.claims[0].parts
    registered, seed = (compose_cell(load_study(name).cells[0]) for name in ("primary", "replication"))
    assert (registered.method, registered.shots, registered.training, registered.bnn) == (seed.method, seed.shots, seed.training, seed.bnn)
    assert (registered.schedule.steps, registered.seed, seed.seed) == (seed.schedule.steps, 0, 1)
    assert (registered.sampler.images_per_prompt, registered.sampler.prompts) == (seed.sampler.images_per_prompt, seed.sampler.prompts)
    for low, high in first.windows.values():
        inside = [[step for step in one.schedule.checkpoints if low <= step <= high] for one in (registered, seed)]
        assert inside[0] == inside[1]


def test_the_page_sets_the_replication_beside_the_same_subjects(tmp_path: Path, with_an_effect: Primary) -> None:
    replication = repeated(tmp_path, 0.1)
    section = page(with_an_effect, replication).partition("## Repeated with another order")[2].partition("\n## ")[0]
    claims, _, same = section.partition("These subjects in the registered runs")
    assert "All 8 runs have ended." in claims and claims.count("| holds ") == 2 and claims.count("| 8 ") == 2 == same.count("| 8 ")
    assert [one.verdict for one in judge(replication)] == [HOLDS, HOLDS]
    assert judge(replication)[0].parts[0][1].difference.mean[0] == pytest.approx(0.1, abs=0.06)
    assert "## Repeated" not in page(with_an_effect)


def test_a_replication_without_its_runs_says_so(tmp_path: Path, with_an_effect: Primary) -> None:
    replication = repeated(tmp_path, 0.1, slice(0, 7))
    section = page(with_an_effect, replication).partition("## Repeated with another order")[2].partition("\n## ")[0]
    assert "**7 of 8 runs.**" in section and "| " not in section


def test_the_command_writes_the_page_the_answers_and_a_figure_an_arm(tmp_path: Path) -> None:
    study = load_study("primary")
    humps = {"off": PLAIN_HUMP, "on": ON_HUMP, "prompt_dropout": DROPPED_HUMP}
    results = made_curves(study, tmp_path / "toybox", partial(made, humps=humps), study.cells[:3], ("ema",))
    (tmp_path / "claims.yaml").write_text("[]\n")
    (tmp_path / "primary.yaml").write_text(FILE.read_text())
    (tmp_path / "replication.yaml").write_text(REPLICATION.read_text())
    (tmp_path / "README.md").write_text("<!-- answers of toybox -->\n<!-- end of answers -->\n")
    assert main([str(results)]) == 0
    assert "3 of 48 runs" in (tmp_path / "primary.md").read_text()
    assert (tmp_path / "README.md").read_text().count("3 of 48 runs have ended") == 3
    assert (tmp_path / "README.md").read_text().count("0 of 8 runs have ended") == 2
    assert {path.name for path in (results / "figures").iterdir()} == {
        f"primary-{arm}-subjects.png" for arm in ("off", "on", "prompt_dropout")
    }


def test_the_means_of_the_arms_are_drawn_when_all_runs_have_ended(
    with_an_effect: Primary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[float]] = {}
    monkeypatch.setattr(primary_figure, "_draw_arm", lambda *of: None)
    monkeypatch.setattr(primary_figure, "save_figure", lambda figure, target: read_lines(figure, drawn))
    assert primary_figure.draw(with_an_effect, tmp_path)[0] == tmp_path / "primary-means.png"
    assert max(drawn["plain, guidance 7.5"]) == pytest.approx(0.9 + PLAIN_HUMP, abs=0.06)
    assert max(drawn["empty prompt in 30 %, guidance 7.5"]) == pytest.approx(0.9 + DROPPED_HUMP, abs=0.06)


def read_lines(figure: Any, into: dict[str, list[float]]) -> None:
    into.update({line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines})


@pytest.mark.parametrize("text", ["off: middle", "off - on: middle = 0", "off: centre - before > 0", "on: middle - first > 0"])
def test_a_part_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="part"):
        parse_part(text, load_registered(FILE))


def test_a_registered_file_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "primary.yaml").write_text(FILE.read_text() + "\nalpha: 0.1\n")
    with pytest.raises(UserError, match="restore the registered file"):
        load_registered(tmp_path / "primary.yaml")
