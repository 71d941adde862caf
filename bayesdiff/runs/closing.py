"""The end of a run: its verdict and status, then what is left of training goes, then pictures and words.

``resume/`` goes last. A run that is completed and still has it was killed at its end, and the same command ends it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from bayesdiff.config.identity import arm_name, as_dict
from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import Config
from bayesdiff.core.errors import first_line
from bayesdiff.core.files import STAGING, remove_partial
from bayesdiff.core.layout import CURVE, LOCK, MAIN, RESUME, SCORES
from bayesdiff.core.output import say
from bayesdiff.diffusion.subject import Subject
from bayesdiff.recording.checkpoint import close, finish, retain
from bayesdiff.recording.progress import print_curve
from bayesdiff.recording.record import RunRecord, phase
from bayesdiff.recording.tracker import Tracker
from bayesdiff.runs.bench import Bench
from bayesdiff.runs.checkpoints import curves, judge, versioned
from bayesdiff.runs.evaluations import places_of, write_csv
from bayesdiff.scoring.curve import curve_table, read_scores


@dataclass(frozen=True)
class Shown:
    """What a picture needs of one evaluation."""

    name: str
    folder: Path
    prompts: list[Prompt]
    curve: pd.DataFrame


def conclude(bench: Bench, tracker: Tracker) -> None:
    """Verdicts and status first; then what is kept, pictures, and the closing words."""
    cfg, folder, record = bench.cfg, bench.folder, bench.record
    shown = []
    for one, curve in curves(bench):
        write_csv(one.folder / CURVE, curve)  # again: a run killed between the two tables would lack the last row
        verdict = judge(bench, one.scores)
        shown.append(Shown(one.name, one.folder, one.prompts, curve))
        if one.name == MAIN:
            record.verdict = versioned(verdict)
        else:
            record.evaluations[one.name] = {**as_dict(cfg)["evaluations"][one.name], "verdict": versioned(verdict)}
    if record.status != "diverged":
        record.status = "completed"
    record.save(folder)  # before what only an unfinished run needs is removed, and before anything cosmetic can fail
    _drop_states(cfg, folder, record)
    if record.status == "diverged":
        say(f"Diverged: {record.message}; the curve up to there is kept in {folder}")
    _unless_it_fails(record, "pictures", lambda: _picture(cfg, record, bench.subject, shown))
    _unless_it_fails(record, "closing words", lambda: _closing_words(record, folder, shown))
    tracker.finish(bench.evaluations[0].scores, {"status": record.status, **(record.verdict or {})})
    record.save(folder)
    _page(cfg, folder, record)
    close(folder)  # not where the record could not be saved: the same command again ends the run


def end_again(cfg: Config, folder: Path, record: RunRecord, subject: Subject) -> None:
    """End what a kill behind the verdict left: states, checkpoints that are not kept, half-written files, missing pictures."""
    if not (folder / RESUME).exists() and not any(folder.rglob(f"*{STAGING}")):
        return
    with suppress(Timeout), FileLock(folder / LOCK, timeout=0):  # who holds it is just finishing
        remove_partial(folder)
        _drop_states(cfg, folder, record)
        if (folder / RESUME).exists():
            _unless_it_fails(record, "pictures", lambda: _picture(cfg, record, subject, list(_kept(cfg, folder, record, subject))))
            record.save(folder)
            _page(cfg, folder, record)
        close(folder)


def _drop_states(cfg: Config, folder: Path, record: RunRecord) -> None:
    if record.verdict is not None:
        finish(folder, cfg.schedule.keep, record.verdict["best_step"])
        retain(folder, cfg.schedule.keep, record.verdict["best_step"])


def _kept(cfg: Config, folder: Path, record: RunRecord, subject: Subject) -> Iterator[Shown]:
    """What the evaluations of a finished run show, from its folder; those that it was judged by."""
    for name, place, _, prompts in places_of(cfg, folder, subject):
        if (place / SCORES).exists() and (name == MAIN or "verdict" in record.evaluations.get(name, {})):
            yield Shown(name, place, prompts, curve_table(read_scores(place)))


def note(record: RunRecord, line: str) -> None:
    """Add a line to the record's message, once."""
    if line not in record.message:
        record.message = "; ".join(filter(None, [record.message, line]))


def _unless_it_fails(record: RunRecord, name: str, action: Callable[[], None]) -> None:
    """Do something cosmetic; whatever it raises becomes a line in the record of a run that is finished already."""
    try:
        action()
    except Exception as error:  # fonts, terminals, full disks: none of them may undo a finished run
        note(record, f"{name} failed: {first_line(error)}")
        warnings.warn(f"{name} of the run failed and are left out: {first_line(error)}", stacklevel=2)


def _picture(cfg: Config, record: RunRecord, subject: Subject, shown: list[Shown]) -> None:
    """Curve and grid of every evaluation."""
    from bayesdiff.corruption import CorruptionVerdict
    from bayesdiff.recording.plots import kept_step, plot_curve, plot_grid

    count = len(subject.photos)
    title = f"{subject.name}, {count} training image{'s' if count != 1 else ''}, {cfg.method.name}, {arm_name(vars(cfg.bnn))}"
    for one in shown:
        kept = record.verdict if one.name == MAIN else record.evaluations[one.name]["verdict"]
        assert kept is not None, "every evaluation with scores was judged"
        verdict = CorruptionVerdict.from_dict(kept)
        named = title if one.name == MAIN else f"{title}, {one.name}"
        with phase(record, "plot"):
            photos = [photo.image for photo in subject.photos]
            plot_curve(one.folder, one.curve, verdict, cfg.detector.metric.value, named, photos)
            plot_grid(one.folder, [int(s) for s in one.curve["step"]], [p.text for p in one.prompts], photos, kept=kept_step(verdict))


def _page(cfg: Config, folder: Path, record: RunRecord) -> None:
    """``report.html`` where it is asked for; it reads the record that was just saved."""

    def write() -> None:
        from bayesdiff.reporting.runs import write_run_page

        say(f"Page: {write_run_page(folder)}")

    if cfg.report:
        _unless_it_fails(record, "page", write)
        record.save(folder)


def _closing_words(record: RunRecord, folder: Path, shown: list[Shown]) -> None:
    """The run's own table and verdict on the terminal, then a line for each further evaluation."""
    from bayesdiff.corruption import CorruptionVerdict

    if record.verdict is None:
        return
    verdict = CorruptionVerdict.from_dict(record.verdict)
    others = {name: kept["verdict"]["sentence"] for name, kept in record.evaluations.items()}
    print_curve(shown[0].curve, verdict.labels, verdict.sentence, str(folder), others)
