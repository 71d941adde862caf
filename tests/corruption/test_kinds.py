"""What changed in checkpoints to avoid: each kind by its own sign, and none by noise alone."""

from __future__ import annotations

import numpy as np
import pytest

from bayesdiff.corruption.kinds import KINDS, KindOfBad, kind_of

COUNT, START, STOP = 12, 5, 8
BESIDE = np.array([i > 0 and not START <= i < STOP for i in range(COUNT)])


def column(level: float, change: float, seed: int, sd: float = 0.03) -> np.ndarray:
    """(12, 8) around a level, with a change inside the run."""
    inside = np.array([START <= i < STOP for i in range(COUNT)])
    return level + change * inside[:, None] + sd * np.random.default_rng(seed).standard_normal((COUNT, 8))


def judged(changes: dict[str, tuple[float, float]], **options: float) -> KindOfBad:
    columns = {name: column(*values, seed=i) for i, (name, values) in enumerate(changes.items())}
    return kind_of(columns, START, STOP, BESIDE, **options)  # type: ignore[arg-type]


FALLEN = {"dino": (0.8, -0.3)}
SIGNS: dict[str, tuple[dict[str, tuple[float, float]], dict[str, float]]] = {
    "noise_pattern": ({**FALLEN, "hf_energy": (0.3, 0.12), "clip_i": (0.8, -0.2)}, {"photo_hf": 0.31}),
    "colour_cast": ({**FALLEN, "hf_relative": (1.0, 0.0), "colour_distance": (0.05, 0.2), "clip_i": (0.8, -0.2)}, {}),
    "blur": ({**FALLEN, "hf_relative": (1.0, -0.4)}, {}),
    "content_lost": ({**FALLEN, "hf_relative": (1.0, 0.0), "clip_i": (0.8, -0.2)}, {}),
    "copying": ({"dino": (0.8, 0.1), "diversity": (0.3, -0.2)}, {"ceiling": 0.85}),
    "broken": ({**FALLEN, "failed": (0.0, 0.5), "hf_relative": (1.0, 0.5)}, {}),
    "other": ({**FALLEN, "hf_relative": (1.0, 0.0), "clip_i": (0.8, 0.0)}, {}),
}


BANDED: list[tuple[str, dict[str, tuple[float, float]]]] = [
    ("noise_pattern", {"hf_relative": (1.0, 0.4), "band_fine": (0.1, 0.05), "band_middle": (0.2, 0.0)}),
    ("noise_pattern", {"hf_relative": (1.0, 0.4), "band_fine": (0.1, 0.0), "band_middle": (0.2, 0.1)}),
    ("other", {"hf_relative": (1.0, 0.4), "band_fine": (0.1, 0.0), "band_middle": (0.2, 0.0)}),
    ("blur", {"hf_relative": (1.0, -0.4), "band_fine": (0.1, -0.05), "band_middle": (0.2, -0.01)}),
    ("content_lost", {"hf_relative": (1.0, -0.4), "band_fine": (0.1, -0.04), "band_middle": (0.2, -0.1)}),
]


@pytest.mark.parametrize(("kind", "changes"), BANDED)
def test_spatial_frequencies_tell_noise_blur_and_lost_shapes_apart(kind: str, changes: dict[str, tuple[float, float]]) -> None:
    columns = {name: column(*values, seed=i, sd=0.003) for i, (name, values) in enumerate({**FALLEN, **changes}.items())}
    found = kind_of(columns, START, STOP, BESIDE)
    assert found.kind == kind
    if kind == "noise_pattern":
        fine = changes["band_fine"][1] > 0
        assert f"mostly at periods of {'2 to 4' if fine else '4 to 16'} pixels" in found.reason


def test_real_pictures_give_the_kind_that_was_done_to_them() -> None:
    from PIL import Image, ImageFilter

    from bayesdiff.scoring.pixels import band_contrasts, high_frequency_energy

    rng = np.random.default_rng(0)
    coarse = [
        Image.fromarray(rng.integers(60, 200, (10, 10, 3), dtype=np.uint8)).resize((80, 80), Image.Resampling.BICUBIC) for _ in range(8)
    ]
    clean = [Image.fromarray(np.clip(np.asarray(one, float) + rng.normal(0, 8, (80, 80, 3)), 0, 255).astype(np.uint8)) for one in coarse]
    grainy = [Image.fromarray(np.clip(np.asarray(one, float) + rng.normal(0, 25, (80, 80, 3)), 0, 255).astype(np.uint8)) for one in clean]
    done = {
        "noise_pattern": grainy,
        "blur": [one.filter(ImageFilter.GaussianBlur(1)) for one in clean],
        "content_lost": [Image.blend(one, Image.new("RGB", one.size, "gray"), 0.6) for one in clean],
    }
    for kind, worse in done.items():
        rows = [worse if START <= i < STOP else clean for i in range(COUNT)]
        columns = {"dino": column(0.8, -0.3, 0), "hf_energy": np.array([[high_frequency_energy(one) for one in row] for row in rows])}
        columns |= {name: np.array([[band_contrasts(one)[name] for one in row] for row in rows]) for name in ("band_fine", "band_middle")}
        assert kind_of(columns, START, STOP, BESIDE).kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_sign(kind: str) -> None:
    changes, options = SIGNS[kind]
    found = judged(changes, **options)
    assert found.kind == kind
    assert (found.reason == "") == (kind == "other")


def test_old_records_without_a_photograph_are_judged_against_their_shoulders() -> None:
    found = judged({**FALLEN, "hf_energy": (0.3, 0.09)})
    assert found.kind == "noise_pattern"
    assert "of that beside it" in found.reason
    assert found.evidence["hf"] == pytest.approx((1.3, 1.0), abs=0.05)


def test_grain_that_the_photograph_has_itself_is_no_noise_pattern() -> None:
    assert judged({**FALLEN, "hf_energy": (0.2, 0.09)}, photo_hf=0.5).kind != "noise_pattern"


def test_images_that_do_not_agree_decide_nothing() -> None:
    rng = np.random.default_rng(0)
    columns = {"dino": column(0.8, -0.3, 0), "hf_relative": 1 + rng.standard_normal(8) * (~BESIDE)[:, None]}
    assert kind_of(columns, START, STOP, BESIDE).kind == "other"


def test_without_columns_it_is_other() -> None:
    assert judged(FALLEN) == KindOfBad("other", "", judged(FALLEN).evidence)


def test_noise_names_no_kind() -> None:
    names = ("hf_relative", "colour_distance", "clip_i", "diversity", "clip_t")
    found = [kind_of({n: column(0.5, 0.0, 10 * s + i) for i, n in enumerate(names)}, START, STOP, BESIDE).kind for s in range(40)]
    assert found.count("other") == 40
