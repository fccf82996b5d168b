"""Converts a config file of an older project (train_eval_infer.config) for flexseg.

Both generations of those INI files are read: [train] images_dir with [mask] rgb_map, and [train]
image_datapath. Values are parsed as Python literals and never evaluated. Written are

  experiment.yaml    for flexseg train
  label_map.yaml     for flexseg prepare
  augmentation.yaml  for flexseg prepare --augment, where the config augments
  commands.txt       the commands that do the same work, with the folders of the config

What is written is what the old program did; a comment tells each key that was unknown, misspelt,
duplicated, without effect, set to what could not have worked, or that has no counterpart here.
Files that are there already stay; where one of them differs, nothing is written.

Examples:
  flexseg convert-config train_eval_infer.config
  flexseg convert-config projects/Lung/train_eval_infer.config --output=lung
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from absl import flags

from flexseg_errors import FlexsegError
from pipelines import storage
from train import old_config

POSITIONAL = ("FILE",)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output",
        None,
        "Folder for the files; made if it is not there. Default: FILE without its suffix.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    path = rest[0]
    output = values.output or os.path.splitext(path)[0]
    if storage.is_file(output):
        raise FlexsegError(f"--output={output} is a file; expected a folder.")
    conversion = old_config.convert(path, _from_config(output, path))
    write(output, old_config.texts(conversion))
    print(f"{output}: {', '.join(sorted(old_config.texts(conversion)))}.")
    for note in conversion.notes:
        print(f"  {note.place or 'config'}: {note.text}")


def write(folder: str, texts: Mapping[str, str]) -> None:
    """Writes files into a folder, each under its name when it is complete.

    Raises:
      FlexsegError: a file of that name is there and holds something else; nothing is written then.
    """
    paths = {storage.join(folder, name): text.encode() for name, text in texts.items()}
    try:
        there = {path for path in paths if storage.exists(path)}
        for path in sorted(there):
            if not storage.is_file(path) or storage.read_bytes(path) != paths[path]:
                raise FlexsegError(
                    f"{path} is there already and holds something else; nothing was touched. Give "
                    "another --output."
                )
        storage.make_folder(folder)
        for path, data in paths.items():
            if path not in there:
                storage.write_whole(path, data)
    except OSError as error:
        raise FlexsegError(f"--output={folder} cannot be written: {error.strerror}.") from error


def _from_config(output: str, path: str) -> str:
    """The output folder as seen from the config's, in which the commands are run."""
    if storage.is_remote(output):
        return output
    return os.path.relpath(output, os.path.dirname(path) or ".").replace(os.sep, "/")
