"""Which columns of a table are steps, images and scores."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bayesdiff.core.errors import UserError
from bayesdiff.readings.numerals import Numerals, parsed
from bayesdiff.readings.reading import shown

STEPS = (
    "step", "steps", "global_step", "train_step", "training_step", "iteration", "iterations", "iter", "checkpoint", "ckpt", "_step",
)  # fmt: skip
"""Names of training steps, in any case and below any path (``trainer/global_step``), from the surest to the last resort."""
EPOCHS = ("epoch", "epochs")
FROM_ZERO = "epochs are counted from 0, and epoch 0 is trained: it is shown as step 1, and epoch {last} as step {shown}"
"""What is said where epochs are shown one higher, so that none is taken for step 0, the base model."""
FILES = ("filename", "file", "file_name", "image_path", "image_file", "path")
IMAGES = ("prompt", "image", "index", "sample", "seed", "prompt_id", "image_id", "img", *FILES)
FINEST = 1000
"""Parts of an epoch that steps can tell apart."""
_NUMBERED = re.compile(r"^(.*?)[\s_\-./\[]*\d+\]?$")
_LAST_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$")


def plain(column: str) -> str:
    """A column's name without path, case and punctuation: ``trainer/Global Step`` is ``global_step``."""
    return re.sub(r"[\s.\-]+", "_", column.strip().lower().rsplit("/", 1)[-1])


def is_step(column: str) -> bool:
    return plain(column) in (*STEPS, *EPOCHS)


def is_image(column: str) -> bool:
    return plain(column) in IMAGES


def stem(column: str) -> str:
    """What is before the number of a numbered column (``img`` of ``img_3``); empty where there is no number."""
    match = _NUMBERED.match(column)
    return match[1] if match else ""


def step_columns(columns: Sequence[str]) -> list[str]:
    """Columns that may have the training steps, the likeliest first."""
    order = (*STEPS, *EPOCHS)
    return sorted((c for c in columns if is_step(c)), key=lambda c: order.index(plain(c)))


def step_column(table: pd.DataFrame, values: Sequence[str], asked: str | None, name: str) -> str:
    """The column of steps: the asked one, or the likeliest that is filled where the scores are.

    Raises:
        UserError: no such column.
    """
    if asked is not None:
        if asked in table:
            return asked
        raise UserError(f"{name}: no column {asked}; --step is one of {shown(list(table.columns))}")
    found = [column for column in step_columns(list(table.columns)) if column not in values]
    if not found:
        raise UserError(f"{name}: which column has the training steps? give --step one of {shown(list(table.columns))}")
    present = [column for column in values if column in table]
    scored = table[(table[present] != "").any(axis=1)] if present else table
    return max(found, key=lambda column: (scored[column].str.strip() != "").mean())  # the first of equals


def counts_up(column: pd.Series, numerals: Numerals) -> bool:
    """Whether the cells are whole numbers, each higher than the one before, as steps are where a row is a step."""
    numbers = parsed(column, numerals)
    whole = bool((numbers.notna() & (numbers >= 0) & (numbers % 1 == 0)).all())
    return whole and len(numbers) > 1 and bool((numbers.diff().iloc[1:] > 0).all())


def step_numbers(column: pd.Series, numerals: Numerals, name: str, scored: pd.Series | None = None) -> tuple[pd.Series, list[str]]:
    """Steps as numbers, NaN for an empty cell, and what was converted or left out.

    ``checkpoint-100`` is step 100. Epochs stand for steps: whole ones as they are, or from 1 where they begin at 0, since a loop ends
    its epoch 0 with a trained model; parts of an epoch in tenths, hundredths or thousandths.

    Args:
        scored: (rows,) rows that have a score, where not all of them do: the first epoch is theirs.

    Returns:
        The steps, without rows such as the last file of a training, which has no step in its name; and notes.

    Raises:
        UserError: cells without a number.
    """
    notes: list[str] = []
    steps, filled = parsed(column, numerals), column.str.strip() != ""
    if not steps[filled].notna().any() and filled.any():
        steps, notes = _numbered_steps(column.str.strip(), name)
        filled = filled.loc[steps.index]
    elif (wrong := column[filled & steps.isna()]).size:
        raise UserError(
            f"{name}: row {int(wrong.index[0]) + 1} below the header, column {column.name}: {wrong.iloc[0]!r} is no number; correct it, "
            "or leave the cell empty"
        )
    if plain(str(column.name)) not in EPOCHS:
        return steps, notes
    steps, said = _epochs(steps, filled if scored is None else filled & scored.loc[steps.index])
    return steps, [*notes, *said]


def _epochs(epochs: pd.Series, known: pd.Series) -> tuple[pd.Series, list[str]]:
    """Epochs as steps, by the ``known`` ones, and how they were counted."""
    first, last = epochs[known].min(), epochs[known].max()
    scale = next((s for s in (1, 10, 100, FINEST) if ((epochs.dropna() * s).round(6) % 1 == 0).all()), FINEST)
    unit = "" if scale == 1 else f", {scale:,} steps an epoch"
    steps, notes = (epochs * scale).round(), [f"no column of steps: epochs stand for them{unit}"]
    if scale > 1 or first != 0 or not np.isfinite(last):
        return steps, notes
    said = f"{FROM_ZERO.format(last=int(last), shown=int(last) + 1)}; if it is the base model, call the column step"
    return steps + 1, [*notes, said]


def _numbered_steps(texts: pd.Series, name: str) -> tuple[pd.Series, list[str]]:
    """The last number of each cell, where all have the same words around it; cells that are that name without a number are left out."""
    filled = texts[texts != ""]
    parts = filled.str.extract(_LAST_NUMBER)
    numbered = parts[parts[1].notna()]
    usual = numbered.groupby([0, 2]).size().idxmax() if len(numbered) else ("", "")
    fits = (parts[0] == usual[0]) & (parts[2] == usual[1])
    others = list(dict.fromkeys(filled[~fits]))
    if odd := [text for text in others if not _is_last_file(text, *usual)] or others[: 2 * int(fits.sum()) <= len(fits)]:
        raise UserError(f"{name}: column {texts.name} has {odd[0]!r}, which is no step; choose another column with --step")
    steps = pd.to_numeric(parts[1][fits]).reindex(texts.index).astype(float)
    notes = [f"column {texts.name}: {filled[fits].iloc[0]!r} is read as step {int(steps[fits.index[fits]].iloc[0])}"]
    notes += [f"column {texts.name}: {text!r} has no step in its name and is left out" for text in others]
    return steps.drop(index=fits.index[~fits]), notes


def _is_last_file(text: str, before: str, behind: str) -> bool:
    """Whether a name may be the usual one without its step: ``lora.safetensors`` beside ``lora-000100.safetensors``, or ``last``."""
    stem = text.removesuffix(behind)
    return not any(letter.isdecimal() for letter in text) or (bool(stem) and before.startswith(stem))


def image_labels(column: pd.Series, steps: pd.Series) -> pd.Series:
    """Labels of images; in file names that contain their own step, the step is taken out, so that images pair over checkpoints."""
    if plain(str(column.name)) not in FILES:
        return column
    known = pd.Series(np.isfinite(steps), index=steps.index)
    numbers = steps.where(known, -1).astype("int64")
    found = pd.Series([_without_step(text, n) for text, n in zip(column, numbers, strict=True)], index=column.index, name=column.name)
    return found if bool((found != column)[known].all()) else column


def _without_step(text: str, step: int) -> str:
    """A file name with ``#`` where its step stands: behind the word step, or else the longest number of that size."""
    places = [match for match in re.finditer(r"\d+", text) if int(match[0]) == step]
    if not places:
        return text
    place = max(places, key=lambda match: (bool(re.search(r"step[s_\-=]*$", text[: match.start()], re.IGNORECASE)), len(match[0])))
    return f"{text[: place.start()]}#{text[place.end() :]}"
