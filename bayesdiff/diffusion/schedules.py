"""A model's noise schedule, and the schedulers that are built from it alone.

A folder's scheduler file mixes two things: the schedule that the U-Net was trained on, and how its author sampled. Only the
first is the model's. Every scheduler here is built from it with settings of our own, so that a model gives the same
images whatever scheduler it was saved with.
"""

from __future__ import annotations

import copy
from typing import Any

from bayesdiff.config.schema import Scheduler
from bayesdiff.core.errors import UserError, first_line

PREDICTIONS = ("epsilon", "v_prediction")
"""What the U-Net of a model may predict (``objective.prediction_target``)."""
SCHEDULE_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
NO_CLIPPING = {"clip_sample": False, "thresholding": False}
"""Clipping is meant for pixels in [-1, 1]; latents of unit variance lie outside."""


def noise_schedule(scheduler: Any) -> dict[str, Any]:
    """The schedule that the model was trained on, as keyword arguments of a DDPM scheduler.

    Keys that the model's file leaves out have the defaults of the scheduler that it was saved with.
    """
    config = scheduler.config
    kept = {key: config[key] for key in SCHEDULE_KEYS if key in config}
    return {**kept, "rescale_betas_zero_snr": bool(config.get("rescale_betas_zero_snr", False))}


def training_scheduler(scheduler: Any) -> Any:
    """The forward process of the model's noise schedule (``DDPMScheduler``), whatever sampler the pipeline uses."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(**noise_schedule(scheduler), **NO_CLIPPING)


def refused_schedule(scheduler: Any) -> str:
    """Why this suite cannot train on a model's noise schedule; empty where it can."""
    config, name = scheduler.config, type(scheduler).__name__
    if not hasattr(scheduler, "alphas_cumprod") or "beta_schedule" not in config:
        return f"its {name} has no noise schedule of betas (EDM and flow matching have none)"
    for key in ("use_flow_sigmas", "use_dynamic_shifting"):
        if config.get(key):
            return f"its {name} has {key}=true, a flow-matching schedule"
    if config.get("timestep_type", "discrete") != "discrete":
        return f"its {name} has timestep_type={config['timestep_type']}: the U-Net is not told whole timesteps"
    if (kind := config.get("prediction_type", "epsilon")) not in PREDICTIONS:
        return f"it predicts {kind}; this suite trains {' and '.join(PREDICTIONS)}"
    return _refused_alphas(scheduler)


def _refused_alphas(scheduler: Any) -> str:
    """Whether a DDPM scheduler built from the schedule's keys has the alphas that the model's own scheduler has."""
    try:
        trained = training_scheduler(scheduler)
    except (NotImplementedError, ValueError, TypeError) as error:
        return f"its noise schedule cannot be built ({first_line(error)})"
    if why := _no_forward_process(trained):
        return f"its noise schedule {why}"
    rescaled = trained.config.rescale_betas_zero_snr
    follows = not rescaled or "rescale_betas_zero_snr" in _parameters(type(scheduler))
    if follows and not _same_alphas(scheduler, trained):
        return f"its {type(scheduler).__name__} has another noise schedule than its betas give"
    if ends_in_noise(trained) and trained.config.prediction_type == "epsilon":
        return "its schedule ends in pure noise, from which nothing follows where the noise is predicted (prediction_type=epsilon)"
    return ""


def _no_forward_process(trained: Any) -> str:
    """What is wrong with a schedule's alphas: they are shares of the picture that fall from timestep to timestep."""
    alphas, length = trained.alphas_cumprod, trained.config.num_train_timesteps
    if len(alphas) != length:
        return f"has {len(alphas)} betas for num_train_timesteps={length}"
    if not bool(((trained.betas > 0) & (trained.betas <= 1)).all()):
        return "has betas that are not between 0 and 1"
    return ""


def _parameters(kind: type) -> set[str]:
    import inspect

    return set(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]


def _same_alphas(a: Any, b: Any) -> bool:
    return a.alphas_cumprod.shape == b.alphas_cumprod.shape and bool(a.alphas_cumprod.allclose(b.alphas_cumprod, rtol=0, atol=1e-6))


def ends_in_noise(scheduler: Any) -> bool:
    """Whether the schedule has zero terminal SNR (arXiv 2305.08891)."""
    return float(scheduler.alphas_cumprod[-1]) == 0.0


def build_sampler(kind: Scheduler, scheduler: Any) -> Any:
    """A sampler of ``kind`` for the noise schedule of a model's ``scheduler``.

    Timesteps are Stable Diffusion's: leading, from 1. A schedule that ends in pure noise needs trailing ones instead
    (arXiv 2305.08891, section 3.3).

    Raises:
        UserError: the sampler cannot follow that schedule (PNDM knows no zero terminal SNR).
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

    trained = training_scheduler(scheduler)
    spacing = {"timestep_spacing": "trailing" if ends_in_noise(trained) else "leading", "steps_offset": 1}
    classes: dict[Scheduler, tuple[Any, dict[str, Any]]] = {
        Scheduler.ddim: (DDIMScheduler, {**NO_CLIPPING, "set_alpha_to_one": False}),
        Scheduler.pndm: (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
        Scheduler.dpm: (DPMSolverMultistepScheduler, {"thresholding": False, "algorithm_type": "dpmsolver++", "solver_order": 2}),
    }
    maker, settings = classes[kind]
    schedule = {key: value for key, value in noise_schedule(scheduler).items() if key in _parameters(maker)}
    try:
        built = maker(**schedule, **spacing, **settings)
    except NotImplementedError as error:
        raise UserError(f"sampler.scheduler={kind.value}: {first_line(error)}; use model") from error
    if not _same_alphas(built, trained) or (ends_in_noise(trained) and kind is Scheduler.pndm):
        raise UserError(f"sampler.scheduler={kind.value}: cannot follow this model's noise schedule; use ddim, dpm or model")
    if kind is Scheduler.dpm and float(built.alphas_cumprod[-1]) == 0.0:
        raise UserError("sampler.scheduler=dpm: this model's betas end in pure noise, where DPM-Solver is not defined; use ddim")
    return built


def own_sampler(scheduler: Any) -> Any:
    """The scheduler that the model was saved with, unless it would clip latents: then its like that does not.

    Raises:
        UserError: the model's scheduler does not follow the model's own noise schedule.
    """
    if not _same_alphas(scheduler, training_scheduler(scheduler)):
        raise UserError(
            f"sampler.scheduler=model: the model's {type(scheduler).__name__} cannot follow its own noise schedule; use ddim or dpm"
        )
    if not any(scheduler.config.get(key) and key in _parameters(type(scheduler)) for key in NO_CLIPPING):
        return scheduler
    return type(scheduler).from_config(scheduler.config, **{k: v for k, v in NO_CLIPPING.items() if k in _parameters(type(scheduler))})


def check_steps(scheduler: Any, kind: Scheduler, steps: int) -> None:
    """Raises ``UserError`` where the sampler has no ``steps`` different timesteps below the schedule's length."""
    length, trial = scheduler.config.num_train_timesteps, copy.deepcopy(scheduler)
    try:
        trial.set_timesteps(steps)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"sampler.steps={steps}: {kind.value} cannot take so many ({first_line(error)}); give fewer") from error
    times = trial.timesteps.float()
    if times.min() < 0:
        raise UserError(f"sampler.steps={steps}: {kind.value} goes to timestep {times.min():g} here; use sampler.scheduler=ddim or dpm")
    twice = len(times) - len(times.unique()) - (kind is Scheduler.pndm)  # PNDM visits its second timestep twice
    if times.max() > length - 1 or (twice > 0 and kind is not Scheduler.model):
        raise UserError(f"sampler.steps={steps}: {kind.value} has fewer timesteps than that here; give at most {length - 2}")


KNOWN_PICTURE, NEAR = 2.0, 0.5
"""Latents that a sampler has to find in a trial (beyond 1, so that clipping shows), and how near."""
TRIAL_STEPS = 50


def check_sampling(scheduler: Any, kind: Scheduler, steps: int) -> None:
    """Raises ``UserError`` where a scheduler that a model was saved with is no sampler: it inverts, inpaints, clips, or asks for more.

    It is shown the exact prediction for latents that are known, and has to find them. Schedulers of our own are tested as such.
    """
    if kind is not Scheduler.model:
        return
    try:
        found = _known_picture(copy.deepcopy(scheduler), min(max(steps, 2), TRIAL_STEPS))
    except Exception as error:  # a scheduler of another use fails in many ways
        raise UserError(
            f"sampler.scheduler=model: the model's {type(scheduler).__name__} cannot sample ({first_line(error)}); use ddim or dpm"
        ) from error
    if not abs(found - KNOWN_PICTURE) < NEAR:
        raise UserError(
            f"sampler.scheduler=model: the model's {type(scheduler).__name__} does not end at the picture that is predicted "
            f"({found:.3g} for {KNOWN_PICTURE:g}), as one that inverts or clips; use ddim or dpm"
        )


def _known_picture(scheduler: Any, steps: int) -> float:
    """The mean of the latents that a scheduler samples from exact predictions of constant ones."""
    import torch

    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 1, 8, 8, generator=generator) * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        shown = scheduler.scale_model_input(latents, time)
        latents = scheduler.step(_exact(scheduler, shown, float(time)), time, latents, **_seeded(scheduler, generator)).prev_sample
    return float(latents.mean())


def _exact(scheduler: Any, shown: Any, time: float) -> Any:
    """What a perfect U-Net predicts of noisy latents (…) at a timestep, which may lie between two of training."""
    alphas = scheduler.alphas_cumprod
    below = min(max(int(time), 0), len(alphas) - 1)
    above = min(below + 1, len(alphas) - 1)
    alpha = alphas[below] + (alphas[above] - alphas[below]) * (time - below)
    noise = (shown - alpha.sqrt() * KNOWN_PICTURE) / (1 - alpha).sqrt()
    return noise if scheduler.config.prediction_type == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * KNOWN_PICTURE


def _seeded(scheduler: Any, generator: Any) -> dict[str, Any]:
    import inspect

    return {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
