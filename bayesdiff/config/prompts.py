"""Evaluation prompts: the DreamBooth lists, faces and own templates, filled for one subject.

The object and live lists are facts of the DreamBooth dataset (github.com/google/dreambooth, file
``prompts_and_classes.txt``), used by the paper for its 25 × 4 images a subject. The paper's 25 face
prompts are not public; ours have its form, "a photo of a [V] person" with an attribute, an expression
or headwear.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import Formatter

from bayesdiff.core.errors import UserError, shortened

SHARED_ENDINGS = (
    "in the jungle", "in the snow", "on the beach", "on a cobblestone street", "on top of pink fabric", "on top of a wooden floor",
    "with a city in the background", "with a mountain in the background", "with a blue house in the background",
    "on top of a purple rug in a forest",
)  # fmt: skip
OBJECT_ENDINGS = (
    "with a wheat field in the background", "with a tree and autumn leaves in the background", "with the Eiffel Tower in the background",
    "floating on top of water", "floating in an ocean of milk", "on top of green grass with sunflowers around it",
    "on top of a mirror", "on top of the sidewalk in a crowded street", "on top of a dirt road", "on top of a white rug",
)  # fmt: skip
LIVE_ENDINGS = (
    "wearing a red hat", "wearing a santa hat", "wearing a rainbow scarf", "wearing a black top hat and a monocle", "in a chef outfit",
    "in a firefighter outfit", "in a police outfit", "wearing pink glasses", "wearing a yellow shirt", "in a purple wizard outfit",
)  # fmt: skip
FACE_ENDINGS = (
    "smiling", "laughing", "looking surprised", "looking sad", "looking angry", "with closed eyes", "with an open mouth",
    "with a beard", "with a moustache", "with long hair", "with short hair", "with curly hair", "with blond hair", "with grey hair",
    "with face paint", "with freckles", "wearing glasses", "wearing sunglasses", "wearing a hat", "wearing a baseball cap",
    "wearing a crown", "wearing a helmet", "wearing headphones", "wearing a scarf", "wearing a hood",
)  # fmt: skip
_ADJECTIVES = ("red", "purple", "shiny", "wet", "cube shaped")


def _templates(endings: tuple[str, ...]) -> tuple[str, ...]:
    scenes = tuple(f"a {{identifier}} {{class_noun}} {ending}" for ending in endings)
    return scenes + tuple(f"a {adjective} {{identifier}} {{class_noun}}" for adjective in _ADJECTIVES)


PROMPT_SETS: dict[str, tuple[str, ...]] = {
    "object": _templates(SHARED_ENDINGS + OBJECT_ENDINGS),
    "live": _templates(SHARED_ENDINGS + LIVE_ENDINGS),
    "face": tuple(f"a photo of a {{identifier}} {{class_noun}} {ending}" for ending in FACE_ENDINGS),
}
LIVE_NOUNS = {"cat", "dog", "bear", "duck", "horse", "bird"}
FACE_NOUNS = {"person", "man", "woman", "boy", "girl"}


def fitting_set(class_noun: str) -> str:
    """The list that fits a class: face, live or object."""
    return "face" if class_noun in FACE_NOUNS else "live" if class_noun in LIVE_NOUNS else "object"


@dataclass(frozen=True)
class Prompt:
    """What is sampled, the text ``clip_t`` compares the sample with, and the text without the rare token."""

    text: str
    clip_text: str
    plain_text: str


def fill(template: str, identifier: str, class_noun: str, key: str = "prompt") -> str:
    """Put the words into a template; an empty identifier leaves no double space. Raises ``UserError``."""
    words = {"identifier": identifier, "class_noun": class_noun}
    try:
        parts = list(Formatter().parse(template))
        filled = "".join(text + ("" if name is None else words[name]) for text, name, _, _ in parts)
        if any(rule or conversion for _, _, rule, conversion in parts):  # a width may ask for any amount of memory
            raise ValueError("a format")
    except (KeyError, ValueError) as error:
        said = "only {identifier} and {class_noun} can stand in braces; write others twice, as {{ and }}"
        raise UserError(f"{key}={shortened(template)!r}: {said}") from error
    return " ".join(filled.split())


def evaluation_prompts(templates: list[str], identifier: str, class_noun: str, identifier_in_clip_text: bool) -> list[Prompt]:
    """Fill own templates, or a named list (``object``, ``live``, ``face``; ``auto`` takes the one that fits the class)."""
    named = {**PROMPT_SETS, "auto": PROMPT_SETS[fitting_set(class_noun)]}
    chosen: list[str] = []
    for template in templates:
        if template not in named and " " not in template.strip():
            raise UserError(f"sampler.prompts=[{template}]: choose {', '.join(PROMPT_SETS)} or auto, or give templates of several words")
        chosen += named.get(template, (template,))
    words = [(fill(t, identifier, class_noun, "sampler.prompts"), fill(t, "", class_noun, "sampler.prompts")) for t in chosen]
    if twice := next((text for text, times in Counter(text for text, _ in words).items() if times > 1), ""):
        raise UserError(f"sampler.prompts: {shortened(twice)!r} stands twice, and its images would count twice; leave one out")
    return [Prompt(text, text if identifier_in_clip_text else plain, plain) for text, plain in words]


@dataclass(frozen=True)
class TextReader:
    """How a model, or a metric, reads texts: at most ``limit`` tokens, those for begin and end among them."""

    name: str
    limit: int
    count: Callable[[str], int]
    """Tokens of a whole text, with those for begin and end."""
    unknown: Callable[[str], list[str]] = lambda text: []
    """Words that have no token."""

    def loses(self, text: str, word: str) -> bool:
        """Whether a text that is cut has the word in it, but not whole in what is read."""
        places = [match.end() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text)]
        return bool(places) and self.count(text) > self.limit < self.count(text[: places[0]])


def cut_texts(reader: TextReader, texts: Iterable[str]) -> dict[str, int]:
    """Texts that the reader cuts, and by how many tokens."""
    over = {text: reader.count(text) - reader.limit for text in texts}
    return {text: count for text, count in over.items() if count > 0}


def image_count(templates: list[str], images_per_prompt: int) -> int:
    """Images of a checkpoint; ``auto`` counts as the list for objects, which is as long as the others."""
    prompts = sum(len(PROMPT_SETS.get("object" if name == "auto" else name, (name,))) for name in templates)
    return prompts * images_per_prompt
