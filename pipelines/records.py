"""The schema of a record: one image, or one tile of it, with its mask in class ids.

Feature keys follow the common TensorFlow segmentation schema, so that its readers can use the
records. The TFRecord framing and the `tf.train.Example` message are written here without
TensorFlow: a Beam worker starts in a fraction of a second and needs a tenth of the memory.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from flexseg_errors import FlexsegError, nearest

if TYPE_CHECKING:
    import tensorflow as tf

ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
CHANNELS = "image/channels"
FILENAME = "image/filename"
SOURCE_ID = "image/source_id"
MASK_ENCODED = "image/segmentation/class/encoded"
MASK_FORMAT = "image/segmentation/class/format"
MASK_PIXELS = "image/segmentation/class/pixels"
TILE_ORIGIN = "image/tile/origin"
SOURCE_SIZE = "image/source/size"
AUGMENTATION = "image/augmentation"

_FEW_CLASSES = 12
_JPEG_QUALITY = 95  # where none is given
# Run-length filtering at level 1: decodes twice as fast as the default, and label images shrink.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


@dataclasses.dataclass(frozen=True)
class Record:
    """One example.

    Attributes:
      image: uint8 [H, W, C], C of 1 or 3, RGB.
      mask: uint8 [H, W], class ids.
      source_id: the source image's path below its root, without suffix.
      filename: the source image's path below its root.
      origin: (y, x) of the tile in the prepared source, (0, 0) for a whole image.
      source_size: (height, width) of the prepared source.
      augmentation: what was done, as text; "" for the source itself.
    """

    image: np.ndarray
    mask: np.ndarray
    source_id: str
    filename: str
    origin: tuple[int, int]
    source_size: tuple[int, int]
    augmentation: str = ""


def parse_encoding(text: str) -> tuple[str, int]:
    """Reads "png", "raw", "jpeg" or "jpeg:QUALITY" (1..100); the quality is 0 but for JPEG."""
    form, colon, number = text.partition(":")
    if form == "jpeg" and not colon:
        return form, _JPEG_QUALITY
    if form == "jpeg" and number.isdigit() and 1 <= int(number) <= 100:
        return form, int(number)
    if form in ("png", "raw") and not colon:
        return form, 0
    raise FlexsegError(
        f'--image_encoding="{text}": expected png, raw, jpeg, or jpeg:QUALITY with 1..100.'
        + nearest(text, ("png", "raw", "jpeg"))
    )


def encode(
    record: Record,
    num_classes: int,
    image_encoding: str = "png",
    counts: np.ndarray | None = None,
) -> bytes:
    """Serializes a record as a `tf.train.Example`; the same record always gives the same bytes.

    Args:
      record: the record.
      num_classes: K.
      image_encoding: of the image alone; see `parse_encoding`. Masks are PNG, without loss.
      counts: what `class_pixels` gives for the mask, where it is known already.
    """
    height, width, channels = record.image.shape
    form, quality = parse_encoding(image_encoding)
    if counts is None:
        counts = class_pixels(record.mask, num_classes)
    features: dict[str, list[Any]] = {
        ENCODED: [_encoded(record.image, form, quality)],
        FORMAT: [form.encode()],
        HEIGHT: [height],
        WIDTH: [width],
        CHANNELS: [channels],
        FILENAME: [record.filename.encode()],
        SOURCE_ID: [record.source_id.encode()],
        MASK_ENCODED: [_encoded(record.mask, "png")],
        MASK_FORMAT: [b"png"],
        MASK_PIXELS: counts.tolist(),
        TILE_ORIGIN: list(record.origin),
        SOURCE_SIZE: list(record.source_size),
        AUGMENTATION: [record.augmentation.encode()],
    }
    example = _Example()
    for key, values in features.items():
        feature = example.features.feature[key]
        kind = feature.bytes_list if isinstance(values[0], bytes) else feature.int64_list
        kind.value.extend(values)
    return example.SerializeToString(deterministic=True)


def class_pixels(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class in a mask of class ids, uint8 [H, W]: int64 [num_classes]."""
    if num_classes <= _FEW_CLASSES:  # a comparison a class is faster than a histogram
        return np.array([np.count_nonzero(mask == k) for k in range(num_classes)], np.int64)
    return value_counts(mask)[:num_classes]


def value_counts(pixels: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel, exactly.

    Args:
      pixels: uint8 [H, W] or [H, W, C]; need not be contiguous.

    Returns:
      int64 [256], or [256, C].
    """
    channels = range(pixels.shape[2] if pixels.ndim == 3 else 1)
    counts = np.zeros((256, len(channels)), np.int64)
    # OpenCV counts in float32, which is exact up to 2^24.
    rows = max(1, (1 << 24) // max(1, pixels.shape[1]))
    for start in range(0, pixels.shape[0], rows):
        block = pixels[start : start + rows]
        for c in channels:
            counts[:, c] += cv2.calcHist([block], [c], None, [256], [0, 256])[:, 0].astype(np.int64)
    return counts if pixels.ndim == 3 else counts[:, 0]


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one serialized record in a TensorFlow graph, without decoding its pixels.

    Returns:
      `image` and `mask` (string scalars, encoded), `source_id` (string scalar), `size`, `origin`
      and `source_size` (int64 [2], y x).
    """
    import tensorflow as tf

    spec = {
        ENCODED: tf.io.FixedLenFeature([], tf.string),
        MASK_ENCODED: tf.io.FixedLenFeature([], tf.string),
        HEIGHT: tf.io.FixedLenFeature([], tf.int64),
        WIDTH: tf.io.FixedLenFeature([], tf.int64),
        SOURCE_ID: tf.io.FixedLenFeature([], tf.string),
        TILE_ORIGIN: tf.io.FixedLenFeature([2], tf.int64),
        SOURCE_SIZE: tf.io.FixedLenFeature([2], tf.int64),
    }
    features = tf.io.parse_single_example(serialized, spec)
    return {
        "image": features[ENCODED],
        "mask": features[MASK_ENCODED],
        "size": tf.stack([features[HEIGHT], features[WIDTH]]),
        "source_id": features[SOURCE_ID],
        "origin": features[TILE_ORIGIN],
        "source_size": features[SOURCE_SIZE],
    }


def decode_image(
    encoded: tf.Tensor, channels: int, form: str = "png", size: tf.Tensor | None = None
) -> tf.Tensor:
    """Decodes a record's image.

    Args:
      encoded: string scalar.
      channels: 1 or 3.
      form: "png", "jpeg" or "raw", the same in all records of a dataset.
      size: int64 [2], height and width; needed where the form is "raw".

    Returns:
      uint8 [H, W, channels].
    """
    import tensorflow as tf

    if form == "raw":
        assert size is not None
        return tf.reshape(tf.io.decode_raw(encoded, tf.uint8), tf.concat([size, [channels]], 0))
    if form == "jpeg":
        return tf.io.decode_jpeg(encoded, channels=channels, dct_method="INTEGER_ACCURATE")
    return tf.io.decode_png(encoded, channels=channels)


def pixels_of(features: dict[str, list[Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Decodes a record that `parse_features` parsed, without TensorFlow.

    Returns:
      (image uint8 [H, W, C], mask of class ids uint8 [H, W])
    """
    encoded = features[ENCODED][0]
    if features[FORMAT][0] == b"raw":
        shape = [features[key][0] for key in (HEIGHT, WIDTH, CHANNELS)]
        image = np.frombuffer(encoded, np.uint8).reshape(shape)
    else:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
        image = image[..., None] if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    data = np.frombuffer(features[MASK_ENCODED][0], np.uint8)
    return image, cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


def decode_mask(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a record's mask: class ids, uint8 [H, W]."""
    import tensorflow as tf

    return tf.io.decode_png(encoded, channels=1)[..., 0]


def parse_features(serialized: bytes) -> dict[str, list[Any]]:
    """Parses a record without TensorFlow: feature key -> its values."""
    example = _Example.FromString(serialized)
    features = {}
    for key, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[key] = list(getattr(feature, kind).value) if kind else []
    return features


def name_of(features: dict[str, list[Any]]) -> str:
    """What to call a record that `parse_features` parsed, for a person.

    The source's id, then (y, x) of the tile where it is one, then what augmentation did in [].
    """
    name: str = features[SOURCE_ID][0].decode()
    origin, size = features[TILE_ORIGIN], features[SOURCE_SIZE]
    if size != [features[HEIGHT][0], features[WIDTH][0]]:
        name += f" ({origin[0]}, {origin[1]})"
    done = features[AUGMENTATION][0].decode()
    return f"{name} [{done}]" if done else name


def framed(data: bytes) -> tuple[bytes, bytes, bytes]:
    """A record as it stands in a TFRecord file: length and its CRC, data, and the data's CRC.

    Both are masked CRC-32C.
    """
    length = struct.pack("<Q", len(data))
    head = length + struct.pack("<I", _masked_crc(length))
    return head, data, struct.pack("<I", _masked_crc(data))


def read_framed(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, data) of each record of a TFRecord file, every CRC checked.

    Raises:
      FlexsegError: naming `name` and the byte offset of the first record that is damaged.
    """
    offset = 0
    while head := file.read(12):
        if len(head) < 12:
            raise FlexsegError(f"{name}: the record at byte {offset} is cut off.")
        if struct.unpack("<I", head[8:])[0] != _masked_crc(head[:8]):
            raise FlexsegError(f"{name}: the record at byte {offset} has a damaged length.")
        length = struct.unpack("<Q", head[:8])[0]
        body = file.read(length + 4)
        if len(body) < length + 4:
            raise FlexsegError(f"{name}: the record at byte {offset} is cut off.")
        if struct.unpack("<I", body[length:])[0] != _masked_crc(body[:length]):
            raise FlexsegError(f"{name}: the record at byte {offset} has damaged data.")
        yield offset, body[:length]
        offset += 16 + length


def _encoded(pixels: np.ndarray, form: str, quality: int = 0) -> bytes:
    if form == "raw":
        return np.ascontiguousarray(pixels).tobytes()
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    settings = _PNG if form == "png" else [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode("." + form, pixels, settings)
    if not done:
        raise RuntimeError(f"OpenCV cannot encode an array of shape {pixels.shape} as {form}.")
    return data.tobytes()


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _example_class() -> Any:
    """The message class of `tf.train.Example`, from its public definition (example.proto)."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="flexseg/example.proto", package="flexseg", syntax="proto3"
    )
    lists = (("BytesList", field.TYPE_BYTES), ("FloatList", field.TYPE_FLOAT))
    for name, kind in (*lists, ("Int64List", field.TYPE_INT64)):
        file.message_type.add(name=name).field.add(
            name="value", number=1, type=kind, label=field.LABEL_REPEATED
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        feature.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=".flexseg." + name.title().replace("_", ""),
            label=field.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message = {"type": field.TYPE_MESSAGE, "label": field.LABEL_OPTIONAL}
    entry.field.add(name="value", number=2, type_name=".flexseg.Feature", **message)
    features.field.add(
        name="feature",
        number=1,
        type=field.TYPE_MESSAGE,
        type_name=".flexseg.Features.FeatureEntry",
        label=field.LABEL_REPEATED,
    )
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type_name=".flexseg.Features", **message)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("flexseg.Example"))


_Example = _example_class()
