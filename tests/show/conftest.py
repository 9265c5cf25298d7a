"""Studies small enough to compute by hand, and one as rich as they come: six arms, three budgets, three seeds, two folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from lungshift.audit.duplicates import Twins
from lungshift.learn.history import EpochRecord, History
from lungshift.learn.settings import NetworkSettings
from lungshift.show.findings import Findings
from lungshift.transfer.arms import ARMS
from lungshift.transfer.outcome import (
    Cause,
    CohortSummary,
    Example,
    Explanation,
    Outcome,
    Run,
    Scores,
    SplitSummary,
)
from lungshift.transfer.protocol import Protocol, SplitSettings

NAN = float("nan")
# TP, FP, FN, TN per slice; two slices per case. Slices with lesion: every first one.
BEFORE = [(2, 2, 2, 58), (0, 0, 0, 64), (4, 0, 4, 56), (0, 1, 0, 63)]
AFTER = [(4, 0, 0, 60), (0, 0, 0, 64), (6, 0, 2, 56), (0, 0, 0, 64)]


def make_scores(rows: list[tuple[int, ...]], cases: list[str] | None = None, native: bool = False) -> Scores:
    counts = np.array(rows, dtype=np.int64).reshape(-1, 4)
    names = np.array(cases or [f"case-{index // 2}" for index in range(len(rows))])
    in_lung = counts - np.array([0, 0, 0, 40])
    return Scores(names, names, np.arange(len(rows)) % 2, counts, in_lung, counts * 4 if native else None)


def make_run(arm: str, rows: list[tuple[int, ...]], cases: list[str] | None = None, **changes: Any) -> Run:
    """A run of an arm on the target; ``changes`` are fields of the run."""
    labels = changes.get("labels", 2 if arm in ARMS and ARMS[arm].labels else 0)
    budget = f"{labels} patients" if labels else "nothing"
    settings: dict[str, Any] = {"tested_on": "beta", "role": "target", "budget": budget, "seed": 0, "labels": labels}
    return Run(arm, scores=make_scores(rows, cases), **(settings | changes))


def make_example(case_id: str = "case-0", dice: float = 0.5) -> Example:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:5, 2:5] = True
    return Example(
        "zero_shot",
        "bad",
        case_id,
        7,
        dice,
        np.full((8, 8), -800, dtype=np.int16),
        mask,
        mask,
        np.roll(mask, 1, axis=1),
    )


def make_outcome(*, leaky: bool = False, seeds: tuple[int, ...] = (0,), **changes: Any) -> Outcome:
    runs = tuple(
        run
        for seed in seeds
        for run in (
            make_run("source", AFTER, tested_on="alpha", role="source", seed=seed),
            make_run("zero_shot", BEFORE, seed=seed),
            make_run("fine_tuned", AFTER, seed=seed),
        )
    )
    kind = "slice" if leaky else "patient"
    parts = {"train": ("p1", "p2"), "test": ("p3", "p4")}
    epochs = (EpochRecord(1, 0.9, 0.8, NAN, 1e-3, 2.0), EpochRecord(2, 0.5, 0.6, NAN, 1e-3, 2.0))
    settings: dict[str, Any] = {
        "protocol": Protocol("tiny"),
        "cohorts": (
            CohortSummary("alpha", 3, 3, 12, 10, 6, ("reader",)),
            CohortSummary("beta", 4, 4, 16, 12, 8, ("threshold",), "CC0"),
        ),
        "splits": (SplitSummary("beta", kind, leaky, {"train": 8, "test": 4}, parts),),
        "runs": runs,
        "histories": (History("source, seed 0", epochs, 2),),
        "examples": (make_example(),),
        "manifest": {"versions": {"lungshift": "0.1.0"}, "device": "cpu"},
    }
    return Outcome(**(settings | changes))


class Simulated:
    """Counts of patients who differ, by models of a given quality: seeded, so that pages can be compared."""

    def __init__(self, seed: int = 0, slices: int = 12) -> None:
        self._random, self._slices = np.random.default_rng(seed), slices
        self._lesions: dict[str, np.ndarray] = {}
        self._ease: dict[str, float] = {}

    def scores(self, cases: list[str], quality: float, scans: int = 1) -> Scores:
        """Counts of every slice of the cases; ``scans`` cases in a row are of one patient."""
        parts = [self._case(case, quality) for case in cases]
        names = np.repeat(cases, self._slices)
        patients = np.repeat(
            [f"p{index // scans}" if scans > 1 else case for index, case in enumerate(cases)], self._slices
        )
        counts = np.concatenate(parts)
        in_lung = np.maximum(counts - np.array([0, 0, 0, 60_000]), 0)
        return Scores(names, patients, np.tile(np.arange(self._slices), len(cases)), counts, in_lung, counts * 4)

    def _case(self, case: str, quality: float) -> np.ndarray:
        random = self._random
        if case not in self._lesions:
            size = np.where(random.random(self._slices) < 0.6, random.integers(50, 4000, self._slices), 0)
            self._lesions[case], self._ease[case] = size, float(random.normal(0, 0.12))
        lesion = self._lesions[case]
        level = float(np.clip(quality + self._ease[case] + random.normal(0, 0.03), 0.05, 0.97))
        tp = random.binomial(lesion, level)
        fp = random.binomial(np.where(lesion > 0, lesion, 30), (1 - level) * 0.7)
        return np.stack([tp, fp, lesion - tp, 320 * 320 - lesion - fp], axis=1).astype(np.int64)


BUDGETS, SEEDS, FOLDS = (1, 2, 4), (0, 1, 2), 2
HOME, AWAY = [f"radiopaedia-{n}" for n in (7, 10, 14, 27, 36)], [f"coronacase-{n:03d}" for n in range(1, 11)]
QUALITY = {  # at 0, 1, 2, 4 labelled patients
    "zero_shot": (0.50,),
    "from_scratch": (0, 0.33, 0.48, 0.62),
    "fine_tuned": (0, 0.60, 0.66, 0.74),
    "frozen_encoder": (0, 0.57, 0.62, 0.67),
    "head_only": (0, 0.54, 0.56, 0.57),
    "joint": (0, 0.61, 0.69, 0.75),
    "adapted_batch_norm": (0.55,),
    "adapted_histogram": (0.47,),
    "adapted_tent": (0.53,),
}


def _rich_runs(world: Simulated) -> Iterator[Run]:
    for seed in SEEDS:
        at_home = {"tested_on": "medseg9-like", "role": "source", "seed": seed, "trained_on": ("medseg9-like",)}
        yield Run("source", budget="all", scores=world.scores(HOME, 0.74), threshold=0.4, **at_home)
        for fold in range(FOLDS):
            tested = AWAY[fold::FOLDS]
            for arm, qualities in QUALITY.items():
                for labels, quality in zip((0, *BUDGETS), qualities, strict=False):
                    if ARMS[arm].labels and not labels:
                        continue
                    yield from _rich_arm(world, arm, labels, quality, seed, fold, tested)


def _rich_arm(
    world: Simulated, arm: str, labels: int, quality: float, seed: int, fold: int, tested: list[str]
) -> Iterator[Run]:
    spec = ARMS[arm]
    names = ("medseg9-like",) * (spec.from_source or spec.with_source) + ("corona-like",) * spec.labels
    words = f"{labels} patient{'s' if labels > 1 else ''} and 1 to validate" if labels else "nothing"
    common: dict[str, Any] = {"budget": words, "seed": seed, "labels": labels, "fold": fold, "trained_on": names}
    yield Run(arm, "corona-like", "target", scores=world.scores(tested, quality), **common)
    if spec.labels:
        left = 0.2 if arm == "from_scratch" else 0.73 - 0.02 * labels * (arm != "joint")
        yield Run(arm, "medseg9-like", "source", scores=world.scores(HOME, left), **common)


def make_history(name: str, seed: int) -> History:
    random = np.random.default_rng(seed)
    loss = 0.9 * np.exp(-np.arange(40) / 9) + 0.1 + random.normal(0, 0.01, 40)
    epochs = tuple(
        EpochRecord(n + 1, float(loss[n]), float(loss[n] + 0.06), float(0.75 - 0.6 * loss[n]), 1e-3, 3.0)
        for n in range(40)
    )
    return History(name, epochs, int(random.integers(25, 41)))


def make_chest(run: str, kind: str, dice: float, seed: int) -> Example:
    """A slice that looks like a chest: two lungs in a body, a lesion in one of them."""
    row, column = np.mgrid[:320, :320]
    random = np.random.default_rng(seed)

    def disc(y: float, x: float, high: float, wide: float) -> np.ndarray:
        return ((row - y) / high) ** 2 + ((column - x) / wide) ** 2 < 1

    lung = disc(160, 100, 90, 55) | disc(160, 220, 90, 55)
    reference, prediction = disc(190, 100, 28, 24) & lung, disc(190 + 40 * (1 - dice), 104, 28, 22) & lung
    hu = np.where(disc(165, 160, 120, 150), 40, -1000)
    hu = np.where(lung, -840, hu) + np.where(reference, 500, 0) + random.normal(0, 45, row.shape)
    return Example(run, kind, "coronacase-003", 88, dice, hu.astype(np.int16), lung, reference, prediction)


def make_explanation() -> Explanation:
    causes = (
        Cause("hu", "lung peak −861 HU at home, −838 HU abroad", 0.60, 0.10, 0.04, 0.16, 0.42),
        Cause("sharpness", "edge width 1.9 mm at home, 1.2 mm abroad", 0.55, 0.05, 0.01, 0.09, 0.21),
        Cause("lung_mask", "reader's at home, threshold abroad", 0.52, 0.02, -0.01, 0.05, 0.08),
        Cause("pixel_size", "0.78 mm at home, 0.70 mm abroad", 0.505, 0.005, -0.02, 0.03, 0.02),
        Cause("lesion_sizes", "median 1.1 ml at home, 0.6 ml abroad", 0.49, -0.01, -0.05, 0.03, -0.04),
        Cause(
            "slice_thickness", "5 mm at home, 1 mm abroad", NAN, NAN, NAN, NAN, NAN, "Thicker slices need the raw scan."
        ),
    )
    return Explanation("lesion_slices", 0.74, 0.50, 0.24, 0.11, 0.36, causes)


@cache
def make_rich() -> Outcome:
    """Everything that an outcome can hold, with counts drawn at random."""
    world = Simulated()
    protocol = Protocol(
        "robust-folds",
        "Every arm at every budget, every patient tested once for each seed.",
        split=SplitSettings(folds=FOLDS),
        network=NetworkSettings(norm="batch"),
        arms=tuple(QUALITY),
        budgets=(0, *BUDGETS),
        seeds=SEEDS,
        price_leak=True,
    )
    runs = tuple(_rich_runs(world))
    leak = tuple(
        Run(f"split_by_{kind}", "medseg9-like", "source", "all", seed, world.scores(HOME, quality), trained_on=("medseg9-like",))
        for seed in SEEDS
        for kind, quality in (("slice", 0.86), ("case", 0.75), ("patient", 0.74))
    )  # fmt: skip
    names = dict.fromkeys((r.arm, r.labels, r.seed, r.fold) for r in runs if r.labels)
    trainings = [f"{arm}-{labels}_patients-seed{seed}-fold{fold + 1}" for arm, labels, seed, fold in names]
    histories = [make_history(name, n) for n, name in enumerate([f"source-seed{seed}" for seed in SEEDS] + trainings)]
    patients = {"train": tuple(AWAY[1:5]), "validation": (AWAY[5],), "test": tuple(AWAY[6:])}
    splits = [
        SplitSummary("corona-like", "patient", False, {"train": 860, "validation": 214, "test": 1082}, patients, seed)
        for seed in SEEDS
        for _ in range(FOLDS * len(BUDGETS))
    ]
    examples = [
        make_chest(f"{run} on {where}, seed 0", kind, dice, seed)
        for seed, (run, where) in enumerate((("source", "medseg9-like"), ("zero_shot", "corona-like"), ("fine_tuned", "corona-like")))
        for kind, dice in (("good", 0.93), ("typical", 0.71), ("bad", 0.18))
    ]  # fmt: skip
    return Outcome(
        protocol,
        (
            CohortSummary("medseg9-like", 9, 8, 829, 713, 373, ("reader",), "CC BY 4.0"),
            CohortSummary("corona-like", 10, 10, 2581, 2156, 1351, ("threshold",), "CC BY-NC", patients_known=False),
        ),
        tuple(splits),
        runs,
        tuple(histories),
        tuple(examples),
        {"lungshift": "0.2.0", "software": {"torch": "2.10", "numpy": "2.3"}, "device": "cpu", "looked_for_twins": True},
        leak=leak,
        twins=(
            Twins(("medseg9-like", "radiopaedia-7"), ("medseg9-like", "radiopaedia-10"), ("p7", "p10"), "same patient", 0.97,
                  "lungs of 0.97 likeness after resampling; 31 of 33 slices match"),
        ),
        explanation=make_explanation(),
    )  # fmt: skip


def make_chain(seed: int = 3) -> Outcome:
    """One network through three cohorts."""
    world, names = Simulated(seed), ("north", "south", "west")
    quality = {1: (0.8, 0.5, 0.45), 2: (0.7, 0.75, 0.5), 3: (0.62, 0.66, 0.78)}
    runs = tuple(
        Run("chain", name, "source" if place < stage else "target", "all", s, world.scores([f"{name}-{n}" for n in range(6)], level), trained_on=names[:stage])
        for s in (0, 1)
        for stage, levels in quality.items()
        for place, (name, level) in enumerate(zip(names, levels, strict=True))
    )  # fmt: skip
    cohorts = tuple(CohortSummary(name, 10, 10, 900, 700, 300, ("reader",)) for name in names)
    return replace(make_outcome(), kind="chain", cohorts=cohorts, runs=runs, splits=(), histories=(), examples=())


def make_leave_one_out(seed: int = 4) -> Outcome:
    """Three cohorts, each tested by a network of the others and by one of its own."""
    world, names = Simulated(seed), ("north", "south", "west")
    runs = tuple(
        Run(arm, name, "target", "all", s, world.scores([f"{name}-{n}" for n in range(6)], level), trained_on=seen)
        for s in (0, 1)
        for name, out, home in zip(names, (0.55, 0.7, 0.4), (0.8, 0.75, 0.77), strict=True)
        for arm, level, seen in (
            ("leave_one_out", out, tuple(other for other in names if other != name)), ("at_home", home, (name,)),
        )
    )  # fmt: skip
    cohorts = tuple(CohortSummary(name, 10, 10, 900, 700, 300, ("reader",)) for name in names)
    return replace(
        make_outcome(), kind="leave_one_out", cohorts=cohorts, runs=runs, splits=(), histories=(), examples=()
    )


@pytest.fixture
def outcome_of() -> Callable[..., Outcome]:
    return make_outcome


@pytest.fixture
def run_of() -> Callable[..., Run]:
    return make_run


@pytest.fixture
def scores_of() -> Callable[..., Scores]:
    return make_scores


@pytest.fixture
def example_of() -> Callable[..., Example]:
    return make_example


@pytest.fixture(scope="session")
def rich() -> Outcome:
    return make_rich()


@pytest.fixture(scope="session")
def rich_findings(rich: Outcome) -> Findings:
    return Findings.of(rich)


@pytest.fixture
def chain() -> Outcome:
    return make_chain()


@pytest.fixture
def leave_one_out() -> Outcome:
    return make_leave_one_out()
