"""Describes a bundle for a person who has nothing else: how to ask it, and how far to trust it."""

from __future__ import annotations

import json
import shlex
import textwrap
from typing import Any

from export import bundle
from export.bundles import card_text, warmup
from flexseg_errors import FlexsegError
from pipelines import storage

_WIDTH = 96


def describe(folder: str) -> str:
    """A bundle's description, from its small files alone.

    Raises:
      FlexsegError: where it is a SavedModel of somebody else, whose signatures are told, or its
        card cannot be read.
    """
    path = storage.join(folder, bundle.ASSETS, bundle.CARD)
    if not storage.is_file(path):
        raise FlexsegError(
            f"{folder} is a SavedModel, but no bundle of `flexseg export`: it has no "
            f"{bundle.ASSETS}/{bundle.CARD}. {_foreign(folder)}"
        )
    try:
        card = json.loads(storage.read_bytes(path))
        return _text(folder, card)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FlexsegError(
            f"{path} is damaged ({error!r}); export the run again. {_foreign(folder)}"
        ) from error


def _text(folder: str, card: dict[str, Any]) -> str:
    files = list(storage.walk(folder))
    warm = storage.join(folder, warmup.FOLDER, warmup.FILE)
    color = "gray" if card["channels"] == 1 else "RGB"
    lines = [
        f"Bundle {folder}",
        f"  {len(files)} files, {sum(f.size for f in files) / 1e6:.1f} MB",
        f"  images: {color}, {card['channels']} channels, any size; tile "
        + " x ".join(map(str, card["tile"])),
        f"  warm-up requests for TensorFlow Serving: {'yes' if storage.is_file(warm) else 'none'}",
    ]
    for title, content in card_text.sections(card).items():
        lines += ["", title]
        for line in content:
            is_row = title == "Metrics" or len(line) < _WIDTH
            lines += [f"  {line}".rstrip()] if is_row else _wrapped(line)
    if "encoded" in (card.get("signatures") or {}):
        lines += ["", *example_calls(folder)]
    return "\n".join(lines)


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def example_calls(folder: str) -> list[str]:
    """How to ask the bundle for a mask: in Python, and of a server."""
    name = folder.rstrip("/").rpartition("/")[2]
    return [
        "In Python, with TensorFlow alone",
        "  import tensorflow as tf",
        f"  model = tf.saved_model.load({folder!r})",
        '  data = tf.constant([open("image.png", "rb").read()])',
        '  mask = model.signatures["encoded"](encoded=data)["mask_png"][0].numpy()',
        "",
        "Of TensorFlow Serving (flexseg export --serving=DIR writes how to start it)",
        """  printf '{"signature_name": "rest", "inputs": {"image_bytes": [{"b64": "%s"}]}}' \\""",
        """    "$(base64 < image.png | tr -d '\\n')" |""",
        f"    curl -d @- {shlex.quote(f'http://localhost:8501/v1/models/{name}:predict')}",
    ]


def _foreign(folder: str) -> str:
    """The signatures of any SavedModel, read from its graph file without loading it."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString(storage.read_bytes(storage.join(folder, bundle.MODEL)))
    except Exception as error:  # protobuf's DecodeError, whichever implementation is at work
        return f"Its {bundle.MODEL} cannot be read either ({error})."

    def specs(tensors: Any) -> str:
        return ", ".join(
            f"{name} {types_pb2.DataType.Name(t.dtype).removeprefix('DT_').lower()} "
            + ("[...]" if t.tensor_shape.unknown_rank else f"[{_dims(t.tensor_shape)}]")
            for name, t in sorted(tensors.items())
        )

    found = {
        name: f"{specs(signature.inputs)} -> {specs(signature.outputs)}"
        for graph in message.meta_graphs
        for name, signature in sorted(graph.signature_def.items())
        if not name.startswith("__")
    }
    if not found:
        return "It has no signatures."
    return "Its signatures:\n" + "\n".join(f"  {name}: {text}" for name, text in found.items())


def _dims(shape: Any) -> str:
    return ",".join("?" if d.size < 0 else str(d.size) for d in shape.dim)
