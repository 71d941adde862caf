"""Every row of every wandb sweep composes and validates."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import yaml

from bayesdiff.config import CONF, Config, run_key

SWEEPS = sorted((CONF.parent / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_every_row_is_a_run_of_its_own(file: Path, make_config: Callable[..., Config]) -> None:
    sweep = yaml.safe_load(file.read_text())
    fixed = [part for part in sweep["command"] if "=" in part]
    values = [[f"{key}={value}" for value in spec["values"]] for key, spec in sweep["parameters"].items()]
    keys = {run_key(make_config(*fixed, *row)) for row in product(*values)}
    assert sweep["command"][-1] == "${args_no_hyphens}"
    assert len(keys) == len(list(product(*values)))
