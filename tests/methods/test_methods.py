"""What every fine-tuning method offers, and that what it writes it reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import differing, tiny_text_encoder, tiny_unet

from bayesdiff.arms.gaussian import mean_state
from bayesdiff.config.schema import METHODS, MethodConf
from bayesdiff.core.errors import UserError
from bayesdiff.methods import BUILT_IN, OFFERED, method_of


def test_every_method_offers_the_same_names() -> None:
    assert set(METHODS) == set(BUILT_IN)
    for method in map(method_of, BUILT_IN):
        assert all(hasattr(method, name) for name in OFFERED)
        assert all(callable(getattr(method, name)) for name in ("build", "bayesian_targets", "export", "load"))
        assert 0 < method.SIGMA_SCALE <= 1


@pytest.mark.parametrize("name", METHODS)
def test_what_was_exported_is_loaded_back_into_all_parts(tmp_path: Path, name: str) -> None:
    method, conf = method_of(name), MethodConf(name, 1e-4, rank=2)
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


def test_a_method_of_ones_own_is_a_module_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half.py").write_text("SIGMA_SCALE = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"method\.name=half: lacks UNET_MEANS, build, bayesian_targets, export, load"):
        method_of("half")
    with pytest.raises(UserError, match=r"method\.name=no\.where: cannot be imported .*PYTHONPATH"):
        method_of("no.where")
