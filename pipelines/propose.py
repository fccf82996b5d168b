"""Proposes a label map: finds the dominant colors of a folder of masks.

Pixels are counted over all masks. A class has a color that fills areas; the many shades that JPEG,
smoothing or resizing leave at borders do not, and count as the class that they are nearest to. The
most frequent color gets id 0, the background, unless there is black, which then gets it; the
others follow by their frequency. Gray masks whose values are class ids are recognized, too.

What is printed is a label map file; the table above it is a comment. Names are for you to mend.

Examples:
  flexseg propose-label-map masks
  flexseg propose-label-map masks --output=classes.yaml
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags

from flexseg_console import progress, result
from flexseg_errors import FlexsegError
from pipelines import label_map as label_maps
from pipelines import readers
from pipelines.label_map import IGNORE_ID, Color, LabelClass, LabelMap

POSITIONAL = ("MASKS_DIR",)

MOST = 64  # classes
TOLERANCE = 16.0  # RGB distance; JPEG moves a flat area by less
MIN_SHARE = 1e-5  # of all pixels: 39 pixels in fifteen masks of 512x512

_COLORS = 1 << 24
_BAND_PIXELS = 1 << 22  # looked at together
_MOST_CANDIDATES = 4096
_MOST_EXAMINED = 1 << 16  # colours; rarer ones are a few pixels each
# Of a colour's pixels, how many lie in 2x2 blocks of nothing else: 0.7 and more in the classes of
# real masks, thin vessels among them, below 0.05 in shades, which make lines one pixel wide.
_FILLS = 0.25
_LINE_SHARE = 1e-3  # a colour that only draws lines must be this frequent to be a class
_BLEND_SHARE = 0.02  # of the rarer of two classes; areas of a shade between them are no blend
_NEAR_SHARE = (
    0.6  # of all pixels are near a dominant colour; 0.95 in most masks, 0.4 in photographs
)
_MOST_INDEX = 64  # gray values below this, and nothing above, are class ids


@dataclasses.dataclass(frozen=True)
class Dominant:
    """A colour that stands for a class.

    Attributes:
      color: RGB; of an index mask the gray value, three times.
      exact: pixels of exactly this colour.
      pixels: pixels whose nearest dominant colour it is.
      files: masks that hold exactly this colour.
    """

    color: Color
    exact: int
    pixels: int
    files: int


@dataclasses.dataclass(frozen=True)
class Proposal:
    """What a folder of masks suggests.

    Attributes:
      label_map: the classes, their names made up.
      dominants: what they were found from, in the order of their ids.
      masks: number of masks.
      pixels: in all of them.
      colors: number of different colours.
      index: whether gray values are class ids, so that the colours are for painting alone.
      ignored: pixels of an index mask that carry the ignore id.
      strays: pixels that are neither near a dominant colour nor a blend of two.
    """

    label_map: LabelMap
    dominants: tuple[Dominant, ...]
    masks: int
    pixels: int
    colors: int
    index: bool = False
    ignored: int = 0
    strays: int = 0


@dataclasses.dataclass(frozen=True)
class Census:
    """The colours of all masks, by falling frequency.

    Attributes:
      rgb: the colours, int64 [N, 3].
      pixels: how many pixels have each, int64 [N].
      solid: how many of those begin a 2x2 block of that colour, int64 [N].
      files: how many masks hold it, int64 [N].
      masks: number of masks.
    """

    rgb: np.ndarray
    pixels: np.ndarray
    solid: np.ndarray
    files: np.ndarray
    masks: int


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output",
        None,
        "YAML file for the label map; must not be there. Default: print it.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_classes", MOST, "Refuse to propose more classes than this.", flag_values=values
    )
    flags.DEFINE_float(
        "color_tolerance",
        TOLERANCE,
        "RGB distance up to which a color is taken for a more frequent one.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "min_share",
        MIN_SHARE,
        "Share of all pixels, 0 to 1, that a color must have to be a class.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    output = values.output
    if output and os.path.exists(output):
        raise FlexsegError(f"--output={output} is there already; nothing was touched.")
    text = describe(propose(rest[0], values.max_classes, values.color_tolerance, values.min_share))
    if not output:
        result(text)
        return
    print(text)
    with open(output + ".tmp", "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(output + ".tmp", output)


def propose(
    folder: str, most: int = MOST, tolerance: float = TOLERANCE, min_share: float = MIN_SHARE
) -> Proposal:
    """Finds the classes of the masks in a folder and all folders below.

    Args:
      folder: where the masks are.
      most: refuse to propose more classes.
      tolerance: RGB distance up to which a colour is taken for a more frequent one.
      min_share: of all pixels, what a colour must have to be a class, 0..1.

    Raises:
      FlexsegError: where there are no masks, one cannot be read, or they have no dominant colours.
    """
    if not 1 <= most <= label_maps.MAX_CLASSES:
        raise FlexsegError(f"--max_classes={most}: expected 1 to {label_maps.MAX_CLASSES} classes.")
    if not tolerance >= 0:
        raise FlexsegError(
            f"--color_tolerance={tolerance}: expected an RGB distance of at least 0."
        )
    if not 0 <= min_share < 1:
        raise FlexsegError(f"--min_share={min_share}: expected a share from 0 to less than 1.")
    census = count(folder)
    if _is_index(census):
        return _index_proposal(folder, census)
    kept = dominant_colors(census, tolerance, min_share)
    if len(kept) > most:
        raise FlexsegError(
            f"{folder} has {len(kept)} dominant colors; at most {most} are proposed. Give the "
            "folder of the masks, or a higher --max_classes, --min_share or --color_tolerance."
        )
    near = _share_near(census, kept, tolerance)
    if near < _NEAR_SHARE:
        raise FlexsegError(
            f"{folder} has {len(census.pixels)} different colors, and those that fill areas "
            f"account for {near:.0%} of the pixels only: these seem to be no masks. Give the "
            "folder of the masks, or a lower --min_share or higher --color_tolerance."
        )
    return _proposal(census, kept, tolerance)


def count(folder: str) -> Census:
    """Counts the colours of all masks in a folder and all folders below.

    Memory does not depend on the number of masks, nor on their colours.
    """
    paths = _find(folder)
    pixels, solid = np.zeros(_COLORS, np.int64), np.zeros(_COLORS, np.int64)
    files = np.zeros(_COLORS, np.int32)
    for path in progress(paths, unit="mask"):
        present = []
        for band, full in _bands(readers.read_mask(path)):
            found, counts = _tally(band[full:])
            pixels[found] += counts
            present.append(found)
            corner = band[:-1, :-1]
            block = (corner == band[1:, :-1]) & (corner == band[:-1, 1:]) & (corner == band[1:, 1:])
            found, counts = _tally(corner[block])
            solid[found] += counts
        files[np.unique(np.concatenate(present))] += 1
    packed = np.flatnonzero(pixels)
    packed = packed[np.argsort(-pixels[packed], kind="stable")]
    rgb = np.stack([packed >> 16, packed >> 8 & 0xFF, packed & 0xFF], -1)
    return Census(rgb, pixels[packed], solid[packed], files[packed], len(paths))


def dominant_colors(census: Census, tolerance: float, min_share: float) -> list[int]:
    """The rows of the census that stand for classes, most frequent first.

    From the most frequent on, a colour is kept unless it lies within the tolerance of one that is
    kept, or on the line in RGB between two (a blend of them). Areas of a shade between two classes
    are a class of their own where they are not small beside them.
    """
    total = census.pixels.sum()
    fills = census.solid >= _FILLS * census.pixels
    enough = census.pixels >= np.where(fills, min_share, max(min_share, _LINE_SHARE)) * total
    candidates = np.flatnonzero(enough)[:_MOST_CANDIDATES]
    # Without any blends about, a shade between two classes is no blend either.
    clean = len(census.pixels) <= MOST and fills.all()

    def is_blend(row: int, kept: Sequence[int]) -> bool:
        ends = [
            b  # of two, the rarer
            for a, b in itertools.combinations(kept, 2)
            if _off_line(census.rgb[row], census.rgb[a], census.rgb[b]) <= tolerance
        ]
        if not ends or clean:
            return False
        return not fills[row] or census.pixels[row] < _BLEND_SHARE * census.pixels[min(ends)]

    kept: list[int] = []
    for row in candidates.tolist():
        distance = np.linalg.norm(census.rgb[kept] - census.rgb[row], axis=-1)
        if not (distance <= tolerance).any() and not is_blend(row, kept):
            kept.append(row)
    # A shade may be more frequent than the class that it leads to, and have been kept before it.
    return [row for row in kept if not is_blend(row, [k for k in kept if k != row])]


def describe(proposal: Proposal) -> str:
    """The proposal as a label map file, with a table as comment above."""
    lines = [
        f"# {proposal.masks} masks, {proposal.pixels} pixels, {proposal.colors} different colors.",
    ]
    if proposal.index:
        lines.append("# These are index masks: gray value = class id. The colors are for painting.")
        if proposal.ignored:
            lines.append(f"# {proposal.ignored} pixels have the value {IGNORE_ID}: ignored.")
    row = "# {:>4}  {:<15}  {:>12}  {:>9}  {:>7}  {:>6}"
    title = "value" if proposal.index else "color"
    lines.append(row.format("id", title, "pixels", "share", "exact", "masks"))
    for label, found in zip(proposal.label_map.classes, proposal.dominants, strict=True):
        shown = str(found.color[0]) if proposal.index else ",".join(map(str, found.color))
        exact = found.exact / found.pixels if found.pixels else 1.0
        share = f"{found.pixels / proposal.pixels:.4%}"
        lines.append(row.format(label.id, shown, found.pixels, share, f"{exact:.1%}", found.files))
    if proposal.strays:
        lines.append(
            f"# {proposal.strays} pixels ({proposal.strays / proposal.pixels:.4%}) are neither "
            "near one of these colors nor a blend of two."
        )
    return "\n".join(lines) + "\n" + label_maps.dump(proposal.label_map).rstrip()


def _find(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        raise FlexsegError(f"{folder}: there is no such folder.")
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [os.path.join(parent, n) for n in sorted(names) if readers.is_image(n)]
    if not found:
        raise FlexsegError(
            f"There are no masks in {folder} (looked for {' '.join(readers.SUFFIXES)})."
        )
    return found


def _bands(mask: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """A mask band by band: (values [h, W], rows at the top that an earlier band had).

    Values are gray, uint8, or red, green and blue packed into 24 bits, uint32.
    """
    rows = max(1, _BAND_PIXELS // mask.shape[1])
    for start in range(0, mask.shape[0], rows):
        again = min(start, 1)  # a 2x2 block may lie across two bands
        part = mask[start - again : start + rows]
        if part.ndim == 3:
            part = part.astype(np.uint32)
            part = part[..., 0] << 16 | part[..., 1] << 8 | part[..., 2]
        yield part, again


def _tally(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colours among a band's values, packed into 24 bits, and how many pixels have each."""
    if values.dtype != np.uint8:
        return np.unique(values, return_counts=True)
    counts = np.bincount(values.ravel(), minlength=256)  # sorting would take twenty times as long
    found = np.flatnonzero(counts)
    return found * 0x010101, counts[found]


def _off_line(colors: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances of colours [..., 3] from the line that leads from one colour to another: [...]."""
    along = b - a
    position = np.clip((colors - a) @ along / max(1, along @ along), 0, 1)
    return np.linalg.norm(a + position[..., None] * along - colors, axis=-1)


def _share_near(census: Census, kept: Sequence[int], tolerance: float) -> float:
    """The share of pixels within the tolerance of a kept colour."""
    near = np.zeros(len(census.rgb), bool)
    for row in kept:
        near |= ((census.rgb - census.rgb[row]) ** 2).sum(-1) <= tolerance**2
    return float(census.pixels[near].sum() / census.pixels.sum())


def _strays(census: Census, kept: Sequence[int], tolerance: float) -> int:
    """How many pixels are neither near a kept colour nor a blend of two."""
    head = slice(0, _MOST_EXAMINED)
    rgb = census.rgb[head].astype(float)
    explained = np.zeros(len(rgb), bool)
    for a, b in itertools.combinations_with_replacement(census.rgb[list(kept)], 2):
        explained |= _off_line(rgb, a, b) <= tolerance
    return int(census.pixels.sum() - census.pixels[head][explained].sum())


def _proposal(census: Census, kept: Sequence[int], tolerance: float) -> Proposal:
    dark = [row for row in kept if np.linalg.norm(census.rgb[row]) <= tolerance]
    ordered = [*dark[:1], *(row for row in kept if row not in dark[:1])]
    colors = census.rgb[ordered]
    merged = np.zeros(len(ordered), np.int64)
    for start in range(0, len(census.rgb), 1 << 16):  # bounds the distances [n, classes]
        part = slice(start, start + (1 << 16))
        distance = ((census.rgb[part, None] - colors) ** 2).sum(-1)
        np.add.at(merged, distance.argmin(-1), census.pixels[part])
    dominants = tuple(
        Dominant(_color(census.rgb[row]), int(census.pixels[row]), int(n), int(census.files[row]))
        for row, n in zip(ordered, merged, strict=True)
    )
    return Proposal(
        _label_map([d.color for d in dominants]),
        dominants,
        census.masks,
        int(census.pixels.sum()),
        len(census.rgb),
        strays=_strays(census, kept, tolerance),
    )


def _is_index(census: Census) -> bool:
    """Whether gray values are class ids: small ones that fill areas, and nothing else."""
    gray = (census.rgb == census.rgb[:, :1]).all()
    values = census.rgb[:, 0]
    small = values[values != IGNORE_ID]
    fills = (census.solid >= _FILLS * census.pixels)[(values != IGNORE_ID) & (values > 0)]
    return bool(gray and small.size and 0 < small.max() < _MOST_INDEX and fills.any())


def _index_proposal(folder: str, census: Census) -> Proposal:
    values = census.rgb[:, 0]
    rows = {int(v): i for i, v in enumerate(values)}
    ignored = int(census.pixels[rows[IGNORE_ID]]) if IGNORE_ID in rows else 0
    dominants = []
    for value in range(int(values[values != IGNORE_ID].max()) + 1):
        pixels = int(census.pixels[rows[value]]) if value in rows else 0
        files = int(census.files[rows[value]]) if value in rows else 0
        dominants.append(Dominant((value, value, value), pixels, pixels, files))
    return Proposal(
        _label_map([_painted(d.color[0]) for d in dominants]),
        tuple(dominants),
        census.masks,
        int(census.pixels.sum()),
        len(census.rgb),
        index=True,
        ignored=ignored,
    )


def _painted(class_id: int) -> Color:
    """A colour for a class id, unlike its neighbours': black, dark red, dark green, olive ..."""
    red = green = blue = 0
    for bit in range(8):  # the id's bits go in turn to red, green and blue, from the highest down
        red |= (class_id >> 0 & 1) << (7 - bit)
        green |= (class_id >> 1 & 1) << (7 - bit)
        blue |= (class_id >> 2 & 1) << (7 - bit)
        class_id >>= 3
    return red, green, blue


def _label_map(colors: Sequence[Color]) -> LabelMap:
    names = ["background", *(f"class_{i}" for i in range(1, len(colors)))]
    return LabelMap(
        tuple(
            LabelClass(i, name, (color,))
            for i, (name, color) in enumerate(zip(names, colors, strict=True))
        )
    )


def _color(rgb: np.ndarray) -> Color:
    red, green, blue = rgb.tolist()
    return red, green, blue
