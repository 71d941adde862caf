"""Backgrounds: one painter a context, deterministic and recognisable."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.toybox.scenes import SCENES, Stage, jitter
from bayesdiff.toybox.surfaces import SIZE
from bayesdiff.toybox.vocabulary import CONTEXTS


def coarse(context: str | None, seed: int) -> np.ndarray:
    """A background at 8×8 pixels."""
    return np.asarray(SCENES[context](np.random.default_rng(seed)).resize((8, 8))).astype(float)


def test_every_context_has_a_painter() -> None:
    assert set(SCENES) == {None, *CONTEXTS}
    assert len(set(SCENES.values())) == len(CONTEXTS) + 1


@pytest.mark.parametrize("context", SCENES)
def test_a_scene_fills_the_canvas_and_is_a_function_of_its_seed(context: str | None) -> None:
    first, again, other = (SCENES[context](np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first.size, first.mode) == ((SIZE, SIZE), "RGB")
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_contexts_can_be_told_apart() -> None:
    means = {context: np.mean([coarse(context, seed) for seed in range(4)], axis=0) for context in SCENES}
    tries = [(context, coarse(context, seed)) for context in SCENES for seed in (10, 11)]
    right = [min(means, key=lambda c, image=image: np.abs(means[c] - image).mean()) == context for context, image in tries]
    assert np.mean(right) >= 0.85


def test_the_horizon_parts_far_from_near() -> None:
    stage = Stage(np.random.default_rng(0), ((200, 0, 0), (200, 0, 0)), ((0, 0, 200), (0, 0, 200)), horizon=50)
    pixels = np.asarray(stage.image)
    assert (pixels[:50, :, 0] > pixels[:50, :, 2]).all()
    assert (pixels[50:, :, 0] < pixels[50:, :, 2]).all()


def test_jitter_stays_near_and_in_range() -> None:
    rng = np.random.default_rng(0)
    colours = np.array([jitter(rng, (2, 128, 254), 12) for _ in range(200)])
    assert np.abs(colours - (2, 128, 254)).max() == 12
    assert (colours.min(), colours.max()) == (0, 255)
