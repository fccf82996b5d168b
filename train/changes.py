"""What of an experiment may change while its run stands still: what no weight depends on.

The rest would make of the run something that no experiment describes.
"""

from __future__ import annotations

from train import experiment as experiments
from train.experiment import Experiment

_FREE = frozenset(
    {
        "train.steps_per_call",
        "train.checkpoint_steps",
        "train.keep_checkpoints",
        "train.patience",  # it decides when a run ends, not what it is until then
        "train.previews",
        "train.preview_folder",
        "train.preview_count",
        "train.preview_mode",
        "data.threads",
        "data.ram_mb",
        "data.cache",
        "data.service",
    }
)
_FREE_SECTIONS = frozenset({"inference", "distribute"})
_EPOCHS = "train.epochs"


def judge(there: Experiment, now: Experiment) -> tuple[list[str], list[str]]:
    """The differences of an experiment from that of its run, by whether the run can go on.

    Returns:
      Those that may be, and those that may not, as `experiment.differences` tells them.
    """
    allowed: list[str] = []
    refused: list[str] = []
    for text in experiments.differences(there, now):
        key = text.partition(":")[0]
        free = key in _FREE or key.partition(".")[0] in _FREE_SECTIONS
        # With other schedules the learning rate of a step depends on where the run ends.
        if key == _EPOCHS and now.optimizer.schedule == "constant":
            free = True
        (allowed if free else refused).append(text)
    return allowed, refused
