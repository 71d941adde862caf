"""Ways to look at one checkpoint: guidance, scheduler and steps, prompts, and which weights are shown.

The run's own evaluation is called ``main`` and writes into the run folder itself; every other one has a folder of its own
with the same files. Initial noise is a function of prompt and index alone, so that evaluations are paired image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayesdiff.config.prompts import Prompt, evaluation_prompts
from bayesdiff.config.schema import Config, EvaluationConf, SamplerConf, Weights
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import atomic_write
from bayesdiff.core.layout import CURVE, EVALUATIONS, MAIN, SCORES, images_folder
from bayesdiff.diffusion.subject import Subject
from bayesdiff.scoring.curve import curve_table, read_scores

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from bayesdiff.diffusion.sampling import Sample
    from bayesdiff.scoring.encoders import Encoders
    from bayesdiff.scoring.scores import References
    from bayesdiff.training.loop import Training


@dataclass
class Evaluation:
    """One evaluation of a run and its scores so far."""

    name: str
    folder: Path
    sampler: SamplerConf
    prompts: list[Prompt]
    weights: Weights
    ema_decay: float
    references: References
    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["step"]))
    """Of the checkpoints so far, as ``scores.csv`` has them."""

    def done(self, step: int) -> bool:
        """Whether a checkpoint is scored."""
        return step in set(self.scores["step"])


def sampler_of(sampler: SamplerConf, conf: EvaluationConf) -> SamplerConf:
    """The run's sampler with what an evaluation changes."""
    changed = {name: getattr(conf, name) for name in ("guidance_scale", "scheduler", "steps", "prompts", "images_per_prompt")}
    return replace(sampler, **{name: value for name, value in changed.items() if value is not None})


def every_sampler(cfg: Config, look: Callable[[SamplerConf], None]) -> None:
    """Look at the run's sampler and at that of every evaluation; a ``UserError`` of one that is the evaluation's says so."""
    look(cfg.sampler)
    for name, conf in cfg.evaluations.items():
        try:
            look(sampler_of(cfg.sampler, conf))
        except UserError as error:
            raise UserError(f"evaluations.{name}: {error}") from error


def places_of(cfg: Config, folder: Path, subject: Subject) -> Iterator[tuple[str, Path, SamplerConf, list[Prompt]]]:
    """Name, folder, sampler and prompts of every evaluation of a run, its own first."""
    own = [(MAIN, folder, cfg.sampler)]
    further = [(name, folder / EVALUATIONS / name, sampler_of(cfg.sampler, conf)) for name, conf in cfg.evaluations.items()]
    for name, place, sampler in own + further:
        words = evaluation_prompts(list(sampler.prompts), subject.identifier, subject.class_noun, cfg.metrics.identifier_in_clip_text)
        yield name, place, sampler, words


def evaluations_of(cfg: Config, folder: Path, subject: Subject, encoders: Encoders) -> list[Evaluation]:
    """Every evaluation of a run, its own first; embeds the references of each list of prompts once."""
    from bayesdiff.scoring.scores import embed_references

    found: list[Evaluation] = []
    for name, place, sampler, prompts in places_of(cfg, folder, subject):
        known = [one.references for one in found if one.prompts == prompts]
        references = known[0] if known else embed_references(encoders, subject, prompts)
        conf = cfg.evaluations[name] if name != MAIN else EvaluationConf()
        found.append(Evaluation(name, place, sampler, prompts, conf.weights, conf.ema_decay, references))
    return found


@contextmanager
def sampling_with(pipe: StableDiffusionPipeline, model_scheduler: Any, sampler: SamplerConf) -> Iterator[None]:
    """Within the block the pipeline has a sampler's scheduler, built from the one that the model came with."""
    from bayesdiff.diffusion.pipeline import use_sampler

    usual, pipe.scheduler = pipe.scheduler, model_scheduler
    try:
        use_sampler(pipe, sampler)
        yield
    finally:
        pipe.scheduler = usual


def weights_shown(training: Training, evaluation: Evaluation) -> AbstractContextManager[None]:
    """Within the block the model has the weights that an evaluation samples with."""
    if evaluation.weights is Weights.kept:
        return training.shown()
    if evaluation.weights is Weights.ema:
        return training.averages[evaluation.ema_decay].shown()
    return nullcontext() if evaluation.weights is Weights.trained else _drawn(training, evaluation.sampler.seed)


@contextmanager
def _drawn(training: Training, seed: int) -> Iterator[None]:
    """One draw of the Gaussian weights, the same at every checkpoint."""
    from bayesdiff.arms.gaussian import draw_weights, use_mean

    draw_weights(training.layers, seed, 0, "evaluation")
    try:
        yield
    finally:
        use_mean(training.layers)


def sample(training: Training, evaluation: Evaluation, resolution: int) -> list[Sample]:
    """The evaluation's samples of the model as it stands, on every process of the run."""
    from bayesdiff.diffusion.graphed import graphed_forward
    from bayesdiff.diffusion.sampling import sample_together

    pipe, forwards = training.pipe, None if evaluation.weights is Weights.draw else training.forwards
    with (
        sampling_with(pipe, training.model_scheduler, evaluation.sampler), weights_shown(training, evaluation),
        graphed_forward(pipe.unet, forwards),
    ):  # fmt: skip
        return sample_together(pipe, evaluation.prompts, evaluation.sampler, resolution, training.texts)


def keep_samples(evaluation: Evaluation, step: int, samples: list[Sample]) -> None:
    """Write the images of a checkpoint."""
    from bayesdiff.diffusion.sampling import save_samples

    save_samples(samples, images_folder(evaluation.folder, step))


def score(evaluation: Evaluation, step: int, samples: list[Sample], encoders: Encoders) -> pd.DataFrame:
    """Score a checkpoint's samples, add them to the evaluation's scores, and return its curve."""
    from bayesdiff.scoring.scores import score_samples

    rows = score_samples(samples, step, encoders, evaluation.references)
    evaluation.scores = pd.concat([evaluation.scores, rows], ignore_index=True) if len(evaluation.scores) else rows
    return curve_table(evaluation.scores)


def write_scores(folder: Path, scores: pd.DataFrame, curve: pd.DataFrame) -> None:
    """An evaluation's scores and the curve made of them, as its folder keeps them."""
    write_csv(folder / SCORES, scores)
    write_csv(folder / CURVE, curve)


def read_back(evaluation: Evaluation, resumed_at: int) -> None:
    """Scores of the checkpoints up to the resumed step, and the curve made from them; later ones are made again.

    Raises:
        UserError: scores that are no such table.
    """
    path = evaluation.folder / SCORES
    if not path.exists():
        (evaluation.folder / CURVE).unlink(missing_ok=True)
        return
    try:
        scores = read_scores(evaluation.folder)
        evaluation.scores = scores[scores["step"] <= resumed_at].reset_index(drop=True)
        if len(evaluation.scores):
            write_csv(evaluation.folder / CURVE, curve_table(evaluation.scores))
    except (ValueError, KeyError, TypeError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path}: damaged ({first_line(error)}); remove the run's folder and give the same command again") from error


def write_csv(target: Path, table: pd.DataFrame) -> None:
    """A table with a header and no index, whole or not at all."""
    with atomic_write(target) as part:
        table.to_csv(part, index=False)
