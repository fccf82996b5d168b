"""What modules say of themselves, read from their source without importing them."""

from __future__ import annotations

import ast
import dataclasses
import functools
import os
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a class: its default as code, and what its knob says of it, if it is one."""

    name: str
    kind: str
    default: str
    doc: str


@functools.cache
def tree(module: str) -> ast.Module:
    """The parsed source of a module such as `train.losses`."""
    with open(os.path.join(ROOT, *module.split(".")) + ".py", encoding="utf-8") as file:
        return ast.parse(file.read())


def module_doc(module: str) -> str:
    """The docstring of a module."""
    return ast.get_docstring(tree(module)) or ""


def definition(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    """The class or function of that name.

    Raises:
      KeyError: the module has none.
    """
    for node in tree(module).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return node
    raise KeyError(f"{module} has no {name}")


def doc(module: str, name: str) -> str:
    """The docstring of a class or function."""
    return ast.get_docstring(definition(module, name)) or ""


def fields(module: str, name: str) -> list[Field]:
    """The annotated fields of a class, those of its bases in the same module first."""
    node = definition(module, name)
    assert isinstance(node, ast.ClassDef)
    found: dict[str, Field] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in _classes(module):
            found.update({f.name: f for f in fields(module, base.id)})
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            found[line.target.id] = _field(line.target.id, line)
    return list(found.values())


def table_of(module: str, name: str) -> dict[str, tuple[str, str]]:
    """A dictionary of a module that maps text to `other_module.Name`: text -> (module, Name)."""
    for node in tree(module).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == name:
            assert isinstance(node, ast.AnnAssign)
            assert isinstance(node.value, ast.Dict)
            room = module.rpartition(".")[0]
            result = {}
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                assert isinstance(key, ast.Constant)
                assert isinstance(value, ast.Attribute)
                assert isinstance(value.value, ast.Name)
                result[str(key.value)] = (f"{room}.{value.value.id}", value.attr)
            return result
    raise KeyError(f"{module} has no dictionary {name}")


def _classes(module: str) -> set[str]:
    return {node.name for node in tree(module).body if isinstance(node, ast.ClassDef)}


def _field(name: str, line: ast.AnnAssign) -> Field:
    default, text = "", ""
    value: Any = line.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "knob":
        default = ast.unparse(value.args[0])
        text = str(ast.literal_eval(value.args[1]))
    elif value is not None:
        default = ast.unparse(value)
    return Field(name, ast.unparse(line.annotation), default, text)
