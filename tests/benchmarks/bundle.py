"""What an export's own checks cost, and what the first answers of a bundle, cold and warmed up.

A network of drawn weights is exported to a temporary folder; each signature's check is timed as the
export does it. Then the bundle is loaded in processes of their own: one that is asked at once, one
that is first sent the requests of its warm-up file, as TensorFlow Serving does. Both answer one
image of 1.3 tiles a side to each signature, twice. Also: eight files, and eight images, of a tile's
size in one call against eight calls, the quickest of some turns. Seconds on the clock, and of the
processor, which other work on the machine changes less.
Prints tables; asserts nothing.

    PYTHONPATH=. python tests/benchmarks/bundle.py [--filters=16] [--levels=5] [--side=256]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

sys.path[0] = os.getcwd()  # not this folder, in which a file would pass for a package
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIGNATURES = ("serving_default", "encoded", "rest", "tiled", "examples")
FILES, TURNS = 8, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--ask", help="of the processes that this one starts: the bundle")
    parser.add_argument("--warm", action="store_true", help="of those: send the warm-up first")
    arguments = parser.parse_args()
    if arguments.ask:
        print(json.dumps(ask(arguments.ask, arguments.side, arguments.warm)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = os.path.join(folder, "bundle")
        export(os.path.join(folder, "run"), bundle, arguments)
        files = [os.path.join(p, name) for p, _, names in os.walk(bundle) for name in names]
        print(f"\nbundle: {sum(map(os.path.getsize, files)) / 1e6:.1f} MB\n")
        found = {warm: started(bundle, arguments.side, warm) for warm in (False, True)}
    print(f"{'seconds: clock (processor)':<28} {'cold':>16} {'warmed up':>16}")
    for row in found[False]:
        cells = [found[warm].get(row) for warm in (False, True)]
        print(f"{row:<28} " + " ".join(f"{shown(c):>16}" for c in cells))


def export(folder: str, target: str, arguments: argparse.Namespace) -> None:
    """Exports a network of drawn weights and prints what that and the checks cost."""
    from export import bundle
    from pipelines import label_map as label_maps
    from pipelines.preparation import Preparation
    from train import experiment as experiments
    from train import runs

    model = {"base_filters": arguments.filters, "levels": arguments.levels}
    run = runs.Run(
        folder=folder,
        data="nowhere",
        experiment=experiments.from_dict({"model": model}),
        label_map=label_maps.load("{(0,0,0):0,(255,0,0):1,(0,255,0):2}"),
        channels=3,
        size=(arguments.side, arguments.side),
        preparation=Preparation(),
        dataset_fingerprint="0" * 64,
    )
    runs.claim(run)
    os.makedirs(run.path("best"))
    run.build().save_weights(run.path(runs.BEST_WEIGHTS))
    done: Any = None

    def write() -> None:
        nonlocal done
        done = bundle.write(run, target)

    whole = timed(write)
    print(f"flex_unet, {model}, tile {arguments.side}: clock (processor)")
    print(f"export as a whole {shown(whole)} s; of it load and checks {done.seconds:.2f} s")
    for check in done.checks:
        print(f"  {check.signature:<16} {check.seconds:6.2f} s")


def started(bundle: str, side: int, warm: bool) -> dict[str, list[float]]:
    """What `ask` finds in a process of its own."""
    command = [sys.executable, __file__, f"--ask={bundle}", f"--side={side}"]
    done = subprocess.run(command + ["--warm"] * warm, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def ask(bundle: str, side: int, warm: bool) -> dict[str, list[float]]:
    """Loads a bundle and asks each signature twice: what is done -> [clock, processor]."""
    import tensorflow as tf

    from export.bundles.probe_image import probe
    from export.bundles.verify_bundle import example

    image = probe(side * 13 // 10, side * 13 // 10, 3)
    png = tf.io.encode_png(image).numpy()
    inputs = {
        "serving_default": {"images": tf.constant(image[None])},
        "encoded": {"encoded": tf.constant([png])},
        "rest": {"image_bytes": tf.constant([png])},
        "tiled": {"image": tf.constant(image)},
        "examples": {"examples": tf.constant([example(png, b"a")])},
    }
    loaded: Any = None

    def load() -> None:
        nonlocal loaded
        loaded = tf.saved_model.load(bundle)

    found = {"load": timed(load)}
    if warm:
        found["warm-up"] = timed(lambda: replay(loaded, bundle))
    else:
        found["warm-up"] = [0.0, 0.0]
    for name in SIGNATURES:
        for time_of in ("first", "second"):
            found[f"{name}, {time_of}"] = timed(lambda n=name: loaded.signatures[n](**inputs[n]))
    small = probe(side, side, 3)
    png = tf.io.encode_png(small).numpy()
    encoded, default = (loaded.signatures[name] for name in ("encoded", "serving_default"))
    ways: dict[str, Callable[[int], Any]] = {
        "files": lambda n: encoded(encoded=tf.constant([png] * n)),
        "images": lambda n: default(images=tf.constant(np.stack([small] * n))),
    }
    for what, way in ways.items():
        for count in (FILES, 1):  # the first call with a shape is not the rule
            way(count)
        found[f"{FILES} {what}, one call"] = least(lambda w=way: w(FILES))
        found[f"{FILES} {what}, {FILES} calls"] = least(lambda w=way: [w(1) for _ in range(FILES)])
    return found


def least(call: Callable[[], Any]) -> list[float]:
    """The quickest of some turns, [clock, processor]."""
    return min(timed(call) for _ in range(TURNS))


def replay(loaded: Any, bundle: str) -> None:
    """Sends the requests of the warm-up file through the signatures."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from export.bundles import warmup

    path = os.path.join(bundle, warmup.FOLDER, warmup.FILE)
    for data in tf.data.TFRecordDataset(path):
        request = prediction_log_pb2.PredictionLog.FromString(data.numpy()).predict_log.request
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        loaded.signatures[request.model_spec.signature_name](**inputs)


def timed(call: Callable[[], Any]) -> list[float]:
    """[clock, processor] of a call, in seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return [time.perf_counter() - clock, time.process_time() - processor]


def shown(seconds: list[float] | None) -> str:
    return "-" if seconds is None else f"{seconds[0]:.2f} ({seconds[1]:.2f})"


if __name__ == "__main__":
    main()
