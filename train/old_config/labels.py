"""The classes of an older project's config -> a label map, and how its masks are to be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import ImageColor

from pipelines import label_map as label_maps
from pipelines.label_map import Color, LabelMap
from train.old_config import sections
from train.old_config.tables import FLEX
from train.old_config.values import Values

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_COLORED = "RGB2GrayscaleImageMaskDataset"
_BASE, _NORMALIZED = "BaseImageMaskDataset", "NormalizedImageMaskDataset"


def convert(values: Values) -> LabelMap:
    """The classes that the old network told apart, in the order of its outputs.

    A network with one output tells two classes apart.
    """
    if values.dialect == FLEX:
        return _from_rgb_map(values)
    return _binary(values) if sections.classes(values) == 1 else _several(values)


def mask_flags(values: Values) -> list[str]:
    """What `flexseg prepare` is told of the masks, as flags."""
    if values.dialect == FLEX:
        return _flex_masks(values)
    return _api_masks(values)


def _from_rgb_map(values: Values) -> LabelMap:
    colors = values.get("mask", "rgb_map")
    entry = values.file.entries.get(("mask", "rgb_map"))
    if entry is None:
        values.note(
            "label_map",
            "[mask] rgb_map is missing: these are the colors of the old program's sample.",
        )
    elif entry.twice is not None:
        values.note_on(
            "mask",
            "rgb_map",
            f"gives the color {entry.twice} twice; Python keeps the place of the first.",
        )
    if list(colors.values()) != list(range(len(colors))):
        values.note_on(
            "mask",
            "rgb_map",
            "has ids that are not 0, 1, 2, ... in this order. The old"
            " program looked at the order alone, and so does this label map.",
        )
    listed: list[Sequence[Color]] = [[color] for color in colors]
    if len(listed) == 1:
        values.note_on(
            "mask", "rgb_map", "has one color, of which nothing can be learned; another is added."
        )
        only = listed[0][0]
        listed = [[only], [_WHITE]] if only == _BLACK else [[_BLACK], [only]]
    if sections.classes(values) == 1 and len(listed) > 2:
        values.note("label_map", "With one output all colors but the first are one class.")
        listed = [listed[0], [color for group in listed[1:] for color in group]]
    return _label_map(listed)


def _binary(values: Values) -> LabelMap:
    listed = _mask_colors(values)
    if listed is None:
        painted = [_named_color(values, "black", _BLACK), _named_color(values, "white", _WHITE)]
        if painted[0] == painted[1]:
            values.note("label_map", "[segmentation] black and white are the same color.")
            painted = [_BLACK, _WHITE]
        return _label_map([[color] for color in painted], _class_names(values, 2))
    inside = [color for color in listed if color != _BLACK]
    return _label_map([[_BLACK], inside or [_WHITE]], _class_names(values, 2))


def _several(values: Values) -> LabelMap:
    """For several classes, with which no program of that generation worked."""
    count, listed = sections.classes(values), _mask_colors(values) or []
    colors = list(dict.fromkeys([_BLACK, *listed]))
    if len(colors) != count:
        values.note(
            "label_map",
            f"[mask] mask_colors has not the colors of {count} classes; where "
            "they lack, grays stand for them. Mend this file.",
        )
        grays: list[Color] = [(g, g, g) for g in range(255, 0, -1)]
        colors = list(dict.fromkeys([*colors[:count], *grays]))[: min(count, 255)]
    return _label_map([[color] for color in colors], _class_names(values, count))


def _mask_colors(values: Values) -> list[Color] | None:
    """The colours of the foreground, RGB; None where masks are gray."""
    colors = values.get("mask", "mask_colors")
    several = sections.classes(values) > 1
    colored = values.get("dataset", "datasetclass") == _COLORED
    if not colored and not several:
        for key in ("mask_colors", "grayscaling"):
            if values.given("mask", key):
                values.note_on(
                    "mask", key, f"had no effect: [dataset] datasetclass is not {_COLORED}."
                )
        return None
    if colors is None:
        values.note(
            "label_map",
            "[mask] mask_colors is missing, without which the old program could not have worked.",
        )
        return None
    if values.given("mask", "grayscaling"):
        values.note_on(
            "mask",
            "grayscaling",
            "has no counterpart: every color of mask_colors was foreground, however gray.",
        )
    if values.get("mask", "color_order").lower() == "bgr":
        return [(r, g, b) for b, g, r in colors]
    return colors


def _named_color(values: Values, key: str, default: Color) -> Color:
    if not values.get("segmentation", "colorize"):
        if values.given("segmentation", key):
            values.note_on(
                "segmentation", key, "had no effect: [segmentation] colorize is not True."
            )
        return default
    try:
        red, green, blue = ImageColor.getrgb(values.get("segmentation", key))[:3]
    except ValueError:
        values.note_on("segmentation", key, "could not have worked: this is no name of a color.")
        return default
    return red, green, blue


def _class_names(values: Values, count: int) -> list[str]:
    given: Any = values.get("mask", "classes")
    if given is None:
        return []
    if isinstance(given, (list, tuple)) and all(isinstance(name, str) for name in given):
        names = list(given) if len(given) == count else ["background", *given]
        if len(names) == count and len(set(names)) == count:
            return names
    values.note_on("mask", "classes", f"has no counterpart: expected {count} names.")
    return []


def _label_map(colors: Sequence[Sequence[Color]], names: Sequence[str] = ()) -> LabelMap:
    entries: list[dict[str, Any]] = []
    for index, group in enumerate(colors):
        name = {"name": names[index]} if names else {}
        entries.append({"id": index, **name, "colors": [list(color) for color in group]})
    return label_maps.from_dict({"classes": entries})


def _flex_masks(values: Values) -> list[str]:
    form = values.get("mask", "mask_file_format")
    if form not in (".png", ".npz"):
        values.note_on(
            "mask",
            "mask_file_format",
            "could not have worked: the old program read "
            ".png and .npz; here the files say what they are.",
        )
    if form == ".npz":
        values.note(
            "prepare",
            "Masks in .npz are one-hot arrays, which are read as they are; the "
            "label map's colors only paint them.",
        )
    return ["--unmatched=nearest"]


def _api_masks(values: Values) -> list[str]:
    kind = values.get("dataset", "datasetclass")
    _note_unread(values, kind)
    if kind == _COLORED or sections.classes(values) > 1:
        values.note(
            "prepare",
            "The old program took exactly the colors of mask_colors for "
            "foreground; here others get the class of the nearest color.",
        )
        return ["--mask_kind=colors", "--unmatched=nearest"]
    if kind == _NORMALIZED:
        return [_binary_above(values, _least_gray(values) - 1)]
    if kind not in ("ImageMaskDataset", _BASE):
        values.note_on(
            "dataset",
            "datasetclass",
            "could not have worked: the old program had no such class; ImageMaskDataset is taken.",
        )
    if kind == _BASE:
        return [_binary_above(values, 0)]
    if not values.get("mask", "binarize"):
        for key in ("threshold", "algorithm"):
            if values.given("mask", key):
                values.note_on(
                    "mask",
                    key,
                    "had no effect: masks were not binarized, so that all but 0 was foreground.",
                )
        return [_binary_above(values, 0)]
    return [_binarized(values)]


def _note_unread(values: Values, kind: str) -> None:
    """Notes the keys of [mask] that the class of the dataset never looked at, and blur."""
    if kind in (_BASE, _NORMALIZED, _COLORED):
        unread = ["binarize"] * values.get("mask", "binarize") + ["threshold", "algorithm"]
        for key in unread:
            if values.given("mask", key):
                values.note_on("mask", key, f"had no effect: {kind} did not binarize masks.")
    if kind in (_BASE, _NORMALIZED):
        for key in ["blur"] * values.get("mask", "blur") + ["blur_size"]:
            if values.given("mask", key):
                values.note_on("mask", key, f"had no effect: {kind} did not blur masks.")
    elif values.get("mask", "blur"):
        values.note_on(
            "mask",
            "blur",
            "has no counterpart: it made all that lies within half of "
            "blur_size of foreground foreground, too.",
        )
    elif values.given("mask", "blur_size"):
        values.note_on("mask", "blur_size", "had no effect: [mask] blur is not True.")


def _least_gray(values: Values) -> int:
    """The least gray value g with g / 255 at or above the threshold."""
    threshold = values.get("mask", "normalized_threshold")
    if not 0 <= threshold <= 1e6:
        return 0 if threshold < 0 else 256
    return math.ceil(threshold * 255 - 1e-9)


def _binarized(values: Values) -> str:
    algorithm, threshold = values.get("mask", "algorithm"), values.get("mask", "threshold")
    found = {"cv2.THRESH_OTSU": "otsu", "cv2.THRESH_TRIANGLE": "triangle"}
    if algorithm in found:
        if threshold is not None:
            values.note_on("mask", "threshold", "had no effect: the algorithm finds it.")
        return f"--mask_kind=binary:{found[algorithm]}"
    if algorithm not in (None, "cv2.THRESH_BINARY", "cv2.THRESH_TRUNC"):
        values.note_on(
            "mask",
            "algorithm",
            "could not have worked: the old program knew OTSU, "
            "TRIANGLE, BINARY and TRUNC; BINARY is taken.",
        )
    if threshold is None:
        values.note(
            "prepare",
            "[mask] binarize = True needs a threshold, without which the old "
            "program stopped; 127 is taken.",
        )
        threshold = 127
    if algorithm == "cv2.THRESH_TRUNC":
        values.note_on(
            "mask",
            "algorithm",
            "cut values off above the threshold and left the rest, "
            "so that all but 0 was foreground.",
        )
        return _binary_above(values, 0)
    if algorithm is None:  # from the threshold on, not above it
        return _binary_above(values, math.ceil(min(max(threshold, -1), 999)) - 1)
    return _binary_above(values, math.floor(min(max(threshold, -1), 999)))


def _binary_above(values: Values, threshold: int) -> str:
    if not 0 <= threshold <= 254:
        nearest = min(max(threshold, 0), 254)
        what = "all" if threshold < 0 else "nothing"
        values.note(
            "prepare",
            f"With the threshold of [mask] {what} was foreground, of which "
            f"nothing can be learned; {nearest} is taken.",
        )
        threshold = nearest
    return f"--mask_kind=binary:{threshold}"
