"""What a score means, checked on random encoders: the arithmetic, not the taste."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import MetricsConf
from bayesdiff.diffusion.sampling import Sample
from bayesdiff.diffusion.subject import Photo, Subject
from bayesdiff.scoring.encoders import Encoders, load_encoders
from bayesdiff.scoring.metrics import COLUMNS, HIGHER_IS_BETTER, METRICS
from bayesdiff.scoring.pixels import BANDS, flat_line, high_frequency_energy
from bayesdiff.scoring.scores import References, embed_references, real_to_real, score_samples

PROMPTS = [Prompt(text, text.replace("qwe ", ""), text.replace("qwe ", "")) for text in ("a photo of qwe dog", "a qwe dog in the snow")]
ALWAYS = (
    "dino",
    "clip_i",
    "clip_t",
    "clip_t_with_token",
    "clip_t_without_token",
    "hf_energy",
    "hf_relative",
    "colour_distance",
    "band_fine",
    "band_middle",
    "failed",
    "diversity",
)
KEY = ["prompt", "image", "metric", "reference"]


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


SUBJECT = Subject("toy", "dog", "qwe", tuple(Photo(f"{i}.png", picture(100 + i), str(i)) for i in range(3)))
SAMPLES = [Sample(prompt, index, picture(10 * prompt + index), False) for prompt in range(2) for index in range(3)]


@pytest.fixture(scope="module")
def encoders(random_encoders: dict[str, str]) -> Encoders:
    return load_encoders(MetricsConf(random_encoders["metrics.clip"], random_encoders["metrics.dino"]), torch.device("cpu"))


@pytest.fixture(scope="module")
def references(encoders: Encoders) -> References:
    return embed_references(encoders, SUBJECT, PROMPTS)


def values(scores: pd.DataFrame, metric: str, reference: str = "") -> np.ndarray:
    return scores[(scores["metric"] == metric) & (scores["reference"] == reference)]["value"].to_numpy()


def test_the_metrics_are_all_there_for_every_image_and_reference(encoders: Encoders, references: References) -> None:
    scores = score_samples(SAMPLES, 40, encoders, references)
    assert tuple(scores.columns) == COLUMNS
    assert set(scores["step"]) == {40}
    counts = scores.groupby("metric").size().to_dict()
    assert counts == {"dino": 18, "clip_i": 18, **dict.fromkeys(ALWAYS[2:], 6)}
    assert set(METRICS) == set(HIGHER_IS_BETTER) | set(BANDS) == set(counts) | {"lpips", "clip_iqa"}
    assert not scores.duplicated(KEY).any()


def test_a_copy_of_a_training_image_has_cosine_one_with_it_alone(encoders: Encoders, references: References) -> None:
    scores = score_samples([Sample(0, 0, SUBJECT.photos[1].image, False)], 0, encoders, references)
    for metric in ("dino", "clip_i"):
        assert values(scores, metric, "1.png") == pytest.approx(1.0, abs=1e-5)
        assert values(scores, metric, "0.png") < 1 - 1e-4


def test_text_is_compared_with_the_prompt_of_the_image(encoders: Encoders, references: References) -> None:
    image = picture(5)
    scores = score_samples([Sample(0, 0, image, False), Sample(1, 0, image, False)], 0, encoders, references)
    truth = encoders.clip_image([image]) @ encoders.clip_text([prompt.clip_text for prompt in PROMPTS]).T
    assert values(scores, "clip_t") == pytest.approx(truth[0].numpy(), abs=1e-5)
    assert abs(truth[0, 0] - truth[0, 1]) > 1e-4


def test_both_token_policies_are_measured_and_the_asked_one_is_clip_t(encoders: Encoders, references: References) -> None:
    scores = score_samples(SAMPLES, 0, encoders, references)
    with_token, without = (values(scores, f"clip_t_{name}_token") for name in ("with", "without"))
    assert np.array_equal(values(scores, "clip_t"), without)
    assert np.abs(with_token - without).min() > 1e-5
    truth = encoders.clip_image([s.image for s in SAMPLES]) @ encoders.clip_text([p.text for p in PROMPTS]).T
    assert with_token == pytest.approx([float(truth[i, s.prompt]) for i, s in enumerate(SAMPLES)], abs=1e-5)


def test_diversity_is_the_distance_from_the_other_images_of_the_prompt(encoders: Encoders, references: References) -> None:
    same = [Sample(0, index, picture(7), False) for index in range(3)]
    scores = score_samples([*same, *SAMPLES[3:]], 0, encoders, references)
    found = values(scores, "diversity")
    assert found[:3] == pytest.approx(0.0, abs=1e-5)
    dino = encoders.dino([s.image for s in SAMPLES[3:]])
    assert found[3] == pytest.approx(1 - float((dino[0] @ dino[1] + dino[0] @ dino[2]) / 2), abs=1e-5)


def test_the_only_image_of_a_prompt_has_no_diversity(encoders: Encoders, references: References) -> None:
    assert len(values(score_samples([SAMPLES[0], SAMPLES[3]], 0, encoders, references), "diversity")) == 0


def test_pairwise_and_single_image_measures_take_part_where_they_are_loaded(encoders: Encoders, references: References) -> None:
    def distance(images: list[Image.Image]) -> torch.Tensor:
        means = torch.tensor([float(np.asarray(image).mean()) for image in images])
        return (means[:, None] - means).abs()

    def quality(images: list[Image.Image]) -> torch.Tensor:
        return torch.tensor([float(np.asarray(image)[0, 0, 0]) for image in images])

    scores = score_samples(SAMPLES, 0, replace(encoders, lpips=distance, clip_iqa=quality), references)
    assert values(scores, "clip_iqa").tolist() == [float(np.asarray(s.image)[0, 0, 0]) for s in SAMPLES]
    own = distance([s.image for s in SAMPLES[:3]])
    assert values(scores, "lpips")[:3] == pytest.approx((own.sum(1) / 2).tolist())


def test_the_order_of_images_is_irrelevant(encoders: Encoders, references: References) -> None:
    forward, backward = (score_samples(samples, 0, encoders, references).set_index(KEY)["value"] for samples in (SAMPLES, SAMPLES[::-1]))
    pd.testing.assert_series_equal(forward.sort_index(), backward.sort_index(), atol=1e-5)


def test_the_batch_size_is_irrelevant(encoders: Encoders, references: References, random_encoders: dict[str, str]) -> None:
    conf = MetricsConf(random_encoders["metrics.clip"], random_encoders["metrics.dino"], batch_size=4)
    small = score_samples(SAMPLES, 0, load_encoders(conf, torch.device("cpu")), references)
    whole = score_samples(SAMPLES, 0, encoders, references)
    assert small["value"].to_numpy() == pytest.approx(whole["value"].to_numpy(), abs=1e-5)


def test_a_failed_image_is_scored_as_black_and_counted(encoders: Encoders, references: References) -> None:
    black = Image.new("RGB", (64, 64))
    failed = score_samples([SAMPLES[0], Sample(0, 1, black, True)], 0, encoders, references)
    shown = score_samples([SAMPLES[0], Sample(0, 1, black, False)], 0, encoders, references)
    assert values(failed, "failed").tolist() == [0.0, 1.0]
    scored = failed["metric"] != "failed"
    assert len(failed) == len(shown)
    assert np.isfinite(failed["value"]).all()
    pd.testing.assert_frame_equal(failed[scored], shown[scored])


def test_references_keep_the_names_of_the_photos(references: References) -> None:
    assert references.names == ("0.png", "1.png", "2.png")
    for features in (references.dino, references.clip, *references.texts.values()):
        assert features.norm(dim=-1).numpy() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_flat_image_has_no_high_frequency_energy(level: int) -> None:
    assert high_frequency_energy(Image.new("RGB", (16, 16), (level, 0, 255 - level))) == pytest.approx(0, abs=1e-12)


def test_a_straight_ramp_has_no_high_frequency_energy() -> None:
    ramp = np.arange(32, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)
    assert high_frequency_energy(Image.fromarray(ramp)) == pytest.approx(0, abs=1e-12)


def test_the_energy_of_one_white_pixel_is_known() -> None:
    image = Image.new("RGB", (5, 5))
    image.putpixel((2, 2), (255, 255, 255))
    assert high_frequency_energy(image) == pytest.approx((8 + 4 * 2) / 9)


def test_the_energy_of_a_checkerboard_is_known() -> None:
    board = (np.indices((6, 6)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert high_frequency_energy(Image.fromarray(board)) == pytest.approx(8.0)


def test_energy_grows_with_noise() -> None:
    noise = np.random.default_rng(0).standard_normal((64, 64, 3))
    energies = [high_frequency_energy(Image.fromarray((128 + s * noise).clip(0, 255).astype(np.uint8))) for s in (1, 3, 6, 12, 24, 48)]
    assert all(b > 1.5 * a for a, b in pairwise(energies))


def test_energy_is_that_of_the_autoencoder_s_texture_term() -> None:
    from bayesdiff.pretraining.autoencoder import texture
    from bayesdiff.pretraining.dataset import to_pixels

    image = picture(3)
    assert high_frequency_energy(image) == pytest.approx(float(texture(to_pixels(np.array(image)[None]))), rel=1e-5)


def test_real_to_real_is_the_mean_over_different_pairs() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert real_to_real(features, features[:0]) == pytest.approx((1 + 0 + 0.6 + 0 + 0.6 + 0.8) / 6)


def test_photos_that_are_not_trained_on_count_for_the_ceiling() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert real_to_real(features[:1], features[1:]) == pytest.approx((1 + 0 + 0.6) / 3)
    assert real_to_real(features[:2], features[2:]) == pytest.approx((1 + 0 + 0.6) / 3)


def test_one_photo_alone_has_no_real_to_real() -> None:
    assert real_to_real(torch.ones(1, 3), torch.ones(0, 3)) is None


def test_a_custom_metric_that_is_infinite_gives_no_number(encoders: Encoders, references: References) -> None:
    """A table of scores holds none: there it is damage."""
    own = replace(encoders, extra={"own": lambda image: float("inf")})
    assert np.isnan(values(score_samples(SAMPLES, 0, own, references), "own")).all()


def test_samples_of_a_photograph_of_one_colour_have_no_relative_grain(encoders: Encoders) -> None:
    """A photograph with the least grain that counts keeps it; nobody's grain is hundreds of millions of photographs' own."""
    flat, grey = Image.new("RGB", (64, 64), (90, 90, 90)), np.full((64, 64, 3), 90, dtype=np.uint8)
    grey[::4, ::4] += 1
    for photo, there in ((flat, False), (Image.fromarray(grey), True)):
        subject = replace(SUBJECT, photos=(Photo("a.png", photo, "0"),))
        scores = score_samples(SAMPLES, 0, encoders, embed_references(encoders, subject, PROMPTS))
        relative = values(scores, "hf_relative")
        assert bool(len(relative)) is there
        assert bool(flat_line([photo])) is not there
        assert len(values(scores, "hf_energy")) == len(SAMPLES)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 30)])
def test_a_picture_without_an_inside_has_no_energy(size: tuple[int, int]) -> None:
    """The mean of nothing is no number, and numpy warns."""
    assert high_frequency_energy(Image.new("RGB", size, (9, 80, 200))) == 0
