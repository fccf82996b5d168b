"""An older project's config -> the keys of an experiment."""

from __future__ import annotations

import dataclasses
from typing import Any

from flexseg_errors import FlexsegError
from train import experiment as experiments
from train.old_config import networks, training
from train.old_config.tables import API, FLEX
from train.old_config.values import Values

Sections = dict[str, dict[str, Any]]

_KERAS_DECAY = 0.004  # of AdamW


def convert(values: Values) -> Sections:
    """The sections of an experiment that does what the old program did.

    Every key that decides what is trained is named, as the defaults here are others. A value that
    the experiment refuses is left out, and that is noted.

    Returns:
      Section -> key -> plain value; `experiment.from_dict` takes it.
    """
    name, knobs = networks.convert(values)
    head = _head(values)
    wanted: Sections = {
        "model": {"name": name, "head": head, **knobs},
        "data": {"batch_size": values.get("train", "batch_size")},
        "augment": _augment(),
        "optimizer": _optimizer(values),
        "train": training.convert(values, head),
        "inference": _inference(values),
    }
    return _accepted(values, wanted)


def classes(values: Values) -> int:
    """The classes that the old network told apart: 1 for a lone sigmoid."""
    count = values.get("model", "num_classes") if values.given("model", "num_classes") else None
    if values.dialect == API:
        if count is None:
            count = values.get("model", "num_classes")
        if count > 1:
            values.note_on(
                "model", "num_classes", "could not have worked: the old arrays held one class."
            )
        return max(1, count)
    in_map = len(values.get("mask", "rgb_map"))
    if count is None:
        values.note(
            "model.head",
            "[model] num_classes is missing, on which the old program "
            f"stopped; the {in_map} colors of [mask] rgb_map are counted.",
        )
        return in_map
    if count > 1 and in_map > count:
        values.note_on(
            "model",
            "num_classes",
            f"could not have worked: [mask] rgb_map has {in_map} colors, and each is a class here.",
        )
    elif count > in_map:
        values.note_on(
            "model",
            "num_classes",
            f"has more classes than [mask] rgb_map colors; those"
            f" without a color were never seen, and are left out: {in_map} stay.",
        )
    return 1 if count < 2 else in_map


def _head(values: Values) -> str:
    count = classes(values)
    last = values.get("model", "final_activation")
    if count == 1:
        if last != "sigmoid":
            values.note_on(
                "model", "final_activation", "has no counterpart: one logit gets a sigmoid."
            )
        return "sigmoid"
    if values.given("model", "final_activation") and values.dialect == FLEX:
        values.note_on("model", "final_activation", "had no effect: several classes got a softmax.")
    return "softmax"


def _augment() -> dict[str, Any]:
    """Nothing: what the old generator did is written into the dataset."""
    defaults = dataclasses.asdict(experiments.AugmentConfig())
    return {key: type(value)(0) for key, value in defaults.items()}


def _optimizer(values: Values) -> dict[str, Any]:
    written = values.get("model", "optimizer")
    name = "adamw" if written.lower() == "adamw" else "adam"
    if written not in ("Adam", "AdamW"):
        values.note_on(
            "model",
            "optimizer",
            f"could not have worked: the old program knew Adam and AdamW alone; {name} is taken.",
        )
    result: dict[str, Any] = {
        "name": name,
        "learning_rate": values.get("model", "learning_rate"),
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "clip": "value",
        "clip_threshold": values.get("model", "clipvalue"),
        "schedule": "constant",
        "warmup_steps": 0,
    }
    if name == "adamw":
        result["weight_decay"] = _KERAS_DECAY
        values.note(
            "optimizer.weight_decay",
            "The old program left this at Keras' default, which "
            "pulled at biases, too; here it does not.",
        )
    return result


def _inference(values: Values) -> dict[str, Any]:
    """The overlap of tiles: crops of split_size + 2 overlapping lay split_size apart."""
    size, margin = values.get("tiledinfer", "split_size"), values.get("tiledinfer", "overlapping")
    if size is None:
        size = values.get("model", "image_width")
    if size < 1 or margin < 0:
        values.note(
            "inference.overlap",
            f"[tiledinfer] split_size {size} with overlapping "
            f"{margin} could not have worked; tiles do not overlap.",
        )
        margin, size = 0, 1
    return {
        "overlap": round(2 * margin / (size + 2 * margin), 4),
        "weights": "gaussian" if margin else "uniform",
        "batch_size": 1,
    }


def _accepted(values: Values, wanted: Sections) -> Sections:
    """What of it an experiment takes; the rest is left out and noted."""
    while True:
        try:
            experiments.from_dict(wanted, "")
        except FlexsegError as error:
            reason = str(error).removeprefix(": ")
            section, key = _culprit(reason)
            keys = wanted[section]
            gone = [key] if key in keys else [k for k in keys if k not in ("name", "head")]
            for name in gone:
                values.note(
                    f"{section}.{name}",
                    f"{name}: {keys[name]!r} is left out, as it is not"
                    f" possible here and could hardly have worked: {reason}",
                )
            wanted = {**wanted, section: {k: v for k, v in keys.items() if k not in gone}}
        else:
            return wanted


def _culprit(reason: str) -> tuple[str, str]:
    """The section and key with which an experiment's message begins."""
    section, _, key = reason.split()[0].partition(".")
    return section, key
