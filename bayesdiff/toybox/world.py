"""The procedural world: captioned pictures and films, each a function of a seed and a number.

``python -m bayesdiff.toybox.world sheet.png`` writes a contact sheet of samples, contexts, outfits
and the held-out subjects.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bayesdiff.core.output import say
from bayesdiff.toybox.objects import sample_instance
from bayesdiff.toybox.pictures import Picture, render, sample_any_camera
from bayesdiff.toybox.subjects import SUBJECTS, render_subject
from bayesdiff.toybox.surfaces import Rng
from bayesdiff.toybox.vocabulary import CLASSES, COLOURS, CONTEXTS, FINISHES, LIVE_CLASSES, OPENINGS, OUTFITS


def caption(rng: Rng, picture: Picture) -> str:
    """One of the ways to say what a picture shows, in the words of the evaluation prompts."""
    words = [OPENINGS[rng.integers(len(OPENINGS))]]
    if picture.finish is not None:
        words.append(picture.finish)
    if picture.colour is not None or rng.random() < 0.6:
        words.append(picture.colour or picture.instance.colour)
    if picture.instance.pattern != "plain" and rng.random() < 0.3:
        words.append(picture.instance.pattern)
    words.append(picture.instance.class_noun)
    words += [part for part in (picture.outfit, picture.context) if part is not None]
    return " ".join(words)


def full_caption(picture: Picture) -> str:
    """A caption that always names both colours, the pattern, and what else there is to name; at most 26 words."""
    thing = picture.instance
    words = ["a photo of a", picture.finish, f"{picture.colour or thing.colour} and {thing.second}", thing.pattern, thing.class_noun]
    return " ".join(word for word in (*words, picture.outfit, picture.context) if word is not None)


def describe(seed: int, index: int) -> str:
    """The full caption of image ``index`` (see ``sample``), without rendering it."""
    return full_caption(sample_picture(np.random.default_rng((seed, index))))


def sample_picture(rng: Rng) -> Picture:
    """Draw a picture of the pretraining distribution."""
    instance = sample_instance(rng)
    outfit = OUTFITS[rng.integers(len(OUTFITS))] if instance.class_noun in LIVE_CLASSES and rng.random() < 0.6 else None
    finish = FINISHES[rng.integers(len(FINISHES))] if outfit is None and rng.random() < 0.15 else None
    plain = rng.random() < (0.45 if outfit or finish else 0.15)
    return Picture(instance, None if plain else CONTEXTS[rng.integers(len(CONTEXTS))], outfit, finish)


def sample(seed: int, index: int) -> tuple[np.ndarray, str]:
    """Image ``index`` of the world with this seed: (64, 64, 3) uint8 and its caption."""
    rng = np.random.default_rng((seed, index))
    picture = sample_picture(rng)
    return render(rng, picture), caption(rng, picture)


def film(seed: int, index: int) -> np.ndarray:
    """Two frames of film ``index``: the same thing and the same camera, later and elsewhere; (2, 64, 64, 3) uint8."""
    rng = np.random.default_rng((seed, 1, index))
    first = replace(sample_picture(rng), camera=sample_any_camera(rng))
    moved = rng.random() < 0.75
    second = replace(first, context=CONTEXTS[rng.integers(len(CONTEXTS))] if moved else first.context)
    return np.stack([render(rng, first), render(rng, second)])


def contact_sheet(rows: list[list[np.ndarray]], zoom: int = 2) -> Image.Image:
    """Rows of images (H, W, 3) uint8 on one sheet; shorter rows are padded with white."""
    side, width = rows[0][0].shape[0], max(len(row) for row in rows)
    sheet = np.full((side * len(rows), side * width, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet[y * side : (y + 1) * side, x * side : (x + 1) * side] = image
    return Image.fromarray(sheet).resize((sheet.shape[1] * zoom, sheet.shape[0] * zoom), Image.Resampling.NEAREST)


def _gallery() -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    everything = [[sample(0, row * 12 + i)[0] for i in range(12)] for row in range(4)]
    classes = [
        [render(rng, Picture(sample_instance(rng, c))) for _ in range(6) for c in pair]
        for pair in zip(CLASSES[::2], CLASSES[1::2], strict=True)
    ]
    contexts = [render(rng, Picture(sample_instance(rng), context)) for context in CONTEXTS]
    dressed = [render(rng, Picture(sample_instance(rng, LIVE_CLASSES[i % 4]), outfit=o)) for i, o in enumerate(OUTFITS)]
    finished = [render(rng, Picture(sample_instance(rng), finish=f)) for f in FINISHES * 4]
    coloured = [render(rng, Picture(sample_instance(rng), colour=c)) for c in COLOURS]
    subjects = [render_subject(name) for name in SUBJECTS]
    paired = [subjects[i] + (subjects[i + 1] if i + 1 < len(subjects) else []) for i in range(0, len(subjects), 2)]
    return [*everything, *classes, contexts[:10], contexts[10:], dressed, finished, coloured, *paired]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "world.png")
    contact_sheet(_gallery()).save(target)
    say(f"wrote {target}")
