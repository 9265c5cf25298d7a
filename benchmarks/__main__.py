"""Run all benchmarks, or those that are named, and write their page."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.turns import ONE_THREAD

_BESIDE = Path(__file__).parents[2] / "shared" / "data"
_PARTS = ("ceilings", "preparing", "training", "memory", "starting", "loading", "predicting")


def main() -> None:
    """Measure, print as it comes, and write the page in the end."""
    words = _words()
    os.environ.update(ONE_THREAD)
    from benchmarks.ceilings import measure_ceilings
    from benchmarks.loading import measure_loading
    from benchmarks.memory import measure_memory
    from benchmarks.predicting import measure_predicting
    from benchmarks.preparing import measure_preparing
    from benchmarks.report import describe_machine, table, write_report
    from benchmarks.setup import Setup
    from benchmarks.starting import measure_starting
    from benchmarks.training import measure_training

    measures = {
        "ceilings": ("Ceilings of this machine, one thread", measure_ceilings),
        "preparing": ("Preparing a cohort", measure_preparing),
        "training": ("A training step", measure_training),
        "memory": ("Memory", measure_memory),
        "starting": ("Starting", measure_starting),
        "loading": ("Loading and predicting", measure_loading),
        "predicting": ("From a scan's file to a mask's file", measure_predicting),
    }
    start, parts = describe_machine(), {}
    with tempfile.TemporaryDirectory(prefix="lungshift-benchmarks-") as folder:
        setup = Setup(
            Path(folder), words.data, words.keras, words.skimage, 1 if words.quick else words.rounds, words.quick
        )
        for name in words.only:
            title, measure = measures[name]
            parts[title] = measure(setup)
            print(f"\n## {title}\n\n{table(parts[title])}", flush=True)
    if words.output:
        write_report(parts, start, _command(words), words.output)


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, help="page to write (.md); a .json of the same name goes beside it")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS, help="which parts")
    parser.add_argument("--data", type=Path, default=_BESIDE, help="folder with the real cohorts, if there are any")
    parser.add_argument("--keras", metavar="PYTHON", help="python of an environment with keras and tensorflow")
    parser.add_argument("--skimage", metavar="PYTHON", help="python of an environment with nibabel and scikit-image")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant; the best counts")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: see that everything runs, believe no number")
    return parser.parse_args()


def _command(words: argparse.Namespace) -> str:
    """The command of this run without the paths of this machine."""
    said = ["python -m benchmarks"]
    said += [f"--{name} PYTHON" for name in ("keras", "skimage") if getattr(words, name)]
    said += ["--only " + " ".join(words.only)] if tuple(words.only) != _PARTS else []
    said += ["--quick"] if words.quick else [f"--rounds {words.rounds}"]
    return " ".join(said)


if __name__ == "__main__":
    main()
