"""Not a test: serves images with bundles where none of this project can be imported.

Usage: serve_bundles.py IMAGES.npz RESULTS.npz BUNDLE...

It is run by a Python of its own, far from the repository, with TensorFlow alone.
"""

import importlib.abc
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
OURS = {"flexseg", "flexseg_errors", "pipelines", "models", "train", "export"}


class Refusal(importlib.abc.MetaPathFinder):
    """Finds nothing of this project."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in OURS:
            raise ImportError(f"{fullname} must not be needed")
        return None


def main(images_path, results_path, bundles):
    """Calls every signature of every bundle with every image of its channels."""
    import numpy as np
    import tensorflow as tf

    images, results = dict(np.load(images_path)), {}
    for folder in bundles:
        loaded = tf.saved_model.load(folder)
        signatures, bundle = loaded.signatures, os.path.basename(folder)
        channels = signatures["tiled"].structured_input_signature[1]["image"].shape[-1]
        pngs = []
        for name, image in images.items():
            if image.shape[-1] != channels:
                continue
            batch = np.stack([image, image[::-1]])
            served = signatures["serving_default"](images=tf.constant(batch))
            results[f"{bundle}/{name}/probabilities"] = served["probabilities"]
            results[f"{bundle}/{name}/class_ids"] = served["class_ids"]
            tiled = signatures["tiled"](image=tf.constant(image))
            results[f"{bundle}/{name}/tiled"] = tiled["class_ids"]
            pngs.append((name, tf.io.encode_png(image)))
        masks = signatures["encoded"](encoded=tf.stack([png for _, png in pngs]))["mask_png"]
        for (name, _), mask in zip(pngs, masks, strict=True):
            results[f"{bundle}/{name}/encoded"] = tf.io.decode_png(mask, dtype=tf.uint8)
    np.savez(results_path, **{name: np.array(value) for name, value in results.items()})


if __name__ == "__main__":
    sys.meta_path.insert(0, Refusal())
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
