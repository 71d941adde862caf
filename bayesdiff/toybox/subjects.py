"""Held-out subjects of the toybox: sixteen named things, six photographs each.

A subject is an instance that pretraining never sees (its seed is outside the pretraining world)
in six everyday contexts, as a person would photograph it.
"""

from __future__ import annotations

import zlib

import numpy as np

from bayesdiff.toybox.objects import Instance, sample_instance
from bayesdiff.toybox.pictures import Picture, render
from bayesdiff.toybox.vocabulary import CLASSES, CONTEXTS, PATTERNS

IMAGES_PER_SUBJECT = 6
_SEED = 20_240_531
SUBJECTS: dict[str, str] = {f"toy_{noun}": noun for noun in CLASSES}
"""Subject id to class noun."""


def subject_instance(name: str) -> Instance:
    """The instance behind a subject; patterned, so that a person can tell it from its class."""
    noun = SUBJECTS[name]
    rng = np.random.default_rng((_SEED, zlib.crc32(name.encode())))
    while (instance := sample_instance(rng, noun)).pattern == PATTERNS[0]:
        pass
    return instance


def render_subject(name: str, count: int = IMAGES_PER_SUBJECT) -> list[np.ndarray]:
    """The subject's photographs, (64, 64, 3) uint8 each, in different contexts; raises KeyError."""
    instance = subject_instance(name)
    order = np.random.default_rng((_SEED, zlib.crc32(name.encode()), 1)).permutation(len(CONTEXTS))
    pictures = [Picture(instance, CONTEXTS[order[i % len(CONTEXTS)]]) for i in range(count)]
    return [render(np.random.default_rng((_SEED, zlib.crc32(name.encode()), 2, i)), p) for i, p in enumerate(pictures)]
