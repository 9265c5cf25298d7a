"""How much of the code do the tests run, by line and by branch, room by room?

    python -m benchmarks.abuse.coverage --output docs/benchmarks/abuse/coverage.md

Tests run as ``scripts/check`` runs them, a room at a time in a process of its own, one thread; processes that they start are counted too. ``--work`` keeps what was
collected, so that ``--only`` can run some rooms again. Exits with 1 below the goal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.turns import ONE_THREAD

ROOT = Path(__file__).parents[2]
GOAL = 95.0
_OUTSIDE = "outside of rooms"
_ABOUT = """# Lines and branches that the tests run

Written by `python -m benchmarks.abuse.coverage`: the tests of `scripts/check`, a room at a time in a process of its own, on one thread, with
[coverage.py](https://coverage.readthedocs.io) by line and by branch over `src/lungshift`; processes that tests start are counted too. Processes that end by a signal, as a killed one does, tell nothing.
`if TYPE_CHECKING:` and `@overload` are not code that runs. Both together means lines and branches in one share, which the goal of 95 % is about.

```sh
python -m benchmarks.abuse.coverage --output docs/benchmarks/abuse/coverage.md    # all
coverage run --branch -m pytest tests/measure && coverage report -m                # one room, by hand, with the lines that are missed
```
"""
_CONFIG = """[run]
branch = true
parallel = true
source_pkgs = lungshift
data_file = {data}
patch = subprocess
disable_warnings = no-sysmon, couldnt-parse, no-data-collected

[paths]
source =
    src/lungshift
    */src/lungshift

[report]
exclude_also =
    if TYPE_CHECKING:
    @overload
"""


@dataclass
class Share:
    """What was run of some code."""

    statements: int = 0
    missed: int = 0
    branches: int = 0
    branches_missed: int = 0

    def add(self, summary: dict[str, Any]) -> None:
        """Add a file."""
        self.statements += summary["num_statements"]
        self.missed += summary["missing_lines"]
        self.branches += summary["num_branches"]
        self.branches_missed += summary["missing_branches"]

    @property
    def percent(self) -> float:
        """Lines and branches together."""
        return 100 - 100 * (self.missed + self.branches_missed) / max(self.statements + self.branches, 1)

    def as_cells(self) -> str:
        """Cells of a table."""
        lines = 100 - 100 * self.missed / max(self.statements, 1)
        branches = 100 - 100 * self.branches_missed / max(self.branches, 1)
        return f"{self.statements} | {lines:.1f} % | {self.branches} | {branches:.1f} % | {self.percent:.1f} %"


def main() -> None:
    """Run the tests, combine, print, write the page."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.abuse.coverage", description=__doc__)
    words.add_argument("--only", nargs="*", help="rooms to run; the data of others is kept in --work")
    words.add_argument("--work", type=Path, help="where data is kept")
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    from benchmarks.report import describe_machine

    start = describe_machine()
    with tempfile.TemporaryDirectory() as scratch:
        work = (asked.work or Path(scratch)).resolve()
        for room in _rooms() if asked.only is None else asked.only:
            _run(room, work / room)
        told = {
            room: json.loads(file.read_text()) for room in _rooms() if (file := work / room / "told.json").is_file()
        }
        files = _combine(work, list(told))
    missing = [room for room in _rooms() if room not in told]
    whole, rooms = _sum(files)
    text = "\n".join(
        [_ABOUT, *_tables(whole, rooms, files, missing), "", *_ran(told), "", _machine(start, describe_machine()), ""]
    )
    print(text)
    if asked.output:
        asked.output.write_text(text)
    sys.exit(whole.percent < GOAL or bool(missing) or any(one["failed"] for one in told.values()))


def _rooms() -> list[str]:
    rooms = sorted(path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py")))
    return [*rooms, "top"]


def _run(room: str, work: Path) -> None:
    """The tests of a room, with what they cost and how they ended."""
    for old in work.glob(".coverage*"):
        old.unlink()
    work.mkdir(parents=True, exist_ok=True)
    config = work / "rc"
    config.write_text(_CONFIG.format(data=work / ".coverage"))
    tests = sorted(map(str, (ROOT / "tests").glob("test_*.py"))) if room == "top" else [str(ROOT / "tests" / room)]
    before = os.times()
    ran = subprocess.run(
        [sys.executable, "-m", "coverage", "run", f"--rcfile={config}", "-m", "pytest", "--no-header", *tests],
        cwd=ROOT,
        env=os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    print(ran.stdout[-3000:], ran.stderr[-2000:], file=sys.stderr)
    tail = [line for line in ran.stdout.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
    told = {"said": re.sub(r" in [\d.]+s.*", "", tail[-1]) if tail else "no answer", "cpu_s": cpu_s}
    (work / "told.json").write_text(json.dumps(told | {"failed": ran.returncode != 0}))


def _combine(work: Path, ran: list[str]) -> dict[str, Any]:
    """What every file's tests ran, of all rooms together."""
    config, data = work / "rc", sorted(str(one) for room in ran for one in (work / room).glob(".coverage*"))
    config.write_text(_CONFIG.format(data=work / ".coverage"))
    for command in (["combine", "--keep", *data], ["json", "-o", str(work / "all.json")]):
        name, *rest = command
        subprocess.run(
            [sys.executable, "-m", "coverage", name, f"--rcfile={config}", "-q", *rest], cwd=ROOT, check=True
        )
    files: dict[str, Any] = json.loads((work / "all.json").read_text())["files"]
    return {name.split("src/lungshift/")[-1]: one for name, one in sorted(files.items())}


def _sum(files: dict[str, Any]) -> tuple[Share, dict[str, Share]]:
    whole, rooms = Share(), defaultdict(Share)
    for name, one in files.items():
        room = name.split("/")[0] if "/" in name else _OUTSIDE
        for share in (whole, rooms[room]):
            share.add(one["summary"])
    return whole, dict(rooms)


def _tables(whole: Share, rooms: dict[str, Share], files: dict[str, Any], missing: list[str]) -> list[str]:
    head = "| room | statements | run | branches | run | both together |\n|---|---|---|---|---|---|"
    below = []
    for name, one in files.items():
        share = Share()
        share.add(one["summary"])
        if share.percent < GOAL:
            lines = ", ".join(map(str, one["missing_lines"][:12])) + ("…" if len(one["missing_lines"]) > 12 else "")
            below.append(f"| `{name}` | {share.percent:.1f} % | {lines} |")
    rows = [f"| `{room}` | {share.as_cells()} |" for room, share in sorted(rooms.items())]
    verdict = "reached" if whole.percent >= GOAL else "**missed**"
    if missing:
        verdict = f"**open**: the tests of {', '.join(f'`{room}`' for room in missing)} were not run, and what only they run counts as not run"
    return [
        head,
        *rows,
        f"| **all** | {whole.as_cells()} |",
        "",
        f"The goal of {GOAL:g} % is {verdict}.",
        "",
        *(
            ["Files below it:", "", "| file | both together | lines not run |", "|---|---|---|", *below]
            if below
            else []
        ),
    ]


def _ran(told: dict[str, Any]) -> list[str]:
    rows = [f"| `{room}` | {one['said']} | {one['cpu_s']:.0f} |" for room, one in told.items()]
    total = sum(one["cpu_s"] for one in told.values())
    return ["| tests of | ended | CPU seconds |", "|---|---|---|", *rows, f"| all | | {total:.0f} |"]


def _machine(start: dict[str, Any], end: dict[str, Any]) -> str:
    return (
        f"{start['processor']}, {start['cores']} cores, load (1, 5, 15 minutes) {start['load']} at the start and {end['load']} at the end; "
        f"Python {start['python']}."
    )


if __name__ == "__main__":
    main()
