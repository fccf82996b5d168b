"""Barrel and elastic warps against the formulas done naively, on a 512x512 RGB image and its mask.

Naive: a pixel loop in Python for the barrel's points, timed on a smaller image and scaled by the
number of pixels; scipy's filter and `map_coordinates` over the three channels for the elastic
deformation. Both warp image and mask. "points kept" is a barrel whose points were computed for an
earlier image, as in a dataset. Times are of the processor, one thread, so that what else runs on
the machine matters little. Prints a table of the best of several runs; asserts nothing.

    python tests/benchmarks/warps.py [--side=512] [--loop_side=128] [--repeat=7]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipelines import warps

RADIUS, AMOUNT, CENTER = 0.3, 0.3, (0.5, 0.5)
ALPHA, SIGMA = 1300.0, 8.0


def naive_barrel(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = mask.shape
    map_x, map_y = np.zeros((2, height, width), np.float32)
    center_x, center_y, radius = width * CENTER[0], height * CENTER[1], width * RADIUS
    for y in range(height):
        dy = y - center_y
        for x in range(width):
            dx = x - center_x
            squared = dx * dx + dy * dy
            factor = 1.0
            if 0 < squared < radius * radius:
                factor = math.pow(math.sin(math.pi * math.sqrt(squared) / radius / 2), AMOUNT)
            map_x[y, x] = factor * dx + center_x
            map_y[y, x] = factor * dy + center_y
    return (
        cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR),
        cv2.remap(mask, map_x, map_y, cv2.INTER_NEAREST),
    )


def naive_elastic(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
    random = np.random.RandomState(137)
    warped = []
    for array, order in ((image, 1), (mask[..., None], 0)):
        noise = random.rand(2, *array.shape) * 2 - 1
        dx, dy = (ndimage.gaussian_filter(n, SIGMA, mode="constant") * ALPHA for n in noise)
        y, x, channel = np.indices(array.shape)
        points = [y + dy, x + dx, channel]
        warped.append(ndimage.map_coordinates(array, points, order=order, mode="nearest"))
    return tuple(warped)


def barrel(image: np.ndarray, mask: np.ndarray, reuse: bool) -> tuple[np.ndarray, np.ndarray]:
    lens = warps.radial(mask.shape, RADIUS, AMOUNT, (CENTER,))
    return warps.resample(image, mask, [lens], border="constant", reuse=reuse)


def elastic(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.PCG64(137))
    sheet = warps.elastic(mask.shape, ALPHA, SIGMA, rng)
    return warps.resample(image, mask, [sheet], border="replicate")


def milliseconds(call: Callable[[], object], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--loop_side", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    side, small, repeat = arguments.side, arguments.loop_side, arguments.repeat
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    mask = (image[..., 0] > 128).astype(np.uint8)
    part = image[:small, :small].copy(), mask[:small, :small].copy()

    loop = milliseconds(lambda: naive_barrel(*part), repeat) * (side / small) ** 2
    slow = milliseconds(lambda: naive_elastic(image, mask), max(1, repeat // 3))
    barrel(image, mask, reuse=True)
    rows = [
        ("barrel", loop, milliseconds(lambda: barrel(image, mask, False), repeat)),
        ("barrel, points kept", loop, milliseconds(lambda: barrel(image, mask, True), repeat)),
        ("elastic", slow, milliseconds(lambda: elastic(image, mask), repeat)),
    ]
    print(f"{f'{side}x{side}x3':<22}{'naive ms':>10}{'ours ms':>10}{'ratio':>8}")
    for name, naive, ours in rows:
        print(f"{name:<22}{naive:>10.1f}{ours:>10.2f}{naive / ours:>8.0f}")


if __name__ == "__main__":
    main()
