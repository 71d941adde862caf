"""What a model's tokenizers make of the texts of a run, looked at before any model is loaded."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from bayesdiff.config.prompts import Prompt, TextReader, cut_texts, fill
from bayesdiff.config.schema import Config, ModelConf
from bayesdiff.core.errors import UserError, first_line
from bayesdiff.diffusion.pipeline import model_location, remedy
from bayesdiff.diffusion.subject import Subject

UNLIMITED = 100_000
"""A tokenizer that names no limit has a huge one."""


def unknown_to(tokenizer: Any, text: str) -> list[str]:
    """Words of a text that a tokenizer has no token for, in order: all of them look the same to the model.

    Tokenizers of Stable Diffusion spell out what they do not know; the toybox's has whole words alone.
    """
    if tokenizer.unk_token_id in (None, tokenizer.eos_token_id):
        return []
    words = dict.fromkeys(re.findall(r"\w+", text))
    return [word for word in words if tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False).input_ids]


def reader_of(tokenizer: Any, name: str) -> TextReader:
    """A Hugging Face tokenizer's limit, and its counts with the tokens for begin and end."""
    return TextReader(name, min(tokenizer.model_max_length, UNLIMITED), lambda t: _count(tokenizer, t), lambda t: unknown_to(tokenizer, t))


def _count(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, truncation=False, verbose=False).input_ids)


def model_readers(conf: ModelConf) -> list[TextReader]:
    """The model's tokenizers (SDXL has two), without its weights.

    Raises:
        UserError: the model is not there, or is none; the message names the remedy.
    """
    from transformers import AutoTokenizer

    location, local = model_location(conf), Path(model_location(conf)).exists()
    try:
        names = [name for name in ("tokenizer", "tokenizer_2") if name in _parts(conf, location)]
        found = [AutoTokenizer.from_pretrained(location, subfolder=name, revision=conf.revision, local_files_only=local) for name in names]
    except Exception as error:  # the loaders raise many kinds for a bad folder
        raise UserError(f"model {location}: cannot be loaded ({first_line(error)}); {remedy(conf, location)}") from error
    return [reader_of(tokenizer, "the model") for tokenizer in found]


def _parts(conf: ModelConf, location: str) -> dict[str, Any]:
    """The parts that a pipeline's index names."""
    from huggingface_hub import hf_hub_download

    name = "model_index.json"
    path = Path(location, name) if Path(location).exists() else Path(hf_hub_download(location, name, revision=conf.revision))
    index = json.loads(path.read_text(encoding="utf-8"))
    return {name: part for name, part in index.items() if isinstance(part, list) and part[0] is not None}


def check_texts(cfg: Config, subject: Subject, prompts: list[Prompt], models: list[TextReader], clips: list[TextReader]) -> list[str]:
    """What is to be said of a run's texts, one line each; nothing where every text is read whole.

    Args:
        models: readers of what is trained on and sampled; ``clips`` of what CLIP-T compares samples with.

    Raises:
        UserError: the model or CLIP does not see the identifier or the class noun of some text, because it has no token for
            it or the text is cut before it.
    """
    _check_words(subject, models)
    class_texts = [fill(cfg.data.class_prompt, "", subject.class_noun)] if cfg.method.prior_preservation else []
    trained = [fill(cfg.data.instance_prompt, subject.identifier, subject.class_noun), *class_texts, *(p.text for p in prompts)]
    compared = [text for prompt in prompts for text in (prompt.clip_text, prompt.text, prompt.plain_text)]
    lines = []
    if not _has(trained[0], subject.identifier):
        lines.append(f"data.instance_prompt has no {{identifier}}: {trained[0]!r} is what is trained")
    for readers, texts in ((models, trained), (clips, compared)):
        for reader in readers:
            lines += _said(reader, list(dict.fromkeys(texts)), subject)
    return list(dict.fromkeys(lines))


def _has(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _check_words(subject: Subject, models: list[TextReader]) -> None:
    if subject.identifier.strip().lower() == subject.class_noun.strip().lower():
        raise UserError(f"data.identifier={subject.identifier}: is the class noun itself; give a rare token such as qwe")
    for key, word in (("identifier", subject.identifier), ("class_noun", subject.class_noun)):
        if any(reader.unknown(word) for reader in models):
            raise UserError(f"data.{key}={word}: this model has no token for it; {_known(key)}")


def _known(key: str) -> str:
    """The toybox is the one model with whole words alone."""
    from bayesdiff.toybox.vocabulary import CLASSES, RARE_TOKENS

    words = CLASSES if key == "class_noun" else RARE_TOKENS
    return f"the toybox knows {', '.join(words)}: give one of them as data.{key}=…, or another model as model=sd15"


def _said(reader: TextReader, texts: list[str], subject: Subject) -> list[str]:
    """Lines about texts that one reader cuts, and words that it does not know; raises ``UserError`` as ``check_texts``."""
    cut = cut_texts(reader, texts)
    for text in cut:
        for key, word in (("identifier", subject.identifier), ("class_noun", subject.class_noun)):
            if reader.loses(text, word):
                raise UserError(f"{reader.name} reads {reader.limit} tokens, and not data.{key}={word} in {text!r}: shorten the text")
    lines = []
    if cut:
        shown = "; ".join(f"{textwrap.shorten(text, 60, placeholder=' …')!r} by {over}" for text, over in cut.items())
        lines.append(f"Cut by {reader.name}, which reads {reader.limit} tokens: {shown}")
    if words := list(dict.fromkeys(word for text in texts for word in reader.unknown(text))):
        lines.append(f"Words that {reader.name} does not know, and reads as one and the same: {', '.join(words)}")
    return lines
