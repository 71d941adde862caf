"""Claims are judged by the records of their study, and by nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from bayesdiff.claims import main
from bayesdiff.recording.archive import Archive, open_archive
from bayesdiff.stats import Difference, detectable
from bayesdiff.studies import claims as judging
from bayesdiff.studies import plan as planning
from bayesdiff.studies.claims import (
    AGAINST,
    DIVERGED,
    HOLDS,
    MISSING,
    OPEN,
    SMALLER,
    UNMEASURED,
    Claim,
    Finding,
    claims_table,
    conclusion,
    judge,
    load_claims,
)
from bayesdiff.studies.measures import MEASURES
from bayesdiff.studies.plan import Study
from bayesdiff.studies.rows import Found, Row, scores_of_run
from bayesdiff.studies.rows import rows_of as rows_of_archive
from tests.made_records import EFFECT, fill, prepare

HIGHER = Claim("Gaussian weights raise DINO", study="table_1", measure="dino", row={"method": "lora", "bnn": "on"}, against={"bnn": "off"})


@pytest.fixture
def study(tmp_path: Path, restored_studies: None) -> Study:
    return prepare(tmp_path / "experiments")


def rows_of(study: Study, results: Path) -> list[Row]:
    return rows_of_archive(study, open_archive(results))


def verdict(finding: Finding) -> str:
    return str(claims_table([finding])["verdict"].iloc[0])


def test_a_difference_that_is_there_holds_and_its_opposite_is_contradicted(study: Study, tmp_path: Path) -> None:
    rows = rows_of(study, fill(study, tmp_path))
    found = judge(HIGHER, rows)
    assert (verdict(found), found.runs) == (HOLDS, "4 + 4 of 4 + 4")
    assert float(found.effect.split()[0]) == pytest.approx(EFFECT, abs=0.03)
    assert 0 < found.std_error < EFFECT
    assert verdict(judge(replace(HIGHER, expected="lower"), rows)) == AGAINST
    assert verdict(judge(replace(HIGHER, measure="dino over steps"), rows)) == HOLDS


def test_a_difference_that_is_not_there_is_not_decided(study: Study, tmp_path: Path) -> None:
    rows = rows_of(study, fill(study, tmp_path))
    assert verdict(judge(replace(HIGHER, measure="clip_t"), rows)) == OPEN
    assert verdict(judge(replace(HIGHER, measure="clip_t", expected="same"), rows)) == HOLDS
    assert verdict(judge(replace(HIGHER, expected="same"), rows)) == AGAINST


def test_a_missing_run_leaves_a_claim_open(study: Study, tmp_path: Path) -> None:
    rows = rows_of(study, fill(study, tmp_path, study.cells[:-1]))
    found = judge(HIGHER, rows)
    assert (verdict(found), found.runs, found.effect, found.planned) == (MISSING, "3 + 4 of 4 + 4", "", 2)
    assert verdict(judge(replace(HIGHER, row={"method": "dreambooth", "bnn": "on"}), rows)) == HOLDS
    assert verdict(judge(replace(HIGHER, measure="lpips", row={"method": "dreambooth", "bnn": "on"}), rows)) == UNMEASURED
    diverged = [replace(row, diverged=1) if not row.complete else row for row in rows]
    assert verdict(judge(HIGHER, diverged)) == DIVERGED


def test_runs_of_a_row_are_judged_together(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds with a stage of 0.3 that no single run shows beyond its own noise; and three without one."""
    steps = list(range(0, 200, 10))
    shape = np.interp(steps, [0, 40, 60, 80, 120, 140, 190], [0.2, 0.7, 0.7, 0.4, 0.4, 0.7, 0.7])
    rows = rows_of(study, fill(study, tmp_path))
    monkeypatch.setattr(judging, "detectable_depth", lambda curves, alpha, power: 0.1)
    claim = Claim("a stage", study="table_1", measure="stage", row={"method": "lora", "bnn": "off"})
    for mean, expected in ((shape, HOLDS), (np.maximum.accumulate(shape), OPEN)):
        monkeypatch.setattr(judging, "fidelity_of", lambda found, mean=mean: (steps, _noisy(found.folder, mean)))
        found = judge(claim, rows)
        assert verdict(found) == expected
        assert "0 of 4 runs flagged alone" in found.effect


def _noisy(folder: Path, mean: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(list(folder.name.encode()))
    return mean[:, None] + 0.08 * rng.standard_normal((len(mean), 1)) + 0.02 * rng.standard_normal((len(mean), 4))


def test_runs_that_are_missing_say_what_they_would_find() -> None:
    """With the median scatter of a pair among the page's other claims about the measure; two pairs find nothing that there can be."""
    told = [Finding(HIGHER, "3 + 3 of 3 + 3", "+0.1", 0.5, std_error=deviation / np.sqrt(3), freedom=2) for deviation in (0.01, 0.02, 5.0)]
    missing = [Finding(HIGHER, "0 + 0 of 8 + 8", lacking=MISSING, planned=pairs) for pairs in (8, 2, 1)]
    other = Finding(replace(HIGHER, measure="diversity"), "0 + 0 of 8 + 8", lacking=MISSING, planned=8)
    _, _, _, eight, two, one, diversity = claims_table([*told, *missing, other])["detectable"]
    alpha = 0.05 / 3
    assert eight == f"{detectable(0.02 / np.sqrt(8), 7, alpha=alpha):.3f} (planned)"
    assert (two, one, diversity) == (f"{detectable(0.02 / np.sqrt(2), 1, alpha=alpha):.3f} (planned)", "-", "-")
    wide = [replace(finding, std_error=0.1) for finding in told]
    assert claims_table([*wide, missing[1]])["detectable"][3] == "none (planned)"


def test_a_stage_that_was_looked_for_says_how_deep_it_had_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []
    monkeypatch.setattr(judging, "detectable_depth", lambda curves, alpha, power: asked.append((len(curves), alpha)) or float("inf"))
    findings = [Finding(HIGHER, "6 of 6", p_value=0.4, curves=np.zeros((6, 15))), Finding(HIGHER, "2 + 2", p_value=0.5)]
    assert list(claims_table(findings)["detectable"]) == ["none", "-"]
    assert asked == [(6, 0.025)]


def test_what_counts_as_holding() -> None:
    def of(sign: int, p: float, expected: str = "higher") -> str:
        return conclusion(Finding(Claim("x", expected=expected), "1", "+0.1", p, sign=sign), p)

    assert [of(1, 0.05), of(-1, 0.01), of(1, 0.051), of(-1, 0.2), of(1, float("nan"))] == [HOLDS, AGAINST, OPEN, OPEN, OPEN]
    assert [of(1, 0.01, "same"), of(1, 0.06, "same"), of(-1, 0.01, "same"), of(-1, 0.06, "same")] == [HOLDS, OPEN, AGAINST, OPEN]


def made(mean: float, claim: Claim, error: float = 0.01, freedom: float = 5.0) -> Finding:
    """The finding of a difference with a known error."""
    half = float(t.ppf(0.975, freedom)) * error
    one = {name: np.array([value]) for name, value in (("mean", mean), ("low", mean - half), ("high", mean + half))}
    found = Difference(**one, p_value=np.array([0.5]), std_error=np.array([error]), freedom=np.array([freedom]), levels=("seeds",))
    return judging._difference(claim, "1", found)


@pytest.mark.parametrize(
    ("mean", "expected"), [(0.01, HOLDS), (-0.02, HOLDS), (0.03, OPEN), (0.06, OPEN), (0.08, AGAINST), (-0.09, AGAINST)]
)
def test_the_same_means_the_whole_interval_lies_within_the_margin(mean: float, expected: str) -> None:
    """Alone on a page, its p-value and its interval (here 0.0257 on each side) say the same."""
    assert verdict(made(mean, Claim("x", expected="same", within=0.05))) == expected


def test_the_same_pays_for_the_other_claims_of_the_page() -> None:
    same = made(0.01, Claim("x", expected="same", within=0.05))
    assert claims_table([same])["verdict"][0] == HOLDS
    assert claims_table([same, *[Finding(HIGHER, "1", p_value=0.5)] * 40])["verdict"][0] == OPEN


@pytest.mark.parametrize(
    ("mean", "effect", "expected"),
    [(0.01, 0.1, SMALLER), (-0.2, 0.1, SMALLER), (0.09, 0.1, OPEN), (0.2, 0.1, OPEN), (-0.01, -0.1, SMALLER), (-0.2, -0.1, OPEN)],
)
def test_an_interval_that_ends_before_the_paper_s_difference_excludes_it(mean: float, effect: float, expected: str) -> None:
    finding = made(mean, Claim("x", effect=effect))
    assert verdict(finding) == expected
    assert np.isnan(finding.p_smaller) == (abs(mean) == 0.2 and mean * effect > 0)


def test_what_holds_is_not_said_to_be_excluded_too() -> None:
    assert conclusion(replace(made(0.05, Claim("x", effect=0.1)), p_value=0.001), 0.01) == HOLDS


def test_p_values_are_corrected_over_the_page() -> None:
    findings = [Finding(HIGHER, "1", "+0.1", p, sign=1) for p in (0.02, 0.02, 0.5)]
    assert claims_table(findings)["verdict"].tolist() == [OPEN, OPEN, OPEN]
    assert verdict(findings[0]) == HOLDS


def test_the_page_goes_between_the_marks_and_nothing_else_changes(study: Study, tmp_path: Path) -> None:
    results = fill(study, tmp_path)
    (tmp_path / "claims.yaml").write_text(
        '- {claim: up, study: table_1, measure: dino, row: {method: lora, bnn: "on"}, against: {bnn: "off"}}\n'
    )
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- claims of results -->\nstale page\n<!-- end of claims -->\nafter\n")
    assert main([str(results)]) == 0
    first = readme.read_text()
    assert first.startswith("before\n<!-- claims of results -->\nExploratory: ") and first.endswith("<!-- end of claims -->\nafter\n")
    assert "stale page" not in first and "1 claims: 1 holds" in first
    assert (results / "claims.md").read_text().startswith("# Claim by claim")
    assert main([str(results)]) == 0
    assert readme.read_text() == first


def test_the_page_is_the_same_where_texts_are_not_utf_8_by_default(study: Study, tmp_path: Path) -> None:
    results = fill(study, tmp_path)
    (tmp_path / "claims.yaml").write_text(
        '- {claim: "höher …", study: table_1, measure: dino, row: {method: lora, bnn: "on"}, against: {bnn: "off"}}\n', encoding="utf-8"
    )
    readme = tmp_path / "README.md"
    readme.write_text("vorher …\n<!-- claims of results -->\n<!-- end of claims -->\nnachher …\n", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from bayesdiff import claims; from bayesdiff.studies import plan; "
        f"plan.EXPERIMENTS = Path({str(planning.EXPERIMENTS)!r}); sys.exit(claims.main([{str(results)!r}]))"
    )
    pages = []
    for environment in ({"PYTHONUTF8": "1"}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}):
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment}, capture_output=True)
        pages.append(readme.read_bytes())
    assert pages[0] == pages[1]
    assert pages[0].decode().startswith("vorher …\n") and "höher …" in pages[0].decode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("- {claim: x, studi: table_1}", "studi"),
        ("- {claim: x, study: table_1, measure: dino, expected: more}", "higher, lower, same"),
        ("- {claim: x, study: table_1, measure: dino, row: {bnn: 'on'}, against: {bnn: 'off'}}", "2 rows of table_1"),
        ("- {claim: x, study: table_1, measure: dinoo, against: {bnn: 'off'}}", "dinoo"),
        ("- {claim: x, study: table_1, measure: dino, row: {bnn: 'on'}}", "against"),
        ("- {claim: x, study: table_9, measure: dino, against: {bnn: 'off'}}", "table_9"),
        ("claim: x", "is no list of claims"),
        ("- claim", "is no list of claims"),
        ("- {claim: x", "list.yaml: while parsing"),
        ("- claim: x\n  study: table_1\n  claim: y", "list.yaml: line 3: key claim stands twice"),
        ("- {claim: x, study: table_1, row: {bnn: 'on', bnn: 'off'}}", "line 1: key bnn stands twice"),
    ],
)
def test_a_wrong_list_is_refused(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    results = fill(study, tmp_path)
    (tmp_path / "list.yaml").write_text(line + "\n")
    assert main([str(results), "--claims", str(tmp_path / "list.yaml")]) == 2
    assert message in capsys.readouterr().err
    assert not (results / "claims.md").exists()


def test_every_claim_of_the_list_names_rows_of_its_study() -> None:
    root = Path(__file__).resolve().parents[2]
    claims = load_claims(root / "results" / "claims.yaml")
    assert len(claims) >= 20
    from bayesdiff.studies.plan import load_study

    rows = {name: rows_of_archive(load_study(name), Archive(root / "nowhere", {}, {})) for name in {claim.study for claim in claims}}
    for claim in claims:
        assert judge(claim, rows[claim.study]).effect == ""


def test_measures_of_a_run(study: Study, tmp_path: Path) -> None:
    row = rows_of(study, fill(study, tmp_path))[0]
    over = scores_of_run(row.found[0], "dino over steps")
    curve = pd.read_csv(row.found[0].folder / "curve.csv")
    assert over is not None and over.mean() == pytest.approx(np.trapezoid(curve["dino"], curve["step"]) / 20, abs=1e-4)
    assert scores_of_run(row.found[0], "seconds of training (log)") == pytest.approx([np.log(60.0)])
    images = row.found[0].folder / "images.csv"
    last = pd.read_csv(images).query("step == step.max()")
    last.to_csv(images, index=False)
    head, *_, end = (images.parent / "curve.csv").read_text().splitlines()
    (images.parent / "curve.csv").write_text(f"{head}\n{end}\n")
    content = json.loads((images.parent / "record.json").read_text())
    content["config"]["schedule"]["checkpoints"] = [int(last["step"].iloc[0])]
    (images.parent / "record.json").write_text(json.dumps(content))
    changed = rows_of(study, tmp_path / "results")[0].found[0]
    assert scores_of_run(changed, "dino over steps") is None  # one checkpoint is no curve
    assert scores_of_run(changed, "dino") == pytest.approx(last["dino"].to_numpy())


def test_what_runs_would_have_found_counts_the_correction() -> None:
    """Half as much with a quarter of the error; more claims on the page, a larger difference."""
    found = Finding(HIGHER, "1", "+0.1", 0.01, 0.02, 1e6, 1)
    alone, among = claims_table([found]), claims_table([found] * 20)
    assert float(alone["detectable"][0]) == pytest.approx((1.960 + 0.842) * 0.02, abs=1e-3)
    assert float(among["detectable"][0]) == pytest.approx((3.023 + 0.842) * 0.02, abs=1e-3)
    few = claims_table([replace(found, freedom=2.0)] * 20)
    assert float(few["detectable"][0]) == pytest.approx(25.4 * 0.02, rel=0.01)  # the noncentral t of three runs


def test_power_at_the_papers_effect_and_what_cannot_be_found() -> None:
    found = Finding(replace(HIGHER, effect=0.056), "1", "+0.1", 0.01, 0.02, 1e6, 1)
    assert claims_table([found])["power at the paper's"][0] == "80.0%"
    assert claims_table([replace(found, std_error=0.2)] * 20)["power at the paper's"][0].startswith("0.")
    assert claims_table([replace(found, claim=HIGHER)])["power at the paper's"][0] == "-"
    assert claims_table([replace(found, std_error=0.8)])["detectable"][0] == "none"  # cosines are never 2.2 apart
    assert claims_table([replace(found, std_error=0.8, largest=1000.0)])["detectable"][0] != "none"


def test_one_run_on_each_side_decides_nothing() -> None:
    one = {name: np.array([value]) for name, value in (("mean", 0.3), ("low", 0.2), ("high", 0.4), ("p_value", 0.001), ("std_error", 0.05))}
    found = Difference(**one, freedom=np.array([3.0]), levels=("prompts", "images"))
    for expected in ("higher", "same"):
        finding = judging._difference(Claim("x", expected=expected), "1 + 1", found)
        assert verdict(finding) == OPEN
        assert finding.effect.endswith("(these runs)")


def test_the_shipped_list_is_for_the_toybox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "results"), "--model", "sd15"]) == 2
    assert "--claims" in capsys.readouterr().err


def fall_at(found: Found, dino: list[float]) -> float:
    curve = {"step": np.array([0.0, 10.0, 20.0]), "dino": np.array(dino)}
    at = MEASURES["step of the deepest fall"].read(found.run, replace(found.scores, curve=curve))
    assert at is not None
    return float(at[0])


def test_a_curve_that_never_falls_falls_last(study: Study, tmp_path: Path) -> None:
    found = rows_of(study, fill(study, tmp_path))[0].found[0]
    assert fall_at(found, [0.1, 0.5, 0.49]) == 20.0
    assert fall_at(found, [0.5, 0.1, 0.6]) == 10.0


OPENED = "before\n<!-- claims of results -->\nmine\n"


@pytest.mark.parametrize("page", [OPENED, f"{OPENED}<!-- claims of other -->\n<!-- end of claims -->\n"])
def test_text_behind_a_missing_end_mark_is_never_deleted(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], page: str
) -> None:
    results = fill(study, tmp_path)
    (tmp_path / "README.md").write_text(page)
    (tmp_path / "claims.yaml").write_text(
        '- {claim: up, study: table_1, measure: dino, row: {method: lora, bnn: "on"}, against: {bnn: "off"}}\n'
    )
    assert main([str(results)]) == 2
    assert (tmp_path / "README.md").read_text() == page
    assert "has no <!-- end of claims --> behind it; add that line" in capsys.readouterr().err


def test_a_damaged_record_is_named_and_costs_its_claims_alone(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = fill(study, tmp_path)
    damaged = sorted((results / "records").iterdir())[0]
    (damaged / "curve.csv").write_text("step,dino\n0,what\n")
    (tmp_path / "claims.yaml").write_text(
        '- {claim: up, study: table_1, measure: dino, row: {method: lora, bnn: "on"}, against: {bnn: "off"}}\n'
    )
    assert main([str(results)]) == 0
    assert f"{damaged / 'curve.csv'}: not a table of numbers" in capsys.readouterr().out


REGISTERED = """
study: table_1
windows: {before: [0, 5], middle: [10, 10]}
claims:
  - {name: grain, claim: it rises, parts: ["off: middle - before > 0"]}
"""


def test_a_set_without_registered_runs_leaves_another_sets_page_as_it_is(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page stands beside the sets; a set of other runs once replaced it by one that knows nothing."""
    (tmp_path / "mine" / "records").mkdir(parents=True)
    (tmp_path / "claims.yaml").write_text(
        "- {claim: up, study: table_1, measure: dino, row: {method: lora, bnn: 'on'}, against: {bnn: 'off'}}\n"
    )
    (tmp_path / "primary.yaml").write_text(REGISTERED)
    assert main([str(tmp_path / "mine")]) == 0
    assert "0 of 16 runs" in (tmp_path / "primary.md").read_text()
    (tmp_path / "primary.md").write_text("what another set showed")
    assert main([str(tmp_path / "mine")]) == 0
    assert (tmp_path / "primary.md").read_text() == "what another set showed"
    assert "primary.md: left as it is; " in capsys.readouterr().out
