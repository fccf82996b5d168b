r"""Converts masks between colors, class ids and one-hot arrays.

  rgb      PNG in the colors of the label map
  palette  PNG whose pixel values are class ids and whose palette has the label map's colors
  index    gray PNG whose pixel values are class ids
  onehot   NPZ with the key mask, [H, W, classes]

Class ids come through every form unchanged. Files are found in all folders below --masks and keep
their relative paths. --from=index reads palette files as well, by their pixel values.

Pixels to ignore have the value 255 in index and palette masks, and no class (zeros alone) in
one-hot masks. In rgb masks they are painted mid-gray, or in --ignore_color; when these are read
back, pixels are ignored only where --ignore_color is given.

The output folder appears when every mask has been converted, or not at all.

Examples:
  flexseg convert-masks --masks=masks --output=onehot --label_map=classes.yaml --to=onehot
  flexseg convert-masks --masks=onehot --output=masks --label_map=classes.yaml \
      --from=onehot --to=rgb
"""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags
from PIL import Image

from flexseg_console import detail, progress
from flexseg_errors import FlexsegError, UsageError
from pipelines import label_map as label_maps
from pipelines import readers
from pipelines.label_map import IGNORE_ID, Categorizer, Color, LabelMap

KEY = "mask"  # of the array in an NPZ
MID_GRAY: Color = (128, 128, 128)  # what label_map.colorize paints the ignore id with

_MOST_SHOWN = 50


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask as it was read.

    Attributes:
      ids: class ids, uint8 [H, W]; 255 is to be ignored.
      unmatched: pixels whose color is further from every color of the map than the tolerance.
      example: the most frequent color of those, or None.
      nearest: the color of the map that it was taken for, or None.
    """

    ids: np.ndarray
    unmatched: int = 0
    example: Color | None = None
    nearest: Color | None = None


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""

    def string(name: str, text: str) -> None:
        flags.DEFINE_string(name, None, text, flag_values=values)

    string("masks", "Folder of masks (with all folders below). Required.")
    string("output", "Folder for the converted masks; must be new or empty. Required.")
    string("label_map", "YAML file, or a literal such as '{(0,0,0):0,(255,0,0):1}'. Required.")
    flags.DEFINE_enum(
        "from",
        "rgb",
        ["rgb", "index", "onehot"],
        "What the masks are: painted in colors, class ids, or a plane for each class.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "to",
        None,
        ["rgb", "palette", "index", "onehot"],
        "What they become; see above. Required.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "color_tolerance",
        None,
        "RGB distance up to which a color counts as matching the nearest of the map. What lies "
        "beyond becomes that class too, but is counted and told. Default: half the largest "
        "distance between two colors of the map.",
        flag_values=values,
    )
    string(
        "ignore_color",
        "Red,green,blue of exactly the pixels to ignore in rgb masks, such as 128,128,128. "
        "Default: none are read; they are written as mid-gray.",
    )
    flags.DEFINE_enum(
        "onehot_dtype",
        "uint8",
        ["uint8", "float32"],
        "Of the arrays written with --to=onehot; either is read.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    for name in ("masks", "output", "label_map", "to"):
        if not values[name].value:
            raise UsageError(f"convert-masks needs --{name}. See flexseg convert-masks --help.")
    label_map = label_maps.load(values.label_map)
    ignore_color = parse_color(values.ignore_color)
    _refuse_class_color(ignore_color, label_map)
    source, target = str(values["from"].value), str(values.to)
    read = reader(source, label_map, values.color_tolerance, ignore_color)
    found, problems = find(values.masks, source)
    _refuse_output(values.output, values.masks)
    detail(f"{len(found)} masks found")
    staging = f"{os.path.realpath(values.output)}.{os.getpid()}.tmp"
    notes: list[str] = []
    unmatched = 0
    try:
        os.makedirs(staging)
        for stem, path in progress(found.items(), unit="mask"):
            try:
                mask = read(path)
                data = encode(mask.ids, target, label_map, ignore_color, values.onehot_dtype)
            except FlexsegError as error:
                shown = str(error)
                problems.append(shown if path in shown else f"{path}: {shown}")
                continue
            notes += _notes(path, mask)
            unmatched += mask.unmatched
            written = os.path.join(staging, stem + suffix(target))
            os.makedirs(os.path.dirname(written), exist_ok=True)
            with open(written, "wb") as file:
                file.write(data)
        if problems:
            raise FlexsegError(
                f"{len(problems)} problems; nothing was written to {values.output}. Mend these "
                f"masks, or take them out, and run the command again:\n{_shown(problems)}"
            )
        os.replace(staging, os.path.realpath(values.output))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(f"{values.output}: {len(found)} masks, {source} -> {target}.")
    if unmatched:
        print(f"{unmatched} pixels match no color of the label map and became the nearest class.")
    if notes:
        print(_shown(notes))


def find(folder: str, form: str) -> tuple[dict[str, str], list[str]]:
    """Finds the masks of a folder and of all folders below.

    Args:
      folder: where to look.
      form: "rgb", "index" or "onehot".

    Returns:
      The path below the folder without suffix -> the file, sorted; and a line for each such path
      that several files share, which are left out.

    Raises:
      FlexsegError: where there is no such folder, or no mask in it.
    """
    if not os.path.isdir(folder):
        raise FlexsegError(f"--masks={folder}: there is no such folder.")
    found = defaultdict(list)
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if _is_mask(n, form)):
            path = os.path.join(parent, name)
            whole = name[: -len(".gz")] if name.lower().endswith(".gz") else name
            stem = os.path.splitext(os.path.relpath(os.path.join(parent, whole), folder))[0]
            found[stem].append(path)
    if not found:
        wanted = ".npz" if form == "onehot" else " ".join(readers.SUFFIXES)
        raise FlexsegError(f"There are no masks in {folder} (looked for {wanted}).")
    problems = [
        f"{', '.join(paths)}: would become one mask, {stem}; rename or remove all but one"
        for stem, paths in sorted(found.items())
        if len(paths) > 1
    ]
    return {stem: paths[0] for stem, paths in sorted(found.items()) if len(paths) == 1}, problems


def reader(
    form: str,
    label_map: LabelMap,
    tolerance: float | None = None,
    ignore_color: Color | None = None,
) -> Callable[[str], Mask]:
    """What reads masks of a form.

    Args:
      form: "rgb", "index" or "onehot".
      label_map: the classes.
      tolerance: RGB distance beyond which a color counts as unmatched; None stands for half the
        largest distance between two colors of the map.
      ignore_color: the color, in rgb masks, of pixels to ignore.

    Returns:
      A function from path to mask, which raises FlexsegError where the file holds no such mask.
    """
    if form == "onehot":
        return lambda path: Mask(_read_onehot(path, label_map))
    if form == "index":
        return lambda path: Mask(_read_index(path, label_map))
    if tolerance is not None and not tolerance >= 0:
        raise FlexsegError(
            f"--color_tolerance={tolerance}: expected an RGB distance of at least 0."
        )
    categorizer = Categorizer(label_map, tolerance)

    def read(path: str) -> Mask:
        pixels = readers.read_mask(path)
        wanted = ~_is_color(pixels, ignore_color)
        result = categorizer(pixels[wanted][None])  # or the ignored would count as unmatched
        ids = np.full(wanted.shape, IGNORE_ID, np.uint8)
        ids[wanted] = result.ids[0]
        nearest = categorizer.nearest(result.example) if result.example else None
        return Mask(ids, result.unmatched, result.example, nearest)

    return read


def encode(
    ids: np.ndarray,
    form: str,
    label_map: LabelMap,
    ignore_color: Color | None = None,
    onehot_dtype: str = "uint8",
) -> bytes:
    """The bytes of a mask's file.

    Args:
      ids: class ids, uint8 [H, W]; 255 is to be ignored.
      form: "rgb", "palette", "index" or "onehot".
      label_map: the classes.
      ignore_color: paints ignored pixels in rgb masks; None is mid-gray.
      onehot_dtype: of the one-hot array, "uint8" or "float32".

    Raises:
      FlexsegError: where ignored pixels would get the color of a class.
    """
    if form == "onehot":
        classes = np.zeros((256, label_map.num_classes), onehot_dtype)
        np.fill_diagonal(classes, 1)
        file = io.BytesIO()
        np.savez_compressed(file, **{KEY: classes[ids]})
        return file.getvalue()
    if form == "rgb":
        pixels = label_maps.colorize(ids, label_map)
        ignored = ids == IGNORE_ID
        if ignored.any():
            _refuse_class_color(ignore_color or MID_GRAY, label_map)
            pixels[ignored] = ignore_color or MID_GRAY
        return _png(Image.fromarray(pixels))
    picture = Image.fromarray(ids)
    if form == "palette":
        # All 256 entries: with fewer, Pillow packs pixels into fewer bits and cuts the 255 off.
        every = np.arange(256, dtype=np.uint8)
        picture.putpalette(label_maps.colorize(every, label_map).tobytes())
    return _png(picture)


def suffix(form: str) -> str:
    """The suffix of a mask's file: ".png" or ".npz"."""
    return ".npz" if form == "onehot" else ".png"


def parse_color(text: str | None) -> Color | None:
    """Reads "128,128,128" as (128, 128, 128); None stays None."""
    if not text:
        return None
    try:
        red, green, blue = (int(part) for part in text.split(","))
        if not all(0 <= v <= 255 for v in (red, green, blue)):
            raise ValueError
    except ValueError as error:
        raise FlexsegError(
            f'--ignore_color="{text}": expected red,green,blue of 0..255, such as 128,128,128.'
        ) from error
    return red, green, blue


def _read_index(path: str, label_map: LabelMap) -> np.ndarray:
    """Pixel values as class ids; a palette's colors are not looked at."""
    pixels = readers.read_index(path)
    _refuse_unknown(path, pixels, label_map)
    return pixels.astype(np.uint8)


def _refuse_unknown(path: str, pixels: np.ndarray, label_map: LabelMap) -> None:
    count = label_map.num_classes
    known = (pixels >= 0) & (pixels < count) & (pixels % 1 == 0)
    outside = pixels[~known & (pixels != IGNORE_ID)]
    if outside.size:
        values, counts = np.unique(outside, return_counts=True)
        shown = ", ".join(
            f"{v:g} ({n} pixels)" for v, n in list(zip(values, counts, strict=True))[:5]
        )
        more = f" and {len(values) - 5} other values" if len(values) > 5 else ""
        raise FlexsegError(
            f"{path} holds {shown}{more}; the label map has the ids 0 to {count - 1} "
            f"(and {IGNORE_ID} is ignored)."
        )


def _read_onehot(path: str, label_map: LabelMap) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys = list(arrays)
            array = arrays[KEY] if KEY in keys else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FlexsegError(f"{path} cannot be read as NPZ ({error}).") from error
    if array is None:
        raise FlexsegError(f'{path} has no array "{KEY}"; it has {", ".join(keys) or "none"}.')
    if (
        array.ndim != 3
        or array.shape[-1] != label_map.num_classes
        or array.dtype.kind not in "buif"
    ):
        raise FlexsegError(
            f'{path}: "{KEY}" is {array.dtype} {list(array.shape)}; expected numbers '
            f"[H, W, {label_map.num_classes}], the label map's number of classes."
        )
    classes = np.count_nonzero(array, axis=-1)
    wrong = int(np.count_nonzero((classes > 1) | ~((array == 0) | (array == 1)).all(-1)))
    if wrong:
        raise FlexsegError(
            f'{path}: "{KEY}" is not one-hot: {wrong} pixels hold several classes or values other '
            "than 0 and 1 (as resizing makes them); convert the masks it was made from."
        )
    return np.where(classes, array.argmax(-1), IGNORE_ID).astype(np.uint8)


def _is_mask(name: str, form: str) -> bool:
    if form == "onehot":
        return name.lower().endswith(".npz") and not name.startswith(".")
    return readers.is_image(name) and not name.lower().endswith(".npz")


def _is_color(pixels: np.ndarray, color: Color | None) -> np.ndarray:
    """Where pixels, uint8 [H, W] or [H, W, 3], are exactly of a color: bool [H, W]."""
    if color is None:
        return np.zeros(pixels.shape[:2], bool)
    if pixels.ndim == 2:
        return (pixels == color[0]) & (len(set(color)) == 1)
    return (pixels == color).all(-1)


def _refuse_class_color(color: Color | None, label_map: LabelMap) -> None:
    for label in label_map.classes:
        if color in label.colors:
            raise FlexsegError(
                f"pixels to ignore would have the color {color} of class {label.id} "
                f'"{label.name}"; give another --ignore_color.'
            )


def _refuse_output(output: str, masks: str) -> None:
    if os.path.exists(output) and not os.path.isdir(output):
        raise FlexsegError(f"--output={output} is a file; expected a folder.")
    inside = sorted(os.listdir(output)) if os.path.isdir(output) else []
    if inside:
        raise FlexsegError(
            f"--output={output} holds something already ({', '.join(inside[:5])}"
            f"{', ...' if len(inside) > 5 else ''}); nothing was touched. Give a new folder."
        )
    if (os.path.realpath(output) + os.sep).startswith(os.path.realpath(masks) + os.sep):
        raise FlexsegError(f"--output={output} lies inside --masks={masks}; give another folder.")


def _notes(path: str, mask: Mask) -> list[str]:
    """What a person should know about a mask that was converted all the same."""
    notes = []
    if mask.unmatched:
        notes.append(
            f"{path}: {mask.unmatched} pixels match no color of the label map, most of them "
            f"{mask.example}, taken for {mask.nearest}"
        )
    ignored = int(np.count_nonzero(mask.ids == IGNORE_ID))
    if ignored:
        notes.append(f"{path}: {ignored} pixels are ignored")
    return notes


def _shown(lines: Sequence[str]) -> str:
    more = [f"  ... and {len(lines) - _MOST_SHOWN} more"] if len(lines) > _MOST_SHOWN else []
    return "\n".join([*(f"  {line}" for line in lines[:_MOST_SHOWN]), *more])


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()
