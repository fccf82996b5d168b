"""ONNX: float32; batch free, and size where the network's graph survives it."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from export.other_formats.formats import Written
from flexseg_errors import FlexsegError
from train.runs import Run

if TYPE_CHECKING:
    import keras

    from export.other_formats.network import ForeignNetwork

OPSET = 17  # of 2022: wide enough for all networks here, old enough for most runtimes
_TOLERANCE = 1e-3  # of probabilities: a wrong graph is off by far more, float32 by far less
# Merges reshapes across what reads their shapes: attention over free sizes then reads wrong ones.
_HARMFUL = "reshape_optimizer"


def write(trained: Run, model: keras.Model, folder: str) -> Written:
    """model.onnx: images float32 [B, h, w, C], 0..255 -> probabilities float32 [B, h, w, K].

    h and w are free (multiples of the network's divisor), or those of a tile: the description's
    input shape says which.

    Raises:
      FlexsegError: a library is missing, or the network cannot be expressed.
    """
    onnx, _ = _library("onnx"), _library("onnxruntime")
    tf2onnx = _library("tf2onnx")
    _library("tf2onnx.convert")

    try:
        graph = _free_graph(tf2onnx, trained, model) or _graph(
            tf2onnx, trained, model, trained.size
        )
    except Exception as error:  # what tf2onnx raises is of many kinds
        raise FlexsegError(
            f"tf2onnx cannot express the network {trained.experiment.model.name} of "
            f"{trained.folder}: {error}"
        ) from error
    network = trained.experiment.model.network
    about = {
        "classes": json.dumps(list(trained.label_map.names)),
        "tile": json.dumps(list(trained.size)),
        "size_divisor": str(network.size_divisor),
    }
    onnx.helper.set_model_props(graph, about)
    onnx.checker.check_model(graph)
    path = os.path.join(folder, "model.onnx")
    onnx.save(graph, path)
    loaded, description = load(path, trained.size)
    description |= {"opset": OPSET, "size_divisor": network.size_divisor}
    return Written(trained.segmenter(loaded), description)


def _free_graph(tf2onnx: Any, trained: Run, model: keras.Model) -> Any | None:
    """The network for images of all its sizes, or None where the graph is wrong for some.

    tf2onnx can misread arithmetic with sizes (of swin_unet's windows it does), which shows only
    when the graph runs: so it does, for two sizes.
    """
    import keras

    from export.bundles.probe_image import probe
    from train.deep_supervision import main_logits
    from train.segment import probabilities

    graph = _graph(tf2onnx, trained, model, (None, None))
    divisor = trained.experiment.model.network.size_divisor
    height, width = trained.size
    try:
        run = _session(graph.SerializeToString())[0]
        for h, w in ((height, width), (height + divisor, width + 2 * divisor)):
            image = probe(h, w, trained.channels)[None]
            expected = probabilities(main_logits(model(image, training=False)))
            difference = np.abs(run(image) - keras.ops.convert_to_numpy(expected)).max()
            if not difference <= _TOLERANCE:
                return None
    except Exception:  # of the runtime: a shape that does not fit
        return None
    return graph


def _graph(
    tf2onnx: Any, trained: Run, model: keras.Model, size: tuple[int | None, int | None]
) -> Any:
    """As `tf2onnx.convert.from_function`, which does not let one choose among optimizers."""
    import tensorflow as tf

    from export.other_formats.frozen import INPUT, OUTPUT, network_function

    function = network_function(model, (None, *size, trained.channels))
    taken, given = [function.inputs[0].name], [function.outputs[0].name]
    frozen = tf2onnx.tf_loader.from_function(function, taken, given)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        made = tf2onnx.tfonnx.process_tf_graph(
            graph,
            opset=OPSET,
            input_names=taken,
            output_names=given,
            tensors_to_rename={taken[0]: INPUT, given[0]: OUTPUT},
        )
    # The optimizers have no public list; a missing name would be seen by the tests.
    harmless = {k: v for k, v in tf2onnx.optimizer._get_optimizers().items() if k != _HARMFUL}
    made = tf2onnx.optimizer.optimize_graph(made, optimizers=harmless)
    return made.make_model(f"flexseg run {os.path.basename(trained.folder.rstrip('/'))}")


def load(path: str, tile: tuple[int, int]) -> tuple[ForeignNetwork, dict[str, Any]]:
    """A file as a network for tiles of that size, and what it takes and gives.

    Raises:
      FlexsegError: the library is missing, or it is no network from images to classes.
    """
    from export.other_formats.network import ForeignNetwork

    try:
        run, taken, given = _session(path)
    except FlexsegError:
        raise
    except Exception as error:  # onnxruntime's own classes, which have no common base
        raise FlexsegError(f"{path} is no ONNX model that can be run: {error}") from error
    shapes = [taken.shape, given.shape]
    if [len(shape) for shape in shapes] != [4, 4]:
        raise FlexsegError(
            f"{path}: tensors {shapes}; expected an input [B, h, w, C] and an output [B, h, w, K]."
        )
    network = ForeignNetwork(run, tile, taken.shape[3], given.shape[3])
    return network, {"input": _described(taken), "output": _described(given)}


def _session(model: str | bytes) -> tuple[Callable[[np.ndarray], np.ndarray], Any, Any]:
    """What runs a model, given as a path or its bytes, and its first input and output."""
    runtime = _library("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised as well
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    taken, given = session.get_inputs()[0], session.get_outputs()[0]

    def run(tiles: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run([given.name], {taken.name: tiles.astype(np.float32)})[0]
        return found

    return run, taken, given


def _described(tensor: Any) -> dict[str, Any]:
    """A tensor as plain data; null where a side is free."""
    shape = [side if isinstance(side, int) else None for side in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": "float32"}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FlexsegError(
            f"ONNX needs the package {name.partition('.')[0]} ({error}). Install it with "
            "pip install 'flexseg[onnx]'."
        ) from error
