"""``make gpu-check`` at small size on the CPU: every row is measured, failures and missing time are told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gpu_check
import pytest
from gpu_check import ARMS, SMALL, Found, cells, main


@pytest.mark.slow
def test_at_small_size_every_row_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--small", "--to", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "cpu-small.json").read_text(encoding="utf-8"))
    assert found["left_out"] == []
    assert len(found["rows"]) == 4 + 3 + 2 + 1 + 4 * len(ARMS)
    assert all(row.get("ms", row.get("seconds")) > 0 for row in found["rows"])
    assert "toybox corruption_curve" in capsys.readouterr().out


@pytest.mark.parametrize("arm", ["off", "on", "LoRA on"])
def test_a_cell_trains(arm: str) -> None:
    row = gpu_check.our_step(SMALL, [*ARMS[arm], "training.graph=auto", "training.mixed_precision=bf16"])
    assert row["ms"] > 0
    assert row["eager_because"] == "the device is no GPU"


@pytest.mark.parametrize("fused", [True, False])
def test_a_draw_says_what_made_it(fused: bool) -> None:
    row = gpu_check.drawn(SMALL, fused)
    assert row["ms"] > 0
    assert row["said"] == "plain operations"


def test_what_fails_is_a_row_and_what_there_is_no_time_for_is_named() -> None:
    def broken() -> dict[str, float]:
        raise RuntimeError("out of memory")

    found = Found(time.monotonic() + 100)
    found.add("first", broken)
    found.until = 0
    found.add("second", broken)
    assert [row["failed"] for row in found.rows] == ["RuntimeError: out of memory"]
    assert found.left_out == ["second"]


def test_cells_are_every_arm_by_precision_and_by_the_step() -> None:
    names = [name for name, _ in cells()]
    assert len(set(names)) == len(names) == 4 * len(ARMS)
    assert not {name for name, _ in gpu_check.compiled_cells()} & set(names)


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err
