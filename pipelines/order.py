"""In which order training sees the records: an endless stream that can be entered at any place.

Epoch after epoch, shards are shuffled, read side by side, and their records shuffled in a buffer of
bounded bytes; all of it is a pure function of (seed, epoch). What is left out or taken more often
is so by numbers that are known before the first epoch: every epoch has the same length, and a place
in the stream is computed, not searched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from flexseg_errors import FlexsegError

_READERS = 16  # shards read side by side
_FOREGROUND = 0x666F7265  # sets the draws of a second stream apart from those of the first
_EMPTY = 0x656D7074
_MILLION = 1_000_000  # shares are held to six digits, so that places are exact whole numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Shards:
    """The files of a stream.

    Attributes:
      paths: the files.
      examples: records in each.
      bytes: of all of them together.
    """

    paths: tuple[str, ...]
    examples: tuple[int, ...]
    bytes: int

    @property
    def count(self) -> int:
        return sum(self.examples)

    @property
    def first(self) -> tuple[int, ...]:
        """The number of the first record of each file; records are counted through all files."""
        return tuple(np.cumsum([0, *self.examples])[:-1].tolist())


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """What decides the order.

    Attributes:
      shards: where the records are.
      seed: the run's seed.
      shuffle_bytes: memory for shuffling, in bytes of encoded records.
      foreground: bool [N], which records hold foreground; needed for the next two.
      empty_rate: share of the records without foreground that an epoch keeps, in turn.
      foreground_share: share of the places of the stream, evenly spaced, that are taken by a second
        stream, of records with foreground alone.
      numbers_only: leave the files unread; the serialized records are then empty strings.
    """

    shards: Shards
    seed: int
    shuffle_bytes: int
    foreground: np.ndarray | None = None
    empty_rate: float = 1.0
    foreground_share: float = 0.0
    numbers_only: bool = False

    def stream(self, start: int) -> tf.data.Dataset:
        """The stream from a place on.

        Args:
          start: the place, from 0.

        Returns:
          (place int64, whether the place is the second stream's, number of the record int64,
          serialized record) without end.

        Raises:
          FlexsegError: where nothing is left to be read.
        """
        records = self._main()
        share = round(self.foreground_share * _MILLION)
        if not share:
            dataset = records.from_place(start).map(lambda number, data: (False, number, data))
        else:
            foreground = self._with_foreground()
            before = start * share // _MILLION  # places of the second stream before this one
            streams = [
                records.from_place(start - before).map(lambda n, data: (False, n, data)),
                foreground.from_place(before).map(lambda n, data: (True, n, data)),
            ]
            choices = tf.data.Dataset.range(start, tf.int64.max).map(
                lambda place: (
                    (place + 1) // _MILLION * share
                    + (place + 1) % _MILLION * share // _MILLION
                    - place // _MILLION * share
                    - place % _MILLION * share // _MILLION
                )
            )
            dataset = tf.data.Dataset.choose_from_datasets(streams, choices)
        return dataset.enumerate(start).map(lambda place, rest: (place, *rest))

    def _main(self) -> _Epochs:
        half = self.foreground_share > 0  # the two streams share the memory
        budget = self.shuffle_bytes // 2 if half else self.shuffle_bytes
        if self.empty_rate >= 1.0:
            return _Epochs(self.shards, self.seed, budget, None, None, 0, self.numbers_only)
        assert self.foreground is not None
        empty = np.flatnonzero(~self.foreground)
        kept = round(self.empty_rate * len(empty))
        if kept + int(self.foreground.sum()) == 0:
            raise FlexsegError(
                "data.empty_rate leaves nothing of the train split: none of its "
                f"{len(empty)} records holds foreground. Set data.empty_rate=1."
            )
        return _Epochs(
            self.shards, self.seed, budget, self.foreground, empty, kept, self.numbers_only
        )

    def _with_foreground(self) -> _Epochs:
        assert self.foreground is not None
        if not self.foreground.any():
            raise FlexsegError(
                "data.foreground_share needs records with foreground, and the train split has "
                "none. Set it to 0, or look at data.foreground_classes."
            )
        nothing = np.zeros([0], np.int64)
        seed, budget = self.seed + (_FOREGROUND << 32), self.shuffle_bytes // 2
        return _Epochs(self.shards, seed, budget, self.foreground, nothing, 0, self.numbers_only)


@dataclasses.dataclass(frozen=True, eq=False)
class _Epochs:
    """Endless epochs, each of which holds `always` and, in turn, `kept` of the records `empty`."""

    shards: Shards
    seed: int
    shuffle_bytes: int
    always: np.ndarray | None
    empty: np.ndarray | None
    kept: int
    numbers_only: bool

    def from_place(self, start: int) -> tf.data.Dataset:
        """(number of the record, serialized record), from a place on."""
        length = self.shards.count if self.always is None else int(self.always.sum()) + self.kept
        first, offset = divmod(start, length)
        size = max(1, self.shards.bytes)
        # In records of mean size, so that it can be said before anything is read; half of the
        # memory, since there are two buffers where an epoch ends and the next begins.
        buffer = max(1, min(length, self.shuffle_bytes // 2 * self.shards.count // size))
        read = self._reader()
        shards = self._files_to_read()

        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            key = tf.stack([tf.constant(self.seed, tf.int64), number])
            # Of this graph; shuffle() would mix in the program's global seed.
            tf.random.set_seed(1)
            order = tf.random.experimental.stateless_shuffle(tf.constant(shards), key)
            dataset = tf.data.Dataset.from_tensor_slices(order).interleave(
                read,
                cycle_length=min(_READERS, len(shards)),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            if self.always is not None:
                chosen = self._chosen(number)
                dataset = dataset.filter(lambda record, _: chosen[record])
            seed = tf.random.stateless_uniform([], key, None, None, tf.int64)
            dataset = dataset.shuffle(buffer, seed=seed, reshuffle_each_iteration=False)
            # A shard that lost records would shift all that follows; better to stop and say so.
            return dataset.apply(tf.data.experimental.assert_cardinality(length))

        # Side by side, so that the next epoch's buffer fills while this one's is emptied.
        epochs = tf.data.Dataset.range(first, tf.int64.max).interleave(
            epoch, cycle_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return epochs.skip(offset)

    def _reader(self) -> Callable[[tf.Tensor], tf.data.Dataset]:
        first = tf.constant(self.shards.first, tf.int64)
        examples = tf.constant(self.shards.examples, tf.int64)
        paths = tf.constant(self.shards.paths)

        def numbers(shard: tf.Tensor) -> tf.data.Dataset:
            dataset = tf.data.Dataset.range(first[shard], first[shard] + examples[shard])
            return dataset.map(lambda number: (number, tf.constant(b"")))

        def contents(shard: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(paths[shard]).enumerate(first[shard])

        return numbers if self.numbers_only else contents

    def _files_to_read(self) -> Sequence[int]:
        """Of a stream without empty records, only the files that hold others."""
        everything = range(len(self.shards.paths))
        if self.always is None or self.kept:
            return list(everything)
        bounds = zip(self.shards.first, self.shards.examples, strict=True)
        return [i for i, (f, n) in zip(everything, bounds, strict=True) if self._any(f, n)]

    def _any(self, first: int, count: int) -> bool:
        assert self.always is not None
        return bool(self.always[first : first + count].any())

    def _chosen(self, epoch: tf.Tensor) -> tf.Tensor:
        """Which records an epoch holds: bool [N]."""
        always = tf.constant(self.always)
        if not self.kept:
            return always
        assert self.empty is not None
        # In turn, so that all have been seen after 1 / rate epochs.
        own = tf.constant([self.seed, _EMPTY], tf.int64)
        empty = tf.random.experimental.stateless_shuffle(tf.constant(self.empty), own)
        turn = (epoch * self.kept + tf.range(self.kept, dtype=tf.int64)) % len(self.empty)
        kept = tf.gather(empty, turn)[:, None]
        return tf.tensor_scatter_nd_update(always, kept, tf.fill([self.kept], True))
