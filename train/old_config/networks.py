"""The networks of the older projects: their class names and keys, and ours with the same layers."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

from flexseg_errors import FlexsegError, nearest
from train.old_config.keys import Key
from train.old_config.tables import API
from train.old_config.values import Values

Knobs = dict[str, Any]
Keys = Mapping[str, Key]


@dataclasses.dataclass(frozen=True)
class OldModel:
    """A network of the older projects.

    Attributes:
      name: ours.
      keys: of [model], beside those that every network has.
      knobs: of ours, from the values.
    """

    name: str
    keys: Keys
    knobs: Callable[[Values], Knobs]


def convert(values: Values) -> tuple[str, Knobs]:
    """The network that a config names.

    Returns:
      Our name and knobs; what could not be carried over is noted.

    Raises:
      FlexsegError: the name is none of theirs.
    """
    written = values.get("model", "model")
    old = _find(written, values)
    values.add_keys({("model", key): known for key, known in old.keys.items()})
    for key in sorted(_all_keys() - set(old.keys)):
        if values.given("model", key):
            values.note_on("model", key, f"had no effect: {written} has no such knob.", "")
            values.add_keys({("model", key): Key("any")})
    if _divided(values):
        _note_divided(values, old)
    return old.name, old.knobs(values)


def _find(written: str, values: Values) -> OldModel:
    match = re.fullmatch(r"(?i:tensorflow(?:flex)?)(\w*)", written)
    suffixes = {name.lower(): name for name in [*MODELS, *_STAND_INS]}
    name = suffixes.get(match[1].lower()) if match else None
    if name is None:
        entry = values.file.entries.get(("model", "model"))
        line = f", line {entry.line}" if entry else ""
        prefix = "Tensorflow" if values.dialect == API else "TensorFlowFlex"
        known = [prefix + suffix for suffix in MODELS if suffix not in _ALIASES]
        raise FlexsegError(
            f'{values.file.path}{line}: [model] model "{written}" is no network of the older '
            f"projects; they had {', '.join(known)}.{nearest(written, known)}"
        )
    if match and not re.match(r"TensorFlowFlex|Tensorflow", written):
        values.note_on(
            "model",
            "model",
            "is written with other capitals than the old program knew, and was refused there.",
        )
    if name in _STAND_INS:
        instead = _STAND_INS[name]
        values.note_on(
            "model",
            "model",
            "could not be trained in the old program, and there is no "
            f"such network here; {MODELS[instead].name} stands for it.",
        )
        return MODELS[instead]
    return MODELS[name]


def _all_keys() -> set[str]:
    return {key for model in MODELS.values() for key in model.keys}


def _unit(values: Values) -> str:
    return "unit" if values.get("model", "input_normalize") or _divided(values) else "none"


def _unscaled(values: Values) -> str:
    """For networks that took the values as they were given, whatever the config said."""
    if values.given("model", "input_normalize") and values.get("model", "input_normalize"):
        values.note_on(
            "model", "input_normalize", "had no effect: this network took the values as they were."
        )
    return "unit" if _divided(values) else "none"


def _divided(values: Values) -> bool:
    """Whether the old loader divided images by 255 before any network saw them."""
    return values.dialect == API and values.get("dataset", "image_normalize")


def _note_divided(values: Values, old: OldModel) -> None:
    """Notes who divides images by 255 here, where the old loader did, or once more."""
    text = "is done by the network here: it divides by 255."
    if old.name in _PRETRAINED:
        text = "has no counterpart: the network brings images to what its first weights know."
    elif old.knobs is _multires:
        text = "was done once more by this network, always; here it is done once."
    elif old.knobs is _flex_unet and values.get("model", "input_normalize"):
        text = "was done once more by [model] input_normalize; here it is done once."
    values.note_on("dataset", "image_normalize", text)


def _last(values: Values, key: str) -> int:
    """The one side that a square kernel or dilation has here."""
    pair = values.get("model", key)
    if pair[0] != pair[1]:
        what = "only the last number counted" if "kernel" in key else "both had to be equal"
        values.note_on("model", key, f"is not square: {what}.")
    return pair[1] if "kernel" in key else pair[0]


def _note_equal_up_and_down(values: Values) -> int:
    down, up = (values.get("model", f"stack_num_{way}") for way in ("down", "up"))
    if up != down:
        values.note_on(
            "model",
            "stack_num_up",
            "has no counterpart: the decoder has as many blocks as the encoder.",
            "model.name",
        )
    return down


_FILTERS = Key("whole", 16, "model.base_filters")
_LEVELS = Key("whole", 6, "model.levels")
_DROPOUT = Key("number", 0.1, "model.dropout_rate")


def _flex_unet(values: Values) -> Knobs:
    return {
        "base_filters": values.get("model", "base_filters"),
        "levels": values.get("model", "num_layers"),
        "base_kernel": _last(values, "base_kernels"),
        "base_dilation": _last(values, "dilation"),
        "dropout_rate": values.get("model", "dropout_rate"),
        "activation": values.get("model", "activation"),
        "normalization": "batch" if values.get("model", "normalization") else "none",
        "normalization_position": "after_activation",
        "input_normalization": _unit(values),
    }


_FLEX_KEYS: Keys = {
    "base_filters": dataclasses.replace(_FILTERS, required=True),
    "num_layers": _LEVELS,
    "base_kernels": Key("pair", (3, 3), "model.base_kernel"),
    "dilation": Key("pair", (1, 1), "model.base_dilation"),
    "dropout_rate": Key("number", 0.0, "model.dropout_rate", required=True),
    "activation": Key("text", "relu", "model.activation"),
    "normalization": Key("flag", False, "model.normalization"),
}


def _attention(values: Values) -> Knobs:
    return {
        "base_filters": values.get("model", "base_filters"),
        "levels": values.get("model", "num_layers"),
        "dropout_rate": values.get("model", "dropout_rate"),
        "gate": "channel",
        "normalization": "batch",
        "input_normalization": _unscaled(values),
    }


def _multires(values: Values) -> Knobs:
    if not values.get("model", "input_normalize"):
        values.note_on(
            "model", "input_normalize", "had no effect: this network always divided by 255."
        )
    return {
        "base_filters": values.get("model", "base_filters"),
        "levels": values.get("model", "num_layers"),
        "normalization": "batch",
        "input_normalization": "unit",
    }


def _sharp(values: Values) -> Knobs:
    filters = [*values.get("model", "filters"), values.get("model", "max_filter")]
    if any(b != 2 * a for a, b in itertools.pairwise(filters)):
        values.note_on(
            "model",
            "filters",
            "and max_filter have no counterpart but for the first "
            "and their number: filters double with every level.",
        )
    return {
        "base_filters": filters[0],
        "levels": len(filters),
        "kernel": _last(values, "base_ksize"),
        "dilation": _last(values, "dilation"),
        "decoder": "top_level",
        "normalization": "none",
        "dropout_rate": 0.0,
        "input_normalization": _unscaled(values),
    }


_SHARP_KEYS: Keys = {
    "filters": Key("wholes", [32, 64, 128, 256], "model.base_filters"),
    "max_filter": Key("whole", 512, "model.levels"),
    "base_ksize": Key("pair", (3, 3), "model.kernel"),
    "dilation": Key("pair", (1, 1), "model.dilation"),
}


def _swin(values: Values) -> Knobs:
    depth = max(0, min(values.get("model", "depth"), 16))
    return {
        "width": values.get("model", "filter_num_begin"),
        "patch": values.get("model", "patch_size")[0],
        "depths": [_note_equal_up_and_down(values)] * depth,
        "heads": _first(values, "num_heads", depth),
        "windows": _first(values, "window_size", depth),
        "mlp_widths": [values.get("model", "num_mlp")] * depth,
        "shifted": values.get("model", "shift_window"),
        "stochastic_depth": 0.0,
        "dropout_rate": 0.0,
        "input_normalization": _unscaled(values),
    }


def _first(values: Values, key: str, depth: int) -> list[int]:
    """One number for each level; more than that nobody looked at."""
    found = values.get("model", key)
    if len(found) > depth:
        values.note_on("model", key, f"has more than depth = {depth} numbers; the first count.")
    return found[:depth]


_SWIN_KEYS: Keys = {
    "filter_num_begin": Key("whole", 128, "model.width"),
    "depth": Key("whole", 4, "model.depths"),
    "stack_num_down": Key("whole", 2, "model.depths"),
    "stack_num_up": Key("whole", 2, "model.depths"),
    "patch_size": Key("pair", (4, 4), "model.patch"),
    "num_heads": Key("wholes", [4, 8, 8, 8], "model.heads"),
    "window_size": Key("wholes", [4, 2, 2, 2], "model.windows", required=True),
    "num_mlp": Key("whole", 512, "model.mlp_widths"),
    "shift_window": Key("flag", True, "model.shifted", required=True),
}


def _trans(values: Values) -> Knobs:
    knobs: Knobs = {
        "embed_width": values.get("model", "embed_dim"),
        "layers": values.get("model", "num_transformer"),
        "heads": values.get("model", "num_heads"),
        "mlp_width": values.get("model", "num_mlp"),
        "normalization": "batch" if values.get("model", "batch_norm") else "none",
        "input_normalization": _unscaled(values),
    }
    filters = values.get("model", "filter_num")
    if len(filters) == 4:
        knobs["decoder_filters"] = filters[::-1]
    else:
        values.note_on("model", "filter_num", "has no counterpart: the decoder has 4 levels.")
    backbone = values.get("model", "backbone")
    if backbone != "ResNet50":
        what = f"a {backbone}" if backbone else "plain convolutions"
        values.note(
            "model.name",
            f"[model] backbone: the old encoder was {what}; here it is a "
            "ResNet, as in the paper, which nothing pretrains.",
        )
    _note_equal_up_and_down(values)
    return knobs


_NO_BACKBONE = "the ResNet is trained from its first weights, with all the rest"
_FIXED = "activations, convolutions per level and pooling are those of the paper"
_TRANS_KEYS: Keys = {
    "filter_num": Key("wholes", [64, 128, 256, 512], "model.decoder_filters"),
    "stack_num_down": Key("whole", 2, "model.name", gap=_FIXED),
    "stack_num_up": Key("whole", 2, "model.name", gap=_FIXED),
    "embed_dim": Key("whole", 768, "model.embed_width"),
    "num_mlp": Key("whole", 3072, "model.mlp_width"),
    "num_heads": Key("whole", 12, "model.heads"),
    "num_transformer": Key("whole", 12, "model.layers"),
    "activation": Key("text", "ReLU", "model.name", gap=_FIXED),
    "mlp_activation": Key("text", "GELU", "model.name", gap=_FIXED),
    "batch_norm": Key("flag", False, "model.normalization"),
    "pool": Key("any", True, "model.name", gap=_FIXED),
    "unpool": Key("any", place="model.name", idle='the key "pool" was read twice instead'),
    "backbone": Key("text?", None, "model.name"),
    "weights": Key("text?", "imagenet", "model.name", gap=_NO_BACKBONE),
    "freeze_backbone": Key("flag", True, "model.name", gap=_NO_BACKBONE),
    "freeze_batch_norm": Key("flag", True, "model.name", gap=_NO_BACKBONE),
}


def _u2net(values: Values) -> Knobs:
    return {
        "plan": "doubling",
        "base_filters": values.get("model", "base_filters"),
        "levels": values.get("model", "num_layers"),
        "normalization": "none",
        "input_normalization": _unscaled(values),
    }


def _unet3_plus(values: Values) -> Knobs:
    values.get("model", "num_layers")
    values.note(
        "model.name",
        "The old network also pulled its weights to zero (L2, 1e-4); here "
        "optimizer.weight_decay does, with adamw.",
    )
    if values.dialect != API:
        values.note("model.name", "This network crashed in the old program of this generation.")
    return {
        "base_filters": values.get("model", "base_filters"),
        "levels": 5,
        "dropout_rate": values.get("model", "dropout_rate"),
        "normalization": "batch",
        "input_normalization": _unscaled(values),
    }


def _pretrained(values: Values, place: str) -> str:
    values.note(
        place,
        "The old network began with ImageNet's weights, which are downloaded once; "
        '"none" needs no network connection, and learns more slowly.',
    )
    return "imagenet"


def _deeplab(values: Values) -> Knobs:
    return {"backbone": "resnet50", "weights": _pretrained(values, "model.weights")}


def _efficient(values: Values) -> Knobs:
    name = values.get("model", "efficientnet")
    if name == "B6":
        values.note_on(
            "model", "efficientnet", "crashed the old program, which knew no B6; here it works."
        )
    return {"variant": name.lower(), "weights": _pretrained(values, "model.weights")}


def _efficient_b7(values: Values) -> Knobs:
    return {
        "weights": _pretrained(values, "model.weights"),
        "frozen_stages": 6,  # all but the last 61 of its layers: stage 7 and what follows
    }


MODELS: Mapping[str, OldModel] = {
    "UNet": OldModel("flex_unet", _FLEX_KEYS, _flex_unet),
    "FlexUNet": OldModel("flex_unet", _FLEX_KEYS, _flex_unet),
    "SlightlyFlexibleUNet": OldModel("flex_unet", _FLEX_KEYS, _flex_unet),
    "AttentionUNet": OldModel(
        "attention_unet",
        {"base_filters": _FILTERS, "num_layers": _LEVELS, "dropout_rate": _DROPOUT},
        _attention,
    ),
    "DeepLabV3Plus": OldModel("deeplab_v3_plus", {}, _deeplab),
    "EfficientUNet": OldModel(
        "efficient_unet", {"efficientnet": Key("text", "B0", "model.variant")}, _efficient
    ),
    "EfficientNetB7UNet": OldModel("efficientnet_b7_unet", {}, _efficient_b7),
    "MultiResUNet": OldModel(
        "multires_unet", {"base_filters": _FILTERS, "num_layers": _LEVELS}, _multires
    ),
    "SharpUNet": OldModel("sharp_unet", _SHARP_KEYS, _sharp),
    "SwinUNet": OldModel("swin_unet", _SWIN_KEYS, _swin),
    "TransUNet": OldModel("trans_unet", _TRANS_KEYS, _trans),
    "U2Net": OldModel("u2net", {"base_filters": _FILTERS, "num_layers": _LEVELS}, _u2net),
    "UNet3Plus": OldModel(
        "unet3_plus",
        {
            "base_filters": _FILTERS,
            "num_layers": Key(
                "whole", 6, "model.levels", gap="the network has 5 levels; this only widened it"
            ),
            "dropout_rate": Key("number", 0.0, "model.dropout_rate", required=True),
        },
        _unet3_plus,
    ),
}
_PRETRAINED = ("deeplab_v3_plus", "efficient_unet", "efficientnet_b7_unet")
_ALIASES = ("FlexUNet", "SlightlyFlexibleUNet")

# Files that lay beside the others and that no entry point could reach -> what is nearest here.
_STAND_INS = {"XceptionLikeUNet": "UNet", "3DUNet": "UNet", "BASNet": "U2Net"}
