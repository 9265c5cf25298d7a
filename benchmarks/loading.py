"""Prepared slices to batches, and batches to probabilities, per second and core."""

from __future__ import annotations

from typing import Any

from benchmarks.result import Result
from benchmarks.setup import Setup
from benchmarks.turns import Contestant

_M = "benchmarks.contest_train:"


def measure_loading(setup: Setup) -> list[Result]:
    """Slices per CPU second, at one thread."""
    slices = 20 if setup.quick else 200
    loader: dict[str, Any] = {"prepared": str(setup.prepared), "slices": slices}
    plain, changed = (
        slices / _best(setup, _M + "loading", augmented=augmented, **loader) for augmented in (False, True)
    )
    width = 4 if setup.quick else 16
    predicted = 8 / _best(setup, _M + "inference", width=width, size=setup.size)
    unit, note = "slices/s", "random slices of 320², 2 channels, in the page cache"
    return [
        Result("load prepared slices", plain, unit, 300, "at least", note),
        Result("load and augment", changed, unit, note="all of the default augmentation"),
        Result(f"predict, width {width}", predicted, unit, note="whole slices of 320², bf16, batches of 8"),
    ]


def _best(setup: Setup, name: str, **settings: Any) -> float:
    with Contestant(name, **settings) as contestant:
        return min(contestant.turn().cpu_s for _ in range(setup.rounds))
