"""Do number formats and engines change masks? A trained model on prepared real cohorts, against OpenVINO in single precision.

    .venv/bin/python -m benchmarks.precision CHECKPOINT PREPARED [PREPARED ...] --output docs/benchmarks/precision.md

Every n-th slice with lung is predicted by each engine. int8 is measured where NNCF is installed, calibrated by its defaults on other slices of the
first cohort; lungshift itself does not have it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import ONE_THREAD

_HEAD = (
    "| cohort | engine | Dice, all pixels | Dice of the worst case | largest difference of a probability | CPU ms a slice |\n"
    "|---|---|---|---|---|---|"
)
_PRECISE = "OpenVINO fp32"


def main() -> None:
    """Predict, compare, print, and write the page."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    words.add_argument("checkpoint", type=Path)
    words.add_argument("prepared", type=Path, nargs="+")
    words.add_argument("--every", type=int, default=13, help="predict every n-th slice with lung")
    words.add_argument("--output", type=Path)
    asked = words.parse_args()
    os.environ.update(ONE_THREAD)
    from benchmarks.report import describe_machine

    machine = describe_machine()
    rows = [
        row for folder in asked.prepared for row in _compare(asked.checkpoint, folder, asked.prepared[0], asked.every)
    ]
    text = [
        "# Engines and number formats",
        "",
        "Written by `python -m benchmarks.precision`. Masks of one trained model (width 16, batch norm, frames around the lungs, mirrored slice "
        f"averaged in) on every {asked.every}th slice with lung of real cohorts, against the masks of OpenVINO in single precision. Cases where both "
        "are empty have no Dice.",
        "",
        _HEAD,
        *rows,
        "",
        f"{machine['date']}, {machine['processor']}, one thread, load (1, 5, 15 minutes) {machine['load']} at the start and "
        f"{describe_machine()['load']} at the end; {_versions(machine)}.",
        "",
    ]
    print("\n".join(text))
    if asked.output:
        asked.output.write_text("\n".join(text))


def _versions(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in machine["versions"].items())


@dataclass(frozen=True)
class _Answer:
    probability: np.ndarray
    cpu_ms: float


def _compare(model: Path, folder: Path, first: Path, every: int) -> list[str]:
    from lungshift.learn.checkpoint import load_checkpoint
    from lungshift.learn.pictures import SliceSet
    from lungshift.learn.prediction import decide
    from lungshift.prepare.prepared import open_prepared

    checkpoint, cohort = load_checkpoint(model), open_prepared(folder)
    rows = np.flatnonzero(cohort.table["lung"] > 0)[::every]
    answers = {
        name: _answer(start(), SliceSet.of(cohort, rows)) for name, start in _engines(checkpoint, first, every).items()
    }
    precise, lines = answers[_PRECISE], []
    masks, cases = decide(precise.probability, checkpoint.decision), cohort.table["case"][rows]
    for name, answer in answers.items():
        own = decide(answer.probability, checkpoint.decision)
        each = [_dice(masks[cases == case], own[cases == case]) for case in np.unique(cases)]
        apart = np.abs(answer.probability - precise.probability).max()
        same = f"{_dice(masks, own):.5f} | {np.nanmin(each):.5f} | {apart:.2g}"
        lines.append(f"| {cohort.name}, {len(rows)} slices | {name} | {same} | {answer.cpu_ms:.0f} |")
    return lines


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    either = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / either if either else float("nan")


def _answer(predictor: Any, slices: Any) -> _Answer:
    from lungshift.learn.prediction import predict_slices

    started = time.process_time()
    probability = np.concatenate([batch for _, batch in predict_slices(predictor, slices)])
    return _Answer(probability, 1e3 * (time.process_time() - started) / len(slices))


def _engines(checkpoint: Any, first: Path, every: int) -> dict[str, Callable[[], Any]]:
    """What is compared, each started when its turn comes."""
    from importlib.util import find_spec

    from lungshift.learn.engine_torch import TorchEngine
    from lungshift.learn.prediction import Predictor

    engines: dict[str, Callable[[], Any]] = {
        _PRECISE: lambda: Predictor.of(checkpoint, "cpu", "fp32"),
        "OpenVINO bf16, the default": lambda: Predictor.of(checkpoint, "cpu", "bf16"),
        "torch fp32": lambda: Predictor(checkpoint, TorchEngine.start(checkpoint, "cpu", "fp32")),
        "torch bf16": lambda: Predictor(checkpoint, TorchEngine.start(checkpoint, "cpu", "bf16")),
    }
    if find_spec("nncf"):
        engines["OpenVINO int8, by NNCF"] = lambda: Predictor(checkpoint, _Quantised(checkpoint, first, every))
    return engines


class _Quantised:
    """An engine in int8, calibrated on slices of a cohort that are not tested."""

    batch = 1

    def __init__(self, checkpoint: Any, prepared: Path, every: int) -> None:
        import nncf

        from lungshift.learn.engine_openvino import _openvino, build_model

        pictures = _pictures(checkpoint, prepared, every)
        model = build_model(checkpoint.network, checkpoint.weights)
        small = nncf.quantize(
            model, nncf.Dataset(pictures), subset_size=len(pictures), preset=nncf.QuantizationPreset.MIXED
        )
        settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "bf16"}
        self._request = _openvino().Core().compile_model(small, "CPU", settings).create_infer_request()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """As ``Engine.logits``."""
        answers = []
        for image in images:
            self._request.infer({0: np.ascontiguousarray(image[None])})
            answers.append(self._request.get_output_tensor(0).data[0, 0].copy())
        return np.stack(answers)

    def bottom(self, images: np.ndarray) -> np.ndarray:
        """Not compared."""
        raise NotImplementedError

    def describe(self) -> dict[str, str]:
        """As ``Engine.describe``."""
        return {"engine": "openvino", "precision": "int8"}


def _pictures(checkpoint: Any, prepared: Path, every: int) -> list[np.ndarray]:
    """What the network sees of slices that lie between those that are tested."""
    from lungshift.learn.pictures import SliceSet
    from lungshift.learn.prediction import Predictor, predict_slices
    from lungshift.prepare.prepared import open_prepared

    seen: list[np.ndarray] = []

    class Watching(_Quantised):
        def __init__(self) -> None:
            """Computes nothing."""

        def logits(self, images: np.ndarray) -> np.ndarray:
            seen.extend(image[None].copy() for image in images)
            return np.zeros((len(images), *images.shape[2:]), np.float32)

    cohort = open_prepared(prepared)
    alive = np.flatnonzero(cohort.table["lung"] > 0)
    rows = np.array([row for number, row in enumerate(alive) if number % every == every // 2])
    for _ in predict_slices(Predictor(checkpoint, Watching()), SliceSet.of(cohort, rows)):
        pass
    return seen


if __name__ == "__main__":
    main()
