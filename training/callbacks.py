"""Callbacks of transformers' Trainer: a stop at a loss that is not finite, a clock, and a progress bar."""

import math
import time
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from models.errors import UserError


class DivergedError(UserError):
    """The loss is infinite or not a number."""


class StopIfDiverged(TrainerCallback):
    """Ends a training whose loss is infinite or not a number."""

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Check the losses that are logged.

        Raises:
            DivergedError: one of them is not finite.
        """
        for key in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(key, 0.0)):
                raise DivergedError(
                    f"the training loss became {logs[key]} at update {state.global_step:,}: expected a finite number; "
                    "lower training.learning_rate and train again."
                )


class Clock(TrainerCallback, ExportableState):
    """Counts the seconds of a training. Checkpoints keep the count, so a resumed training continues it."""

    def __init__(self, before: float = 0.0) -> None:
        self._before, self._began = before, time.monotonic()

    @property
    def seconds(self) -> float:
        """Return the seconds of all attempts together."""
        return self._before + time.monotonic() - self._began

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the clock."""
        return {"args": {"before": self.seconds}, "attributes": {}}


class Progress(ProgressCallback):
    """Shows the Trainer's bar with the time left, and a line for each evaluation."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self._metric = metric

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Print a line if an evaluation is logged, and nothing otherwise."""
        if not state.is_world_process_zero or "eval_loss" not in logs:
            return
        chosen = "" if self._metric == "loss" else f"   {self._metric} {logs[f'eval_{self._metric}']:.4f}"
        line = f"epoch {logs['epoch']:.2f}   validation loss {logs['eval_loss']:.4f}{chosen}"
        self.training_bar.write(line) if self.training_bar is not None else print(line)

    def close(self) -> None:
        """End the line of the bar, even if training ended early."""
        if self.training_bar is not None:
            self.training_bar.close()

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        """Draw no second bar for evaluations."""
