"""Where a run stands, and which epoch is its best."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

from train import runs
from train.runs import Run

if TYPE_CHECKING:
    from train.loop import Steps


@dataclasses.dataclass
class Progress:
    """Where a run stands, beside its variables; kept with every checkpoint.

    Attributes:
      step: steps done.
      history: name -> a value for each epoch that is done.
      best: the best value of what is monitored, and the epoch that reached it.
      stale: epochs since then.
      plateau_stale: epochs since then or since the last reduction of the learning rate.
      epoch_losses: losses of the steps of the epoch that is going on.
      epoch_confusion: their confusion matrix.
      finished: whether training is over.
      ended_by: why: "epochs", "patience", "break_training" or "another worker".
      trend: of the loss, the fields of `divergence.Trend`; {} for none yet.
    """

    step: int = 0
    history: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)
    best: float | None = None
    best_epoch: int = -1
    stale: int = 0
    plateau_stale: int = 0
    epoch_losses: list[float] = dataclasses.field(default_factory=list)
    epoch_confusion: list[list[int]] = dataclasses.field(default_factory=list)
    finished: bool = False
    ended_by: str = ""
    trend: dict[str, Any] = dataclasses.field(default_factory=dict)


def save_best(run: Run, steps: Steps, epoch: int, values: dict[str, float | None]) -> None:
    """Keeps the weights as the run's best, and what they reached beside them."""
    if not run.writes:
        return
    path = run.path(runs.BEST_WEIGHTS)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = path.replace("model.weights", "unfinished.weights")
    steps.model.save_weights(temporary)
    os.replace(temporary, path)
    with open(run.path(runs.BEST) + ".tmp", "w", encoding="utf-8") as file:
        json.dump({"epoch": epoch, **values}, file, indent=1)
    os.replace(run.path(runs.BEST) + ".tmp", run.path(runs.BEST))
