"""Finds images and masks, pairs them by stem, and groups them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from flexseg_errors import FlexsegError
from pipelines import nifti, readers, slices, storage, volumes
from pipelines.slices import VolumeReading

SPLITS = ("train", "valid", "test")
_SLICE_DIGITS = 5


@dataclasses.dataclass(frozen=True)
class Source:
    """An image and its mask.

    Attributes:
      id: the image's path below the images folder, without suffix; where the dataset comes with
        splits, preceded by the split's name.
      filename: the same with suffix.
      image: path of the image.
      mask: path of its mask.
      group: what must not be divided between splits (a patient, an original image).
      split: "" until it is assigned.
      slice: which slice of a volume it is, from 0; None for an image.
    """

    id: str
    filename: str
    image: str
    mask: str
    group: str
    split: str = ""
    slice: int | None = None

    @property
    def file_id(self) -> str:
        """The id of the file it comes from: all slices of a volume share it."""
        return self.id if self.slice is None else self.id.rpartition("/")[0]


@dataclasses.dataclass(frozen=True, order=True)
class Rejected:
    """A source that could not be used: one line of `rejected.jsonl`."""

    path: str
    stage: str  # "pair", "group", "header", "read", "categorize", "tile", "augment"
    reason: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the images and masks of one split lie; `split` is "" where there are no splits yet."""

    split: str
    images: str
    masks: str


def find_layouts(
    dataset: str | None, images: str | None = None, masks: str | None = None
) -> tuple[Layout, ...]:
    """Recognizes `DIR/{images,masks}`, `DIR/{train,valid,test}/{images,masks}`, or two folders.

    Raises:
      FlexsegError: where a folder is missing, naming it and what was expected.
    """
    if dataset is None:
        if not (images and masks):
            raise FlexsegError("Give --dataset=DIR, or both --images=DIR and --masks=DIR.")
        return (_checked(Layout("", images, masks)),)
    if images or masks:
        raise FlexsegError("Give either --dataset, or --images and --masks, not both.")
    if not storage.is_folder(dataset):
        raise FlexsegError(f"--dataset={dataset}: there is no such folder.")
    inside = storage.names(dataset)
    splits = [s for s in SPLITS if storage.is_folder(storage.join(dataset, s))]
    if "images" in inside and splits:
        raise FlexsegError(
            f"--dataset={dataset} holds both images/ and {', '.join(s + '/' for s in splits)}; "
            "it is not clear which are meant. Give --images and --masks instead."
        )
    if not splits and "images" not in inside:
        raise FlexsegError(
            f"--dataset={dataset} must hold images/ and masks/, or train/, valid/ and test/ that "
            f"hold them; it holds {', '.join(inside[:8]) or 'nothing'}."
        )
    roots = [(s, storage.join(dataset, s)) for s in splits] or [("", dataset)]
    return tuple(
        _checked(Layout(s, storage.join(root, "images"), storage.join(root, "masks")))
        for s, root in roots
    )


@dataclasses.dataclass(frozen=True)
class Paired:
    """What was found in a layout.

    Attributes:
      sources: in the order of their ids; a volume is one source yet, its slice 0.
      rejected: what has no partner, several, or no group.
      passed_over: masks whose stem does not end with the suffix asked for.
      states: path of an image file -> its `storage.state`.
    """

    sources: list[Source]
    rejected: list[Rejected]
    passed_over: int
    states: dict[str, list]


def pair(layout: Layout, group_regex: str | None, mask_suffix: str = "") -> Paired:
    """Pairs images with masks by their path below the folder, without suffix.

    Args:
      layout: the folders.
      group_regex: searched in the image's path below its folder; the group is what its first
        parenthesis matched, or else the whole match. None makes each file a group of its own.
      mask_suffix: what a mask's stem has beyond its image's, such as "_EX"; other masks are passed
        over.

    Raises:
      FlexsegError: where there are no images, or no mask has the suffix.
    """
    expression = compile_group_regex(group_regex)
    images = _find(layout.images, readers.is_image)
    all_masks = _find(layout.masks, readers.is_mask)
    if not images:
        raise FlexsegError(
            f"There are no images in {layout.images} (looked for {' '.join(readers.SUFFIXES)} and "
            f"the volumes {' '.join(volumes.SUFFIXES)}, in all folders below)."
        )
    masks = {
        stem.removesuffix(mask_suffix): found
        for stem, found in all_masks.items()
        if stem.endswith(mask_suffix)
    }
    if all_masks and not masks:
        raise FlexsegError(
            f'--mask_suffix="{mask_suffix}": no mask in {layout.masks} ends so, before its file '
            f"suffix; there is {', '.join(sorted(all_masks)[:3])}, for example."
        )
    prefix = layout.split + "/" if layout.split else ""
    sources, rejected = [], []
    for stem in sorted(images.keys() | masks.keys()):
        found = images.get(stem, []) + masks.get(stem, [])
        path = found[0].path
        if not _is_text(prefix + stem):
            shown = path.encode(errors="backslashreplace").decode()
            rejected.append(Rejected(shown, "pair", "its name is not UTF-8; rename the file"))
        elif len(images.get(stem, [])) > 1 or len(masks.get(stem, [])) > 1:
            named = ", ".join(os.path.basename(f.path) for f in found)
            rejected.append(
                Rejected(path, "pair", f'several files share the stem "{stem}": {named}')
            )
        elif stem not in masks:
            rejected.append(Rejected(path, "pair", f"the image has no mask in {layout.masks}"))
        elif stem not in images:
            rejected.append(Rejected(path, "pair", f"the mask has no image in {layout.images}"))
        elif found[1].volume and not found[0].volume:
            reason = f"the image is no volume, but its mask is ({found[1].path})"
            rejected.append(Rejected(path, "pair", reason))
        else:
            image, mask = found
            group = prefix + stem
            if expression:
                match = expression.search(image.name)
                matched = match.group(min(1, expression.groups)) if match else None
                if matched is None:  # also where the first parenthesis took no part in the match
                    reason = f'--group_regex "{expression.pattern}" does not match "{image.name}"'
                    rejected.append(Rejected(path, "group", reason))
                    continue
                group = matched
            sources.append(
                Source(
                    id=prefix + stem,
                    filename=prefix + image.name,
                    image=path,
                    mask=mask.path,
                    group=group,
                    split=layout.split,
                    slice=0 if image.volume else None,
                )
            )
    states = {
        file.path: file.state
        for found in (*images.values(), *masks.values())
        for file in found
        if not file.volume
    }
    return Paired(sources, rejected, len(all_masks) - len(masks), states)


def _is_text(name: str) -> bool:
    """Whether a name can be written down: that of a file may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_slices(
    paired: Sequence[Source], reading: VolumeReading, max_pixels: int
) -> tuple[list[Source], list[Rejected]]:
    """Puts a source for each slice in the place of each volume; the volume stays their group.

    Returns:
      The sources, and the volumes that cannot be opened.

    Raises:
      FlexsegError: where two sources come to have one id.
    """
    sources, rejected = [], []
    for source in paired:
        if source.slice is None:
            sources.append(source)
            continue
        try:
            count, _, _ = volume_shape(source.image, reading, max_pixels)
        except FlexsegError as error:
            reason = str(error).removeprefix(source.image).lstrip(" :")
            rejected.append(Rejected(source.image, "header", reason))
            continue
        flat = not volumes.is_volume(source.mask)
        if flat and count > 1:
            reason = f"the volume has {count} slices, but its mask is one image ({source.mask})"
        elif flat and source.image.lower().endswith(nifti.SUFFIXES):
            # Rows of its slices run along x: which way an image lies on them nobody says.
            reason = f"a NIfTI image needs a mask that is a volume too, not {source.mask}"
        else:
            reason = ""
        if reason:
            rejected.append(Rejected(source.image, "pair", reason))
            continue
        for index in range(count):
            slice_id = f"{source.id}/{index:0{_SLICE_DIGITS}d}"
            sources.append(dataclasses.replace(source, id=slice_id, slice=index))
    seen: set[str] = set()
    for source in sources:
        if source.id in seen:
            raise FlexsegError(
                f'{source.image}: another source has the id "{source.id}" too. Rename the volume, '
                "or the folder of the same name."
            )
        seen.add(source.id)
    return sources, rejected


def volume_shape(path: str, reading: VolumeReading, max_pixels: int) -> tuple[int, int, int]:
    """`slices.shape`, remembered while the file stays as it is: some must be fetched for it."""
    return _shape(path, tuple(volumes.state(path)), reading, max_pixels)


@functools.lru_cache(maxsize=1 << 16)
def _shape(
    path: str, state: tuple[Any, ...], reading: VolumeReading, max_pixels: int
) -> tuple[int, int, int]:
    return slices.shape(path, reading, max_pixels)


def compile_group_regex(group_regex: str | None) -> re.Pattern[str] | None:
    """Compiles `--group_regex`, with an error that names it."""
    try:
        return re.compile(group_regex) if group_regex else None
    except re.error as error:
        raise FlexsegError(
            f'--group_regex="{group_regex}" is not a regular expression: {error}.'
        ) from error


def keyed_hash(seed: int, key: str) -> int:
    """A number of 128 bits that depends on seed and key alone, on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:16], "big")


def _checked(layout: Layout) -> Layout:
    for folder in (layout.images, layout.masks):
        if not storage.is_folder(folder):
            raise FlexsegError(f"There is no folder {folder}.")
    return layout


@dataclasses.dataclass(frozen=True)
class _Found:
    path: str
    name: str  # below the folder, with suffix
    volume: bool
    state: list


def _find(folder: str, is_wanted: Callable[[str], bool]) -> dict[str, list[_Found]]:
    """Stem (path below the folder, without suffix) -> files, and volumes."""
    files = list(storage.walk(folder))
    found = defaultdict(list)
    stacks, consumed = volumes.find_volumes(folder, files)
    for stem, path in stacks.items():
        name = path.removeprefix(folder).lstrip("/" + os.sep).replace(os.sep, "/")
        found[stem].append(_Found(path, name, True, []))
    for file in files:
        if file.name not in consumed and is_wanted(file.name):
            state = [file.size, file.version]
            found[readers.stem(file.name)].append(_Found(file.path, file.name, False, state))
    return found
