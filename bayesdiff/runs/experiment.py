"""One run from configuration to record: the rooms of the house, walked through once.

subject and prompts → pipeline → method and arm → loop → checkpoint images → scores → curve → verdict → record.
The same command again resumes a run that was stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bayesdiff.config.identity import arm_name, as_dict, run_key, run_name
from bayesdiff.config.prompts import evaluation_prompts
from bayesdiff.config.schema import Config, StopAfter
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import LOCK_SECONDS, STAGING, check_writable, fingerprint, remove_partial, write_text
from bayesdiff.core.layout import CONFIG, CURVE, LOCK, MAIN, RESUME
from bayesdiff.core.processes import broadcast, check_shares, gather, is_main_process
from bayesdiff.core.signals import held, waiting
from bayesdiff.corruption.monitor import may_stop
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.methods import method_of
from bayesdiff.recording.checkpoint import finish, restore, retain, save_pause
from bayesdiff.recording.progress import Display, display, print_curve
from bayesdiff.recording.record import RunRecord, load_record, phase
from bayesdiff.recording.seals import written_so_far
from bayesdiff.recording.tracker import Tracker
from bayesdiff.runs.bench import Bench, load_bench, local_places
from bayesdiff.runs.checkpoints import checkpoint, curves, judge, sampled_draws, versioned
from bayesdiff.runs.evaluations import sample, write_csv
from bayesdiff.runs.guards import check_same_photos, check_same_run, check_same_weights
from bayesdiff.runs.resuming import resume
from bayesdiff.scoring.curve import curve_table


def run_experiment(cfg: Config, command: str = "") -> tuple[Path, RunRecord]:
    """Run, resume, or find done; returns the run folder and its record, which keeps ``command``.

    Raises:
        UserError: bad input, found before anything is written, or a run in use by another process.
    """
    folder = Path(cfg.paths.runs) / run_name(cfg)
    check_writable(folder, "paths.runs")
    check_shares(cfg.training.gradient_accumulation_steps)
    seed = cfg.seed if cfg.shots.seed is None else cfg.shots.seed
    subject = load_subject(cfg.data, cfg.shots.count, seed, cfg.model.resolution)
    done = load_record(folder)
    places = local_places(cfg)
    weights = {name: fingerprint(place) for name, place in places.items()}
    if done is not None:
        check_same_run(folder, done, cfg)
        check_same_photos(folder, done, subject)
        check_same_weights(folder, done, weights, places)
    if done is not None and done.status != "running":
        _say_done(cfg, folder, done)
        return folder, done
    prompts = evaluation_prompts(list(cfg.sampler.prompts), subject.identifier, subject.class_noun, cfg.metrics.identifier_in_clip_text)
    record = done or RunRecord(run_key(cfg), "running", as_dict(cfg), command, weights=weights)
    record.config["evaluations"] = as_dict(cfg)["evaluations"]  # they do not name the run, and may have grown
    with phase(record, "load"):
        bench = load_bench(cfg, folder, record, subject, prompts)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=LOCK_SECONDS) if is_main_process() else nullcontext():
            finished = load_record(folder)
            if broadcast(finished is not None and finished.status != "running"):  # by another run, while this one loaded
                return folder, finished or record
            if is_main_process():
                _execute(bench)
            else:
                _assist(bench)
    except Timeout as error:
        raise UserError(f"{folder}: another process works on this run; wait for it or stop it") from error
    return folder, record


def _say_done(cfg: Config, folder: Path, done: RunRecord) -> None:
    if not is_main_process():
        return
    _sweep_finished(cfg, folder, done)
    print(f"Already {done.status}: {folder} (remove the folder to run it again)")
    if lacking := [name for name in cfg.evaluations if name not in done.evaluations]:
        print(f"It has no evaluation {', '.join(lacking)}: a finished run keeps too few checkpoints for a new one")


def _sweep_finished(cfg: Config, folder: Path, done: RunRecord) -> None:
    """Remove what a kill behind the verdict left: resume states, checkpoints that are not kept, half-written files."""
    if not (folder / RESUME).exists() and not any(folder.rglob(f"*{STAGING}")):
        return
    with suppress(Timeout), FileLock(folder / LOCK, timeout=0):  # who holds it is just finishing
        remove_partial(folder)
        if done.verdict is not None:
            finish(folder, cfg.schedule.keep, done.verdict["best_step"])
            retain(folder, cfg.schedule.keep, done.verdict["best_step"])


def _execute(bench: Bench) -> None:
    """Resume where the run stands, walk the checkpoints, and close with the verdict."""
    cfg, folder, record = bench.cfg, bench.folder, bench.record
    remove_partial(folder)
    record.save(folder)
    write_text(folder / CONFIG, _yaml(record.config))
    start = resume(bench)
    tracker = Tracker(cfg, folder, start, lambda line: _note(record, line))
    if record.bayesian["layers"]:
        b = record.bayesian
        print(f"Bayesian: {b['layers']} layers, {b['weights']:,} of {b['unet_weights']:,} weights ({b['share']:.1%})")
    with display(cfg.schedule.steps, start) as show:
        _walk(bench, start, tracker, show)
    broadcast(None)  # no step is left
    _conclude(bench, tracker)


class _Paused(Exception):
    """A signal waits, and training stands between two steps; ``step`` were done."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


def _walk(bench: Bench, start: int, tracker: Tracker, show: Display) -> None:
    """Train to each checkpoint step, save, sample and score; stops early when training diverges."""
    from bayesdiff.training.loop import Diverged

    cfg, record, main = bench.cfg, bench.record, bench.evaluations[0]
    at = start
    for step in cfg.schedule.checkpoints:
        if step < start or all(one.done(step) for one in bench.evaluations):
            continue
        if cfg.detector.stop_after is StopAfter.recovered and len(main.scores) and may_stop(judge(bench, main.scores)):
            _note(record, f"stopped at step {at}: recovered (detector.stop_after)")
            return
        broadcast(step)
        if step > at:
            try:
                _train(bench, at, step, tracker, show)
            except Diverged as error:
                record.status, record.message = "diverged", "; ".join(filter(None, [str(error), record.message]))
                return
            at = step
        checkpoint(bench, step, tracker, show)


def _train(bench: Bench, start: int, stop: int, tracker: Tracker, show: Display) -> None:
    """Train; a signal waits until a step is done, which is saved before ``Terminated`` is raised."""
    from bayesdiff.training.loop import reads_every, train

    cfg, training = bench.cfg, bench.training
    every = reads_every(training, cfg)

    def report(step: int, parts: dict[str, float]) -> None:
        show.step(step, parts["loss"])
        told = step % cfg.schedule.log_every == 0
        if told:
            tracker.train(step, parts)
        # on a GPU the loop tells of several steps at once: only the last of them is where the weights stand
        if waiting() and (step % every == 0 or step == stop):
            raise _Paused(step)

    with held():
        try:
            with phase(bench.record, "train"):
                train(training, cfg, start, stop, report)
        except _Paused as paused:
            _pause(bench, paused.step)


def _pause(bench: Bench, step: int) -> None:
    """Save where training stands."""
    bench.training.arm.after_training()
    with phase(bench.record, "save"):
        method, record = method_of(bench.cfg.method.name), bench.record
        save_pause(bench.folder, step, method, bench.training, record.run_key, written_so_far(bench.folder))
    bench.record.save(bench.folder)
    print(f"Step {step} is saved in {bench.folder}")


def _assist(bench: Bench) -> None:
    """Another process of a shared run: train and sample a share of every step that the main one goes to, and write nothing."""
    from bayesdiff.training.loop import Diverged, train

    cfg, training = bench.cfg, bench.training
    at = broadcast()
    if at:
        restore(bench.folder, at, method_of(cfg.method.name), training)
        gather([])
    while (step := broadcast()) is not None:
        try:
            train(training, cfg, at, step, lambda *_: None)
        except Diverged:
            continue
        at = step
        for one in broadcast():
            sample(training, bench.evaluations[one], cfg.model.resolution)
        for _ in sampled_draws(bench):
            pass


def _conclude(bench: Bench, tracker: Tracker) -> None:
    """Verdicts and status first; then pictures, what is kept, and the closing words."""
    cfg, folder, record = bench.cfg, bench.folder, bench.record
    for one, curve in curves(bench):
        write_csv(one.folder / CURVE, curve)  # again: a run killed between the two tables would lack the last row
        verdict = judge(bench, one.scores)
        if one.name == MAIN:
            record.verdict = versioned(verdict)
        else:
            record.evaluations[one.name] = {**as_dict(cfg)["evaluations"][one.name], "verdict": versioned(verdict)}
    if record.status != "diverged":
        record.status = "completed"
    record.save(folder)  # before what only an unfinished run needs is removed, and before anything cosmetic can fail
    if record.verdict is not None:
        finish(folder, cfg.schedule.keep, record.verdict["best_step"])
        retain(folder, cfg.schedule.keep, record.verdict["best_step"])
    if record.status == "diverged":
        print(f"Diverged: {record.message}; the curve up to there is kept in {folder}")
    _unless_it_fails(record, "pictures", lambda: _picture(bench))
    _unless_it_fails(record, "closing words", lambda: _closing_words(bench))
    tracker.finish(bench.evaluations[0].scores, {"status": record.status, **(record.verdict or {})})
    record.save(folder)


def _note(record: RunRecord, line: str) -> None:
    """Add a line to the record's message, once."""
    if line not in record.message:
        record.message = "; ".join(filter(None, [record.message, line]))


def _unless_it_fails(record: RunRecord, name: str, action: Callable[[], None]) -> None:
    """Do something cosmetic; whatever it raises becomes a line in the record of a run that is finished already."""
    try:
        action()
    except Exception as error:  # fonts, terminals, full disks: none of them may undo a finished run
        _note(record, f"{name} failed: {first_line(error)}")
        warnings.warn(f"{name} of the run failed and are left out: {first_line(error)}", stacklevel=2)


def _picture(bench: Bench) -> None:
    """Curve and grid of every evaluation."""
    from bayesdiff.corruption import CorruptionVerdict
    from bayesdiff.recording.plots import plot_curve, plot_grid

    cfg, record = bench.cfg, bench.record
    title = f"{bench.subject.name}, {len(bench.subject.photos)} image(s), {cfg.method.name}, {arm_name(vars(cfg.bnn))}"
    for one, curve in curves(bench):
        kept = record.verdict if one.name == MAIN else record.evaluations[one.name]["verdict"]
        assert kept is not None, "every evaluation with scores was judged"
        verdict = CorruptionVerdict.from_dict(kept)
        named = title if one.name == MAIN else f"{title}, {one.name}"
        with phase(record, "plot"):
            photos = [photo.image for photo in bench.subject.photos]
            plot_curve(one.folder, curve, verdict, cfg.detector.metric.value, named, photos)
            plot_grid(one.folder, [int(s) for s in curve["step"]], [p.text for p in one.prompts], photos, kept=verdict.best_step)


def _closing_words(bench: Bench) -> None:
    """The run's own table and verdict on the terminal, then a line for each further evaluation."""
    from bayesdiff.corruption import CorruptionVerdict

    main, record = bench.evaluations[0], bench.record
    if record.verdict is None:
        return
    verdict = CorruptionVerdict.from_dict(record.verdict)
    others = {name: kept["verdict"]["sentence"] for name, kept in record.evaluations.items()}
    print_curve(curve_table(main.scores), verdict.labels, verdict.sentence, str(bench.folder), others)


def _yaml(content: dict[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(content))
