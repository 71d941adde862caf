"""The fine-tuning methods: DreamBooth, LoRA and OFT, one module each behind one set of names (``registry``)."""

from bayesdiff.methods.registry import BUILT_IN, OFFERED, FineTuning, Parts, method_of, unrecordable

__all__ = ["BUILT_IN", "FineTuning", "OFFERED", "Parts", "method_of", "unrecordable"]
