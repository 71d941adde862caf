"""Where trainers leave their samples, recognised by the names of the files.

The names are those that the trainers' own code writes, read at these commits of 2026:

- kohya (48d368f): ``sample_image_inference`` in kohya-ss/sd-scripts, ``library/train_util.py``, and the same in
  ``library/{flux,sd3,lumina,anima}_train_util*.py``: ``NAME_STEPS6_IDX2_DATE14[_SEED].png``, and ``e000004`` for epochs. Samples of
  ``--sample_at_first`` are ``e000000`` where all others count steps too (``train_network.py`` hands on epoch 0).
- musubi-tuner (30c658c): ``sample_image_inference`` in kohya-ss/musubi-tuner, ``training/trainer_base.py``: kohya's names with ``_000``
  behind them.
- ai-toolkit (27a03a9): ``sample`` in ostris/ai-toolkit, ``jobs/process/BaseSDTrainProcess.py``, and ``_get_path_no_ext`` in
  ``toolkit/config_modules.py``: ``MILLISECONDS__STEP9_IDX.EXT``; public folders also have ``rank00_sample003_`` before it.
- SimpleTuner (bc8e6ab): ``save_images`` in bghira/SimpleTuner, ``simpletuner/helpers/training/validation_images.py``:
  ``step_STEP_NAME_IDX_RES.EXT``, where RES may be ``512x512``, ``1.0x1.0`` or ``unknown``; older versions have no IDX.
- OneTrainer (23df383): ``__sample_loop`` in Nerogar/OneTrainer, ``modules/trainer/GenericTrainer.py``:
  ``IDX - PROMPT/[PREFIX]DATE-training-sample-STEP-EPOCH-INDEX``; samples without EMA lie in a folder that ends with
  ``- no-ema``. ``safe_filename`` in ``modules/util/path_util.py`` cuts PROMPT after 32 characters.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import SAMPLES as ENDINGS
from bayesdiff.core.layout import SAMPLES
from bayesdiff.readings.columns import FROM_ZERO

_END = rf"(?:{'|'.join(map(re.escape, ENDINGS))})$"
_START = r"(?:.*/|^)"
DATE = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"
"""As OneTrainer writes it."""
CUT = 32
"""Characters after which OneTrainer cuts the prompt in the name of a folder; a blank at the end is then lost too."""


@dataclass(frozen=True)
class Layout:
    """The names that one trainer gives its samples; the pattern's groups are ``step`` and, where there are such, the others."""

    name: str
    example: str
    pattern: re.Pattern[str]
    unit: str = "step"
    """What is counted in the names: steps or epochs."""
    from_one: bool = True
    """Whether 0 is the base model, as where a trainer counts from 1; a loop of one's own may call its first, trained epoch 0."""


def _layout(name: str, example: str, pattern: str, unit: str = "step") -> Layout:
    return Layout(name, example, re.compile(f"{_START}{pattern}{_END}", re.IGNORECASE), unit)


_KOHYA = r"(?:(?P<series>[^/]+)_)?{}_(?P<prompt>\d{{2,}})_(?P<date>\d{{14}})(?:_-?\d+){{0,2}}"
_BASE_OR_STEP = r"(?:e(?=0{6}_))?(?P<step>\d{6,})"
LAYOUTS = (
    _layout("bayesdiff", "images/step-000100/prompt-00-image-00.png", r"step-(?P<step>\d+)/prompt-(?P<prompt>\d+)-image-(?P<image>\d+)"),
    _layout("kohya", "sample/NAME_000100_00_20240819160839.png", _KOHYA.format(_BASE_OR_STEP)),
    _layout("kohya, by epoch", "sample/NAME_e000004_00_20240819160839.png", _KOHYA.format(r"e(?P<step>\d{6,})"), "epoch"),
    _layout("ai-toolkit", "samples/1724080000__000000250_0.jpg",
            r"(?:rank\d+_sample(?P<sample>\d+)_)?(?P<date>\d{9,})__(?P<step>\d{9,})_(?P<prompt>\d+)"),
    _layout("OneTrainer", "samples/0 - a photo of sks dog/2024-08-19_16-08-39-training-sample-100-4-0.png",
            rf"(?P<prompt>\d+) - (?P<text>[^/]*)(?<! - no-ema)/(?P<series>[^/]*?)(?P<date>{DATE})-training-sample-(?P<step>\d+)-\d+-\d+"),
    _layout("SimpleTuner", "validation_images/step_100_NAME_0_512x512.png",
            r"step_(?P<step>\d+)_(?P<prompt>[^/]+?)(?P<image>(?:_\d+)?(?:_\d+(?:\.\d+)?x\d+(?:\.\d+)?|_\d+\.\d+|_unknown)?)"),
    _layout("a folder a step", "step-100/0.png",
            r"(?:step|checkpoint|iter|iteration)s?[-_ ]?(?P<step>\d+)/(?P<prompt>.+)"),
    replace(_layout("a folder an epoch", "epoch-4/0.png", r"epochs?[-_ ]?(?P<step>\d+)/(?P<prompt>.+)", "epoch"), from_one=False),
)  # fmt: skip
GROUPS = ("step", "prompt", "image")
"""Names of groups that a pattern of a user's own may have; it must have the first."""


@dataclass(frozen=True)
class Seen:
    """What the name of one sample says."""

    path: Path
    step: int
    prompt: str
    image: str
    text: str = ""
    """The prompt itself, where the name has it."""
    date: str = ""
    series: str = ""
    """The name of the training, where samples of several may lie in one folder."""


@dataclass(frozen=True)
class Samples:
    """The samples of a folder, and the pictures in it that are none."""

    layout: Layout
    seen: tuple[Seen, ...]
    others: tuple[str, ...]
    """Names of the pictures that the layout does not have."""
    notes: tuple[str, ...] = ()
    """How steps were counted, where it is not as the names have them."""


def own_pattern(text: str) -> Layout:
    """The layout of ``--pattern``; raises ``UserError``."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UserError(
            f"--pattern {text!r}: no regular expression ({first_line(error)}); see docs.python.org/3/library/re.html"
        ) from error
    if "step" not in pattern.groupindex:
        raise UserError(f"--pattern {text!r}: no group of steps; write them as (?P<step>\\d+), with (?P<prompt>…) and (?P<image>…) if any")
    return Layout("--pattern", text, pattern)


def pictures_in(folder: Path) -> list[str]:
    """Names of all pictures below a folder, in order, hidden ones left out. Raises ``UserError`` where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that the trainer wrote its samples to")
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (Path(root, name) for name in files if not name.startswith(".") and name.lower().endswith(ENDINGS))
        found += [path.relative_to(folder).as_posix() for path in names]
    if not found:
        raise UserError(f"{folder}: no pictures in it ({', '.join(ENDINGS)}); give the folder that the trainer wrote its samples to")
    return sorted(found)


MOST_STEPS = 10**12
"""More are a date or a seed that was taken for a step."""


def _seen(folder: Path, name: str, layout: Layout, above: str) -> Seen | None:
    """One sample; ``above`` comes before its name, where the folder's own name is needed to tell prompts apart."""
    if (match := layout.pattern.search(above + name)) is None:
        return None
    said = {group: value or "" for group, value in match.groupdict().items()}
    try:
        step = int(said["step"])
    except ValueError as error:
        raise UserError(f"--pattern: {said['step']!r} in {name} is no number of steps; let (?P<step>…) match digits alone") from error
    if step > MOST_STEPS:
        raise UserError(f"{folder}: {name} says step {said['step']}, which no training reaches; rename it, or give --pattern")
    prompt = said.get("sample") or said.get("prompt", "")
    if not {"prompt", "image"} & set(said):
        prompt = _rest(name, match)
    text = said.get("text", "")
    whole = text if len(text) < CUT - 1 else ""  # what is left of a prompt that was cut is another prompt
    return Seen(folder / name, step, prompt, said.get("image", ""), whole, said.get("date", ""), said.get("series", ""))


def _rest(name: str, match: re.Match[str]) -> str:
    """A name without its step: what pairs the samples where a pattern names no prompt."""
    start, end = match.span("step")
    return f"{name[:start]}{name[end:]}"


def find_samples(folder: Path, pattern: str | None = None) -> Samples:
    """The samples below a folder by the layout that most of its pictures have.

    Raises:
        UserError: no folder, no pictures, no known layout, or samples of several trainings.
    """
    own = pattern is None and any((folder / SAMPLES).glob("step-*"))  # a run of this package, which has other pictures besides
    inside = folder / SAMPLES if own else folder
    names = pictures_in(inside)
    layouts = LAYOUTS if pattern is None else (own_pattern(pattern),)
    layout, seen = _most(inside, names, layouts, "")
    if not any(seen) and pattern is None:
        layout, seen = _most(inside, names, layouts, f"{inside.resolve().name}/")
    found = tuple(one for one in seen if one is not None)
    if not found:
        raise UserError(_unknown(folder, names, pattern))
    _one_series(folder, found, layout)
    raised, notes = counted(layout, [one.step for one in found])
    found = tuple(replace(one, step=step) for one, step in zip(found, raised, strict=True))
    return Samples(layout, found, tuple(name for name, one in zip(names, seen, strict=True) if one is None), notes)


def counted(layout: Layout, steps: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
    """Steps as they are shown, and a note of it: step 0 is the base model, and an epoch 0 that is trained becomes step 1."""
    if layout.from_one or 0 not in steps:
        return list(steps), ()
    note = FROM_ZERO.format(last=max(steps), shown=max(steps) + 1)
    return [step + 1 for step in steps], (f"{note}; if it is the base model, call the folders step-0, step-1 and so on",)


def _most(folder: Path, names: list[str], layouts: Sequence[Layout], above: str) -> tuple[Layout, list[Seen | None]]:
    """The layout that most of the names have, the first of equals, and what it says of each name."""
    tried = [(layout, [_seen(folder, name, layout, above) for name in names]) for layout in layouts]
    return max(tried, key=lambda one: sum(found is not None for found in one[1]))


def _unknown(folder: Path, names: list[str], pattern: str | None) -> str:
    if pattern is not None:
        return f"--pattern {pattern!r}: found in none of the {len(names)} names of pictures in {folder}, such as {names[0]}; correct it"
    known = "; ".join(f"{layout.name}: {layout.example}" for layout in LAYOUTS)
    remedy = r"say what they mean, as in --pattern '(?P<step>\d+)_(?P<prompt>\d+)'"
    return f"{folder}: names such as {names[0]} are of no known layout ({known}); {remedy}"


def _one_series(folder: Path, found: tuple[Seen, ...], layout: Layout) -> None:
    series = Counter(one.series for one in found)
    if len(series) > 1:
        shown = ", ".join(f"{name or 'no name'} ({count})" for name, count in sorted(series.items()))
        name = re.escape(min(filter(None, series)))
        chosen = rf"(^|/){name}_e?(?P<step>\d+)_(?P<prompt>\d+)"
        if layout.name == "OneTrainer":
            chosen = rf"(?P<prompt>\d+) - [^/]*(?<! - no-ema)/{name}{DATE}-training-sample-(?P<step>\d+)"
        raise UserError(f"{folder}: samples of several trainings ({shown}); choose one, as in --pattern '{chosen}'")
