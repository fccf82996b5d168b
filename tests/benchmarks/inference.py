"""What predicting whole images costs around the network, in time and in memory.

stitch: the identity as the network over 3025x3500x2 with tiles of 512, so that all the time is
stitching: in the graph, outside it, and by MONAI where it and torch can be imported (it is told
where not). Largest error, and seconds, median of --repeat.

graph: in the graph against the loop outside it, with a small network of random weights on
--graph_side pixels: seconds by turns, largest difference of a probability, class ids that differ.

memory: peak memory of a process that segments an image from a tiled TIFF to a mask, with three
classes and a network of one layer, for 1 to 400 megapixels; and how much of it is beyond the model
and its first batch. Each size is a process of its own.

whole: needs --run=RUN and --images=FOLDER (with images/ and masks/, or images alone): each image is
read, segmented and written. The share of the time that is the network's own: the same number of
tiles, in the same batches, over the whole. Megapixels per second against the old way with the same
weights: crops of --split=512 with a margin of --margin=64 pixels, black beyond the border, scaled
to the network's input, one a call, argmax, scaled back by nearest neighbour, pasted hard.
Foreground Dice of both against the masks. --limit images at most.

Prints tables; asserts nothing.

    PYTHONPATH=. python tests/benchmarks/inference.py [--cases=stitch,graph,memory,whole]
        [--run=RUN --images=FOLDER] [--repeat=5] [--sides=1000,2000,5000,10000,20000]
        [--suffix=.png] [--scale=1.0]
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
                [sys.executable, __file__, *flags, f"--scale={arguments.scale}"],
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


def segment_one(folder: str, suffix: str, scale: float) -> None:
    """What a process of its own does; prints peak, peak before, in MiB, and seconds."""
    import keras

    from export.predictions import huge_image
    from pipelines import label_map
    from pipelines.intensity import Intensity
    from pipelines.preparation import Preparation
    from train.experiment import InferenceConfig
    from train.segment import Segmenter

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
        )
    )
    print(_peak_mib(), before, seconds)


def _peak_mib() -> float:
    """Of this process alone; what getrusage tells begins with the parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024


# ---- whole


def whole(arguments: argparse.Namespace) -> None:
    if not (arguments.run and arguments.images):
        print("whole was not measured: it needs --run=RUN and --images=FOLDER.")
        return
    from pipelines import intensity, readers
    from train import previews, runs

    run = runs.load(arguments.run)
    segmenter = run.segmenter()
    mapping = intensity.parse(run.preparation.intensity)
    folder = os.path.join(arguments.images, "images")
    folder = folder if os.path.isdir(folder) else arguments.images
    names = sorted(filter(readers.is_image, os.listdir(folder)))[: arguments.limit]
    print(f"whole: {len(names)} images, tile {run.size}, {run.preparation}, {segmenter.inference}")
    print(
        f"{'image':>20} {'megapixels':>11} {'read':>6} {'segment':>8} {'write':>6} {'network':>8} "
        f"{'share':>6} {'MP/s':>7} {'old MP/s':>9} {'times':>6} {'Dice':>6} {'old':>6}"
    )
    overlaps = {"ours": [0.0, 0.0], "old": [0.0, 0.0]}
    shares, speedups = [], []
    for name in names:
        path = os.path.join(folder, name)
        image = readers.read_image(path, run.channels, mapping)
        segmenter.probabilities(image)  # traced, warm
        read, image = timed(lambda path=path: readers.read_image(path, run.channels, mapping))

        def ours(image: np.ndarray = image) -> np.ndarray:
            return segmenter.probabilities(image).numpy().argmax(-1).astype(np.uint8)

        segment, ids = timed(ours)
        with tempfile.TemporaryDirectory() as target:
            write, _ = timed(
                lambda target=target, ids=ids: previews.write_mask(
                    f"{target}/mask.png", ids, run.label_map
                )
            )
        network = network_seconds(segmenter, image)
        old_one = old_network(segmenter)
        old_one(np.zeros((1, *run.size, run.channels), np.uint8))
        old, old_ids = timed(lambda image=image, one=old_one: old_way(image, one, arguments, run))
        everything, pixels = read + segment + write, image.shape[0] * image.shape[1] / 1e6
        shares.append(network / everything)
        speedups.append((old + read + write) / everything)
        truth = truth_of(arguments.images, name, run)
        dice = [
            dice_of(found, truth, overlaps[way]) for way, found in (("ours", ids), ("old", old_ids))
        ]
        print(
            f"{name[:20]:>20} {pixels:>11.2f} {read:>6.2f} {segment:>8.2f} {write:>6.2f} "
            f"{network:>8.2f} {shares[-1]:>6.2f} {pixels / everything:>7.2f} "
            f"{pixels / (old + read + write):>9.2f} {speedups[-1]:>6.2f} {dice[0]} {dice[1]}",
            flush=True,
        )
    pooled = {way: 2 * top / bottom if bottom else None for way, (top, bottom) in overlaps.items()}
    print(
        f"median share of the network {statistics.median(shares):.2f}, median speed over the old "
        f"way {statistics.median(speedups):.2f}x, foreground Dice pooled over pixels "
        f"{_figure(pooled['ours'])}, old way {_figure(pooled['old'])}"
    )


def network_seconds(segmenter: Any, image: np.ndarray) -> float:
    """The network alone, on as many tiles, in the batches that the window makes."""
    size = segmenter.preparation.size_of(*image.shape[:2])
    rows, columns = (len(axis.origins) for axis in segmenter._window.axes(*size))
    prepared = np.random.default_rng(0).integers(
        0, 256, (segmenter.inference.batch_size, *segmenter.tile, segmenter.channels), np.uint8
    )
    at_a_time = segmenter.inference.batch_size
    batches = [min(at_a_time, columns - first) for first in range(0, columns, at_a_time)] * rows
    for count in set(batches):
        segmenter.tile_probabilities(prepared[:count])
    seconds, _ = timed(
        lambda: [segmenter.tile_probabilities(prepared[:count]).numpy() for count in batches]
    )
    return seconds


def old_network(segmenter: Any) -> Callable[[np.ndarray], np.ndarray]:
    """One image a call, as the old programs did: `model.predict` without its progress bar."""
    return lambda tile: segmenter.tile_probabilities(tile).numpy()


def old_way(
    image: np.ndarray,
    network: Callable[[np.ndarray], np.ndarray],
    arguments: argparse.Namespace,
    run: Any,
) -> np.ndarray:
    """The tiled inference of the old projects; class ids uint8 [H, W].

    Crops of S x S with a margin of M on the sides where the whole margin lies inside the image,
    black beyond the right and the lower border; to the network's size (bicubic), and back
    (nearest).
    """
    from PIL import Image

    side, margin = arguments.split, arguments.margin
    height, width = image.shape[:2]
    model_height, model_width = run.size
    gray = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if gray else image)
    canvas = Image.new("L", (width, height))
    for upper in range(0, height, side):
        for left in range(0, width, side):
            right, lower = left + side, upper + side
            before_x = margin if left - margin >= 0 else 0
            before_y = margin if upper - margin >= 0 else 0
            after_x = margin if right + margin <= width else 0
            after_y = margin if lower + margin <= height else 0
            box = (left - before_x, upper - before_y, right + after_x, lower + after_y)
            crop = picture.crop(box)
            scaled = np.asarray(crop.resize((model_width, model_height), Image.Resampling.BICUBIC))
            values = network(scaled.reshape(1, model_height, model_width, -1))[0]
            mask = Image.fromarray(values.argmax(-1).astype(np.uint8))
            mask = mask.resize(crop.size, Image.Resampling.NEAREST)
            kept = mask.crop((before_x, before_y, before_x + side, before_y + side))
            canvas.paste(kept, (left, upper))
    return np.asarray(canvas)


def truth_of(folder: str, name: str, run: Any) -> np.ndarray | None:
    """The mask's class ids, nearest colour; None where there is none."""
    from pipelines import readers

    stem = readers.stem(name)
    folder = os.path.join(folder, "masks")
    if not os.path.isdir(folder):
        return None
    for other in sorted(os.listdir(folder)):
        if readers.is_mask(other) and readers.stem(other) == stem:
            return _nearest(readers.read_mask(os.path.join(folder, other)), run.label_map)
    return None


def _nearest(pixels: np.ndarray, label_map: Any) -> np.ndarray:
    """Class ids of the nearest of the map's colours, block by block."""
    colors = np.array(label_map.colors, np.int32)
    pixels = np.repeat(pixels[..., None], 3, -1) if pixels.ndim == 2 else pixels
    ids = np.empty(pixels.shape[:2], np.uint8)
    for start in range(0, len(pixels), 256):
        block = pixels[start : start + 256].astype(np.int32)
        distances = [((block - color) ** 2).sum(-1) for color in colors]
        ids[start : start + 256] = np.argmin(distances, 0)
    return ids


def dice_of(found: np.ndarray, truth: np.ndarray | None, sums: list[float]) -> str:
    """Foreground Dice of hard labels, as text; adds to the sums over all images."""
    if truth is None or truth.shape != found.shape:
        return f"{'-':>6}"
    both = float(((found == truth) & (truth > 0)).sum())
    either = float((found > 0).sum() + (truth > 0).sum())
    sums[0] += both
    sums[1] += either
    return f"{2 * both / either if either else 1.0:>6.3f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


CASES = {"stitch": stitch, "graph": graph, "memory": memory, "whole": whole}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--graph_side", type=int, default=2000)
    parser.add_argument("--sides", default="1000,2000,5000,10000,20000")
    parser.add_argument("--suffix", default=".png", help="of the mask: .png, .tif or .npy")
    parser.add_argument("--scale", type=float, default=1.0)
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
        segment_one(arguments.one, arguments.suffix, arguments.scale)
        return
    arguments.sides = [int(side) for side in arguments.sides.split(",")]
    for case in arguments.cases.split(","):
        if case not in CASES:
            parser.error(f"--cases: {case} is unknown; known are {', '.join(CASES)}")
        CASES[case](arguments)
        print()


if __name__ == "__main__":
    main()
