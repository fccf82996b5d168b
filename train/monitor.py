"""What an epoch is judged by: its figures, their names, and which way is better.

Imports no TensorFlow, as experiments name a figure too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from flexseg_errors import FlexsegError, nearest

if TYPE_CHECKING:
    import numpy as np

    from pipelines.label_map import LabelMap
    from pipelines.manifest import Manifest

VALID = "val_"  # before the names of the figures of the valid split
CLASS = "dice/"  # before the name of a class
FIGURES = ("loss", "dice", "iou", "precision", "recall", "accuracy")

Values = dict[str, float | None]


def values(prefix: str, loss: float, confusion: np.ndarray, label_map: LabelMap) -> Values:
    """The figures of one split after an epoch, by the names under which they can be monitored.

    Dice, IoU, precision and recall are means over the foreground classes, accuracy is the share of
    all pixels whose class is right, and `dice/NAME` is the Dice of a class; see `train.metrics`.

    Args:
      prefix: of every name: "" for the train split, `VALID` for the valid split.
      loss: the split's loss.
      confusion: its confusion matrix, integers [K, K], rows the truth.
      label_map: names the classes.

    Returns:
      Name -> figure; None where it has no meaning or is no number.
    """
    from train import metrics

    fore = metrics.foreground(confusion)
    found: Values = {
        "loss": loss if math.isfinite(loss) else None,
        "dice": fore.dice_macro,
        "iou": fore.iou_macro,
        "precision": fore.precision_macro,
        "recall": fore.recall_macro,
        "accuracy": metrics.overall(confusion).pixel_accuracy,
    }
    scores = metrics.per_class(confusion)
    for label in label_map.classes[1:]:
        found[CLASS + label.name] = scores[label.id].dice
    return {prefix + name: value for name, value in found.items()}


def lower_is_better(name: str) -> bool:
    """Whether a figure is better the lower it is; so are losses alone."""
    return name.removeprefix(VALID) == "loss"


def is_better(value: float | None, best: float | None, name: str) -> bool:
    """Whether an epoch's figure beats the best one so far; None is no figure."""
    if best is None:
        return True  # something has to be kept
    if value is None or not math.isfinite(value):
        return False
    if not math.isfinite(best):
        return True
    return value < best if lower_is_better(name) else value > best


def refuse_unknown(name: str) -> None:
    """Holds a monitor to the names there are; whether its class exists shows the dataset.

    Raises:
      FlexsegError: naming those that are known.
    """
    if name.removeprefix(VALID).startswith(CLASS):
        return
    _refuse(name, [*(VALID + f for f in FIGURES), *FIGURES], f", {VALID}{CLASS}CLASS, {CLASS}CLASS")


def refuse_misfit(name: str, manifest: Manifest) -> None:
    """Holds a monitor to the classes of a dataset.

    Raises:
      FlexsegError: where it names a class that the label map does not, or that does not occur in
        the split; its Dice could never become better.
    """
    figure = name.removeprefix(VALID)
    if not figure.startswith(CLASS):
        return
    labels = manifest.label_map.classes[1:]
    prefix = name.removesuffix(figure) + CLASS
    _refuse(name, [prefix + label.name for label in labels])
    split = "valid" if name.startswith(VALID) else "train"
    if split not in manifest.splits:
        return
    class_id = next(c.id for c in labels if prefix + c.name == name)
    if not manifest.split(split).class_pixels[class_id]:
        raise FlexsegError(
            f"train.monitor={name}: the {split} split of {manifest.folder} has no pixel of that "
            f"class. Monitor {name.removesuffix(figure)}dice, or split the dataset otherwise."
        )


def _refuse(name: str, known: list[str], more: str = "") -> None:
    if name not in known:
        raise FlexsegError(
            f'monitor "{name}" is unknown; known are {", ".join(known)}{more}.'
            f"{nearest(name, known)}"
        )
