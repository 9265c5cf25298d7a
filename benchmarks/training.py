"""A training step against the arithmetic that the machine can do, and against the source paper's stack."""

from __future__ import annotations

from typing import Any

from benchmarks.result import Result
from benchmarks.setup import Setup
from benchmarks.turns import Contestant, all_of, take_turns

_M = "benchmarks.contest_train:"
_MATMUL_FLOPS = 2 * 2048**3 * 4


def measure_training(setup: Setup) -> list[Result]:
    """Share of the bf16 peak, speed over Keras, and what keeping freed memory brings, all in turns."""
    width, micro_batch = (4, 2) if setup.quick else (32, 5)
    step: dict[str, Any] = {"width": width, "size": setup.size, "micro_batch": micro_batch}
    contestants = {
        "peak": Contestant(_M + "matmul", kind="bfloat16"),
        "ours": Contestant(_M + "lungshift", **step),
        "returned": Contestant(_M + "lungshift", keep_memory=False, **step),
    }
    if setup.keras:
        contestants["keras"] = Contestant(_M + "keras", python=setup.keras, **step)
    with all_of(*contestants.values()):
        cpu = take_turns(contestants, min(2, setup.rounds))
    flops, peak = micro_batch * step_flops(width, setup.size), _MATMUL_FLOPS / cpu["peak"]
    rate = flops / cpu["ours"]
    note = f"width {width}, {micro_batch} slices: {flops / 1e9:.0f} GFLOP at {rate / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s (oneDNN matrix product, 2048²)"
    keras = "same network, batch and optimiser" if setup.keras else "no Keras environment; name one with --keras"
    return [
        Result("training step, share of the bf16 peak", rate / peak, "", 0.6, "at least", note),
        Result(
            "Keras fp32 step / ours",
            cpu["keras"] / cpu["ours"] if setup.keras else None,
            goal=1.8,
            sense="at least",
            note=keras,
        ),
        Result(
            "step with freed memory given back / kept",
            cpu["returned"] / cpu["ours"],
            note="what lungshift.memory.keep_freed_memory brings",
        ),
    ]


def step_flops(width: int, size: int, channels: int = 2, levels: int = 4) -> float:
    """Multiplications and additions of a training step of one slice, in its convolutions.

    Forward once, and backward once for the weights and once for the input, which the first convolution does not need.
    """
    pixels = [size * size >> 2 * level for level in range(levels + 1)]
    widths = [width << level for level in range(levels + 1)]
    first = 9 * channels * width * pixels[0]
    down = sum(9 * b * a * p for b, a, p in zip(widths, widths[1:], pixels[1:], strict=False))
    down += sum(9 * w * w * p for w, p in zip(widths, pixels, strict=True))
    up = sum((4 * 2 * w * w // 4 + 9 * 2 * w * w + 9 * w * w) * p for w, p in zip(widths[:-1], pixels, strict=False))
    return 2 * (2 * first + 3 * (down + up + width * pixels[0]))
