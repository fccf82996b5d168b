"""What predicting whole images costs around the network, in time and in memory.

stitch: the identity as the network over 3025x3500x2 with tiles of 512, so that all the time is
stitching: in the graph, outside it, and by MONAI where it and torch can be imported (it is told
where not). Largest error, and seconds, median of --repeat.

graph: in the graph against the loop outside it, with a small network of random weights on
--graph_side pixels: seconds by turns, largest difference of a probability, class ids that differ.

memory: peak memory of a process that segments an image from a tiled TIFF to a mask, with three
classes and a network of one layer, for 1 to 400 megapixels; and how much of it is beyond the model
and its first batch. Each size is a process of its own. With --mend components are removed and
holes filled, too.

whole and seams: see whole_images.py; they need --run=RUN and --images=FOLDER (with images/ and
masks/, or images alone), and take --limit images at most.

Prints tables; asserts nothing.

    PYTHONPATH=. python tests/benchmarks/inference.py [--cases=stitch,graph,memory,whole,seams]
        [--run=RUN --images=FOLDER] [--repeat=5] [--sides=1000,2000,5000,10000,20000]
        [--suffix=.png] [--scale=1.0] [--mend]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[0] = os.getcwd()  # not this folder

from tests.benchmarks import whole_images  # noqa: E402

TILE = 512


def median(run: Callable[[], Any], repeat: int) -> float:
    """Seconds of a call, after one that is not counted."""
    run()
    return statistics.median(timed(run)[0] for _ in range(repeat))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


# ---- stitch


def stitch(arguments: argparse.Namespace) -> None:
    import tensorflow as tf

    from models.sliding_window import SlidingWindow
    from models.window_rows import slide_rows

    image = np.random.default_rng(0).random((3025, 3500, 2), np.float32)
    print("stitch: the identity over 3025x3500x2, tiles of 512, four a call")
    print(f"{'overlap':>8} {'weights':>9} {'where':>8} {'seconds':>8} {'largest error':>14}")

    def row(overlap: float, weights: str, where: str, run: Callable[[], np.ndarray]) -> None:
        error = float(np.abs(run() - image).max())
        seconds = median(run, arguments.repeat)
        print(f"{overlap:>8} {weights:>9} {where:>8} {seconds:>8.3f} {error:>14.1e}", flush=True)

    for overlap in (0.25, 0.5):
        for weights in ("gaussian", "margin"):
            window = SlidingWindow(tf.identity, (TILE, TILE), overlap, weights, batch_size=4)
            graph = tf.function(window.__call__, input_signature=[tf.TensorSpec([None, None, 2])])
            row(overlap, weights, "graph", lambda graph=graph: graph(image).numpy())

            def outside(window: SlidingWindow = window) -> np.ndarray:
                rows = slide_rows(
                    window, image.shape[:2], lambda a, b: image[a:b], lambda tiles: tiles
                )
                return np.concatenate(list(rows))

            row(overlap, weights, "outside", outside)
        if importlib.util.find_spec("torch") and importlib.util.find_spec("monai"):
            row(overlap, "gaussian", "MONAI", monai(image, overlap))
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("monai")):
        print("MONAI was not measured: torch and monai are not both installed.")


def monai(image: np.ndarray, overlap: float) -> Callable[[], np.ndarray]:
    import torch
    from monai.inferers import sliding_window_inference

    batch = torch.from_numpy(np.moveaxis(image, -1, 0)[None].copy())

    def run() -> np.ndarray:
        found = sliding_window_inference(
            batch, (TILE, TILE), 4, lambda tiles: tiles, overlap, mode="gaussian"
        )
        return np.moveaxis(found[0].numpy(), 0, -1)

    return run


# ---- graph


def drawn(side: int) -> np.ndarray:
    """Smooth shapes with some noise, uint8 [side, side, 3]."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 9, 3)).astype(np.float32)
    image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 9, image.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8)


def graph(arguments: argparse.Namespace) -> None:
    from models import registry
    from pipelines.preparation import Preparation
    from train.experiment import InferenceConfig
    from train.segment import Segmenter
    from train.segment_rows import Whole

    model = registry.build("flex_unet", num_classes=3, base_filters=8, levels=3)
    image = drawn(arguments.graph_side)
    print(f"graph: flex_unet of 8 filters and 3 levels, {image.shape}, tiles of 256")
    print(f"{'scale':>6} {'graph':>8} {'outside':>8} {'ratio':>6} {'difference':>11} {'ids':>6}")
    for scale in (1.0, 0.5):
        segmenter = Segmenter(model, (256, 256), Preparation(scale=scale), InferenceConfig())
        rows = segmenter.rows()

        def inside(segmenter: Segmenter = segmenter) -> np.ndarray:
            return segmenter.probabilities(image).numpy()

        def outside(rows: Any = rows) -> np.ndarray:
            return np.concatenate(list(rows.probabilities(Whole(image))))

        one, other = inside(), outside()
        times: list[tuple[float, float]] = [
            (timed(inside)[0], timed(outside)[0]) for _ in range(arguments.repeat)
        ]
        seconds = [statistics.median(column) for column in zip(*times, strict=True)]
        ids = int((one.argmax(-1) != other.argmax(-1)).sum())
        print(
            f"{scale:>6} {seconds[0]:>8.3f} {seconds[1]:>8.3f} {seconds[1] / seconds[0]:>6.2f} "
            f"{np.abs(one - other).max():>11.1e} {ids:>6}",
            flush=True,
        )


# ---- memory


def memory(arguments: argparse.Namespace) -> None:
    print(
        f"memory: tiled TIFF to {arguments.suffix}, three classes, tiles of {TILE}, four a call, "
        f"scale {arguments.scale}"
    )
    print(f"{'megapixels':>11} {'image MiB':>10} {'peak MiB':>9} {'beyond':>7} {'seconds':>8}")
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--one={folder}", f"--side={side}", f"--suffix={arguments.suffix}"]
            subprocess.run([sys.executable, __file__, *flags, "--draw"], check=True, env=_ENV)
            done = subprocess.run(
                [sys.executable, __file__, *flags, f"--scale={arguments.scale}"]
                + ["--mend"] * arguments.mend,
                check=True,
                env=_ENV,
                stdout=subprocess.PIPE,
                text=True,
            )
        peak, before, seconds = map(float, done.stdout.split()[-3:])
        print(
            f"{side * side / 1e6:>11.0f} {side * side * 3 / 2**20:>10.0f} {peak:>9.0f} "
            f"{peak - before:>7.0f} {seconds:>8.1f}",
            flush=True,
        )


_ENV = {**os.environ, "PYTHONPATH": os.getcwd()}


def draw_tiff(path: str, side: int) -> None:
    """An image of smooth tiles, written tile by tile."""
    import cv2
    import tifffile

    rng = np.random.default_rng(0)

    def tiles() -> Iterable[np.ndarray]:
        for _ in range((-(-side // 256)) ** 2):
            coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            yield cv2.resize(coarse, (256, 256), interpolation=cv2.INTER_LINEAR)

    tifffile.imwrite(
        path,
        tiles(),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(256, 256),
        photometric="rgb",
        compression="adobe_deflate",
        compressionargs={"level": 1},
        bigtiff=True,
        maxworkers=1,
    )


def segment_one(folder: str, suffix: str, scale: float, mend: bool) -> None:
    """What a process of its own does; prints peak, peak before, in MiB, and seconds."""
    import keras

    from export.predictions import huge_image
    from pipelines import label_map
    from pipelines.intensity import Intensity
    from pipelines.preparation import Preparation
    from train import postprocessing_bands
    from train.experiment import InferenceConfig
    from train.postprocessing import ClassRule, Postprocessing
    from train.segment import Segmenter

    chosen = Postprocessing((ClassRule(1, True, 0, 50), ClassRule(2, False, 50, 50)))
    images = keras.Input((None, None, 3))
    model = keras.Model(images, keras.layers.Conv2D(3, 3, padding="same")(images / 255.0))
    rows = Segmenter(model, (TILE, TILE), Preparation(scale=scale), InferenceConfig()).rows()
    rows.predict(np.zeros((4, TILE, TILE, 3), np.uint8))
    labels = label_map.load("{(0,0,0):0,(255,0,0):1,(0,255,0):2}")
    before = _peak_mib()
    seconds, _ = timed(
        lambda: huge_image.segment_huge(
            f"{folder}/image.tif",
            f"{folder}/mask",
            rows,
            labels,
            channels=3,
            intensity=Intensity(),
            suffix=suffix,
            finish=(lambda ids: postprocessing_bands.apply(chosen, ids)) if mend else None,
        )
    )
    print(_peak_mib(), before, seconds)


def _peak_mib() -> float:
    """Of this process alone; what getrusage tells begins with the parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


def whole(arguments: argparse.Namespace) -> None:
    whole_images.whole(arguments)


def seams(arguments: argparse.Namespace) -> None:
    whole_images.seams(arguments)


CASES = {"stitch": stitch, "graph": graph, "memory": memory, "whole": whole, "seams": seams}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--graph_side", type=int, default=2000)
    parser.add_argument("--sides", default="1000,2000,5000,10000,20000")
    parser.add_argument("--suffix", default=".png", help="of the mask: .png, .tif or .npy")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--mend", action="store_true", help="of memory: post-process, too")
    parser.add_argument("--run")
    parser.add_argument("--images")
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--split", type=int, default=512)
    parser.add_argument("--margin", type=int, default=64)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--draw", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one and arguments.draw:
        draw_tiff(f"{arguments.one}/image.tif", arguments.side)
        return
    if arguments.one:
        segment_one(arguments.one, arguments.suffix, arguments.scale, arguments.mend)
        return
    arguments.sides = [int(side) for side in arguments.sides.split(",")]
    for case in arguments.cases.split(","):
        if case not in CASES:
            parser.error(f"--cases: {case} is unknown; known are {', '.join(CASES)}")
        CASES[case](arguments)
        print()


if __name__ == "__main__":
    main()
