"""The typed configuration: what can be set, with its units and ranges.

The dataclasses below are the schema of ``conf/``: an unknown key fails, also when added with ``+``. ``checks`` says what
values are refused, ``compose`` how a configuration is put together, ``identity`` what a run is called.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

METHODS = ("dreambooth", "lora", "oft")
"""The fine-tuning methods that are shipped; any other is the dotted name of a module like theirs (docs/extending.md)."""


ARMS = ("off", "gaussian", "ema", "input_noise", "dropout", "lr_decay", "l2_to_pretrained", "prompt_dropout")
"""What a run does about the corruption stage, as shipped: nothing, Gaussian weights, or a simpler control (arms/)."""
RATE_CHANGE = 2
"""A change of the learning rate is a pair: from which step on, and which factor of the peak."""


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


class Graph(str, Enum):
    auto = "auto"
    off = "off"


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


class Weights(str, Enum):
    kept = "kept"
    trained = "trained"
    ema = "ema"
    draw = "draw"


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
    kind: str = "off"
    """One of ``ARMS``, or the dotted name of a module of your own."""
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
    prompt_dropout: float = 0.3
    """Arm ``prompt_dropout``: share of the rows that are shown with the empty prompt."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of an arm of your own."""


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
    rate_changes: list[list[float]] = field(default_factory=list)
    """Pairs [step, factor]: from that step on the learning rate is the scheduled one times the factor."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Of AdamW: decay rates of the running mean of the gradient and of its square."""
    mixed_precision: Precision = Precision.no
    gradient_checkpointing: bool = False
    graph: Graph = Graph.auto
    """Run the step as one CUDA graph where there is a GPU and nothing stands against it (training/graph.py)."""
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
    """Training images, nested (2 shots contain the 1 shot); null takes all."""
    seed: int | None = None
    """Which images: a seed of their own, so that runs of several seeds share them; null lets the run's seed choose."""


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
class EvaluationConf:
    """One more way to look at the same checkpoints; what is null is as ``sampler`` has it."""

    guidance_scale: float | None = None
    scheduler: Scheduler | None = None
    steps: int | None = None
    weights: Weights = Weights.kept
    """``kept``: what the arm keeps; ``trained``: the weights that training stands at; ``ema``: their moving average over
    the same training; ``draw``: one draw of Gaussian weights."""
    ema_decay: float = 0.99
    prompts: list[str] | None = None
    images_per_prompt: int | None = None


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
    evaluations: dict[str, EvaluationConf] = field(default_factory=dict)
    """Further evaluations of every checkpoint, by name; they cost sampling and no training, and do not name the run."""
    probes: bool = True
    """Whether losses on fixed noise are measured at every checkpoint (``probes.csv``); they do not name the run."""
    metrics: MetricsConf = field(default_factory=MetricsConf)
    detector: DetectorConf = field(default_factory=DetectorConf)
    tracker: TrackerConf = field(default_factory=TrackerConf)
    paths: PathsConf = field(default_factory=PathsConf)
    experiment_name: str = "run"
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
