"""Size, time and agreement of every format of a trained run, beside the network itself.

Times are of one tile and take turns, format after format; the least of all turns counts, for other
work on the machine only adds. PYTHONPATH=. python tests/benchmarks/other_formats.py --run=RUN
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[0] = os.getcwd()  # not this folder, in which a file would pass for a package


def main() -> None:
    from export.bundles.probe_image import probe
    from export.other_formats import FORMATS
    from train import runs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run directory with weights")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    run = runs.load(options.run)
    tile = probe(*run.size, run.channels)[None]
    network = run.segmenter()
    calls: dict[str, Callable[[], Any]] = {"network": lambda: network.tile_probabilities(tile)}
    rows = {"network": f"{'':>9} {'':>9}"}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.formats.split(","):
            target = os.path.join(folder, name)
            os.mkdir(target)
            began = time.perf_counter()
            figures = FORMATS[name](run, target, 0.0)
            seconds, found = time.perf_counter() - began, figures["parity"]
            lost = "-" if found["dice_lost"] is None else f"{found['dice_lost']:+.5f}"
            rows[name] = (
                f"{figures['bytes'] / 1e6:>9.3f} {seconds:>9.1f} {found['max_difference']:>10.1e} "
                f"{found['mean_difference']:>10.1e} {found['agreement']:>10.6f} {lost:>10}"
            )
            calls[name] = _caller(run, name, target, tile)
        for call in calls.values():
            call()
        least = dict.fromkeys(calls, np.inf)
        for _ in range(options.turns):
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                least[name] = min(least[name], time.perf_counter() - began)
    print(
        f"{'format':<17} {'ms a tile':>9} {'MB':>9} {'export s':>9} {'largest':>10} {'mean':>10} "
        f"{'alike':>10} {'Dice lost':>10}"
    )
    for name, row in rows.items():
        print(f"{name:<17} {least[name] * 1e3:>9.1f} {row}")


def _caller(run: Any, name: str, folder: str, tile: np.ndarray) -> Callable[[], Any]:
    """What segments the tile with the files of a format."""
    import tensorflow as tf

    from export.other_formats import FORMATS, onnx, tflite

    path = os.path.join(folder, FORMATS[name].files[0])
    if name.startswith("tflite"):
        network = tflite.load(path)[0]
        return lambda: network.probabilities(tile)
    if name == "onnx":
        network = onnx.load(path, run.size)[0]
        return lambda: network.probabilities(tile)
    loaded = tf.saved_model.load(folder)
    image = tf.constant(tile)
    return lambda: loaded.signatures["serving_default"](images=image)


if __name__ == "__main__":
    main()
