"""Names, colours and class ids; masks in colours to masks in class ids and back."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import yaml

from flexseg_errors import FlexsegError

IGNORE_ID = 255  # a pixel that no loss and no metric looks at
MAX_CLASSES = 255

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class LabelClass:
    """One class: its id in masks and logits, its name, and the RGB colours that stand for it.

    The first colour is the one it is painted with.
    """

    id: int
    name: str
    colors: tuple[Color, ...]


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """The classes of a dataset, in the order of their ids 0..K-1."""

    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        if not self.classes:
            raise FlexsegError("The label map holds no class.")
        ids = [c.id for c in self.classes]
        missing = sorted(set(range(len(ids))) - set(ids))
        if missing or len(ids) > MAX_CLASSES:
            raise FlexsegError(
                f"The label map's class ids are {sorted(ids)}; expected 0..K-1, each once, at most "
                f"{MAX_CLASSES} classes" + (f"; missing: {missing}." if missing else ".")
            )
        if ids != sorted(ids):
            object.__setattr__(self, "classes", tuple(sorted(self.classes, key=lambda c: c.id)))
        seen: dict[Color, LabelClass] = {}
        for label in self.classes:
            if not label.colors:
                raise FlexsegError(f'The label map gives class {label.id} "{label.name}" no color.')
            for color in label.colors:
                if color in seen:
                    raise FlexsegError(
                        f"The label map gives the color {color} twice, to the classes "
                        f"{seen[color].id} and {label.id}; give each class colors of its own."
                    )
                seen[color] = label

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @property
    def colors(self) -> np.ndarray:
        """The colour each class is painted with, uint8 [K, 3], RGB."""
        return np.array([c.colors[0] for c in self.classes], np.uint8)

    @property
    def blend_tolerance(self) -> float:
        """Half the largest distance d between two colours of the map, and a margin for rounding.

        JPEG and resampling blend neighbouring colours; a blend of two colours of the map is never
        further than d / 2 from the nearer one, or sqrt(d^2 / 4 + 3 / 4) once its three channels are
        rounded, so what lies beyond is a colour of something else.
        """
        colors = [np.array(c, float) for label in self.classes for c in label.colors]
        pairs = itertools.combinations(colors, 2)
        widest = max((float(np.linalg.norm(a - b)) for a, b in pairs), default=0.0)
        return math.sqrt(widest**2 / 4 + 3 / 4)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for YAML and JSON; `from_dict` is its inverse."""
        return {
            "classes": [
                {"id": c.id, "name": c.name, "colors": [list(color) for color in c.colors]}
                for c in self.classes
            ]
        }


def from_dict(data: Any, origin: str = "label map") -> LabelMap:
    """Reads `{"classes": [{"id", "name", "color" | "colors"}]}` or `{(r, g, b): id}`."""
    if not isinstance(data, Mapping) or not data:
        raise FlexsegError(
            f"{origin}: expected classes with id, name and color, or {{(r,g,b): id}}; got {data!r}."
        )
    if "classes" not in data:
        return _from_colors(data, origin)
    classes = []
    if not isinstance(data["classes"], Sequence) or isinstance(data["classes"], str):
        raise FlexsegError(f'{origin}: "classes" must be a list, not {data["classes"]!r}.')
    for entry in data["classes"]:
        unknown = set(entry) - {"id", "name", "color", "colors"} if isinstance(entry, dict) else {1}
        if unknown or "id" not in entry or not ("color" in entry or "colors" in entry):
            raise FlexsegError(
                f"{origin}: a class needs id and color (or colors), and may have a name; "
                f"got {entry!r}."
            )
        colors = entry["colors"] if "colors" in entry else [entry["color"]]
        if not isinstance(colors, (list, tuple)):
            raise FlexsegError(f'{origin}: "colors" must be a list of colors, not {colors!r}.')
        class_id = _class_id(entry["id"], origin)
        classes.append(
            LabelClass(
                class_id,
                str(entry.get("name", _default_name(class_id))),
                tuple(_color(c, origin) for c in colors),
            )
        )
    ids = [c.id for c in classes]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise FlexsegError(f"{origin}: class ids {twice} are given more than once.")
    return LabelMap(tuple(classes))


def load(file_or_literal: str) -> LabelMap:
    """Reads a label map from a YAML file or from a literal such as `{(0,0,0):0,(255,0,0):1}`.

    The text is read as data and never evaluated.

    Raises:
      FlexsegError: where there is neither such a file nor a literal that can be read.
    """
    text = file_or_literal.strip()
    if text.startswith("{"):
        try:
            node = ast.parse(text, mode="eval").body
            data = ast.literal_eval(node)
            keys = [ast.literal_eval(k) for k in getattr(node, "keys", ())]
            twice = [k for k in data if keys.count(k) > 1]  # Python keeps the last without a word
            if twice:
                raise FlexsegError(f"The label map {text!r} gives the color {twice[0]} twice.")
            return from_dict(data, f"label map {text}")
        except (ValueError, SyntaxError, TypeError, RecursionError) as error:
            if isinstance(error, FlexsegError):
                raise
            raise FlexsegError(
                f"The label map {text!r} cannot be read as data ({error}). "
                "Expected a form such as {(0,0,0):0,(255,0,0):1}."
            ) from error
    if not os.path.isfile(text):
        raise FlexsegError(
            f"There is no label map file {text!r}. Give a YAML file, or a literal such as "
            "{(0,0,0):0,(255,0,0):1} in quotes."
        )
    try:
        with open(text, encoding="utf-8") as file:
            return from_dict(yaml.safe_load(file), text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlexsegError(f"{text} is not a YAML file: {error}") from error


def dump(label_map: LabelMap) -> str:
    """The label map as YAML, the form that `load` reads from a file."""
    return yaml.safe_dump(label_map.to_dict(), sort_keys=False, default_flow_style=None)


@dataclasses.dataclass(frozen=True)
class Categorized:
    """A mask in class ids, and what its colours were like.

    Attributes:
      ids: uint8 [H, W], the class id of the nearest colour.
      unmatched: how many pixels are further from every colour than the tolerance.
      example: the most frequent of those pixels' colours, or None.
      far: bool [H, W], those pixels.
    """

    ids: np.ndarray
    unmatched: int
    example: Color | None
    far: np.ndarray


class Categorizer:
    """Maps the colours of masks to class ids: nearest in RGB, ties to the lower class id.

    Keeps a table from every 24-bit colour met so far to its class, so that a mask costs one look-up
    a pixel however many classes there are.
    """

    _UNKNOWN = 0xFFFF
    _UNMATCHED = 0x100

    def __init__(self, label_map: LabelMap, tolerance: float | None = None):
        """Starts with an empty table.

        Args:
          label_map: the classes.
          tolerance: Euclidean distance in RGB units (0..441) up to which a colour is taken for
            the nearest one of the map; None stands for `label_map.blend_tolerance`.
        """
        self.tolerance = label_map.blend_tolerance if tolerance is None else tolerance
        self._colors = np.array([c for k in label_map.classes for c in k.colors], np.int32)
        self._ids = np.array([k.id for k in label_map.classes for _ in k.colors], np.uint16)
        self._table = np.full(1 << 24, self._UNKNOWN, np.uint16)

    def __call__(self, mask: np.ndarray) -> Categorized:
        """Maps a mask.

        Args:
          mask: uint8 [H, W] (gray) or [H, W, 3] (RGB).

        Returns:
          The mask in class ids.
        """
        if mask.ndim == 2:
            return self._gray(mask)
        wide = mask.astype(np.uint32)
        packed = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        found = self._table[packed]
        new = found == self._UNKNOWN
        if new.any():
            # Sorting (np.unique) would cost seconds on a large mask; this is a pass over 16 MB.
            present = np.zeros(1 << 24, bool)
            present[packed[new]] = True
            self._learn(np.flatnonzero(present))
            found = self._table[packed]
        outside = found >= self._UNMATCHED
        unmatched = int(np.count_nonzero(outside))
        example = None
        if unmatched:
            colors, counts = np.unique(packed[outside], return_counts=True)
            color = int(colors[counts.argmax()])
            example = (color >> 16, color >> 8 & 0xFF, color & 0xFF)
        return Categorized((found & 0xFF).astype(np.uint8), unmatched, example, outside)

    def _gray(self, mask: np.ndarray) -> Categorized:
        """The same for uint8 [H, W], through the 256 grays alone."""
        grays = np.arange(256, dtype=np.uint32) * 0x010101
        self._learn(grays[self._table[grays] == self._UNKNOWN])
        found = self._table[grays]
        outside = found >= self._UNMATCHED
        counts = np.where(outside, np.bincount(mask.ravel(), minlength=256), 0)
        gray = int(counts.argmax())
        example = (gray, gray, gray) if counts[gray] else None
        ids = cv2.LUT(mask, (found & 0xFF).astype(np.uint8))
        return Categorized(ids, int(counts.sum()), example, outside[mask])

    def nearest(self, color: Color) -> Color:
        """The colour of the map that `color` is taken for."""
        distance = ((self._colors - np.array(color, np.int32)) ** 2).sum(-1)
        r, g, b = self._colors[distance.argmin()].tolist()
        return r, g, b

    def _learn(self, packed: np.ndarray) -> None:
        for part in np.array_split(
            packed, max(1, packed.size >> 16)
        ):  # bounds the [N, K] distances
            rgb = np.stack([part >> 16, part >> 8 & 0xFF, part & 0xFF], -1).astype(np.int32)
            distance = ((rgb[:, None] - self._colors) ** 2).sum(-1)
            value = self._ids[distance.argmin(-1)]
            far = distance.min(-1) > self.tolerance**2 + 1e-6
            self._table[part] = value | np.where(far, self._UNMATCHED, 0).astype(np.uint16)


def colorize(ids: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """Paints class ids, uint8 [..., H, W], in the colours of their classes, uint8 [..., H, W, 3].

    Ids outside the map (the ignore id among them) are painted mid-gray.
    """
    palette = np.full((256, 3), 128, np.uint8)
    palette[: label_map.num_classes] = label_map.colors
    return palette[ids]


def _from_colors(data: Mapping[Any, Any], origin: str) -> LabelMap:
    colors: dict[int, list[Color]] = {}
    for color, class_id in data.items():
        colors.setdefault(_class_id(class_id, origin), []).append(_color(color, origin))
    return LabelMap(
        tuple(LabelClass(i, _default_name(i), tuple(colors[i])) for i in sorted(colors))
    )


def _default_name(class_id: int) -> str:
    return "background" if class_id == 0 else f"class_{class_id}"


def _class_id(value: Any, origin: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FlexsegError(f"{origin}: {value!r} is not a class id (a whole number from 0).")
    return value


def _color(value: Any, origin: str) -> Color:
    ok = (
        isinstance(value, (tuple, list))
        and len(value) == 3
        and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in value)
    )
    if not ok:
        raise FlexsegError(
            f"{origin}: {value!r} is not a color (three whole numbers 0..255: red, green, blue)."
        )
    return tuple(value)
