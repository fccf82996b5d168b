"""Which source goes into which shard, decided from headers alone."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import tempfile
import warnings
from collections.abc import Sequence

from flexseg_errors import FlexsegError
from pipelines import readers, records, shards, sources, storage
from pipelines.preprocessing import Preprocessing
from pipelines.shards import Options, ShardPlan
from pipelines.sources import Source

_MIN_SHARDS = 8  # so that several workers, and several readers, find something to do
_FILE_SHARE = {"png": 0.5, "raw": 0.8, "jpeg": 0.1}  # of a record's pixels, roughly
_HEAD_BYTES = 1 << 16
_READERS = 16  # of headers, where they are far away
_TEST = "test"


def plan(found: Sequence[Source], options: Options) -> list[ShardPlan]:
    """Decides which source goes into which shard; a function of sources and options alone.

    Sources are put in the order of a keyed hash, the slices of a volume one after the other, and
    cut into runs of equal length.
    """
    headers = _headers(found, options)
    channels = max((h.channels for h in headers.values()), default=3)
    if Preprocessing.from_text(options.preparation.preprocessing).needs_color:
        channels = 3
    by_split = collections.defaultdict(list)
    for source in found:
        by_split[source.split].append(source)
    plans = []
    for split in sorted(by_split, key=_place):
        ordered = sorted(
            by_split[split],
            key=lambda s: (sources.keyed_hash(options.split_seed, s.file_id), s.file_id, s.id),
        )
        pixels = 0
        for source in ordered:
            if source.image in headers:
                header = headers[source.image]
                height, width = options.preparation.size_of(header.height, header.width)
                pixels += height * width * (channels + 1)
        forms = [split]
        if options.folds and split != _TEST and options.trains_on_other:
            forms.append(split + shards.TRAINING_FORM)
        for form in forms:
            copies = 1
            if options.augment is not None and (form == "train" or form != split):
                copies = options.augment.examples_per_source
            count = shard_count(pixels * copies, len(ordered), options)
            for i in range(count):
                part = ordered[len(ordered) * i // count : len(ordered) * (i + 1) // count]
                name = f"{form}-{i:05d}-of-{count:05d}.tfrecord"
                plans.append(ShardPlan(name, form, channels, tuple(part)))
    return plans


def shard_count(decoded_bytes: int, count: int, options: Options) -> int:
    """How many shards a split gets; at most one for each of its `count` sources.

    The rule of TensorFlow Datasets: the largest power of two up to 1024 with which shards have at
    least 64 MiB, or else the multiple of 1024 with which they have at most 1 GiB. But there are at
    least 8, so that several workers and readers find something to do. A file's size is reckoned
    from that of the pixels.
    """
    form, _ = records.parse_encoding(options.image_encoding)
    size = int(decoded_bytes * _FILE_SHARE[form])
    if options.num_shards:
        wanted = options.num_shards
    elif options.shard_size_mb:
        wanted = -(-size // (options.shard_size_mb * 10**6))
    elif size > 1024 << 30:
        wanted = -(-size // (1024 << 30)) * 1024
    else:
        wanted = max(_MIN_SHARDS, 1 << min(10, (max(1, size >> 26)).bit_length() - 1))
    return max(1, min(count, wanted))


def _headers(found: Sequence[Source], options: Options) -> dict[str, readers.Header]:
    """Path of an image or volume -> what its header says; without those that cannot be read."""

    def header(source: Source) -> readers.Header | None:
        try:
            if source.slice is not None:
                shape = sources.volume_shape(source.image, options.volumes, options.max_pixels)
                return readers.Header(shape[1], shape[2], 1)
            if storage.is_remote(source.image):
                return _remote_header(source.image)
            return readers.read_header(source.image)
        except (FlexsegError, FileNotFoundError):
            return None  # the worker that meets it rejects it, with all else that is wrong

    files = list({s.image: s for s in found}.values())
    if any(storage.is_remote(s.image) for s in files):  # waits for the network
        with (
            warnings.catch_warnings(),
            concurrent.futures.ThreadPoolExecutor(_READERS) as pool,
        ):
            warnings.simplefilter("ignore", UserWarning)  # Pillow's, of what is cut off
            read = list(pool.map(header, files))
    else:
        read = list(map(header, files))
    return {s.image: h for s, h in zip(files, read, strict=True) if h is not None}


def _remote_header(path: str) -> readers.Header:
    """Of most formats the first bytes tell; of the others, all of them."""
    with tempfile.TemporaryDirectory(prefix="flexseg-") as folder:
        head = os.path.join(folder, path.rpartition("/")[2])  # keeps its suffix
        with storage.open_read(path) as file, open(head, "wb") as part:
            part.write(file.read(_HEAD_BYTES))
        try:
            return readers.read_header(head)
        except FlexsegError:
            with storage.local_copy(path) as whole:
                return readers.read_header(whole)


def _place(split: str) -> tuple[int, str]:
    """Sorts splits: train, valid, test, then folds by number."""
    known = split in sources.SPLITS
    return (sources.SPLITS.index(split), "") if known else (len(sources.SPLITS), f"{split:0>9}")
