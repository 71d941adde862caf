"""The running verdict as a callback of transformers' ``Trainer``."""

from __future__ import annotations

from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.trainer_callback import TrainerCallback

from bayesdiff.judging.callback import VerdictCallback


class JudgeCallback(VerdictCallback, TrainerCallback):  # type: ignore[misc]
    """Samples at every evaluation, says the running verdict, and stops training where there is a reason to."""

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Judge on the first process; the others follow its decision."""
        reason = self.reason(state.global_step, model) if state.is_world_process_zero else ""
        if self.stop and broadcast_object_list([reason])[0]:
            control.should_training_stop = True
        return control
