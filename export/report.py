"""Writes a page to look at: of a dataset, of a training run, or of several runs side by side.

The page is one HTML file that any browser opens. It holds all that it shows, asks no server for
anything, is light or dark as the browser wishes, and can be printed.

Of a dataset it shows splits, class balance, sizes and intensities, what is suspicious in the
sources, and a contact sheet to be filtered by class and split. Of a run it shows the experiment,
the curves, the evaluations, and the best and worst images. Of several runs it shows what differs.

Examples:
  flexseg report records
  flexseg report runs/lung --output=lung.html
  flexseg report runs/first runs/second runs/third --output=comparison.html
  flexseg report s3://bucket/records --pictures=120
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from absl import flags

from export.reports.options import Options
from flexseg_errors import FlexsegError, UsageError

POSITIONAL = ("DATASET|RUN...",)

_HEAD = 4096  # bytes in which a page says who made it


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "output",
        None,
        "HTML file to write. Default: NAME-report.html in the current folder, after the dataset or "
        "the run; of several runs comparison-report.html.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace a file that is no earlier report, too.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "pictures",
        None,
        "Of a dataset, how many pictures the contact sheet has at most (default 60); of a run, how "
        "many of the best and how many of the worst images are shown (default 6). 0: none.",
        flag_values=values,
        lower_bound=0,
    )
    flags.DEFINE_string(
        "data",
        "",
        "The dataset that a run's images are read from. Default: the one it was trained on.",
        flag_values=values,
    )


def run(values: flags.FlagValues, rest: Sequence[str]) -> None:
    """Runs the command."""
    from pipelines import storage

    paths = list(dict.fromkeys(path.rstrip("/") or path for path in rest))
    kind = kind_of(paths)
    output = values.output or default_output(paths)
    check_output(output, values.overwrite)
    options = Options(pictures=values.pictures, data=values.data)
    if kind == "dataset" and options.data:
        raise UsageError(f"--data is for runs; {paths[0]} is a dataset.")
    text = make(kind, paths, options)
    if not storage.is_remote(output):
        storage.make_folder(os.path.dirname(output) or ".")
    storage.write_whole(output, text.encode())
    print(output)


def make(kind: str, paths: Sequence[str], options: Options) -> str:
    """The page of a "dataset", a "run" or "runs"."""
    if kind == "dataset":
        from export.reports import dataset_page

        return dataset_page.page(paths[0], options)
    if kind == "run":
        from export.reports import run_page

        return run_page.page(paths[0], options)
    from export.reports import comparison_page

    return comparison_page.page(paths, options)


def kind_of(paths: Sequence[str]) -> str:
    """What is to be shown: a "dataset", a "run", or several "runs".

    Raises:
      FlexsegError: where a path is neither, or there are several that are not all runs.
    """
    kinds = {path: _kind_of(path) for path in paths}
    datasets = [path for path, kind in kinds.items() if kind == "dataset"]
    if datasets and len(paths) > 1:
        raise UsageError(
            f"{datasets[0]} is a dataset. Several runs can be shown side by side, and one dataset "
            "by itself: give it a report of its own."
        )
    return "runs" if len(paths) > 1 else kinds[paths[0]]


def _kind_of(path: str) -> str:
    from export import bundle
    from pipelines import manifest, storage
    from train import runs

    if storage.is_file(storage.join(path, manifest.FILENAME)):
        return "dataset"
    if storage.is_file(storage.join(path, runs.EXPERIMENT)):
        return "run"
    if storage.is_file(storage.join(path, bundle.MODEL)):
        raise FlexsegError(
            f"{path} is a bundle, which keeps no history: give the run that it was exported from, "
            f"or look at it with `flexseg inspect {path}`."
        )
    if not storage.exists(path):
        raise FlexsegError(
            f"{path}: there is no such folder; expected a dataset, which holds "
            f"{manifest.FILENAME}, or a run, which holds {runs.EXPERIMENT}."
        )
    raise FlexsegError(
        f"{path} is neither a dataset, which holds {manifest.FILENAME}, nor a run, which holds "
        f"{runs.EXPERIMENT}. A dataset is what `flexseg prepare` writes, a run what `flexseg "
        "train` does."
    )


def default_output(paths: Sequence[str]) -> str:
    """The file's name where none is given."""
    if len(paths) > 1:
        return "comparison-report.html"
    name = os.path.basename(paths[0] if "://" in paths[0] else os.path.abspath(paths[0]))
    return re.sub(r"[^\w.-]+", "_", name).strip(".") + "-report.html"


def check_output(path: str, overwrite: bool) -> None:
    """Refuses a file that is something else than an earlier report.

    Raises:
      FlexsegError: where it is, or is a folder.
    """
    from export.reports import page
    from pipelines import storage

    if not path.lower().endswith((".html", ".htm")):
        raise UsageError(f"--output={path}: expected the name of a file that ends in .html.")
    if not storage.is_remote(path) and os.path.isdir(path):
        raise FlexsegError(f"--output={path} is a folder; expected a file.")
    if overwrite or not storage.is_file(path):
        return
    with storage.open_read(path) as file:
        if not page.is_report(file.read(_HEAD)):
            raise FlexsegError(
                f"--output={path} is there already and is no report; nothing was touched. Give "
                "another name, or --overwrite."
            )
