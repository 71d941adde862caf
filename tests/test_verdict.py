"""``python -m bayesdiff.verdict``: exit codes, words, JSON, pictures, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bayesdiff.core.errors import ExitCode
from bayesdiff.corruption.detector import KINDS, CorruptionVerdict, detect_corruption
from bayesdiff.verdict import main
from tests.corruption.test_detector import CLEAR, FIGURE_BASELINE, FIGURE_BAYESIAN, FIGURE_STEPS, TWELVE

NOTHING_FOUND, BAD, FOUND, CANNOT_JUDGE = ExitCode.DONE, ExitCode.BAD_INPUT, ExitCode.FOUND, ExitCode.NOT_JUDGED


def curve_file(folder: Path, steps: list[int], values: list[float], name: str = "curve.csv") -> str:
    path = folder / name
    path.write_text("step,dino\n" + "".join(f"{s},{v}\n" for s, v in zip(steps, values, strict=True)))
    return str(path)


def test_the_two_curves_of_the_paper_s_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = curve_file(tmp_path, FIGURE_STEPS, FIGURE_BASELINE, "plain.csv")
    bayesian = curve_file(tmp_path, FIGURE_STEPS, FIGURE_BAYESIAN, "bayesian.csv")
    assert main([plain]) == FOUND
    assert "Corrupted: fidelity peaks at step 250" in capsys.readouterr().out
    assert main([bayesian]) == NOTHING_FOUND
    assert "No corruption stage" in capsys.readouterr().out
    assert main([plain, bayesian]) == FOUND
    assert capsys.readouterr().out.count("noise:") == 2


def test_the_table_shows_every_checkpoint_and_what_to_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([curve_file(tmp_path, FIGURE_STEPS, FIGURE_BASELINE)])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("│")[1].strip(): line for line in lines if line.startswith("│")}
    assert set(rows) == {str(step) for step in FIGURE_STEPS}
    assert "corrupted" in rows["500"]
    assert "keep" in rows["4600"]


def test_json_is_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([curve_file(tmp_path, FIGURE_STEPS, FIGURE_BASELINE), "--json"]) == FOUND
    (found,) = json.loads(capsys.readouterr().out)
    extra = {key: found.pop(key) for key in ("source", "metric", "steps", "notes", "steps_to_avoid")}
    assert extra["steps"] == FIGURE_STEPS
    (stretch,) = extra["steps_to_avoid"]  # a bare curve has no level 1, and its sentence says what to avoid all the same
    assert found["avoid"] == [] and f"Avoid the steps from {stretch[0]} to before " in found["sentence"]
    assert CorruptionVerdict.from_dict(found) == detect_corruption(FIGURE_STEPS, FIGURE_BASELINE)


def test_a_picture_on_demand(tmp_path: Path) -> None:
    picture = tmp_path / "verdict.png"
    main([curve_file(tmp_path, FIGURE_STEPS, FIGURE_BASELINE), "--plot", str(picture)])
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.abs(pixels - np.array([250, 229, 229])).max(-1) <= 4).sum() > 5000


def test_percent_is_judged_as_percent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    share = [round(100 * v, 3) for v in CLEAR.mean(1)]
    assert main([curve_file(tmp_path, TWELVE, share)]) == main([curve_file(tmp_path, TWELVE, [v / 100 for v in share])])
    assert "taken as percent" in capsys.readouterr().out
    flat = 60 + 0.5 * np.sin(np.arange(12) * 1.3)
    assert main([curve_file(tmp_path, TWELVE, list(flat)), "--checkpoint-noise", "0.01"]) == NOTHING_FOUND
    assert main([curve_file(tmp_path, TWELVE, list(flat)), "--checkpoint-noise", "0.01", "--min-depth", "0.03"]) == FOUND


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{missing}"], "not there"),
        (["{curve}", "--alpha", "2"], "--alpha 2.0"),
        (["{curve}", "--min-depth", "-1"], "--min-depth -1.0"),
        (["{curve}", "--min-depth", "nan"], "--min-depth nan"),
        (["{curve}", "--checkpoint-noise", "nan"], "--checkpoint-noise nan"),
        (["{curve}", "--step", "x"], "--step"),
        (["{curve}", "--plot", "{curve}/x.png"], "curve.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    curve = curve_file(tmp_path, TWELVE, list(CLEAR.mean(1)))
    filled = [a.format(missing=tmp_path / "x.csv", curve=curve) for a in arguments]
    assert main(filled) == BAD
    captured = capsys.readouterr()
    assert captured.err.startswith("bayesdiff: ")
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def turned_file(folder: Path, name: str) -> str:
    path = folder / "curve.csv"
    path.write_text("\n".join([f"step,{name}", *[f"{s},{1 - v}" for s, v in zip(TWELVE, CLEAR.mean(1), strict=True)]]))
    return str(path)


@pytest.mark.parametrize("name", ["loss", "val_loss", "FID", "hf_energy", "lpips", "clip_loss"])
def test_scores_that_are_better_when_lower_by_their_name_are_turned(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = turned_file(tmp_path, name)
    assert main([path, "--checkpoint-noise", "0.01"]) == FOUND
    assert f"{name} is better when lower" in capsys.readouterr().out
    assert main([path, "--higher-is-better", "--checkpoint-noise", "0.01", "--json"]) in (NOTHING_FOUND, FOUND)
    assert "better when lower" not in capsys.readouterr().out


def test_a_name_that_does_not_say_which_way_is_better_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = turned_file(tmp_path, "q17")
    assert main([path]) == BAD
    assert "give --higher-is-better or --lower-is-better, or another column with --metric NAME" in capsys.readouterr().err
    assert main([path, "--lower-is-better", "--checkpoint-noise", "0.01"]) == FOUND


def test_a_score_that_is_better_when_lower_is_kept_where_it_is_lowest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prompt alignment beside it makes no trade-off with a turned score."""
    path, loss = tmp_path / "curve.csv", np.linspace(0.9, 0.2, 12)
    path.write_text("\n".join(["step,loss,clip_t", *[f"{s},{v:.3f},0.3" for s, v in zip(TWELVE, loss, strict=True)]]))
    assert main([str(path), "--metric", "loss", "--json"]) == NOTHING_FOUND
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["best_step"] == TWELVE[-1]


def test_a_bad_file_costs_itself_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = curve_file(tmp_path, FIGURE_STEPS, FIGURE_BASELINE, "plain.csv")
    broken = tmp_path / "broken.csv"
    broken.write_text("step,dino\n0,good\n")
    assert main([str(broken), plain, str(tmp_path / "missing.csv"), "--json"]) == BAD
    captured = capsys.readouterr()
    assert [found["source"] for found in json.loads(captured.out)] == [plain]
    assert [line.split(": ")[1] for line in captured.err.splitlines()] == [str(broken), str(tmp_path / "missing.csv")]


def test_what_cannot_be_judged_has_a_code_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = tmp_path / "nan.csv"
    nothing.write_text("step,dino\n" + "".join(f"{step},nan\n" for step in TWELVE))
    assert main([str(nothing)]) == CANNOT_JUDGE
    said = capsys.readouterr().out
    assert "Cannot be judged: no score is finite" in said
    assert "keep" not in said
    found, none = (
        curve_file(tmp_path, FIGURE_STEPS, values, name) for values, name in ((FIGURE_BASELINE, "found.csv"), (FIGURE_BAYESIAN, "none.csv"))
    )
    assert main([str(nothing), none]) == CANNOT_JUDGE
    assert main([str(nothing), found]) == FOUND
    assert len({NOTHING_FOUND, FOUND, CANNOT_JUDGE, BAD}) == 4


def test_a_metric_s_name_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,[bold]dino[/x]\n" + "".join(f"{s},{v}\n" for s, v in zip(TWELVE, CLEAR.mean(1), strict=True)))
    main([str(path)])
    assert "[bold]dino[/x]" in capsys.readouterr().out


def test_prompts_that_are_not_known_cannot_be_sampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([curve_file(tmp_path, TWELVE, list(CLEAR.mean(1))), "--sampled-prompts"]) == BAD
    assert "--sampled-prompts needs" in capsys.readouterr().err


def test_one_checkpoint_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([curve_file(tmp_path, [0], [0.5])]) == CANNOT_JUDGE
    assert "1 checkpoint is too few" in capsys.readouterr().out


MEASURED = """
import sys, time
from bayesdiff.verdict import main
code = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(code, time.process_time(), peak.split()[1], file=sys.stderr)
"""
"""A command's exit code, seconds of CPU and peak kilobytes: of its own, where ``getrusage`` would count the parent's too."""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("metric", ["dino", "dino_0"])
def test_a_log_with_a_row_a_step_takes_seconds_and_little_memory(tmp_path: Path, metric: str) -> None:
    """20,000 rows of 20 columns, one of them the fidelity, or 19 images of it: 5 s of one core and 500 MB, imports and all."""
    rng, steps = np.random.default_rng(0), np.arange(20_000)
    curve = 0.3 + 0.5 * (1 - np.exp(-steps / 2_000)) - 0.3 * np.exp(-(((steps - 8_000) / 1_500) ** 2))
    names = ["dino", *(f"other {c}" for c in "abcdefghijklmnopqr")] if metric == "dino" else [f"dino_{i}" for i in range(19)]
    table = pd.DataFrame(curve[:, None] + 0.05 * rng.standard_normal((20_000, 19)), columns=names)
    table.insert(0, "step", steps)
    table.to_csv(tmp_path / "log.csv", index=False, float_format="%.6f")
    done = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path / "log.csv")], capture_output=True, text=True, check=True)
    code, seconds, kilobytes = done.stderr.split()
    assert int(code) == FOUND
    assert "20,000 rows thinned to 59 checkpoints" in done.stdout
    assert float(seconds) <= 5
    assert int(kilobytes) * 1024 <= 500e6


CELLS = st.one_of(st.floats(allow_nan=True, allow_infinity=True, width=32), st.floats(-1, 1), st.just(""), st.text("ab%,;", max_size=3))

HEADERS = st.sampled_from(["step,a,b", "step,img_1,img_2", "step,image,dino", "x,y,z"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.one_of(st.integers(-5, 3000), CELLS), CELLS, CELLS), max_size=12), header=HEADERS)
def test_no_table_makes_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[tuple[object, ...]], header: str
) -> None:
    path = tmp_path / "any.csv"
    path.write_text(header + "\n" + "".join(",".join(str(c) for c in row) + "\n" for row in rows))
    assert main([str(path), "--json"]) in (NOTHING_FOUND, BAD, FOUND, CANNOT_JUDGE)
    capsys.readouterr()


SCORES = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(-1, 1), st.sampled_from([0.0, 0.5, 1e-300, 1e300]))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 14), images=st.integers(1, 5), runs=st.integers(0, 3))
def test_no_scores_make_a_verdict_that_is_no_verdict(data: st.DataObject, count: int, images: int, runs: int) -> None:
    shape = (*([runs] if runs else []), count, images)
    values = data.draw(st.lists(SCORES, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    verdict = detect_corruption(np.arange(count) * 10, np.array(values).reshape(shape))
    assert verdict.kind in KINDS
    assert len(verdict.labels) == count
    assert 0 < verdict.p_value <= 1
    assert np.isfinite([verdict.depth, *verdict.depth_interval, verdict.area]).all()
    assert "nan" not in json.dumps(verdict.to_dict()).lower()
    assert verdict.best_step in range(0, 10 * count, 10)
