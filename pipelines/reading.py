"""What all streams of records share: which files, how pixels are decoded, how tf.data is set."""

from __future__ import annotations

import tensorflow as tf

from pipelines import object_stores, records
from pipelines.manifest import Manifest

RAM_BYTES = 1 << 30


def files(manifest: Manifest, split: str) -> list[str]:
    """The files of a split; sees to it that TensorFlow can read them."""
    if manifest.folder.startswith("s3://"):  # gs:// it knows by itself
        object_stores.share_s3_settings()
        # It makes the process abort when the interpreter ends; flexseg.entry() knows.
        import tensorflow_io  # noqa: F401  registers s3://
    return manifest.paths(split)


def decode(serialized: tf.Tensor, manifest: Manifest) -> tuple[tf.Tensor, tf.Tensor]:
    """A record's image, uint8 [H, W, C], and mask, uint8 [H, W]."""
    features = records.parse(serialized)
    form, _ = records.parse_encoding(manifest.options["image_encoding"])
    image = records.decode_image(features["image"], manifest.channels, form, features["size"])
    return image, records.decode_mask(features["mask"])


def with_options(
    dataset: tf.data.Dataset, threads: int = 0, ram_bytes: int = RAM_BYTES
) -> tf.data.Dataset:
    """Sets what holds for a whole pipeline.

    Args:
      dataset: the pipeline.
      threads: of its own; 0 shares those of TensorFlow.
      ram_bytes: what its buffers may take by TensorFlow's own choice.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.ram_budget = ram_bytes
    if threads:
        options.threading.private_threadpool_size = threads
    # The trainer splits batches over replicas itself; files are not to be divided behind its back.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
