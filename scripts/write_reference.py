#!/usr/bin/env python3
"""Write the table of modules of docs/reference.md from the modules themselves: their first sentence, and the public names defined there.

    .venv/bin/python scripts/write_reference.py

What stands between the two marker lines of the page is replaced; the rest is kept. Nothing is imported: the sources are read.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference.md"
START, END = "<!-- modules: written by scripts/write_reference.py -->", "<!-- end of modules -->"
ROOMS = ("ct", "io", "prepare", "measure", "learn", "audit", "transfer", "patient", "show", "cli")
_PACKAGE = ROOT / "src" / "lungshift"


def tables() -> str:
    """What stands between the markers of the page: a table for each room, and one for the modules beside the rooms."""
    rooms = (_section(f"`{room}`", _PACKAGE / room / "__init__.py", _PACKAGE / room) for room in ROOMS)
    return "\n\n".join([*rooms, _section("Beside the rooms", None, _PACKAGE)])


def page() -> str:
    """The page as it should be.

    Raises:
        ValueError: A marker is missing.
    """
    head, rest = PAGE.read_text().split(START)
    _, tail = rest.split(END)
    return f"{head}{START}\n\n{tables()}\n\n{END}{tail}"


def modules(folder: Path) -> list[Path]:
    """The modules of a folder by name, but not what begins with an underscore."""
    return sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))


def public_names(source: ast.Module) -> list[str]:
    """Classes, functions and explained values that a module defines for others, in its order."""
    return [name for name in _names(source) if not name.startswith("_")]


def first_sentence(source: ast.Module) -> str:
    """The first sentence of a docstring, on one line."""
    text = " ".join((ast.get_docstring(source) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0].replace("``", "`").replace("|", "\\|")


def _section(title: str, room: Path | None, folder: Path) -> str:
    about = f"{first_sentence(_read(room))}\n\n" if room else ""
    rows = "\n".join(_row(file) for file in modules(folder))
    return f"### {title}\n\n{about}| module | what is in it |\n|---|---|\n{rows}"


def _row(file: Path) -> str:
    source = _read(file)
    names = ", ".join(f"`{name}`" for name in public_names(source))
    module = ".".join(file.relative_to(_PACKAGE).with_suffix("").parts)
    return f"| `{module}` | {first_sentence(source)}{f' <br>{names}' if names else ''} |"


def _names(source: ast.Module) -> Iterator[str]:
    for here, after in pairwise([*source.body, ast.Pass()]):
        if isinstance(here, ast.ClassDef | ast.FunctionDef):
            yield here.name
        elif _is_text(after) and isinstance(here, ast.AnnAssign | ast.Assign):
            targets = here.targets if isinstance(here, ast.Assign) else [here.target]
            yield from (one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _read(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name} is up to date.\n")
