"""Runs beside each other: paired differences at every checkpoint, as a table and a picture.

The first run is the reference. A difference at a checkpoint is the mean over images that both runs
sampled (same prompt, same noise), with its 95 % interval over prompts and images; it says nothing about
other seeds or subjects.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bayesdiff.config.identity import arm_name
from bayesdiff.core import escape
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import PER_IMAGE, RECORD, SCORES
from bayesdiff.recording.collect import collected_scores
from bayesdiff.recording.record import RunRecord, arithmetic, lacking, load_record, missing_scores, setting
from bayesdiff.scoring.curve import curve_table, per_image, read_scores
from bayesdiff.scoring.metrics import known
from bayesdiff.stats import paired_difference

NEEDED = (
    "sampler.prompts", "sampler.seed", "data.identifier", "data.class_noun", "data.subject", "method.name", "seed", "bnn.kind", "bnn.sigma",
)  # fmt: skip
"""Settings that a comparison names or compares."""


def read_run(folder: Path) -> tuple[RunRecord, pd.DataFrame]:
    """Record and scores of a run's folder, or of its collected record; raises ``UserError`` for anything else."""
    record, collected = load_record(folder), not (folder / SCORES).exists()
    if record is None or (collected and not (folder / PER_IMAGE).exists()):
        raise UserError(f"{folder}: no run with scores (record.json and scores.csv or images.csv); give a run's folder or a record")
    if key := lacking(record.config, NEEDED):
        raise UserError(f"{folder / RECORD}: config has no {key}; repeat the run with this version, or compare others")
    return record, collected_scores(folder) if collected else read_scores(folder)


def differences(reference: pd.DataFrame, other: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Columns step, first and this (means of the images that both runs have), difference (other minus reference), half (of its 95 %
    interval over prompts and images; nan for one image), images.

    Raises ``UserError`` when the runs share no checkpoint with the same images.
    """
    from scipy.stats import t

    both = (
        per_image(reference)[[metric]].merge(per_image(other)[[metric]], left_index=True, right_index=True, suffixes=("_a", "_b")).dropna()
    )
    if both.empty:
        raise UserError(f"the runs share no checkpoint with the same prompts and images (metric {metric})")
    rows = []
    for step, images in both.groupby(level="step"):  # each by itself: a custom metric may lack images here and there
        arms = [images[name].to_numpy()[None, None, None] for name in (f"{metric}_b", f"{metric}_a")]
        found = paired_difference(*arms, prompts=images.index.get_level_values("prompt"))
        half = t.ppf(0.975, found.freedom[0]) * found.std_error[0]
        first, this = (images[name].mean() for name in (f"{metric}_a", f"{metric}_b"))
        rows.append({"step": step, "first": first, "this": this, "difference": found.mean[0], "half": half, "images": len(images)})
    return pd.DataFrame(rows)


def _check_sampling(folders: list[Path], records: list[RunRecord]) -> None:
    """Images are paired by prompt and number, so all runs have to have sampled the same words from the same noise,
    by fine-tuning one model."""
    asked = [sampling(record) for record in records]
    for folder, own in zip(folders, asked, strict=True):
        if other := [key for key in own if own[key] != asked[0][key]]:
            raise UserError(f"{folder}: sampled otherwise than {folders[0]} ({', '.join(other)}); compare runs where these are equal")


def sampling(record: RunRecord) -> dict[str, object]:
    """What has to be equal for the samples of two runs to be paired by prompt and number: words, noise, model, and precisions in use.

    The noise of a sample is a function of its size too: at another resolution the same seed gives another picture.
    """
    sampler, data = record.config["sampler"], record.config["data"]
    return {"sampler.prompts": sampler["prompts"], "sampler.seed": sampler["seed"], "data.identifier": data["identifier"],
            "class noun": record.subject.get("class_noun", data["class_noun"]),
            **{key: setting(record.config, key) for key in ("model.path", "model.resolution")}, **arithmetic(record)}  # fmt: skip


def _label(folder: Path, record: RunRecord) -> str:
    arm = arm_name(record.config["bnn"])
    return f"{record.config['data']['subject']} {record.config['method']['name']} {arm} seed {record.config['seed']} ({folder.name[-6:]})"


MIXED = (
    "data.subject", "shots.count", "method.name", "method.learning_rate", "seed",
    "model.revision", "sampler.guidance_scale", "sampler.scheduler", "sampler.steps",
)  # fmt: skip
"""Settings whose difference a comparison of arms mixes up with the arms."""


def mixed(records: list[RunRecord]) -> list[str]:
    """Those of ``MIXED`` in which runs differ."""
    values = {key: {str(setting(record.config, key)) for record in records} for key in MIXED}
    return [key for key, found in values.items() if len(found) > 1]


def _checked(folders: list[Path], metric: str) -> list[tuple[RunRecord, pd.DataFrame]]:
    """Record and scores of every run; raises ``UserError`` where one lacks the metric or sampled otherwise."""
    runs = [read_run(folder) for folder in folders]
    for folder, (_, scores) in zip(folders, runs, strict=True):
        measured = list(dict.fromkeys(scores.loc[scores["value"].notna(), "metric"]))
        if metric not in measured:
            raise UserError(f"{folder}: no metric {metric}; choose --metric from {', '.join(measured)}")
    _check_sampling(folders, [record for record, _ in runs])
    return runs


def metric_label(record: RunRecord, metric: str) -> str:
    """How a run calls a metric, with the direction that is better and the unit where they are known."""
    said = known(metric, record.custom_metrics)
    if said is None:
        return metric
    better = {True: "higher is better", False: "lower is better", None: "neither direction is better"}[said.higher_is_better]
    return f"{said.label} ({said.unit}; {better})"


def _sentence(folder: Path, record: RunRecord, steps: set[int]) -> str:
    """What the run's verdict says; of one whose best step is no checkpoint of the curve, what makes it anew."""
    if not record.verdict:
        return f"no verdict ({record.status})"
    if record.verdict.get("best_step", min(steps)) not in steps:
        return f"the verdict in its record is of another curve; bayesdiff verdict {shlex.quote(str(folder))} makes it again"
    return str(record.verdict.get("sentence", "no sentence"))


def print_comparison(folders: list[Path], metric: str) -> None:
    """One line a run with its verdict, then a table of paired differences to the first."""
    console, runs = Console(emoji=False, width=None if Console().is_terminal else 110), _checked(folders, metric)
    called = escape.terminal(metric_label(runs[0][0], metric))
    for folder, (record, scores) in zip(folders, runs, strict=True):
        sentence = _sentence(folder, record, set(scores["step"]))
        console.print(escape.plain(f"{_label(folder, record)}: {sentence}"), highlight=False, soft_wrap=True, markup=False)
    for folder, (record, scores) in zip(folders, runs, strict=True):
        images = len(scores.drop_duplicates(["prompt", "image"]))
        if gone := missing_scores(record, sorted(set(scores["step"])), images):
            said = f"Note: {folder} is completed, and its table has {' and '.join(gone)}: copy it again, or repeat the run."
            console.print(escape.plain(said), highlight=False, soft_wrap=True, markup=False)
    if besides := mixed([record for record, _ in runs]):
        said = f"Note: the runs differ in {', '.join(besides)}; a difference mixes that with their arms."
        console.print(escape.plain(said), highlight=False, soft_wrap=True, markup=False)
    for folder, (record, scores) in list(zip(folders, runs, strict=True))[1:]:
        table = Table(title=f"{called}: {escape.terminal(_label(folder, record))} minus {escape.terminal(_label(folders[0], runs[0][0]))}")
        for name in ("step", "first run", "this run", "difference", "95 % interval"):
            table.add_column(name, justify="right")
        shared = differences(runs[0][1], scores, metric)
        if said := _left_out(runs[0][1], scores, shared):
            console.print(escape.plain(f"Note: {said}"), highlight=False, soft_wrap=True, markup=False)
        for row in shared.itertuples(index=False):
            bounds = "-" if np.isnan(row.half) else f"{row.difference - row.half:+.3f} to {row.difference + row.half:+.3f}"
            table.add_row(str(row.step), f"{row.first:.3f}", f"{row.this:.3f}", f"{row.difference:+.3f}", bounds)
        console.print(table)


def _left_out(reference: pd.DataFrame, other: pd.DataFrame, shared: pd.DataFrame) -> str:
    """What two runs have that a table of their shared checkpoints and images has not, as a sentence; empty where that is nothing."""
    steps, images = ([table[names].drop_duplicates() for table in (reference, other)] for names in (["step"], ["prompt", "image"]))
    if len(steps[0]) == len(steps[1]) == len(shared) and len(images[0]) == len(images[1]) == shared["images"].min():
        return ""
    has = " and ".join(f"{len(at)} checkpoints of {len(of)} images" for at, of in zip(steps, images, strict=True))
    return f"the table is of the {len(shared)} checkpoints and {shared['images'].max()} images that both runs have; they have {has}."


def plot_comparison(folders: list[Path], metric: str, target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from bayesdiff.recording.plots import draw_band, save_figure

    runs = _checked(folders, metric)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for index, (folder, (record, scores)) in enumerate(zip(folders, runs, strict=True)):
        draw_band(axes, curve_table(scores), metric, _label(folder, record), index)
    axes.set(xlabel="training step", ylabel=escape.plot(metric_label(runs[0][0], metric)))
    axes.legend(fontsize=8)
    save_figure(figure, target)
