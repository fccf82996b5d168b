"""Configs of the older projects: what is read, refused, told and written."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags

import flexseg
from flexseg_errors import FlexsegError
from models import registry
from pipelines import augment, masks
from pipelines import label_map as label_maps
from tests.train.old_config_texts import BASES, changed, commands, convert, everything, flags, ini
from train import experiment as experiments
from train import old_config

CONFIGS = Path(__file__).parent / "old_configs"
DIALECTS = ("flex", "api")
OTHERS = {
    "AttentionUNet": "attention_unet",
    "DeepLabV3Plus": "deeplab_v3_plus",
    "EfficientUNet": "efficient_unet",
    "EfficientNetB7UNet": "efficientnet_b7_unet",
    "MultiResUNet": "multires_unet",
    "SharpUNet": "sharp_unet",
    "SwinUNet": "swin_unet",
    "TransUNet": "trans_unet",
    "U2Net": "u2net",
    "UNet3Plus": "unet3_plus",
}


def notes(conversion, place=None):
    return [n.text for n in conversion.notes if place is None or n.place == place]


def section(conversion, name):
    return conversion.experiment[name]


# What is written


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_files_are_what_the_real_parsers_read(command, tmp_path, dialect):
    output = tmp_path / "out"
    result = command("convert-config", CONFIGS / f"{dialect}.config", f"--output={output}")
    assert (result.status, result.err) == (0, "")
    conversion = old_config.convert(str(CONFIGS / f"{dialect}.config"))
    experiment = experiments.load(str(output / "experiment.yaml"))
    assert experiment == experiments.from_dict(conversion.experiment)
    assert label_maps.load(str(output / "label_map.yaml")) == conversion.label_map
    assert (output / "augmentation.yaml").exists() == (dialect == "flex")
    if dialect == "flex":
        plan = augment.load(str(output / "augmentation.yaml"))
        assert plan == augment.from_dict(conversion.augmentation)
        assert "&id" not in (output / "augmentation.yaml").read_text(), "no references"
    for note in conversion.notes:
        assert note.text in result.out
        assert " ".join(note.text.replace("#", " ").split()) in everything(conversion)
    assert not list(output.glob("*.tmp"))


def test_the_augmentation_is_that_of_the_old_generator():
    plan = augment.from_dict(old_config.convert(str(CONFIGS / "flex.config")).augmentation)
    assert plan.keep_source
    assert [(v.name, v.border, [str(s) for s in v.steps]) for v in plan.variants] == [
        ("hflipped", "reflect", ["hflip()"]),
        ("rotated_90", "corner", ["rotation(angle=90)"]),
        ("rotated_180", "corner", ["rotation(angle=180)"]),
        ("shrinked_0.9", "corner", ["shrink(factor=0.9)"]),
        ("sheared_0.1", "corner", ["shear(factor=0.1)"]),
        ("hflipped_sheared_0.1", "corner", ["shear(factor=0.1)", "hflip()"]),
        ("deformed_alpha_300_sigmoid_8", "replicate", ["elastic(alpha=300, sigma=8)"]),
        ("deformed_alpha_300_sigmoid_10", "replicate", ["elastic(alpha=300, sigma=10)"]),
        ("distorted_0.02_rsigma0.5_sigma40", "constant", ["distortion(share=0.02, rsigma=40)"]),
        ("distorted_0.03_rsigma0.5_sigma40", "constant", ["distortion(share=0.03, rsigma=40)"]),
        ("barrdistorted_1001_0.3_0.3", "constant",
         ["barrel(radius=0.3, amount=0.3, centers=[[0.3, 0.3]])"]),
        ("barrdistorted_1002_0.3_0.3", "constant",
         ["barrel(radius=0.3, amount=0.3, centers=[[0.3, 0.3], [0.7, 0.7]])"]),
        ("pincdistorted_1001_0.3_-0.3", "constant",
         ["pincushion(radius=0.3, amount=-0.3, centers=[[0.5, 0.5]])"]),
        ("sharpened_1.0", "reflect", ["sharpen(k=1)"]),
    ]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_config_gives_the_same_bytes_and_nothing_is_overwritten(
    command, tmp_path, dialect
):
    source, output = CONFIGS / f"{dialect}.config", tmp_path / "out"
    arguments = ("convert-config", source, f"--output={output}")
    assert command(*arguments).status == 0
    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert command(*arguments).status == 0
    assert {path.name: path.read_bytes() for path in output.iterdir()} == first
    (output / "experiment.yaml").unlink()
    (output / "label_map.yaml").write_text("mine")
    result = command(*arguments)
    assert result.status == 1
    assert "label_map.yaml is there already and holds something else" in result.err
    assert (output / "label_map.yaml").read_text() == "mine"
    assert not (output / "experiment.yaml").exists(), "nothing is written where one is refused"


def test_without_an_output_the_folder_is_named_as_the_file(command, tmp_path):
    path = tmp_path / "lung.config"
    path.write_text(ini(BASES["flex"]))
    assert command("convert-config", path).status == 0
    assert (tmp_path / "lung" / "experiment.yaml").is_file()
    assert "--label_map=lung/label_map.yaml" in (tmp_path / "lung" / "commands.txt").read_text()
    bare = tmp_path / "bare"
    bare.write_text(ini(BASES["flex"]))
    result = command("convert-config", bare)
    assert result.status == 1
    assert "is a file; expected a folder" in result.err


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("folder", ["./d", "my data/it's", "..\\\\windows"])
def test_every_command_is_one_that_flexseg_takes(tmp_path, dialect, folder):
    names = {"flex": ("images_dir", "masks_dir"), "api": ("image_datapath", "mask_datapath")}
    valid = "valid" if dialect == "flex" else "eval"
    changes = {"model.generator": "True", "infer.output_dir": repr(f"{folder}/o")}
    for name, there in (("train", "train"), (valid, "valid"), ("test", "test")):
        for key, kind in zip(names[dialect], ("images", "masks"), strict=True):
            changes[f"{name}.{key}"] = '"' + f"{folder}/{there}/{kind}/" + '"'
    text = old_config.texts(convert(tmp_path, changed(dialect, changes)))["commands.txt"]
    lines = commands(text, tmp_path)
    assert len(lines) >= 4
    for name, *given in lines:
        program = flexseg.importlib.import_module(flexseg.COMMANDS[name].module)
        values = absl_flags.FlagValues()
        program.define_flags(values)
        assert flexseg.parse(name, program, values, given) == []
        if name == "prepare":
            assert values.dataset == folder.replace("\\\\", "/")


def test_folders_that_lie_otherwise_are_linked_and_a_missing_split_is_drawn(tmp_path):
    moved = convert(tmp_path, changed("flex", {"train.masks_dir": '"./d/train/cmasks"'}))
    prepare = moved.commands[0]
    assert "--dataset=flexseg_sources" in prepare.flags
    assert 'ln -sfn "$(realpath ./d/train/cmasks)" flexseg_sources/train/masks' in prepare.before
    named = {"eval.image_datapath": '"./d/val/images"', "eval.mask_datapath": '"./d/val/masks"'}
    prepare = convert(tmp_path, changed("api", named)).commands[0]
    assert "--dataset=flexseg_sources" in prepare.flags
    assert 'ln -sfn "$(realpath ./d/val/images)" flexseg_sources/valid/images' in prepare.before
    alone = convert(tmp_path, changed("api", {"eval.image_datapath": None,
                                              "eval.mask_datapath": None}))  # fmt: skip
    names = [command.name for command in alone.commands]
    assert names[:4] == ["prepare", "prepare", "train", "evaluate"]
    assert "--split=train:0.8,valid:0.2" in alone.commands[0].flags
    assert "--split=test:1" in alone.commands[1].flags
    assert "--data=records_test" in alone.commands[3].flags


# Defaults


# No online augmentation, whatever there is of it.
NOTHING = {f.name: 0 for f in dataclasses.fields(experiments.AugmentConfig)}
DEFAULTS = {
    "augment": NOTHING,
    "optimizer": {"name": "adam", "learning_rate": 0.0001, "beta_1": 0.9, "beta_2": 0.999,
                  "epsilon": 1e-7, "clip": "value", "clip_threshold": 0.2,
                  "schedule": "constant", "warmup_steps": 0},
    "data": {"batch_size": 4},
}  # fmt: skip
TRAIN = {"epochs": 100, "steps_per_epoch": 0, "seed": 137, "monitor": "val_loss", "patience": 10,
         "plateau_patience": 0, "previews": 0}  # fmt: skip
MODEL = {"name": "flex_unet", "base_filters": 16, "levels": 6, "base_kernel": 3,
         "base_dilation": 1, "activation": "relu", "normalization": "none",
         "normalization_position": "after_activation", "input_normalization": "unit"}  # fmt: skip


def test_the_defaults_of_the_newer_generation(tmp_path):
    conversion = convert(tmp_path, ini(BASES["flex"]))
    assert conversion.experiment == {
        **DEFAULTS,
        "model": {**MODEL, "head": "softmax", "dropout_rate": 0.04},
        "train": {**TRAIN, "loss": "categorical_crossentropy", "preview_folder": "./mini/images",
                  "preview_count": 6, "preview_mode": "whole"},
        "inference": {"overlap": 0.2, "weights": "gaussian", "batch_size": 1},
    }  # fmt: skip
    assert conversion.augmentation is None
    assert flags(conversion, "prepare") == [
        "--dataset=./d", "--output=records", "--label_map=out/label_map.yaml",
        "--image_size=512,512", "--unmatched=nearest",
    ]  # fmt: skip
    assert flags(conversion, "predict")[-1] == "--output=infer_output"


def test_the_defaults_of_the_older_generation(tmp_path):
    conversion = convert(tmp_path, ini(BASES["api"]))
    assert conversion.experiment == {
        **DEFAULTS,
        "model": {**MODEL, "head": "sigmoid", "dropout_rate": 0.05},
        "train": {**TRAIN, "loss": "bce_dice_loss", "preview_folder": ""},
        "inference": {"overlap": 0.0, "weights": "uniform", "batch_size": 1},
    }
    assert flags(conversion, "prepare")[2:] == [
        "--label_map=out/label_map.yaml", "--image_size=512,512", "--mask_kind=binary:0",
    ]  # fmt: skip
    assert flags(conversion, "evaluate")[-1] == "--split=test"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_defaults_of_the_generator(tmp_path, dialect):
    switches = ("deformation", "distortion", "barrdistortion", "pincdistortion", "sharpening")
    changes = {"model.generator": "True", **{f"augmentor.{name}": "True" for name in switches}}
    conversion = convert(tmp_path, changed(dialect, changes))
    assert [v["name"] for v in conversion.augmentation["variants"]] == [
        "hflipped", "vflipped", "rotated_90", "rotated_180", "rotated_270", "shrinked_0.8",
        "deformed_alpha_1300_sigmoid_8", "distorted_0.02_rsigma0.5_sigma40",
        "barrdistorted_1001_0.5_0.5", "pincdistorted_1001_0.5_-0.5", "sharpened_1.0",
    ]  # fmt: skip
    assert section(conversion, "train")["steps_per_epoch"] == 400


def test_brightening_took_the_alpha_of_the_deformation(tmp_path):
    changes = {"model.generator": "True", "augmentor.deformation": "True",
               "augmentor.brightening": "True"}  # fmt: skip
    conversion = convert(tmp_path, changed("flex", changes))
    assert "deformed_alpha_1.2_sigmoid_8" in everything(conversion)
    assert "write alpha: 1300 to have what was meant" in everything(conversion)


@pytest.mark.parametrize(
    ("dialect", "changes", "patience", "factor"),
    [
        ("flex", {}, 10, 0.4),
        ("flex", {"train.reducer_patience": "2"}, 10, 0.4),
        ("api", {}, 5, 0.1),
        ("api", {"train.patience": "31"}, 15, 0.1),
        ("api", {"train.patience": "0"}, 5, 0.1),
        ("api", {"train.patience": "1"}, 5, 0.1),
        ("api", {"train.reducer_patience": "7"}, 7, 0.1),
    ],
)
def test_the_patience_of_the_reducer_is_the_one_that_was_in_effect(
    tmp_path, dialect, changes, patience, factor
):
    changes = {"train.learning_rate_reducer": "True", **changes}
    got = section(convert(tmp_path, changed(dialect, changes)), "train")
    assert (got["plateau_patience"], got["plateau_factor"]) == (patience, factor)


def test_a_patience_of_zero_or_less_never_stopped(tmp_path):
    conversion = convert(tmp_path, changed("flex", {"train.patience": "-1"}))
    assert section(conversion, "train")["patience"] == 0


REQUIRED = [
    ("flex", "model.base_filters", "model.base_filters", 16),
    ("flex", "model.dropout_rate", "model.dropout_rate", 0.0),
    ("flex", "model.num_classes", "model.head", "softmax"),
    ("api", "model.num_classes", "model.head", "sigmoid"),
    ("api", "model.learning_rate", "optimizer.learning_rate", 0.0001),
    ("api", "model.loss", "train.loss", "bce_dice_loss"),
    ("api", "train.epochs", "train.epochs", 100),
    ("api", "train.batch_size", "data.batch_size", 4),
]


@pytest.mark.parametrize(("dialect", "name", "place", "value"), REQUIRED)
def test_what_the_old_program_could_not_do_without_is_told(tmp_path, dialect, name, place, value):
    conversion = convert(tmp_path, changed(dialect, {name: None}))
    where, _, key = place.partition(".")
    assert section(conversion, where)[key] == value
    told = [text for text in notes(conversion, place) if "is missing" in text]
    assert len(told) == 1
    assert "on which the old program stopped" in told[0]


# Networks


@pytest.mark.parametrize("prefix", ["TensorFlowFlex", "Tensorflow"])
@pytest.mark.parametrize("network", OTHERS)
def test_every_network_has_its_counterpart_with_both_heads(tmp_path, prefix, network):
    dialect = "flex" if prefix.endswith("Flex") else "api"
    for count, head in (("1", "sigmoid"), ("2", "softmax")):
        changes = {"model.model": f'"{prefix}{network}"', "model.num_classes": count}
        conversion = convert(tmp_path, changed(dialect, changes))
        model = experiments.from_dict(conversion.experiment).model
        assert (model.name, model.head) == (OTHERS[network], head)
        assert conversion.label_map.num_classes == 2


@pytest.mark.parametrize(
    ("network", "keys", "classes", "parameters"),
    [
        ("TensorFlowFlexUNet", {"base_kernels": "(9,9)", "num_layers": "8"}, 6, 124_996_934),
        ("TensorFlowFlexUNet", {"base_kernels": "(7,7)", "num_layers": "8"}, 2, 124_557_058),
        ("TensorflowUNet", {"base_kernels": "(9,9)", "num_layers": "8"}, 1, 124_996_849),
        ("TensorflowSlightlyFlexibleUNet", {"base_kernels": "(7,7)", "num_layers": "8"}, 1,
         124_557_041),
        ("TensorFlowFlexUNet", {"base_kernels": "(9,9)", "num_layers": "8",
                                "normalization": "True"}, 2, 125_045_762),
        ("TensorFlowFlexMultiResUNet", {}, 2, 8_174_775),
        ("TensorFlowFlexSharpUNet", {}, 2, 5_613_154),
        ("TensorFlowFlexU2Net", {}, 2, 49_000_610),
        ("TensorflowAttentionUNet", {}, 1, 8_229_073 - 4_000),  # biases that norms take away
    ],
)  # fmt: skip
def test_networks_have_the_parameters_of_the_old_ones(tmp_path, network, keys, classes, parameters):
    from models import describe

    dialect = "flex" if network.startswith("TensorFlowFlex") else "api"
    colors = "{" + ",".join(f"({i},0,0):{i}" for i in range(classes)) + "}"
    changes = {"model.model": f'"{network}"', "model.num_classes": str(classes),
               "mask.rgb_map": colors, **{f"model.{k}": v for k, v in keys.items()}}  # fmt: skip
    model = experiments.from_dict(convert(tmp_path, changed(dialect, changes)).experiment).model
    described = describe.abstract(
        model.name, config=model.network, num_classes=classes, channels=3, size=(512, 512)
    )
    assert described.count_params() == parameters


@pytest.mark.parametrize("name", ["3DUNet", "XceptionLikeUNet", "BASNet"])
def test_networks_that_nobody_could_train_are_stood_for(tmp_path, name):
    conversion = convert(tmp_path, changed("api", {"model.model": f'"Tensorflow{name}"'}))
    assert section(conversion, "model")["name"] in registry.ARCHITECTURES
    assert any("could not be trained in the old program" in t for t in notes(conversion))


def test_an_unknown_network_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(FlexsegError, match=r'line 2: .*Did you mean "TensorFlowFlexUNet"\?'):
        convert(tmp_path, changed("flex", {"model.model": '"TensorFlowFlexUNett"'}))


def test_a_key_of_another_network_had_no_effect(tmp_path):
    conversion = convert(tmp_path, changed("flex", {"model.window_size": "[4,2,2,2]"}))
    assert any("window_size = [4,2,2,2]" in t and "no such knob" in t for t in notes(conversion))


# Losses, metrics, optimizers


@pytest.mark.parametrize(
    ("dialect", "written", "loss", "told"),
    [
        ("flex", "categorical_crossentropy", "categorical_crossentropy", ""),
        ("flex", "binary_crossentropy", "binary_crossentropy", ""),
        ("flex", "dice_loss_multiclass", "dice_loss_multiclass", "could not have worked"),
        ("flex", "categorical_focal_crossentropy", "focal(gamma=2)", "without Keras' factor"),
        ("flex", "mse", "categorical_crossentropy", "has no counterpart"),
        ("flex", "bce_dice_loss", "categorical_crossentropy", "could not have worked"),
        ("flex", "sparse_categorical_crossentropy", "categorical_crossentropy", "one-hot"),
        ("api", "binary_crossentropy", "binary_crossentropy", ""),
        ("api", "dice_loss", "dice_loss", ""),
        ("api", "bce_dice_loss", "bce_dice_loss", ""),
        ("api", "iou_loss", "iou_loss", ""),
        ("api", "bce_iou_loss", "bce_iou_loss", ""),
        ("api", "ssim_loss", "ssim", ""),
        ("api", "basnet_hybrid_loss", "basnet_hybrid_loss", ""),
        ("api", "jacard_loss", "jacard_loss", ""),
        ("api", "mse", "bce_dice_loss", "could not have worked"),
    ],
)
def test_losses(tmp_path, dialect, written, loss, told):
    from train import losses

    conversion = convert(tmp_path, changed(dialect, {"model.loss": f'"{written}"'}))
    assert section(conversion, "train")["loss"] == loss
    losses.parse(loss)
    about = [text for text in notes(conversion) if "[model] loss" in text]
    assert bool(about) == bool(told)
    assert all(told in text for text in about)


def test_a_cross_entropy_over_one_class_learnt_nothing(tmp_path):
    conversion = convert(tmp_path, changed("flex", {"model.num_classes": "1"}))
    assert section(conversion, "train")["loss"] == "binary_crossentropy"


@pytest.mark.parametrize(
    ("written", "name", "told"),
    [("Adam", "adam", False), ("AdamW", "adamw", False), ("adamw", "adamw", True),
     ("SGD", "adam", True)],
)  # fmt: skip
def test_optimizers(tmp_path, written, name, told):
    conversion = convert(tmp_path, changed("flex", {"model.optimizer": f'"{written}"'}))
    assert section(conversion, "optimizer")["name"] == name
    assert any("[model] optimizer" in text for text in notes(conversion)) == told
    decay = section(conversion, "optimizer").get("weight_decay")
    assert decay == (0.004 if name == "adamw" else None), "Keras' default for AdamW"


# Classes and masks


NORMALIZED = {"dataset.datasetclass": '"NormalizedImageMaskDataset"'}


def old_foreground(gray, changes):
    """What was foreground in the old arrays, of gray values."""
    threshold = float(changes.get("mask.threshold", 0))
    if changes.get("dataset.datasetclass") == '"NormalizedImageMaskDataset"':
        return gray / 255 >= float(changes.get("mask.normalized_threshold", 0.15))
    if changes.get("mask.binarize") != "True":
        return gray != 0
    algorithm = changes.get("mask.algorithm")
    if algorithm == '"cv2.THRESH_BINARY"':
        return np.where(gray > threshold, 255, 0) != 0
    if algorithm == '"cv2.THRESH_TRUNC"':
        return np.minimum(gray, threshold) != 0
    return np.where(gray < threshold, 0, 255) != 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dataset.datasetclass": '"BaseImageMaskDataset"', "mask.binarize": "True",
         "mask.threshold": "99"},
        {"mask.binarize": "True", "mask.threshold": "128"},
        {"mask.binarize": "True", "mask.threshold": "60.5"},
        {"mask.binarize": "True", "mask.threshold": "127", "mask.algorithm": '"cv2.THRESH_BINARY"'},
        {"mask.binarize": "True", "mask.threshold": "9.5", "mask.algorithm": '"cv2.THRESH_BINARY"'},
        {"mask.binarize": "True", "mask.threshold": "127", "mask.algorithm": '"cv2.THRESH_TRUNC"'},
        NORMALIZED,
        {**NORMALIZED, "mask.normalized_threshold": "0.2"},
        {**NORMALIZED, "mask.normalized_threshold": "1"},
    ],
)  # fmt: skip
def test_masks_of_one_class_have_the_old_foreground(tmp_path, changes):
    conversion = convert(tmp_path, changed("api", changes))
    (kind,) = [f.partition("=")[2] for f in flags(conversion, "prepare") if "mask_kind" in f]
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    reading = masks.MaskReading(*masks.parse_kind(kind))
    ids = masks.to_ids(gray, conversion.label_map, reading).ids
    base = '"BaseImageMaskDataset"' in changes.values()
    expected = old_foreground(gray, {} if base else changes)
    np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("threshold", ["-5", "0", "256", "1e300", "-1e300"])
def test_a_threshold_that_leaves_nothing_to_learn_is_told(tmp_path, threshold):
    changes = {"mask.binarize": "True", "mask.threshold": threshold}
    conversion = convert(tmp_path, changed("api", changes))
    assert any("nothing can be learned" in text for text in notes(conversion, "prepare"))
    (kind,) = [f.partition("=")[2] for f in flags(conversion, "prepare") if "mask_kind" in f]
    masks.parse_kind(kind)


@pytest.mark.parametrize(
    ("text", "colors", "told"),
    [
        ("{(0,0,0):0,(255,0,0):1}", [(0, 0, 0), (255, 0, 0)], ""),
        ("{(0,0,0):1,(255,0,0):0}", [(0, 0, 0), (255, 0, 0)], "looked at the order alone"),
        ("{(0,0,0):0,(9,0,0):1,(0,0,0):2}", [(0, 0, 0), (9, 0, 0)], "(0, 0, 0) twice"),
        ("{(0,0,0):0}", [(0, 0, 0), (255, 255, 255)], "has one color"),
        ("{(0,9,0):0}", [(0, 0, 0), (0, 9, 0)], "has one color"),
        ("{(0,0,999):0}", [(0, 0, 0), (0, 255, 0), (255, 0, 0), (0, 0, 255)],
         "could not have worked: expected colors"),
        ("'red'", [(0, 0, 0), (0, 255, 0), (255, 0, 0), (0, 0, 255)], "could not have worked"),
        ("{(0,0,0):0,(255,0,0)", [(0, 0, 0), (0, 255, 0), (255, 0, 0), (0, 0, 255)],
         "silently took its default"),
    ],
)  # fmt: skip
def test_the_color_map(tmp_path, text, colors, told):
    conversion = convert(tmp_path, changed("flex", {"mask.rgb_map": text}))
    assert [k.colors for k in conversion.label_map.classes] == [(c,) for c in colors]
    assert told in " ".join(notes(conversion, "label_map"))
    assert bool(told) == bool(notes(conversion, "label_map"))


def test_classes_beyond_the_colors_and_colors_beyond_the_classes(tmp_path):
    more = convert(tmp_path, changed("flex", {"model.num_classes": "4"}))
    assert more.label_map.num_classes == 2
    assert any("without a color were never seen" in t for t in notes(more, "model.head"))
    colors = "{(0,0,0):0,(9,0,0):1,(0,9,0):2}"
    fewer = convert(tmp_path, changed("flex", {"mask.rgb_map": colors}))
    assert fewer.label_map.num_classes == 3
    assert any("could not have worked" in t for t in notes(fewer, "model.head"))
    one = convert(tmp_path, changed("flex", {"mask.rgb_map": colors, "model.num_classes": "1"}))
    assert one.label_map.classes[1].colors == ((9, 0, 0), (0, 9, 0))
    assert section(one, "model")["head"] == "sigmoid"


# Overlap


@pytest.mark.parametrize(("size", "margin"), [(512, 64), (256, 16), (300, 100), (512, 0)])
def test_tiles_lie_as_far_apart_as_the_old_crops(tmp_path, size, margin):
    changes = {"tiledinfer.split_size": str(size), "tiledinfer.overlapping": str(margin)}
    overlap = section(convert(tmp_path, changed("api", changes)), "inference")["overlap"]
    crop = size + 2 * margin  # what the network saw, whose neighbour began `size` further on
    assert crop * (1 - overlap) == pytest.approx(size, abs=0.05)
