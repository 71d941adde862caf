"""Pictures inside a page: WebP as data URIs, as exact as a budget of bytes allows.

Grain is what a page is looked at for, so pixels are kept exactly where they fit. Else fewer samples of a checkpoint are shown,
then they are compressed, and the page says which; compression smooths grain.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from bayesdiff.reporting.traces import Place, Trace

BUDGET = 10_500_000
"""Bytes of a page that its samples may take, as base64."""
TRIED = 12
"""Samples that are encoded to learn their size."""
BASE64 = 4 / 3


@dataclass(frozen=True)
class Encoding:
    """How pictures are written: without loss where ``quality`` is None, and shrunk to ``side`` where they are larger."""

    quality: int | None
    side: int | None = None

    @property
    def words(self) -> str:
        """What a page says of it."""
        if self.quality is None:
            return "Pixels are as they were sampled."
        shrunk = f", shrunk to {self.side} pixels" if self.side else ""
        return f"To keep this file small, samples are compressed (WebP, quality {self.quality}{shrunk}): their grain is smoothed a little."


EXACT = Encoding(None)
STEPS_DOWN = ((8, EXACT), (4, EXACT), (2, EXACT), (4, Encoding(92)), (2, Encoding(92)), (2, Encoding(85)), (1, Encoding(85)),
              (1, Encoding(75)), (1, Encoding(75, 384)), (1, Encoding(70, 256)), (1, Encoding(60, 128)))  # fmt: skip
"""Samples a checkpoint and their encoding, the best first; the last is taken where none fits.

Of a checkpoint's samples the first of every prompt come first.
"""


@dataclass(frozen=True)
class Plan:
    """Which samples of every checkpoint are shown, and how they are written."""

    places: tuple[Place, ...]
    encoding: Encoding
    total: int
    """Samples that a checkpoint has."""


def data_uri(image: Image.Image, encoding: Encoding = EXACT) -> str:
    """A picture as a data URI."""
    return f"data:image/webp;base64,{b64encode(_encoded(image, encoding)).decode()}"


def _encoded(image: Image.Image, encoding: Encoding) -> bytes:
    image = image.convert("RGB")
    if encoding.side is not None and max(image.size) > encoding.side:
        scale = encoding.side / max(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if encoding.quality is None:
        image.save(buffer, "WEBP", lossless=True, quality=60, method=3)
    else:
        image.save(buffer, "WEBP", quality=encoding.quality, method=3)
    return buffer.getvalue()


def plan(arms: Sequence[Trace], budget: int = BUDGET) -> Plan:
    """Choose samples and their encoding, so that all of them fit; no places where there is no sample."""
    files = [(at, path) for arm in arms for there in arm.files.values() for at, path in there.items()]
    order = sorted({at for at, _ in files}, key=lambda at: (at[1], at[0]))
    checkpoints = sum(len(arm.files) for arm in arms)
    if not files:
        return Plan((), EXACT, 0)
    some = [_open(path) for _, path in files[:: max(1, len(files) // TRIED)][:TRIED]]

    @cache
    def size(encoding: Encoding) -> float:
        return sum(len(_encoded(one, encoding)) for one in some) / len(some) * BASE64

    for count, encoding in STEPS_DOWN:
        chosen = min(count, len(order))
        if size(encoding) * chosen * checkpoints <= budget:
            return Plan(tuple(order[:chosen]), encoding, len(order))
    return Plan(tuple(order[:1]), STEPS_DOWN[-1][1], len(order))


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def samples_of(arm: Trace, chosen: Plan) -> dict[int, list[str | None]]:
    """Step -> data URIs of the chosen samples, None for one that is missing or cannot be read."""
    return {step: [_sample(there.get(at), chosen.encoding) for at in chosen.places] for step, there in arm.files.items()}


def _sample(path: Path | None, encoding: Encoding) -> str | None:
    if path is None:
        return None
    try:
        return data_uri(_open(path), encoding)
    except OSError:
        return None
