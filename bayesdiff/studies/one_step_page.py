"""The paper's Figures 3 to 5 on one page, from the ``one_step.csv`` of records: ``results/<set>/one_step/README.md``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bayesdiff.core.errors import first_line
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import ONE_STEP, ONE_STEP_PAGE
from bayesdiff.recording.archive import Archive
from bayesdiff.recording.columns import Array, Damaged
from bayesdiff.recording.plots import panels, save_figure
from bayesdiff.stats.paired import mean_over_runs
from bayesdiff.studies.contrasts import Curve, at_shared_steps

MEASURES = {
    "error_0": "Figure 3: error at x_t = 0,\nover the photograph's mean square", "sigma_1": "Figure 4:\nsigma_1",
    "patch_gain": "Figure 5: share of extra noise\nthat is left in a patch",
}  # fmt: skip
"""Columns of ``one_step.csv`` (``training.one_step``) and what the figure calls them."""
EXPLAINED = (
    "Made by `make paper-tables` from the records. The model sees an input that is no noisy photograph, and predicts the clean latents in "
    "one step, at t = 100 (a tenth of the schedule) in Figures 3 and 5. *Error at 0* is the mean squared distance of that prediction from "
    "the training photograph at x_t = 0, over the photograph's mean square: 1 is a prediction of 0, 0 is the photograph. *sigma_1* is read "
    "off pure noise, and averaged over five timesteps. *Patch* is the share of the energy of extra noise that is left: 0 is clean, 1 is "
    "untouched. Intervals are 95 % t intervals over runs."
)
PREDICTED = {
    "error_0": "the fine-tuned model turns x_t = 0 into the training photograph, the pretrained one leaves it",
    "sigma_1": "sigma_1 is high in the middle of training (4.8 after 1,000 steps on Stable Diffusion), and low in the end",
    "patch_gain": "the pretrained model removes noise in a patch, the fine-tuned one leaves it",
}
"""What the paper says of each, in its own figures."""
PRINTED = (
    "The paper prints that the fine-tuned model makes noise 2.65 times as strong (its energy, at t = 100 after 1,000 steps). Its own "
    "formula cannot give this: the factor is at most 1 / ᾱ, which is 1.118 there on Stable Diffusion. A share above 1 in the last column "
    "would show an amplification."
)


def write_one_step(archive: Archive) -> Path | None:
    """Write the page and its figure; None where no record has the table."""
    tables = [table for run in archive.runs.values() if (table := _table(run.folder / ONE_STEP)) is not None]
    if not tables:
        return None
    folder = archive.results / ONE_STEP_PAGE
    folder.mkdir(parents=True, exist_ok=True)
    _draw(tables, folder / "one_step.png")
    answers = "\n".join(
        f"- **{MEASURES[name].partition(':')[0]}.** The paper: {said}. {_seen(tables, name)}" for name, said in PREDICTED.items()
    )
    picture = "![Error at x_t = 0, sigma_1 and the noise left in a patch, over training steps](one_step.png)"
    text = [f"# One denoising step, {len(tables)} runs", EXPLAINED, answers, picture, _means(tables).to_markdown(index=False), PRINTED]
    write_text(folder / "README.md", "\n\n".join(text) + "\n")
    return folder / "README.md"


def _table(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        return pd.read_csv(path)[["step", *MEASURES]].astype(np.float64).sort_values("step")
    except (KeyError, ValueError) as error:
        raise Damaged(
            f"{path}: no table of one step ({first_line(error)}); make it again: python -m bayesdiff.runs.one_step RUN"
        ) from error


def _shared(tables: list[pd.DataFrame], name: str) -> Curve:
    """Steps (T,) that every run has, and the measure there (runs, T)."""
    return at_shared_steps([(table["step"].to_numpy(np.int64), table[name].to_numpy()) for table in tables])


def _means(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """A line a step, each mean with its interval."""
    named = {"error_0": "error at 0", "sigma_1": "sigma_1", "patch_gain": "patch"}
    columns = {label: [_with_interval(column) for column in _shared(tables, name)[1].T] for name, label in named.items()}
    return pd.DataFrame({"step": _shared(tables, "sigma_1")[0], **columns})


def _with_interval(values: Array) -> str:
    """Mean of (runs,) with its 95 % t interval."""
    if len(values) < 2 or not np.isfinite(values).all():
        return f"{values.mean():.3f}"
    found = mean_over_runs(values[:, None])
    return f"{found.mean[0]:.3f} ({found.low[0]:.3f} to {found.high[0]:.3f})"


def _seen(tables: list[pd.DataFrame], name: str) -> str:
    """The measure at step 0, where it is largest after it, and in the end."""
    steps, values = _shared(tables, name)
    if len(steps) < 2:
        return "Too few steps are shared by all runs."
    largest = 1 + int(values.mean(0)[1:].argmax())
    said = f"Here {_with_interval(values[:, 0])} at step {steps[0]:.0f} and {_with_interval(values[:, -1])} at step {steps[-1]:.0f}"
    return said + (f", at most {_with_interval(values[:, largest])} at step {steps[largest]:.0f}." if largest < len(steps) - 1 else ".")


def _draw(tables: list[pd.DataFrame], target: Path) -> None:
    """Every run and the mean, a panel a figure of the paper."""
    figure, places = panels(len(MEASURES), 3, (4.0, 3.0))
    for place, (name, label) in zip(places, MEASURES.items(), strict=True):
        for table in tables:
            place.plot(table["step"], table[name], color="0.6", linewidth=0.9)
        steps, values = _shared(tables, name)
        place.plot(steps, values.mean(0), color="C0", marker="o", markersize=3, label="mean")
        place.set(xlabel="training step", ylabel=label)
    places[0].legend(fontsize=7)
    save_figure(figure, target)
