"""Scores of samples, computed once: a checkpoint is known again by the hashes of its pictures, of the photographs and of the encoders.

Where every checkpoint is known, no encoder and none of the libraries behind them is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayesdiff.config.prompts import Prompt
from bayesdiff.config.schema import MetricsConf, SamplerPrecision
from bayesdiff.core.digests import cache_folder, fingerprint
from bayesdiff.core.errors import UserError
from bayesdiff.core.files import sha256, write_json
from bayesdiff.core.garbage import seldom_collected
from bayesdiff.corruption.diagnosis import RELATIVE
from bayesdiff.diffusion.subject import Subject
from bayesdiff.judging.pairing import Key, Paired
from bayesdiff.judging.settings import open_picture
from bayesdiff.scoring.encoders import encoder_folder
from bayesdiff.scoring.metrics import COLUMNS

if TYPE_CHECKING:
    from PIL import Image

    from bayesdiff.diffusion.sampling import Sample
    from bayesdiff.scoring.encoders import Encoders
    from bayesdiff.scoring.scores import References

VERSION = 1
"""Counted up whenever the same pictures may get other scores."""


@dataclass(frozen=True)
class Scored:
    """The scores of all checkpoints, and what is known of the photographs."""

    scores: pd.DataFrame
    """As ``scores.csv`` has them."""
    ceilings: dict[str, float]
    """Similarity of different photographs by metric; empty for one photograph."""
    photo_hf: float | None
    """Mean high-frequency energy of the photographs; None where they are too small for it, and ``hf_relative`` is left out."""
    computed: int
    """Samples that were scored now; the others were known."""


def default_cache() -> Path | None:
    """Where scores are kept, in the user's cache folder; None where the user has no home."""
    digests = cache_folder()
    return None if digests is None else digests.parent / "judged"


def _key(*content: Any) -> str:
    return hashlib.sha256(json.dumps([VERSION, *content], sort_keys=True).encode()).hexdigest()[:40]


def _recall(cache: Path | None, key: str) -> Any:
    """What is kept under a key; None where there is nothing, or nothing that can be read."""
    try:
        return None if cache is None else json.loads((cache / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _keep(cache: Path | None, key: str, content: Any) -> None:
    """Keep it where that can be done: a cache that cannot be written costs time alone."""
    try:
        if cache is not None:
            write_json(cache / f"{key}.json", content)
    except (OSError, UserError, ValueError):
        return


def _basis(metrics: MetricsConf, subject: Subject) -> list[Any]:
    """What scores depend on besides samples and prompts: the encoders' names and bytes, the photographs and their side."""
    plain = metrics.precision in (SamplerPrecision.auto, SamplerPrecision.fp32)
    settings = {name: value for name, value in asdict(metrics).items() if name not in ("batch_size", *(["precision"] if plain else []))}
    weights = [fingerprint(encoder_folder(metrics.clip, "clip")), fingerprint(encoder_folder(metrics.dino, "dino"))]
    return [settings, weights, [(photo.name, photo.digest, photo.image.size) for photo in subject.photos + subject.others]]


@dataclass(frozen=True)
class Scorer:
    """Loaded encoders, and what they say of the photographs and prompts."""

    encoders: Encoders
    references: References
    ceilings: dict[str, float]
    """As ``Scored``."""
    fine: bool = True
    """As ``Subject``."""

    def rows(self, samples: list[Sample], step: int) -> list[list[Any]]:
        """Rows of ``scores.csv`` without the step; None for a metric of a user's own that gave no number."""
        from bayesdiff.scoring.scores import score_samples

        table = score_samples(samples, step, self.encoders, self.references)
        rows = table[list(COLUMNS[1:])].itertuples(index=False, name=None)
        return [[*row[:-1], None if row[-1] != row[-1] else row[-1]] for row in rows]


_LOADED: dict[str, Encoders] = {}
"""The encoders that were used last: a folder that is watched is judged again and again."""


@seldom_collected()
def load_scorer(metrics: MetricsConf, device: str, subject: Subject, prompts: Sequence[Prompt]) -> Scorer:
    """Load the encoders and embed photographs and prompts, which stand at their numbers. Raises ``UserError``."""
    from bayesdiff.diffusion.pipeline import choose_device
    from bayesdiff.scoring.encoders import load_encoders
    from bayesdiff.scoring.scores import embed_references

    name = json.dumps([asdict(metrics), device])
    if name not in _LOADED:
        _LOADED.clear()
        exact = SamplerPrecision.fp32 if metrics.precision is SamplerPrecision.auto else metrics.precision
        _LOADED[name] = load_encoders(replace(metrics, precision=exact), choose_device(device))  # kept scores know no device
    encoders = _LOADED[name]
    references = embed_references(encoders, subject, list(prompts))
    return Scorer(encoders, references, _ceilings(encoders, references, subject), subject.fine)


def _ceilings(encoders: Encoders, references: References, subject: Subject) -> dict[str, float]:
    """What a run's record holds of its photographs, rounded as there."""
    from bayesdiff.scoring.scores import real_to_real

    others = [photo.image for photo in subject.others]
    found = {
        "dino": real_to_real(references.dino, encoders.dino(others) if others else references.dino[:0]),
        "clip_i": real_to_real(references.clip, encoders.clip_image(others) if others else references.clip[:0]),
    }
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def score_paired(
    paired: Paired, prompts: Sequence[Prompt], subject: Subject, metrics: MetricsConf, device: str, cache: Path | None
) -> Scored:
    """Score every checkpoint that is not known yet; ``prompts`` stand at their numbers. Raises ``UserError``."""
    cache = None if metrics.extra else cache  # a function of a user's own may change under its name
    basis, texts = _basis(metrics, subject), [asdict(prompt) for prompt in prompts]
    own = _key(basis, len(subject.photos))
    keys = {step: _key(basis, texts, paired.keys, [sha256(path) for path in paths]) for step, paths in paired.paths.items()}
    known = {step: rows for step, key in keys.items() if (rows := _recall(cache, key)) is not None}
    about, missing = _recall(cache, own), [step for step in keys if step not in known]
    if missing or about is None:
        scorer = load_scorer(metrics, device, subject, prompts)
        about = {"ceilings": scorer.ceilings, "hf_energy": scorer.references.hf_energy}
        _keep(cache, own, about)
        for step in missing:
            known[step] = scorer.rows(_samples(paired, step), step)
            _keep(cache, keys[step], known[step])
    computed = len(missing) * len(paired.keys)
    return as_scored({step: known[step] for step in keys}, about["ceilings"], about["hf_energy"], subject.fine, computed)


def as_scored(rows: Mapping[int, list[list[Any]]], ceilings: dict[str, float], photo_hf: float, fine: bool, computed: int) -> Scored:
    """The rows of each step; without grain as a share of the photographs' where these have no fine detail."""
    table = as_table(rows)
    if fine:
        return Scored(table, ceilings, photo_hf, computed)
    return Scored(table[table["metric"] != RELATIVE].reset_index(drop=True), ceilings, None, computed)


def as_table(rows: Mapping[int, list[list[Any]]]) -> pd.DataFrame:
    """A table as ``scores.csv`` from the rows of each step."""
    return pd.DataFrame([(step, *row) for step, found in rows.items() for row in found], columns=list(COLUMNS))


def as_sample(key: Key, image: Image.Image) -> Sample:
    """A picture by (prompt, image); one that is black all over counts as failed, as trainers show what is not finite."""
    from bayesdiff.diffusion.sampling import Sample

    return Sample(*key, image, image.getbbox() is None)


def _samples(paired: Paired, step: int) -> list[Sample]:
    return [as_sample(key, open_picture(path)) for key, path in zip(paired.keys, paired.paths[step], strict=True)]
