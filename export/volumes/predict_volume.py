"""Volumes segmented slice by slice, into label volumes that lie where their sources do."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from flexseg_errors import FlexsegError, nearest
from pipelines import formats, intensity, slices, storage, volume_writer, volumes
from pipelines.slices import VolumeReading

if TYPE_CHECKING:  # they import what is written of volumes from here
    from export.predictions.items import Item
    from export.predictions.outputs import Outputs
    from export.predictions.predictors import Predictor
    from export.predictions.report import Report

PICTURES = ("slices", "masks", "overlays")
FILMS = ("", "mp4", "gif")
_FIRST = 10_001  # number of the first slice's pictures, as in the old projects
_FASTEST = 100.0  # frames a second; GIF counts time in hundredths


@dataclasses.dataclass(frozen=True)
class VolumeOutputs:
    """How volumes are read, and what is written of them beside the label volume.

    Attributes:
      axis: "0", "1" or "2": the stored axis along which slices are taken; "auto" takes the last of
        NIfTI, the first of everything else; "" as the model's dataset.
      rotation: 0, 90, 180 or 270 degrees by which slices are turned counter-clockwise for the
        network; the label volume is turned back. None as the model's dataset.
      dataset: name of the array of an HDF5 file; "" finds it.
      intensity: how values become 8-bit, as text (`intensity.parse`); "" as the model's dataset.
      pictures: of "slices", "masks" and "overlays" what is written of each slice.
      film: "mp4", "gif" or "" for none.
      film_pictures: what films are made of, one each.
      film_fps: slices a second.
    """

    axis: str = ""
    rotation: int | None = None
    dataset: str = ""
    intensity: str = ""
    pictures: tuple[str, ...] = ()
    film: str = ""
    film_pictures: tuple[str, ...] = ("overlays",)
    film_fps: float = 10.0

    def __post_init__(self) -> None:
        volumes.check_reading(self.axis or "auto", self.rotation or 0)
        if self.intensity:
            intensity.parse(self.intensity)
        _check_kinds("--volume_pictures", self.pictures)
        _check_kinds("--film_pictures", self.film_pictures)
        if self.film not in FILMS:
            raise FlexsegError(f"--film={self.film}: expected mp4 or gif.")
        if not (0 < self.film_fps <= _FASTEST and math.isfinite(self.film_fps)):
            raise FlexsegError(
                f"--film_fps={self.film_fps}: expected slices a second, above 0 and up to "
                f"{_FASTEST:g}."
            )


def define_volume_flags(values: flags.FlagValues) -> None:
    """Defines the flags of `VolumeOutputs`; those that `prepare` has too have its names."""

    def string(name: str, default: str, text: str) -> None:
        flags.DEFINE_string(name, default, text, flag_values=values)

    string(
        "volume_axis",
        "",
        "Stored axis along which volumes are cut: auto, 0, 1 or 2. Default: as the model's data.",
    )
    flags.DEFINE_integer(
        "volume_rotation",
        None,
        "Degrees by which slices are turned counter-clockwise for the network: 0, 90, 180 or 270. "
        "Default: as the model's data.",
        flag_values=values,
    )
    string("volume_dataset", "", "Array of an HDF5 file that holds the image. Default: finds it.")
    string(
        "intensity",
        "",
        "How voxels of more than 8 bits become 8-bit: none, minmax, percentile:1,99, "
        "window:CENTRE,WIDTH, minmax-slice, percentile-slice:1,99. Default: as the model's data.",
    )
    flags.DEFINE_list(
        "volume_pictures",
        [],
        "Also write OUTPUT/NAME/KIND/10001.png and so on for these kinds. Default: none.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "film",
        "",
        list(FILMS),
        "Also write NAME.KIND.mp4 or .gif, a frame for each slice. Default: none.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "film_pictures",
        ["overlays"],
        "Kinds of pictures of which --film makes a film each.",
        flag_values=values,
    )
    flags.DEFINE_float("film_fps", 10.0, "Speed of films, in slices a second.", flag_values=values)


def volume_outputs(values: flags.FlagValues) -> VolumeOutputs:
    """What the flags say.

    Raises:
      FlexsegError: naming the flag whose value makes no sense.
    """
    return VolumeOutputs(
        axis=values.volume_axis,
        rotation=values.volume_rotation,
        dataset=values.volume_dataset,
        intensity=values.intensity,
        pictures=tuple(dict.fromkeys(values.volume_pictures)),
        film=values.film,
        film_pictures=tuple(dict.fromkeys(values.film_pictures)),
        film_fps=values.film_fps,
    )


def target_names(item: Item, how: VolumeOutputs) -> list[str]:
    """The files that a volume gets, by their paths below the output, "/" separated.

    Of pictures only the first of each kind: how many there will be is not known yet.
    """
    films = [film_name(item, kind, how) for kind in how.film_pictures if how.film]
    return [labels_name(item), *films, *(picture_name(item, kind, 0) for kind in how.pictures)]


def segment_volume(item: Item, predictor: Predictor, outputs: Outputs) -> Report:
    """Segments a volume slice by slice and writes its label volume, pictures and films.

    The label volume is uint8, in the geometry, stored axes and format of its source; see
    `volume_writer`. It comes last, films appear once all slices are done, and what was there before
    stays until then. One slice at a time is in memory, and one byte a voxel in a temporary file.

    Args:
      item: the volume, here or remote.
      predictor: the model.
      outputs: what to write, and where, here or remote.

    Returns:
      Its files, and its figures, with regions connected in three dimensions. An error where the
      truth cannot be held against it, which has its files all the same.

    Raises:
      FlexsegError: where the volume is missing, truncated or damaged, its values are deeper than 8
        bits and nobody said what they mean, and where a file cannot be written.
    """
    from export.predictions import items, report, segment_file, writing
    from export.volumes import films
    from export.volumes.volume_objects import Objects
    from export.volumes.volume_pictures import Slice
    from export.volumes.volume_truth import VolumeTruth

    how, label_map = outputs.volumes, predictor.label_map
    known = predictor.members[0].preparation
    rotation = known.volume_rotation if how.rotation is None else how.rotation
    reading = VolumeReading(how.axis or known.volume_axis, rotation, how.dataset)
    mapping = intensity.parse(how.intensity) if how.intensity else predictor.intensity
    target = storage.join(outputs.folder, *labels_name(item).split("/"))
    if items.place(target) == items.place(item.path):
        raise FlexsegError(f"{target} would be written over its source; give another --output.")
    volume = slices.opened(item.path, reading, formats.MAX_PIXELS)

    labels = volume_writer.Labels(volume)
    objects = Objects(label_map.num_classes)
    truth = VolumeTruth(item, volume, reading, label_map, outputs.truth_kind)
    pixels = np.zeros(label_map.num_classes, np.int64)
    names = [labels_name(item)]

    def place(name: str) -> str:
        names.append(name)
        return storage.join(outputs.folder, *name.split("/"))

    with contextlib.ExitStack() as stack:
        reels = {
            kind: stack.enter_context(
                films.writing(place(film_name(item, kind, how)), how.film_fps)
            )
            for kind in how.film_pictures
            if how.film
        }
        for index in range(len(volume)):
            gray = slices.read_image(item.path, index, reading, mapping, formats.MAX_PIXELS)
            image = np.repeat(gray[..., None], predictor.channels, -1)
            ids = segment_file.predict(image, predictor, outputs).class_ids
            labels.put(index, ids)
            objects.add(ids)
            truth.add(index, ids)
            pixels += np.bincount(ids.reshape(-1), minlength=label_map.num_classes)
            shown = Slice(gray, ids, label_map, outputs)
            for kind in how.pictures:
                writing.write(place(picture_name(item, kind, index)), shown.encoded(kind))
            for kind, add in reels.items():
                add(shown.colors(kind))
    with writing.written(target) as local:
        labels.write(local)
    row = report.Row(
        volume.shape,
        tuple(pixels.tolist()),
        objects.counts(),
        voxel_mm3=volume_writer.voxel_volume(volume),
    )
    files = dict.fromkeys(names, "volume")
    return truth.score(report.Report(item.stem, item.path, item.state, row, files))


def labels_name(item: Item) -> str:
    """The label volume's path below the output."""
    return item.stem + volume_writer.suffix(item.path)


def film_name(item: Item, kind: str, how: VolumeOutputs) -> str:
    """A film's path below the output."""
    return f"{item.stem}.{kind}.{how.film}"


def picture_name(item: Item, kind: str, index: int) -> str:
    """A picture's path below the output; they count from 10001, as those of the old projects."""
    return f"{item.stem}/{kind}/{_FIRST + index}.png"


def _check_kinds(flag: str, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        if kind not in PICTURES:
            raise FlexsegError(
                f"{flag}={','.join(kinds)}: expected some of {', '.join(PICTURES)}."
                + nearest(kind, PICTURES)
            )
