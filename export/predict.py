"""Segments a folder of images, or a single one, with a run or an exported bundle.

Every mask is a palette PNG of the image's own size, pixel value = class id, under the image's
relative path. Images of any size are taken; nothing in the output folder is deleted. Model, images
and output may be remote (s3://bucket/name).

Examples:
  flexseg predict --model=runs/lung --images=scans --output=masks --overlay
  flexseg predict --model=bundles/lung --images=scan.png --output=masks --probabilities
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags

from flexseg_errors import FlexsegError, UsageError
from pipelines import readers, storage
from train import previews


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""

    def string(name: str, text: str) -> None:
        flags.DEFINE_string(name, None, text, flag_values=values)

    string("model", "Run directory of flexseg train, or bundle of flexseg export.")
    string("images", "Folder of images (with all folders below), or one image.")
    string("output", "Folder for the masks; made if it is not there.")
    flags.DEFINE_bool(
        "overlay",
        False,
        "Also write NAME.overlay.png: the mask over the image.",
        flag_values=values,
    )
    flags.DEFINE_float("opacity", 0.5, "Of the mask in the overlay, 0..1.", flag_values=values)
    flags.DEFINE_bool(
        "probabilities",
        False,
        "Also write NAME.npz: float16 [H, W, classes] under the key probabilities.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    from tqdm import tqdm

    from export import predictors

    for name in ("model", "images", "output"):
        if not getattr(values, name):
            raise UsageError(f"predict needs --{name}. See flexseg predict --help.")
    if not 0 <= values.opacity <= 1:
        raise FlexsegError(f"--opacity={values.opacity}: expected 0 to 1.")
    todo = find_images(values.images, values.output)
    suffixes = [".png"] + [".overlay.png"] * values.overlay
    refuse_collisions(todo, values.output, suffixes)
    predictor = predictors.load(values.model)
    failed = []
    for path, stem in tqdm(todo, unit="image", disable=None):
        target = storage.join(values.output, stem)
        with storage.local_copy(path) as local:
            try:
                image = readers.read_image(local, predictor.channels, predictor.intensity)
            except FlexsegError as error:
                failed.append(str(error).replace(local, path))
                continue
        probabilities = predictor.probabilities(image)
        ids = probabilities.argmax(-1).astype(np.uint8)
        if values.probabilities:
            with _written(target + ".npz") as local:
                _write_probabilities(local, probabilities)
        if values.overlay:
            picture = previews.overlay(image, ids, predictor.label_map, values.opacity)
            with _written(target + ".overlay.png") as local:
                previews.write_png(local, picture)
        with _written(target + ".png") as local:
            previews.write_mask(local, ids, predictor.label_map)
    done = len(todo) - len(failed)
    print(f"{values.output}: {done} of {len(todo)} images segmented.")
    if failed:
        raise FlexsegError(
            f"{len(failed)} images could not be read:\n" + "\n".join(f"  {f}" for f in failed)
        )


def find_images(images: str, output: str) -> list[tuple[str, str]]:
    """The images to segment: (path, its path below the folder without suffix), sorted.

    Raises:
      FlexsegError: where there is none, the output lies among them, or two would get one mask.
    """
    if storage.is_file(images):
        return [(images, readers.stem(images.replace(os.sep, "/").rpartition("/")[2]))]
    if not storage.is_folder(images):
        raise FlexsegError(f"--images={images}: there is no such folder or file.")
    if (_place(output) + "/").startswith(_place(images) + "/"):
        raise FlexsegError(f"--output={output} lies inside --images={images}; give another folder.")
    found: dict[str, str] = {}
    for file in storage.walk(images):
        if not readers.is_image(file.name):
            continue
        stem = readers.stem(file.name)
        if stem in found:
            raise FlexsegError(
                f"{found[stem]} and {file.path} would get the same mask, {stem}.png; rename one."
            )
        found[stem] = file.path
    if not found:
        raise FlexsegError(
            f"There are no images in {images} (looked for {' '.join(readers.SUFFIXES)})."
        )
    return [(path, stem) for stem, path in sorted(found.items())]


def refuse_collisions(
    todo: Sequence[tuple[str, str]], output: str, suffixes: Sequence[str]
) -> None:
    """Sees to it that no file is written over an image, or twice.

    Args:
      todo: what `find_images` found.
      output: the folder for what is written.
      suffixes: of the files that each image gets.

    Raises:
      FlexsegError: naming the file.
    """
    images = {_place(path) for path, _ in todo}
    owners: dict[str, str] = {}
    for path, stem in todo:
        for suffix in suffixes:
            target = storage.join(output, stem + suffix)
            if _place(target) in images:
                raise FlexsegError(
                    f"{target} is an image and would be overwritten; give another --output."
                )
            if target in owners:
                raise FlexsegError(
                    f"{owners[target]} and {path} would both get {target}; rename one."
                )
            owners[target] = path


def _place(path: str) -> str:
    """What two paths of one place have in common."""
    return path.rstrip("/") if storage.is_remote(path) else os.path.realpath(path)


@contextlib.contextmanager
def _written(path: str) -> Iterator[str]:
    """A local path to write to; what is written there ends up under `path`."""
    if not storage.is_remote(path):
        storage.make_folder(os.path.dirname(path) or ".")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="flexseg-") as folder:
        local = os.path.join(folder, path.rpartition("/")[2])
        yield local
        storage.upload(local, path)


def _write_probabilities(path: str, probabilities: np.ndarray) -> None:
    with open(path + ".tmp", "wb") as file:
        np.savez_compressed(file, probabilities=probabilities.astype(np.float16))
    os.replace(path + ".tmp", path)
