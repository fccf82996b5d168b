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
TOP_COLORS = 16  # of the colours that match no class, the most that are told

_COLORS = 1 << 24  # every 8-bit RGB colour; packed, it is R << 16 | G << 8 | B
_BLOCK = 1 << 20  # pixels that are mapped at a time

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
      colors: the colours of those pixels with their counts: the `TOP_COLORS` most frequent, in
        falling order, ties in the order of the colours.
      far: bool [H, W], those pixels; read-only and without memory of its own where there are none.
    """

    ids: np.ndarray
    unmatched: int
    colors: Mapping[Color, int]
    far: np.ndarray

    @property
    def example(self) -> Color | None:
        """The most frequent colour beyond the tolerance, or None."""
        return next(iter(self.colors), None)


class Categorizer:
    """Maps the colours of masks to class ids: nearest in RGB, ties to the lower class id.

    Keeps tables from every 24-bit colour met so far to its class, so that a mask costs one look-up
    a pixel however many classes there are. A mask is mapped block by block, so that beside the mask
    and what comes of it the memory does not grow with its size.
    """

    _UNSURE = 255  # no class id (see MAX_CLASSES): a colour not met yet, or beyond the tolerance

    def __init__(self, label_map: LabelMap, tolerance: float | None = None):
        """Starts with tables of the grays alone.

        Args:
          label_map: the classes.
          tolerance: Euclidean distance in RGB units (0..441) up to which a colour is taken for
            the nearest one of the map; None stands for `label_map.blend_tolerance`.
        """
        self.tolerance = label_map.blend_tolerance if tolerance is None else tolerance
        self._colors = np.array([c for k in label_map.classes for c in k.colors], np.int32)
        self._ids = np.array([k.id for k in label_map.classes for _ in k.colors], np.uint8)
        self._near = np.full(_COLORS, self._UNSURE, np.uint8)  # the id of what is within
        self._beyond = np.zeros(_COLORS, np.uint8)  # the id + 1 of what is beyond, else 0
        grays = np.arange(256) * 0x010101
        self._learn(grays)
        self._gray_far = self._near[grays] == self._UNSURE
        self._gray_ids = np.where(self._gray_far, self._beyond[grays] - 1, self._near[grays])

    def __call__(self, mask: np.ndarray) -> Categorized:
        """Maps a mask.

        Args:
          mask: uint8 [H, W] (gray) or [H, W, 3] (RGB).

        Returns:
          The mask in class ids.
        """
        return self._gray(mask) if mask.ndim == 2 else self._rgb(mask)

    def nearest(self, color: Color) -> Color:
        """The colour of the map that `color` is taken for."""
        distance = ((self._colors - np.array(color, np.int32)) ** 2).sum(-1)
        r, g, b = self._colors[distance.argmin()].tolist()
        return r, g, b

    def _rgb(self, mask: np.ndarray) -> Categorized:
        size = mask.shape[:2]
        ids, far = np.empty(size, np.uint8), np.broadcast_to(np.False_, size)
        pixels, flat = mask.reshape(1, -1, 3), ids.reshape(-1)
        counts = _ColorCounts()
        for start in range(0, flat.size, _BLOCK):
            block = np.s_[start : start + _BLOCK]
            # The bytes B, G, R, 255 are, as an integer with a sign, the packed colour less 2^24:
            # in a table of 2^24 entries, the same entry counted from the end.
            packed = cv2.cvtColor(pixels[:, block], cv2.COLOR_RGB2BGRA).view("<i4").reshape(-1)
            beyond = self._map(packed, flat[block])
            if beyond is None:
                continue
            colors = packed[beyond] & 0xFFFFFF
            flat[block][beyond] = self._beyond[colors] - 1
            counts.add(colors)
            if not far.flags.writeable:
                far = np.zeros(size, bool)
            far.reshape(-1)[block] = beyond
        return Categorized(ids, counts.total, counts.top(), far)

    def _map(self, packed: np.ndarray, ids: np.ndarray) -> np.ndarray | None:
        """Writes the ids [N] of the colours within the tolerance.

        Returns:
          bool [N], which colours are beyond it; None where all are within.
        """
        np.take(self._near, packed, out=ids, mode="wrap")
        if ids.max() != self._UNSURE:
            return None
        unsure = ids == self._UNSURE
        colors = packed[unsure] & 0xFFFFFF
        new = colors[self._beyond[colors] == 0]
        if new.size:
            self._learn(_distinct(new))
            np.take(self._near, packed, out=ids, mode="wrap")
            unsure = ids == self._UNSURE
        return unsure if unsure.any() else None

    def _gray(self, mask: np.ndarray) -> Categorized:
        """The same for uint8 [H, W], through the 256 grays alone."""
        none = np.broadcast_to(np.False_, mask.shape)
        if not mask.size:  # OpenCV refuses it
            return Categorized(np.empty(mask.shape, np.uint8), 0, {}, none)
        ids = cv2.LUT(mask, self._gray_ids)
        if not self._gray_far.any():
            return Categorized(ids, 0, {}, none)
        counts = np.zeros(256, np.int64)
        flat = mask.reshape(1, -1)
        for start in range(0, flat.size, _BLOCK):  # its float32 is exact up to 2^24
            block = flat[:, start : start + _BLOCK]
            counts += cv2.calcHist([block], [0], None, [256], [0, 256])[:, 0].astype(np.int64)
        found = np.flatnonzero(self._gray_far & (counts > 0))
        if not found.size:
            return Categorized(ids, 0, {}, none)
        far = cv2.LUT(mask, self._gray_far.view(np.uint8)).view(bool)
        colors = _most_frequent(found * 0x010101, counts[found])
        return Categorized(ids, int(counts[found].sum()), colors, far)

    def _learn(self, packed: np.ndarray) -> None:
        for part in np.array_split(packed, max(1, packed.size >> 16)):  # bounds what is held
            rgb = np.stack([part >> 16, part >> 8 & 0xFF, part & 0xFF]).astype(np.int32)
            least = np.full(part.shape, 3 * 256**2, np.int32)
            ids = np.zeros(part.shape, np.uint8)
            for color, class_id in zip(self._colors, self._ids, strict=True):
                distance = ((rgb - color[:, None]) ** 2).sum(0)
                closer = distance < least  # not where it is equal: ties go to the lower id
                np.copyto(least, distance, where=closer, casting="same_kind")
                ids[closer] = class_id
            far = least > self.tolerance**2 + 1e-6
            self._near[part] = np.where(far, self._UNSURE, ids)
            self._beyond[part] = np.where(far, ids + 1, 0)


class _ColorCounts:
    """Counts packed colours, exactly, in memory that does not grow with their number."""

    _FEW = 1 << 20  # to sort these costs less than to look through a counter for every colour

    def __init__(self) -> None:
        self.total = 0
        self._few: list[np.ndarray] = []
        self._counters: np.ndarray | None = None  # uint32 [2^24], once they are many

    def add(self, colors: np.ndarray) -> None:
        """Counts one more pixel for each of the colours, [N]."""
        self.total += colors.size
        if self._counters is None:
            self._few.append(colors)
            if self.total <= self._FEW:
                return
            self._counters = np.zeros(_COLORS, np.uint32)
            colors = np.concatenate(self._few)
            self._few.clear()
        np.add.at(self._counters, colors, np.uint32(1))

    def top(self) -> dict[Color, int]:
        """The most frequent colours; see `Categorized.colors`."""
        if self._counters is not None:
            colors = np.flatnonzero(self._counters)
            return _most_frequent(colors, self._counters[colors])
        if not self._few:
            return {}
        return _most_frequent(*np.unique(np.concatenate(self._few), return_counts=True))


def _most_frequent(colors: np.ndarray, counts: np.ndarray) -> dict[Color, int]:
    """Of packed colours in rising order and their counts, [N] each, the first `TOP_COLORS`."""
    if counts.size > TOP_COLORS:  # no sorting of millions for the sake of a few
        least = np.partition(counts, -TOP_COLORS)[-TOP_COLORS]
        ties = np.flatnonzero(counts == least)[:TOP_COLORS]
        chosen = np.concatenate([np.flatnonzero(counts > least), ties])
        colors, counts = colors[chosen], counts[chosen]
    order = np.lexsort((colors, -counts.astype(np.int64)))[:TOP_COLORS]
    return {
        (color >> 16, color >> 8 & 0xFF, color & 0xFF): count
        for color, count in zip(colors[order].tolist(), counts[order].tolist(), strict=True)
    }


def _distinct(packed: np.ndarray) -> np.ndarray:
    """Packed colours, [N], each once."""
    if packed.size < 1 << 16:
        return np.unique(packed)
    present = np.zeros(_COLORS, bool)  # for many, a pass over 16 MB is faster than sorting
    present[packed] = True
    return np.flatnonzero(present)


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
