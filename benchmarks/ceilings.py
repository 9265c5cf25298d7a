"""What this machine can do at most at one thread, measured in the same run: everything else is to be held against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.inputs import case_files
from benchmarks.result import Result
from benchmarks.setup import Setup
from benchmarks.turns import Contestant

_SIDE, _TIMES = 2048, 4


def measure_ceilings(setup: Setup) -> list[Result]:
    """Memory, inflating, arithmetic in two formats, disk."""
    files = case_files(setup.phantom)
    inflated = sum(_inflated_bytes(Path(path)) for case in files for path in case.values())
    flops = 2 * _SIDE**3 * _TIMES
    return [
        Result("copy memory", _rate(256 * 2**20, "machine:memcpy", mib=256) / 1e9, "GB/s", note="256 MiB, no cache"),
        Result("inflate with isal", _rate(inflated, "prepare:isal", cases=files) / 1e6, "MB/s", note="phantom, 512²"),
        Result("multiply matrices, fp32", _rate(flops, "train:matmul", kind="float32") / 1e9, "GFLOP/s", note="2048²"),
        Result("multiply matrices, bf16", _rate(flops, "train:matmul", kind="bfloat16") / 1e9, "GFLOP/s", note="2048²"),
        Result("write and fsync", _disk(str(setup.folder)), "MB/s", note="128 MiB, by the clock on the wall"),
    ]


def _rate(work: float, name: str, **settings: Any) -> float:
    with Contestant(f"benchmarks.contest_{name}", **settings) as contestant:
        return work / min(contestant.turn().cpu_s for _ in range(5))


def _disk(folder: str) -> float:
    with Contestant("benchmarks.contest_machine:disk_write", output=folder) as contestant:
        seconds = min(float(contestant.turn().answer) for _ in range(3))
    return 128 * 2**20 / seconds / 1e6


def _inflated_bytes(path: Path) -> int:
    import nibabel as nib
    import numpy as np

    image = nib.load(path)
    return int(np.prod(image.shape) * image.get_data_dtype().itemsize)
