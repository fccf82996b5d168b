r"""Turns folders of images and color masks into sharded TFRecords.

Sources are paired by their stem, split by group, mapped from colors to class ids, resized or cut
into tiles if asked, and written as shards with a manifest, dataset.json. The same sources and
options give the same bytes on every machine. A run that was interrupted goes on where it stopped.

Any option of Apache Beam may follow, such as --direct_num_workers=4.

Examples:
  flexseg prepare --dataset=lung --output=records --label_map='{(0,0,0):0,(255,255,255):1}' \
      --image_size=256,256
  flexseg prepare --images=slides --masks=annotations --output=records --label_map=classes.yaml \
      --tile_size=512 --tile_overlap=64 --group_regex='patient\d+'
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from flexseg_console import detail, say
from flexseg_errors import FlexsegError, UsageError
from flexseg_flags import stray
from pipelines import (
    audit,
    augment,
    beam_job,
    formats,
    group_files,
    intensity,
    masks,
    records,
    shards,
    sources,
    splits,
    storage,
    tfds,
)
from pipelines import label_map as label_maps
from pipelines import manifest as manifests
from pipelines.planning import plan
from pipelines.preparation import Preparation
from pipelines.preprocessing import Preprocessing
from pipelines.shards import Options
from pipelines.slices import VolumeReading
from pipelines.sources import Rejected, Source

FOREIGN_FLAGS = True  # those of Apache Beam

_UNPLANNED = ("pair", "group", "header")  # stages at which a source is rejected before the job
_MAY_CHANGE = "max_pixels"  # raising it is the remedy for images that were refused


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""

    def string(name: str, default: str | None, text: str) -> None:
        flags.DEFINE_string(name, default, text, flag_values=values)

    string(
        "dataset",
        None,
        "Folder with images/ and masks/, or train/, valid/, test/ holding them. Required, or "
        "--images and --masks.",
    )
    string(
        "images",
        None,
        "Folder of images, where --dataset is not given. Default: as --dataset says.",
    )
    string(
        "masks", None, "Folder of masks, where --dataset is not given. Default: as --dataset says."
    )
    string("output", None, "Folder for the dataset; made if it is not there. Required.")
    string(
        "label_map", None, "YAML file, or a literal such as '{(0,0,0):0,(255,0,0):1}'. Required."
    )
    string(
        "split",
        None,
        "Splits and their shares of the groups. Default: train:0.8,valid:0.1,test:0.1; with folds "
        "train:1, beside which there may be test.",
    )
    flags.DEFINE_enum(
        "split_method",
        "exact",
        ["exact", "stable"],
        "exact: the shares as nearly as can be. stable: adding images never moves one.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "split_seed", 137, "Seed of split and order, any whole number.", flag_values=values
    )
    flags.DEFINE_integer(
        "folds",
        0,
        "Divide all groups but those of test into so many folds, at least 2; a training run "
        "validates on one. 0: no folds.",
        flag_values=values,
    )
    string("split_from", None, "An earlier dataset, whose groups keep their splits. Default: none.")
    string(
        "group_regex",
        None,
        "Regular expression that finds the group (patient, original image) in an image's path. "
        "Default: each image is a group.",
    )
    string(
        "groups",
        None,
        "CSV file with the columns path and group, instead of --group_regex. Default: none.",
    )
    string(
        "mask_suffix",
        "",
        "What a mask's stem has beyond its image's, such as _EX. Default: nothing.",
    )
    string(
        "image_size",
        None,
        "Height,width in pixels to which every source is stretched. Default: none is.",
    )
    flags.DEFINE_float(
        "scale",
        1.0,
        "Factor by which both sides of every source are multiplied.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "tile_size", 0, "Side of square tiles, in pixels; 0: whole images.", flag_values=values
    )
    flags.DEFINE_integer(
        "tile_overlap", 0, "What neighbouring tiles share at least, in pixels.", flag_values=values
    )
    flags.DEFINE_float(
        "color_tolerance",
        None,
        "RGB distance up to which a mask's color stands for the nearest in the map. Default: half "
        "the largest distance between two colors of the map, so that any blend of two is within.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "unmatched",
        "error",
        list(masks.UNMATCHED),
        "What becomes of mask pixels beyond --color_tolerance. error: a mask with more than "
        f"{masks.UNMATCHED_LIMIT:.0%} of them is rejected. nearest: they get the nearest color's "
        "class. ignore: no loss and no metric looks at them.",
        flag_values=values,
    )
    string(
        "mask_kind",
        "colors",
        "What masks hold. colors of the label map; index: gray values are class ids; "
        "binary:THRESHOLD, binary:otsu, binary:triangle: brighter than that is class 1.",
    )
    string(
        "intensity",
        "none",
        "How images of more than 8 bits become 8-bit: none, minmax, percentile:1,99, "
        "window:CENTRE,WIDTH.",
    )
    string(
        "preprocessing",
        "",
        "Done to images before resizing, such as gamma=1.5,sharpen=1,invert,contrast=1.5:40,"
        "color=BGR2HSV. Default: nothing.",
    )
    string(
        "augment",
        None,
        "YAML file, or preset, of what else is made of each training source. Default: nothing.",
    )
    flags.DEFINE_float(
        "empty_tiles",
        1.0,
        "Share of the tiles, or slices of volumes, without foreground that is kept, 0..1.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "empty_tiles_in",
        "train",
        ["train", "all"],
        "The splits that --empty_tiles is for; scores without the empty ones look better.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "add_reduced",
        False,
        "Add each training source as a whole, reduced to a tile's size.",
        flag_values=values,
    )
    string(
        "image_encoding",
        "png",
        "Of images in the records: png, raw (largest, fastest), jpeg:QUALITY (loses detail).",
    )
    string("volume_axis", "auto", "Stored axis along which volumes are cut: auto, 0, 1 or 2.")
    flags.DEFINE_integer(
        "volume_rotation",
        0,
        "Degrees by which slices are turned counter-clockwise: 0, 90, 180 or 270.",
        flag_values=values,
    )
    string("volume_dataset", "", "Array of an HDF5 file that holds the image. Default: finds it.")
    string("mask_dataset", "", "Array of an HDF5 file that holds the mask. Default: finds it.")
    flags.DEFINE_integer(
        "shard_size_mb",
        0,
        "Size of the shards, in MB, as nearly as can be told before they are made. Default: 64 to "
        "1024, and at least 8 shards a split.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_shards",
        0,
        "Shards of each split, instead of --shard_size_mb. 0: as --shard_size_mb says.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "tfds", False, "Also write what tensorflow_datasets needs to read it.", flag_values=values
    )
    flags.DEFINE_integer(
        "max_pixels",
        formats.MAX_PIXELS,
        "The largest image that is decoded, in pixels: a guard against files that unpack to more "
        "than the memory holds.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_rejected",
        0,
        "Fail if more sources than this cannot be used, and name them.",
        flag_values=values,
    )
    string(
        "runner",
        "FnApiRunner",
        "Beam's runner, such as dask or portable; the default works on this machine's cores.",
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    for argument in rest:
        if not argument.startswith("-"):
            raise UsageError(stray("prepare", argument, values))
    beam_flags = beam_job.check_flags(rest, values.runner, list(values))
    for name in ("output", "label_map"):
        if not getattr(values, name):
            raise UsageError(f"prepare needs --{name}. See flexseg prepare --help.")
    label_map = label_maps.load(values.label_map)
    layouts = sources.find_layouts(values.dataset, values.images, values.masks)
    options = options_from(values, label_map, bool(layouts[0].split))
    found, rejected, states = find_sources(layouts, options)
    detail(f"{len(found)} sources found, {len(rejected)} of no use")
    if values.groups:
        found, unnamed = regroup(found, values.groups)
        rejected += unnamed
    if rejected:
        noun = "source" if len(rejected) == 1 else "sources"
        say(f"{len(rejected)} {noun} cannot be used; going on to find what else is wrong:")
        say(describe(rejected))
    if found:
        found, options = divide(found, values.split_from, options)
    claim_output(values.output, options, [p for x in layouts for p in (x.images, x.masks)])
    if found:
        plans = plan(found, options)
        detail(f"{len(plans)} shards planned; {' '.join(beam_flags)}")
        made = beam_job.execute(values.output, plans, options, beam_flags, states)
        rejected += [Rejected(**r) for result in made for r in result["rejected"]]
        rejected = sorted(set(rejected))  # a fold's two forms reject the same source
    _write_rejected(values.output, rejected)
    if len(rejected) > values.max_rejected:
        count = len({s.file_id for s in found}) + sum(r.stage in _UNPLANNED for r in rejected)
        raise FlexsegError(
            f"{len(rejected)} of {count} sources cannot be used "
            f"(--max_rejected={values.max_rejected}):\n{describe(rejected)}\n"
            f"All are listed in {storage.join(values.output, manifests.REJECTED)}. Mend them, or "
            "allow them with --max_rejected, and run the same command again: what is done is kept. "
            "Other options need a new --output."
        )
    if not found:
        raise FlexsegError("No image has a mask of the same stem: there is nothing to prepare.")
    detail("all shards are there; adding up")
    manifest = finish(values.output, options, plans[0].channels, found, made, len(rejected))
    if values.tfds:
        tfds.write(manifest)
    print(f"{values.output}: {summary(manifest)}")


def find_sources(
    layouts: Sequence[sources.Layout], options: Options
) -> tuple[list[Source], list[Rejected], dict[str, list]]:
    """All sources, each slice of a volume one; what cannot be one; and the files' states."""
    found: list[Source] = []
    rejected: list[Rejected] = []
    states: dict[str, list] = {}
    for layout in layouts:
        paired = sources.pair(layout, options.group_regex, options.mask_suffix)
        if paired.passed_over:
            say(
                f"{paired.passed_over} masks in {layout.masks} are passed over: their stems do not "
                f'end with "{options.mask_suffix}".'
            )
        ready, unread = sources.with_slices(paired.sources, options.volumes, options.max_pixels)
        found += ready
        rejected += paired.rejected + unread
        states |= paired.states
    return found, rejected, states


def regroup(found: Sequence[Source], path: str) -> tuple[list[Source], list[Rejected]]:
    """Gives sources the groups that a file names.

    Returns:
      The sources, and those that it does not name.
    """
    groups = group_files.read(path)
    unused = group_files.unused_names(found, groups)
    if unused:
        shown = ", ".join(unused[:5]) + (", ..." if len(unused) > 5 else "")
        say(f"{path} names {len(unused)} images that are not there: {shown}.")
    return group_files.apply(found, groups, path)


def divide(
    found: Sequence[Source], split_from: str | None, options: Options
) -> tuple[list[Source], Options]:
    """Gives every source its split.

    Returns:
      The sources, and the options with a checksum of the earlier dataset's splits.
    """
    earlier = group_files.read_splits(split_from) if split_from else {}
    wanted = splits.SplitOptions(
        options.split, options.split_method, options.split_seed, options.folds
    )
    assigned = splits.assign(found, wanted, earlier, split_from or "")
    if split_from:
        options = dataclasses.replace(options, split_from=group_files.checksum(earlier))
    return assigned, options


def options_from(
    values: flags.FlagValues, label_map: label_maps.LabelMap, has_splits: bool
) -> Options:
    """What the flags say of the dataset's bytes.

    Raises:
      FlexsegError: naming the flag whose value, or whose company, makes no sense.
    """
    tolerance = values.color_tolerance
    encoding = values.image_encoding
    form, quality = records.parse_encoding(encoding)
    options = Options(
        label_map=label_map,
        preparation=Preparation(
            parse_size(values.image_size),
            values.scale,
            str(intensity.parse(values.intensity)),
            str(Preprocessing.from_text(values.preprocessing)),
            values.volume_axis,
            values.volume_rotation,
        ),
        split="" if has_splits else splits.shares_text(values.split, values.folds),
        split_method="" if has_splits and not values.folds else values.split_method,
        split_seed=values.split_seed,
        folds=values.folds,
        group_regex=values.group_regex or "",
        groups_from_file=bool(values.groups),
        split_from="",
        mask_suffix=values.mask_suffix,
        tile_size=values.tile_size,
        tile_overlap=values.tile_overlap,
        empty_tiles=values.empty_tiles,
        empty_tiles_in=values.empty_tiles_in,
        add_reduced=values.add_reduced,
        image_encoding=encoding if form != "jpeg" else f"jpeg:{quality}",
        masks=masks.MaskReading(
            *masks.parse_kind(values.mask_kind),
            color_tolerance=label_map.blend_tolerance if tolerance is None else tolerance,
            unmatched=values.unmatched,
        ),
        volumes=VolumeReading(
            values.volume_axis, values.volume_rotation, values.volume_dataset, values.mask_dataset
        ),
        shard_size_mb=values.shard_size_mb,
        num_shards=values.num_shards,
        max_pixels=values.max_pixels,
        augment=augment.load(values.augment) if values.augment else None,
    )
    masks.check(label_map, options.masks)
    if not options.masks.color_tolerance >= 0:
        raise FlexsegError(
            f"--color_tolerance={options.masks.color_tolerance}: expected an RGB distance "
            "of at least 0."
        )
    if options.tile_size < 0 or not 0 <= options.tile_overlap < max(1, options.tile_size):
        raise FlexsegError(
            f"--tile_overlap={options.tile_overlap} with --tile_size={options.tile_size}: "
            "the overlap must be at least 0 and less than the tile."
        )
    if not 0 <= options.empty_tiles <= 1:
        raise FlexsegError(f"--empty_tiles={options.empty_tiles}: expected a share, 0 to 1.")
    if not options.tile_size and options.add_reduced:
        raise FlexsegError("--add_reduced is for tiles: give --tile_size too.")
    if min(options.shard_size_mb, options.num_shards) < 0 or options.max_pixels < 1:
        raise FlexsegError(
            f"--shard_size_mb={options.shard_size_mb}, --num_shards={options.num_shards}, "
            f"--max_pixels={options.max_pixels}: expected whole numbers, not negative."
        )
    if options.shard_size_mb and options.num_shards:
        raise FlexsegError("Give --shard_size_mb or --num_shards, not both.")
    if has_splits and values.split:
        raise FlexsegError(
            f"--split={values.split}: the dataset comes with splits, which are kept. Leave --split "
            "out, or give --images and --masks."
        )
    if values.groups and values.group_regex:
        raise FlexsegError("Give --groups or --group_regex, not both.")
    if values.tfds and form == "raw":
        raise FlexsegError("--tfds cannot describe --image_encoding=raw; use png or jpeg.")
    return options


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Reads "256,320" as (height, width); None stays None."""
    if not text:
        return None
    try:
        height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise FlexsegError(
            f'--image_size="{text}": expected height,width in pixels, such as 256,256.'
        ) from error
    return height, width


def claim_output(output: str, options: Options, inputs: Sequence[str]) -> None:
    """Makes the output folder this dataset's own, or refuses it.

    Raises:
      FlexsegError: where it holds something else, lies in the sources, or holds a dataset made with
        other options (which are named).
    """
    for folder in inputs:
        if (_real(output) + "/").startswith(_real(folder) + "/"):
            raise FlexsegError(f"--output={output} lies inside the sources {folder}.")
    work = storage.join(output, shards.WORK_FOLDER)
    path = storage.join(work, "options.json")
    if storage.is_file(output):
        raise FlexsegError(f"--output={output} is a file; expected a folder.")
    inside = storage.names(output)
    # A run that was killed before it wrote its options leaves the work folder alone.
    if set(inside) - {shards.WORK_FOLDER} and not storage.is_file(path):
        raise FlexsegError(
            f"--output={output} holds something else ({', '.join(inside[:5])}"
            f"{', ...' if len(inside) > 5 else ''}); nothing was touched. Give a new folder."
        )
    wanted = {"code_version": shards.CODE_VERSION, **options.to_dict()}
    if storage.is_file(path):
        there = json.loads(storage.read_bytes(path))
        old, new = _flat(there), _flat(json.loads(json.dumps(wanted)))  # tuples become lists
        differing = [k for k in {**old, **new} if old.get(k) != new.get(k) and k != _MAY_CHANGE]
        if differing:
            changes = "; ".join(f"{k}: {old.get(k)!r}, now {new.get(k)!r}" for k in differing)
            raise FlexsegError(
                f"--output={output} holds a dataset made with other options ({changes}). "
                "Give a new folder, or the old options."
            )
    storage.make_folder(work)
    storage.write_whole(path, json.dumps(wanted, indent=1).encode())


def _real(path: str) -> str:
    return path.rstrip("/") if storage.is_remote(path) else os.path.realpath(path)


def _flat(options: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested options by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        nested = (
            _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {path + key: value}
        )
        flat.update(nested)
    return flat


def finish(
    output: str,
    options: Options,
    channels: int,
    found: Sequence[Source],
    made: Sequence[dict[str, Any]],
    rejected: int,
) -> manifests.Manifest:
    """Sums up the shards and writes the manifest, last of all."""
    by_split = collections.defaultdict(list)
    for result in made:
        by_split[result["split"]].append(result)
    for split, results in by_split.items():
        if not any(r["tally"]["examples"] for r in results):
            raise FlexsegError(
                f'Of the sources of the split "{split}" none could be used. Mend them (they are in '
                f"{storage.join(output, manifests.REJECTED)}), or give another --split or "
                "--split_seed and a new --output."
            )
    noticed = {
        split: [a for r in results for a in r["audit"]]
        for split, results in by_split.items()
        if not split.endswith(shards.TRAINING_FORM)
    }
    audit.refuse_leaks(noticed)
    described = options.to_dict()
    del described["label_map"], described["preparation"]
    content = [options.to_dict(), [(r["name"], r["sha256"]) for r in made]]
    manifest = manifests.Manifest(
        folder=output,
        label_map=options.label_map,
        channels=channels,
        preparation=options.preparation,
        options=described,
        fingerprint=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        rejected=rejected,
        splits={split: manifests.summarize(results) for split, results in by_split.items()},
        audit=audit.summarize(noticed, options.label_map),
    )
    groups = group_files.as_csv(found).encode()
    storage.write_whole(storage.join(output, group_files.FILE), groups)
    path = storage.join(output, manifests.FILENAME)
    storage.write_whole(path, manifests.dump(manifest).encode())
    return manifest


def describe(rejected: Sequence[Rejected], most: int = 20) -> str:
    """The rejected sources, a line each."""
    lines = [f"  {r.path}: {r.reason}" for r in sorted(rejected)[:most]]
    if len(rejected) > most:
        lines.append(f"  ... and {len(rejected) - most} more")
    return "\n".join(lines)


def summary(manifest: manifests.Manifest) -> str:
    """One line on what a dataset holds."""
    parts = [
        f"{name} {split.examples} examples of {split.sources} sources ({len(split.shards)} shards)"
        for name, split in manifest.splits.items()
    ]
    return ", ".join(parts)


def _write_rejected(output: str, rejected: Sequence[Rejected]) -> None:
    lines = [json.dumps(dataclasses.asdict(r), ensure_ascii=False) for r in sorted(rejected)]
    text = "".join(line + "\n" for line in lines)
    storage.write_whole(storage.join(output, manifests.REJECTED), text.encode())
