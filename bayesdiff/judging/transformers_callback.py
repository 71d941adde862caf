"""The running verdict as a callback of transformers' ``Trainer``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from accelerate.utils import broadcast_object_list
from numpy.typing import ArrayLike
from PIL import Image
from transformers.trainer_callback import TrainerCallback

from bayesdiff.judging.callback import CheckpointJudge, Progress


class JudgeCallback(TrainerCallback):  # type: ignore[misc]
    """Samples at every evaluation, says the running verdict, and stops training where there is a reason to."""

    def __init__(
        self, judge: CheckpointJudge, sample: Callable[[Any], Sequence[Image.Image] | ArrayLike], *, stop: bool = True,
        report: Callable[[Progress], None] = print,
    ):  # fmt: skip
        """``sample`` takes the model and returns images, or a score for each: of the same prompts and seeds every time.

        Args:
            stop: whether a reason to stop ends training.
            report: what is done with every ``Progress``.
        """
        self.judge, self.sample, self.stop, self.report = judge, sample, stop, report

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Judge on the first process; the others follow its decision."""
        reason = ""
        if state.is_world_process_zero:
            progress = self.judge.update(state.global_step, self.sample(model))
            self.report(progress)
            reason = progress.reason
        if self.stop and broadcast_object_list([reason])[0]:
            control.should_training_stop = True
        return control
