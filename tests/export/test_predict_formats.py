"""`flexseg predict` with a bundle's TFLite or ONNX file writes the run's masks."""

import cv2
import numpy as np
import pytest
from PIL import Image

from export import bundle

SIZES = {"tile": (32, 32), "wide/odd": (61, 133), "wide/small": (19, 47), "large": (170, 150)}
AGREE = 0.999  # of pixels; float rounding decides where two classes are as probable


def scene(size, channels, seed):
    """Bright bodies of several sizes on a darker, uneven ground, blurred and with noise."""
    rng = np.random.default_rng([seed, *size])
    height, width = size
    ground = cv2.resize(rng.uniform(30, 90, (3, 3)).astype(np.float32), (width, height))
    image = np.repeat(ground[..., None], channels, -1)
    for _ in range(12):
        center = tuple(int(rng.integers(side)) for side in (width, height))
        axes = tuple(int(a) for a in rng.integers(3, 6 + min(size) // 4, 2))
        colour = tuple(rng.uniform(90, 240, channels).tolist())
        image = np.ascontiguousarray(image)
        cv2.ellipse(image, center, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    image = cv2.GaussianBlur(image, (5, 5), 1.5).reshape(height, width, channels)
    return (image + rng.normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "file"), [("halved", "model.onnx"), ("gray", "model.onnx"), ("gray", "model.tflite")]
)
def test_a_file_of_another_format_gives_the_masks_of_the_run(
    command, untrained_runs, tmp_path, name, file
):
    pytest.importorskip("onnxruntime" if file.endswith("onnx") else "tensorflow")
    pytest.importorskip("tf2onnx" if file.endswith("onnx") else "tensorflow")
    run = untrained_runs[name]
    for seed, (stem, size) in enumerate(SIZES.items()):
        path = tmp_path / "images" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), scene(size, run.channels, seed))
    bundle.write(run, str(tmp_path / "bundle"), (file.rpartition(".")[2],), min_agreement=0.0)
    made = {}
    for model in (run.folder, str(tmp_path / "bundle" / file)):
        output = tmp_path / f"masks{len(made)}"
        done = command(
            "predict", f"--model={model}", f"--images={tmp_path / 'images'}", f"--output={output}"
        )
        assert done.status == 0, done.err
        assert "4 of 4 images segmented" in done.out
        made[model] = {stem: np.asarray(Image.open(output / f"{stem}.png")) for stem in SIZES}
    own, others = made.values()
    for stem, size in SIZES.items():
        assert own[stem].shape == others[stem].shape == size
        assert (own[stem] == others[stem]).mean() >= AGREE
    assert len(np.unique(np.concatenate([ids.ravel() for ids in own.values()]))) > 1
