"""Encoders give unit vectors that do not depend on the batch, or one line says what is missing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from bayesdiff.config.compose import compose
from bayesdiff.config.schema import MetricsConf, SamplerPrecision
from bayesdiff.core.errors import UserError
from bayesdiff.diffusion.subject import load_subject
from bayesdiff.scoring.encoders import (
    AGREEMENT,
    QUALITY_WORDS,
    Encoders,
    _own_metrics,
    chosen_precision,
    clip_name,
    disagreement,
    load_clip,
    load_clip_iqa,
    load_dino,
    load_encoders,
    load_lpips,
    timm_name,
    trial_pictures,
)

CPU = torch.device("cpu")
LOADERS: dict[str, Callable[..., Any]] = {"clip": load_clip, "dino": load_dino}
TEXTS = ["a photo of backpack", "a backpack in the jungle", "a photo of a red cat"]


def pictures(count: int = 5, side: int = 64) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def names(random_encoders: dict[str, str]) -> tuple[str, str]:
    return random_encoders["metrics.clip"], random_encoders["metrics.dino"]


def encoders(random_encoders: dict[str, str], batch_size: int = 32) -> Encoders:
    clip, dino = names(random_encoders)
    return load_encoders(MetricsConf(clip, dino, batch_size=batch_size), CPU)


def features(loaded: Encoders) -> dict[str, torch.Tensor]:
    return {"clip": loaded.clip_image(pictures()), "text": loaded.clip_text(TEXTS), "dino": loaded.dino(pictures())}


def test_features_are_unit_vectors_on_the_cpu(random_encoders: dict[str, str]) -> None:
    for name, value in features(encoders(random_encoders)).items():
        assert (len(value), value.dtype, value.device) == (3 if name == "text" else 5, torch.float32, CPU)
        torch.testing.assert_close(value.norm(dim=-1), torch.ones(len(value)))


def test_clip_puts_images_and_texts_in_one_space(random_encoders: dict[str, str]) -> None:
    found = features(encoders(random_encoders))
    assert found["clip"].shape[1] == found["text"].shape[1]


def test_features_do_not_depend_on_the_batch_size(random_encoders: dict[str, str]) -> None:
    one, all_at_once = features(encoders(random_encoders, 1)), features(encoders(random_encoders, 32))
    for name, value in one.items():
        torch.testing.assert_close(value, all_at_once[name], rtol=0, atol=1e-5)


def test_features_tell_pictures_apart(random_encoders: dict[str, str]) -> None:
    for name, value in features(encoders(random_encoders)).items():
        assert len(torch.unique(value, dim=0)) == len(value), name


def test_texts_are_encoded_one_by_one(random_encoders: dict[str, str]) -> None:
    loaded = encoders(random_encoders)
    torch.testing.assert_close(loaded.clip_text(TEXTS)[1:2], loaded.clip_text(TEXTS[1:2]), rtol=0, atol=1e-5)


def test_any_size_is_brought_to_the_models_square(random_encoders: dict[str, str]) -> None:
    loaded = encoders(random_encoders)
    flat = [Image.new("RGB", size, (200, 30, 90)) for size in ((64, 64), (31, 57), (128, 96))]
    for encode in (loaded.clip_image, loaded.dino):
        found = encode(flat)
        torch.testing.assert_close(found, found[:1].expand_as(found), rtol=0, atol=1e-5)


def test_clip_features_are_those_of_the_library(random_encoders: dict[str, str]) -> None:
    name, _ = names(random_encoders)
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    with torch.no_grad():
        expected = model.encode_image(torch.stack([preprocess(i) for i in pictures()]), normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True)
    images, texts = load_clip(name, CPU)
    torch.testing.assert_close(images(pictures()), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(texts(TEXTS), text, rtol=0, atol=1e-5)


def test_dino_features_are_the_class_token_of_the_library(random_encoders: dict[str, str]) -> None:
    _, name = names(random_encoders)
    model = timm.create_model(name, pretrained=True, num_classes=0).eval()
    data = timm.data.resolve_model_data_config(model)
    pixels = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) / 255 for i in pictures()])
    normalised = (pixels - torch.tensor(data["mean"]).view(-1, 1, 1)) / torch.tensor(data["std"]).view(-1, 1, 1)
    with torch.no_grad():
        token = model.forward_features(normalised)[:, 0]
    torch.testing.assert_close(load_dino(name, CPU)(pictures()), torch.nn.functional.normalize(token, dim=-1), rtol=0, atol=1e-5)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"metrics\.clip=local-dir:{tmp_path}/none: cannot be loaded \(.+\); .*local-dir:FOLDER"):
        load_clip(f"local-dir:{tmp_path / 'none'}", CPU)
    with pytest.raises(UserError, match=rf"metrics\.dino=local-dir:{tmp_path}/none: cannot be loaded \(.+\); .*local-dir:FOLDER"):
        load_dino(f"local-dir:{tmp_path / 'none'}", CPU)


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_truncated_weights_are_said_in_one_line(random_encoders: dict[str, str], tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(random_encoders[f"metrics.{kind}"].removeprefix("local-dir:"), tmp_path / kind)
    (file,) = Path(folder).glob("*.safetensors")
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match=rf"metrics\.{kind}=local-dir:{folder}") as caught:
        LOADERS[kind](f"local-dir:{folder}", CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_weights_that_lack_a_tensor_or_are_not_finite_are_no_encoder(random_encoders: dict[str, str], tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(random_encoders[f"metrics.{kind}"].removeprefix("local-dir:"), tmp_path / kind))
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    save_file({**tensors, name: tensors[name] * torch.nan}, file)
    with pytest.raises(
        UserError, match=rf"metrics\.{kind}=local-dir:{folder}: has weights that are not finite \({re.escape(name)}\); name"
    ):
        LOADERS[kind](f"local-dir:{folder}", CPU)
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(UserError, match=rf"metrics\.{kind}=local-dir:{folder}: cannot be loaded"):
        LOADERS[kind](f"local-dir:{folder}", CPU)


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_a_folder_without_weights_is_no_encoder(random_encoders: dict[str, str], tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(random_encoders[f"metrics.{kind}"].removeprefix("local-dir:"), tmp_path / kind)
    (file,) = Path(folder).glob("*.safetensors")
    file.unlink()
    with pytest.raises(UserError, match=rf"metrics\.{kind}=local-dir:{folder}: cannot be loaded"):
        LOADERS[kind](f"local-dir:{folder}", CPU)


def test_an_architecture_alone_is_no_clip() -> None:
    with pytest.raises(UserError, match=r"metrics\.clip=ViT-S-32-alt: cannot be loaded .*ARCHITECTURE/PRETRAINED"):
        load_clip("ViT-S-32-alt", CPU)


@pytest.mark.parametrize("names_of_own", [["os.path.dino"], ["os.path.images"], ["builtins.id", "builtins.id"]])
def test_a_metric_of_ones_own_takes_no_other_column(random_encoders: dict[str, str], names_of_own: list[str]) -> None:
    clip, dino = names(random_encoders)
    column = names_of_own[-1].rpartition(".")[2]
    with pytest.raises(UserError, match=rf"metrics\.extra={names_of_own[-1]}: {column} is the name of another"):
        load_encoders(MetricsConf(clip, dino, extra=names_of_own), CPU)


@pytest.mark.parametrize(("kind", "name"), [("clip", "ViT-Q-99/openai"), ("dino", "vit_of_nobody")])
def test_an_unknown_model_is_named(kind: str, name: str) -> None:
    with pytest.raises(UserError, match=rf"metrics\.{kind}={name}: cannot be loaded"):
        LOADERS[kind](name, CPU)


@pytest.mark.parametrize(("kind", "attribute"), [("clip", "CLIP"), ("dino", "DINO")])
def test_missing_toybox_encoders_name_git_and_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, attribute: str) -> None:
    monkeypatch.setattr(f"bayesdiff.toybox.weights.{attribute}", tmp_path / "toybox")
    with pytest.raises(UserError, match=r"git checkout -- bayesdiff/toybox/weights.*make pretrain"):
        LOADERS[kind]("toybox", CPU)


@pytest.fixture
def untrained_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS with a random AlexNet, because its trained one comes from the network."""
    from torchmetrics.functional.image import lpips

    build = lpips._get_tv_model_features
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained=False: build(net, pretrained=False))


def test_lpips_is_a_table_of_distances(untrained_backbone: None) -> None:
    torch.manual_seed(0)
    images = [*pictures(3), pictures(1)[0]]
    table = load_lpips(CPU)(images)
    assert table.shape == (4, 4)
    assert torch.equal(table, table.T)
    assert (table.diagonal() == 0).all()
    assert float(table[0, 3]) == pytest.approx(0, abs=1e-6)
    assert (table[:3, :3][~torch.eye(3, dtype=torch.bool)] > 1e-4).all()


def test_missing_lpips_weights_name_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.image import lpip

    def fail(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(lpip, "LearnedPerceptualImagePatchSimilarity", fail)
    with pytest.raises(UserError, match=r"metrics\.lpips=true: cannot be loaded \(no network\).*set false"):
        load_lpips(CPU)


def test_clip_iqa_is_the_softmax_between_a_good_and_a_bad_photo(random_encoders: dict[str, str]) -> None:
    name, _ = names(random_encoders)
    image, text = load_clip(name, CPU)
    logits = 100.0 * image(pictures()) @ text(list(QUALITY_WORDS)).T
    found = load_clip_iqa(name, CPU)(pictures())
    torch.testing.assert_close(found, logits.softmax(-1)[:, 0])
    assert ((found >= 0) & (found <= 1)).all()


def test_a_missing_model_for_clip_iqa_is_named_by_its_own_key() -> None:
    with pytest.raises(UserError, match=r"metrics\.clip_iqa=ViT-Q-99/openai: cannot be loaded"):
        load_clip_iqa("ViT-Q-99/openai", CPU)


def test_extra_measures_are_loaded_where_they_are_asked_for(random_encoders: dict[str, str], untrained_backbone: None) -> None:
    clip, dino = names(random_encoders)
    plain, full = (load_encoders(MetricsConf(clip, dino, lpips=on, clip_iqa=clip if on else None), CPU) for on in (False, True))
    assert plain.lpips is plain.clip_iqa is None
    assert full.lpips is not None
    assert full.clip_iqa is not None


def is_quick(architecture: str) -> bool:
    return bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu", False))


@pytest.mark.parametrize(("architecture", "tag"), open_clip.list_pretrained())
def test_every_published_clip_is_built_with_the_activation_of_its_weights(architecture: str, tag: str) -> None:
    built, kept = clip_name(f"{architecture}/{tag}")
    assert kept == tag
    assert built in open_clip.list_models()
    assert is_quick(built) or not open_clip.pretrained.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    assert (built != architecture) <= (is_quick(built) and not is_quick(architecture))
    assert open_clip.pretrained.get_pretrained_cfg(built, tag), "no weights by that name"


@pytest.mark.parametrize("name", ["ViT-B-32/laion2b_s34b_b79k", "ViT-L-14-quickgelu/openai", "roberta-ViT-B-32/laion2b_s12b_b32k"])
def test_a_name_that_is_right_is_left_alone(name: str) -> None:
    assert "/".join(clip_name(name)) == name


def loaded_names(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be downloaded, on the way that loads it."""
    asked: list[tuple[Any, ...]] = []

    def remember(*names: Any, **_: Any) -> Any:
        asked.append(names)
        return torch.nn.Module()

    monkeypatch.setattr(open_clip, "create_model", remember)
    monkeypatch.setattr(timm, "create_model", remember)
    return asked


def test_the_openai_clip_is_loaded_with_quickgelu_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = loaded_names(monkeypatch)
    with pytest.raises(AttributeError, match="visual"):  # the module above is no CLIP
        load_clip("ViT-B-32/openai", CPU)
    assert asked == [("ViT-B-32-quickgelu", "openai")]
    said = capsys.readouterr().out
    assert said == "metrics.clip=ViT-B-32/openai: its weights were trained with QuickGELU, so that ViT-B-32-quickgelu/openai is used\n"


def test_a_timm_clip_is_loaded_with_quickgelu_and_that_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = loaded_names(monkeypatch)
    monkeypatch.setattr("timm.data.resolve_model_data_config", lambda _: {"input_size": (3, 8, 8), "mean": (0.5,), "std": (0.5,)})
    load_dino("vit_base_patch32_clip_224.openai", CPU)
    assert asked == [("vit_base_patch32_clip_quickgelu_224.openai",)]
    assert "so that vit_base_patch32_clip_quickgelu_224.openai is used" in capsys.readouterr().out


def test_every_timm_clip_keeps_the_activation_of_its_weights() -> None:
    for name in timm.list_pretrained():
        needed = any("QuickGELU" in note for note in timm.get_pretrained_cfg(name).notes or ())
        built = timm_name(name)
        assert (built == name) == (not needed or "quickgelu" in name), name
        assert not needed or built in timm.list_pretrained()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("json.dumps", "gives no number for a picture of 256 × 256 pixels"),
        ("math.pi", "gives no number"),
        ("json.nothing", "cannot be imported"),
        ("no_such_module.f", "cannot be imported"),
        ("nothing", "cannot be imported"),
        (".f", "cannot be imported"),
        ("broken_metrics.f", r"cannot be imported \(division by zero\)"),
        ("broken_metrics_2.f", r"cannot be imported \(.*invalid syntax"),
    ],
)
def test_a_metric_that_is_no_function_of_an_image_is_refused_before_models_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    (tmp_path / "broken_metrics.py").write_text("f = 1 / 0")
    (tmp_path / "broken_metrics_2.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"metrics\.extra={name}: {why}") as caught:
        load_encoders(MetricsConf("local-dir:none", "local-dir:none", extra=[name]), CPU)
    assert "\n" not in str(caught.value)


def test_a_custom_metric_that_describes_itself_wrongly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attribute ``metric`` is a ``Metric`` with the column's name; nothing else is taken for one."""
    (tmp_path / "described_metrics.py").write_text(
        "from bayesdiff.scoring.metrics import Metric\n"
        "def good(image): return 0.0\ndef renamed(image): return 0.0\ndef word(image): return 0.0\n"
        "good.metric = Metric('good', 'Good', 'share', False, 'mine')\nrenamed.metric = good.metric\nword.metric = 'higher'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    _, described = _own_metrics(["described_metrics.good"])
    assert described["good"].higher_is_better is False
    for name in ("renamed", "word"):
        with pytest.raises(UserError, match=rf"metrics\.extra=described_metrics\.{name}: its attribute metric is no Metric"):
            _own_metrics([f"described_metrics.{name}"])


@pytest.mark.parametrize("asked", [SamplerPrecision.auto, SamplerPrecision.fp32])
def test_on_a_cpu_images_are_encoded_in_float32(random_encoders: dict[str, str], asked: SamplerPrecision) -> None:
    clip, dino = names(random_encoders)
    loaded = load_encoders(MetricsConf(clip, dino, precision=asked), CPU)
    assert loaded.precision is SamplerPrecision.fp32
    assert torch.equal(loaded.dino(pictures()), load_dino(dino, CPU)(pictures()))
    assert torch.equal(loaded.clip_image(pictures()), load_clip(clip, CPU)[0](pictures()))


def test_a_half_that_is_asked_for_is_taken(random_encoders: dict[str, str]) -> None:
    clip, dino = names(random_encoders)
    loaded = load_encoders(MetricsConf(clip, dino, precision=SamplerPrecision.bf16), CPU)
    assert loaded.precision is SamplerPrecision.bf16
    assert not torch.equal(loaded.dino(pictures()), load_dino(dino, CPU)(pictures()))
    assert torch.equal(loaded.clip_text(TEXTS), load_clip(clip, CPU)[1](TEXTS))
    for value in features(loaded).values():
        torch.testing.assert_close(value.norm(dim=-1), torch.ones(len(value)))


def test_a_half_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"metrics.precision=fp16: needs a CUDA device"):
        chosen_precision(SamplerPrecision.fp16, CPU, [])


@pytest.mark.parametrize(("kind", "load"), LOADERS.items())
def test_the_shipped_encoders_score_the_same_in_fp16_and_not_in_bf16(kind: str, load: Callable[..., Any]) -> None:
    found = load("toybox", CPU)
    encode = found[0] if kind == "clip" else found
    assert disagreement(encode, SamplerPrecision.fp16) < AGREEMENT < disagreement(encode, SamplerPrecision.bf16)


def rough_by(error: float) -> Any:
    """An encoder whose second number is off by so much in half precision."""

    def encode(images: list[Image.Image], precision: SamplerPrecision = SamplerPrecision.fp32) -> torch.Tensor:
        features = torch.eye(len(images))
        features[0, 1] += error if precision is not SamplerPrecision.fp32 else 0.0
        return features

    return encode


@pytest.mark.parametrize(("error", "chosen"), [(0.0, "fp16"), (0.0009, "fp16"), (0.0011, "fp32"), (float("nan"), "fp32")])
def test_a_gpu_takes_fp16_where_every_encoder_agrees(error: float, chosen: str) -> None:
    found = chosen_precision(SamplerPrecision.auto, torch.device("cuda"), [rough_by(0.0), rough_by(error)])
    assert found.value == chosen


@pytest.mark.gpu
def test_scores_on_a_gpu_agree_with_float32() -> None:
    gpu, photos = torch.device("cuda"), [shown.image for shown in load_subject(compose(("+experiment=smoke",)).data, None, 0, 64).photos]
    loaded, exact = (
        load_encoders(MetricsConf("toybox", "toybox", precision=one), gpu) for one in SamplerPrecision if one.value in ("auto", "fp32")
    )
    assert loaded.precision is SamplerPrecision.fp16
    for name in ("dino", "clip_image"):
        rough, sharp = (getattr(one, name)([*photos, *trial_pictures()]) for one in (loaded, exact))
        assert float((rough @ rough.T - sharp @ sharp.T).abs().max()) < AGREEMENT
