"""An older project's config -> how long, by which loss and with what beside it is trained."""

from __future__ import annotations

from typing import Any

from train.old_config.tables import API, FLEX
from train.old_config.values import Values

_KERAS_PATIENCE = 10  # of ReduceLROnPlateau, where none is given
_FLEX_LOSSES = ("categorical_crossentropy", "binary_crossentropy")  # what Keras knew, and we do
_KERAS_LOSSES = (
    "categorical_focal_crossentropy",
    "binary_focal_crossentropy",
    "mse",
    "mean_squared_error",
    "mae",
    "mean_absolute_error",
    "kl_divergence",
    "kld",
    "poisson",
    "hinge",
    "squared_hinge",
    "categorical_hinge",
    "huber",
    "log_cosh",
    "cosine_similarity",
    "sparse_categorical_crossentropy",
)
_FOCAL = {
    "categorical_focal_crossentropy": "focal(gamma=2)",
    "binary_focal_crossentropy": "focal(gamma=2)",
}
_API_LOSSES = {
    "binary_crossentropy": "binary_crossentropy",
    "dice_loss": "dice_loss",
    "bce_dice_loss": "bce_dice_loss",
    "iou_loss": "iou_loss",
    "bce_iou_loss": "bce_iou_loss",
    "basnet_hybrid_loss": "basnet_hybrid_loss",
    "jacard_loss": "jacard_loss",
    "ssim_loss": "ssim",
}
_METRICS = {
    FLEX: ("dice_coef_multiclass", "dice_loss_multiclass"),
    API: ("dice_coef", "iou_coef", "jacard_similarity", "sensitivity", "specificity",
          "binary_accuracy"),
}  # fmt: skip


def convert(values: Values, head: str) -> dict[str, Any]:
    """The section `train` of an experiment.

    Args:
      values: the config.
      head: of the network, "softmax" or "sigmoid".
    """
    steps = 0
    if values.get("model", "generator"):
        steps = values.get("train", "steps_per_epoch")
        values.note(
            "train.steps_per_epoch",
            "With [model] generator = True an epoch was so many batches of the generator.",
        )
    else:
        for key in ("steps_per_epoch", "validation_steps"):
            if values.given("train", key):
                values.note_on("train", key, "had no effect: [model] generator is not True.")
    result: dict[str, Any] = {
        "epochs": values.get("train", "epochs"),
        "steps_per_epoch": steps,
        "loss": _loss(values, head),
        "seed": 137,
        "monitor": "val_loss",
        "patience": max(0, values.get("train", "patience")),
        **_plateau(values),
        **_previews(values),
    }
    _note_metrics(values)
    return result


def _loss(values: Values, head: str) -> str:
    written = values.get("model", "loss")
    if values.dialect == API:
        if written in _API_LOSSES:
            return _API_LOSSES[written]
        values.note_on(
            "model",
            "loss",
            "could not have worked: the old program knew "
            f"{', '.join(_API_LOSSES)}; bce_dice_loss is taken.",
        )
        return "bce_dice_loss"
    if head == "sigmoid" and written == "categorical_crossentropy":
        values.note_on(
            "model",
            "loss",
            "could not have worked: over one class it is 0 whatever the"
            " network says; binary_crossentropy is taken.",
        )
        return "binary_crossentropy"
    if written in _FLEX_LOSSES:
        return written
    if written in _FOCAL:
        values.note_on("model", "loss", "is focal(gamma=2) here, without Keras' factor of 0.25.")
        return _FOCAL[written]
    if written == "dice_loss_multiclass":
        values.note_on(
            "model",
            "loss",
            "could not have worked: the old program took Keras' own "
            "names alone, though it defined this loss; here it works.",
        )
        return written
    instead = "binary_crossentropy" if head == "sigmoid" else "categorical_crossentropy"
    what = "has no counterpart" if written in _KERAS_LOSSES else "could not have worked"
    if written == "sparse_categorical_crossentropy":
        what = "could not have worked, as masks were one-hot"
    values.note_on("model", "loss", f"{what}; {instead} is taken.")
    return instead


def _plateau(values: Values) -> dict[str, Any]:
    """Patience and factor of the reduction of the learning rate, as they were in effect."""
    factor = values.get("train", "reducer_factor")
    if not values.get("train", "learning_rate_reducer"):
        for key in ("reducer_factor", "reducer_patience"):
            if values.given("train", key):
                values.note_on(
                    "train", key, "had no effect: [train] learning_rate_reducer is not True."
                )
        return {"plateau_patience": 0}
    stop = values.get("train", "patience")
    if values.dialect == FLEX:
        patience = _KERAS_PATIENCE
        if 0 < stop <= patience:
            values.note(
                "train.plateau_patience",
                "The old program stopped early before it ever "
                "reduced the learning rate; so does this.",
            )
    else:
        given = values.get("train", "reducer_patience")
        patience = given if given is not None else (stop // 2 if stop > 0 else 5) or 5
    return {"plateau_patience": max(0, patience), "plateau_factor": factor}


def _previews(values: Values) -> dict[str, Any]:
    """The images of a folder that are segmented after each epoch, in place of our own previews."""
    key = "epoch_change_tiled_infer" if values.dialect == FLEX else "epoch_change_tiledinfer"
    whole, tiled = (values.get("train", k) for k in ("epoch_change_infer", key))
    if not (whole or tiled):
        if values.given("train", "num_infer_images"):
            text = "had no effect: nothing was segmented after epochs."
            values.note_on("train", "num_infer_images", text)
        return {"previews": 0, "preview_folder": ""}
    section = "infer" if whole or values.dialect == FLEX else "tiledinfer"
    folder = values.get(section, "images_dir")
    if not folder:
        values.note(
            "train.preview_folder",
            f"[{section}] images_dir is missing, without which the old program could not segment "
            "anything after an epoch.",
        )
        return {"previews": 0, "preview_folder": ""}
    if whole and tiled and values.dialect != FLEX:
        other = values.get("tiledinfer", "images_dir")
        if other and other != folder:
            values.note(
                "train.preview_folder",
                f"The old program took tiled ones from [tiledinfer] images_dir, {other}; one "
                "folder serves both here.",
            )
    return {
        "previews": 0,
        "preview_folder": folder,
        "preview_count": max(1, values.get("train", "num_infer_images")),
        "preview_mode": "both" if whole and tiled else "tiled" if tiled else "whole",
    }


def _note_metrics(values: Values) -> None:
    known = _METRICS[values.dialect]
    for name in values.get("model", "metrics"):
        if name not in known:
            values.note_on(
                "model",
                "metrics",
                f"could not have worked: the old program knew no {name}, but {', '.join(known)}.",
            )
    values.note(
        "evaluate",
        "Beside Dice and IoU of each class, evaluation/test.json has the old "
        'figures under "legacy": ' + ", ".join(values.get("model", "metrics")) + ".",
    )
