"""Callbacks of transformers' Trainer: a stop at a loss that is not finite, a clock, and a progress bar."""

import math
import time
from collections.abc import Sequence
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
    """Counts the seconds of a training. Checkpoints keep the counts, so a resumed training continues them."""

    def __init__(self, before: float = 0.0, epochs: Sequence[float] = (), saving: float = 0.0) -> None:
        self._before, self._began = before, time.monotonic()
        self._epoch_began = self._stepped = self._began
        self.epochs = list(epochs)  # seconds of the updates of each epoch, without an evaluation at its end
        self.saving = saving  # seconds of writing checkpoints

    @property
    def seconds(self) -> float:
        """Return the seconds of all attempts together."""
        return self._before + time.monotonic() - self._began

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the clock."""
        return {"args": {"before": self.seconds, "epochs": self.epochs, "saving": self.saving}, "attributes": {}}

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Note when an epoch began."""
        self._epoch_began = time.monotonic()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note when the last work before a checkpoint ended."""
        self._stepped = time.monotonic()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Count the epoch, and note when the last work before a checkpoint ended."""
        self._stepped = time.monotonic()
        self.epochs.append(self._stepped - self._epoch_began)

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Note when the last work before a checkpoint ended."""
        self._stepped = time.monotonic()

    def on_save(self, *_: Any, **__: Any) -> None:
        """Count the time of a checkpoint."""
        self.saving += time.monotonic() - self._stepped


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
