"""Where a run goes on from: the newest resume state with which everything written so far is as it was.

A damaged state costs the steps since the older one. Damage that no state gets round is refused, and nothing is changed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bayesdiff.config.schema import Keep, Weights
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import CHECKPOINTS, RESUME, SCORES, images_folder, step_folder, steps_in
from bayesdiff.core.output import say
from bayesdiff.core.processes import broadcast, gather, process_count
from bayesdiff.methods import method_of
from bayesdiff.recording.checkpoint import Damaged, check_owner, restore, resumable_steps, verify, verify_state
from bayesdiff.recording.seals import anything_in, check_checkpoints, check_tables, spoiled_pictures, start_again, sweep
from bayesdiff.runs.evaluations import Evaluation, keep_samples, read_back, sample

if TYPE_CHECKING:
    from bayesdiff.runs.bench import Bench


def resume(bench: Bench) -> int:
    """Load the newest sound state, remove what was left behind it, and read the scores back; returns its step, 0 for a new start.

    Raises:
        UserError: a folder of another run or step, or damage that cannot be made good.
    """
    folder = bench.folder
    _check_owners(folder, bench.record.run_key)
    step = _load_newest(bench)
    start = broadcast(step or 0)
    if start:
        gather([])  # nothing is changed before every process has read
        say(f"Resuming from step {start} of {folder}")
    elif step is None and anything_in(folder):
        say(f"Starting again from step 0: {folder} has no whole resume state")
    sweep(folder, step)
    for one in bench.evaluations:
        read_back(one, start)
    _check_complete(bench, start)
    return int(start)


def _check_owners(folder: Path, key: str) -> None:
    for place in (CHECKPOINTS, RESUME):
        for step in steps_in(folder / place):
            try:
                check_owner(step_folder(folder / place, step), key)
            except Damaged:
                continue  # found where the folder is used


def _load_newest(bench: Bench) -> int | None:
    """Try the resume states from the newest on; says which are left out. Raises the first ``Damaged`` where none is sound."""
    found: list[Damaged] = []
    for step in reversed(resumable_steps(bench.folder)):
        try:
            _check(bench, step)
            mended = _mend_pictures(bench, step)
            if step or mended:
                restore(bench.folder, step, method_of(bench.cfg.method.name), bench.training, bench.record.run_key)
        except Damaged as error:
            found.append(error)
            continue
        for newer in found:
            say(f"{newer.what}: going back to step {step}")
        return step
    if found:
        raise found[0]
    return None


def _check(bench: Bench, step: int) -> None:
    """Raises ``Damaged`` where tables or checkpoints are not as they were at a step; pictures can be made again."""
    folder, key = bench.folder, bench.record.run_key
    if not step:
        verify_state(folder, step, key)
    check_tables(folder, step)
    if bench.cfg.schedule.keep is not Keep.last:
        check_checkpoints(folder, step)
    for older in [one for one in steps_in(folder / CHECKPOINTS) if one < step]:
        try:
            verify(step_folder(folder / CHECKPOINTS, older), key)
        except Damaged as error:
            raise Damaged(error.what, start_again(folder)) from error


def _mend_pictures(bench: Bench, step: int) -> bool:
    """Sample pictures again that were removed or changed, from the checkpoints of their steps; whether any was.

    Raises:
        Damaged: a picture whose checkpoint is not there, or one that does not come out as it was.
    """
    spoiled = spoiled_pictures(bench.folder, step)
    for path in sorted({(bench.folder / name).parent for name in spoiled}):
        one, weights = _origin(bench, path)
        if one is None or process_count() > 1:
            raise _lost(bench, spoiled)
        verify(weights, bench.record.run_key)
        method_of(bench.cfg.method.name).load(bench.training.parts, weights)
        at = int(path.name.removeprefix("step-"))
        # the checkpoint holds what the arm shows: it is sampled as it is
        keep_samples(one, at, sample(bench.training, replace(one, weights=Weights.trained), bench.cfg.model.resolution))
        say(f"{path}: sampled again")
    if left := spoiled_pictures(bench.folder, step):
        raise _lost(bench, left)
    return bool(spoiled)


def _origin(bench: Bench, path: Path) -> tuple[Evaluation | None, Path]:
    """The evaluation that wrote a folder of pictures, and the checkpoint that it showed; None where it showed other weights."""
    for one in bench.evaluations:
        for step in steps_in(bench.folder / CHECKPOINTS):
            if one.weights is Weights.kept and images_folder(one.folder, step) == path:
                return one, step_folder(bench.folder / CHECKPOINTS, step)
    return None, path


def _lost(bench: Bench, names: dict[str, str]) -> Damaged:
    return Damaged(f"{bench.folder / min(names)}: removed or changed, and no checkpoint makes it again", start_again(bench.folder))


def _check_complete(bench: Bench, start: int) -> None:
    """Raises ``UserError`` where the run's own scores lack a checkpoint before ``start``."""
    main = bench.evaluations[0]
    if lacking := [step for step in bench.cfg.schedule.checkpoints if step < start and not main.done(step)]:
        raise UserError(f"{main.folder / SCORES}: has no step {lacking[0]}; {start_again(bench.folder)}")
