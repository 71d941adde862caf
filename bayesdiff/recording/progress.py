"""What a person sees while a run works: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from bayesdiff.config.work import Work, spoken
from bayesdiff.core import escape

PLAIN_INTERVAL = 15.0
"""Seconds between plain lines of one phase."""
ENOUGH = 5
"""Steps after which the time left is told: the first ones are slow."""


class Display:
    """Phase, step, loss and time left of one run that begins at step ``start``."""

    def __init__(self, work: Work, start: int, console: Console, bar: Progress | None):
        self.work, self.start, self.console, self.bar = work, start, console, bar
        self.began = self.last = time.monotonic()
        self.task: TaskID | None = None
        if bar is not None:
            self.task = bar.add_task("train", total=work.steps, completed=start, detail="")

    def step(self, step: int, loss: float) -> None:
        """One optimisation step is done."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=step, description="train", detail=f"loss {loss:.4f}{self._left(step)}")
        elif time.monotonic() - self.last > PLAIN_INTERVAL:
            self.last = time.monotonic()
            self.console.print(f"train  step {step}/{self.work.steps}  loss {loss:.4f}{self._left(step)}", highlight=False)

    def _left(self, step: int) -> str:
        """The time left, from what this session has done; nothing before it has done enough to tell."""
        left = self.work.seconds_left(self.start, step, time.monotonic() - self.began) if step - self.start >= ENOUGH else None
        return "" if left is None else f"  about {spoken(left)} left"

    def phase(self, name: str, step: int) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, description=name, detail=f"at step {step}")

    def checkpoint(self, step: int, row: dict[str, float], evaluation: str = "") -> None:
        """One checkpoint is scored, by the run's own evaluation or a further one."""
        line = (
            f"step {step:>5}  dino {row['dino']:.3f}  clip_i {row['clip_i']:.3f}  clip_t {row['clip_t']:.3f}  "
            f"grain {_grain(row)}  {evaluation}"
        ).rstrip()
        (self.bar.console if self.bar is not None else self.console).print(escape.plain(line), highlight=False, markup=False)

    def warn(self, step: int, text: str) -> None:
        """Say what the running verdict warns of, if anything."""
        if text:
            (self.bar.console if self.bar is not None else self.console).print(
                escape.plain(f"step {step:>5}  ! {text}"), style="yellow", highlight=False, markup=False
            )


@contextmanager
def display(work: Work, start: int) -> Iterator[Display]:
    """A live display where standard output is a terminal, else plain lines."""
    console = Console(emoji=False)
    if not console.is_terminal:
        yield Display(work, start, console, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Display(work, start, console, bar)


def _grain(row: Mapping[str, float] | pd.Series) -> str:
    """Relative high-frequency energy; a dash where the photographs have none."""
    return f"{row['hf_relative']:.2f}" if "hf_relative" in row else "-"


def print_curve(curve: pd.DataFrame, labels: tuple[str, ...], sentence: str, folder: str, others: Mapping[str, str]) -> None:
    """The closing table of checkpoints, the verdict, those of other evaluations by name, and where to look."""
    console = Console(emoji=False, width=None if Console().is_terminal else 100)
    table = Table(title=None)
    for name in ("step", "dino", "± se", "clip_i", "clip_t", "grain", "failed", "stage"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for (_, row), label in zip(curve.iterrows(), labels, strict=True):
        table.add_row(
            str(int(row["step"])), f"{row['dino']:.3f}", f"{row['dino_se']:.3f}", f"{row['clip_i']:.3f}", f"{row['clip_t']:.3f}",
            _grain(row), f"{row['failed'] * row['images']:.0f}", label,
        )  # fmt: skip
    console.print(table)
    console.print(escape.plain(sentence), highlight=False, soft_wrap=True, markup=False)
    for name, said in others.items():
        console.print(escape.plain(f"{name}: {said}"), highlight=False, soft_wrap=True, markup=False)
    console.print(escape.plain(f"Look at {folder}/curve.png and {folder}/grid.png"), highlight=False, soft_wrap=True, markup=False)
