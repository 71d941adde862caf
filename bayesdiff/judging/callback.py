"""The verdict inside another training loop: give it images or scores at every validation.

>>> judge = CheckpointJudge("photos", prompts=["a photo of sks dog"], identifier="sks", class_noun="dog")
>>> progress = judge.update(step, pipe("a photo of sks dog", num_images_per_prompt=4, generator=seeded).images)
>>> if progress.reason:
...     break

The same prompts and seeds at every validation make images comparable. The verdict is a function of the images so far: it is the
one that ``bayesdiff judge`` gives afterwards. A validation whose scores are not finite, with finite ones after it, is left out;
training is asked to stop for divergence after three in a row.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from bayesdiff.config.prompts import Prompt
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.core.files import write_text
from bayesdiff.core.layout import SAMPLES, image_name, images_folder
from bayesdiff.corruption import CorruptionMonitor, CorruptionVerdict
from bayesdiff.corruption.monitor import not_finite_at_end, reason_to_stop, warning
from bayesdiff.judging.captions import as_prompts
from bayesdiff.judging.judgement import verdict_of
from bayesdiff.judging.layouts import find_samples
from bayesdiff.judging.pairing import Key
from bayesdiff.judging.scored import Scorer, as_sample, as_scored, as_table, load_scorer
from bayesdiff.judging.settings import DEFAULT_METRICS, Asked, check_photos, configured, open_picture, photos_asked
from bayesdiff.readings import Options, Reading
from bayesdiff.readings.directions import higher_is_better as said_by_name
from bayesdiff.readings.judging import judge as judge_reading
from bayesdiff.scoring.metrics import HIGHER_IS_BETTER

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
        """The checkpoint to keep so far; the best of those after step 0 where ``verdict.better_than_base`` is false. Step 0, the base
        model, only where nothing is trained yet."""
        return self.verdict.best_step

    def __str__(self) -> str:
        more = self.reason or warning(self.verdict)
        return f"step {self.step}: fidelity {self.fidelity:.3f}; {self._keep()}{f'; {more}' if more else ''}"

    def _keep(self) -> str:
        if not_finite_at_end(self.verdict) == len(self.verdict.labels):
            return "no score is finite so far"
        if not self.verdict.better_than_base:
            return "none is better than the base model so far"
        return f"keep step {self.best_step} so far" if self.best_step > 0 else "nothing trained yet"


class CheckpointJudge:
    """Collects the images, or the scores, of every validation, and gives the running verdict."""

    def __init__(
        self, photos: str | Path | None = None, *, prompts: str | Sequence[str] = (), identifier: str = "", class_noun: str = "",
        metrics: str = DEFAULT_METRICS, metric: str = "dino", higher_is_better: bool | None = None, folder: str | Path | None = None,
        patience: int | None = None, device: str = "auto", words: Sequence[str] = (),
    ):  # fmt: skip
        """Photographs are looked at; encoders are not loaded before the first images come.

        Args:
            photos: the folder of the photographs that are trained on; None where scores are given.
            prompts: the prompts of the images, in their order, or the one prompt of all; without them fidelity alone decides.
            identifier: the rare word of the subject, which CLIP-T is measured without.
            metrics: encoders: ``toybox``, ``paper`` or ``dinov2``.
            metric: what given scores are.
            higher_is_better: which way given scores are better; None goes by the name of ``metric``.
            folder: where images are kept, so that a resumed training goes on with the curve; None keeps none.
            patience: how many validations may follow the last one that may be the best, 1 or more; more of them in a fall that may
                be a stage (``reason_to_stop``).
            device: of the encoders: auto, cpu, cuda or cuda:N.
            words: further settings, ``key=value``, such as ``detector.alpha=0.01``.

        Raises:
            UserError: settings or photographs that cannot be used, or a metric whose name does not say which way is better.
        """
        self.asked = Asked(None if photos is None else Path(photos), class_noun, identifier, metrics, words=(f"device={device}", *words))
        with _names_of_parameters():
            self.cfg = configured(self.asked, None)
            if photos is not None:
                check_photos(self.asked, None)
        _check(metric, higher_is_better, patience)
        self.prompts = as_prompts(
            [prompts] if isinstance(prompts, str) else list(prompts), identifier, class_noun, self.cfg.metrics.identifier_in_clip_text
        )
        self.metric, self.higher_is_better = metric, higher_is_better
        self.folder, self.patience = None if folder is None else Path(folder), patience
        self.rows: dict[int, list[list[Any]]] = {}
        self.scorer: Scorer | None = None
        self.monitor = CorruptionMonitor(self._verdict)
        self.curve: NDArray[np.float64] = np.zeros(0)
        self.last: Progress | None = None
        self.warned: set[str] = set()

    def update(self, step: int, given: Sequence[Image.Image] | ArrayLike) -> Progress:
        """Add a validation: its images, in one order at every step, those of a prompt together; or a score for each, (images,).

        The step of the last validation is skipped. A step before it replaces what was added at that step and after it, as a
        training does that is resumed there. Each is warned of once. An error leaves the curve as it was.

        Raises:
            UserError: images, and no photographs to compare them with.
            ValueError: another number of images than before, images as arrays, or scores where images came before.
        """
        if (known := self.known(step)) is not None:
            return known
        images = _images(given)
        if self.monitor.steps and bool(images) != bool(self.rows):
            raise ValueError(f"step {step}: give images at every validation, or scores at every one")
        if images:
            rows, scores = self._scored(step, images)
            verdict = self._add(step, scores, rows)
        else:
            scores = np.atleast_1d(np.asarray(given, dtype=np.float64))
            if scores.ndim > 1:
                raise ValueError(f"scores of shape {scores.shape}: give PIL images (output_type='pil'), or one score an image")
            verdict = self._add(step, scores, None)
        self.last = Progress(step, float(scores.mean()), verdict, self._reason(verdict))
        return self.last

    def known(self, step: int) -> Progress | None:
        """What was said at this step, with a warning, where it is the last one that was judged; else None."""
        if self.last is None or self.last.step != step:
            return None
        warn_once(self.warned, "again", f"step {step} has been judged already: this validation, and others like it, are skipped")
        return self.last

    def _add(self, step: int, scores: NDArray[np.float64], rows: list[list[Any]] | None) -> CorruptionVerdict:
        """Add a checkpoint, or nothing where it cannot be judged."""
        gone, before = [one for one in self.monitor.steps if one >= step], self.rows
        if rows is not None:
            self.rows = {**{one: found for one, found in before.items() if one < step}, step: rows}
        try:
            verdict = self.monitor.update(step, scores, replace=True)
        except Exception:
            self.rows = before
            raise
        if gone:
            said = f"step {step} comes after step {gone[-1]}: training was resumed, and what was judged from step {gone[0]} on is left out"
            warn_once(self.warned, "back", said)
            self._warn_of_later(step)
        return verdict

    def _reason(self, verdict: CorruptionVerdict) -> str:
        """``reason_to_stop``; of scores in other units than shares ``min_depth`` is a share of the curve's range."""
        curve, depth = self.curve, self.cfg.detector.min_depth
        shares = bool(np.abs(curve[np.isfinite(curve)]).max(initial=0.0) <= 1)
        scale = 1.0 if shares else float(np.ptp(curve[np.isfinite(curve)]))
        return reason_to_stop(verdict, self.monitor.judged, curve, self.patience, depth * scale)

    def _verdict(self, steps: Sequence[int], scores: ArrayLike) -> CorruptionVerdict:
        values = np.asarray(scores, dtype=np.float64)
        if not self.rows:
            reading = Reading("scores", tuple(steps), {self.metric: values}, self.metric)
            verdict, turned = judge_reading(reading, self._options())
            self.curve = turned.columns[self.metric].mean(axis=1)
            return verdict
        assert self.scorer is not None
        scorer, rows = self.scorer, {step: self.rows[step] for step in steps}
        scored = as_scored(rows, scorer.ceilings, scorer.references.hf_energy, scorer.fine, 0)
        verdict, self.curve = verdict_of(scored, bool(self.prompts), self.cfg)[0], values.mean(axis=1)
        return verdict

    def _options(self) -> Options:
        """What is asked for, as ``bayesdiff verdict`` takes it: its smallest depth goes by the metric's units unless one is given."""
        detector = self.cfg.detector
        given = any(word.startswith("detector.min_depth=") for word in self.asked.words)
        depth = detector.min_depth if given else None
        return Options(self.higher_is_better, alpha=detector.alpha, min_depth=depth, checkpoint_noise=detector.checkpoint_noise)

    def _scored(self, step: int, images: list[Image.Image]) -> tuple[list[list[Any]], NDArray[np.float64]]:
        """``_score``; the first time, earlier validations that are kept are scored too."""
        if self.scorer is None:
            self.scorer = self._load(min(images[0].size))
            self._read_back(step)
        self._keys(len(images))
        self.monitor.check(step, len(images))
        if self.folder is not None:
            self._keep(step, images)
        return self._score(step, images)

    def _load(self, side: int) -> Scorer:
        if self.asked.photos is None:
            raise UserError("images are compared with photographs: give CheckpointJudge(PHOTOS), the folder that was trained on")
        with _names_of_parameters():
            subject: Subject = photos_asked(self.asked.photos, self.asked, side)[0]
            return load_scorer(self.cfg.metrics, self.cfg.device, subject, self.prompts or [Prompt("", "", "")])

    def _keys(self, count: int) -> list[Key]:
        """(prompt, number) of the images; raises ``ValueError`` where they cannot be shared out."""
        prompts = max(len(self.prompts), 1)
        if count % prompts:
            raise ValueError(f"{count} images for {prompts} prompts: give the same number for each prompt")
        return [divmod(place, count // prompts) for place in range(count)]

    def _score(self, step: int, images: list[Image.Image]) -> tuple[list[list[Any]], NDArray[np.float64]]:
        """Rows of ``Scorer.rows``, and the fidelity of each image (images,)."""
        assert self.scorer is not None
        samples = [as_sample(key, image) for key, image in zip(self._keys(len(images)), images, strict=True)]
        rows = self.scorer.rows(samples, step)
        table = as_table({step: rows})
        chosen = table[table["metric"] == self.cfg.detector.metric.value]
        means: NDArray[np.float64] = chosen.groupby(["prompt", "image"])["value"].mean().to_numpy(dtype=np.float64)
        return rows, means

    def _keep(self, step: int, images: list[Image.Image]) -> None:
        assert self.folder is not None
        (target := images_folder(self.folder, step)).mkdir(parents=True, exist_ok=True)
        for key, image in zip(self._keys(len(images)), images, strict=True):
            image.save(target / image_name(*key))
        if self.prompts:
            write_text(self.folder / PROMPTS, "".join(f"{prompt.text}\n" for prompt in self.prompts))

    def _kept(self) -> dict[int, list[Path]]:
        """Step -> the images that are kept, in the order of steps."""
        if self.folder is None or not (self.folder / SAMPLES).is_dir():
            return {}
        found: dict[int, list[Path]] = {}
        for one in find_samples(self.folder).seen:
            found.setdefault(one.step, []).append(one.path)
        return dict(sorted(found.items()))

    def _read_back(self, before: int) -> None:
        """Score the images of earlier validations, which a training that was resumed does not give again."""
        for step, paths in self._kept().items():
            if step < before:
                with spared(self.warned, f"the images of step {step} in {self.folder} are left out"):
                    rows, scores = self._score(step, [open_picture(path) for path in sorted(paths)])
                    self._add(step, scores, rows)
        self._warn_of_later(before)

    def _warn_of_later(self, step: int) -> None:
        """Images of later validations are an earlier training's until they are written anew; nobody else's files are removed."""
        if later := [one for one in self._kept() if one > step]:
            said = f"{self.folder} has images of {len(later)} validations after step {step}, from before: bayesdiff judge counts them "
            warn_once(self.warned, "later", f"{said}until this training writes them anew; remove them if it is another training")


def warn_once(warned: set[str], key: str, message: str) -> None:
    """Warn of something in one line, the first time that its key comes."""
    if key not in warned:
        warned.add(key)
        warnings.warn(f"bayesdiff: {message}", stacklevel=4)


@contextmanager
def spared(warned: set[str], what: str) -> Iterator[None]:
    """Within the block an error ends nothing: it is warned of, once for each kind. Ctrl-C and SystemExit pass."""
    try:
        yield
    except Exception as error:  # of encoders, of a full disk, of the user's own code: a training is worth more
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        said = f"{kind}{first_line(error)}"
        warn_once(warned, said, f"{what}, and training goes on: {said}; correct it, or judge afterwards with bayesdiff judge")


@contextmanager
def _names_of_parameters() -> Iterator[None]:
    """What a ``UserError`` calls --photos or --metrics, as the command has them, has no dashes here."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"--(photos|metrics)\b", r"\1", str(error))) from error


def _check(metric: str, higher_is_better: bool | None, patience: int | None) -> None:
    if higher_is_better is None and said_by_name(metric) is None and metric not in HIGHER_IS_BETTER:
        raise UserError(f"metric={metric!r}: is a higher one better? its name does not say; give higher_is_better=True or False")
    if patience is not None and patience < 1:
        raise UserError(f"patience={patience}: give a number of validations, 1 or more, or None to wait for ever")


def _images(given: Sequence[Image.Image] | ArrayLike) -> list[Image.Image]:
    """The images as RGB; nothing where scores are given. Raises ``ValueError`` for both in one list."""
    listed = list(given) if isinstance(given, Sequence) else []
    images = [one.convert("RGB") for one in listed if isinstance(one, Image.Image)]
    if images and len(images) < len(listed):
        raise ValueError(f"{len(listed) - len(images)} of {len(listed)} are no PIL images: give images alone, or scores alone")
    return images


class VerdictCallback:
    """What the callbacks of all trainers share: they sample, judge, and tell. An error of any of these is a warning, and ends nothing."""

    def __init__(
        self, judge: CheckpointJudge, sample: Callable[[Any], Sequence[Image.Image] | ArrayLike], *, stop: bool = True,
        report: Callable[[Progress], None] = print,
    ):  # fmt: skip
        """``sample`` takes the model and returns images, or a score for each, (images,): of the same prompts and seeds every time.

        Args:
            stop: whether a reason to stop ends training; False only reports it.
            report: what is done with every ``Progress``.
        """
        self.judge, self.sample, self.stop, self.report = judge, sample, stop, report

    def reason(self, step: int, model: Any) -> str:
        """Judge the model at a step, and report it; the reason to stop, or nothing. A step that was judged is not sampled again."""
        if (known := self.judge.known(step)) is not None:
            return known.reason
        progress = None
        with spared(self.judge.warned, f"step {step} is not judged"):
            progress = self.judge.update(step, self.sample(model))
        if progress is None:
            return ""
        with spared(self.judge.warned, f"step {step} is judged and not reported"):
            self.report(progress)
        return progress.reason
