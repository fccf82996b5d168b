"""Configs of the older projects, made for tests: a small one of each dialect, and changed ones."""

from __future__ import annotations

import itertools
import subprocess

from train import old_config

FLEX = {
    "model": {
        "model": '"TensorFlowFlexUNet"',
        "num_classes": "2",
        "base_filters": "16",
        "dropout_rate": "0.04",
    },
    "train": {"images_dir": '"./d/train/images"', "masks_dir": '"./d/train/masks"'},
    "valid": {"images_dir": '"./d/valid/images"', "masks_dir": '"./d/valid/masks"'},
    "test": {"images_dir": '"./d/test/images"', "masks_dir": '"./d/test/masks"'},
    "infer": {"images_dir": '"./mini/images"'},
    "mask": {"rgb_map": "{(0,0,0):0,(255,0,0):1}"},
}
API = {
    "model": {
        "model": '"TensorflowUNet"',
        "num_classes": "1",
        "base_filters": "16",
        "dropout_rate": "0.05",
        "learning_rate": "0.0001",
        "loss": '"bce_dice_loss"',
        "metrics": '["dice_coef"]',
    },
    "train": {
        "image_datapath": '"./d/train/images"',
        "mask_datapath": '"./d/train/masks"',
        "epochs": "100",
        "batch_size": "4",
    },
    "eval": {"image_datapath": '"./d/valid/images"', "mask_datapath": '"./d/valid/masks"'},
    "test": {"image_datapath": '"./d/test/images"', "mask_datapath": '"./d/test/masks"'},
    "infer": {"images_dir": '"./mini/images"'},
    "tiledinfer": {"images_dir": '"./mini/images"'},
}
BASES = {"flex": FLEX, "api": API}


def ini(sections):
    """The text of a config."""
    lines = []
    for section, keys in sections.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def changed(dialect, changes):
    """The small config of a dialect with {"section.key": text, or None to leave it out}."""
    sections = {section: dict(keys) for section, keys in BASES[dialect].items()}
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if value is None:
            del sections[section][key]
        else:
            sections.setdefault(section, {})[key] = value
    return ini(sections)


def convert(folder, text):
    """Converts a text, as a file of a folder."""
    path = folder / "train_eval_infer.config"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return old_config.convert(str(path), "out")


def everything(conversion):
    """All that a conversion writes, as one text on which line breaks do not matter."""
    return " ".join("\n".join(old_config.texts(conversion).values()).replace("#", " ").split())


def flags(conversion, name):
    """The flags of all commands of that name."""
    return [flag for command in conversion.commands if command.name == name
            for flag in command.flags]  # fmt: skip


def commands(text, folder):
    """The command lines of flexseg that a shell makes of a text, run in a folder."""
    script = 'flexseg() { printf "%s\\0" flexseg "$@"; }\n' + text
    done = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=folder, capture_output=True, check=True
    )
    words = done.stdout.decode().split("\0")[:-1]
    starts = [i for i, word in enumerate(words) if word == "flexseg"]
    return [words[a + 1 : b] for a, b in itertools.pairwise([*starts, len(words)])]
