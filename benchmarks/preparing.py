"""Preparing a cohort against inflating its files alone, and against the usual ways of doing the same work."""

from __future__ import annotations

from pathlib import Path

from benchmarks.inputs import case_files, count_slices
from benchmarks.result import Result
from benchmarks.turns import Contestant, all_of, take_turns

_M = "benchmarks.contest_prepare:"


def measure_preparing(setup) -> list[Result]:
    """Three ratios for every cohort, the slow rivals on its first case only."""
    cohorts = {"phantom, 512² int16 to 320²": setup.phantom}
    cohorts |= {f"{name}, 320² uint8": folder for name, folder in setup.real().items()}
    return [result for name, folder in cohorts.items() for result in _measure(setup, name, folder)]


def _measure(setup, name: str, folder: Path) -> list[Result]:
    files, slices = case_files(folder), count_slices(folder)
    shared = {"output": str(setup.folder), "size": setup.size}
    contestants = {
        "ours": Contestant(_M + "lungshift", cohort=str(folder), **shared),
        "isal": Contestant(_M + "isal", cases=files),
        "write": Contestant(_M + "plain_write", slices=slices, **shared),
    }
    with all_of(*contestants.values()):
        cpu = {n: seconds / slices for n, seconds in take_turns(contestants, setup.rounds).items()}
    note = f"{slices} slices; {1e3 * cpu['ours']:.2f} ms a slice against {1e3 * cpu['isal']:.2f}"
    floor = cpu["isal"] + cpu["write"]
    return [
        Result(f"prepare / inflate alone ({name})", cpu["ours"] / cpu["isal"], goal=1.7, note=note),
        Result(
            f"prepare / inflate and write as many bytes ({name})",
            cpu["ours"] / floor,
            note=f"{1e3 * cpu['write']:.2f} ms a slice to write",
        ),
        _rival(setup, "SimpleITK + numpy", "simpleitk", name, files[:2], shared, cpu["ours"], 3, None),
        _rival(setup, "get_fdata + scikit-image", "nibabel", name, files[:1], shared, cpu["ours"], 20, setup.skimage),
    ]


def _rival(
    setup, title: str, function: str, name: str, files: list, shared: dict, ours: float, goal: float, python: str | None
) -> Result:
    what = f"{title} / prepare ({name})"
    if function == "nibabel" and python is None:
        return Result(what, None, goal=goal, sense="at least", note="no environment with scikit-image")
    slices = sum(_slices(case["volume"]) for case in files)
    options = {"python": python} if python else {}
    with Contestant(_M + function, **options, cases=files, **shared) as rival:
        cpu = min(rival.turn().cpu_s for _ in range(min(2, setup.rounds))) / slices
    note = f"{1e3 * cpu:.2f} ms a slice, on {slices} slices of {len(files)} case(s), per slice"
    return Result(what, cpu / ours, goal=goal, sense="at least", note=note)


def _slices(path: str) -> int:
    import nibabel as nib

    return nib.load(path).shape[2]
