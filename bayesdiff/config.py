"""The typed configuration: what can be set, its units and ranges, and the checks across fields.

The dataclasses below are the schema of ``conf/``: an unknown key fails, also when added with ``+``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bayesdiff.errors import UserError

HERE = Path(__file__).resolve().parent
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"
"""The configuration folder: inside an installed wheel, beside the package in a checkout."""


METHODS = ("dreambooth", "lora", "oft")
"""The fine-tuning methods that are shipped; any other is the dotted name of a module like theirs (docs/extending.md)."""


class Arm(str, Enum):
    """What a run does about the corruption stage: nothing, Gaussian weights, or a simpler control."""

    off = "off"
    gaussian = "gaussian"
    ema = "ema"
    input_noise = "input_noise"
    dropout = "dropout"
    lr_decay = "lr_decay"
    l2_to_pretrained = "l2_to_pretrained"


class Sigma(str, Enum):
    per_weight = "per_weight"
    per_row = "per_row"
    per_tensor = "per_tensor"
    fixed = "fixed"


class SigmaParametrization(str, Enum):
    softplus = "softplus"
    direct = "direct"


class Kl(str, Enum):
    elbo = "elbo"
    reverse = "reverse"


class Optimizer(str, Enum):
    adamw = "adamw"
    adamw_8bit = "adamw_8bit"


class LrSchedule(str, Enum):
    constant = "constant"
    constant_with_warmup = "constant_with_warmup"
    linear = "linear"
    cosine = "cosine"


class Precision(str, Enum):
    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


class DataSource(str, Enum):
    toybox = "toybox"
    folder = "folder"
    dreambooth = "dreambooth"
    celeba = "celeba"


class Keep(str, Enum):
    all = "all"
    last = "last"
    best = "best"
    last_and_best = "last_and_best"


class Backend(str, Enum):
    none = "none"
    jsonl = "jsonl"
    wandb = "wandb"


class TrackerMode(str, Enum):
    offline = "offline"
    online = "online"


class Fidelity(str, Enum):
    dino = "dino"
    clip_i = "clip_i"
    clip_t = "clip_t"


class StopAfter(str, Enum):
    never = "never"
    recovered = "recovered"


class Scheduler(str, Enum):
    model = "model"
    ddim = "ddim"
    pndm = "pndm"
    dpm = "dpm"


@dataclass
class ModelConf:
    name: str = MISSING
    path: str = MISSING
    """``toybox``, a folder in the Stable Diffusion layout, or a hub id."""
    revision: str | None = None
    """Commit of the hub repository; null takes the newest."""
    variant: str | None = None
    """File variant on the hub, such as fp16."""
    gated: bool = False
    """Whether the hub asks to accept a licence first."""
    resolution: int = 512
    """Side of training and sampled images in pixels."""
    size: str = ""
    """Download size in words, for the message when the weights are missing."""


@dataclass
class MethodConf:
    name: str = MISSING
    """dreambooth, lora, oft, or the dotted name of a module of your own."""
    learning_rate: float = MISSING
    """Peak step size of AdamW; what it does over training is ``training.lr_schedule``."""
    rank: int = 4
    """LoRA: rank of the update. OFT: number of blocks of the rotation."""
    alpha: float | None = None
    """LoRA: the update is scaled by alpha / rank; null takes alpha = rank."""
    targets: list[str] = field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"])
    """LoRA and OFT: ends of the names of the U-Net's layers that get an adapter."""
    train_text_encoder: bool = False
    prior_preservation: bool = False
    prior_loss_weight: float = 1.0
    class_images: int = 200
    """Pictures of the class made by the base model when prior preservation is on."""


@dataclass
class BnnConf:
    kind: Arm = Arm.off
    layers: str = "default"
    """``default`` (the method's own), one of the method's presets, or a regular expression on module names."""
    time_layers: bool = False
    """DreamBooth: whether presets take in the timestep layers; the released script leaves them out, the
    fractions that the paper prints say they were in."""
    sigma: Sigma = Sigma.per_weight
    """What has a standard deviation of its own; ``fixed`` is plain weight noise, not trained."""
    sigma_init: float = 0.01
    """Standard deviation of every Gaussian weight at step 0; 0 trains the plain model (``direct``: 1e-7)."""
    sigma_parametrization: SigmaParametrization = SigmaParametrization.softplus
    """``direct`` stores sigma itself and clamps it at 1e-7, as the released code does."""
    sigma_learning_rate_factor: float = 1.0
    """Of rho's learning rate, in units of the means'. softplus moves sigma by sigma times what rho moves, so that at
    sigma 0.01 a factor of 100 lets it go as far as the released code's, which stores sigma itself (there it is not used)."""
    prior_sigma: float = 0.01
    kl: Kl = Kl.elbo
    """``elbo`` is KL(q || prior), paper eq. 3; ``reverse`` is KL(prior || q), the released code."""
    kl_weight: float = 0.0
    """Weight of the KL, summed over weights; 0 (the paper's default) builds no KL at all."""
    ema_decay: float = 0.99
    """Control ``ema``: the average of the trained weights that is sampled and kept."""
    input_noise: float = 0.02
    """Control ``input_noise``: standard deviation of extra noise on the latents of unit variance."""
    dropout: float = 0.1
    """Control ``dropout``: rate of every dropout layer of the U-Net while it is trained."""
    l2_weight: float = 0.01
    """Control ``l2_to_pretrained``: weight of the summed squared distance from the first weights."""


@dataclass
class TrainingConf:
    batch_size: int = 1
    gradient_accumulation_steps: int = 1
    optimizer: Optimizer = Optimizer.adamw
    weight_decay: float = 0.01
    """On means and on sigmas that are stored directly; never on rho, which it would draw to a larger sigma."""
    max_grad_norm: float = 1.0
    """Over the means and over the rhos, each for itself."""
    lr_schedule: LrSchedule = LrSchedule.constant
    lr_warmup_steps: int = 0
    mixed_precision: Precision = Precision.no
    gradient_checkpointing: bool = False
    compile: bool = False
    """Compile the U-Net with torch.compile."""
    min_snr_gamma: float | None = None
    """Bound of the loss weight's signal-to-noise ratio (arXiv 2303.09556); null weighs all timesteps alike."""


@dataclass
class DataConf:
    source: DataSource = MISSING
    subject: str = MISSING
    """A toybox subject, a folder name of the data set, or any name for an own folder."""
    path: str | None = None
    """Own photographs, or the root of the data set (one folder a subject)."""
    class_noun: str | None = None
    """The word for what it is ("dog"); toybox subjects know theirs."""
    identifier: str = "qwe"
    """The rare token that stands for the subject."""
    instance_prompt: str = "a photo of {identifier} {class_noun}"
    class_prompt: str = "a photo of {class_noun}"
    images: int = 6
    """Toybox: how many photographs of the subject are rendered; the first six are always the same."""


@dataclass
class ShotsConf:
    count: int | None = None
    """Training images, picked by seed and nested (2 shots contain the 1 shot); null takes all."""


@dataclass
class ScheduleConf:
    steps: int = MISSING
    checkpoints: list[int] = MISSING
    """Steps at which the run samples and scores; 0 is the base model, the last one is ``steps``."""
    keep: Keep = Keep.last_and_best
    log_every: int = 10


@dataclass
class SamplerConf:
    scheduler: Scheduler = Scheduler.model
    steps: int = 50
    guidance_scale: float = 7.5
    prompts: list[str] = MISSING
    """Templates with {identifier} and {class_noun}; or the one word object, live, face or auto (the
    list that fits the class)."""
    images_per_prompt: int = 4
    batch_size: int = 8
    seed: int = 1000
    """Seed of the initial noise, the same at every checkpoint and in every run."""
    sample_weights: int = 0
    """Draws of Gaussian weights to sample besides the mean; for studying uncertainty, never in the curve."""


@dataclass
class MetricsConf:
    clip: str = MISSING
    """An open_clip model: ``toybox``, ``local-dir:FOLDER`` or ``ARCHITECTURE/PRETRAINED``."""
    dino: str = MISSING
    """A timm model: ``toybox``, ``local-dir:FOLDER`` or a timm name."""
    identifier_in_clip_text: bool = False
    """Whether ``clip_t`` keeps the rare token in its text, as the paper's evaluation does; both are logged."""
    lpips: bool = False
    """LPIPS (AlexNet) among the images of one prompt; its backbone is downloaded once."""
    clip_iqa: str | None = None
    """An open_clip model for CLIP-IQA; null leaves it out (the toybox's words know no quality)."""
    batch_size: int = 32
    extra: list[str] = field(default_factory=list)
    """Own metrics: dotted names of functions from a PIL image to a number (docs/extending.md)."""


@dataclass
class DetectorConf:
    metric: Fidelity = Fidelity.dino
    """The curve the verdict is about."""
    alpha: float = 0.05
    min_depth: float = 0.03
    checkpoint_noise: float | None = None
    """Noise that moves all images of a checkpoint together, where it was measured; null reads it off the curve."""
    sampled_prompts: bool = False
    """Whether prompts are a sample of all prompts too (then they are what varies), or the ones one cares about."""
    stop_after: StopAfter = StopAfter.never
    """``recovered`` ends training at the first checkpoint behind a stage that is flagged."""


@dataclass
class TrackerConf:
    name: Backend = Backend.jsonl
    project: str = "bayesdiff"
    entity: str | None = None
    mode: TrackerMode = TrackerMode.offline


@dataclass
class PathsConf:
    runs: str = "runs"
    cache: str = "runs/cache"


@dataclass
class Config:
    model: ModelConf = field(default_factory=ModelConf)
    method: MethodConf = field(default_factory=MethodConf)
    bnn: BnnConf = field(default_factory=BnnConf)
    training: TrainingConf = field(default_factory=TrainingConf)
    data: DataConf = field(default_factory=DataConf)
    shots: ShotsConf = field(default_factory=ShotsConf)
    schedule: ScheduleConf = field(default_factory=ScheduleConf)
    sampler: SamplerConf = field(default_factory=SamplerConf)
    metrics: MetricsConf = field(default_factory=MetricsConf)
    detector: DetectorConf = field(default_factory=DetectorConf)
    tracker: TrackerConf = field(default_factory=TrackerConf)
    paths: PathsConf = field(default_factory=PathsConf)
    experiment_name: str = "run"
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        for check in (_check_schedule, _check_ranges, _check_data, _check_method, _check_arm):
            check(self)


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
    }
    for key, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{key}={value}: must not be negative and must be finite")
    for key, optional in {"method.alpha": cfg.method.alpha, "training.min_snr_gamma": cfg.training.min_snr_gamma}.items():
        if optional is not None and not 0 < optional < math.inf:
            raise UserError(f"{key}={optional}: must be greater than 0 and finite, or null")
    if cfg.detector.checkpoint_noise is not None and not 0 <= cfg.detector.checkpoint_noise < math.inf:
        raise UserError(f"detector.checkpoint_noise={cfg.detector.checkpoint_noise}: must not be negative and must be finite, or null")
    for key, share in {"bnn.ema_decay": cfg.bnn.ema_decay, "bnn.dropout": cfg.bnn.dropout}.items():
        if not 0 <= share < 1:
            raise UserError(f"{key}={share}: must be at least 0 and below 1")
    if cfg.bnn.sigma_init > 1:
        raise UserError(f"bnn.sigma_init={cfg.bnn.sigma_init}: weights are of the order of 0.05; give 1 or less")
    if cfg.shots.count is not None and cfg.shots.count < 1:
        raise UserError(f"shots.count={cfg.shots.count}: give 1 or more, or null for all images")
    if not 0 < cfg.detector.alpha < 1:
        raise UserError(f"detector.alpha={cfg.detector.alpha}: must lie between 0 and 1")
    if not cfg.sampler.prompts:
        raise UserError("sampler.prompts is empty: give templates, or the word object, live, face or auto")


def _check_data(cfg: Config) -> None:
    if not cfg.data.identifier.strip():
        raise UserError("data.identifier is empty: give a rare token such as qwe")
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


def _check_arm(cfg: Config) -> None:
    gaussian = cfg.bnn.kind is Arm.gaussian
    if cfg.sampler.sample_weights and not gaussian:
        raise UserError(f"sampler.sample_weights={cfg.sampler.sample_weights}: only Gaussian weights can be drawn; add bnn=on")
    if gaussian and cfg.bnn.kl_weight > 0 and cfg.bnn.sigma_init == 0:
        raise UserError("bnn.sigma_init=0: its KL is infinite; set bnn.kl_weight=0 or a larger bnn.sigma_init")
    if cfg.bnn.time_layers and cfg.method.name != "dreambooth":
        raise UserError(f"bnn.time_layers=true: {cfg.method.name} has no weights in timestep layers; leave it false")
    if cfg.method.alpha is not None and cfg.method.name != "lora":
        raise UserError(f"method.alpha={cfg.method.alpha}: only lora has one; leave it null")
    if cfg.training.lr_warmup_steps and cfg.training.lr_schedule is LrSchedule.constant:
        raise UserError(f"training.lr_warmup_steps={cfg.training.lr_warmup_steps}: add training.lr_schedule=constant_with_warmup")
    if cfg.bnn.kind is Arm.lr_decay and cfg.training.lr_schedule is not LrSchedule.constant:
        raise UserError(f"training.lr_schedule={cfg.training.lr_schedule.value}: bnn=lr_decay sets the schedule itself; leave it constant")


def resolve(raw: DictConfig) -> Config:
    """Validate a composed configuration; raises ``UserError`` in one line."""
    try:
        plain = OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
        typed = OmegaConf.merge(OmegaConf.structured(Config), plain)
        cfg = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {str(error).splitlines()[0]} ({error.full_key or 'top level'})") from error
    assert isinstance(cfg, Config)
    return cfg


def as_dict(cfg: Config) -> dict[str, Any]:
    """Plain, JSON-ready values (enums as their names)."""
    return json.loads(json.dumps(asdict(cfg)))


def key_content(cfg: Config) -> dict[str, Any]:
    """The part of a configuration that can change results. What lies in a local folder is not seen by it
    (see ``RunRecord.weights`` and the photographs' hashes)."""
    content = as_dict(cfg)
    for place in ("paths", "tracker", "device", "experiment_name"):
        del content[place]
    del content["schedule"]["keep"], content["schedule"]["log_every"], content["model"]["size"], content["model"]["gated"]
    return content


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@lru_cache(maxsize=1)
def _usual() -> dict[str, Any]:
    """Every setting's default, as dotted keys; those that have none are ``???``."""
    content = {part.name: asdict(part.default_factory()) if callable(part.default_factory) else part.default for part in fields(Config)}
    return _flat(json.loads(json.dumps(content)))


def run_key(cfg: Config) -> str:
    """Twelve hex digits that name the run: a hash of every setting that can change its results.

    Settings at their default do not enter, so that an option that is added later leaves the names of old
    records as they are.
    """
    usual = _usual()
    content = {key: value for key, value in _flat(key_content(cfg)).items() if key not in usual or usual[key] != value}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def arm_name(bnn: Mapping[str, Any]) -> str:
    """One word for the arm of a configuration or record: plain, bnn, weight_noise, or the control's own name."""
    kind, sigma = Arm(bnn["kind"]), Sigma(bnn["sigma"])
    if kind is Arm.gaussian:
        return "weight_noise" if sigma is Sigma.fixed else "bnn"
    return "plain" if kind is Arm.off else kind.value


def run_name(cfg: Config) -> str:
    """A readable folder name that ends with the run key."""
    shots = "all" if cfg.shots.count is None else str(cfg.shots.count)
    parts = [
        cfg.model.name,
        cfg.method.name,
        arm_name(vars(cfg.bnn)),
        cfg.data.subject,
        f"{shots}shot",
        f"seed{cfg.seed}",
        run_key(cfg),
    ]
    return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in part)[:40] for part in parts)
