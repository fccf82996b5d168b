"""Every architecture can be written as TFLite and ONNX, whatever its size or head."""

import dataclasses

import numpy as np
import pytest

from export.other_formats import FORMATS
from models import registry
from pipelines import label_map as label_maps
from pipelines.preparation import Preparation
from train import experiment as experiments
from train.runs import Run
from train.segment import probabilities

TILE = (32, 64)
SMALL = {
    "flex_unet": {"base_filters": 4, "levels": 3},
    "attention_unet": {"base_filters": 4, "levels": 3},
    "multires_unet": {"base_filters": 4, "levels": 3},
    "sharp_unet": {"base_filters": 8, "levels": 3},
    "unet3_plus": {"base_filters": 4, "levels": 3},
    "u2net": {"base_filters": 4, "levels": 1},
    "residual_unet": {"base_filters": 8, "levels": 3, "blocks": [1, 2, 1]},
    "efficient_unet": {"width": 0.25, "depth": 0.2},
    "efficientnet_b7_unet": {
        "width": 0.12,
        "depth": 0.1,
        "decoder_filters": [16, 16, 8, 8, 8],
    },
    "deeplab_v3_plus": {
        "width": 0.125,
        "depth": 0.3,
        "aspp_filters": 16,
        "aspp_rates": [1, 2],
        "low_filters": 8,
    },
    "segformer": {
        "widths": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "heads": [1, 2, 2, 4],
        "decoder_width": 16,
    },
    "swin_unet": {
        "width": 12,
        "patch": 2,
        "depths": [2, 1],
        "heads": [2, 2],
        "windows": [4, 4],
    },
    "trans_unet": {
        "blocks": [1, 1, 1],
        "backbone_width": 0.125,
        "embed_width": 16,
        "layers": 1,
        "heads": 2,
        "mlp_width": 32,
        "position_grid": 3,
        "bridge_filters": 16,
        "decoder_filters": [16, 16, 8, 8],
    },
}
FIXED_IN_ONNX = {"swin_unet"}  # tf2onnx misreads how many windows fit where sizes are free


def run_of(name):
    """A run of that architecture, of no dataset and without a folder."""
    return Run(
        folder=name,
        data="nowhere",
        experiment=experiments.from_dict({"model": {"name": name, **SMALL[name]}}),
        label_map=label_maps.load("{(0,0,0):0,(255,0,0):1,(0,255,0):2}"),
        channels=3,
        size=TILE,
        preparation=Preparation(),
        dataset_fingerprint="0",
    )


def test_every_architecture_is_tried():
    assert set(SMALL) == set(registry.ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "format_name"),
    [("flex_unet", "tflite"), ("flex_unet", "onnx")]
    + [pytest.param(n, "tflite", marks=pytest.mark.slow) for n in SMALL if n != "flex_unet"]
    + [pytest.param(n, "onnx", marks=pytest.mark.long) for n in SMALL if n != "flex_unet"],
)
def test_every_architecture_is_written_and_says_what_it_said(name, format_name, tmp_path):
    run = run_of(name)
    model = run.build()
    rng = np.random.default_rng(0)
    for weight in model.weights:  # no moment is trivial, no bias 0
        if not weight.path.endswith(("/kernel", "/laplacian", "/seed_generator_state")):
            weight.assign(rng.uniform(0.1, 0.9, weight.shape))
    written = FORMATS[format_name].write(run, model, str(tmp_path))
    shape = written.description["input"]["shape"]
    if format_name == "tflite":
        assert shape == [1, *TILE, 3]
    else:
        assert shape == [None, *(TILE if name in FIXED_IN_ONNX else (None, None)), 3]
    images = rng.integers(0, 256, (2, *TILE, 3), np.uint8)
    outputs = model(images.astype(np.float32), training=False)
    logits = outputs[0] if isinstance(outputs, list) else outputs
    found = written.segmenter.model.probabilities(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, probabilities(logits).numpy(), atol=1e-4)
    assert np.ptp(found) > 1e-3


def test_a_network_that_cannot_be_free_is_written_for_its_tile(tmp_path, monkeypatch):
    """As swin_unet is, which the slow tests show; here a free graph is said to be wrong."""
    from export.other_formats import onnx

    monkeypatch.setattr(onnx, "_TOLERANCE", -1.0)
    run = dataclasses.replace(run_of("flex_unet"), size=(16, 24))
    written = FORMATS["onnx"].write(run, run.build(), str(tmp_path))
    assert written.description["input"]["shape"] == [None, 16, 24, 3]
