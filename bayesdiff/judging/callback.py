"""The verdict inside another training loop: give it images or scores at every validation.

>>> judge = CheckpointJudge("photos", prompts=["a photo of sks dog"], identifier="sks", class_noun="dog")
>>> progress = judge.update(step, pipe("a photo of sks dog", num_images_per_prompt=4, generator=seeded).images)
>>> if progress.reason:
...     break

The same prompts and seeds at every validation make images comparable. The verdict is a function of the images so far: it is the
one that ``bayesdiff judge`` gives afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from bayesdiff.config.prompts import Prompt
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import SAMPLES, image_name, images_folder
from bayesdiff.corruption import CorruptionMonitor, CorruptionVerdict
from bayesdiff.corruption.monitor import reason_to_stop, warning
from bayesdiff.judging.captions import as_prompts
from bayesdiff.judging.judgement import verdict_of
from bayesdiff.judging.layouts import find_samples
from bayesdiff.judging.pairing import Key
from bayesdiff.judging.scored import Scored, Scorer, as_sample, as_table, load_scorer
from bayesdiff.judging.settings import DEFAULT_METRICS, Asked, configured, open_picture, photos_asked
from bayesdiff.readings import Reading
from bayesdiff.readings.judging import judge as judge_reading

if TYPE_CHECKING:
    from bayesdiff.diffusion.subject import Subject

PROMPTS = "prompts.txt"
"""In the folder that images are kept in: the prompts, one a line, for ``bayesdiff judge --prompts``."""


@dataclass(frozen=True)
class Progress:
    """What the curve shows at the newest validation."""

    step: int
    fidelity: float
    """Mean over the images of the newest validation."""
    verdict: CorruptionVerdict
    reason: str
    """Why training may stop; empty to go on."""

    @property
    def best_step(self) -> int:
        """The checkpoint to keep so far; the best of those after step 0 where ``verdict.better_than_base`` is false."""
        return self.verdict.best_step

    def __str__(self) -> str:
        more = self.reason or warning(self.verdict)
        keep = f"keep step {self.best_step} so far" if self.verdict.better_than_base else "none is better than the base model so far"
        return f"step {self.step}: fidelity {self.fidelity:.3f}; {keep}{f'; {more}' if more else ''}"


class CheckpointJudge:
    """Collects the images, or the scores, of every validation, and gives the running verdict."""

    def __init__(
        self, photos: str | Path | None = None, *, prompts: Sequence[str] = (), identifier: str = "", class_noun: str = "",
        metrics: str = DEFAULT_METRICS, metric: str = "dino", folder: str | Path | None = None, patience: int | None = None,
        device: str = "auto", words: Sequence[str] = (),
    ):  # fmt: skip
        """Nothing is loaded before the first images come.

        Args:
            photos: the folder of the photographs that are trained on; None where scores are given.
            prompts: the prompts of the images, in their order; without them fidelity alone decides.
            identifier: the rare word of the subject, which CLIP-T is measured without.
            metrics: encoders: ``toybox``, ``paper`` or ``dinov2``.
            metric: what given scores are; its name says whether higher is better.
            folder: where images are kept, so that a resumed training goes on with the curve; None keeps none.
            patience: how many validations may follow the last one that may be the best (``reason_to_stop``).
            device: of the encoders: auto, cpu, cuda or cuda:N.
            words: further settings, ``key=value``, such as ``detector.alpha=0.01``.

        Raises:
            UserError: settings or photographs that cannot be used.
        """
        self.asked = Asked(None if photos is None else Path(photos), class_noun, identifier, metrics, words=(f"device={device}", *words))
        self.cfg = configured(self.asked, None)
        self.prompts = as_prompts(list(prompts), identifier, class_noun, self.cfg.metrics.identifier_in_clip_text)
        self.metric, self.folder, self.patience = metric, None if folder is None else Path(folder), patience
        self.rows: dict[int, list[list[Any]]] = {}
        self.scorer: Scorer | None = None
        self.monitor = CorruptionMonitor(self._verdict)

    def update(self, step: int, given: Sequence[Image.Image] | ArrayLike) -> Progress:
        """Add a validation: its images, in one order at every step, those of a prompt together; or a score for each, (images,).

        Raises:
            UserError: images, and no photographs to compare them with.
            ValueError: a step that is not after the last one, another number of images than before, or images as arrays.
        """
        images = _images(given)
        scores = self._scored(step, images) if images else np.atleast_1d(np.asarray(given, dtype=np.float64))
        if scores.ndim > 1:
            raise ValueError(f"scores of shape {scores.shape}: give PIL images (output_type='pil'), or one score an image")
        verdict = self.monitor.update(step, scores)
        return Progress(step, float(scores.mean()), verdict, reason_to_stop(verdict, self.monitor.steps, self.patience))

    def _verdict(self, steps: Sequence[int], scores: ArrayLike) -> CorruptionVerdict:
        if self.scorer is None:
            reading = Reading("scores", tuple(steps), {self.metric: np.asarray(scores, dtype=np.float64)}, self.metric)
            return judge_reading(reading)[0]
        scored = Scored(as_table(self.rows), self.scorer.ceilings, self.scorer.photo_hf, 0)
        return verdict_of(scored, bool(self.prompts), self.cfg)[0]

    def _scored(self, step: int, images: list[Image.Image]) -> NDArray[np.float64]:
        """Fidelity of each image (images,); the first time, earlier validations that are kept are scored too."""
        if self.monitor.steps and step <= self.monitor.steps[-1]:
            raise ValueError(f"step {step} does not come after step {self.monitor.steps[-1]}")
        if self.scorer is None:
            self.scorer = self._load(min(images[0].size))
            self._read_back(step)
        if self.folder is not None:
            self._keep(step, images)
        return self._score(step, images)

    def _load(self, side: int) -> Scorer:
        if self.asked.photos is None:
            raise UserError("images are compared with photographs: give CheckpointJudge(PHOTOS), the folder that was trained on")
        subject: Subject = photos_asked(self.asked.photos, self.asked, side)[0]
        return load_scorer(self.cfg.metrics, self.cfg.device, subject, self.prompts or [Prompt("", "", "")])

    def _keys(self, count: int) -> list[Key]:
        """(prompt, number) of the images; raises ``ValueError`` where they cannot be shared out."""
        prompts = max(len(self.prompts), 1)
        if count % prompts:
            raise ValueError(f"{count} images for {prompts} prompts: give the same number for each prompt")
        return [divmod(place, count // prompts) for place in range(count)]

    def _score(self, step: int, images: list[Image.Image]) -> NDArray[np.float64]:
        assert self.scorer is not None
        samples = [as_sample(key, image) for key, image in zip(self._keys(len(images)), images, strict=True)]
        self.rows[step] = self.scorer.rows(samples, step)
        table = as_table({step: self.rows[step]})
        chosen = table[table["metric"] == self.cfg.detector.metric.value]
        means: NDArray[np.float64] = chosen.groupby(["prompt", "image"])["value"].mean().to_numpy(dtype=np.float64)
        return means

    def _keep(self, step: int, images: list[Image.Image]) -> None:
        assert self.folder is not None
        (target := images_folder(self.folder, step)).mkdir(parents=True, exist_ok=True)
        for key, image in zip(self._keys(len(images)), images, strict=True):
            image.save(target / image_name(*key))
        if self.prompts:
            write_text(self.folder / PROMPTS, "".join(f"{prompt.text}\n" for prompt in self.prompts))

    def _read_back(self, before: int) -> None:
        """Score the images of earlier validations, which a training that was resumed does not give again."""
        if self.folder is None or not (self.folder / SAMPLES).is_dir():
            return
        found: dict[int, list[Path]] = {}
        for one in find_samples(self.folder).seen:
            if one.step < before:
                found.setdefault(one.step, []).append(one.path)
        for step, paths in sorted(found.items()):
            scores = self._score(step, [open_picture(path) for path in sorted(paths)])
            self.monitor.update(step, scores)


def _images(given: Sequence[Image.Image] | ArrayLike) -> list[Image.Image]:
    """The images as RGB; nothing where scores are given. Raises ``ValueError`` for both in one list."""
    listed = list(given) if isinstance(given, Sequence) else []
    images = [one.convert("RGB") for one in listed if isinstance(one, Image.Image)]
    if images and len(images) < len(listed):
        raise ValueError(f"{len(listed) - len(images)} of {len(listed)} are no PIL images: give images alone, or scores alone")
    return images


class VerdictCallback:
    """What the callbacks of all trainers share: they sample, judge, and tell."""

    def __init__(
        self, judge: CheckpointJudge, sample: Callable[[Any], Sequence[Image.Image] | ArrayLike], *, stop: bool = True,
        report: Callable[[Progress], None] = print,
    ):  # fmt: skip
        """``sample`` takes the model and returns images, or a score for each, (images,): of the same prompts and seeds every time.

        Args:
            stop: whether a reason to stop ends training.
            report: what is done with every ``Progress``.
        """
        self.judge, self.sample, self.stop, self.report = judge, sample, stop, report

    def reason(self, step: int, model: Any) -> str:
        """Judge the model at a step, and report it; the reason to stop, or nothing."""
        progress = self.judge.update(step, self.sample(model))
        self.report(progress)
        return progress.reason
