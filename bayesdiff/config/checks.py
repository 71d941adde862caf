"""What a configuration may not say: ranges of single settings, and settings that contradict each other.

``check`` is called by ``compose.resolve``, so that every composed configuration has passed it before anything is loaded.
"""

from __future__ import annotations

import math

from bayesdiff.config.prompts import fill
from bayesdiff.config.schema import ARMS, METHODS, RATE_CHANGE, Config, DataSource, LrSchedule, Weights
from bayesdiff.core.errors import UserError
from bayesdiff.core.layout import MAIN


def check(cfg: Config) -> None:
    """Raises ``UserError`` with the first setting that cannot be run."""
    for part in (_check_schedule, _check_ranges, _check_shares, _check_rate, _check_data, _check_method, _check_arm, _check_evaluations):
        part(cfg)


def _check_schedule(cfg: Config) -> None:
    steps = cfg.schedule.checkpoints
    if not steps or steps != sorted(set(steps)) or steps[0] < 0:
        raise UserError(f"schedule.checkpoints={steps}: give increasing, distinct steps from 0 on")
    if steps[-1] != cfg.schedule.steps:
        raise UserError(f"schedule.checkpoints ends at {steps[-1]} but schedule.steps={cfg.schedule.steps}: make them equal")


def _check_ranges(cfg: Config) -> None:
    positive: dict[str, float] = {
        "method.learning_rate": cfg.method.learning_rate,
        "method.rank": cfg.method.rank,
        "bnn.prior_sigma": cfg.bnn.prior_sigma,
        "training.batch_size": cfg.training.batch_size,
        "training.gradient_accumulation_steps": cfg.training.gradient_accumulation_steps,
        "training.max_grad_norm": cfg.training.max_grad_norm,
        "schedule.log_every": cfg.schedule.log_every,
        "data.images": cfg.data.images,
        "sampler.steps": cfg.sampler.steps,
        "sampler.images_per_prompt": cfg.sampler.images_per_prompt,
        "sampler.batch_size": cfg.sampler.batch_size,
        "metrics.batch_size": cfg.metrics.batch_size,
        "method.class_images": cfg.method.class_images,
        "model.resolution": cfg.model.resolution,
    }
    for key, value in positive.items():
        if not 0 < value < math.inf:
            raise UserError(f"{key}={value}: must be greater than 0 and finite")
    not_negative = {
        "bnn.kl_weight": cfg.bnn.kl_weight,
        "bnn.sigma_init": cfg.bnn.sigma_init,
        "bnn.sigma_learning_rate_factor": cfg.bnn.sigma_learning_rate_factor,
        "bnn.input_noise": cfg.bnn.input_noise,
        "bnn.l2_weight": cfg.bnn.l2_weight,
        "method.prior_loss_weight": cfg.method.prior_loss_weight,
        "training.weight_decay": cfg.training.weight_decay,
        "training.lr_warmup_steps": cfg.training.lr_warmup_steps,
        "sampler.sample_weights": cfg.sampler.sample_weights,
        "detector.min_depth": cfg.detector.min_depth,
        "sampler.guidance_scale": cfg.sampler.guidance_scale,
        "sampler.seed": cfg.sampler.seed,
        "seed": cfg.seed,
        "shots.seed": cfg.shots.seed or 0,
    }
    for key, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{key}={value}: must not be negative and must be finite")
    for key, optional in {"method.alpha": cfg.method.alpha, "training.min_snr_gamma": cfg.training.min_snr_gamma}.items():
        if optional is not None and not 0 < optional < math.inf:
            raise UserError(f"{key}={optional}: must be greater than 0 and finite, or null")
    if cfg.detector.checkpoint_noise is not None and not 0 <= cfg.detector.checkpoint_noise < math.inf:
        raise UserError(f"detector.checkpoint_noise={cfg.detector.checkpoint_noise}: must not be negative and must be finite, or null")
    if cfg.bnn.sigma_init > 1:
        raise UserError(f"bnn.sigma_init={cfg.bnn.sigma_init}: weights are of the order of 0.05; give 1 or less")
    if cfg.shots.count is not None and cfg.shots.count < 1:
        raise UserError(f"shots.count={cfg.shots.count}: give 1 or more, or null for all images")
    if not 0 < cfg.detector.alpha < 1:
        raise UserError(f"detector.alpha={cfg.detector.alpha}: must lie between 0 and 1")
    if not cfg.sampler.prompts:
        raise UserError("sampler.prompts is empty: give templates, or the word object, live, face or auto")


def _check_shares(cfg: Config) -> None:
    shares = {"bnn.ema_decay": cfg.bnn.ema_decay, "bnn.dropout": cfg.bnn.dropout, "bnn.prompt_dropout": cfg.bnn.prompt_dropout}
    for key, share in shares.items():
        if not 0 <= share < 1:
            raise UserError(f"{key}={share}: must be at least 0 and below 1")


def _check_rate(cfg: Config) -> None:
    """Settings of the optimiser that change over a run or with its gradients."""
    betas, changes = cfg.training.betas, cfg.training.rate_changes
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"training.betas={betas}: give two numbers from 0 to below 1, such as [0.9,0.999]")
    for change in changes:
        numbers = isinstance(change, list) and all(isinstance(number, int | float) for number in change)
        if not numbers or len(change) != RATE_CHANGE or change[0] < 0 or change[0] != int(change[0]) or not 0 <= change[1] < math.inf:
            raise UserError(f"training.rate_changes={changes}: give pairs [step,factor], such as [[400,10],[600,1]]")
    if [change[0] for change in changes] != sorted({change[0] for change in changes}):
        raise UserError(f"training.rate_changes={changes}: give increasing, distinct steps")
    if cfg.training.lr_warmup_steps and cfg.training.lr_schedule is LrSchedule.constant:
        raise UserError(f"training.lr_warmup_steps={cfg.training.lr_warmup_steps}: add training.lr_schedule=constant_with_warmup")


def _check_data(cfg: Config) -> None:
    if not cfg.data.identifier.strip():
        raise UserError("data.identifier is empty: give a rare token such as qwe")
    words = {"data.subject": cfg.data.subject, "data.identifier": cfg.data.identifier, "data.class_noun": cfg.data.class_noun or ""}
    for key, word in words.items():
        if not all(letter.isprintable() for letter in word):
            raise UserError(f"{key}={word!r}: has control characters; give printable text")
    for key, template in {"data.instance_prompt": cfg.data.instance_prompt, "data.class_prompt": cfg.data.class_prompt}.items():
        if not template.strip():
            raise UserError(f"{key} is empty: give a template such as 'a photo of {{class_noun}}'")
        fill(template, "qwe", "dog")
    needed = {"data.path": cfg.data.path} if cfg.data.source is not DataSource.toybox else {}
    if cfg.data.source is DataSource.folder:
        needed["data.class_noun"] = cfg.data.class_noun
    for key, value in needed.items():
        if not value:
            raise UserError(f"data={cfg.data.source.value} needs {key}: add {key}=… to the command")


def _check_method(cfg: Config) -> None:
    name = cfg.method.name
    if name not in METHODS and "." not in name:
        raise UserError(f"method.name={name}: choose one of {', '.join(METHODS)}, or give the dotted name of a module of your own")


def _check_evaluations(cfg: Config) -> None:
    for name, one in cfg.evaluations.items():
        key = f"evaluations.{name}"
        if not name.replace("_", "").replace(".", "").replace("-", "").isalnum() or name == MAIN:
            raise UserError(f"{key}: name it by letters, digits and . _ -; main is the run's own evaluation")
        if one.guidance_scale is not None and not 0 <= one.guidance_scale < math.inf:
            raise UserError(f"{key}.guidance_scale={one.guidance_scale}: must be at least 0 and finite")
        for option, number in {"steps": one.steps, "images_per_prompt": one.images_per_prompt}.items():
            if number is not None and number < 1:
                raise UserError(f"{key}.{option}={number}: give 1 or more, or null for the sampler's")
        if not 0 <= one.ema_decay < 1:
            raise UserError(f"{key}.ema_decay={one.ema_decay}: must be at least 0 and below 1")
        if one.weights is Weights.draw and cfg.bnn.kind != "gaussian":
            raise UserError(f"{key}.weights=draw: only Gaussian weights can be drawn; add bnn=on")


def _check_arm(cfg: Config) -> None:
    if cfg.bnn.kind not in ARMS and "." not in cfg.bnn.kind:
        raise UserError(f"bnn.kind={cfg.bnn.kind}: choose one of {', '.join(ARMS)}, or give the dotted name of a module of your own")
    if cfg.bnn.kind == "prompt_dropout" and cfg.method.train_text_encoder:
        raise UserError("bnn=prompt_dropout: shows the pretrained encoder's empty prompt; set method.train_text_encoder=false")
    gaussian = cfg.bnn.kind == "gaussian"
    if cfg.sampler.sample_weights and not gaussian:
        raise UserError(f"sampler.sample_weights={cfg.sampler.sample_weights}: only Gaussian weights can be drawn; add bnn=on")
    if gaussian and cfg.bnn.kl_weight > 0 and cfg.bnn.sigma_init == 0:
        raise UserError("bnn.sigma_init=0: its KL is infinite; set bnn.kl_weight=0 or a larger bnn.sigma_init")
    if cfg.bnn.time_layers and cfg.method.name != "dreambooth":
        raise UserError(f"bnn.time_layers=true: {cfg.method.name} has no weights in timestep layers; leave it false")
    if cfg.method.alpha is not None and cfg.method.name != "lora":
        raise UserError(f"method.alpha={cfg.method.alpha}: only lora has one; leave it null")
    if cfg.bnn.kind == "lr_decay" and cfg.training.lr_schedule is not LrSchedule.constant:
        raise UserError(f"training.lr_schedule={cfg.training.lr_schedule.value}: bnn=lr_decay sets the schedule itself; leave it constant")
