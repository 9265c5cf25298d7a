"""Preparing a cohort against inflating its files alone, and against the usual ways of doing the same work."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.inputs import case_files, count_slices
from benchmarks.result import Result
from benchmarks.setup import Setup
from benchmarks.turns import Contestant, all_of, take_turns

_M = "benchmarks.contest_prepare:"


@dataclass(frozen=True)
class Rival:
    """Another way to do the work: its goal, and on how many cases it is measured."""

    title: str
    function: str
    goal: float
    cases: int


_RIVALS = (Rival("SimpleITK + numpy", "simpleitk", 3, 2), Rival("get_fdata + scikit-image", "nibabel", 20, 1))


def measure_preparing(setup: Setup) -> list[Result]:
    """Three ratios for every cohort, the slow rivals on its first case only."""
    cohorts = {"phantom, 512² int16 to 320²": setup.phantom}
    cohorts |= {f"{name}, 320² uint8": folder for name, folder in setup.real().items()}
    return [result for name, folder in cohorts.items() for result in _measure(setup, name, folder)]


def _measure(setup: Setup, name: str, folder: Path) -> list[Result]:
    files, slices = case_files(folder), count_slices(folder)
    shared: dict[str, Any] = {"output": str(setup.folder), "size": setup.size}
    contestants = {
        "ours": Contestant(_M + "lungshift", cohort=str(folder), **shared),
        "isal": Contestant(_M + "isal", cases=files),
        "write": Contestant(_M + "plain_write", slices=slices, **shared),
    }
    with all_of(*contestants.values()):
        cpu = {n: seconds / slices for n, seconds in take_turns(contestants, setup.rounds).items()}
    ours = 1e3 * cpu["ours"]
    return [
        Result(
            f"prepare / inflate alone ({name})",
            cpu["ours"] / cpu["isal"],
            goal=1.7,
            note=f"{slices} slices; {ours:.2f} ms a slice against {1e3 * cpu['isal']:.2f}",
        ),
        Result(
            f"prepare / inflate, and write as many bytes ({name})",
            cpu["ours"] / (cpu["isal"] + cpu["write"]),
            note=f"{1e3 * cpu['write']:.2f} ms a slice to write",
        ),
        *(_rival(setup, rival, name, folder, files) for rival in _RIVALS),
    ]


def _rival(setup: Setup, rival: Rival, name: str, folder: Path, files: list[dict[str, str]]) -> Result:
    what = f"{rival.title} / prepare ({name})"
    python = setup.skimage if rival.function == "nibabel" else sys.executable
    if python is None:
        return Result(what, None, goal=rival.goal, sense="at least", note="no environment; name one with --skimage")
    some = files[: rival.cases]
    slices = sum(_slices(case["volume"]) for case in some)
    settings: dict[str, Any] = {"output": str(setup.folder), "size": setup.size}
    contestants = {
        "ours": Contestant(_M + "lungshift", cohort=str(folder), first=rival.cases, **settings),
        "rival": Contestant(_M + rival.function, python=python, cases=some, **settings),
    }
    with all_of(*contestants.values()):
        cpu = {n: 1e3 * seconds / slices for n, seconds in take_turns(contestants, min(2, setup.rounds)).items()}
    note = (
        f"{cpu['rival']:.2f} ms a slice against {cpu['ours']:.2f}; {slices} slices, {len(some)} of {len(files)} cases"
    )
    return Result(what, cpu["rival"] / cpu["ours"], goal=rival.goal, sense="at least", note=note)


def _slices(path: str) -> int:
    import nibabel as nib

    return int(nib.load(path).shape[2])
