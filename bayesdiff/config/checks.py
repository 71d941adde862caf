"""What a configuration may not say: ranges of single settings, and settings that contradict each other.

``check`` is called by ``compose.resolve``, so that every composed configuration has passed it before anything is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

from bayesdiff.config.identity import as_dict
from bayesdiff.config.prompts import evaluation_prompts, fill
from bayesdiff.config.schema import ARMS, METHODS, RATE_CHANGE, Config, DataSource, LrSchedule, MethodConf, Optimizer, Weights
from bayesdiff.core.errors import UserError, shortened
from bayesdiff.core.files import no_path
from bayesdiff.core.layout import MAIN
from bayesdiff.core.privacy import has_secret

POSITIVE = (
    "method.learning_rate", "method.rank", "bnn.prior_sigma", "training.batch_size", "training.gradient_accumulation_steps",
    "training.max_grad_norm", "schedule.log_every", "data.images", "sampler.steps", "sampler.images_per_prompt", "sampler.batch_size",
    "metrics.batch_size", "method.class_images", "model.resolution",
)  # fmt: skip
NOT_NEGATIVE = (
    "bnn.kl_weight", "bnn.sigma_init", "bnn.sigma_learning_rate_factor", "model.sigma_learning_rate_factor", "bnn.input_noise",
    "bnn.l2_weight", "method.prior_loss_weight",
    "training.weight_decay", "training.lr_warmup_steps", "sampler.sample_weights", "detector.min_depth", "sampler.guidance_scale",
    "sampler.seed", "seed", "shots.seed",
)  # fmt: skip
MOST_GUIDANCE = 1000.0
MOST = {
    "data.images": 10_000, "model.resolution": 8_192, "sampler.steps": 100_000, "sampler.images_per_prompt": 100_000,
    "sampler.batch_size": 100_000, "sampler.sample_weights": 100_000, "metrics.batch_size": 100_000, "training.batch_size": 100_000,
    "training.gradient_accumulation_steps": 1_000_000, "training.lr_warmup_steps": 10**9, "schedule.steps": 10**9,
    "schedule.log_every": 10**9, "method.rank": 100_000, "method.class_images": 1_000_000, "shots.count": 1_000_000,
    "method.learning_rate": 1000.0, "sampler.guidance_scale": MOST_GUIDANCE,
    "seed": 2**63 - 1, "sampler.seed": 2**62, "shots.seed": 2**63 - 1,
}  # fmt: skip
"""Beyond these a setting is a slip: what it asks for fits no memory, no day, or no random generator."""
SECRET = "holds what looks like a secret, which records would keep: leave it out, and give it by the environment (HF_TOKEN, WANDB_API_KEY)"
PATHS = ("model.path", "data.path", "metrics.clip", "metrics.dino", "metrics.clip_iqa", "paths.runs", "paths.cache")
LONGEST = 4_000
"""Letters of a text: longer ones are no prompt, and no path of any system."""


def check(cfg: Config) -> None:
    """Raises ``UserError`` with the first setting that cannot be run."""
    _check_texts(cfg)
    for part in (_check_schedule, _check_ranges, _check_shares, _check_rate, _check_data, _check_method, _check_arm, _check_evaluations):
        part(cfg)


def check_used(cfg: Config) -> None:
    """Raises ``UserError`` for a setting that the method or arm would not read, though the run key has it.

    It is for new commands: a run that was made with one is still read by its record.
    """
    method, usual = cfg.method, MethodConf()
    for key, value, default in (("rank", method.rank, usual.rank), ("targets", method.targets, usual.targets)):
        if method.name == "dreambooth" and value != default:
            raise UserError(f"method.{key}={shortened(value)}: dreambooth trains every weight; leave it out, or add method=lora")
    if cfg.bnn.kl_weight > 0 and cfg.bnn.kind in ARMS and cfg.bnn.kind != "gaussian":
        raise UserError(f"bnn.kl_weight={cfg.bnn.kl_weight:g}: only Gaussian weights have a KL; add bnn=on, or leave it 0")


def check_words(words: Iterable[str]) -> None:
    """Raises ``UserError`` for a word of a command that holds a secret: Hydra writes its own settings down too."""
    for word in words:
        if has_secret(word):
            raise UserError(f"{word.partition('=')[0] if '=' in word else 'a word of the command'}: {SECRET}")


def _check_texts(cfg: Config) -> None:
    """No text may be endless, or hold a secret: every setting stands in the record, and in what trackers keep."""
    texts = list(_texts(as_dict(cfg)))
    for key in PATHS:
        if (text := _value(cfg, key)) is not None and not text.strip() and not key.startswith(("data", "paths")):
            raise UserError(f"{key} is empty: name a model or a folder")
        if text and (why := no_path(text)):
            raise UserError(f"{key}={shortened(text)}: {why}; give another path")
    if has_secret("\n".join(text for _, text in texts)):
        raise UserError(f"{next((key for key, text in texts if has_secret(text)), 'configuration')}: {SECRET}")
    for key, text in texts:
        if len(text) > LONGEST:
            raise UserError(f"{key}={shortened(text)}: {len(text)} letters; give {LONGEST} or fewer")
        if any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in text):
            raise UserError(f"{key}={text!r}: a letter of it is no text; leave it out")


def _texts(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a configuration, with its key."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, Mapping):
        for name, one in content.items():
            yield from _texts(one, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for one in content:
            yield from _texts(one, key)


def _check_schedule(cfg: Config) -> None:
    steps = cfg.schedule.checkpoints
    if not steps or steps != sorted(set(steps)) or steps[0] < 0:
        raise UserError(f"schedule.checkpoints={steps}: give increasing, distinct steps from 0 on")
    if steps[-1] != cfg.schedule.steps:
        raise UserError(f"schedule.checkpoints ends at {steps[-1]} but schedule.steps={cfg.schedule.steps}: make them equal")


def _check_ranges(cfg: Config) -> None:
    for key in POSITIVE:
        if not 0 < (value := _value(cfg, key)) < math.inf:
            raise UserError(f"{key}={value}: must be greater than 0 and finite")
    for key in NOT_NEGATIVE:
        if not 0 <= (value := _value(cfg, key) or 0) < math.inf:
            raise UserError(f"{key}={value}: must not be negative and must be finite")
    for key, most in MOST.items():
        if (value := _value(cfg, key)) is not None and value > most:
            raise UserError(f"{key}={value}: too large; give {most} or less")
    for key in ("method.alpha", "training.min_snr_gamma"):
        if (value := _value(cfg, key)) is not None and not 0 < value < math.inf:
            raise UserError(f"{key}={value}: must be greater than 0 and finite, or null")
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
    evaluation_prompts(cfg.sampler.prompts, "qwe", "dog", False)


def out_of_range(content: Mapping[str, Any]) -> str:
    """The first number of a plain configuration that no run can have had, as ``key=value``; settings that it lacks are passed over."""
    least = {**dict.fromkeys(NOT_NEGATIVE, 0), **dict.fromkeys(POSITIVE, 0), "shots.count": 1}
    for key in (*least, *MOST, "detector.alpha"):
        value: Any = content
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        beyond = value < least.get(key, 0) or (key in POSITIVE and value == 0) or value > MOST.get(key, math.inf)
        if beyond or (key == "detector.alpha" and not 0 < value < 1):
            return f"{key}={shortened(value)}, which no run can have"
    schedule = content.get("schedule")
    steps = schedule.get("checkpoints") if isinstance(schedule, Mapping) else None
    if isinstance(steps, list) and all(type(step) is int for step in steps) and steps != sorted({step for step in steps if step >= 0}):
        return f"schedule.checkpoints={shortened(steps)}, which no run can have"
    return ""


def _value(cfg: Config, key: str) -> Any:
    """The value of a setting by its dotted key."""
    return reduce(getattr, key.split("."), cfg)


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
        numbers = isinstance(change, list) and all(_is_finite(number) for number in change)
        if not numbers or len(change) != RATE_CHANGE or change[0] < 0 or change[0] != int(change[0]) or change[1] < 0:
            raise UserError(f"training.rate_changes={changes}: give pairs [step,factor], such as [[400,10],[600,1]]")
    if [change[0] for change in changes] != sorted({change[0] for change in changes}):
        raise UserError(f"training.rate_changes={changes}: give increasing, distinct steps")
    if cfg.training.compile and cfg.training.compile_blocks:
        raise UserError("training.compile_blocks=true: training.compile=true compiles the whole U-Net; set one of them to false")
    if cfg.training.channels_last and cfg.training.optimizer is Optimizer.adamw_8bit:
        raise UserError("training.channels_last=true: 8-bit AdamW lays weights out anew; leave it false, or give training.optimizer=adamw")
    if cfg.training.lr_warmup_steps and cfg.training.lr_schedule is LrSchedule.constant:
        raise UserError(f"training.lr_warmup_steps={cfg.training.lr_warmup_steps}: add training.lr_schedule=constant_with_warmup")


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def _check_data(cfg: Config) -> None:
    if not cfg.data.identifier.strip():
        raise UserError("data.identifier is empty: give a rare token such as qwe")
    words = {"data.subject": cfg.data.subject, "data.identifier": cfg.data.identifier, "data.class_noun": cfg.data.class_noun or ""}
    if cfg.data.class_noun and not cfg.data.class_noun.strip():
        raise UserError("data.class_noun is empty: give the word for what the subject is, such as dog, or null")
    for key, word in words.items():
        if not all(letter.isprintable() for letter in word):
            raise UserError(f"{key}={word!r}: has control characters; give printable text")
    for key, template in {"data.instance_prompt": cfg.data.instance_prompt, "data.class_prompt": cfg.data.class_prompt}.items():
        if not template.strip():
            raise UserError(f"{key} is empty: give a template such as 'a photo of {{class_noun}}'")
        fill(template, "qwe", "dog", key)
    if not fill(cfg.data.class_prompt, "", "dog"):
        raise UserError("data.class_prompt has no text but the identifier, which class images lack: give 'a photo of {class_noun}'")
    needed = {"data.path": cfg.data.path} if cfg.data.source is not DataSource.toybox else {}
    if cfg.data.source is DataSource.folder:
        needed["data.class_noun"] = cfg.data.class_noun
    for key, value in needed.items():
        if not value:
            raise UserError(f"data={cfg.data.source.value} needs {key}: add {key}=… to the command")


def _check_method(cfg: Config) -> None:
    name = cfg.method.name
    if name in ("lora", "oft") and not cfg.method.targets:
        raise UserError("method.targets is empty: give ends of layers' names, such as [to_q,to_k,to_v,to_out.0]")
    if name not in METHODS and "." not in name:
        raise UserError(f"method.name={name}: choose one of {', '.join(METHODS)}, or give the dotted name of a module of your own")


def _check_evaluations(cfg: Config) -> None:
    most = {"steps": MOST["sampler.steps"], "images_per_prompt": MOST["sampler.images_per_prompt"]}
    for name, one in cfg.evaluations.items():
        key = f"evaluations.{name}"
        if not name.replace("_", "").replace(".", "").replace("-", "").isalnum() or name.lower() == MAIN:
            raise UserError(f"{key}: name it by letters, digits and . _ -; main is the run's own evaluation")
        if len({other.lower() for other in cfg.evaluations}) < len(cfg.evaluations):
            raise UserError(f"{key}: two names differ only in capitals, which some file systems take for one; use other names")
        if one.guidance_scale is not None and not 0 <= one.guidance_scale <= MOST_GUIDANCE:
            raise UserError(f"{key}.guidance_scale={one.guidance_scale}: must be at least 0 and at most {MOST_GUIDANCE:g}")
        for option, number in {"steps": one.steps, "images_per_prompt": one.images_per_prompt}.items():
            if number is not None and not 1 <= number <= most[option]:
                raise UserError(f"{key}.{option}={number}: give 1 to {most[option]}, or null for the sampler's")
        if one.prompts is not None and not one.prompts:
            raise UserError(f"{key}.prompts is empty: give templates, or null for the sampler's")
        evaluation_prompts(one.prompts or [], "qwe", "dog", False)
        if not 0 <= one.ema_decay < 1:
            raise UserError(f"{key}.ema_decay={one.ema_decay}: must be at least 0 and below 1")
        if one.weights is Weights.draw and cfg.bnn.kind != "gaussian":
            raise UserError(f"{key}.weights=draw: only Gaussian weights can be drawn; add bnn=on")


def _check_arm(cfg: Config) -> None:
    if cfg.bnn.kind not in ARMS and "." not in cfg.bnn.kind:
        raise UserError(f"bnn.kind={cfg.bnn.kind}: choose one of {', '.join(ARMS)}, or give the dotted name of a module of your own")
    if cfg.bnn.kind == "prompt_dropout" and cfg.method.train_text_encoder:
        raise UserError("bnn=prompt_dropout: shows the pretrained encoder's empty prompt; set method.train_text_encoder=false")
    if not cfg.bnn.layers.strip():
        raise UserError("bnn.layers is empty, which would be every layer: give default, a preset such as all, or a regular expression")
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
