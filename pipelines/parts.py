"""Which part of the input each of several hosts reads."""

from __future__ import annotations

import dataclasses
from typing import Literal

from flexseg_errors import FlexsegError
from pipelines.manifest import Manifest

_SHARDS_EACH = 2  # so that the shards of a worker can be shuffled among themselves


@dataclasses.dataclass(frozen=True)
class Part:
    """One worker's part of the input.

    Attributes:
      index: of the worker, from 0.
      count: of the workers.
      by: "data": every worker reads all shards and decodes its contiguous slice of every global
        batch; all of them together see, bit for bit, the stream of one process. "file": worker i
        reads the shards i, i + count, i + 2 count, ... alone, as a stream of its own with epochs
        of its own length.
    """

    index: int
    count: int
    by: Literal["file", "data"]

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise FlexsegError(f"Worker {self.index} of {self.count} is not possible.")

    def share(self, batch_size: int) -> int:
        """Examples of a global batch that fall to each worker.

        Raises:
          FlexsegError: where they cannot be divided.
        """
        if batch_size % self.count:
            raise FlexsegError(
                f"data.batch_size={batch_size} cannot be divided among {self.count} workers; "
                "give a multiple."
            )
        return batch_size // self.count

    def rows(self, batch_size: int) -> tuple[int, int]:
        """The slice of a global batch that is this worker's, as (first, behind the last)."""
        share = self.share(batch_size)
        return self.index * share, (self.index + 1) * share


def choose_part(manifest: Manifest, index: int, count: int) -> Part:
    """How worker `index` of `count` reads the train split.

    By file, which reads every byte once, where the split has at least two shards for each worker
    and a shard for each holds records; else by data, where every worker reads everything. The
    choice depends on the manifest alone, so all workers make the same.
    """
    shards = manifest.split("train").shards
    enough = len(shards) >= _SHARDS_EACH * count
    enough = enough and all(any(s.examples for s in shards[i::count]) for i in range(count))
    return Part(index, count, "file" if enough else "data")
