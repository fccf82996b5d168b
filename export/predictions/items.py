"""What is to be segmented: images and volumes, found in folders, each with a stem of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence

from flexseg_errors import FlexsegError
from pipelines import dicom, readers, storage, volumes

IMAGE, VOLUME = "image", "volume"


@dataclasses.dataclass(frozen=True)
class Item:
    """A file, or a DICOM series, that becomes files of one stem.

    Attributes:
      path: where it is; of a DICOM series its folder.
      stem: its path below the folder that was given, "/" separated, without suffix.
      kind: "image" or "volume".
      state: (bytes, version) of the file or files, another where they changed; see
        `storage.state`.
      truth: path of the mask to hold what is found against; "" for none.
    """

    path: str
    stem: str
    kind: str = IMAGE
    state: tuple[int, int | str] = (-1, -1)
    truth: str = ""


def find_items(images: str, output: str) -> list[Item]:
    """The images and volumes to segment, in the order of their stems.

    Args:
      images: an image, a volume, or a folder; a folder is looked through with all below it. A
        folder whose DICOM files are one series is one volume.
      output: where the masks are to lie.

    Raises:
      FlexsegError: where there is none, where the output lies among them, and where two would get
        one mask.
    """
    if storage.is_file(images):
        return [_single(images)]
    if not storage.is_folder(images):
        raise FlexsegError(f"--images={images}: there is no such folder or file.")
    if (place(output) + "/").startswith(place(images) + "/"):
        raise FlexsegError(f"--output={output} lies inside --images={images}; give another folder.")
    found = _stacks_and_images(images)
    if not found:
        raise FlexsegError(
            f"There are no images in {images} (looked for {' '.join(readers.SUFFIXES)} and the "
            f"volumes {' '.join(volumes.SUFFIXES)}, in all folders below)."
        )
    return found


def refuse_collisions(items: Sequence[Item], targets: Iterable[tuple[Item, str]]) -> None:
    """Sees to it that no file is written over what is read, or twice.

    Args:
      items: all of them.
      targets: each item with the path of each file that is written for it.

    Raises:
      FlexsegError: naming the file.
    """
    read = {place(path) for item in items for path in (item.path, item.truth) if path}
    owners: dict[str, str] = {}
    for item, target in targets:
        if place(target) in read:
            raise FlexsegError(
                f"{target} is an image and would be overwritten; give another --output."
            )
        if owners.setdefault(target, item.path) != item.path:
            raise FlexsegError(
                f"{owners[target]} and {item.path} would both get {target}; rename one."
            )


def place(path: str) -> str:
    """What two paths of one place have in common."""
    return path.rstrip("/") if storage.is_remote(path) else os.path.realpath(path)


def _single(path: str) -> Item:
    name = path.replace(os.sep, "/").rpartition("/")[2]
    if volumes.is_volume(path):
        return Item(path, volumes.stem(name), VOLUME, _state(volumes.state(path)))
    return Item(path, readers.stem(name), IMAGE, _state(storage.state(path)))


def _stacks_and_images(folder: str) -> list[Item]:
    files = list(storage.walk(folder))
    stacks, consumed = volumes.find_volumes(folder, files)
    found: dict[str, Item] = {}
    series = _series_itself(folder, stacks)
    if series:
        stacks = {stem: path for stem, path in stacks.items() if path not in series}
        name = folder.rstrip("/" + os.sep).replace(os.sep, "/").rpartition("/")[2]
        found[name] = Item(folder, name, VOLUME, _state(volumes.state(folder)))
    candidates = [Item(path, stem, VOLUME) for stem, path in stacks.items()]
    candidates += [
        Item(file.path, readers.stem(file.name), IMAGE, (file.size, file.version))
        for file in files
        if file.name not in consumed and readers.is_image(file.name)
    ]
    for item in candidates:
        other = found.setdefault(item.stem, item)
        if other is not item:
            raise FlexsegError(
                f"{other.path} and {item.path} would get the same mask, {item.stem}; rename one."
            )
    return [
        dataclasses.replace(item, state=_state(volumes.state(item.path)))
        if item.kind == VOLUME
        else item
        for _, item in sorted(found.items())
    ]


def _series_itself(folder: str, stacks: dict[str, str]) -> set[str]:
    """The DICOM files directly in a folder, where they are one series of several slices."""
    if storage.is_remote(folder):
        return set()
    direct = {
        path
        for path in stacks.values()
        if place(os.path.dirname(path)) == place(folder)
        and os.path.isfile(path)
        and dicom.is_dicom(path)
    }
    if len(direct) < 2:
        return set()
    try:
        with volumes.open_volume(folder) as volume:
            return direct if len(volume) == len(direct) else set()
    except FlexsegError:
        return set()


def _state(state: list) -> tuple[int, int | str]:
    size, version = state
    return size, version
