"""What tells one model from another: a hash of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence

from export.predictions.predictors import PredictorOptions
from pipelines import storage
from train import runs

_BLOCK = 1 << 20
_OF_RUN = (runs.EXPERIMENT, runs.INPUT, runs.LABEL_MAP, runs.BEST_WEIGHTS, "postprocessing.yaml")


def of_prediction(models: Sequence[str], options: PredictorOptions) -> str:
    """The fingerprint of models and of how they are applied.

    The number of tiles in a call is left out: nothing depends on it but for rounding.
    """
    how = dataclasses.asdict(dataclasses.replace(options, batch_size=None, maps=False))
    text = json.dumps([[of_model(path) for path in models], how], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_model(path: str) -> str:
    """The fingerprint of a run, a bundle or a file: of what prediction reads, whatever its path.

    Here it depends on the files' content, elsewhere (`s3://`) on what the store says of it, so that
    a copy here and one there differ.
    """
    if storage.is_file(path):  # and the assets that lie beside it
        folder = storage.join(path.replace(os.sep, "/").rpartition("/")[0] or ".", "assets")
        beside = sorted((file.name, file.path) for file in storage.walk(folder))
        states = [[name, _content(place)] for name, place in [("model", path), *beside]]
        return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]
    if storage.is_file(storage.join(path, runs.EXPERIMENT)):
        names = [name for name in _OF_RUN if storage.is_file(storage.join(path, name))]
    else:
        names = sorted(file.name for file in storage.walk(path))
    states = [[name, _content(storage.join(path, *name.split("/")))] for name in names]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]


def _content(path: str) -> str:
    if storage.is_remote(path):
        return str(storage.state(path))
    digest = hashlib.sha256()
    with storage.open_read(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
