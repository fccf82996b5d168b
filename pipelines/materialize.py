"""The Beam step that makes shards; a module of its own so that only workers import Beam."""

from __future__ import annotations

from concurrent.futures import Future, as_completed

import apache_beam as beam
import cv2
from apache_beam.metrics import Metrics

from pipelines import local_workers


class Materialize(beam.DoFn):
    """Makes the shards whose names it is given, in the dataset's folder; nothing comes out."""

    def __init__(self, folder: str):
        self._folder = folder
        # What a runner with a page of its own shows while it works.
        self._sources = Metrics.counter("flexseg", "sources")
        self._examples = Metrics.counter("flexseg", "examples")
        self._rejected = Metrics.counter("flexseg", "rejected")
        self._bytes = Metrics.counter("flexseg", "bytes")

    def setup(self) -> None:
        # The workers share the cores; OpenCV's own threads would fight for them.
        cv2.setNumThreads(1)

    def start_bundle(self) -> None:
        self._shards: list[Future] = []

    def process(self, name: str) -> None:
        self._shards.append(local_workers.materialize(self._folder, name))

    def finish_bundle(self) -> None:
        for shard in as_completed(self._shards):
            result = shard.result()
            self._sources.inc(result["sources"])
            self._examples.inc(result["tally"]["examples"])
            self._rejected.inc(len(result["rejected"]))
            self._bytes.inc(result["bytes"])
