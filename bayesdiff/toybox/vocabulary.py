"""The words of the procedural world: what can be in a picture and how a caption says it.

Contexts, outfits and adjectives are those of the DreamBooth prompt lists (25 object and 25 live
prompts), so that every evaluation prompt of the paper has a meaning in this world.
"""

from __future__ import annotations

from bayesdiff.config.prompts import LIVE_ENDINGS, OBJECT_ENDINGS, SHARED_ENDINGS

OBJECT_CLASSES: tuple[str, ...] = (
    "backpack", "ball", "boot", "can", "candle", "car", "clock", "lamp", "mug", "robot", "teapot", "vase",
)  # fmt: skip
LIVE_CLASSES: tuple[str, ...] = ("bear", "cat", "dog", "duck")
CLASSES: tuple[str, ...] = OBJECT_CLASSES + LIVE_CLASSES

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "blue": (50, 85, 200),
    "green": (55, 150, 65),
    "yellow": (232, 198, 55),
    "purple": (130, 62, 172),
    "orange": (232, 132, 45),
    "white": (236, 236, 232),
    "black": (42, 42, 48),
    "pink": (238, 142, 182),
    "brown": (128, 86, 54),
    "teal": (42, 150, 150),
    "grey": (132, 132, 138),
}
PATTERNS: tuple[str, ...] = ("plain", "striped", "banded", "dotted", "checkered", "patched")

SHARED_CONTEXTS: tuple[str, ...] = SHARED_ENDINGS
OBJECT_CONTEXTS: tuple[str, ...] = tuple(ending.lower() for ending in OBJECT_ENDINGS)
CONTEXTS: tuple[str, ...] = SHARED_CONTEXTS + OBJECT_CONTEXTS

OUTFITS: tuple[str, ...] = LIVE_ENDINGS
FINISHES: tuple[str, ...] = ("shiny", "wet", "cube shaped")

OPENINGS: tuple[str, ...] = ("a", "a photo of a", "the", "a picture of a")
RARE_TOKENS: tuple[str, ...] = ("qwe", "sks")
"""Words no caption of the pretraining uses: identifiers for personalisation."""
EXTRA_WORDS: tuple[str, ...] = ("an", "of", "photo", "picture", "person", "and", "good", "bad")

PAD, UNKNOWN, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
MAX_TOKENS = 28
"""The longest caption has 24 words; begin, end, and an identifier come on top."""


def vocabulary() -> dict[str, int]:
    """Word to id. ``<eos>`` has the largest id, because CLIP text towers pool at argmax(ids)."""
    phrases = CLASSES + tuple(COLOURS) + PATTERNS + CONTEXTS + OUTFITS + FINISHES + OPENINGS
    words = {word for phrase in phrases + EXTRA_WORDS for word in phrase.split()}
    ordered = [PAD, UNKNOWN, BOS, *RARE_TOKENS, *sorted(words - set(RARE_TOKENS)), EOS]
    return {word: index for index, word in enumerate(ordered)}
