"""What every fine-tuning method offers, and that what it writes it reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import differing, tiny_text_encoder, tiny_unet

from bayesdiff.bayes import mean_state
from bayesdiff.config import Method, MethodConf
from bayesdiff.methods import METHODS


def test_every_method_offers_the_same_names() -> None:
    assert set(METHODS) == set(Method)
    for method in METHODS.values():
        assert all(callable(getattr(method, name)) for name in ("build", "bayesian_targets", "export", "load"))
        assert 0 < method.SIGMA_SCALE <= 1


@pytest.mark.parametrize("name", Method)
def test_what_was_exported_is_loaded_back_into_all_parts(tmp_path: Path, name: Method) -> None:
    method, conf = METHODS[name], MethodConf(name, 1e-4, rank=2)
    parts, fresh = ({"unet": tiny_unet(), "text_encoder": tiny_text_encoder()} for _ in range(2))
    with torch.no_grad():
        for p in method.build(parts, conf, 0):
            p.add_(0.5)
    method.export(parts, tmp_path)
    method.build(fresh, conf, 1)
    assert all(differing(dict(mean_state(part)), dict(mean_state(fresh[key]))) for key, part in parts.items())
    method.load(fresh, tmp_path)
    for key, part in parts.items():
        assert differing(dict(mean_state(part)), dict(mean_state(fresh[key]))) == []
