"""The running verdict as a callback of Lightning's ``Trainer`` (the extra ``lightning``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import ArrayLike
from PIL import Image

from bayesdiff.judging.callback import CheckpointJudge, Progress


class JudgeCallback(Callback):
    """Samples at every validation, says the running verdict, and stops training where there is a reason to."""

    def __init__(
        self, judge: CheckpointJudge, sample: Callable[[LightningModule], Sequence[Image.Image] | ArrayLike], *, stop: bool = True,
        report: Callable[[Progress], None] = print,
    ):  # fmt: skip
        """``sample`` takes the module and returns images, or a score for each: of the same prompts and seeds every time.

        Args:
            stop: whether a reason to stop ends training.
            report: what is done with every ``Progress``.
        """
        self.judge, self.sample, self.stop, self.report = judge, sample, stop, report

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge on the first process; the others follow its decision. The check before training is left out."""
        if trainer.sanity_checking:
            return
        reason = ""
        if trainer.is_global_zero:
            progress = self.judge.update(trainer.global_step, self.sample(pl_module))
            self.report(progress)
            reason = progress.reason
        reason = trainer.strategy.broadcast(reason)
        trainer.should_stop = trainer.should_stop or bool(self.stop and reason)
