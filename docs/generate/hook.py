"""The hook by which MkDocs writes the home page and those below reference/, at every build."""

from __future__ import annotations

import os
import sys
from typing import Any

from mkdocs.structure.files import File, Files

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def on_config(config: Any) -> Any:
    """Puts a line for each command into the navigation."""
    for folder in (ROOT, HERE):  # MkDocs takes back what was put in while it loaded this file
        if folder not in sys.path:
            sys.path.insert(0, folder)
    from pages import reference

    commands = [path for path in sorted(reference()) if path.startswith("reference/commands/")]
    for entry in config.nav:
        if isinstance(entry, dict) and "Reference" in entry:
            entry["Reference"] = [
                {"Commands": commands} if _is_commands(page) else page
                for page in entry["Reference"]
            ]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Adds the generated pages to those that lie in docs/; README.md is the home page."""
    from pages import home, reference

    for path, text in {"index.md": home(), **reference()}.items():
        files.append(File.generated(config, path, content=text))
    return files


def _is_commands(page: Any) -> bool:
    return isinstance(page, dict) and "Commands" in page
