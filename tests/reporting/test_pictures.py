"""Samples are kept exactly where they fit a page, and said to be compressed where they do not."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayesdiff.reporting.pictures import EXACT, STEPS_DOWN, data_uri, plan, samples_of
from bayesdiff.reporting.traces import Trace


def arm_of(folder: Path, side: int, steps: int = 4, prompts: int = 3, images: int = 2) -> Trace:
    files = {}
    for step in range(steps):
        files[step] = {(p, i): folder / f"{step}-{p}-{i}.png" for p in range(prompts) for i in range(images)}
        for k, path in enumerate(files[step].values()):
            pixels = np.random.default_rng([step, k]).integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return Trace("x", "dino", tuple(range(steps)), files=files)


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_small_samples_are_exact_and_the_first_of_every_prompt_come_first(tmp_path: Path) -> None:
    arm = arm_of(tmp_path, 16)
    chosen = plan([arm])
    assert (chosen.encoding, chosen.total) == (EXACT, 6)
    assert chosen.places == ((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1))
    for at, uri in zip(chosen.places, samples_of(arm, chosen)[2], strict=True):
        assert uri is not None
        assert np.array_equal(pixels(uri), np.asarray(Image.open(arm.files[2][at])))


@pytest.mark.parametrize("share", [0.8, 0.4, 0.1, 0.02])
def test_a_smaller_budget_is_kept(tmp_path: Path, share: float) -> None:
    arm = arm_of(tmp_path, 64)
    exact = sum(len(data_uri(Image.open(path))) for there in arm.files.values() for path in there.values())
    chosen = plan([arm], int(exact * share))
    taken = sum(len(uri or "") for there in samples_of(arm, chosen).values() for uri in there)
    assert taken <= exact * share * 1.15 or chosen.encoding == STEPS_DOWN[-1][1]
    assert (chosen.encoding.quality is None) == (chosen.encoding.words == "Pixels are as they were sampled.")


def test_a_sample_that_is_missing_or_broken_is_none(tmp_path: Path) -> None:
    arm = arm_of(tmp_path, 16)
    chosen = plan([arm])
    (tmp_path / "1-0-0.png").write_bytes(b"no picture")
    (tmp_path / "1-1-0.png").unlink()
    found = samples_of(arm, chosen)[1]
    assert found[:2] == [None, None]
    assert None not in found[2:]


def test_nothing_is_planned_without_samples() -> None:
    assert plan([Trace("x", "dino")]).places == ()
