"""Names say which way a metric is better, or nothing; several candidates are asked about."""

from __future__ import annotations

import pytest

from bayesdiff.core.errors import UserError
from bayesdiff.readings.directions import choose, higher_is_better, is_similarity
from bayesdiff.scoring.metrics import HIGHER_IS_BETTER


@pytest.mark.parametrize(
    "name",
    ["dino", "eval/DINO", "valid dino_similarity", "clip_i", "CLIP-T", "clip score", "ssim", "PSNR", "accuracy", "score"],
)
def test_higher(name: str) -> None:
    assert higher_is_better(name) is True


@pytest.mark.parametrize(
    "name",
    ["loss", "train/loss", "val_loss", "clip_loss", "FID", "fid_score", "lpips", "kid", "mse", "dino_distance", "l1 error"],
)
def test_lower(name: str) -> None:
    assert higher_is_better(name) is False


@pytest.mark.parametrize("name", ["value", "metric", "q17", "img", "clip_lpips", "fidelity_fid", "Ähnlichkeit", "afid", "glossy"])
def test_no_word_or_two_that_contradict_say_nothing(name: str) -> None:
    assert higher_is_better(name) is None


@pytest.mark.parametrize("name", ["dino", "eval/DINO", "clip_i", "CLIP-T", "clip score", "dino_fidelity", "my cosine", "siglip"])
def test_similarities(name: str) -> None:
    assert is_similarity(name) is True


@pytest.mark.parametrize(
    "name", ["psnr", "ImageReward", "aesthetic", "clip_aesthetic", "hpsv2", "clip_iqa", "loss", "clip_loss", "dino fid"]
)
def test_no_similarities(name: str) -> None:
    assert is_similarity(name) is False


@pytest.mark.parametrize("name", ["score", "fidelity", "q17"])
def test_names_that_say_nothing_of_a_similarity(name: str) -> None:
    assert is_similarity(name) is None


def test_this_package_s_similarities_are_known() -> None:
    for name in ("dino", "clip_i", "clip_t", "diversity"):
        assert higher_is_better(name) is HIGHER_IS_BETTER[name]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["loss", "dino"], "dino"),
        (["train/loss", "lr", "epoch", "eval/dinov2", "clip_score"], "eval/dinov2"),
        (["loss", "similarity", "grad_norm"], "similarity"),
        (["loss", "learning_rate", "_runtime", "_timestamp"], "loss"),
        (["clip_i", "clip_t", "hf_energy"], "clip_i"),
        (["dino", "dino_se"], "dino"),
        (["Wall time", "Value"], "Value"),
    ],
)
def test_the_one_that_can_be_it(names: list[str], chosen: str) -> None:
    assert choose(names, "x") == chosen


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["clip_score", "fid", "lpips"], r"one of clip_score \(higher is better\), fid \(lower is better\), lpips \(lower is better\)"),
        (["train/dino", "eval/dino"], r"one of train/dino \(higher is better\), eval/dino \(higher is better\)"),
        (["train_loss", "val_loss"], r"one of train_loss \(lower is better\), val_loss"),
        (["front", "back", "loss"], "one of front, back$"),
        (["lr"], "none of lr is one by its name"),
        (["lr", "epoch"], "none of lr, epoch is one by its name"),
        ([], "no column of numbers"),
    ],
)
def test_several_are_asked_about(names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        choose(names, "x")
    assert "give --metric NAME" in str(caught.value)


def test_a_distance_of_dino_is_not_taken_for_the_similarity() -> None:
    with pytest.raises(UserError, match="which of these"):
        choose(["dino_distance", "clip_score"], "x")
