"""One run from configuration to record: the rooms of the house, walked through once.

subject and prompts → pipeline → method and Bayesian weights → loop → checkpoint images → scores →
curve → verdict → record. Give the same command again to go on with a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import FileLock, Timeout

from bayesdiff.config.identity import arm_name, as_dict, run_key, run_name
from bayesdiff.config.prompts import Prompt, evaluation_prompts, fill
from bayesdiff.config.schema import Config, StopAfter
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import LOCK_SECONDS, atomic_write, check_writable, fingerprint, remove_partial, write_text
from bayesdiff.core.layout import CONFIG, CURVE, DRAWN, DRAWS, LOCK, SCORES
from bayesdiff.core.processes import broadcast, check_shares, gather, is_main_process, join_processes
from bayesdiff.corruption import CorruptionVerdict
from bayesdiff.corruption.diagnosis import judge_run
from bayesdiff.corruption.monitor import may_stop, warning
from bayesdiff.diffusion.subject import Subject, load_subject
from bayesdiff.recording.checkpoint import finish, restore, resumable_step, retain, save_checkpoint
from bayesdiff.recording.progress import Display, display, print_curve
from bayesdiff.recording.record import RunRecord, environment, load_record, phase
from bayesdiff.recording.tracker import Tracker
from bayesdiff.scoring.curve import curve_table, read_scores, score_columns

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    from bayesdiff.diffusion.sampling import Sample
    from bayesdiff.scoring.encoders import Encoders
    from bayesdiff.scoring.scores import References
    from bayesdiff.training.loop import Training

ON_THE_DEVICE = ("gaussian", "dropout")
"""Arms whose noise is drawn on the device: each kind of GPU draws its own."""


@dataclass
class Bench:
    """What stays loaded over a run."""

    cfg: Config
    folder: Path
    record: RunRecord
    subject: Subject
    prompts: list[Prompt]
    training: Training
    encoders: Encoders
    references: References


def run_experiment(cfg: Config, command: str = "") -> tuple[Path, RunRecord]:
    """Run, resume, or find done; returns the run folder and its record, which keeps ``command``.

    Raises:
        UserError: bad input, found before anything is written, or a run in use by another process.
    """
    folder = Path(cfg.paths.runs) / run_name(cfg)
    check_writable(folder, "paths.runs")
    check_shares(cfg.training.gradient_accumulation_steps)
    subject = load_subject(cfg.data, cfg.shots.count, cfg.seed, cfg.model.resolution)
    done = load_record(folder)
    weights = _weights(cfg)
    if done is not None:
        _check_same_photos(folder, done, subject)
        _check_same_weights(folder, done, weights)
    if done is not None and done.status != "running":
        if is_main_process():
            print(f"Already {done.status}: {folder} (remove the folder to run it again)")
        return folder, done
    prompts = evaluation_prompts(list(cfg.sampler.prompts), subject.identifier, subject.class_noun, cfg.metrics.identifier_in_clip_text)
    record = done or RunRecord(run_key(cfg), "running", as_dict(cfg), command, weights=weights)
    with phase(record, "load"):
        bench = _load(cfg, folder, record, subject, prompts)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=LOCK_SECONDS) if is_main_process() else nullcontext():
            finished = load_record(folder)
            if broadcast(finished is not None and finished.status != "running"):  # by another run, while this one loaded
                return folder, finished or record
            if is_main_process():
                _execute(bench)
            else:
                _follow(bench)
    except Timeout as error:
        raise UserError(f"{folder}: another process works on this run; wait for it or stop it") from error
    return folder, record


def _check_same_photos(folder: Path, record: RunRecord, subject: Subject) -> None:
    """The run key covers where photographs lie, not what is in them; raises ``UserError`` when that changed."""
    before = [photo["sha256"] for photo in record.subject.get("photos", [])]
    if before and before != [photo.digest for photo in subject.photos]:
        raise UserError(f"{folder}: made with other photographs than there are now; remove the folder, or give data.subject another name")


def _weights(cfg: Config) -> dict[str, str]:
    """Fingerprints of what is loaded from local folders: the run key only knows their names."""
    from bayesdiff.diffusion.pipeline import model_location
    from bayesdiff.scoring.encoders import encoder_folder

    places = {
        "model": Path(model_location(cfg.model)),
        "clip": encoder_folder(cfg.metrics.clip, "clip"),
        "dino": encoder_folder(cfg.metrics.dino, "dino"),
    }
    return {name: fingerprint(place) for name, place in places.items()}


def _check_same_weights(folder: Path, record: RunRecord, weights: dict[str, str]) -> None:
    """Raises ``UserError`` when a run was begun with other local weights than there are now."""
    if changed := [name for name, value in weights.items() if record.weights.get(name, value) != value]:
        raise UserError(f"{folder}: made with other weights ({', '.join(changed)}) than there are now; remove the folder, or move it")


def _check_same_device(folder: Path, record: RunRecord, here: dict[str, Any]) -> None:
    """Raises ``UserError`` when a run would go on elsewhere, and with other noise where it is drawn on the device, by its kind."""
    before = {**here, **record.environment}
    if before["device"].partition(":")[0] != here["device"].partition(":")[0]:
        was, now = before["device"], here["device"]
        raise UserError(f"{folder}: begun on {was}, and would go on with other weight noise on {now}; add device={was}")
    if before["gpu"] != here["gpu"] and record.config["bnn"]["kind"] in ON_THE_DEVICE:
        raise UserError(
            f"{folder}: begun on {before['gpu']}, and would go on with other noise on {here['gpu']}; go on there, or remove the folder"
        )


def _check_words(pipe: StableDiffusionPipeline, subject: Subject, prompts: list[Prompt]) -> None:
    """Raises ``UserError`` for an identifier or class noun that the model has no token for; says so of other words of prompts."""
    from bayesdiff.diffusion.pipeline import unknown_words

    for key, word in (("identifier", subject.identifier), ("class_noun", subject.class_noun)):
        if unknown_words(pipe, [word]):
            raise UserError(f"data.{key}={word}: this model has no token for it; the toybox's words are in bayesdiff/toybox/vocabulary.py")
    if (others := unknown_words(pipe, [prompt.text for prompt in prompts])) and is_main_process():
        print(f"Prompts have words that this model does not know, and reads as one and the same: {', '.join(others)}")


def _load(cfg: Config, folder: Path, record: RunRecord, subject: Subject, prompts: list[Prompt]) -> Bench:
    """Load every model; nothing is written yet, so that bad input leaves no trace."""
    from bayesdiff.diffusion.batch import encode_pictures
    from bayesdiff.diffusion.class_images import class_images
    from bayesdiff.diffusion.pipeline import check_limits, check_precision, choose_device, load_pipeline, use_sampler
    from bayesdiff.scoring.encoders import load_encoders
    from bayesdiff.scoring.scores import embed_references
    from bayesdiff.training.loop import prepare

    device = choose_device(cfg.device)
    join_processes(device)
    here = environment(str(device))
    _check_same_device(folder, record, here)
    check_precision(cfg.training.mixed_precision, device)
    encoders = load_encoders(cfg.metrics, device)
    pipe = load_pipeline(cfg.model, device)
    check_limits(pipe, cfg.model, cfg.sampler)
    use_sampler(pipe, cfg.sampler)
    _check_words(pipe, subject, prompts)
    instance_text = fill(cfg.data.instance_prompt, subject.identifier, subject.class_noun)
    instance = encode_pictures(pipe, [photo.image for photo in subject.photos], instance_text)
    classes = None
    if cfg.method.prior_preservation:
        class_text = fill(cfg.data.class_prompt, "", subject.class_noun)
        classes = encode_pictures(pipe, class_images(pipe, cfg, subject.class_noun), class_text)
    training = prepare(pipe, cfg, instance, classes)
    references = embed_references(encoders, subject, prompts)
    record.environment = here
    record.subject = {
        "name": subject.name, "class_noun": subject.class_noun,
        "photos": [{"name": p.name, "sha256": p.digest} for p in subject.photos],
    }  # fmt: skip
    record.bayesian = _converted(training)
    record.real_to_real = _ceilings(encoders, references, [photo.image for photo in subject.others])
    return Bench(cfg, folder, record, subject, prompts, training, encoders, references)


def _converted(training: Training) -> dict[str, Any]:
    """Layers and weights that are Gaussian, and their share of the U-Net's weights (with its adapter)."""
    from bayesdiff.arms.gaussian import rho_parameters

    total = sum(p.numel() for p in training.pipe.unet.parameters()) - sum(rho.numel() for rho in rho_parameters(training.layers))
    weights = sum(layer.mean.numel() for layer in training.layers)
    modules = len({layer.name.rpartition(".")[0] for layer in training.layers})
    trained = sum(p.numel() for p in training.trained)
    return {"layers": modules, "weights": weights, "trained_weights": trained, "unet_weights": total, "share": round(weights / total, 4)}


def _execute(bench: Bench) -> None:
    """Resume where the run stands, walk the checkpoints, and close with the verdict."""
    from bayesdiff.methods import method_of

    cfg, folder, record = bench.cfg, bench.folder, bench.record
    remove_partial(folder)
    record.save(folder)
    write_text(folder / CONFIG, _yaml(record.config))
    start = broadcast(resumable_step(folder) or 0)
    if start:
        restore(folder, start, method_of(cfg.method.name), bench.training)
        gather([])  # nothing is written before every process has read
        print(f"Going on from step {start} of {folder}")
    scores = _read_scores(folder, start)
    tracker = Tracker(cfg, folder, start)
    if record.bayesian["layers"]:
        b = record.bayesian
        print(f"Bayesian: {b['layers']} layers, {b['weights']:,} of {b['unet_weights']:,} weights ({b['share']:.1%})")
    with display(cfg.schedule.steps, start) as show:
        scores = _walk(bench, start, scores, tracker, show)
    broadcast(None)  # no step is left
    _conclude(bench, scores, tracker)


def _walk(bench: Bench, start: int, scores: pd.DataFrame, tracker: Tracker, show: Display) -> pd.DataFrame:
    """Train to each checkpoint step, save, sample and score; stops early when training diverges."""
    from bayesdiff.training.loop import Diverged, train

    cfg, record, training = bench.cfg, bench.record, bench.training

    def report(step: int, parts: dict[str, float]) -> None:
        show.step(step, parts["loss"])
        if step % cfg.schedule.log_every == 0:
            tracker.train(step, parts)

    at = start
    for step in cfg.schedule.checkpoints:
        if step < start or step in set(scores["step"]):
            continue
        if cfg.detector.stop_after is StopAfter.recovered and len(scores) and may_stop(_verdict(cfg, record, scores)):
            record.message = f"stopped at step {at}: recovered (detector.stop_after)"
            return scores
        broadcast(step)
        if step > at:
            try:
                with phase(record, "train"):
                    train(training, cfg, at, step, report)
            except Diverged as error:
                record.status, record.message = "diverged", str(error)
                return scores
            at = step
        scores = _checkpoint(bench, step, scores, tracker, show)
    return scores


def _follow(bench: Bench) -> None:
    """Another process of a shared run: train and sample a share of every step that the first one goes to, and write nothing."""
    from bayesdiff.diffusion.sampling import sample_together
    from bayesdiff.methods import method_of
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
        with training.shown():
            sample_together(training.pipe, bench.prompts, cfg.sampler, cfg.model.resolution)
        for _ in _sampled_draws(bench):
            pass


def _checkpoint(bench: Bench, step: int, scores: pd.DataFrame, tracker: Tracker, show: Display) -> pd.DataFrame:
    """Save, sample, score and report one checkpoint; returns all scores so far."""
    from bayesdiff.core.layout import images_folder
    from bayesdiff.diffusion.sampling import sample_together, save_samples
    from bayesdiff.methods import method_of
    from bayesdiff.scoring.scores import score_samples

    cfg, folder, record, training = bench.cfg, bench.folder, bench.record, bench.training
    with training.shown():
        show.phase("save", step)
        with phase(record, "save"):
            save_checkpoint(folder, step, method_of(cfg.method.name), training)
        show.phase("sample", step)
        with phase(record, "sample"):
            samples = sample_together(training.pipe, bench.prompts, cfg.sampler, cfg.model.resolution)
            save_samples(samples, images_folder(folder, step))
    show.phase("score", step)
    with phase(record, "score"):
        rows = score_samples(samples, step, bench.encoders, bench.references)
    if cfg.sampler.sample_weights:
        _score_draws(bench, step, show)
    scores = pd.concat([scores, rows], ignore_index=True) if len(scores) else rows
    curve = curve_table(scores)
    _write_csv(folder / SCORES, scores)
    _write_csv(folder / CURVE, curve)
    row = {str(k): float(v) for k, v in curve[curve["step"] == step].iloc[0].items() if k != "step"}
    show.checkpoint(step, row)
    tracker.checkpoint(step, row, images_folder(folder, step))
    verdict = _verdict(cfg, record, scores)
    show.warn(step, warning(verdict))
    retain(folder, cfg.schedule.keep, verdict.best_step)
    record.save(folder)
    return scores


def _sampled_draws(bench: Bench) -> Iterator[list[Sample]]:
    """Samples of each draw of the Gaussian weights; the model is at its mean again afterwards."""
    from bayesdiff.arms.gaussian import draw_weights, use_mean
    from bayesdiff.diffusion.sampling import sample_together

    cfg, training = bench.cfg, bench.training
    for draw in range(cfg.sampler.sample_weights):
        draw_weights(training.layers, cfg.sampler.seed, draw, "sampled weights")
        yield sample_together(training.pipe, bench.prompts, cfg.sampler, cfg.model.resolution)
    use_mean(training.layers)


def _score_draws(bench: Bench, step: int, show: Display) -> None:
    """Sample with draws of the Gaussian weights: ``draws.csv`` and ``draws/``, beside the curve of the mean."""
    from bayesdiff.core.layout import step_folder
    from bayesdiff.diffusion.sampling import save_samples
    from bayesdiff.scoring.scores import score_samples

    before = pd.read_csv(bench.folder / DRAWS, keep_default_na=False) if (bench.folder / DRAWS).exists() else None
    tables = [] if before is None else [before[before["step"] < step]]
    show.phase("draws", step)
    with phase(bench.record, "draws"):
        for draw, samples in enumerate(_sampled_draws(bench)):
            save_samples(samples, step_folder(bench.folder / DRAWN, step) / f"draw-{draw:02d}")
            tables.append(score_samples(samples, step, bench.encoders, bench.references).assign(draw=draw))
    _write_csv(bench.folder / DRAWS, pd.concat(tables, ignore_index=True))


def _verdict(cfg: Config, record: RunRecord, scores: pd.DataFrame) -> CorruptionVerdict:
    steps, columns, images = score_columns(scores)
    return judge_run(steps, columns, [prompt for prompt, _ in images], vars(cfg.detector), record.real_to_real, cfg.seed)


def _ceilings(encoders: Encoders, references: References, others: list[Image.Image]) -> dict[str, float]:
    """Similarity of the training images to every other photograph of the subject, by metric; empty for one photograph."""
    from bayesdiff.scoring.scores import real_to_real

    found = {
        "dino": real_to_real(references.dino, encoders.dino(others) if others else references.dino[:0]),
        "clip_i": real_to_real(references.clip, encoders.clip_image(others) if others else references.clip[:0]),
    }
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def _conclude(bench: Bench, scores: pd.DataFrame, tracker: Tracker) -> None:
    """Verdict, pictures, record, and the closing words."""
    from bayesdiff.recording.plots import plot_curve, plot_grid

    cfg, folder, record = bench.cfg, bench.folder, bench.record
    if len(scores):
        verdict, curve = _verdict(cfg, record, scores), curve_table(scores)
        _write_csv(folder / CURVE, curve)  # again: a run killed between the two tables would lack the last row
        title = f"{bench.subject.name}, {len(bench.subject.photos)} image(s), {cfg.method.name}, {arm_name(vars(cfg.bnn))}"
        with phase(record, "plot"):
            plot_curve(folder, curve, verdict, cfg.detector.metric.value, title)
            photos = [photo.image for photo in bench.subject.photos]
            plot_grid(folder, [int(s) for s in curve["step"]], [p.text for p in bench.prompts], photos)
        record.verdict = verdict.to_dict()
        print_curve(curve, verdict.labels, verdict.sentence, str(folder))
    if record.status == "diverged":
        print(f"Diverged: {record.message}; the curve up to there is kept in {folder}")
    else:
        record.status = "completed"
    record.save(folder)  # before what only a run that goes on needs is removed
    if record.verdict is not None:
        finish(folder, cfg.schedule.keep, record.verdict["best_step"])
    tracker.finish(scores, {"status": record.status, **record.verdict} if record.verdict else {"status": record.status})


def _read_scores(folder: Path, resumed_at: int) -> pd.DataFrame:
    """Scores of the checkpoints up to the resumed step; later ones will be made again."""
    if not (folder / SCORES).exists():
        return pd.DataFrame(columns=["step"])
    scores = read_scores(folder)
    return scores[scores["step"] <= resumed_at].reset_index(drop=True)


def _write_csv(target: Path, table: pd.DataFrame) -> None:
    with atomic_write(target) as part:
        table.to_csv(part, index=False)


def _yaml(content: dict[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(content))
