"""CLIP and DINO as functions from images to unit vectors, and two published quality measures.

Models are the toybox's, a local folder's or published ones.

Images are resized to a square without cropping, as the paper's evaluation does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bayesdiff.config.prompts import TextReader
from bayesdiff.config.schema import MetricsConf, SamplerPrecision
from bayesdiff.core.errors import UserError, did_you_mean, first_line, shortened
from bayesdiff.core.output import say
from bayesdiff.core.privacy import at_home
from bayesdiff.core.processes import is_main_process
from bayesdiff.diffusion.wholeness import not_finite
from bayesdiff.diffusion.words import unknown_to
from bayesdiff.scoring.metrics import COLUMNS, METRICS, Metric, described

if TYPE_CHECKING:
    import torch
    from PIL import Image

ImageEncoder = Callable[["list[Image.Image]"], "torch.Tensor"]
TextEncoder = Callable[["list[str]"], "torch.Tensor"]


class PreciseEncoder(Protocol):
    """An image encoder that computes in float32, or in the precision that it is asked for."""

    def __call__(self, images: list[Image.Image], precision: SamplerPrecision = ...) -> torch.Tensor: ...


AGREEMENT = 1e-3
"""Half precision is used where no cosine of trial pictures differs by more from float32's."""
QUALITY_WORDS = ("Good photo.", "Bad photo.")
TRIED = 256
"""Side in pixels of the picture that a metric of a user's own is tried on before any model is loaded."""


@dataclass(frozen=True)
class Encoders:
    """Each encoder returns L2-normalised float32 features (N, D) on the CPU."""

    clip_image: ImageEncoder
    clip_text: TextEncoder
    dino: ImageEncoder
    lpips: ImageEncoder | None = None
    """From N images to their (N, N) distances, 0 on the diagonal."""
    clip_iqa: ImageEncoder | None = None
    """From N images to N qualities in [0, 1]."""
    extra: dict[str, Callable[[Image.Image], float]] = field(default_factory=dict)
    """Custom metrics, by name."""
    described: dict[str, Metric] = field(default_factory=dict)
    """Label, unit and direction of those custom metrics that say them."""
    precision: SamplerPrecision = SamplerPrecision.fp32
    """In which CLIP and DINO encode images."""


def _image_encoder(
    forward: Callable[[torch.Tensor], torch.Tensor], side: int, mean: tuple[float, ...], std: tuple[float, ...],
    device: torch.device, batch_size: int,
) -> PreciseEncoder:  # fmt: skip
    import torch
    from torchvision.transforms import v2

    from bayesdiff.diffusion.precision import HALVES

    preprocess = v2.Compose(
        [
            v2.ToImage(), v2.Resize((side, side), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std)),
        ]
    )  # fmt: skip

    @torch.inference_mode()
    def encode(images: list[Image.Image], precision: SamplerPrecision = SamplerPrecision.fp32) -> torch.Tensor:
        half = HALVES.get(precision)
        chunks = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        with torch.autocast(device.type, half) if half else nullcontext():
            features = [forward(torch.stack([preprocess(i) for i in chunk]).to(device)).float().cpu() for chunk in chunks]
        return torch.nn.functional.normalize(torch.cat(features), dim=-1)

    return encode


def _library_name(name: str, kind: str) -> str:
    """The name that open_clip and timm understand; the toybox's own encoders are ``local-dir:`` ones."""
    from bayesdiff.toybox import weights

    return f"local-dir:{weights.CLIP if kind == 'clip' else weights.DINO}" if name == "toybox" else at_home(name)


def encoder_folder(name: str, kind: str) -> Path:
    """Where a ``toybox`` or ``local-dir:`` encoder (clip or dino) lies; for a published name, a folder that does not exist."""
    return Path(_library_name(name, kind).removeprefix("local-dir:"))


def clip_name(name: str) -> tuple[str, str]:
    """Architecture and pretrained tag of an open_clip name; ``local-dir:FOLDER`` has no tag.

    Weights that were trained with QuickGELU (open_clip's tags say which) need the architecture that has it: with another
    activation they load without a word and give other features.
    """
    import open_clip

    if name.startswith("local-dir:"):
        return name, ""
    architecture, _, tag = name.partition("/")
    quick = open_clip.pretrained.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    if quick and not (open_clip.get_model_config(architecture) or {}).get("quick_gelu", False):
        return f"{architecture}-quickgelu", tag
    return architecture, tag


def clip_reader(name: str, key: str = "metrics.clip") -> TextReader:
    """How an open_clip model reads texts, without its weights; raises ``UserError``."""
    import open_clip

    try:
        tokenizer = open_clip.get_tokenizer(clip_name(_library_name(name, "clip"))[0])
    except Exception as error:  # as in load_clip
        raise UserError(f"{key}={name}: cannot be loaded ({first_line(error)}); {_remedy(_library_name(name, 'clip'))}") from error
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:  # open_clip's own, which spells every word out; begin and end come on top
        return TextReader(key, tokenizer.context_length, lambda text: len(tokenizer.encode(text)) + 2)

    def count(text: str) -> int:
        return len(inner(tokenizer.clean_fn(text), truncation=False, verbose=False).input_ids)

    return TextReader(key, tokenizer.context_length, count, lambda text: unknown_to(inner, text))


def _whole(model: Any, said: str, name: str) -> Any:
    """The model; raises ``UserError`` for weights that are not finite, which would make every score one."""
    if wrong := not_finite(model):
        raise UserError(f"{said}: has weights that are not finite ({wrong}); {_remedy(name)}")
    return model


def load_clip(name: str, device: torch.device, batch_size: int = 32, key: str = "metrics.clip") -> tuple[PreciseEncoder, TextEncoder]:
    """An open_clip model: ``toybox``, ``local-dir:FOLDER`` or ``ARCHITECTURE/PRETRAINED``.

    A name whose weights need QuickGELU is corrected, in a line. Raises ``UserError``.
    """
    import open_clip
    import torch

    name = _library_name(name, "clip")
    try:
        architecture, pretrained = clip_name(name)
        model = open_clip.create_model(architecture, pretrained or None, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(architecture)
    except Exception as error:  # loaders raise many kinds for a bad or missing file
        raise UserError(f"{key}={name}: cannot be loaded ({first_line(error)}); {_remedy(name)}") from error
    _say_corrected(key, name, f"{architecture}/{pretrained}")
    model = _whole(model, f"{key}={name}", name).eval().requires_grad_(False).to(device).float()
    visual = model.visual
    side = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size

    @torch.inference_mode()
    def encode_text(texts: list[str]) -> torch.Tensor:
        features = model.encode_text(tokenizer(texts).to(device)).float().cpu()
        return torch.nn.functional.normalize(features, dim=-1)

    return _image_encoder(model.encode_image, side, visual.image_mean, visual.image_std, device, batch_size), encode_text


def _say_corrected(key: str, name: str, built: str) -> None:
    if not name.startswith("local-dir:") and name != built and is_main_process():
        say(f"{key}={name}: its weights were trained with QuickGELU, so that {built} is used")


def timm_name(name: str) -> str:
    """A timm name whose weights keep their own activation: timm has CLIP's under names with and without QuickGELU."""
    import timm

    if name.startswith(("local-dir:", "hf-hub:", "hf_hub:")) or "quickgelu" in name:
        return name
    notes = getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "notes", None) or ()
    quick = name.replace("_clip_", "_clip_quickgelu_")
    return quick if any("QuickGELU" in note for note in notes) and timm.is_model(quick.partition(".")[0]) else name


def load_dino(name: str, device: torch.device, batch_size: int = 32) -> PreciseEncoder:
    """A timm vision transformer's class token: ``toybox``, ``local-dir:FOLDER`` or a timm name.

    A name whose weights need QuickGELU is corrected, in a line. Raises ``UserError``.
    """
    import timm
    from timm.data import resolve_model_data_config

    name = _library_name(name, "dino")
    try:
        built = timm_name(name)
        model = timm.create_model(built, pretrained=True, num_classes=0)
    except Exception as error:  # as above; timm's FileNotFoundError has an empty message
        raise UserError(f"metrics.dino={name}: cannot be loaded ({first_line(error)}); {_remedy(name)}") from error
    _say_corrected("metrics.dino", name, built)
    model = _whole(model, f"metrics.dino={name}", name).eval().requires_grad_(False).to(device).float()
    data = resolve_model_data_config(model)
    return _image_encoder(model, data["input_size"][-1], data["mean"], data["std"], device, batch_size)


def load_lpips(device: torch.device) -> ImageEncoder:
    """LPIPS with AlexNet (torchmetrics) on images at 512 pixels, as the paper measures it. Raises ``UserError``."""
    import torch
    from torchvision.transforms import v2

    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", reduction="none").to(device)
    except Exception as error:  # its backbone comes from the network
        raise UserError(
            f"metrics.lpips=true: cannot be loaded ({first_line(error)}); its backbone is downloaded once, or set false"
        ) from error
    prepare = v2.Compose([v2.ToImage(), v2.Resize((512, 512), antialias=True), v2.ToDtype(torch.float32, scale=True)])

    @torch.inference_mode()
    def distances(images: list[Image.Image]) -> torch.Tensor:
        pixels = torch.stack([prepare(image) for image in images]).to(device) * 2 - 1
        table = torch.zeros(len(images), len(images))
        for i in range(1, len(images)):
            row = metric.net(pixels[:i], pixels[i : i + 1].expand(i, -1, -1, -1)).flatten().cpu()
            table[i, :i] = table[:i, i] = row
        return table

    return distances


def load_clip_iqa(name: str, device: torch.device, batch_size: int = 32) -> ImageEncoder:
    """CLIP-IQA (arXiv 2207.12396) by an open_clip model: how much more a "good photo" than a bad one.

    By open_clip, because torchmetrics' version asks for a package of its own or for a transformers
    release of the past. The paper's came from piq (RN50 without positional embedding, at native
    resolution), so values are comparable between runs here and not with its table. Raises ``UserError``.
    """
    import torch

    image, text = load_clip(name, device, batch_size, key="metrics.clip_iqa")
    good, bad = text(list(QUALITY_WORDS))

    def quality(images: list[Image.Image]) -> torch.Tensor:
        features = image(images)
        return torch.sigmoid(100.0 * (features @ good - features @ bad))

    return quality


def trial_pictures() -> list[Image.Image]:
    """Noise of every coarseness on grey, and a plain ramp: pictures that are always the same."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    noises = [random.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (2, 4, 8, 16, 32, 64, TRIED)]
    ramp = np.broadcast_to(np.arange(TRIED, dtype=np.uint8)[:, None, None], (TRIED, TRIED, 3))
    return [Image.fromarray(array).resize((TRIED, TRIED), Image.Resampling.BICUBIC) for array in [*noises, np.ascontiguousarray(ramp)]]


def disagreement(encode: PreciseEncoder, precision: SamplerPrecision) -> float:
    """Largest difference of a cosine of trial pictures from float32's, 0 to 2; nan where a feature is not finite.

    The cosines are between two pictures in the precision, and between one of them and one in float32, as texts are.
    """
    exact, rough = encode(trial_pictures()), encode(trial_pictures(), precision)
    return max(float((cosines - exact @ exact.T).abs().max()) for cosines in (rough @ rough.T, rough @ exact.T))


def chosen_precision(asked: SamplerPrecision, device: torch.device, encoders: list[PreciseEncoder]) -> SamplerPrecision:
    """What images are encoded in: of ``auto`` fp16 on a GPU where all encoders agree with float32. Raises ``UserError``."""
    from bayesdiff.diffusion.precision import resolved

    if asked is not SamplerPrecision.auto:
        return resolved(asked, device, "metrics.precision")
    half = SamplerPrecision.fp16  # of the two halves the finer one
    return half if device.type == "cuda" and all(disagreement(one, half) <= AGREEMENT for one in encoders) else SamplerPrecision.fp32


def load_encoders(conf: MetricsConf, device: torch.device) -> Encoders:
    """Everything that ``metrics`` asks for; raises ``UserError`` for what cannot be loaded."""
    extra, said = _own_metrics(conf.extra)
    _check_names(conf)
    clip_image, clip_text = load_clip(conf.clip, device, conf.batch_size)
    dino = load_dino(conf.dino, device, conf.batch_size)
    lpips = load_lpips(device) if conf.lpips else None
    iqa = load_clip_iqa(conf.clip_iqa, device, conf.batch_size) if conf.clip_iqa else None
    precision = chosen_precision(conf.precision, device, [clip_image, dino])
    image, self_supervised = (partial(one, precision=precision) for one in (clip_image, dino))
    return Encoders(image, clip_text, self_supervised, lpips, iqa, extra, said, precision)


def _check_names(conf: MetricsConf) -> None:
    """Raises ``UserError`` for names of encoders that open_clip and timm do not know, before the first is loaded."""
    import open_clip
    import timm

    for key, name in (("metrics.clip", conf.clip), ("metrics.clip_iqa", conf.clip_iqa), ("metrics.dino", conf.dino)):
        kind = key.removeprefix("metrics.")
        found = _library_name(name or "toybox", kind.partition("_")[0])
        if found.startswith("local-dir:"):
            if not _is_there(encoder_folder(found, kind)):
                raise UserError(f"{key}={shortened(name)}: no such folder; {_remedy(found)}")
            continue
        if found.startswith(("hf-hub:", "hf_hub:")):
            continue
        architecture, _, tag = found.partition("." if kind == "dino" else "/")
        known = timm.list_models() if kind == "dino" else open_clip.list_models()
        if architecture not in known:
            raise UserError(f"{key}={shortened(name)}: no such model{did_you_mean(architecture, known)}; {_remedy(found)}")
        tags = open_clip.list_pretrained_tags_by_model(architecture) if kind != "dino" else []
        if kind != "dino" and tag not in tags and not _is_there(Path(tag or "none")):
            raise UserError(
                f"{key}={shortened(name)}: no such weights; give {architecture}/ with one of {', '.join(tags)}{did_you_mean(tag, tags)}"
            )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name too long for any file
        return False


def _own_metrics(names: list[str]) -> tuple[dict[str, Callable[[Image.Image], float]], dict[str, Metric]]:
    """Custom metrics by column, and what they say of themselves.

    The column is the function's name, and must be no other's. Raises ``UserError``.
    """
    found: dict[str, Callable[[Image.Image], float]] = {}
    said: dict[str, Metric] = {}
    for name in names:
        column = name.rpartition(".")[2]
        if column in (*METRICS, *COLUMNS, "images") or column in found:
            raise UserError(f"metrics.extra={name}: {column} is the name of another column; give the function a name of its own")
        found[column] = _own_metric(name)
        try:
            metric = described(column, found[column])
        except TypeError as error:
            raise UserError(f"metrics.extra={name}: {error}; see docs/extending.md, or remove the attribute") from error
        said |= {} if metric is None else {column: metric}
    return found, said


def _own_metric(name: str) -> Callable[[Image.Image], float]:
    """A function of one image by its dotted name, tried on a grey picture; raises ``UserError``."""
    from PIL import Image

    module, _, function = name.rpartition(".")
    try:
        found: Callable[[Image.Image], float] = getattr(import_module(module), function)
    except Exception as error:  # the module is a user's own and may raise anything
        raise UserError(
            f"metrics.extra={name}: cannot be imported ({first_line(error)}); give module.function, its folder on PYTHONPATH"
        ) from error
    try:
        float(found(Image.new("RGB", (TRIED, TRIED), "grey")))
    except Exception as error:
        raise UserError(
            f"metrics.extra={name}: gives no number for a picture of {TRIED} × {TRIED} pixels ({first_line(error)}); "
            "give a function from a PIL image to a number"
        ) from error
    return found


def _remedy(name: str) -> str:
    if "toybox" in name:
        from bayesdiff.toybox.weights import RESTORE

        return RESTORE
    return "name a published model (of CLIP ARCHITECTURE/PRETRAINED; downloaded once) or local-dir:FOLDER"
