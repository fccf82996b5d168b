"""The flags of `flexseg export`, and the formats that they name."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from export import other_formats
from flexseg_errors import UsageError, nearest

SAVED_MODEL = "saved_model"
_MODEL = "saved_model.pb"


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "run", None, "Run directory of flexseg train. Required.", flag_values=values
    )
    flags.DEFINE_string(
        "output", None, "Folder for the SavedModel; new. Required.", flag_values=values
    )
    flags.DEFINE_list(
        "format",
        [SAVED_MODEL],
        f"What to write into the folder, of {SAVED_MODEL} and "
        + "; ".join(f"{f.name} ({f.summary})" for f in other_formats.FORMATS.values())
        + ".",
        flag_values=values,
    )
    flags.DEFINE_float(
        "min_agreement",
        None,
        "Least share of pixels, 0 to 1, to which every other format must give the network's class "
        "id. Default: each format's own, from "
        f"{min(f.min_agreement for f in other_formats.FORMATS.values()):g} to "
        f"{max(f.min_agreement for f in other_formats.FORMATS.values()):g}.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "serving",
        None,
        "Also make this folder, new, with a script that starts TensorFlow Serving in Docker, a "
        "batching config, and a gRPC and a REST client. Default: none.",
        flag_values=values,
    )


def formats_of(names: Sequence[str]) -> tuple[str, ...]:
    """What --format asks for, each once, in order.

    Raises:
      UsageError: a name is unknown, or they do not fit into one folder.
    """
    known = (SAVED_MODEL, *other_formats.FORMATS)
    for name in names:
        if name not in known:
            raise UsageError(
                f'--format="{name}": expected some of {", ".join(known)}.{nearest(name, known)}'
            )
    if not names:
        raise UsageError(f"--format: expected some of {', '.join(known)}.")
    models = [name for name in dict.fromkeys(names) if is_saved_model(name)]
    if len(models) > 1:
        raise UsageError(
            f"--format: {' and '.join(models)} are a SavedModel each, and a bundle holds one; "
            "export them to folders of their own."
        )
    return tuple(dict.fromkeys(names))


def is_saved_model(name: str) -> bool:
    """Whether the format is what makes the folder a SavedModel."""
    return name == SAVED_MODEL or _MODEL in other_formats.FORMATS[name].files
