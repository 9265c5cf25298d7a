"""One trained network by torch and by OpenVINO, with one thread and with two; see ``benchmarks.abuse.numbers``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.result import Result
from lungshift.ct.case import Cohort
from lungshift.io.cohort import read_cohort
from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.engine_openvino import OpenVinoEngine
from lungshift.learn.engine_torch import TorchEngine
from lungshift.learn.machine import use_threads
from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor, decide, predict_slices
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.learn.training import Job, fit
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_site import SITE_A, SITE_B
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort

SIZE, EVERY = 160, 3
REAL = ("medseg9", "coronacases10")
_NETWORK = NetworkSettings(width=8, norm="batch", crop=True)
_TRAINING = TrainingSettings(
    epochs=6, patience=0, batch=8, micro_batch=8, epoch_slices=320, learning_rate=3e-3, loss="bce_dice"
)
_LEAST, _MOST = 0.9999, 1e-4


def measure_engines(folder: Path, data: Path | None) -> tuple[list[Result], list[str]]:
    """The goals on two phantom hospitals, and on the real cohorts where they are; the model is of the first cohort of each two."""
    phantoms = [
        phantom_cohort("phantom-a", patients=6, site=replace(SITE_A, slice_mm=6.0), seed=21),
        phantom_cohort("phantom-b", patients=3, site=replace(SITE_B, slice_mm=6.0), seed=22),
    ]
    goals, told = _of_two(phantoms, folder)
    if data is None or not all((data / name).is_dir() for name in REAL):
        return goals, [*told, "The real cohorts were not there, so engines were compared on phantoms only."]
    more, more_told = _of_two([read_cohort(data / name) for name in REAL], folder)
    return goals + more, told + more_told


def _of_two(cohorts: list[Cohort], folder: Path) -> tuple[list[Result], list[str]]:
    prepared = [prepare_cohort(cohort, folder / cohort.name, size=SIZE) for cohort in cohorts]
    model, goals, told = _train(prepared[0]), list[Result](), list[str]()
    for cohort in prepared:
        _compare(model, cohort, goals, told)
    return goals, told


def _train(cohort: PreparedCohort) -> Checkpoint:
    """A small model, trained for long enough to have an opinion."""
    rows = np.flatnonzero(cohort.table["lung"] > 0)
    job = Job(SliceSet.of(cohort, rows[rows % 5 > 0]), SliceSet.of(cohort, rows[rows % 5 == 0]), _NETWORK, _TRAINING)
    return fit(job, device="cpu")


def _compare(model: Checkpoint, cohort: PreparedCohort, goals: list[Result], told: list[str]) -> None:
    rows = np.flatnonzero(cohort.table["lung"] > 0)[::EVERY]
    slices, cases = SliceSet.of(cohort, rows), cohort.table["case"][rows]
    wanted = _answer(lambda: OpenVinoEngine.start(model, "fp32", threads=1), model, slices)
    mask = decide(wanted, model.decision)
    ill = sum(bool(mask[cases == case].any()) for case in np.unique(cases))
    pixels = np.count_nonzero(mask)
    goals.append(
        Result(
            f"{cohort.name}, {len(rows)} slices, {pixels} lesion pixels: cases with a lesion", ill, "", 1, "at least"
        )
    )
    for title, start in _others(model).items():
        found = _answer(start, model, slices)
        own, name = decide(found, model.decision), f"{cohort.name}, {title}"
        off = float(np.abs(found - wanted).max())
        goals.append(Result(f"{name}: Dice, all slices", _dice(mask, own), "", _LEAST, "at least"))
        goals.append(Result(f"{name}: largest difference of a probability", off, "", _MOST))
        told += [f"{name}: {other}." for other in _different(mask, own, cases)]


def _different(mask: np.ndarray, own: np.ndarray, cases: np.ndarray) -> Iterator[str]:
    """The cases whose masks are not the same, in pixels: in a small lesion one pixel is much of its Dice."""
    for case in np.unique(cases):
        here = cases == case
        if apart := np.count_nonzero(mask[here] != own[here]):
            dice = _dice(mask[here], own[here])
            yield f"case number {case} differs in {apart} of {np.count_nonzero(mask[here])} lesion pixels, Dice {dice:.6f}"


def _others(model: Checkpoint) -> dict[str, Callable[[], OpenVinoEngine | TorchEngine]]:
    """What is compared with OpenVINO on one thread, each started when its turn comes."""

    def torch(threads: int) -> TorchEngine:
        use_threads(threads)
        return TorchEngine.start(model, "cpu", "fp32")

    return {
        "OpenVINO, two threads": lambda: OpenVinoEngine.start(model, "fp32", threads=2),
        "torch, one thread": lambda: torch(1),
        "torch, two threads": lambda: torch(2),
    }


def _answer(start: Callable[[], OpenVinoEngine | TorchEngine], model: Checkpoint, slices: SliceSet) -> np.ndarray:
    predictor = Predictor(model, start())
    try:
        return np.concatenate([probability for _, probability in predict_slices(predictor, slices)])
    finally:
        use_threads(1)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    either = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / either if either else float("nan")
