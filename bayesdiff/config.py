"""The typed configuration: what can be set, its units and ranges, and the checks across fields.

The dataclasses below are the schema of ``conf/``: an unknown key fails, also when added with ``+``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bayesdiff.errors import UserError

HERE = Path(__file__).resolve().parent
CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"
"""The configuration folder: inside an installed wheel, beside the package in a checkout."""


class Method(str, Enum):
    dreambooth = "dreambooth"


class DataSource(str, Enum):
    toybox = "toybox"
    folder = "folder"


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
    resolution: int = 512
    """Side of training and sampled images in pixels."""
    size: str = ""
    """Download size in words, for the message when the weights are missing."""


@dataclass
class MethodConf:
    name: Method = MISSING
    learning_rate: float = MISSING
    """AdamW step size, constant over training."""
    weight_decay: float = 0.01
    prior_preservation: bool = False
    prior_loss_weight: float = 1.0
    class_images: int = 200
    """Pictures of the class made by the base model when prior preservation is on."""


@dataclass
class BnnConf:
    enabled: bool = False
    layers: str = "linear_no_cross_attention"
    """A preset of ``bayesdiff.bayes.PRESETS`` or a regular expression on module names."""
    sigma_init: float = 0.01
    """Standard deviation of every Gaussian weight at step 0; > 0."""
    prior_sigma: float = 0.01
    kl_weight: float = 0.0
    """Weight of KL(q || prior), summed over weights; 0 (the paper's default) builds no KL at all."""


@dataclass
class DataConf:
    source: DataSource = MISSING
    subject: str = MISSING
    """A toybox subject, or any name for an own folder."""
    path: str | None = None
    class_noun: str | None = None
    """The word for what it is ("dog"); toybox subjects know theirs."""
    identifier: str = "qwe"
    """The rare token that stands for the subject."""
    instance_prompt: str = "a photo of {identifier} {class_noun}"
    class_prompt: str = "a photo of {class_noun}"


@dataclass
class ShotsConf:
    count: int | None = None
    """Training images, picked by seed and nested (2 shots contain the 1 shot); null takes all."""


@dataclass
class ScheduleConf:
    steps: int = MISSING
    checkpoints: list[int] = MISSING
    """Steps at which the run samples and scores; 0 is the base model, the last one is ``steps``."""
    batch_size: int = 1
    max_grad_norm: float = 1.0
    keep: Keep = Keep.last_and_best
    log_every: int = 10


@dataclass
class SamplerConf:
    scheduler: Scheduler = Scheduler.model
    steps: int = 50
    guidance_scale: float = 7.5
    prompts: list[str] = MISSING
    """Templates with {identifier} and {class_noun}; or the one word object, live or auto (the
    DreamBooth list that fits the class)."""
    images_per_prompt: int = 4
    batch_size: int = 8
    seed: int = 1000
    """Seed of the initial noise, the same at every checkpoint and in every run."""


@dataclass
class MetricsConf:
    clip: str = MISSING
    """An open_clip model: ``toybox``, ``local-dir:FOLDER`` or ``ARCHITECTURE/PRETRAINED``."""
    dino: str = MISSING
    """A timm model: ``toybox``, ``local-dir:FOLDER`` or a timm name."""
    identifier_in_clip_text: bool = False
    """Whether CLIP-T's text keeps the rare token; the paper's evaluation keeps it."""
    batch_size: int = 32


@dataclass
class DetectorConf:
    metric: Fidelity = Fidelity.dino
    """The curve the verdict is about."""
    alpha: float = 0.05
    min_depth: float = 0.03


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
        for check in (_check_schedule, _check_ranges, _check_data):
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
        "bnn.sigma_init": cfg.bnn.sigma_init,
        "bnn.prior_sigma": cfg.bnn.prior_sigma,
        "schedule.batch_size": cfg.schedule.batch_size,
        "schedule.max_grad_norm": cfg.schedule.max_grad_norm,
        "schedule.log_every": cfg.schedule.log_every,
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
        "method.prior_loss_weight": cfg.method.prior_loss_weight,
        "method.weight_decay": cfg.method.weight_decay,
        "detector.min_depth": cfg.detector.min_depth,
    }
    for key, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{key}={value}: must not be negative and must be finite")
    if cfg.bnn.sigma_init > 1:
        raise UserError(f"bnn.sigma_init={cfg.bnn.sigma_init}: weights are of the order of 0.05; give 1 or less")
    if cfg.shots.count is not None and cfg.shots.count < 1:
        raise UserError(f"shots.count={cfg.shots.count}: give 1 or more, or null for all images")
    if not 0 < cfg.detector.alpha < 1:
        raise UserError(f"detector.alpha={cfg.detector.alpha}: must lie between 0 and 1")
    if not cfg.sampler.prompts:
        raise UserError("sampler.prompts is empty: give templates, or the word object, live or auto")


def _check_data(cfg: Config) -> None:
    if not cfg.data.identifier.strip():
        raise UserError("data.identifier is empty: give a rare token such as qwe")
    if cfg.data.source is DataSource.folder:
        for key, value in {"data.path": cfg.data.path, "data.class_noun": cfg.data.class_noun}.items():
            if not value:
                raise UserError(f"data=folder needs {key}: add {key}=… to the command")


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


def run_key(cfg: Config) -> str:
    """Twelve hex digits that name the run: a hash of everything that can change its results."""
    content = as_dict(cfg)
    for place in ("paths", "tracker", "device", "experiment_name"):
        del content[place]
    del content["schedule"]["keep"], content["schedule"]["log_every"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def run_name(cfg: Config) -> str:
    """A readable folder name that ends with the run key."""
    shots = "all" if cfg.shots.count is None else str(cfg.shots.count)
    arm = "bnn" if cfg.bnn.enabled else "plain"
    parts = [cfg.model.name, cfg.method.name.value, arm, cfg.data.subject, f"{shots}shot", f"seed{cfg.seed}", run_key(cfg)]
    return "-".join("".join(c if c.isalnum() or c in "_." else "_" for c in part)[:40] for part in parts)
