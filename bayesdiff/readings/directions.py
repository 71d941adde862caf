"""Which way a metric is better, by the words in its name; and which column of a table is the fidelity.

A name decides where the field agrees on its words: ``dino`` is a similarity, ``lpips`` and ``fid`` are
distances. Where the words say nothing, or contradict each other, nobody guesses: the caller asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bayesdiff.core.errors import UserError
from bayesdiff.readings.reading import shown

SIMILARITIES = ("dino", "dinov2", "dinov3", "clip", "clipscore", "siglip", "similarity", "sim", "cosine", "arcface")
"""Words for a similarity of embeddings: at most 1, or 100 in percent."""
DEFINITE = ("loss", "error", "err", "distance", "dist", "mse", "mae", "rmse", "perplexity", "ppl", "nll", "divergence", "kl")
"""Words for a quantity that is better when lower, whatever stands beside them: ``clip_loss`` is a loss."""
LOWER = ("fid", "kid", "fvd", "cmmd", "mmd", "lpips", "dists", "dreamsim", "niqe", "brisque", "drift", "bpd")
HIGHER = (
    "dino", "dinov2", "dinov3", "clip", "clipscore", "siglip", "similarity", "sim", "cosine", "fidelity", "ssim", "msssim", "psnr",
    "accuracy", "acc", "auc", "f1", "precision", "recall", "reward", "imagereward", "pickscore", "hps", "hpsv2", "aesthetic", "iqa",
    "quality", "alignment", "diversity", "vqa", "arcface", "inception",
)  # fmt: skip
WEAK = ("score", "scores")
"""Says higher where no other word says lower: ``fid_score`` is a distance."""
TRAINING = ("loss", "nll", "perplexity", "ppl", "mse", "mae", "rmse", "error", "err", "bpd", "kl")
"""Quantities that a trainer logs anyway: the fidelity only where a table has nothing else."""
BOOKKEEPING = (
    "lr", "learning", "epoch", "epochs", "step", "steps", "time", "walltime", "timestamp", "runtime", "seconds", "duration", "elapsed",
    "memory", "mem", "gpu", "cpu", "samples", "seed", "flos", "tokens", "fps", "grad", "norm", "se", "std", "sem", "stderr", "count",
    "batch", "size", "index", "idx", "version", "rank",
)  # fmt: skip
"""Words in names of columns that are never the fidelity unless someone names them."""
BESIDE = ("clip_t", "clip_t_with_token", "clip_t_without_token", "hf_energy", "failed", "diversity")
"""Columns of this package's own tables that stand beside the fidelity."""


def words(name: str) -> list[str]:
    """The words of a column's name, in lower case: ``eval/DINO_similarity`` has eval, dino and similarity."""
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def higher_is_better(name: str) -> bool | None:
    """What a metric's name says: True, False, or None where it says nothing or both."""
    found = set(words(name))
    if found & set(DEFINITE):
        return False
    lower, higher = bool(found & set(LOWER)), bool(found & set(HIGHER))
    if lower != higher:
        return higher
    return True if not lower and found & set(WEAK) else None


def is_similarity(name: str) -> bool | None:
    """Whether a metric is a similarity of embeddings: True or False where its name says one, None where it says nothing.

    ``clip_t`` is one. ``psnr``, ``clip_aesthetic`` and ``clip_loss`` are none: a similarity's fixed depth means nothing for their values.
    """
    found = set(words(name))
    if found & {*DEFINITE, *LOWER, *HIGHER} - {*SIMILARITIES, "fidelity", "alignment"}:
        return False
    return True if found & set(SIMILARITIES) else None


def is_bookkeeping(name: str) -> bool:
    return bool(set(words(name)) & set(BOOKKEEPING))


def _rank(name: str) -> int:
    """How much a column looks like the fidelity; the lowest rank wins."""
    found, direction = set(words(name)), higher_is_better(name)
    if direction and any(word.startswith("dino") for word in found):
        return 0
    if name.lower() in BESIDE:
        return 2
    return 3 if found & set(TRAINING) else 1


def choose(names: Sequence[str], source: str, option: str = "--metric") -> str:
    """The one name that can be the fidelity.

    Raises:
        UserError: none, or several; the message lists them with the direction that each name says.
    """
    candidates = [name for name in names if not is_bookkeeping(name)]
    if not candidates:
        listed = f"none of {shown(names)} is one by its name" if names else "the table has no column of numbers beside its steps"
        raise UserError(f"{source}: which column has the scores? {listed}; give {option} NAME")
    best = min(_rank(name) for name in candidates)
    first = [name for name in candidates if _rank(name) == best]
    if len(first) == 1:
        return first[0]
    said = [f"{name}{_SAID[higher_is_better(name)]}" for name in first]
    raise UserError(f"{source}: which of these is the fidelity? give {option} NAME, one of {shown(said)}")


_SAID = {True: " (higher is better)", False: " (lower is better)", None: ""}
