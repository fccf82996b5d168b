"""Shards -> batches, streaming.

Training examples come as one endless stream: epoch after epoch, each in an order that is a pure
function of (seed, epoch) (see `order`). Step k takes examples k B to (k + 1) B - 1 of the stream,
whatever came before, so that the whole state of the input is the step's number. Memory is bounded
by the shuffle buffer, which holds encoded records, and does not grow with the dataset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from flexseg_errors import FlexsegError
from pipelines import damage, data_service, oversampling, pixel_cache, reading, records
from pipelines.covering import evaluation, example_size
from pipelines.damage import Damaged, explained
from pipelines.damage import describe as describe_damage
from pipelines.manifest import Manifest
from pipelines.online_augment import Augmentation, augment, mix
from pipelines.order import Order, Shards
from pipelines.parts import Part, choose_part
from pipelines.whole_images import whole_images

__all__ = [
    "Damaged",
    "Part",
    "TrainInput",
    "check",
    "choose_part",
    "describe_damage",
    "evaluation",
    "example_size",
    "explained",
    "record_ids",
    "skipped",
    "train",
    "whole_images",
]

Example = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class TrainInput:
    """What decides the stream of training batches, apart from the dataset.

    Attributes:
      batch_size: examples in a global batch.
      seed: decides order and augmentation.
      crop_size: (height, width) of the examples; None takes the records as they are, which then
        must all be of one size.
      augmentation: what to draw from; None leaves the examples as they are.
      shuffle_bytes: memory for shuffling, in bytes of encoded records.
      foreground_share: share of the examples whose record holds foreground and whose crop shows a
        pixel of it, spread evenly over the batches.
      foreground_classes: names or ids of the classes that are foreground; () is all but class 0.
      empty_rate: share of the records without foreground that an epoch keeps, each epoch others.
      cache: "none", or where decoded records are kept: "memory" or "disk".
      on_corrupt: "stop", or "skip", which trains without the damaged records.
      service: address of a tf.data service that makes the batches; "" makes them here.
      threads: of the input's own; 0 shares those of TensorFlow.
      ram_bytes: what tf.data's buffers may take by its own choice.
    """

    batch_size: int
    seed: int = 0
    crop_size: tuple[int, int] | None = None
    augmentation: Augmentation | None = None
    shuffle_bytes: int = 256 << 20
    foreground_share: float = 0.0
    foreground_classes: tuple[str, ...] = ()
    empty_rate: float = 1.0
    cache: str = "none"
    on_corrupt: str = "stop"
    service: str = ""
    threads: int = 0
    ram_bytes: int = reading.RAM_BYTES


def check(manifest: Manifest, options: TrainInput, workers: int = 1) -> None:
    """Holds what is wanted to the dataset, before anything is read.

    Raises:
      FlexsegError: naming the key that does not fit.
    """
    example_size(manifest, options.crop_size)
    share = Part(0, workers, "data").share(options.batch_size)
    (options.augmentation or Augmentation()).check(manifest.channels, share)
    oversampling.class_ids(manifest.label_map, options.foreground_classes)
    if options.service:
        data_service.check_address(options.service)
        if options.cache != "none":
            raise FlexsegError(
                f"data.cache={options.cache} keeps pixels on this machine, and data.service has "
                "them made on others. Set one of the two."
            )
        if options.on_corrupt == "skip":
            raise FlexsegError(
                "data.on_corrupt=skip mends shards on this machine, and data.service has them "
                "read on others. Set data.on_corrupt=stop, or leave data.service out."
            )


def train(
    manifest: Manifest, options: TrainInput, start_step: int = 0, part: Part | None = None
) -> tf.data.Dataset:
    """The endless stream of training batches from a step on.

    Args:
      manifest: the dataset; its split "train" is read.
      options: what decides the stream.
      start_step: the first batch is the one that this step of an unbroken run sees.
      part: which part of it this worker sees, of several; None for all.

    Returns:
      Batches {"image": uint8 [B, H, W, C], "mask": uint8 [B, H, W]}, where B is the worker's share
      of the global batch.

    Raises:
      FlexsegError: where options and dataset do not fit (see `check`), or the service or the cache
        cannot be had.
    """
    check(manifest, options, part.count if part else 1)
    reads = _Reads.plan(manifest, options, part)
    size = len(reads.rows)
    cache = None
    if options.cache != "none":
        cache = pixel_cache.fill(options.cache, manifest, reads.shards)
    make = _maker(manifest, options, part, cache)
    dataset = reads.places(options, start_step, numbers_only=cache is not None)
    parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    if options.service:
        workers = data_service.count_workers(options.service)
        dataset = data_service.own_batches(dataset.batch(size, drop_remainder=True)).unbatch()
    dataset = dataset.map(make, **parallel).batch(size, drop_remainder=True)
    if options.augmentation is not None and options.augmentation.cutmix:
        own, partners = reads.mixing()
        wanted, seed = options.augmentation, options.seed

        def mixed(places: tf.Tensor, batch: Example) -> tuple[tf.Tensor, Example]:
            first, second = (
                {key: tf.gather(value, rows) for key, value in batch.items()}
                for rows in (own, partners)
            )
            other = (second["image"], second["mask"])
            unique = _unique(tf.gather(places, own), part)
            image, mask = mix(first["image"], first["mask"], other, seed, unique, wanted)
            return places, {"image": image, "mask": mask}

        dataset = dataset.map(mixed, **parallel)
    if options.service:
        global_size = reads.batch_size
        dataset = dataset.map(lambda places, batch: (places[0] // global_size, batch))
        dataset = data_service.shared(dataset, options.service)
        dataset = data_service.in_order(dataset, workers, start_step)
    else:
        dataset = dataset.map(lambda _, batch: batch)
    return reading.with_options(dataset.prefetch(2), options.threads, options.ram_bytes)


def record_ids(
    manifest: Manifest, options: TrainInput, step: int, part: Part | None = None
) -> list[str]:
    """The records that the batch of a step is made of, in its order, by names for people.

    They are found by reading the stream from the step on, without decoding pixels. With
    `augmentation.cutmix` and a part by data, the one more that is mixed into it is among them.

    Returns:
      The source's id, the tile's origin (y, x) where it is a tile, and what offline augmentation
      did, as "patient 3/scan (512, 0) [hflip]".
    """
    reads = _Reads.plan(manifest, options, part)
    dataset = reading.with_options(reads.places(options, step).take(len(reads.rows)))
    return [
        records.name_of(records.parse_features(serialized))
        for *_, serialized in dataset.as_numpy_iterator()
    ]


def skipped(manifest: Manifest, options: TrainInput, part: Part | None = None) -> list[Damaged]:
    """What a worker leaves out of every epoch because it is damaged; empty but for "skip"."""
    return list(_Reads.plan(manifest, options, part).damaged)


@dataclasses.dataclass(frozen=True, eq=False)
class _Reads:
    """What a worker reads.

    Attributes:
      shards: its files.
      damaged: what is left out of them.
      batch_size: examples that a step takes from the stream that it reads.
      rows: those of them that the worker decodes, in order.
      share: the slice of them that it sees.
      foreground: which records hold foreground, bool [N]; None where nobody asks.
    """

    shards: Shards
    damaged: tuple[Damaged, ...]
    batch_size: int
    rows: tuple[int, ...]
    share: tuple[int, int]
    foreground: np.ndarray | None

    @classmethod
    def plan(cls, manifest: Manifest, options: TrainInput, part: Part | None) -> _Reads:
        by_file = part is not None and part.by == "file"
        own = slice(part.index, None, part.count) if part and by_file else slice(None)
        paths = reading.files(manifest, "train")[own]
        shards = list(manifest.split("train").shards[own])
        damaged: list[Damaged] = []
        if options.on_corrupt == "skip":
            paths, shards, damaged = damage.without_damage(paths, shards)
        batch_size, share = options.batch_size, (0, options.batch_size)
        if part is not None and by_file:
            batch_size = part.share(batch_size)
            share = (0, batch_size)
        elif part is not None:
            share = part.rows(batch_size)
        rows = set(range(*share))
        if options.augmentation is not None and options.augmentation.cutmix:
            rows.add(share[1] % batch_size)  # the last one's partner
        foreground = None
        if options.foreground_share or options.empty_rate < 1.0:
            classes = oversampling.class_ids(manifest.label_map, options.foreground_classes)
            counts = oversampling.class_pixels(tuple(paths), manifest.label_map.num_classes)
            foreground = counts[:, list(classes)].any(axis=1)
        files = Shards(
            tuple(paths), tuple(s.examples for s in shards), sum(s.bytes for s in shards)
        )
        return cls(files, tuple(damaged), batch_size, tuple(sorted(rows)), share, foreground)

    def places(
        self, options: TrainInput, start_step: int, numbers_only: bool = False
    ) -> tf.data.Dataset:
        """The worker's part of the stream from a step on; see `Order.stream`."""
        order = Order(
            self.shards,
            options.seed,
            options.shuffle_bytes,
            self.foreground,
            options.empty_rate,
            options.foreground_share,
            numbers_only,
        )
        dataset = order.stream(start_step * self.batch_size)
        if len(self.rows) == self.batch_size:
            return dataset
        size, rows = self.batch_size, self.rows
        wanted = tf.constant([row in rows for row in range(size)])
        return dataset.filter(lambda place, *_: wanted[place % size])

    def mixing(self) -> tuple[list[int], list[int]]:
        """Where, among what is decoded, the worker's examples are, and where their partners."""
        own = range(*self.share)
        partners = [(row + 1) % self.batch_size for row in own]
        return [self.rows.index(r) for r in own], [self.rows.index(r) for r in partners]


def _maker(
    manifest: Manifest,
    options: TrainInput,
    part: Part | None,
    cache: pixel_cache.PixelCache | None,
) -> Callable[..., tuple[tf.Tensor, Example]]:
    """What makes an example of what `Order.stream` gives: (place, {"image", "mask"})."""
    seed = options.seed
    height, width = example_size(manifest, options.crop_size)
    classes = oversampling.class_ids(manifest.label_map, options.foreground_classes)

    def make(
        place: tf.Tensor, forced: tf.Tensor, number: tf.Tensor, serialized: tf.Tensor
    ) -> tuple[tf.Tensor, Example]:
        image, mask = cache.read(number) if cache else reading.decode(serialized, manifest)
        if options.augmentation is not None or options.crop_size is not None:
            unique, focus = _unique(place, part), None
            if options.foreground_share and options.crop_size is not None:
                focus = oversampling.draw_focus(mask, forced, classes, seed, unique)
            wanted = options.augmentation or Augmentation()
            image, mask = augment(image, mask, seed, unique, wanted, options.crop_size, focus)
        image = tf.ensure_shape(image, [height, width, manifest.channels])
        return place, {"image": image, "mask": tf.ensure_shape(mask, [height, width])}

    return make


def _unique(place: tf.Tensor, part: Part | None) -> tf.Tensor:
    """A place that no example of another worker has."""
    return place * part.count + part.index if part and part.by == "file" else place
