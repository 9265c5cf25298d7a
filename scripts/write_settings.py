#!/usr/bin/env python3
"""Write the tables of docs/protocols.md from the settings themselves: names, defaults and the sentence under each field.

    .venv/bin/python scripts/write_settings.py

What stands between the two marker lines of the page is replaced; the rest is kept.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lungshift.learn.settings import Augmentation
from lungshift.transfer.arms import ARMS
from lungshift.transfer.protocol import Protocol, read_protocol, shipped_protocols

PAGE = Path(__file__).parents[1] / "docs" / "protocols.md"
START, END = "<!-- settings: written by scripts/write_settings.py -->", "<!-- end of settings -->"
_SAME = "fine_tuning"
_EVERY_ARM, _IN_WORDS = "every arm", ("on", "off", "every arm")


def settings() -> Iterator[tuple[str, type, Field]]:
    """Every setting once: its path in the file, the class that holds it, and its field."""
    yield from _settings(Protocol, "")


def tables() -> str:
    """What stands between the markers of the page."""
    return "\n\n".join(["## All settings", *_sections(), "## What the shipped protocols say", _shipped()])


def page() -> str:
    """The page as it should be.

    Raises:
        ValueError: A marker is missing.
    """
    head, rest = PAGE.read_text().split(START)
    _, tail = rest.split(END)
    return f"{head}{START}\n\n{tables()}\n\n{END}{tail}"


def _settings(owner: type, prefix: str) -> Iterator[tuple[str, type, Field]]:
    for field in fields(owner):
        kind = get_type_hints(owner)[field.name]
        if is_dataclass(kind) and field.name != _SAME:
            yield from _settings(kind, f"{prefix}{field.name}.")
        elif not is_dataclass(kind):
            yield prefix + field.name, owner, field


def _sections() -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    for path, owner, field in settings():
        section = path.rpartition(".")[0]
        words.setdefault(section, (inspect.getdoc(owner) or "").splitlines()[0].replace("``", "`"))
        rows.setdefault(section, []).append(_row(path, owner, field))
    for section, lines in rows.items():
        title = f"### `[{section}]`" if section else "### At the top of the file"
        yield f"{title}\n\n{words[section]}\n\n| setting | value | default | |\n|---|---|---|---|\n" + "\n".join(lines)


def _row(path: str, owner: type, field: Field) -> str:
    kind = _kind(get_type_hints(owner)[field.name])
    words = _sentences(owner)[field.name].replace("|", "\\|").replace("``", "`")
    return f"| `{path}` | {kind} | {_default(field)} | {words} |"


def _default(field: Field) -> str:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    return "must be given" if value is MISSING else _toml(value)


def _kind(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {_kind(get_args(kind)[0])}"
    if NoneType in get_args(kind):
        return f"{_kind(get_args(kind)[0])} or none"
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(kind, "`{ low_hu, high_hu }`")


def _cell(value: Any) -> str:
    return value if value in _IN_WORDS else _toml(value)


def _toml(value: Any) -> str:
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_plain, value))}]"
    if is_dataclass(value):
        inner = ", ".join(f"{field.name} = {_plain(getattr(value, field.name))}" for field in fields(value))
        return f"{{ {inner} }}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sentences(owner: type) -> dict[str, str]:
    """The text under each field of a class; Python itself does not keep it."""
    body = ast.parse(inspect.getsource(owner)).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(inspect.cleandoc(str(text.value.value)).split())
    return found


def _shipped() -> str:
    names = shipped_protocols()
    protocols = [read_protocol(name) for name in names]
    lines = [f"- `{p.name}`: {p.description}" for p in protocols]
    lines += ["", "Only what differs from the default of the tables above, or between them:", ""]
    lines += [f"| setting | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    plain = Protocol("", "")
    for path in _shown():
        values = [_at(protocol, path) for protocol in protocols]
        if any(value != _at(plain, path) for value in values):
            lines.append(f"| `{path}` | {' | '.join(map(_cell, values))} |")
    return "\n".join(lines)


def _shown() -> list[str]:
    """The settings to compare, those of fine-tuning too; augmentation as one."""
    paths = [path for path, *_ in settings() if ".augmentation." not in path and path not in ("name", "description")]
    paths += ["training.augmentation"]
    return paths + [path.replace("training", _SAME, 1) for path in paths if path.startswith("training.")]


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = getattr(value, name)
    if isinstance(value, Augmentation):
        return "off" if value == Augmentation.none() else "on"
    return _EVERY_ARM if value == tuple(ARMS) else value


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name} is up to date.\n")
