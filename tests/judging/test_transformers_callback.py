"""The callback in transformers' own ``Trainer``: called at every evaluation, and able to end training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from bayesdiff.corruption import detect_corruption
from bayesdiff.judging.callback import CheckpointJudge, Progress
from bayesdiff.judging.transformers_callback import JudgeCallback
from tests.corruption.test_detector import CLEAR, TWELVE


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.layer(x).squeeze(-1) - labels).square().mean(), "logits": self.layer(x)}


def trained(tmp_path: Path, scores: Any, stop: bool) -> tuple[Trainer, list[Progress], CheckpointJudge]:
    rows = [{"x": torch.ones(2), "labels": torch.tensor(1.0)} for _ in range(4)]
    judge, given, seen = CheckpointJudge(), iter(scores), []

    def sample(model: nn.Module) -> Any:
        assert isinstance(model, Model)
        return next(given)

    arguments = TrainingArguments(
        str(tmp_path), max_steps=len(scores), eval_strategy="steps", eval_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", per_device_train_batch_size=1, logging_steps=1000,
    )  # fmt: skip
    trainer = Trainer(
        model=Model(),
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        callbacks=[JudgeCallback(judge, sample, stop=stop, report=seen.append)],
    )
    trainer.train()
    return trainer, seen, judge


def test_every_evaluation_is_judged_and_the_running_verdict_is_the_one_afterwards(tmp_path: Path) -> None:
    trainer, seen, judge = trained(tmp_path, CLEAR, stop=False)
    steps = list(range(1, len(TWELVE) + 1))
    assert [progress.step for progress in seen] == steps
    assert trainer.state.global_step == len(TWELVE)
    assert seen[-1].verdict == judge.monitor.verdict == detect_corruption(steps, CLEAR)


def test_training_ends_where_there_is_a_reason_to(tmp_path: Path) -> None:
    longer = [*CLEAR, *([CLEAR[-1]] * 6)]
    trainer, seen, _ = trained(tmp_path, longer, stop=True)
    assert seen[-1].reason
    assert not any(progress.reason for progress in seen[:-1])
    assert trainer.state.global_step == len(seen) < len(longer)


def test_a_score_that_is_not_finite_ends_no_training(tmp_path: Path) -> None:
    scores = CLEAR[:6].copy()
    scores[2] = np.nan
    trainer, seen, _ = trained(tmp_path, scores, stop=True)
    assert trainer.state.global_step == len(seen) == 6
    assert [progress.verdict.kind == "diverged" for progress in seen] == [i == 2 for i in range(6)]


def test_an_evaluation_after_training_is_no_second_checkpoint(tmp_path: Path) -> None:
    trainer, seen, judge = trained(tmp_path, CLEAR[:3], stop=True)
    with pytest.warns(UserWarning, match="step 3 has been judged already"):
        trainer.evaluate()
    assert judge.monitor.steps == [1, 2, 3]
    assert len(seen) == 3


def test_samples_that_cannot_be_made_end_no_training(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="step 2 is not judged, and training goes on: ValueError: step 2 has 2 scores"):
        trainer, seen, _ = trained(tmp_path, [CLEAR[0], CLEAR[1][:2], CLEAR[2]], stop=True)
    assert trainer.state.global_step == 3
    assert [progress.step for progress in seen] == [1, 3]
