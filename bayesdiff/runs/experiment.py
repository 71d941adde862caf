"""One run from configuration to record: the rooms of the house, walked through once.

subject and prompts → pipeline → method and arm → loop → checkpoint images → scores → curve → verdict → record.
The same command again resumes a run that was stopped.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bayesdiff.config.identity import as_dict, run_key, run_name
from bayesdiff.config.prompts import evaluation_prompts
from bayesdiff.config.schema import Config, StopAfter
from bayesdiff.config.work import work_of
from bayesdiff.core.digests import fingerprint
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import LOCK_SECONDS, check_writable, faults_named, remove_partial, write_text
from bayesdiff.core.layout import CONFIG, LOCK
from bayesdiff.core.output import say
from bayesdiff.core.privacy import public
from bayesdiff.core.processes import broadcast, check_shares, gather, is_main_process
from bayesdiff.core.signals import held, waiting
from bayesdiff.corruption.monitor import may_stop
from bayesdiff.diffusion.subject import Subject, load_subject
from bayesdiff.methods import method_of
from bayesdiff.recording.checkpoint import restore, save_pause
from bayesdiff.recording.progress import Display, display
from bayesdiff.recording.record import RunRecord, load_record, phase
from bayesdiff.recording.seals import written_so_far
from bayesdiff.recording.tracker import Tracker
from bayesdiff.runs.bench import Bench, load_bench, local_places
from bayesdiff.runs.checkpoints import checkpoint, complete, judge, sampled_draws
from bayesdiff.runs.closing import conclude, end_again, note
from bayesdiff.runs.evaluations import sample
from bayesdiff.runs.guards import check_same_photos, check_same_run, check_same_weights
from bayesdiff.runs.resuming import resume


def run_experiment(cfg: Config, command: str = "") -> tuple[Path, RunRecord]:
    """Run, resume, or find done; returns the run folder and its record, which keeps ``command``.

    Raises:
        UserError: bad input, found before anything is written, or a run in use by another process.
    """
    folder = Path(cfg.paths.runs).expanduser() / run_name(cfg)
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
        if is_main_process():
            with faults_named(folder):
                end_again(cfg, folder, done, subject)
            _say_done(cfg, folder, done)
        return folder, done
    record = done or RunRecord(run_key(cfg), "running", as_dict(cfg), command, weights=weights)
    record.config["evaluations"] = as_dict(cfg)["evaluations"]  # they do not name the run, and may have grown
    with faults_named(folder):
        return folder, _run(cfg, folder, record, subject)


def _run(cfg: Config, folder: Path, record: RunRecord, subject: Subject) -> RunRecord:
    """Load, lock and execute; returns the record, or another process's where that one finished the run meanwhile."""
    prompts = evaluation_prompts(list(cfg.sampler.prompts), subject.identifier, subject.class_noun, cfg.metrics.identifier_in_clip_text)
    with phase(record, "load"):
        bench = load_bench(cfg, folder, record, subject, prompts)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=LOCK_SECONDS) if is_main_process() else nullcontext():
            finished = load_record(folder)
            if broadcast(finished is not None and finished.status != "running"):  # by another run, while this one loaded
                return finished or record
            if is_main_process():
                _execute(bench)
            else:
                _assist(bench)
    except Timeout as error:
        raise UserError(f"{folder}: another process works on this run; wait for it or stop it") from error
    return record


def _say_done(cfg: Config, folder: Path, done: RunRecord) -> None:
    say(f"Already {done.status}: {folder} (remove the folder to run it again)")
    if lacking := [name for name in cfg.evaluations if name not in done.evaluations]:
        say(f"It has no evaluation {', '.join(lacking)}: a finished run keeps too few checkpoints for a new one")


def _execute(bench: Bench) -> None:
    """Resume where the run stands, walk the checkpoints, and close with the verdict."""
    cfg, folder, record = bench.cfg, bench.folder, bench.record
    remove_partial(folder)
    record.save(folder)
    write_text(folder / CONFIG, _yaml(public(_in_order_of(as_dict(cfg), record.config))))
    start = resume(bench)
    tracker = Tracker(cfg, folder, start, lambda line: note(record, line))
    if record.bayesian["layers"]:
        b = record.bayesian
        print(f"Bayesian: {b['layers']} layers, {b['weights']:,} of {b['unet_weights']:,} weights ({b['share']:.1%})")
    with display(work_of(cfg), start) as show, bench.writer as writer:
        _walk(bench, start, tracker, show)
        writer.wait()
    broadcast(None)  # no step is left
    conclude(bench, tracker)


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
        if step < start or complete(bench, step):
            continue
        if cfg.detector.stop_after is StopAfter.recovered and len(main.scores) and may_stop(judge(bench, main.scores)):
            note(record, f"stopped at step {at}: recovered (detector.stop_after)")
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
    """Train; a signal waits until a step is done, which is saved before ``Terminated`` is raised or a handler of others called."""
    while start < stop:  # a handler may come back
        start = _train_to_a_signal(bench, start, stop, tracker, show)


def _train_to_a_signal(bench: Bench, start: int, stop: int, tracker: Tracker, show: Display) -> int:
    """Returns the step that training came to."""
    from bayesdiff.training.loop import reads_every, train

    cfg, training = bench.cfg, bench.training
    every = reads_every(training, cfg)

    def report(step: int, parts: dict[str, float]) -> None:
        show.step(step, parts["loss"])
        bench.writer.check()
        if step % cfg.schedule.log_every == 0:
            tracker.train(step, parts)
        # on a GPU the loop tells of several steps at once: only the last of them is where the weights stand
        if waiting() and (step % every == 0 or step == stop):
            raise _Paused(step)

    with held():
        try:
            with phase(bench.record, "train"):
                train(training, cfg, start, stop, report)
            if waiting():  # it came behind the last report
                raise _Paused(stop)
        except _Paused as paused:
            _pause(bench, paused.step)
            stop = paused.step
    return stop


def _pause(bench: Bench, step: int) -> None:
    """Save where training stands, behind the checkpoint that may still be written."""
    bench.training.arm.after_training()
    bench.writer.wait()
    with phase(bench.record, "save"):
        method, record = method_of(bench.cfg.method.name), bench.record
        save_pause(bench.folder, step, method, bench.training, record.run_key, written_so_far(bench.folder))
    bench.record.save(bench.folder)
    say(f"Step {step} is saved in {bench.folder}")


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


def _in_order_of(first: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """The content with its keys in the order of ``first``: a record keeps them sorted, and a resumed run writes the same file."""
    names = [name for name in first if name in content] + [name for name in content if name not in first]
    deeper = {name: first.get(name) for name in names}
    return {
        name: _in_order_of(like, content[name]) if isinstance(like, dict) and isinstance(content[name], dict) else content[name]
        for name, like in deeper.items()
    }


def _yaml(content: dict[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(content))
