"""The folder that `flexseg export --serving` writes: how to serve a bundle and ask for masks.

Its files lie ready in export/serving/; what depends on the bundle stands there as @NAME@ (the
model's name), @BUNDLE@ (its folder, quoted for the shell) and @SERVING@ (the release of TensorFlow
Serving).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

from flexseg_errors import FlexsegError
from pipelines import storage

TEMPLATES = Path(__file__).parent / "serving"
FILES = ("README.md", "serve.sh", "batching.config", "grpc_client.py", "rest_client.py")
SERVING = "2.16.1"  # the release that goes with the TensorFlow that bundles are made with


def refuse_taken(folder: str, bundle: str) -> None:
    """Refuses a folder for the files that is remote, holds something, or lies in the bundle.

    Raises:
      FlexsegError: naming the folder.
    """
    if storage.is_remote(folder):
        raise FlexsegError(f"--serving={folder}: give a local folder.")
    if os.path.isfile(folder) or storage.names(folder):
        raise FlexsegError(
            f"--serving={folder} holds something already; nothing was touched. Give a new folder."
        )
    one, other = os.path.realpath(folder), os.path.realpath(bundle)
    if not storage.is_remote(bundle) and f"{one}/".startswith(f"{other}/"):
        raise FlexsegError(
            f"--serving={folder} lies inside --output={bundle}; give another folder."
        )


def write(folder: str, bundle: str) -> None:
    """Writes the files.

    Args:
      folder: a new local folder.
      bundle: the bundle; a path or a URL.
    """
    place = bundle if storage.is_remote(bundle) else os.path.abspath(bundle)
    values = {"@NAME@": name_of(bundle), "@BUNDLE@": shlex.quote(place), "@SERVING@": SERVING}
    unfinished = folder.rstrip("/") + ".unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # ours, of an export that was interrupted
    os.makedirs(unfinished)
    for name in FILES:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(key, value)
        target = os.path.join(unfinished, name)
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
        if name.endswith(".sh"):
            os.chmod(target, 0o755)
    if os.path.isdir(folder):
        os.rmdir(folder)
    os.replace(unfinished, folder)


def name_of(bundle: str) -> str:
    """A name for the model that fits into a URL: the folder's, with - for what does not."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", bundle.rstrip("/").rpartition("/")[2]).strip("-")
    return name or "model"
