"""Asks TensorFlow Serving for the masks of image files over gRPC.

Usage: python grpc_client.py [--server=localhost:8500] OUTPUT_FOLDER IMAGE...

Needs grpcio and tensorflow-serving-api. Each mask is a gray PNG, pixel value = class id.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2

MODEL = "@NAME@"
SIGNATURE = "encoded"
AT_A_TIME = 8  # images in one request; at most max_batch_size where the server joins requests
TIMEOUT = 120.0  # seconds


def request_for(files: Sequence[bytes]) -> predict_pb2.PredictRequest:
    """A request for the masks of image files (PNG, JPEG, BMP, GIF) of any sizes."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = SIGNATURE
    tensor = request.inputs["encoded"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.dim.add(size=len(files))
    tensor.string_val.extend(files)
    return request


def masks_of(response: predict_pb2.PredictResponse) -> list[bytes]:
    """The masks in the order of the files, as PNG files."""
    return list(response.outputs["mask_png"].string_val)


def main() -> None:
    """Asks for masks and writes them."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("output", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    arguments = parser.parse_args()
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    arguments.output.mkdir(parents=True, exist_ok=True)
    with grpc.insecure_channel(arguments.server, options=unlimited) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for first in range(0, len(arguments.images), AT_A_TIME):
            images = arguments.images[first : first + AT_A_TIME]
            request = request_for([path.read_bytes() for path in images])
            masks = masks_of(service.Predict(request, TIMEOUT))
            for path, mask in zip(images, masks, strict=True):
                target = arguments.output / f"{path.stem}.png"
                target.write_bytes(mask)
                print(target)


if __name__ == "__main__":
    main()
