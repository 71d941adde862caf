"""The typed configuration: what can be set, with its units and ranges.

The dataclasses below are the schema of ``conf/``. An unknown key fails, also when added with ``+``. ``checks`` refuses values,
``compose`` builds a configuration from a command line, and ``identity`` names a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

METHODS = ("dreambooth", "lora", "oft")
"""The shipped fine-tuning methods. Any other is the dotted name of a module (docs/extending.md)."""


ARMS = ("off", "gaussian", "ema", "input_noise", "dropout", "lr_decay", "l2_to_pretrained", "prompt_dropout")
"""The shipped arms: nothing, Gaussian weights, or a simpler control (arms/)."""
RATE_CHANGE = 2
"""Length of one change of the learning rate: the step it begins at, and the factor of the scheduled rate."""


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


class SamplerPrecision(str, Enum):
    auto = "auto"
    fp32 = "fp32"
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
    tensorboard = "tensorboard"
    mlflow = "mlflow"
    trackio = "trackio"


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
    sigma_learning_rate_factor: float = 1.0
    """What ``bnn=on`` takes for ``bnn.sigma_learning_rate_factor`` on this model."""
    size: str = ""
    """Download size in words, for the message when the weights are missing."""


@dataclass
class MethodConf:
    name: str = MISSING
    """dreambooth, lora, oft, or the dotted name of a module of your own."""
    learning_rate: float = MISSING
    """Peak step size of AdamW. ``training.lr_schedule`` changes it over training."""
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
    """DreamBooth: whether presets include the timestep layers. The released script leaves them out; the fractions that the paper
    prints include them."""
    sigma: Sigma = Sigma.per_weight
    """What gets its own standard deviation; ``fixed`` is plain weight noise that is not trained."""
    sigma_init: float = 0.01
    """Standard deviation of every Gaussian weight at step 0; 0 trains the plain model (``direct``: 1e-7)."""
    sigma_parametrization: SigmaParametrization = SigmaParametrization.softplus
    """``direct`` stores sigma itself and clamps it at 1e-7, as the released code does."""
    sigma_learning_rate_factor: float = 1.0
    """Learning rate of rho, in units of the means' rate; not used by ``direct``.

    A step moves sigma by sigma times what it moves rho, so that a factor of 1 leaves sigma nearly frozen. At sigma 0.01 a factor
    of 100 moves it as far as the released code does, which stores sigma itself.
    """
    prior_sigma: float = 0.01
    kl: Kl = Kl.elbo
    """``elbo`` is KL(q || prior), paper eq. 3; ``reverse`` is KL(prior || q), the released code."""
    kl_weight: float = 0.0
    """Weight of the KL, which is a sum over the Gaussian weights; 0 (the paper's default) builds no KL."""
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
    """Settings of your own arm (docs/extending.md)."""


@dataclass
class TrainingConf:
    batch_size: int = 1
    gradient_accumulation_steps: int = 1
    optimizer: Optimizer = Optimizer.adamw
    weight_decay: float = 0.01
    """On means, and on sigmas that are stored directly. Never on rho: decay would pull it to a larger sigma."""
    max_grad_norm: float = 1.0
    """Bound of the gradient's norm, for the means and for the rhos separately."""
    lr_schedule: LrSchedule = LrSchedule.constant
    lr_warmup_steps: int = 0
    rate_changes: list[Any] = field(default_factory=list)
    """Pairs [step, factor]: from that step on, the factor multiplies the scheduled learning rate."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Of AdamW: decay rates of the running mean of the gradient and of its square."""
    mixed_precision: Precision = Precision.no
    gradient_checkpointing: bool = False
    graph: Graph = Graph.auto
    """``auto`` runs the step and the sampling forward pass as CUDA graphs where nothing stands against it (training/graph.py)."""
    tf32: bool = False
    """Float32 products in TF32 on GPUs that have it, in training and sampling."""
    channels_last: bool = False
    """Weights and images with the channels innermost. It is quicker where convolutions prefer it, and rounds differently."""
    compile: bool = False
    """Compile the U-Net with torch.compile."""
    compile_blocks: bool = False
    """Compile the U-Net's repeated transformer blocks alone, an alternative to ``graph``: the first step comes sooner than with
    ``compile``. Where that cannot be done the run goes on without, and says why; the record keeps it."""
    min_snr_gamma: float | None = None
    """Largest signal-to-noise ratio in the loss weight (arXiv 2303.09556); null weighs all timesteps alike."""


@dataclass
class DataConf:
    source: DataSource = MISSING
    subject: str = MISSING
    """A toybox subject, a folder name of the data set, or any name for your own folder."""
    path: str | None = None
    """Your photographs, or the root of the data set (one folder a subject)."""
    class_noun: str | None = None
    """The word for what the subject is ("dog"); the toybox knows it for its subjects."""
    identifier: str = "qwe"
    """The rare token that stands for the subject."""
    instance_prompt: str = "a photo of {identifier} {class_noun}"
    class_prompt: str = "a photo of {class_noun}"
    images: int = 6
    """Toybox: how many photographs of the subject to render; the first six never change."""


@dataclass
class ShotsConf:
    count: int | None = None
    """Training images, nested (2 shots contain the 1 shot); null takes all."""
    seed: int | None = None
    """Seed that chooses the images, so that runs of several seeds share them; null takes the run's seed."""


@dataclass
class ScheduleConf:
    steps: int = MISSING
    checkpoints: list[int] = MISSING
    """Steps at which the run samples and scores; 0 is the base model, the last one is ``steps``."""
    photos: int | None = None
    """The number of photographs that ``steps`` and ``checkpoints`` are meant for: a run on fewer or more has them in proportion."""
    keep: Keep = Keep.last_and_best
    log_every: int = 10


@dataclass
class SamplerConf:
    scheduler: Scheduler = Scheduler.model
    steps: int = 50
    guidance_scale: float = 7.5
    prompts: list[str] = MISSING
    """Templates with {identifier} and {class_noun}, or one word: object, live, face, or auto (the list that fits the class)."""
    images_per_prompt: int = 4
    batch_size: int = 8
    precision: SamplerPrecision = SamplerPrecision.auto
    """Of the U-Net's arithmetic while sampling. ``auto``: bf16 on a GPU that has it, else fp32. The scheduler, the texts and the
    decoder stay in float32. The record keeps what ``auto`` was."""
    seed: int = 1000
    """Seed of the initial noise, the same at every checkpoint and in every run."""
    sample_weights: int = 0
    """Draws of Gaussian weights to sample besides the mean. They show uncertainty and never enter the curve."""


@dataclass
class EvaluationConf:
    """Another evaluation of the same checkpoints; null takes the value of ``sampler``."""

    guidance_scale: float | None = None
    scheduler: Scheduler | None = None
    steps: int | None = None
    weights: Weights = Weights.kept
    """``kept``: what the arm keeps. ``trained``: the weights under training. ``ema``: their moving average. ``draw``: one draw of
    Gaussian weights."""
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
    precision: SamplerPrecision = SamplerPrecision.auto
    """Of the arithmetic of CLIP's and DINO's image encoders. ``auto``: fp16 on a GPU where trial pictures score the same to 0.001,
    else fp32. Texts, LPIPS and CLIP-IQA stay in float32. The record keeps what ``auto`` was."""
    extra: list[str] = field(default_factory=list)
    """Custom metrics: dotted names of functions from a PIL image to a number (docs/extending.md)."""


@dataclass
class DetectorConf:
    metric: Fidelity = Fidelity.dino
    """The metric whose curve is judged."""
    alpha: float = 0.05
    min_depth: float = 0.03
    checkpoint_noise: float | None = None
    """Noise that moves all images of a checkpoint together, if you measured it elsewhere; null reads it off the curve."""
    sampled_prompts: bool = False
    """True if the prompts are a sample of all prompts: then they are what varies. False if only these prompts matter."""
    stop_after: StopAfter = StopAfter.never
    """``recovered`` ends training at the first checkpoint after a flagged stage."""


@dataclass
class TrackerConf:
    name: Backend = Backend.jsonl
    project: str = "bayesdiff"
    """Of Weights & Biases and Trackio; of MLflow the experiment."""
    entity: str | None = None
    mode: TrackerMode = TrackerMode.offline
    """Of Weights & Biases. Environment variables of the others say where they report to."""


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
    """Further evaluations of every checkpoint, by name. They cost sampling and no training, and do not change the run key."""
    probes: bool = True
    """Whether to measure losses on fixed noise at every checkpoint (``probes.csv``). They do not change the run key."""
    report: bool = True
    """Whether the run ends with its page (``report.html``). It does not change the run key."""
    metrics: MetricsConf = field(default_factory=MetricsConf)
    detector: DetectorConf = field(default_factory=DetectorConf)
    tracker: TrackerConf = field(default_factory=TrackerConf)
    paths: PathsConf = field(default_factory=PathsConf)
    experiment_name: str = "run"
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
