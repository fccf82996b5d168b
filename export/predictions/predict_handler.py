"""What Beam's workers do to segment items; a module of its own so that only jobs import Beam."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from export.predictions import writing
from export.predictions.items import Item
from export.predictions.outputs import Outputs
from export.predictions.report import Report
from export.predictions.segment_file import segment_file
from pipelines import storage

if TYPE_CHECKING:
    from export.predictions.predictors import Predictor, PredictorOptions


class Handler(ModelHandler[Item, Report, Any]):
    """Segments items, of which only the names come here, and writes their files.

    It takes batches that are batches already, [item]: those that Beam would make come out when a
    bundle is finished, and what comes out then the Dask runner drops without a word.
    """

    def __init__(
        self, models: Sequence[str], options: PredictorOptions, outputs: Outputs, job: str
    ):
        """Loads nothing yet.

        Args:
          models: paths of runs and bundles, which every worker must see.
          options: how they are applied.
          outputs: what is written, and where; every worker must see that folder.
          job: a name for these models in this job.
        """
        super().__init__()
        self._models = tuple(models)
        self._options = options
        self._outputs = outputs
        self._job = job

    def should_skip_batching(self) -> bool:
        return True

    def get_metrics_namespace(self) -> str:
        return "flexseg"

    def load_model(self) -> Predictor:
        """The predictor, which is loaded once in the life of a worker's process."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # or TensorFlow fills workers' logs
        from export.predictions import predictors

        return kept.get(self._job, lambda: predictors.load(self._models, self._options))

    def run_inference(
        self, batch: Sequence[Item], model: Predictor, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Report]:
        """Segments each item; what cannot be segmented comes back as a report that says so."""
        return [self._segmented(item, model) for item in batch]

    def _segmented(self, item: Item, predictor: Predictor) -> Report:
        try:
            return segment_file(item, predictor, self._outputs)
        except Exception as error:  # one item of thousands must not end the job
            logging.exception("%s could not be segmented", item.path)
            what = f"{item.path}: {type(error).__name__}: {error}"
            return Report(item.stem, item.path, item.state, error=what)


class Deliver(beam.DoFn):
    """Writes every report to a file of its own: few runners hand a collection back."""

    def __init__(self, folder: str):
        self._folder = folder
        # What a runner with a page of its own shows while it works.
        self._segmented = Metrics.counter("flexseg", "segmented")
        self._failed = Metrics.counter("flexseg", "failed")

    def process(self, report: Report) -> None:
        name = hashlib.sha256(report.stem.encode()).hexdigest()  # again the same, if it is repeated
        writing.write(storage.join(self._folder, f"{name}.json"), report.to_json().encode())
        (self._failed if report.error else self._segmented).inc()


class Kept:
    """The model of the newest job in this process, for all its threads and bundles.

    The process that starts a job can lend its own. And Beam alone would not keep one for sure where
    every bundle is set up anew, as on Dask: it holds on to the newest of the objects that it
    shares, and RunInference shares two.
    """

    def __init__(self) -> None:
        self.loads = 0  # in the life of this process
        self._lock = threading.Lock()
        self._job = ""
        self._predictor: Predictor | None = None

    def put(self, job: str, predictor: Predictor | None) -> None:
        """Takes a model that is loaded already; None lets go of the job's."""
        with self._lock:
            self._job, self._predictor = job, predictor

    def get(self, job: str, load: Callable[[], Predictor]) -> Predictor:
        with self._lock:
            if self._job != job or self._predictor is None:
                self._predictor = None  # goes before the next one comes
                self._predictor = load()
                self._job = job
                self.loads += 1
            return self._predictor


kept = Kept()
