"""How often is the verdict wrong, and how small a stage does it find? Simulated, with noise measured on real runs.

Command:  python -m bayesdiff.calibration experiments/detector_calibration.yaml   (make calibration)

Curves of known shape get noise from both sources (``noise``), and the test of ``corruption`` judges
them. Null families have no stage and count false flags; alternatives have one of known depth and width
and count how often it is found and whether the intervals hold the truth.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import track

from bayesdiff.corruption.detector import detect_corruption, stage_depth, stage_p_value
from bayesdiff.corruption.noise import CHECKPOINT_CORRELATION, correlated, deviations, measure_noise
from bayesdiff.corruption.power import SHOULDER, stage_curve
from bayesdiff.corruption.shape import Array
from bayesdiff.errors import UserError, bad_input_in_one_line
from bayesdiff.files import staged
from bayesdiff.readings import Naming, read
from bayesdiff.recording.record import load_record

PARTS = ("false_flags", "power", "coverage")


@dataclass
class NoiseLevel:
    """Standard deviations of one kind of run, in the metric's units."""

    level: float = 0.14
    """Of an image's own level over all checkpoints."""
    image: float = 0.13
    """Of one image at one checkpoint around its level."""
    checkpoint: float = 0.03
    """Of what moves all images of a checkpoint together."""
    image_correlation: float = 0.5
    """Of an image's deviations at neighbouring checkpoints."""


@dataclass
class Study:
    """What ``experiments/detector_calibration.yaml`` holds."""

    output: str = "results/detector"
    runs: str = "results/toybox/records/*/images.csv"
    """Per-image curves of real runs that the noise is read off."""
    noise: NoiseLevel = field(default_factory=NoiseLevel)
    quiet: NoiseLevel = field(default_factory=NoiseLevel)
    loud: NoiseLevel = field(default_factory=NoiseLevel)
    lora: NoiseLevel = field(default_factory=NoiseLevel)
    """Other kinds of runs, for power."""
    checkpoints: list[int] = field(default_factory=lambda: [6, 8, 12, 20, 40])
    images: list[int] = field(default_factory=lambda: [1, 4, 16, 100])
    depths: list[float] = field(default_factory=lambda: [0.03, 0.05, 0.1, 0.2])
    widths: list[float] = field(default_factory=lambda: [0.2, 0.35, 0.45])
    """Of the stage, as a share of the checkpoints."""
    seeds: list[int] = field(default_factory=lambda: [4, 8])
    """Runs that are judged together, of 16 images each and with ``noise``."""
    alpha: float = 0.05
    correlation: float = 0.3
    """Between neighbouring checkpoints in the family of AR(1) noise."""
    bound: float = 0.06
    repeats: int = 400
    most_repeats: int = 2000
    """Of cells whose upper bound is above ``bound`` after ``repeats``."""
    resamples: int = 300
    workers: int = 2
    seed: int = 2405


Shape = Callable[[int], Array]


def _at(count: int) -> Array:
    return np.arange(count) / (count - 1)


NULL_SHAPES: dict[str, Shape] = {
    "flat": lambda n: np.full(n, SHOULDER),
    "saturating rise": lambda n: 0.3 + 0.5 * (1 - np.exp(-6 * _at(n))),
    "rise and decline": lambda n: np.interp(_at(n), [0, 0.3, 1], [0.3, 0.8, 0.5]),
    "step change": lambda n: np.where(_at(n) < 0.5, 0.8, 0.5),
    "slow drift": lambda n: np.interp(_at(n), [0, 0.15, 1], [0.5, 0.75, 0.65]),
}
CORRELATED = ("correlated", "strongly correlated")
DISTURBED = (*CORRELATED, "heavy tails", "uneven images")
"""Families that are flat or rise, with another noise; strongly is as the verdict assumes."""
FAMILIES = (*NULL_SHAPES, *DISTURBED)


def simulate(mean: Array, images: int, noise: NoiseLevel, rng: np.random.Generator, family: str = "", correlation: float = 0.0) -> Array:
    """Scores (T, images) around a mean curve; ``family`` disturbs the noise."""
    count = len(mean)
    draw = partial(rng.standard_t, 3) if family == "heavy tails" else rng.standard_normal
    scale = 1 / np.sqrt(3) if family == "heavy tails" else 1.0  # unit variance
    between = correlated(np.asarray(scale * draw(size=count)), correlation if family in CORRELATED else 0.0)
    spread = np.exp(rng.uniform(-1, 1, (count, 1))) if family == "uneven images" else 1.0
    lasting = correlated(np.asarray(draw(size=(images, count))), noise.image_correlation).T
    own = noise.image * spread * scale * lasting
    return mean[:, None] + noise.level * rng.standard_normal(images) + noise.checkpoint * between[:, None] + own


def _flag(scores: Array, study: Study, seed: int, min_depth: float, known: float | None = None, *, runs: bool = False) -> bool:
    noise = measure_noise(scores, runs=runs, rho=CHECKPOINT_CORRELATION, checkpoint=known)
    curve = scores.mean(1)
    p = stage_p_value(curve, noise, np.random.default_rng(seed), study.resamples)
    return p <= study.alpha and stage_depth(curve) >= min_depth


def _generator(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def upper_bound(flags: int, repeats: int) -> float:
    """One-sided 95 % Clopper-Pearson upper bound of a rate, by itself: neither many cells nor several looks are reckoned with."""
    from scipy.stats import beta

    return float(beta.ppf(0.95, flags + 1, repeats - flags)) if flags < repeats else 1.0


def _null_cell(study: Study, cell: tuple[str, int, int]) -> dict[str, Any]:
    """False flags of the test alone (no smallest depth) in one family, more repeats where it is close."""
    family, count, images = cell
    shapes = ("flat", "saturating rise") if family in DISTURBED else (family,)
    correlation = CHECKPOINT_CORRELATION if family == "strongly correlated" else study.correlation
    flags = repeats = 0
    while repeats < study.most_repeats and (repeats == 0 or upper_bound(flags, repeats) > study.bound):
        for repeat in range(repeats, repeats + study.repeats):
            mean = NULL_SHAPES[shapes[repeat % len(shapes)]](count)
            scores = simulate(mean, images, study.noise, _generator(study.seed, cell, repeat), family, correlation)
            flags += _flag(scores, study, repeat, 0.0)
        repeats += study.repeats
    rate = flags / repeats
    return {
        "family": family,
        "checkpoints": count,
        "images": images,
        "repeats": repeats,
        "rate": rate,
        "upper_95": upper_bound(flags, repeats),
    }


@dataclass(frozen=True)
class _Stage:
    """A stage that is to be found: in one run of ``images`` images, or in several."""

    noise: str
    checkpoints: int
    images: int
    depth: float
    width: float
    runs: int = 1


def most_power(mean: Array, covariance: Array, alpha: float) -> float:
    """Largest power of any test of size ``alpha`` against a mean curve (T,) with known covariance (T, T).

    Neyman and Pearson's bound for the curve with one mode that is hardest to tell from it: a test that
    holds its size on every curve with one mode cannot do better, even if it is told both curves.
    """
    from scipy.optimize import lsq_linear
    from scipy.stats import norm

    count = len(mean)
    root = np.linalg.cholesky(covariance)
    levels = np.tril(np.ones((count, count)))  # a level and the steps between checkpoints
    whitened = np.linalg.solve(root, levels), np.linalg.solve(root, mean)
    distance = np.inf
    for mode in range(count):
        signs = np.where(np.arange(count) <= mode, 1.0, -1.0)
        lower = np.concatenate([[-np.inf], np.zeros(count - 1)])
        found = lsq_linear(whitened[0] * signs, whitened[1], (lower, np.full(count, np.inf)))
        distance = min(distance, np.sqrt(2 * found.cost))
    return float(norm.cdf(distance - norm.ppf(1 - alpha)))


def _covariance(count: int, images: int, noise: NoiseLevel) -> Array:
    """Of the mean curve of one run that ``simulate`` makes, (count, count)."""
    lag = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    of_images = noise.level**2 + noise.image**2 * noise.image_correlation**lag
    return np.asarray(of_images / images + noise.checkpoint**2 * np.eye(count))


def _power_cell(study: Study, cell: _Stage) -> dict[str, Any]:
    """How often a stage is flagged, with the noise between checkpoints read off and with it known, and how often it could be.

    Several runs need no such knowledge: their scatter has it.
    """
    noise: NoiseLevel = getattr(study, cell.noise)
    mean, together, repeats = stage_curve(cell.checkpoints, cell.depth, cell.width), cell.runs > 1, study.repeats // 2
    known_noise = noise.checkpoint if cell.images > 1 else float(np.hypot(noise.checkpoint, noise.image))  # a bare curve has one noise
    ways = {"found": None} if together else {"found": None, "found_known_noise": known_noise}
    found = dict.fromkeys(ways, 0)
    for repeat in range(repeats):
        rng = _generator(study.seed, cell, repeat)
        several = np.stack([simulate(mean, cell.images, noise, rng) for _ in range(cell.runs)])
        scores = several.mean(2).T if together else several[0]
        for name, known in ways.items():
            found[name] += _flag(scores, study, repeat, 0.0, known, runs=together)
    shares = {name: hits / repeats for name, hits in found.items()}
    possible = most_power(mean, _covariance(cell.checkpoints, cell.images, noise) / cell.runs, study.alpha)
    return {**asdict(cell), "repeats": repeats, **shares, "possible": possible}


def slow_stage_curve(count: int, depth: float) -> Array:
    """A stage without corners at its shoulders or a flat floor: falls and returns over a quarter of training each, (count,)."""
    return np.interp(_at(count), [0, 0.15, 0.3, 0.55, 0.6, 0.85, 1], [0.35, *[SHOULDER] * 2, *[SHOULDER - depth] * 2, *[SHOULDER] * 2])


def _truth(mean: Array) -> tuple[float, int, int]:
    """Depth of a curve without noise, and its checkpoints of onset (a quarter of the fall) and recovery (half of it)."""
    late = _at(len(mean)) > 0.2  # the rise is over
    trough = int(np.where(late, mean, np.inf).argmin())
    depth = float(min(mean[:trough].max(), mean[trough:].max()) - mean[trough])
    onset = int(np.flatnonzero((mean < mean[:trough].max() - 0.25 * depth) & late)[0])
    return depth, onset, trough + int(np.flatnonzero(mean[trough:] >= mean[trough] + 0.5 * depth)[0])


def _coverage_cell(study: Study, cell: tuple[str, int, int, float, float, bool]) -> dict[str, Any]:
    """How often the 95 % intervals of flagged stages hold the true depth, onset and recovery, and the depth's mean error."""
    shape, count, images, checkpoint, correlation, known = cell
    mean, steps = stage_curve(count, 0.3, 0.35) if shape == "flat floor" else slow_stage_curve(count, 0.3), np.arange(count) * 50
    depth, onset, recovery = _truth(mean)
    of_images = (study.noise.level, study.noise.image / 2) if images > 1 else (0.0, 0.0)  # a bare curve has one noise
    noise = NoiseLevel(*of_images, checkpoint, study.noise.image_correlation)
    held: dict[str, list[bool]] = {"depth": [], "onset": [], "recovery": []}
    errors: list[float] = []
    for repeat in range(study.repeats // 2):
        scores = simulate(mean, images, noise, _generator(study.seed, cell, repeat), "correlated", correlation)
        found = detect_corruption(steps, scores, seed=repeat, checkpoint_noise=checkpoint if known else None)
        if found.flagged and found.onset_interval and found.recovery_interval:
            errors.append(found.depth - depth)
            held["depth"].append(found.depth_interval[0] <= depth <= found.depth_interval[1])
            held["onset"].append(found.onset_interval[0] <= steps[onset] <= found.onset_interval[1])
            held["recovery"].append(found.recovery_interval[0] <= steps[recovery] <= found.recovery_interval[1])
    shares = {name: float(np.mean(hits)) if hits else float("nan") for name, hits in held.items()}
    error = float(np.mean(errors)) if errors else float("nan")
    described = {
        "shape": shape,
        "checkpoints": count,
        "images": images,
        "checkpoint_noise": checkpoint,
        "correlation": correlation,
        "known": known,
        "flagged": len(errors),
    }
    return {**described, **shares, "depth_error": error}


def measured_noise(pattern: str) -> pd.DataFrame:
    """Noise of every real run that matches, one row a run; see ``NoiseLevel`` for the columns."""
    rows = []
    for path in sorted(Path().glob(pattern)):
        (reading,) = read(str(path), Naming())
        scores = reading.columns[reading.metric]
        noise = measure_noise(scores)
        record = load_record(path.parent)
        method = record.config["method"] if record is not None else {}
        rows.append({
            "run": path.parent.name, "method": method.get("name", ""), "learning_rate": method.get("learning_rate", ""),
            "checkpoints": len(scores), "images": scores.shape[1],
            "level": float(scores.mean(0).std(ddof=1)), "image": float(np.sqrt((deviations(scores) ** 2).sum() / noise.freedom)),
            "image_correlation": noise.image_rho, "standard_error": float(noise.images.mean()), "checkpoint": noise.between(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _table(name: str, function: Callable[[Study, Any], dict[str, Any]], study: Study, cells: list[Any]) -> pd.DataFrame:
    with ProcessPoolExecutor(study.workers) as pool:
        done = pool.map(partial(function, study), cells)
        return pd.DataFrame(list(track(done, name, len(cells))))


def _middle_width(study: Study) -> float:
    return study.widths[len(study.widths) // 2]


def calibrate(study: Study, parts: Sequence[str] = PARTS) -> dict[str, pd.DataFrame]:
    """The tables of the study, by name; a function of the study alone."""
    nulls = [(f, t, n) for f in FAMILIES for t in study.checkpoints for n in study.images]
    stages = [
        _Stage(level, t, n, d, w)
        for level in ("noise", "quiet", "loud", "lora")
        for t in study.checkpoints
        if t >= 12
        for n in study.images
        for d in study.depths
        for w in study.widths
    ]
    middle = _middle_width(study)
    stages += [_Stage("noise", t, 16, d, middle, s) for t in study.checkpoints if t >= 12 for d in study.depths for s in study.seeds]
    levels = [(16, c, 0.0, known) for c in (0.0, 0.02, 0.04) for known in (False, True)] + [(1, c, 0.0, False) for c in (0.005, 0.02)]
    levels += [(16, c, CHECKPOINT_CORRELATION, known) for c in (0.02, 0.04) for known in (False, True)]  # as the verdict assumes
    covered = [(shape, t, *level) for shape in ("flat floor", "slow") for t in (12, 20, 40) for level in levels]
    functions: dict[str, tuple[Callable[[Study, Any], dict[str, Any]], list[Any]]] = {
        "false_flags": (_null_cell, nulls), "power": (_power_cell, stages), "coverage": (_coverage_cell, covered),
    }  # fmt: skip
    return {name: _table(name, function, study, cells) for name, (function, cells) in functions.items() if name in parts}


def draw(tables: dict[str, pd.DataFrame], study: Study, target: Path) -> None:
    """False flags by family, and power by depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from bayesdiff.recording.plots import save_figure

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6), layout="constrained")
    for i, (family, part) in enumerate(tables["false_flags"].groupby("family", sort=False)):
        worst = part.groupby("checkpoints")[["rate", "upper_95"]].max()
        left.errorbar(
            range(len(worst)), worst["rate"], [0 * worst["rate"], worst["upper_95"] - worst["rate"]], fmt="o-", color=f"C{i}", label=family
        )
    left.axhline(study.alpha, color="black", linewidth=0.8, linestyle="--")
    left.set(
        xticks=range(len(study.checkpoints)),
        xticklabels=study.checkpoints,
        xlabel="checkpoints",
        ylabel="false flags (worst number of images)",
    )
    left.legend(fontsize=7)
    power = tables["power"]
    chosen = power[(power["width"] == _middle_width(study)) & (power["images"] == 16) & (power["runs"] == 1)]
    for i, ((level, count), part) in enumerate(chosen.groupby(["noise", "checkpoints"], sort=False)):
        right.plot(part["depth"], part["found"], marker="o", color=f"C{i}", label=f"{level}, {count} checkpoints")
        right.plot(part["depth"], part["found_known_noise"], marker=".", linestyle=":", color=f"C{i}")
    right.set(xlabel="depth of the stage", ylabel="found (dotted: noise between checkpoints known)", title="16 images")
    if len(chosen):  # none where no curve of the study is long enough for power
        right.legend(fontsize=7)
    save_figure(figure, target)


def load_study(path: Path) -> Study:
    """Read a study; raises ``UserError`` for a missing file or an unknown key."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        loaded = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), OmegaConf.load(path)))
    except (OSError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
    assert isinstance(loaded, Study)
    return loaded


def write(tables: dict[str, pd.DataFrame], study: Study) -> None:
    """Tables, and the picture of false flags and power, into ``study.output``, each whole or not at all."""
    output = Path(study.output)
    output.mkdir(parents=True, exist_ok=True)
    noise = measured_noise(study.runs)
    for name, table in {**tables, "noise": noise}.items():
        with staged(output / f"{name}.csv") as part:
            table.to_csv(part, index=False, float_format="%.4f")
    if {"false_flags", "power"} <= set(tables):
        draw(tables, study, output / "calibration.png")


@bad_input_in_one_line
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--workers", type=int, help="processes (default: the study's)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these tables (default: all, and the picture)")
    arguments = parser.parse_args(argv)
    study = load_study(arguments.study)
    if arguments.workers:
        study = replace(study, workers=arguments.workers)
    tables = calibrate(study, arguments.parts)
    write(tables, study)
    if "false_flags" not in tables:
        return 0
    over = tables["false_flags"].query("upper_95 > @study.bound")
    print(f"{len(over)} of {len(tables['false_flags'])} cells have an upper bound above {study.bound}")
    print(over.to_string(index=False) if len(over) else f"tables and picture in {study.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
