"""Do the tests notice when the code is wrong? Small changes planted by mutmut into ``measure``, ``ct`` and ``prepare``.

    python -m benchmarks.abuse.mutants --mutmut MUTMUT --output docs/benchmarks/abuse/mutants.md

``--mutmut`` names the command of an environment that has mutmut and all that the tests need. Each room is copied, mutated and tested by its own tests alone, one
thread. Changes of wording are left out; of the others a sample is drawn, always the same. Why a survivor lives is written into the page by hand, and
kept where the page is written anew. Exits with 1 while one is not explained.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.turns import ONE_THREAD

ROOT = Path(__file__).parents[2]
ROOMS, SAMPLE, SEED = ("ct", "measure", "prepare"), 300, 1
_ABOUT = """# Mutants: do the tests notice?

Written by `python -m benchmarks.abuse.mutants`. [mutmut](https://mutmut.readthedocs.io) plants one small change at a time (`<` for `<=`, 1 for 0, an argument dropped, `None` for a value); the
room's own tests run, and the mutant is killed if one of them fails. Functions with a decorator are not mutated by it, and phantoms are left out: what they draw
is pinned as a whole by `tests/prepare/test_phantom_recipe.py`. A change of wording alone (the text of a message)
is left out; of the others a sample is drawn with a fixed seed, all where there are fewer.

```sh
python3 -m venv mutation && mutation/bin/pip install mutmut -r requirements.lock
python -m benchmarks.abuse.mutants --mutmut mutation/bin/mutmut --output docs/benchmarks/abuse/mutants.md
```

A survivor is explained in one of these ways. *Equivalent*: no input can tell. *Rounding*: a difference below any that matters. *Tie*: at one exact value, where either answer is right.
*Speed*: only time or memory change. *Defence*: checked again by what is called next. *Taste*: a number that was chosen and promises nothing.
"""
_CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/lungshift/{room}/*"]
pytest_add_cli_args_test_selection = ["tests/{room}"]
do_not_mutate = ["*/phantom*"]
pytest_add_cli_args = ["-p", "no:xdist", "--ignore-glob=*phantom*"]
use_git_change_detection = false
timeout_constant = 20.0
"""
_WORDS = {0: "survived", 1: "killed", 3: "killed", 33: "no test", 34: "skipped", 36: "too slow, so noticed"}
_HEAD = "| where | change | why it lives |\n|---|---|---|"
_OPEN, _LATE = "**not explained yet**", "## Not run yet\n\n"


@dataclass(frozen=True)
class Ran:
    """The mutants of a room.

    Attributes:
        room: Which.
        planted: All mutants.
        worded: Those of wording alone.
        ended: How those of the sample ended.
        survivors: Where and what, of those that no test noticed.
        cpu_s: What it cost.
    """

    room: str
    planted: int
    worded: int
    ended: Counter[str]
    survivors: list[tuple[str, str]]
    cpu_s: float


def main() -> None:
    """Plant, test, print, write the page."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.abuse.mutants", description=__doc__)
    words.add_argument(
        "--mutmut", type=Path, required=True, help="the command mutmut of an environment that can run the tests"
    )
    words.add_argument(
        "--rooms", nargs="*", choices=ROOMS, default=ROOMS, help="these rooms; the page keeps the others"
    )
    words.add_argument("--sample", type=int, default=SAMPLE, help="mutants of each room")
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    os.environ.update(ONE_THREAD)
    from benchmarks.report import describe_machine

    parts, reasons = _parts_of(asked.output)
    for room in asked.rooms:
        start = describe_machine()
        with tempfile.TemporaryDirectory() as scratch:
            ran = _run(room, Path(scratch), asked.mutmut.absolute(), asked.sample)
        parts[room] = _section(ran, reasons, asked.sample, start, describe_machine())
        print(parts[room], flush=True)
    missing = [f"`{room}`" for room in ROOMS if room not in parts]
    late = [f"{_LATE}{', '.join(missing)}.", ""] if missing else []
    text = "\n".join([_ABOUT, *(parts[room] for room in ROOMS if room in parts), *late])
    if asked.output:
        asked.output.write_text(text)
    sys.exit(_OPEN in text or bool(missing))


def _run(room: str, work: Path, mutmut: Path, sample: int) -> Ran:
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    (work / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + _CONFIG.format(room=room))
    before = os.times()
    _mutmut(mutmut, work, "nothing.is.called.this")  # plants, and learns which tests run which function
    planted = _planted(work, room)
    chosen = [name for name, change in planted.items() if change]
    if len(chosen) > sample:
        chosen = random.Random(SEED).sample(chosen, sample)
    _mutmut(mutmut, work, *chosen)
    after = os.times()
    codes = _codes(work, room)
    if any(codes[name] is None for name in chosen):
        sys.exit(f"mutmut gave up on {room}:\n{(work / 'log.txt').read_text()[-3000:]}")
    ended = {name: _WORDS.get(codes[name], f"ended with {codes[name]}, so noticed") for name in chosen}
    lives = [(_where(name), str(planted[name])) for name in sorted(chosen) if ended[name] in ("survived", "no test")]
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Ran(
        room, len(planted), sum(not change for change in planted.values()), Counter(ended.values()), lives, cpu_s
    )


def _mutmut(mutmut: Path, work: Path, *names: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (work / "log.txt").open("a") as log:
        command = [mutmut, "run", "--max-children", "1", *names]
        subprocess.run(command, cwd=work, env=clean, stdout=log, stderr=subprocess.STDOUT, check=False)
    if not (work / "mutants").is_dir():
        sys.exit((work / "log.txt").read_text()[-3000:])


def _codes(work: Path, room: str) -> dict[str, Any]:
    codes: dict[str, Any] = {}
    for meta in (work / "mutants" / "src" / "lungshift" / room).glob("*.meta"):
        codes |= json.loads(meta.read_text())["exit_code_by_key"]
    return codes


def _planted(work: Path, room: str) -> dict[str, str]:
    """Every mutant with its change in words, empty for one of wording alone."""
    changes: dict[str, str] = {}
    for file in sorted((work / "mutants" / "src" / "lungshift" / room).glob("*.py")):
        tree = ast.parse(file.read_text())
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for name, node in functions.items():
            stem, found, number = name.rpartition("__mutmut_")
            if found and number.isdigit():
                original = functions[f"{stem}__mutmut_orig"]
                changes[f"lungshift.{room}.{file.stem}.{name}"] = _change(original, node)
    codes = _codes(work, room)
    return {name: change for name, change in changes.items() if name in codes}


def _change(original: ast.FunctionDef, mutant: ast.FunctionDef) -> str:
    if ast.dump(_Unworded().visit(ast.parse(ast.unparse(original.body)))) == ast.dump(
        _Unworded().visit(ast.parse(ast.unparse(mutant.body)))
    ) and ast.dump(original.args) == ast.dump(mutant.args):
        return ""
    before, after = (ast.unparse(node).splitlines()[len(node.decorator_list) :] for node in (original, mutant))
    before[0], after[0] = (lines[0].partition("(")[2] for lines in (before, after))
    for one, other in zip(before, after, strict=False):
        if one != other:
            return _shortened(one.strip(), other.strip())
    return "lines are gone"


def _shortened(one: str, other: str) -> str:
    """The place where two lines differ, with a little on both sides."""
    start = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    end = next((n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), 0)
    end = min(end, min(len(one), len(other)) - start)
    low = max(start - 40, 0)
    parts = [line[low : len(line) - end + 24].strip() for line in (one, other)]
    return " → ".join(f"`{part.replace('|', chr(0x2223))}`" for part in parts)


class _Unworded(ast.NodeTransformer):
    """Takes the text out: of messages that are raised, and of strings that have words."""

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Without what the error says."""
        if isinstance(node.exc, ast.Call):
            node.exc.args = []
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Without words."""
        return ast.Constant("") if isinstance(node.value, str) and " " in node.value.strip() else node


def _where(name: str) -> str:
    """``geometry.Geometry.difference`` of mutmut's name."""
    _, _, module, function = name.split(".", 3)
    function = re.sub(r"__mutmut_\d+$", "", function)
    function = function.removeprefix("xǁ").replace("ǁ", ".") if "ǁ" in function else function.removeprefix("x_")
    return f"{module}.{function}"


def _section(
    ran: Ran, reasons: dict[tuple[str, str], str], sample: int, start: dict[str, Any], end: dict[str, Any]
) -> str:
    tested = sum(ran.ended.values())
    killed = tested - len(ran.survivors)
    drawn = f"a sample of {tested}" if ran.planted - ran.worded > sample else f"all {tested} others"
    ended = ", ".join(f"{count} {word}" for word, count in sorted(ran.ended.items()))
    rows = [f"| `{where}` | {change} | {reasons.get((where, change), _OPEN)} |" for where, change in ran.survivors]
    return "\n".join(
        [
            f"## `{ran.room}`",
            "",
            f"{ran.planted} mutants, {ran.worded} of wording alone; of {drawn} **{100 * killed / max(tested, 1):.1f} % are killed** ({ended}). {ran.cpu_s:.0f} CPU seconds, "
            f"load (1, 5, 15 minutes) {start['load']} at the start and {end['load']} at the end, {start['processor']}.",
            "",
            *([_HEAD, *rows, ""] if rows else ["No survivor.", ""]),
        ]
    )


def _parts_of(page: Path | None) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """The sections of an earlier page by room, and why its survivors live."""
    text = page.read_text().partition(_LATE)[0] if page and page.exists() else ""
    sections = re.split(r"^## `(\w+)`\n", text, flags=re.MULTILINE)[1:]
    parts = {room: f"## `{room}`\n{body}" for room, body in zip(sections[::2], sections[1::2], strict=True)}
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    return parts, {(where, change): why for where, change, why in rows if why != _OPEN}


if __name__ == "__main__":
    main()
