"""Time of the sliding window alone: the identity as the model, so that all the time is stitching.

python tests/benchmarks/stitching.py
"""

from __future__ import annotations

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from models.sliding_window import SlidingWindow


def main() -> None:
    image = np.random.default_rng(0).random((3025, 3500, 2), np.float32)
    print(f"{'overlap':>8} {'batch':>6} {'seconds':>8} {'largest error':>14}")
    for overlap in (0.25, 0.5):
        for batch_size in (1, 4):
            window = SlidingWindow(tf.identity, (512, 512), overlap, batch_size=batch_size)
            run = tf.function(window.__call__, input_signature=[tf.TensorSpec([None, None, 2])])
            error = float(np.abs(run(image).numpy() - image).max())
            seconds = []
            for _ in range(5):
                began = time.perf_counter()
                run(image)
                seconds.append(time.perf_counter() - began)
            median = statistics.median(seconds)
            print(f"{overlap:>8} {batch_size:>6} {median:>8.3f} {error:>14.1e}")


if __name__ == "__main__":
    main()
