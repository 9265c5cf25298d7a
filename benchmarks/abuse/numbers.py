"""Are the numbers right? Metrics beside closed forms and other libraries, places of masks beside other readers, engines beside each other.

    python -m benchmarks.abuse.numbers --rival PYTHON --data FOLDER --output docs/benchmarks/abuse/numbers.md

``--rival`` names a Python of its own that has SimpleITK, surface-distance, nibabel and highdicom (and a NumPy below 2, for surface-distance's sake); ``--data``
a folder with both published cohorts. Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.turns import ONE_THREAD

_PARTS = ("Closed forms", "Random pairs", "Places", "Engines and threads")
_MACHINE = "Measured on "
_RIVALS = ("numpy", "SimpleITK", "surface-distance", "nibabel", "highdicom")
_ABOUT = """# Numbers that are proven

Written by `python -m benchmarks.abuse.numbers`, which exits with 1 if a goal is missed. What is judged: the metrics of `lungshift.measure`, the places of masks
that `predict` writes, and the engines that compute a network. The rivals run in an environment of their own and share no code with lungshift:

```sh
python3 -m venv rivals && rivals/bin/pip install surface-distance SimpleITK nibabel highdicom 'numpy<2'
python -m benchmarks.abuse.numbers --rival rivals/bin/python --data data --output docs/benchmarks/abuse/numbers.md
```
"""
_FORMS = """Balls of 14 and 20 mm and boxes on grids of 1 x 1 x 1, 2.5 x 0.7 x 0.7 and 5 x 1 x 0.5 mm. A value is right if it lies between those of shapes that are a voxel
smaller and a voxel larger (volumes of balls: half a voxel; volumes and Dice of boxes and distances of moved boxes: exactly).
"""
_PAIRS = """500 pairs on random anisotropic grids: blobs, specks, boxes at the edge of the scan and ellipsoids; beside them the same moved, grown, shrunk or sprinkled, or something else
altogether; 20 pairs with both empty and 40 with one empty. The tolerance of surface Dice is 0, a voxel's size, or up to 6 mm.
"""
_PLACES = """200 patients at random places with random voxel sizes, each stored in the next of all 48 orders and directions of axes: as NIfTI with sform, qform or both, and as a DICOM
series in shuffled files. The lung mask is given in yet another order. A model of fixed weights calls lesion what is dense in the lungs, and the only dense patch
lies in the left lung. What it must say is computed once in memory on the patient's canonical array; what `predict` wrote is read by the others. Oblique and sheared scans (200 more)
are turned by 1 to 25 degrees about any axis, or sheared by 2 to 20.
"""
_ENGINES = """Networks of width 8 with batch norm, frames around the lungs and pictures of 160 pixels, trained for six short epochs on the first cohort of each two, predict every third slice
with lung. All are compared with OpenVINO on one thread, in fp32.
"""


def main() -> None:
    """Measure, print, write the page."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.abuse.numbers", description=__doc__)
    words.add_argument(
        "--rival", type=Path, required=True, help="a Python with SimpleITK, surface-distance, nibabel, highdicom"
    )
    words.add_argument("--data", type=Path, help="folder with medseg9 and coronacases10")
    words.add_argument(
        "--only", nargs="*", choices=_PARTS, default=_PARTS, help="measure these parts; the page keeps the others"
    )
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    os.environ.update(ONE_THREAD)
    from benchmarks.report import describe_machine
    from benchmarks.result import short_table

    start, reached, parts = describe_machine(), True, _parts_of(asked.output)
    with tempfile.TemporaryDirectory() as scratch:
        for title in asked.only:
            about, measure = _part(title, asked, Path(scratch))
            began = _cpu_seconds()
            goals, told = measure()
            reached &= all(goal.reached for goal in goals)
            load = f"load (1, 5, 15 minutes) {start['load']} at the start and {describe_machine()['load']} at the end"
            spent = f"{_cpu_seconds() - began:.0f} CPU seconds, {load}."
            parts[title] = "\n".join([about, short_table(goals), "", *(f"{one}\n" for one in told), spent, ""])
            print(f"## {title}\n\n{parts[title]}", flush=True)
    if asked.output:
        whole = (f"## {title}\n\n{parts[title]}" for title in _PARTS if title in parts)
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text("\n".join([_ABOUT, *whole, _machine(start, asked.rival)]))
    sys.exit(not reached)


def _parts_of(page: Path | None) -> dict[str, str]:
    """The parts of an earlier page by title."""
    text = page.read_text().rpartition(_MACHINE)[0] if page and page.exists() else ""
    return {title: part.strip() + "\n" for title, _, part in (one.partition("\n") for one in text.split("\n## ")[1:])}


def _part(title: str, asked: argparse.Namespace, scratch: Path) -> tuple[str, Callable[[], Any]]:
    """What is said of a part, and what measures it: goals, and what is told but not judged."""
    from benchmarks.abuse.numbers_affines import measure_affines
    from benchmarks.abuse.numbers_engines import measure_engines
    from benchmarks.abuse.numbers_metrics import against_rivals, closed_forms

    return {
        "Closed forms": (_FORMS, lambda: (closed_forms(), [])),
        "Random pairs": (_PAIRS, lambda: against_rivals(asked.rival)),
        "Places": (_PLACES, lambda: (measure_affines(asked.rival, scratch), [])),
        "Engines and threads": (_ENGINES, lambda: measure_engines(scratch, asked.data)),
    }[title]


def _cpu_seconds() -> float:
    """Of this process and of the rivals that ended."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def _machine(start: dict[str, Any], rival: Path) -> str:
    code = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {_RIVALS!r}))"
    rivals = subprocess.run([rival, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    ours = ", ".join(f"{name} {version}" for name, version in start["versions"].items())
    return f"{_MACHINE}{start['processor']}, one thread unless said otherwise; Python {start['python']}, {ours}. Rivals: {rivals}.\n"


if __name__ == "__main__":
    main()
