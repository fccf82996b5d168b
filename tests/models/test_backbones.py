"""The encoders are those of keras.applications, layer for layer and weight for weight."""

import keras
import numpy as np
import pytest

from flexseg_errors import FlexsegError
from models import backbones

MAKERS = {"resnet50": "ResNet50", "efficientnet_b0": "EfficientNetB0"}
TAPS = {
    "resnet50": ["conv1_relu", "conv2_block3_2_relu", "conv3_block4_out", "conv4_block6_2_relu"],
    "efficientnet_b0": [
        "stem_activation",
        "block2a_activation",
        "block4c_add",
        "block5a_project_bn",
        "block7a_project_bn",
    ],
}
LAST = {"resnet50": "conv4_block6", "efficientnet_b0": "block7a"}
EARLY = {"resnet50": "conv2_block3", "efficientnet_b0": "block2b"}

both = pytest.mark.parametrize("backbone", MAKERS)


@pytest.fixture(scope="module")
def original(request, tmp_path_factory):
    """`original(backbone)`: that of Keras, with values in all its weights, and their file."""
    made = {}

    def make(backbone):
        if backbone not in made:
            model = getattr(keras.applications, MAKERS[backbone])(
                include_top=False, weights=None, input_shape=(None, None, 3)
            )
            rng = np.random.default_rng(0)
            for weight in model.weights:
                if not weight.path.startswith("normalization") and len(weight.shape) == 1:
                    weight.assign(rng.uniform(0.5, 1, weight.shape))
            path = tmp_path_factory.mktemp(backbone) / "made.weights.h5"
            model.save_weights(path)
            made[backbone] = model, str(path)
        return made[backbone]

    return make


@pytest.fixture
def abstract():
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()


def encoder(backbone, taps, channels=3, **keywords):
    images = keras.Input((None, None, channels))
    keywords = {"seed": 1, "last": LAST[backbone], **keywords}
    outputs = backbones.features(backbone, backbones.normalize(images, backbone), **keywords)
    return keras.Model(images, [outputs[tap] for tap in taps])


@both
def test_features_are_those_of_keras_with_its_weights(backbone, original):
    source, path = original(backbone)
    expected = keras.Model(source.input, [source.get_layer(tap).output for tap in TAPS[backbone]])
    ours = encoder(backbone, TAPS[backbone], drop_rate=0.2)
    backbones.load(ours, backbone, path)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (2, 64, 96, 3)).astype(np.float32)
    if backbone == "resnet50":
        given = keras.applications.resnet.preprocess_input(images.copy())
    else:  # Keras standardizes with statistics from its weights; these are not from a file
        given = (images - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375] * 255
    for tap, wanted, output in zip(TAPS[backbone], expected(given), ours(images), strict=True):
        scale = np.abs(wanted).mean()
        np.testing.assert_allclose(output, wanted, atol=2e-3 * scale, rtol=1e-3, err_msg=tap)


@both
def test_a_gray_image_is_taken_as_a_color_image_without_color(backbone, original, monkeypatch):
    made, *_ = original(backbone)  # before its maker is replaced
    monkeypatch.setattr(keras.applications, MAKERS[backbone], lambda **_: made)
    early = {"taps": TAPS[backbone][:2], "last": EARLY[backbone]}
    color, gray = encoder(backbone, **early), encoder(backbone, **early, channels=1)
    for model in (color, gray):
        backbones.load(model, backbone, "imagenet")
    images = np.random.default_rng(1).integers(0, 256, (1, 32, 64, 1)).astype(np.float32)
    for one, two in zip(gray(images), color(np.repeat(images, 3, -1)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "variant",
    [
        *("efficientnet_b0", "efficientnet_b7"),
        *(pytest.param(f"efficientnet_b{i}", marks=pytest.mark.slow) for i in range(1, 7)),
    ],
)
def test_every_efficientnet_has_the_layers_and_shapes_of_keras(variant, abstract):
    make = getattr(keras.applications, f"EfficientNetB{variant[-1]}")
    source = make(include_top=False, weights=None, input_shape=(None, None, 3))
    expected = {
        (layer.name, tuple(map(tuple, (w.shape for w in layer.weights))))
        for layer in source.layers
        if layer.weights and layer.name.startswith(("stem_", "block"))
    }
    last = backbones.stage_end(variant, 7)
    images = keras.Input((None, None, 3))
    outputs = backbones.features(
        variant, backbones.normalize(images, variant), last=last.partition("_")[0], seed=0
    )
    ours = keras.Model(images, outputs[last])
    found = {
        (layer.name, tuple(map(tuple, (w.shape for w in layer.weights))))
        for layer in ours.layers
        if layer.weights
    }
    assert found == expected
    for stage in range(1, 8):
        tap = backbones.stage_end(variant, stage)
        assert source.get_layer(tap).output.shape == outputs[tap].shape


def test_stochastic_depth_grows_as_in_keras(original):
    source, _ = original("efficientnet_b0")
    ours = encoder("efficientnet_b0", ["block7a_project_bn"], drop_rate=0.2)
    rates = [
        {x.name: x.rate for x in model.layers if isinstance(x, keras.layers.Dropout)}
        for model in (source, ours)
    ]
    assert rates[0] == pytest.approx(rates[1])
    assert len(rates[0]) == 9


@both
def test_normalization_is_synchronized_and_every_weight_seeded(backbone):
    taps = [TAPS[backbone][0]]
    models = [encoder(backbone, taps, last=EARLY[backbone], seed=seed) for seed in (1, 1, 2)]
    one, two, other = ({w.path: np.array(w) for w in model.weights} for model in models)
    for path, value in one.items():
        np.testing.assert_array_equal(value, two[path])
        assert not path.endswith("/kernel") or not np.array_equal(value, other[path])
    norms = [x for x in models[0].layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms
    assert all(norm.synchronized for norm in norms)


def test_downloaded_weights_are_copied(original, monkeypatch):
    source, _ = original("efficientnet_b0")
    asked = []

    def download(**keywords):
        asked.append(keywords)
        return source

    monkeypatch.setattr(keras.applications, "EfficientNetB0", download)
    model = encoder("efficientnet_b0", ["block2b_add"], last="block2b")
    backbones.load(model, "efficientnet_b0", "imagenet")
    assert [keywords["weights"] for keywords in asked] == ["imagenet"]
    assert not asked[0]["include_top"]
    for layer in model.layers:
        for ours, theirs in zip(
            layer.weights,
            source.get_layer(layer.name).weights if layer.weights else [],
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_weights_that_cannot_be_downloaded_are_told_with_the_remedy(monkeypatch):
    def fail(**keywords):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "EfficientNetB0", fail)
    model = encoder("efficientnet_b0", ["stem_activation"], last="block1a")
    with pytest.raises(
        FlexsegError, match=r'weights "imagenet".*URL fetch.*path of a file.*"none"'
    ):
        backbones.load(model, "efficientnet_b0", "imagenet")


def test_weights_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.applications, "EfficientNetB0", lambda **_: other([4]))
    text, wrong = tmp_path / "text.weights.h5", tmp_path / "wrong.weights.h5"
    text.write_text("no weights")
    other([5, 6]).save_weights(wrong)
    model = encoder("efficientnet_b0", ["stem_activation"], last="block1a")
    for path, message in (
        (tmp_path / "none.h5", "is not a file"),
        (text, "do not fit efficientnet_b0"),
        (wrong, "do not fit efficientnet_b0"),
    ):
        with pytest.raises(FlexsegError, match=message):
            backbones.load(model, "efficientnet_b0", str(path))
    five = encoder("efficientnet_b0", ["stem_activation"], channels=5, last="block1a")
    with pytest.raises(FlexsegError, match="these have 5 channels"):
        backbones.load(five, "efficientnet_b0", "imagenet")


def other(widths):
    return keras.Sequential([keras.Input((3,)), *(keras.layers.Dense(n) for n in widths)])
