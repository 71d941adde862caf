"""The callback in Lightning's own ``Trainer``: called at every validation, and able to end training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from bayesdiff.corruption import detect_corruption
from bayesdiff.judging.callback import CheckpointJudge, Progress
from tests.corruption.test_detector import CLEAR, TWELVE

lightning = pytest.importorskip("lightning.pytorch", reason="the extra lightning is not installed")


def trained(tmp_path: Path, scores: Any, stop: bool) -> tuple[Any, list[Progress], CheckpointJudge]:
    from bayesdiff.judging.lightning_callback import JudgeCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            return self.layer(batch).square().mean()

        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    judge, given, seen = CheckpointJudge(), iter(scores), []

    def sample(module: Any) -> Any:
        assert isinstance(module, Module)
        return next(given)

    data = DataLoader(torch.ones(len(scores), 2), batch_size=1)
    trainer = lightning.Trainer(
        max_steps=len(scores), val_check_interval=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[JudgeCallback(judge, sample, stop=stop, report=seen.append)],
        num_sanity_val_steps=1,
    )  # fmt: skip
    trainer.fit(Module(), data, DataLoader(torch.ones(1, 2)))
    return trainer, seen, judge


def test_every_validation_is_judged_and_the_running_verdict_is_the_one_afterwards(tmp_path: Path) -> None:
    trainer, seen, judge = trained(tmp_path, CLEAR, stop=False)
    steps = list(range(1, len(TWELVE) + 1))
    assert [progress.step for progress in seen] == steps, "the check before training is left out"
    assert trainer.global_step == len(TWELVE)
    assert seen[-1].verdict == judge.monitor.verdict == detect_corruption(steps, CLEAR)


def test_training_ends_where_there_is_a_reason_to(tmp_path: Path) -> None:
    longer = [*CLEAR, *([CLEAR[-1]] * 6)]
    trainer, seen, _ = trained(tmp_path, longer, stop=True)
    assert seen[-1].reason
    assert trainer.global_step == len(seen) < len(longer)


def test_a_validation_after_training_is_no_second_checkpoint(tmp_path: Path) -> None:
    trainer, seen, judge = trained(tmp_path, CLEAR[:3], stop=True)
    with pytest.warns(UserWarning, match="step 3 has been judged already"):
        trainer.validate(trainer.lightning_module, DataLoader(torch.ones(1, 2)), verbose=False)
    assert judge.monitor.steps == [1, 2, 3]
    assert len(seen) == 3


def test_samples_that_cannot_be_made_end_no_training(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="step 2 is not judged, and training goes on: ValueError: step 2 has 2 scores"):
        trainer, seen, _ = trained(tmp_path, [CLEAR[0], CLEAR[1][:2], CLEAR[2]], stop=True)
    assert trainer.global_step == 3
    assert [progress.step for progress in seen] == [1, 3]
