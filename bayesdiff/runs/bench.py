"""What stays loaded over a run: models, data, encoders, and the evaluations of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayesdiff.config.prompts import Prompt, fill
from bayesdiff.config.schema import Config
from bayesdiff.core.background import Writer
from bayesdiff.core.garbage import seldom_collected
from bayesdiff.core.processes import join_processes
from bayesdiff.diffusion.subject import Subject
from bayesdiff.recording.record import RunRecord, environment
from bayesdiff.runs.evaluations import Evaluation, evaluations_of, every_sampler, sampling_with
from bayesdiff.runs.guards import (
    check_same_class_images,
    check_same_device,
    check_same_gpu,
    check_same_precision,
    look_at_libraries,
    look_at_model,
    look_at_words,
)  # fmt: skip
from bayesdiff.runs.probing import pretrained_losses

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    from bayesdiff.diffusion.batch import Encoded
    from bayesdiff.scoring.encoders import Encoders
    from bayesdiff.scoring.scores import References
    from bayesdiff.training.loop import Training


@dataclass
class Bench:
    """One loaded run."""

    cfg: Config
    folder: Path
    record: RunRecord
    subject: Subject
    training: Training
    encoders: Encoders
    evaluations: list[Evaluation]
    """The run's own, named main, first."""
    pretrained_loss: dict[float, float]
    """Loss of the model before training on the training image, by timestep; empty without probes."""
    writer: Writer = field(default_factory=Writer)
    """Writes checkpoints while the run goes on."""


@seldom_collected()
def local_places(cfg: Config) -> dict[str, Path]:
    """Local folders that models are loaded from: the run key only knows their names."""
    from bayesdiff.diffusion.pipeline import model_location
    from bayesdiff.scoring.encoders import encoder_folder

    return {
        "model": Path(model_location(cfg.model)),
        "clip": encoder_folder(cfg.metrics.clip, "clip"),
        "dino": encoder_folder(cfg.metrics.dino, "dino"),
    }


@seldom_collected()
def load_bench(cfg: Config, folder: Path, record: RunRecord, subject: Subject, prompts: list[Prompt]) -> Bench:
    """Load every model; nothing is written yet, so that bad input leaves no trace."""
    from bayesdiff.diffusion.class_images import digest_of
    from bayesdiff.diffusion.pipeline import check_limits, check_precision, choose_device, load_pipeline
    from bayesdiff.diffusion.precision import resolved, use_arithmetic
    from bayesdiff.scoring.encoders import load_encoders
    from bayesdiff.scoring.metrics import as_plain
    from bayesdiff.scoring.pixels import describe_photos
    from bayesdiff.training.loop import prepare, refuse_dropout, trained_parts

    look_at_libraries(cfg)
    device = choose_device(cfg.device)
    join_processes(device)
    here = {**environment(str(device)), "sampler_precision": resolved(cfg.sampler.precision, device).value}
    check_same_device(folder, record, here)
    check_same_precision(folder, record, here)
    check_precision(cfg.training.mixed_precision, device)
    look_at_words(cfg, subject, prompts)
    look_at_model(cfg)
    encoders = load_encoders(cfg.metrics, device)
    here["metrics_precision"] = encoders.precision.value
    check_same_precision(folder, record, here)
    pipe = load_pipeline(cfg.model, device)
    refuse_dropout(trained_parts(pipe, cfg.method.train_text_encoder), cfg)
    use_arithmetic(pipe.unet, cfg.training)
    every_sampler(cfg, lambda sampler: check_limits(pipe, cfg.model, sampler))
    pictures = _class_pictures(cfg, pipe, subject)
    of_class = {"class_images": digest_of(pictures)} if pictures else {}
    check_same_class_images(folder, record, of_class.get("class_images", ""))
    training = prepare(pipe, cfg, *_encoded(cfg, pipe, subject, pictures))
    if training.compiled:
        here["compiled"] = training.compiled
    check_same_gpu(folder, record, here, training.arm.NOISE_ON_DEVICE)
    evaluations = evaluations_of(cfg, folder, subject, encoders)
    record.environment = here
    record.subject = {
        "name": subject.name, "class_noun": subject.class_noun,
        "photos": [{"name": p.name, "sha256": p.digest} for p in subject.photos],
        "skipped": [list(entry) for entry in subject.skipped], "notes": list(subject.notes), **of_class,
    }  # fmt: skip
    record.photographs = describe_photos([photo.image for photo in subject.photos])
    record.custom_metrics = as_plain(encoders.described)
    record.bayesian = _converted(training)
    record.real_to_real = _ceilings(encoders, evaluations[0].references, [photo.image for photo in subject.others])
    return Bench(cfg, folder, record, subject, training, encoders, evaluations, pretrained_losses(training, cfg) if cfg.probes else {})


def _class_pictures(cfg: Config, pipe: StableDiffusionPipeline, subject: Subject) -> list[Image.Image]:
    """The class images of prior preservation; none without it."""
    from bayesdiff.diffusion.class_images import class_images

    if not cfg.method.prior_preservation:
        return []
    with sampling_with(pipe, pipe.scheduler, cfg.sampler):
        return class_images(pipe, cfg, subject.class_noun)


def _encoded(
    cfg: Config, pipe: StableDiffusionPipeline, subject: Subject, pictures: list[Image.Image]
) -> tuple[Encoded, Encoded | None]:  # fmt: skip
    """The photographs and, with prior preservation, the class images as latents with their text."""
    from bayesdiff.diffusion.batch import encode_pictures

    text = fill(cfg.data.instance_prompt, subject.identifier, subject.class_noun)
    instance = encode_pictures(pipe, [photo.image for photo in subject.photos], text)
    of_class = fill(cfg.data.class_prompt, "", subject.class_noun)
    return instance, encode_pictures(pipe, pictures, of_class) if pictures else None


def _converted(training: Training) -> dict[str, Any]:
    """Layers and weights that are Gaussian, and their share of the U-Net's weights (with its adapter)."""
    from bayesdiff.arms.gaussian import rho_parameters

    total = sum(p.numel() for p in training.pipe.unet.parameters()) - sum(rho.numel() for rho in rho_parameters(training.layers))
    weights = sum(layer.mean.numel() for layer in training.layers)
    modules = len({layer.name.rpartition(".")[0] for layer in training.layers})
    trained = sum(p.numel() for p in training.trained)
    return {"layers": modules, "weights": weights, "trained_weights": trained, "unet_weights": total, "share": round(weights / total, 4)}


def _ceilings(encoders: Encoders, references: References, others: list[Image.Image]) -> dict[str, float]:
    """Similarity of the training images to every other photograph of the subject, by metric; empty for one photograph."""
    from bayesdiff.scoring.scores import real_to_real

    found = {
        "dino": real_to_real(references.dino, encoders.dino(others) if others else references.dino[:0]),
        "clip_i": real_to_real(references.clip, encoders.clip_image(others) if others else references.clip[:0]),
    }
    return {name: round(value, 4) for name, value in found.items() if value is not None}
