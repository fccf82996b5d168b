"""The Beam step that makes shards; a module of its own so that only workers import Beam."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import cv2
from apache_beam.metrics import Metrics

from pipelines import shards


class Materialize(beam.DoFn):
    """Makes the shard whose name it is given, in the dataset's folder."""

    def __init__(self, folder: str):
        self._folder = folder
        self._examples = Metrics.counter("flexseg", "examples")
        self._rejected = Metrics.counter("flexseg", "rejected")
        self._bytes = Metrics.counter("flexseg", "bytes")

    def setup(self) -> None:
        cv2.setNumThreads(
            1
        )  # the workers share the cores; OpenCV's own threads would fight for them

    def process(self, name: str) -> Iterator[str]:
        result = shards.materialize(self._folder, name)
        self._examples.inc(result["tally"]["examples"])
        self._rejected.inc(len(result["rejected"]))
        self._bytes.inc(result["bytes"])
        yield name
