"""Odd and hostile configs: told, or refused with file, line and key; never run, never a crash."""

import ast
import configparser
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flexseg_errors import FlexsegError
from pipelines import augment
from tests.train.old_config_texts import BASES, changed, convert, everything, flags, ini
from train import convert_config, old_config
from train import experiment as experiments
from train.old_config.ini import is_old
from train.old_config.ini import read as read_ini

CONFIGS = Path(__file__).parent / "old_configs"


def notes(conversion, place=None):
    return [n.text for n in conversion.notes if place is None or n.place == place]


# As configparser reads


LINES = st.sampled_from(
    ["[a]", "[b]", "[a b]", "k = 1", "K : 2", "l=3", "  more", "   ; c", "; c", "# c", "", "   ",
     "m =", "n = (1,", "  2)", "o = 'x' ; y", "p = 1 # y", "\tt = 5", "q.r = 1", "[c] x", "=5",
     "nothing", "é = 1", "[]"]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(LINES, max_size=12))
@example(["[a]", "n = (1,", "", "; c", "  2)", "", "[b]", "k = 1"])
@example(["[a]", "k = 1", "[a]", "K : 2", "  [b]", "  more"])
def test_lines_are_taken_as_configparser_takes_them(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("ini", numbered=True) / "x.config"
    path.write_text("\n".join(lines), encoding="utf-8")
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except configparser.Error:
        with pytest.raises(FlexsegError, match="line"):
            read_ini(str(path))
        return
    file = read_ini(str(path))
    read = {(section, key): text.strip() for section in parser.sections()
            for key, text in parser.items(section)}  # fmt: skip
    assert {name: entry.text for name, entry in file.entries.items()} == read
    assert list(file.sections) == parser.sections()
    for entry in file.entries.values():
        line = lines[entry.line - 1].lower()
        assert entry.key in line


LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text("abc é/._-'\"\\", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.tuples(st.integers(0, 255)), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=200)
@given(LITERALS)
def test_literals_are_what_python_takes_them_for(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("ini", numbered=True) / "x.config"
    path.write_text(f"[a]\nk = {value!r}\n", encoding="utf-8")
    read = read_ini(str(path)).entries["a", "k"].value
    assert read == ast.literal_eval(repr(value)) == value
    assert type(read) is type(value)


# What is odd


ODD = [
    ("flex", {"train.pateince": "3"}, "train.patience",
     '[train] pateince = 3 (line 9) is misspelt: the old program read "patience"'),
    ("flex", {"deformation.alpha": "900"}, "augmentation",
     'is misspelt: the old program read "alpah"'),
    ("api", {"image.contrast_alpha": "2"}, "prepare", 'read "contrast_alpah"'),
    ("api", {"image.contrast_beta": "2"}, "prepare", 'read "contrast_best"'),
    ("api", {"mask.sbinarize": "True"}, "prepare", 'read "binarize"'),
    ("flex", {"model.no_such_thing": "1"}, "", "is unknown: the old program passed it over"),
    ("flex", {"cloud.key": "1"}, "", "[cloud] is unknown"),
    ("api", {"model.save_model_file": "''"}, "", "no code ever read a key of that name"),
    ("api", {"train.save_model_file": "''"}, "", "no code ever read a key of that name"),
    ("api", {"model.base_dilation": "(2,2)"}, "", "no code ever read a key of that name"),
    ("flex", {"model.epoch_change_infer": "False"}, "train.preview_mode",
     "had no effect: the key belongs to [train]"),
    ("flex", {"train.image_datapath": "'x'"}, "", "a key of the other generation"),
    ("flex", {"train.reducer_patience": "3", "train.learning_rate_reducer": "True"},
     "train.plateau_patience", "Keras' default of 10 stood"),
    ("flex", {"train.epochs": "50 ; fifty"}, "train.epochs",
     "a comment after a value begins with #"),
    ("flex", {"augmentor.angles": "[90. 180, 270,]", "model.generator": "True"}, "augmentation",
     "silently took its default, [90, 180, 270]"),
    ("flex", {"train.learning_rate_reducer": "true"}, "train.plateau_patience",
     "silently took its default, False"),
    ("flex", {"infer3d.slice_rotation": "cv2.ROTATE_90_CLOCKWISE"}, "predict",
     "a word without quotes"),
    ("flex", {"infer3d.images_dir": "'v'", "infer3d.slice_shape_order": "'whd'"}, "predict",
     "could not have worked; hwd is taken"),
    ("flex", {"infer3d.images_dir": "'v'", "infer3d.slice_rotation": "'left'"}, "predict",
     "could not have worked; no rotation is taken"),
    ("flex", {"infer3d.images_dir": "'v'", "infer3d.video_type": "'movie'"}, "predict",
     "could not have worked; overlays is taken"),
    ("flex", {"infer3d.images_dir": "'v'", "infer3d.video_fileformat": "'.avi'"}, "predict",
     "could not have worked; .mp4 is taken"),
    ("flex", {"infer3d.images_dir": "'v'", "infer3d.video_fps": "0"}, "predict",
     "could not have worked; 10 is taken"),
    ("flex", {"infer3d.images_dir": "'v'", "infer3d.video_fileformat": "'.gif'",
              "infer3d.video_fps": "7"}, "predict", "shown for half a second each"),
    ("api", {"infer.blur": "True", "infer.ksize": "(4,2)"}, "predict",
     "a square of 5 pixels is taken"),
    ("api", {"infer.ksize": "(3,3)"}, "predict", "had no effect: [infer] blur is not True"),
    ("api", {"tiledinfer.images_dir": "'t'", "tiledinfer.threshold": "300"}, "predict",
     "it is no gray value"),
    ("api", {"tiledinfer.images_dir": "'t'", "tiledinfer.threshold": "9",
             "tiledinfer.bitwise_blending": "False"}, "predict",
     "neither binarize nor bitwise_blending is True"),
    ("flex", {"train.epochs": '"many"'}, "train.epochs",
     "could not have worked: expected a whole number; 100 is taken"),
    ("flex", {"train.epochs": "-3"}, "train.epochs", "is left out"),
    ("flex", {"train.epochs": ""}, "train.epochs", "it is empty"),
    ("flex", {"train.model_dir": '"50%"'}, "train", "a single %"),
    ("flex", {"model.dropout_rate": "0.3"}, "model.dropout_rate", "is left out"),
    ("flex", {"model.model": '"TENSORFLOWFLEXUNET"'}, "model.name", "other capitals"),
    ("flex", {"model.model": "TensorFlowFlexUNet"}, "model.name", "stands without quotes"),
    ("flex", {"train.images_dir": '"..\\train\\images"'}, "prepare", "is no backslash to Python"),
    ("api", {"image.color_converter": '"cv2.COLOR_BGR2CMYK"'}, "prepare", "is left out"),
    ("api", {"model.num_classes": "3"}, "label_map", "has not the colors of 3 classes"),
    ("api", {"segmentation.white": '"no color"', "segmentation.colorize": "True"}, "label_map",
     "no name of a color"),
    ("flex", {"augmentor.shrinks": "[0.0, 0.9]", "model.generator": "True"}, "augmentation",
     "shrinked_0.0 is left out"),
    ("flex", {"augmentor.angles": "[90, 90]", "model.generator": "True"}, "augmentation",
     "rotated_90 is left out"),
    ("flex", {"tiledinfer.split_size": "0"}, "inference.overlap", "could not have worked"),
    ("flex", {"model.image_width": "0"}, "prepare", "could not have worked; 512 is taken"),
    ("flex", {"model.image_width": "100", "model.image_height": "100", "model.num_layers": "8"},
     "prepare", "128"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "changes", "place", "text"), ODD)
def test_what_is_odd_is_told_at_its_place(tmp_path, dialect, changes, place, text):
    conversion = convert(tmp_path, changed(dialect, changes))
    assert any(text in note for note in notes(conversion, place)), notes(conversion)
    assert " ".join(text.replace("#", " ").split()) in everything(conversion), (
        "it is in a file, too"
    )
    experiments.from_dict(conversion.experiment)
    if conversion.augmentation:
        augment.from_dict(conversion.augmentation)
    assert not any(text in note for note in notes(convert(tmp_path, ini(BASES[dialect]))))


def test_a_value_on_the_way_out_of_range_keeps_the_default_of_the_experiment(tmp_path):
    conversion = convert(tmp_path, changed("flex", {"train.epochs": "-3"}))
    assert "epochs" not in conversion.experiment["train"]


def test_keys_and_sections_given_twice(tmp_path):
    text = ini(BASES["flex"]) + "[train]\nepochs = 5\nepochs = 6\n[mask]\n"
    conversion = convert(tmp_path, text)
    assert conversion.experiment["train"]["epochs"] == 6
    (told,) = [n for n in notes(conversion, "train.epochs") if "duplicated" in n]
    assert "epochs is duplicated: 5 (line 20), then 6 (line 21), which is taken" in told
    head = " ".join(notes(conversion, ""))
    assert "[train] is duplicated: it begins again in line 19" in head
    assert "The old parser refused a file with a section or key given twice" in head


def test_a_byte_order_mark_and_foreign_comments_are_no_hindrance(tmp_path):
    text = b"\xef\xbb\xbf; \x83\x54\n" + ini(BASES["flex"]).replace("\n", "\r\n").encode()
    conversion = convert(tmp_path, text)
    assert any("byte order mark" in note for note in notes(conversion))
    plain = convert(tmp_path, ini(BASES["flex"]))
    assert conversion.experiment == plain.experiment


# Code


CODE = [
    "__import__('os').system('touch {file}')",
    "open('{file}', 'w')",
    "[__import__('os').system('touch {file}')]",
    "{{(0,0,0): open('{file}', 'w')}}",
    "(lambda: 1)",
    "[x for x in (1,)]",
    "os.environ",
    "cv2.imread('{file}')",
    "f'{{1}}'",
    "1 if True else 2",
    "2 ** 9999999",
    "'a' * 10 ** 12",
    "3 + 4",
    "[1, 2][0]",
    "(x := 5)",
    "not True",
    "{{**{{}}}}",
]


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("place", ["train.epochs", "bogus.key", "mask.rgb_map"])
def test_code_is_refused_by_file_line_section_and_key(command, tmp_path, code, place):
    mark = tmp_path / "ran"
    text = code.format(file=mark)
    path = tmp_path / "evil.config"
    path.write_text(changed("flex", {place: text}))
    section, _, key = place.partition(".")
    line = 1 + path.read_text().splitlines().index(f"{key} = {text}")
    result = command("convert-config", path, f"--output={tmp_path / 'out'}")
    assert result.status == 1
    assert f"{path}, line {line}, [{section}] {key}: " in result.err
    assert "is code (" in result.err
    assert result.err.count("\n") == 1
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


# Hostile files


HOSTILE = {
    "empty": (b"", "is no config file of an older project"),
    "no section": (b"epochs = 5\n", "line 1"),
    "neither": (b"[train]\nimages_dir = 'x'\nno delimiter\n", "line 3"),
    "only a section": (b"[train]\n", "is no config file of an older project"),
    "binary": (bytes(range(256)) * 4, "null bytes"),
    "utf-16": ("[train]\nx = 1".encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "latin": (b"[train]\nimages_dir = 'caf\xe9'\n", "line 2"),
    "latin section": (b"[tr\xe9in]\n", "not UTF-8"),
    "latin more": (b"[train]\nimages_dir = (\n  '\xe9')\n", "not UTF-8"),
    "huge": (b"[train]\n" + b"; x\n" * 300_000, "is no config file"),
    "deep": (b"[train]\nimages_dir = " + b"[" * 5000 + b"]" * 5000 + b"\n", ""),
    "deeper": (b"[train]\nimages_dir = " + b"(" * 150 + b")" * 150 + b"\n", ""),
    "signs": (b"[train]\nimages_dir = " + b"-" * 50_000 + b"1\n", ""),
    "no network": (b"[train]\nimages_dir = 'x'\n", "[model] model is missing"),
    "number": (b"[train]\nimages_dir = 'x'\n[model]\nmodel = 3\n", "line 4"),
    "yaml": (b"model:\n  name: flex_unet\n", "line 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gets_one_clear_line(command, tmp_path, name):
    data, message = HOSTILE[name]
    path = tmp_path / "x.config"
    path.write_bytes(data)
    result = command("convert-config", path, f"--output={tmp_path / 'out'}")
    assert result.status == 1
    assert result.err.startswith("flexseg convert-config: ")
    assert "unexpected" not in result.err
    assert result.err.count("\n") == 1
    assert str(path) in result.err
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_what_is_no_file(command, tmp_path):
    for path in (tmp_path / "nowhere.config", tmp_path):
        result = command("convert-config", path, f"--output={tmp_path / 'out'}")
        assert result.status == 1
        assert str(path) in result.err
        assert result.err.count("\n") == 1
    assert command("convert-config").status == 2


JUNK = st.sampled_from(
    ["", "None", "True", "-1", "0", "1e308", "10**9", "()", "(1,2,3)", "[]", "{}", "'x'", "''",
     "[None]", "{(0,0,0):0}", "('a','b')", "nan", "x", "[1, 'a']", "1j", "b'x'", "...", "(0,0)",
     "99999999999999999999999", "[[[]]]", "{1,2}", "-'a'", "0.0", "[0.5]", "'\\x00'", "1e-300"]
)  # fmt: skip


def names(dialect):
    """SECTION.KEY of every key of the config of a dialect."""
    file = read_ini(str(CONFIGS / f"{dialect}.config"))
    return [f"{section}.{key}" for section, key in file.entries]


def attempt(folder, text):
    """(conversion, "") or (None, the message of the refusal)."""
    try:
        return convert(folder, text), ""
    except FlexsegError as error:
        return None, str(error)


@pytest.mark.parametrize("dialect", BASES)
def test_any_value_of_any_key_is_taken_told_or_refused(tmp_path_factory, dialect):
    folder = tmp_path_factory.mktemp("fuzz")

    @settings(max_examples=150)
    @given(st.dictionaries(st.sampled_from(names(dialect)), JUNK, min_size=1, max_size=4))
    def hold(changes):
        text = changed(dialect, {"model.generator": "True", **changes})
        conversion, message = attempt(folder, text)
        if conversion is None:
            assert "line" in message or "is needed" in message
            return
        experiments.from_dict(conversion.experiment)
        augment.from_dict(conversion.augmentation or {"variants": ["hflip"]})
        assert old_config.texts(conversion)

    hold()


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(BASES)),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=0, max_size=3)), max_size=4),
)
def test_a_torn_file_is_read_or_refused(tmp_path_factory, dialect, cuts):
    data = (CONFIGS / f"{dialect}.config").read_bytes()
    for at, junk in cuts:
        data = data[:at] + junk + data[at + 2 :]
    conversion, message = attempt(tmp_path_factory.mktemp("torn", numbered=True), data)
    assert old_config.texts(conversion) if conversion else "train_eval_infer.config" in message


def test_an_output_that_cannot_be_made_is_told(command, tmp_path):
    path = tmp_path / "x.config"
    path.write_text(ini(BASES["flex"]))
    (tmp_path / "file").write_text("")
    result = command("convert-config", path, f"--output={tmp_path / 'file' / 'out'}")
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert "unexpected" not in result.err
    assert sorted(os.listdir(tmp_path)) == ["file", "x.config"]


GENERATED = {"model.generator": "True", "augmentor.deformation": "True"}
OTSU, TRUNC = '"cv2.THRESH_OTSU"', '"cv2.THRESH_TRUNC"'
BASE, NORMALIZED, COLORED = (
    {"dataset.datasetclass": f'"{name}ImageMaskDataset"'}
    for name in ("Base", "Normalized", "RGB2Grayscale")
)
DIVIDED = {"dataset.image_normalize": "True"}
# dialect, changes, the key that a note is on, its place, what the note says of the key
NOTED = [
    ("flex", {**GENERATED, "deformation.sigmoid": "9", "deformation.sigmoids": "[7]"},
     "deformation.sigmoid", "augmentation", "had no effect: sigmoids took its place."),
    ("flex", {"model.final_activation": '"sigmoid"'}, "model.final_activation", "model.head",
     "had no effect: several classes got a softmax."),
    ("flex", {"train.steps_per_epoch": "9"}, "train.steps_per_epoch", "train.steps_per_epoch",
     "had no effect: [model] generator is not True."),
    ("api", {"train.validation_steps": "9"}, "train.validation_steps", "train.steps_per_epoch",
     "had no effect: [model] generator is not True."),
    ("flex", {"model.model": '"TensorFlowFlexAttentionUNet"', "model.input_normalize": "True"},
     "model.input_normalize", "model.input_normalization",
     "had no effect: this network took the values as they were."),
    ("flex", {"model.model": '"TensorFlowFlexMultiResUNet"', "model.input_normalize": "False"},
     "model.input_normalize", "model.input_normalization",
     "had no effect: this network always divided by 255."),
    ("flex", {"model.model": '"TensorFlowFlexTransUNet"', "model.filter_num": "[64, 128]"},
     "model.filter_num", "model.decoder_filters", "has no counterpart: the decoder has 4 levels."),
    ("flex", {"model.model": '"TensorFlowFlexEfficientUNet"', "model.efficientnet": '"B6"'},
     "model.efficientnet", "model.variant",
     "crashed the old program, which knew no B6; here it works."),
    ("api", {"image.contrast_alpah": "2"}, "image.contrast_alpah", "prepare",
     "had no effect: [image] contrast_adjuster is not True."),
    ("api", {"mask.normalized_threshold": "0.5"}, "mask.normalized_threshold", "prepare",
     "had no effect: [dataset] datasetclass is not NormalizedImageMaskDataset."),
    ("api", {"model.evaluation": '"holdout"'}, "model.evaluation", "evaluate",
     "could not have worked: there is no section of that name; test is taken."),
    ("api", {"dataset.datasetclass": '"OtherDataset"'}, "dataset.datasetclass", "prepare",
     "could not have worked: the old program had no such class; ImageMaskDataset is taken."),
    ("api", {"mask.classes": '["a", "b", "c"]'}, "mask.classes", "label_map",
     "has no counterpart: expected 2 names."),
    ("api", {"mask.binarize": "True", "mask.algorithm": OTSU, "mask.threshold": "60"},
     "mask.threshold", "prepare", "had no effect: the algorithm finds it."),
    ("api", {"mask.binarize": "True", "mask.algorithm": '"MEAN"', "mask.threshold": "60"},
     "mask.algorithm", "prepare", "could not have worked: the old program knew OTSU, TRIANGLE, "
     "BINARY and TRUNC; BINARY is taken."),
    ("api", {"mask.threshold": "60"}, "mask.threshold", "prepare",
     "had no effect: masks were not binarized, so that all but 0 was foreground."),
    ("api", {**BASE, "mask.binarize": "True"}, "mask.binarize", "prepare",
     "had no effect: BaseImageMaskDataset did not binarize masks."),
    ("api", {**NORMALIZED, "mask.algorithm": TRUNC}, "mask.algorithm", "prepare",
     "had no effect: NormalizedImageMaskDataset did not binarize masks."),
    ("api", {**COLORED, "mask.mask_colors": "[(9,0,0)]", "mask.threshold": "60"},
     "mask.threshold", "prepare",
     "had no effect: RGB2GrayscaleImageMaskDataset did not binarize masks."),
    ("api", {**BASE, "mask.blur": "True"}, "mask.blur", "prepare",
     "had no effect: BaseImageMaskDataset did not blur masks."),
    ("api", {**NORMALIZED, "mask.blur": "True", "mask.blur_size": "(5,5)"}, "mask.blur_size",
     "prepare", "had no effect: NormalizedImageMaskDataset did not blur masks."),
    ("api", {**COLORED, "mask.mask_colors": "[(9,0,0)]", "mask.blur": "True"}, "mask.blur",
     "prepare", "has no counterpart: it made all that lies within half of blur_size of foreground "
     "foreground, too."),
    ("api", DIVIDED, "dataset.image_normalize", "model.input_normalization",
     "was done once more by [model] input_normalize; here it is done once."),
    ("api", {**DIVIDED, "model.input_normalize": "False"}, "dataset.image_normalize",
     "model.input_normalization", "is done by the network here: it divides by 255."),
    ("api", {**DIVIDED, "model.model": '"TensorflowMultiResUNet"'}, "dataset.image_normalize",
     "model.input_normalization",
     "was done once more by this network, always; here it is done once."),
    ("api", {**DIVIDED, "model.model": '"TensorflowAttentionUNet"'}, "dataset.image_normalize",
     "model.input_normalization", "is done by the network here: it divides by 255."),
    ("api", {**DIVIDED, "model.model": '"TensorflowDeepLabV3Plus"'}, "dataset.image_normalize",
     "model.input_normalization",
     "has no counterpart: the network brings images to what its first weights know."),
    ("flex", {"train.epochs": "5 5 ; fifty"}, "train.epochs", "train.epochs",
     "could not be read (it is no Python value), so that the old program silently took its "
     "default, 100, which stands here, too."),
    ("flex", {"train.epochs": "1.5"}, "train.epochs", "train.epochs",
     "could not have worked: expected a whole number; 100 is taken."),
    ("flex", {"model.learning_rate": '"low"'}, "model.learning_rate", "optimizer.learning_rate",
     "could not have worked: expected a number; 0.0001 is taken."),
    ("flex", {"model.generator": '"yes"'}, "model.generator", "train.steps_per_epoch",
     "could not have worked: expected True or False; False is taken."),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "changes", "key", "place", "text"), NOTED)
def test_a_note_names_key_value_and_line_and_says_the_one_thing_that_is_so(
    tmp_path, dialect, changes, key, place, text
):
    config = changed(dialect, changes)
    conversion = convert(tmp_path, config)
    section, _, name = key.partition(".")
    line = 1 + config.splitlines().index(f"{name} = {changes[key]}")
    start = f"[{section}] {name} = {changes[key]} (line {line}) "
    of_key = [note for note in conversion.notes if note.text.startswith(start)]
    assert [(note.place, note.text.removeprefix(start)) for note in of_key] == [(place, text)]
    experiments.from_dict(conversion.experiment)


def test_a_file_without_a_color_map_gets_that_of_the_old_sample(tmp_path):
    changes = {"mask.rgb_map": None, "model.num_classes": "4"}
    conversion = convert(tmp_path, changed("flex", changes))
    (told,) = notes(conversion, "label_map")
    assert told == "[mask] rgb_map is missing: these are the colors of the old program's sample."
    colors = [[list(c) for c in entry.colors] for entry in conversion.label_map.classes]
    assert colors == [[[0, 0, 0]], [[0, 255, 0]], [[255, 0, 0]], [[0, 0, 255]]]


def test_two_classes_painted_in_one_color_are_black_and_white(tmp_path):
    changes = {"segmentation.colorize": "True", "segmentation.black": '"red"',
               "segmentation.white": '"#ff0000"'}  # fmt: skip
    conversion = convert(tmp_path, changed("api", changes))
    assert "[segmentation] black and white are the same color." in notes(conversion, "label_map")
    colors = [[list(c) for c in entry.colors] for entry in conversion.label_map.classes]
    assert colors == [[[0, 0, 0]], [[255, 255, 255]]]


@pytest.mark.parametrize("off", ["model.generator", "generator.augmentation"])
def test_augmentation_that_was_not_used_is_converted_and_left_out_of_the_commands(tmp_path, off):
    changes = {"model.generator": "True", "augmentor.hflip": "True", off: "False"}
    conversion = convert(tmp_path, changed("flex", changes))
    section, _, key = off.partition(".")
    said = notes(conversion, "augmentation")
    assert (
        f"The old program did not use this: [{section}] {key} is not True. The commands leave it "
        "out."
    ) in said
    assert any(variant["name"] == "hflipped" for variant in conversion.augmentation["variants"])
    assert not any("--augment" in flag for flag in flags(conversion, "prepare"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("-1", "all"), ("-0.2", "all"), ("1e9", "nothing"), ("2", "nothing")],
)
def test_a_share_that_no_gray_value_is_between_is_told(tmp_path, text, said):
    conversion = convert(
        tmp_path, changed("api", {**NORMALIZED, "mask.normalized_threshold": text})
    )
    kept = {"all": 0, "nothing": 254}[said]
    assert (
        f"With the threshold of [mask] {said} was foreground, of which nothing can be learned; "
        f"{kept} is taken."
    ) in notes(conversion, "prepare")
    assert f"--mask_kind=binary:{kept}" in flags(conversion, "prepare")


def test_colors_may_stand_as_a_list_or_beside_names_or_ids(tmp_path):
    for text in ("[(9,0,0),(0,8,0)]", "{(9,0,0): 1, (0,8,0): 2}",
                 "{'cell': (9,0,0), 'wall': (0,8,0)}"):  # fmt: skip
        conversion = convert(tmp_path, changed("api", {**COLORED, "mask.mask_colors": text}))
        assert conversion.label_map.classes[1].colors == ((9, 0, 0), (0, 8, 0)), text


@pytest.mark.parametrize(
    ("model", "missing"),
    [("TensorFlowFlexUNet", "[train] images_dir"), ("TensorflowUNet", "[train] image_datapath")],
)
def test_without_folders_the_network_tells_the_generation(tmp_path, model, missing):
    text = f'[model]\nmodel = "{model}"\nnum_classes = 1\nbase_filters = 8\ndropout_rate = 0.1\n'
    if model == "TensorflowUNet":
        text += 'learning_rate = 0.1\nloss = "dice_loss"\nmetrics = ["dice_coef"]\n'
        text += "[train]\nepochs = 1\nbatch_size = 1\n"
    with pytest.raises(FlexsegError, match=re.escape(f"{missing} is missing, and is needed.")):
        convert(tmp_path, text)


def test_tiles_that_were_taken_from_another_folder_are_told(tmp_path):
    changes = {"train.epoch_change_infer": "True", "train.epoch_change_tiledinfer": "True",
               "tiledinfer.images_dir": '"./other"'}  # fmt: skip
    conversion = convert(tmp_path, changed("api", changes))
    assert conversion.experiment["train"]["preview_folder"] == "./mini/images"
    assert (
        "The old program took tiled ones from [tiledinfer] images_dir, ./other; one folder serves "
        "both here."
    ) in notes(conversion, "train.preview_folder")


@pytest.mark.parametrize("text", ["", "; nothing\n\n# more\n"])
def test_a_file_of_nothing_is_no_old_config(tmp_path, text):
    path = tmp_path / "x"
    path.write_text(text)
    assert not is_old(str(path))


def test_a_path_that_no_system_takes_is_told():
    with pytest.raises(FlexsegError, match=r"'a\\x00b' cannot be read"):
        read_ini("a\0b")
    assert not is_old("a\0b")


def test_signs_beyond_what_python_reads_are_told(tmp_path):
    for count in (1500, 4000, 8000):
        path = tmp_path / "x.config"
        path.write_text(f"[train]\nepochs = {'-' * count}1\n")
        with pytest.raises(FlexsegError, match=r"line 2, \[train\] epochs is nested too deeply"):
            read_ini(str(path))


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_config.storage, "write_whole", full)
    with pytest.raises(FlexsegError, match=r"--output=.*out cannot be written: No space left"):
        convert_config.write(str(tmp_path / "out"), {"a.yaml": "a"})


def test_commands_of_a_remote_folder_name_it_as_it_is():
    assert convert_config._from_config("s3://b/converted", "p/x.config") == "s3://b/converted"
    assert convert_config._from_config("p/converted", "p/x.config") == "converted"
