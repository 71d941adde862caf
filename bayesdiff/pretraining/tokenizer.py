"""The toybox's word-level tokenizer, shared by the text encoder of the pipeline and by CLIP."""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerFast

from bayesdiff.toybox.vocabulary import BOS, EOS, MAX_TOKENS, PAD, UNKNOWN, vocabulary


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-cased words; ``<bos> words <eos>``; padded by callers to ``MAX_TOKENS``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = vocabulary()
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, words[BOS]), (EOS, words[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=UNKNOWN, model_max_length=MAX_TOKENS
    )


def tokenize(captions: list[str]) -> torch.Tensor:
    """Token ids (B, MAX_TOKENS)."""
    encoded = build_tokenizer()(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded["input_ids"]
    return ids
