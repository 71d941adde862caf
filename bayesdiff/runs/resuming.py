"""Where a run goes on from: the newest resume state with which everything written so far is as it was.

A damaged state costs the steps since the older one. Damage that no state gets round is refused, and nothing is changed.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bayesdiff.config.schema import Keep, Weights
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import STAGING, atomic_write, sha256
from bayesdiff.core.layout import CHECKPOINTS, RESUME, SCORES, images_folder, step_folder, steps_in
from bayesdiff.core.output import say
from bayesdiff.core.processes import broadcast, gather, process_count
from bayesdiff.methods import method_of
from bayesdiff.recording.checkpoint import Damaged, check_owner, restore, resumable_steps, verify, verify_state
from bayesdiff.recording.seals import anything_in, check_checkpoints, check_tables, spoiled_pictures, start_again, sweep
from bayesdiff.runs.evaluations import Evaluation, read_back, sample

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
            # at step 0 the model is as it was, unless pictures of this state, or of a newer one that was left out, were sampled again
            if step or mended or found:
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

    The model then has the weights of these checkpoints, also where ``Damaged`` is raised.

    Raises:
        Damaged: a picture whose checkpoint is not there, or one that does not come out as it was. No picture is changed then.
    """
    spoiled = spoiled_pictures(bench.folder, step)
    if not spoiled:
        return False
    paths = sorted({(bench.folder / name).parent for name in spoiled})
    origins = {path: found for path in paths if (found := _origin(bench, path)) is not None}
    if lost := [name for name in spoiled if (bench.folder / name).parent not in origins or process_count() > 1]:
        raise _lost(bench, lost)
    verify_state(bench.folder, step, bench.record.run_key)
    with TemporaryDirectory(dir=bench.folder, suffix=STAGING) as beside:
        for path, (one, weights) in origins.items():
            _sample_again(bench, one, weights, Path(beside) / path.relative_to(bench.folder))
        if other := [name for name, digest in spoiled.items() if not _is(Path(beside) / name, digest)]:
            raise _lost(bench, other)
        for name in spoiled:
            with atomic_write(bench.folder / name) as part:
                shutil.copyfile(Path(beside) / name, part)
    for path in origins:
        say(f"{path}: sampled again")
    return True


def _sample_again(bench: Bench, one: Evaluation, weights: Path, target: Path) -> None:
    """The pictures of one checkpoint and evaluation, into a folder of their own."""
    from bayesdiff.diffusion.sampling import save_samples

    verify(weights, bench.record.run_key)
    method_of(bench.cfg.method.name).load(bench.training.parts, weights)
    # the checkpoint holds what the arm shows: it is sampled as it is
    save_samples(sample(bench.training, replace(one, weights=Weights.trained), bench.cfg.model.resolution), target)


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _origin(bench: Bench, path: Path) -> tuple[Evaluation, Path] | None:
    """The evaluation that wrote a folder of pictures, and the checkpoint that it showed; None where it showed other weights."""
    for one in bench.evaluations:
        for step in steps_in(bench.folder / CHECKPOINTS):
            if one.weights is Weights.kept and images_folder(one.folder, step) == path:
                return one, step_folder(bench.folder / CHECKPOINTS, step)
    return None


def _lost(bench: Bench, names: list[str]) -> Damaged:
    return Damaged(f"{bench.folder / min(names)}: removed or changed, and no checkpoint makes it again", start_again(bench.folder))


def _check_complete(bench: Bench, start: int) -> None:
    """Raises ``UserError`` where the run's own scores lack a checkpoint before ``start``."""
    main = bench.evaluations[0]
    if lacking := [step for step in bench.cfg.schedule.checkpoints if step < start and not main.done(step)]:
        raise UserError(f"{main.folder / SCORES}: has no step {lacking[0]}; {start_again(bench.folder)}")
