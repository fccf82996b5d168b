"""What `tensorflow_datasets` needs to read a dataset as it lies there, without our code.

`tfds.builder_from_directory(folder).as_dataset(split="train")` then gives examples whose features
are nested as their keys are: `example["image"]["segmentation"]["class"]["encoded"]` is the decoded
mask, uint8 [H, W, 1]. The files are written without the library: they are the JSON form of its
`DatasetInfo` and `Feature` messages (tensorflow_datasets/core/proto, release 4.9), and they hold
neither time nor place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flexseg_errors import FlexsegError
from pipelines import records, storage
from pipelines.manifest import Manifest

_NAME = "flexseg"
_VERSION = "1.0.0"  # of the layout; the description tells one dataset from another
_LABELS = ".labels.txt"
_CLASSES = "tensorflow_datasets.core.features."


def write(manifest: Manifest) -> None:
    """Writes `dataset_info.json`, `features.json` and the classes' names into the dataset's folder.

    Raises:
      FlexsegError: where the images are raw: TFDS has no feature for pixels without their size.
    """
    form, _ = records.parse_encoding(manifest.options["image_encoding"])
    if form == "raw":
        raise FlexsegError(
            f"{manifest.folder} holds images without an encoding (--image_encoding=raw), which "
            "tensorflow_datasets cannot read; use png or jpeg."
        )
    texts = {
        "dataset_info.json": _json(_info(manifest)),
        "features.json": _json(_nested(_features(manifest, form))),
        records.MASK_ENCODED.replace("/", "-") + _LABELS: "\n".join(_names(manifest)) + "\n",
    }
    for name, text in texts.items():
        storage.write_whole(storage.join(manifest.folder, name), text.encode())


def is_ours(name: str) -> bool:
    """Whether a file in a dataset's folder is one of those that `write` leaves there."""
    return name in ("dataset_info.json", "features.json") or name.endswith(_LABELS)


def _info(manifest: Manifest) -> dict[str, Any]:
    classes = ", ".join(f"{c.id} {c.name}" for c in manifest.label_map.classes)
    return {
        "name": _NAME,
        "version": _VERSION,
        "description": (
            f"Images with masks of class ids ({classes}), written by flexseg prepare. "
            f"Fingerprint {manifest.fingerprint}; all else is in dataset.json."
        ),
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": name,
                "filepathTemplate": "{SPLIT}-{SHARD_X_OF_Y}.{FILEFORMAT}",
                "numBytes": str(sum(s.bytes for s in split.shards)),  # int64 is text in this JSON
                "shardLengths": [str(s.examples) for s in split.shards],
            }
            for name, split in manifest.splits.items()
        ],
    }


def _features(manifest: Manifest, form: str) -> dict[str, dict[str, Any]]:
    """The feature of each key of a record."""
    num_classes = manifest.label_map.num_classes
    text = _feature("text_feature.Text", text={})
    return {
        records.ENCODED: _feature(
            "image_feature.Image", image=_image(manifest.channels, encodingFormat=form)
        ),
        records.FORMAT: text,
        records.HEIGHT: _integers(),
        records.WIDTH: _integers(),
        records.CHANNELS: _integers(),
        records.FILENAME: text,
        records.SOURCE_ID: text,
        records.MASK_ENCODED: _feature(
            "labeled_image.LabeledImage",
            image=_image(
                1, encodingFormat="png", useColormap=True, label={"numClasses": str(num_classes)}
            ),
        ),
        records.MASK_FORMAT: text,
        records.MASK_PIXELS: _integers(num_classes),
        records.TILE_ORIGIN: _integers(2),
        records.SOURCE_SIZE: _integers(2),
        records.AUGMENTATION: text,
    }


def _nested(features: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A FeaturesDict of features by keys with "/", as TFDS joins the names of nested ones."""
    inner: dict[str, Any] = {}
    for first in dict.fromkeys(key.partition("/")[0] for key in features):
        if first in features:
            inner[first] = features[first]
        else:
            start = len(first) + 1
            below = {k[start:]: f for k, f in features.items() if k.startswith(first + "/")}
            inner[first] = _nested(below)
    return _feature("features_dict.FeaturesDict", featuresDict={"features": inner})


def _integers(*shape: int) -> dict[str, Any]:
    sides = {"dimensions": [str(n) for n in shape]} if shape else {}
    tensor = {"dtype": "int64", "encoding": "none", "shape": sides}
    return _feature("tensor_feature.Tensor", tensor=tensor)


def _image(channels: int, **more: Any) -> dict[str, Any]:
    """Pixels of any height and width."""
    return {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", str(channels)]}, **more}


def _feature(name: str, **content: Any) -> dict[str, Any]:
    return {"pythonClassName": _CLASSES + name, **content}


def _names(manifest: Manifest) -> list[str]:
    """The classes' names as TFDS takes them: one line each, none empty, no two alike."""
    names = [" ".join(name.split()) for name in manifest.label_map.names]
    return [
        name if name and names.count(name) == 1 else f"{name} {class_id}".strip()
        for class_id, name in enumerate(names)
    ]


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1) + "\n"
