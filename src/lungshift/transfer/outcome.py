"""What a study found: counts per slice for every arm, from which every ratio is computed later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int16, Int64

from lungshift.audit.duplicates import Twins
from lungshift.learn.history import History
from lungshift.transfer.protocol import Protocol


@dataclass(frozen=True, eq=False)
class Scores:
    """Counts per tested slice, in the order TP, FP, FN, TN; the arrays share their first axis.

    Attributes:
        cases: Case id of each slice.
        patients: Patient id of each slice.
        slices: Index of each slice in its scan, from the foot.
        counts: On the prepared picture, whole slice.
        in_lung: On the prepared picture, inside the lung mask only.
        native: On the scan's own pixels, whole slice; None where it was not asked for.
    """

    cases: np.ndarray
    patients: np.ndarray
    slices: Int64[np.ndarray, " slice"]
    counts: Int64[np.ndarray, "slice 4"]
    in_lung: Int64[np.ndarray, "slice 4"]
    native: Int64[np.ndarray, "slice 4"] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """One arm at one budget and seed, tested on one cohort.

    Attributes:
        arm: ``source`` (the source model at home) or one of ``ARMS``; in the price of leakage ``split_by_slice``,
            ``split_by_case`` and ``split_by_patient``.
        tested_on: Name of the cohort whose held-out slices were predicted.
        role: Whether that cohort is the study's ``source`` or ``target``.
        budget: In words, what of the target was annotated for training and validation: ``nothing``, ``2 patients and 1 to validate``.
        threshold, min_pixels: The rule that makes a mask of probabilities, chosen on validation slices only.
        labels: The budget as a number: target patients (by slice: slices) that were trained on; 0 for none.
        fold: Which of the leave-patients-out folds; 0 where there is one held-out set.
        trained_on: Names of the cohorts that the model was trained on, in order.
    """

    arm: str
    tested_on: str
    role: str
    budget: str
    seed: int
    scores: Scores
    threshold: float = 0.5
    min_pixels: int = 0
    labels: int = 0
    fold: int = 0
    trained_on: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The run in words, for tables."""
        fold = f", fold {self.fold + 1}" if self.fold else ""
        return f"{self.arm} on {self.tested_on}, {self.budget}, seed {self.seed}{fold}"


@dataclass(frozen=True, eq=False)
class Example:
    """A predicted slice to look at. Pictures are (row, column), front up, the patient's right on the left.

    Attributes:
        kind: ``good``, ``typical`` or ``bad``.
        hu: CT in HU.
        dice: Dice of this slice; NaN if neither has lesion.
    """

    run: str
    kind: str
    case_id: str
    slice_index: int
    dice: float
    hu: Int16[np.ndarray, "row column"]
    lung: Bool[np.ndarray, "row column"]
    reference: Bool[np.ndarray, "row column"]
    prediction: Bool[np.ndarray, "row column"]


@dataclass(frozen=True)
class CohortSummary:
    """What was loaded: ``name``, cases, patients, slices, slices with lung and with lesion, and where lung masks are from.

    ``patients_known`` is false where no patient ids came with the cohort and every scan counts as a patient.
    """

    name: str
    cases: int
    patients: int
    slices: int
    lung_slices: int
    lesion_slices: int
    lung_sources: tuple[str, ...]
    licence: str = ""
    patients_known: bool = True


@dataclass(frozen=True)
class SplitSummary:
    """How one cohort was divided: ``kind`` by slice or patient, and slices and patients in each part."""

    cohort: str
    kind: str
    leaky: bool
    slices: dict[str, int]
    patients: dict[str, tuple[str, ...]]
    seed: int = 0
    fold: int = 0


CauseName = Literal[
    "hu", "sharpness", "pixel_size", "slice_thickness", "orientation", "lung_mask", "lesion_sizes", "annotation"
]
"""Differences between two cohorts that the source model can be replayed without."""


@dataclass(frozen=True)
class Cause:
    """One difference between source and target, and what the source model scores on the target without it.

    Attributes:
        name: Which difference.
        found: What was measured in both cohorts, in words with units.
        score: Score of the source model on the target's held-out slices with the difference removed; NaN if it was not tried.
        gained: ``score`` less the score as the target is; NaN if it was not tried.
        low, high: 95 % interval of ``gained`` over patients.
        share: ``gained`` as part of the drop; NaN if there is none, or it may be chance.
        note: Why it was not tried, or what limits it; else empty.
    """

    name: CauseName
    found: str
    score: float
    gained: float
    low: float
    high: float
    share: float
    note: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why the source model scores less on the target than at home, difference by difference.

    Attributes:
        convention: How the scores were averaged.
        home, abroad: Dice of the source model on held-out slices of source and target.
        drop: ``home`` less ``abroad``.
        low, high: 95 % interval of ``drop``, patients of both drawn.
        causes: The largest gain first; those not tried last.
    """

    convention: str
    home: float
    abroad: float
    drop: float
    low: float
    high: float
    causes: tuple[Cause, ...]


StudyKind = Literal["transfer", "chain", "leave_one_out"]
"""From one cohort to another; through several, one after another; or each in turn tested by a model of all others."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything a study found; pages and tables are made from this alone.

    Attributes:
        cohorts: The cohorts in order; in a transfer the source and the target.
        runs: Every arm, budget, seed and fold as it was tested.
        leak: The same network under splits by slice, case and patient, tested on the same slices of the source.
        twins: Cases that are one scan or one patient by their content, whatever their ids.
        explanation: Why the source model scores less on the target.
    """

    protocol: Protocol
    cohorts: tuple[CohortSummary, ...]
    splits: tuple[SplitSummary, ...]
    runs: tuple[Run, ...]
    histories: tuple[History, ...]
    examples: tuple[Example, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)
    kind: StudyKind = "transfer"
    leak: tuple[Run, ...] = ()
    twins: tuple[Twins, ...] = ()
    explanation: Explanation | None = None

    @property
    def source(self) -> CohortSummary:
        """Where the model comes from: the first cohort."""
        return self.cohorts[0]

    @property
    def target(self) -> CohortSummary:
        """Where it is to work: the last cohort."""
        return self.cohorts[-1]

    @property
    def leaky(self) -> bool:
        """Whether slices of one patient stood on both sides of a split: then every number is too good."""
        return any(split.leaky for split in self.splits)
