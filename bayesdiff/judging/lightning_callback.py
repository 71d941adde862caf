"""The running verdict as a callback of Lightning's ``Trainer`` (the extra ``lightning``)."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from bayesdiff.judging.callback import VerdictCallback


class JudgeCallback(VerdictCallback, Callback):
    """Samples at every validation, says the running verdict, and stops training where there is a reason to."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge on the first process; the others follow its decision. The check before training is left out."""
        if trainer.sanity_checking:
            return
        reason = self.reason(trainer.global_step, pl_module) if trainer.is_global_zero else ""
        reason = trainer.strategy.broadcast(reason)
        trainer.should_stop = trainer.should_stop or bool(self.stop and reason)
