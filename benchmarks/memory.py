"""Highest memory: preparing short and long scans, and training's exact batch of 45."""

from __future__ import annotations

from benchmarks.result import Result
from benchmarks.setup import Setup
from benchmarks.turns import Contestant

_PREPARE, _BATCH = "benchmarks.contest_prepare:lungshift", "benchmarks.contest_train:whole_batch"


def measure_memory(setup: Setup) -> list[Result]:
    """Resident memory of processes that do nothing else."""
    return [_prepare(setup), *_batches(setup)]


def _prepare(setup: Setup) -> Result:
    peaks = {}
    for slices, folder in setup.phantoms_short_and_long.items():
        with Contestant(_PREPARE, cohort=str(folder), output=str(setup.folder), size=setup.size) as contestant:
            peaks[slices] = contestant.turn().peak_mib
    (few, low), (many, high) = peaks.items()
    note = f"{low:.0f} MiB with {few} slices of 512², {high:.0f} MiB with {many}; flat is 1"
    return Result(f"memory to prepare {many} slices / {few}", high / low, goal=1.1, note=note)


def _batches(setup: Setup) -> list[Result]:
    from lungshift.transfer.protocol import read_protocol

    micro = 2 if setup.quick else read_protocol("paper").training.micro_batch
    widths = {4: 1, 8: 2} if setup.quick else {16: 1, 64: 2}
    results = []
    for width, goal in widths.items():
        parts = 2 if width > 16 or setup.quick else 45 // micro
        results.append(_batch(setup, width, micro, parts, goal))
    return results


def _batch(setup: Setup, width: int, micro_batch: int, parts: int, goal: float) -> Result:
    with Contestant(_BATCH, prepared=str(setup.prepared), width=width, micro_batch=micro_batch, parts=parts) as one:
        start, peak = one.start_mib, one.turn().peak_mib
    shown = "all 45 slices" if parts > 2 else f"{parts} micro-batches a step; the others of the 45 have the same size"
    note = f"micro_batch {micro_batch}; {peak - start:.0f} MiB above imports; two steps with validation; {shown}"
    return Result(f"memory of the exact batch of 45, width {width}", peak / 1024, "GiB", goal, note=note)
