"""Every key of the older projects' configs and what became of it, from the converter's tables."""

from __future__ import annotations

from markdown_text import code, escape, table

from train.old_config import networks, tables
from train.old_config.keys import KINDS, Key

_FORMS = {
    tables.FLEX: "Configs with `[train] images_dir`",
    tables.API: "Configs with `[train] image_datapath`",
}
_FILES = {
    "label_map": "`label_map.yaml`",
    "augmentation": "`augmentation.yaml`",
    "": "nowhere",
}


def page() -> str:
    """The page of the old keys, as Markdown."""
    lines = [
        "# Keys of the older projects",
        "",
        "What [flexseg convert-config](commands/convert-config.md) does with each key of a "
        "`train_eval_infer.config`. These tables are the converter's own. How to move a project "
        "over: [from the older projects](../how-to/older-projects.md).",
        "",
        "A key of the experiment is written with its section (`optimizer.clip`); a command means "
        "its line in `commands.txt`.",
        "",
    ]
    for dialect, known in tables.TABLES.items():
        lines += [f"## {_FORMS[dialect]} {{ #{dialect} }}", ""]
        section = ""
        rows: list[tuple[str, str, str, str]] = []
        for (name, key), what in sorted(known.items()):
            if name != section:
                lines += _flush(section, rows, dialect)
                section, rows = name, []
            rows.append(_row(key, what))
        lines += _flush(section, rows, dialect)
    lines += ["## Networks", "", _networks(), ""]
    names = ", ".join(code(name) for name in sorted(tables.NEVER_READ))
    lines += [
        "## Keys that no program ever read",
        "",
        f"They stand in published configs and had no effect: {names}.",
        "",
    ]
    return "\n".join(lines)


def _flush(section: str, rows: list[tuple[str, str, str, str]], dialect: str) -> list[str]:
    if not rows:
        return []
    head = ("key", "value", "old default", "here")
    return [f"### [{section}] {{ #{dialect}-{section} }}", "", table(head, rows), ""]


def _row(key: str, what: Key) -> tuple[str, str, str, str]:
    default = "none: the old program stopped" if what.required else code(repr(what.default))
    here = _FILES.get(what.place) or code(what.place)
    if what.idle:
        here = f"had no effect: {escape(what.idle)}"
    elif what.gap:
        here += f"; no counterpart: {escape(what.gap)}"
    return code(key), escape(KINDS[what.kind][1]), default, here


def _networks() -> str:
    rows = [
        (code(name), f"[{old.name}](networks.md#{old.name})", ", ".join(map(code, old.keys)))
        for name, old in networks.MODELS.items()
    ]
    intro = (
        "`[model] model` is TensorFlowFlex or Tensorflow with one of these names after it; the "
        "keys are those of `[model]` that this network alone has.\n\n"
    )
    return intro + table(("name", "network here", "its keys"), rows)
