"""The scripts in ``experiments/``: what they read off a curve."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

from bayesdiff.config import CONF


@pytest.fixture(scope="module")
def phenomenon() -> ModuleType:
    spec = importlib.util.spec_from_file_location("phenomenon", CONF.parent / "experiments" / "phenomenon.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["phenomenon"] = module
    spec.loader.exec_module(module)
    return module


def test_the_deepest_fall_and_what_came_back(phenomenon: ModuleType) -> None:
    shape = phenomenon.shape_of(np.arange(6) * 10, np.array([0.2, 0.8, 0.5, 0.4, 0.6, 0.75]))
    assert (shape.start, shape.peak_step, shape.peak, shape.trough_step, shape.trough) == (0.2, 10, 0.8, 30, 0.4)
    assert shape.fall == pytest.approx(0.4)
    assert shape.checkpoints_down == 3
    assert shape.recovered == pytest.approx(0.35 / 0.4)


def test_a_curve_that_only_rises_has_no_fall(phenomenon: ModuleType) -> None:
    shape = phenomenon.shape_of(np.arange(4), np.array([0.1, 0.2, 0.3, 0.4]))
    assert (shape.fall, shape.checkpoints_down, shape.recovered) == (0.0, 0, 0.0)
