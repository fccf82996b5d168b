"""The losses by name, and sums of them as an experiment asks for them: "0.5*ce+0.5*dice"."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable
from typing import Any

from flexseg_errors import FlexsegError, nearest
from train import legacy_losses, overlap_losses, pixel_losses, shape_losses
from train.loss_contract import Loss, Sums, WeightedSum

__all__ = ["LOSSES", "Loss", "Sums", "WeightedSum", "parse"]

LOSSES: dict[str, Callable[..., Loss]] = {
    "ce": pixel_losses.CrossEntropy,
    "bce": pixel_losses.BinaryCrossEntropy,
    "focal": pixel_losses.Focal,
    "dice": overlap_losses.SoftDice,
    "generalized_dice": overlap_losses.GeneralizedDice,
    "jaccard": overlap_losses.Jaccard,
    "tversky": overlap_losses.Tversky,
    "focal_tversky": overlap_losses.FocalTversky,
    "lovasz": overlap_losses.Lovasz,
    "ssim": shape_losses.StructuralSimilarity,
    "cldice": shape_losses.CenterlineDice,
    "boundary": shape_losses.Boundary,
    "hausdorff": shape_losses.Hausdorff,
    # Names and formulas of older projects.
    "categorical_crossentropy": legacy_losses.categorical_crossentropy,
    "binary_crossentropy": legacy_losses.binary_crossentropy,
    "dice_loss": legacy_losses.dice_loss,
    "dice_loss_multiclass": legacy_losses.dice_loss_multiclass,
    "iou_loss": legacy_losses.iou_loss,
    "jacard_loss": legacy_losses.iou_loss,
    "bce_dice_loss": legacy_losses.bce_dice_loss,
    "bce_iou_loss": legacy_losses.bce_iou_loss,
    "basnet_hybrid_loss": legacy_losses.basnet_hybrid_loss,
}

# A sign between terms; not one within parentheses, and not that of an exponent such as 1e+2.
_PLUS = re.compile(r"(?<![0-9][eE])\+(?![^()]*\))")
_TERM = re.compile(r"\s*(?:([0-9.eE+-]+)\s*\*\s*)?([a-z_0-9]+)\s*(?:\(([^()]*)\)\s*)?")
_WEIGHTED = "class_weights"


def parse(text: str, class_weights: tuple[float, ...] = ()) -> WeightedSum:
    """Reads a sum of losses such as "ce+dice", "0.5*bce+0.5*dice" or "focal(gamma=2)+ssim".

    Args:
      text: the sum; parameters in parentheses, by name, are data and never evaluated.
      class_weights: one for each class, for the losses that take them (ce, bce, focal); () for
        none.

    Raises:
      FlexsegError: naming what cannot be read, and what is known; or where no loss of the sum
        takes class weights.
    """
    terms: list[tuple[float, str, Loss]] = []
    for part in _PLUS.split(text):
        match = _TERM.fullmatch(part)
        name = match.group(2) if match else part.strip()
        if not match or name not in LOSSES:
            raise FlexsegError(
                f'train.loss "{text}": "{part.strip()}" is not a loss; known are '
                f"{', '.join(LOSSES)}, with weights such as 0.5*ce+0.5*dice and parameters such "
                "as focal(gamma=2)." + nearest(name, LOSSES)
            )
        weight = _number(match.group(1) or "1")
        if weight is None or weight <= 0:
            raise FlexsegError(
                f'train.loss "{text}": "{match.group(1)}" is not a weight; expected a number '
                "above 0."
            )
        loss = _make(name, match.group(3) or "", f'train.loss "{text}"', class_weights)
        if (name, loss) in ((known, other) for _, known, other in terms):
            raise FlexsegError(f'train.loss "{text}" names {name} twice.')
        terms.append((weight, name, loss))
    if class_weights and not any(_takes_weights(name) for _, name, _ in terms):
        known = [name for name in LOSSES if _takes_weights(name)]
        raise FlexsegError(
            f'train.loss "{text}" has no loss that takes class weights, which are '
            f"{', '.join(known)}; add one of them, or set train.class_weights=none."
        )
    return WeightedSum(tuple(terms))


def _make(name: str, arguments: str, origin: str, class_weights: tuple[float, ...]) -> Loss:
    """The loss `name` with parameters from text such as "gamma=2, smooth=0"."""
    fields = _parameters(name)
    values: dict[str, Any] = {}
    for argument in arguments.split(",") if arguments.strip() else []:
        key, equals, value = (part.strip() for part in argument.partition("="))
        if not fields:
            raise FlexsegError(f"{origin}: {name} takes no parameters.")
        if not equals:
            first = next(iter(fields))
            raise FlexsegError(
                f'{origin}: "{argument.strip()}" does not say which parameter of {name} it is; '
                f"write {first}=..."
            )
        if key not in fields:
            raise FlexsegError(
                f'{origin}: {name} has no parameter "{key}"; known are {", ".join(fields)}.'
                + nearest(key, fields)
            )
        if key in values:
            raise FlexsegError(f"{origin}: {name} is given {key} twice.")
        values[key] = _convert(value, fields[key], f"{origin}: {key} of {name}")
    if class_weights and _takes_weights(name):
        values[_WEIGHTED] = class_weights
    try:
        return LOSSES[name](**values)
    except FlexsegError as error:
        raise FlexsegError(f"{origin}: {name}: {error}") from error


def _parameters(name: str) -> dict[str, type[Any]]:
    """The parameters of a loss and their types: fields that are documented."""
    kind = LOSSES[name]
    if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
        return {}
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if "doc" in f.metadata}


def _takes_weights(name: str) -> bool:
    return hasattr(LOSSES[name], _WEIGHTED)


def _convert(text: str, kind: type[Any], where: str) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise FlexsegError(f'{where} must be true or false, not "{text}".')
        return text == "true"
    number = _number(text)
    if number is None or (kind is int and not number.is_integer()):
        wanted = "a whole number" if kind is int else "a number"
        raise FlexsegError(f'{where} must be {wanted}, not "{text}".')
    return kind(number)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
