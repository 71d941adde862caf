"""One checkpoint of a run: save, then sample and score every evaluation, write the tables, report."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayesdiff.config.schema import Keep
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import CHECKPOINTS, DRAWN, DRAWS, MAIN, RECORD, images_folder, step_folder, steps_in
from bayesdiff.core.processes import broadcast
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import judge_run
from bayesdiff.corruption.monitor import warning
from bayesdiff.corruption.outcome import DETECTOR_VERSION
from bayesdiff.methods import method_of
from bayesdiff.recording.checkpoint import kept_steps, retain, save_checkpoint
from bayesdiff.recording.progress import Display
from bayesdiff.recording.record import phase
from bayesdiff.recording.seals import logged, seal, written_so_far
from bayesdiff.recording.tracker import Tracker
from bayesdiff.runs.bench import Bench
from bayesdiff.runs.evaluations import Evaluation, keep_samples, sample, sampling_with, score, write_csv, write_scores
from bayesdiff.runs.probing import probes_of, write_probes
from bayesdiff.scoring.curve import curve_table, score_columns

if TYPE_CHECKING:
    from bayesdiff.diffusion.sampling import Sample


def judge(bench: Bench, scores: pd.DataFrame) -> CorruptionVerdict:
    """The verdict on one evaluation's scores so far, by the run's own settings."""
    steps, columns, images = score_columns(scores)
    record, cfg = bench.record, bench.cfg
    return judge_run(
        steps, columns, [prompt for prompt, _ in images], vars(cfg.detector), record.real_to_real, cfg.seed,
        photo_hf=record.photographs.get("hf_energy"),
    )  # fmt: skip


def versioned(verdict: CorruptionVerdict) -> dict[str, Any]:
    """A verdict as records keep it, with the version of the detector that made it."""
    return {**verdict.to_dict(), "detector_version": DETECTOR_VERSION}


def complete(bench: Bench, step: int) -> bool:
    """Whether nothing of a checkpoint is left to do."""
    draws = _draws_so_far(bench) if bench.cfg.sampler.sample_weights else None
    drawn = not bench.cfg.sampler.sample_weights or (draws is not None and step in set(draws["step"]))
    return drawn and all(one.done(step) for one in bench.evaluations)


def checkpoint(bench: Bench, step: int, tracker: Tracker, show: Display) -> None:
    """Save, probe, sample, score and report one step; what an interrupted run did of it already is left as it is.

    ``bench.writer`` writes it all, in this order, while the run samples, scores and trains on. It is waited for here, so that no more
    than one checkpoint is held in memory, and the folder is as the checkpoint before left it.
    """
    cfg, folder, record, writer = bench.cfg, bench.folder, bench.record, bench.writer
    writer.wait()
    log = logged(folder)
    if step not in steps_in(folder / CHECKPOINTS):
        _save(bench, step, show)
    if cfg.probes:
        with phase(record, "probe"):
            writer.submit(partial(write_probes, folder, step, probes_of(bench, step)))
    left = [number for number, one in enumerate(bench.evaluations) if not one.done(step)]
    for number in broadcast(left):
        _evaluate(bench, bench.evaluations[number], step, tracker, show)
        writer.submit(lambda: seal(folder, step, steps_in(folder / CHECKPOINTS), log))
    if cfg.sampler.sample_weights:
        _score_draws(bench, step, show)
    verdict = judge(bench, bench.evaluations[0].scores)
    show.warn(step, warning(verdict))
    writer.submit(partial(_end, folder, step, cfg.schedule.keep, verdict.best_step, log))
    writer.submit(partial(write_text, folder / RECORD, record.text()))


def _end(folder: Path, step: int, keep: Keep, best: int, log: int) -> None:
    """Drop what is not kept; sealed first, so that what is removed next is not missed."""
    seal(folder, step, kept_steps(folder, keep, best), log)
    retain(folder, keep, best)


def _save(bench: Bench, step: int, show: Display) -> None:
    cfg, folder, record = bench.cfg, bench.folder, bench.record
    show.phase("save", step)
    with phase(record, "save"):
        method, before = method_of(cfg.method.name), written_so_far(folder, step)
        save_checkpoint(folder, step, method, bench.training, record.run_key, before, bench.writer.submit)


def _evaluate(bench: Bench, one: Evaluation, step: int, tracker: Tracker, show: Display) -> None:
    """Sample and score one evaluation; its own row goes to the terminal and, of the run's own, to the tracker."""
    record = bench.record
    show.phase("sample", step)
    with phase(record, "sample"):
        samples = sample(bench.training, one, bench.cfg.model.resolution)
        bench.writer.submit(partial(keep_samples, one, step, samples))
    show.phase("score", step)
    with phase(record, "score"):
        curve = score(one, step, samples, bench.encoders)
        bench.writer.submit(partial(write_scores, one.folder, one.scores, curve))
    if tracker.reads_pictures:
        bench.writer.wait()
    row = {str(k): float(v) for k, v in curve[curve["step"] == step].iloc[0].items() if k != "step"}
    show.checkpoint(step, row, "" if one.name == MAIN else one.name)
    tracker.checkpoint(step, row, images_folder(one.folder, step), one.name)


def sampled_draws(bench: Bench) -> Iterator[list[Sample]]:
    """Samples of each draw of the Gaussian weights; the model is at its mean again afterwards."""
    from bayesdiff.arms.gaussian import draw_weights, use_mean
    from bayesdiff.diffusion.sampling import sample_together

    cfg, training, main = bench.cfg, bench.training, bench.evaluations[0]
    for draw in range(cfg.sampler.sample_weights):
        draw_weights(training.layers, cfg.sampler.seed, draw, "sampled weights")
        with sampling_with(training.pipe, training.model_scheduler, main.sampler):
            samples = sample_together(training.pipe, main.prompts, main.sampler, cfg.model.resolution, training.texts)
        yield samples
    use_mean(training.layers)


def _draws_so_far(bench: Bench) -> pd.DataFrame | None:
    path = bench.folder / DRAWS
    return pd.read_csv(path, keep_default_na=False, float_precision="round_trip") if path.exists() else None


def _score_draws(bench: Bench, step: int, show: Display) -> None:
    """Sample with draws of the Gaussian weights: ``draws.csv`` and ``draws/``, beside the curve of the mean."""
    from bayesdiff.diffusion.sampling import save_samples
    from bayesdiff.scoring.scores import score_samples

    before = _draws_so_far(bench)
    tables = [] if before is None else [before[before["step"] < step]]
    show.phase("draws", step)
    with phase(bench.record, "draws"):
        for draw, samples in enumerate(sampled_draws(bench)):
            bench.writer.submit(partial(save_samples, samples, step_folder(bench.folder / DRAWN, step) / f"draw-{draw:02d}"))
            tables.append(score_samples(samples, step, bench.encoders, bench.evaluations[0].references).assign(draw=draw))
    bench.writer.submit(partial(write_csv, bench.folder / DRAWS, pd.concat(tables, ignore_index=True)))


def curves(bench: Bench) -> Iterator[tuple[Evaluation, pd.DataFrame]]:
    """Every evaluation that has scores, with its curve."""
    for one in bench.evaluations:
        if len(one.scores):
            yield one, curve_table(one.scores)
