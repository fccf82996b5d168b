"""From a dataset's manifest to an experiment: every choice with its reason; no pixel is read.

In the spirit of F. Isensee et al.: nnU-Net: a self-configuring method for deep learning-based
biomedical image segmentation, Nature Methods 18, 2021: what the data and the memory decide follows
from rules, and the rest is what has proved itself. The rules:

- The crop is the typical record, up to 512 pixels a side, and shrinks until two of them fit.
- The network halves its sides down to 8 pixels, five times at most.
- The batch grows to the pixels of eight crops of 256x256, as far as memory and examples go.
- Rare classes are cropped more often where crops are smaller than records, or weigh more in the
  loss where they are not.
- The fewer groups, the stronger the augmentation.
- A training sees every pixel about fifty times, within bounds.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from pipelines.manifest import Manifest
from train import experiment as experiments
from train import plan_size
from train.device import Device
from train.experiment import Experiment
from train.plan_facts import Facts, facts_of
from train.plan_notes import counted, notes, percent, sides
from train.plan_size import Sizing, is_whole, part

_PASSES = 50  # over all pixels
_STEPS = (1000, 20000)  # bounds of a whole training
_EPOCH_STEPS = (25, 500)
_LEARNING_RATE = 1e-3  # for batches of
_RATE_BATCH = 8
_WARMUP_SHARE = 20  # one of so many steps
_WARMUP = (20, 500)
_RARE = 0.01  # share of the pixels below which a class needs help
_UNEQUAL = 30.0  # how much more frequent one foreground class may be than another
_SCARCE = 0.05  # share of the pixels below which crops may well miss a class
_CACHED = 1 << 30  # bytes of decoded records that may be kept in memory
_OVERSAMPLED = 0.33  # nnU-Net's share of crops that are made to hold foreground
# Groups below which it holds -> rotation in degrees, scale, brightness, contrast.
_AUGMENTATION = ((10, (30.0, 0.3, 0.15, 0.3)), (100, (15.0, 0.2, 0.1, 0.2)))
_GAMMA = 0.4
_AUGMENTATION_OF_MANY = (10.0, 0.1, 0.1, 0.15)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One key of the experiment, its value, and why."""

    key: str
    value: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is proposed.

    Attributes:
      choices: in the order of the experiment's sections.
      notes: what the person should know or do, a sentence or two each.
      facts: what they follow from.
      sizing: crop, network, batch and memory.
    """

    choices: tuple[Choice, ...]
    notes: tuple[str, ...]
    facts: Facts
    sizing: Sizing

    @property
    def values(self) -> dict[str, Any]:
        return {choice.key: choice.value for choice in self.choices}

    def experiment(self) -> Experiment:
        """The experiment; what was not chosen has its default."""
        data: dict[str, dict[str, Any]] = {}
        for choice in self.choices:
            section, _, leaf = choice.key.partition(".")
            data.setdefault(section, {})[leaf] = choice.value
        return experiments.from_dict(data, "plan")


def plan(manifest: Manifest, device: Device, fold: int | None = None) -> Plan:
    """Proposes an experiment.

    Args:
      manifest: of the dataset, as one run sees it (see `folds.view`).
      device: what it is to be trained on; its memory is the budget.
      fold: the fold that the view validates on; None for a dataset without folds.

    Raises:
      FlexsegError: where the dataset cannot be trained on, or the memory is too small.
    """
    facts = facts_of(manifest)
    sizing = plan_size.fit(facts, device)
    choices = [
        *_model(facts, device, sizing),
        *_data(facts, device, sizing, fold),
        *_augment(facts, sizing, manifest),
        *_optimizer(facts, sizing),
        *_train(facts, device, sizing, manifest),
    ]
    return Plan(tuple(choices), tuple(notes(facts, device, sizing, manifest)), facts, sizing)


def _model(facts: Facts, device: Device, sizing: Sizing) -> list[Choice]:
    network, side = sizing.model.network, min(sizing.crop)
    bridge = side // network.size_divisor
    if network.levels == 6:
        depth = (
            f"a crop's {side} pixels become {bridge}; deeper adds weights more than it adds sight"
        )
    else:
        depth = f"one more would leave fewer than {plan_size.BRIDGE_SIDE} of a crop's {side} pixels"
    filters = (
        "Enough for most data, and a CPU trains it in minutes; try 32 where time is no matter."
        if device.kind == "cpu"
        else "nnU-Net's width, which a GPU has the speed for."
    )
    if network.normalization == "batch":
        normalization = f"The statistics of {sizing.batch} examples in a batch are sound enough."
    else:
        normalization = f"The statistics of {sizing.batch} examples in a batch would be noise."
    spread = ", ".join(
        f"{m:.0f} +- {d:.0f}" for m, d in zip(facts.means, facts.deviations, strict=True)
    )
    return [
        Choice("model.name", "flex_unet", "A plain U-Net is hard to beat where data are few."),
        Choice("model.levels", network.levels, f"Halving its sides, {depth}."),
        Choice("model.base_filters", network.base_filters, filters),
        Choice("model.normalization", network.normalization, normalization),
        Choice(
            "model.input_normalization",
            "unit",
            f"Channels have {spread} of 0..255; the first normalization evens out what is left.",
        ),
    ]


def _data(facts: Facts, device: Device, sizing: Sizing, fold: int | None) -> list[Choice]:
    crop, record = sizing.crop, facts.typical
    whole = is_whole(facts, sizing)
    size = sides(record)
    if whole:
        why = f"All records are {size}, which the network takes and the memory holds."
    else:
        kind = "Records are" if facts.one_size else "The typical record is"
        why = f"{kind} {size}; {_why_smaller(facts, sizing)}."
    budget, taken = device.memory / 2**30, sizing.memory.total / 2**30
    reasons = {
        "work": "More would make fewer, slower steps of the same time",
        "examples": f"More would be much of the {facts.examples} examples at once",
        "memory": "More would not fit",
    }
    choices = [
        Choice("data.crop_size", None if whole else list(crop), why),
        Choice(
            "data.batch_size",
            sizing.batch,
            f"{reasons[sizing.limit]}. A step takes about {taken:.1f} GB "
            f"of the {budget:.1f} GB allowed"
            + (f", on each of {device.count} GPUs." if device.count > 1 else "."),
        ),
    ]
    if fold is not None:
        why = "The dataset has folds; train once for each to use all of it for validation."
        choices.append(Choice("data.fold", fold, why))
    name, share = facts.rarest
    if not whole and 0 < share < _SCARCE and part(facts, sizing) < 0.75:
        why = (
            f"A crop is {percent(part(facts, sizing))} of a record, and {name} {percent(share)} of "
            "the pixels; a third of the crops is made to show foreground, as nnU-Net does."
        )
        choices.append(Choice("data.foreground_share", _OVERSAMPLED, why))
    decoded = facts.pixels * (facts.channels + 1)
    spare = device.memory - sizing.memory.total if device.kind == "cpu" else _CACHED
    if part(facts, sizing) < 0.25 and decoded <= min(_CACHED, spare):
        why = (
            f"A record is decoded for a crop of {percent(part(facts, sizing))} of it; all of them "
            f"decoded take {max(1, decoded >> 20)} MiB."
        )
        choices.append(Choice("data.cache", "memory", why))
    if facts.empty > 0.5:
        rate = round((1 - facts.empty) / facts.empty, 2)
        why = f"{facts.empty:.0%} of the records hold no foreground; so half of those read do."
        choices.append(Choice("data.empty_rate", max(rate, 0.01), why))
    return choices


def _augment(facts: Facts, sizing: Sizing, manifest: Manifest) -> list[Choice]:
    groups = facts.groups
    strength = next((s for below, s in _AUGMENTATION if groups < below), _AUGMENTATION_OF_MANY)
    words = " ".join(facts.names).lower()
    sided = re.search(r"\b(left|right)\b", words.replace("_", " "))
    upright = re.search(r"\b(upper|lower|top|bottom)\b", words.replace("_", " "))
    tiled = bool(manifest.options.get("tile_size")) or part(facts, sizing) < 0.25
    few = f"{groups} groups in training" if groups > 1 else "one group in training"
    choices = [
        Choice(
            "augment.flip_horizontal",
            not sided,
            f'A class name says "{sided[0]}", which a mirror would make wrong.'
            if sided
            else "Twice the data; false where left and right mean something.",
        ),
        Choice(
            "augment.flip_vertical",
            not upright,
            f'A class name says "{upright[0]}", which a mirror would make wrong.'
            if upright
            else "Twice the data; false where up is always up and that helps.",
        ),
    ]
    if tiled and not sided and not upright:
        why = "Parts of large images seldom have an up."
        choices.append(Choice("augment.rotate90", sizing.crop[0] == sizing.crop[1], why))
    why = f"With {few}, what differs between groups is {_known(groups)}."
    keys = ("rotation", "scale", "brightness", "contrast")
    first = f"{why[:-1]}; in degrees, and shares of size and gray values."
    for i, (key, value) in enumerate(zip(keys, strength, strict=True)):
        choices.append(Choice(f"augment.{key}", value, "" if i else first))
    if groups < _AUGMENTATION[0][0]:
        why = "Scanners and stains differ in gamma, too; about nnU-Net's range."
        choices.append(Choice("augment.gamma", _GAMMA, why))
    return choices


def _optimizer(facts: Facts, sizing: Sizing) -> list[Choice]:
    total = _total_steps(facts, sizing)
    rate = _LEARNING_RATE * math.sqrt(sizing.batch / _RATE_BATCH)
    return [
        Choice("optimizer.name", "adamw", "Forgiving of its learning rate."),
        Choice(
            "optimizer.learning_rate",
            float(f"{rate:.2g}"),
            f"0.001 for batches of {_RATE_BATCH}, and with the root of the batch from there; "
            "flexseg lr-find measures it.",
        ),
        Choice("optimizer.schedule", "cosine", "It ends near 0, where the best weights are found."),
        Choice(
            "optimizer.warmup_steps",
            _within(total // _WARMUP_SHARE, _WARMUP),
            "A twentieth of the steps, until the optimizer's moments mean something.",
        ),
    ]


def _train(facts: Facts, device: Device, sizing: Sizing, manifest: Manifest) -> list[Choice]:
    crops = _crops(facts, sizing)
    per_epoch = _within(round(crops / sizing.batch), _EPOCH_STEPS)
    epochs = math.ceil(_total_steps(facts, sizing) / per_epoch)
    passes = per_epoch * epochs * sizing.batch / crops
    pieces = f"The pixels of {counted(crops, 'crop')} make"
    if is_whole(facts, sizing):
        pieces = f"{counted(facts.examples, 'example')} make{'s' * (facts.examples == 1)}"
    batches = counted(max(1, round(crops / sizing.batch)), "batch")
    choices = [
        Choice(
            "train.steps_per_epoch",
            per_epoch,
            f"{pieces} {batches} of {sizing.batch}; between {_EPOCH_STEPS[0]} and "
            f"{_EPOCH_STEPS[1]}, so that validation costs little and comes often.",
        ),
        Choice(
            "train.epochs",
            epochs,
            f"{per_epoch * epochs} steps in all, which see "
            + (
                f"each pixel about {passes:.0f} times."
                if passes >= 1.5
                else "a part of the pixels."
            ),
        ),
        Choice("train.loss", "ce+dice", "Cross entropy for sure pixels, Dice for rare classes."),
    ]
    weights = _class_weights(facts, sizing)
    if weights:
        choices.append(Choice("train.class_weights", "median", weights))
    choices.append(Choice("train.precision", device.precision, f"Because {device.reason}."))
    valid = manifest.splits.get("valid")
    if valid is not None and valid.examples and not sum(valid.class_pixels[1:]):
        why = "The valid split holds no foreground, so that its Dice says nothing."
        choices.append(Choice("train.monitor", "val_loss", why))
    why = (
        "No early stop: the schedule's end gains most, and the best epoch is kept anyhow."
        if valid is not None and valid.examples
        else "No early stop: there is no valid split to stop by."
    )
    choices.append(Choice("train.patience", 0, why))
    return choices


def _why_smaller(facts: Facts, sizing: Sizing) -> str:
    """Why the crop is not the typical record; without a full stop."""
    reasons = []
    largest = plan_size.largest_crop(facts)
    if sizing.crop != largest:
        reasons.append(f"two crops of {sides(largest)} would not fit into the memory")
    elif max(facts.typical) > plan_size.LARGEST_SIDE:
        reasons.append(f"up to {plan_size.LARGEST_SIDE} pixels a side are cropped")
    divisor = sizing.model.network.size_divisor
    if any(side % divisor for side in facts.typical):
        reasons.append(f"sides must be multiples of {divisor}")
    if not facts.one_size:
        reasons.append(f"records from {sides(facts.low)} to {sides(facts.high)} come to one size")
    return ", ".join(reasons)


def _class_weights(facts: Facts, sizing: Sizing) -> str:
    """Why classes shall weigh by their frequency; "" where they need not."""
    if not facts.foreground:
        return ""
    name, share = facts.rarest
    unequal = max(facts.foreground.values()) / share
    if is_whole(facts, sizing) and share < _RARE:
        return f"{name} is {percent(share)} of the pixels, and no choice of crops makes it more."
    if unequal >= _UNEQUAL:
        return f"Of the foreground, one class has {unequal:.0f} times the pixels of {name}."
    return ""


def _known(groups: int) -> str:
    if groups < _AUGMENTATION[0][0]:
        return "hardly known, so it is made up generously"
    if groups < _AUGMENTATION[1][0]:
        return "known in part, so it is made up in part"
    return "in the data, so that little must be made up"


def _crops(facts: Facts, sizing: Sizing) -> int:
    """How many crops' pixels there are."""
    return max(1, round(facts.pixels / math.prod(sizing.crop)))


def _total_steps(facts: Facts, sizing: Sizing) -> int:
    return _within(round(_PASSES * _crops(facts, sizing) / sizing.batch), _STEPS)


def _within(value: int, bounds: tuple[int, int]) -> int:
    return min(max(value, bounds[0]), bounds[1])
