"""What a study found: counts per slice for every arm, from which every ratio is computed later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int16, Int64

from lungshift.learn.history import EpochRecord, History
from lungshift.transfer.protocol import Protocol

__all__ = ["CohortSummary", "EpochRecord", "Example", "History", "Outcome", "Run", "Scores", "SplitSummary"]


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
        arm: ``source`` (the source model at home), ``zero_shot``, ``fine_tuned``.
        tested_on: Name of the cohort whose held-out slices were predicted.
        role: Whether that cohort is the study's source or target.
        budget: What of the target training saw, such as ``0 patients`` or ``440 slices``.
        threshold, min_pixels: The rule that makes a mask of probabilities, chosen on validation slices only.
    """

    arm: str
    tested_on: str
    role: str
    budget: str
    seed: int
    scores: Scores
    threshold: float = 0.5
    min_pixels: int = 0

    @property
    def label(self) -> str:
        """The run in words, for tables."""
        return f"{self.arm} on {self.tested_on}, {self.budget}, seed {self.seed}"


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


@dataclass(frozen=True, eq=False)
class Outcome:
    """Everything a study found; pages and tables are made from this alone."""

    protocol: Protocol
    source: CohortSummary
    target: CohortSummary
    splits: tuple[SplitSummary, ...]
    runs: tuple[Run, ...]
    histories: tuple[History, ...]
    examples: tuple[Example, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def leaky(self) -> bool:
        """Whether slices of one patient stood on both sides of a split: then every number is too good."""
        return any(split.leaky for split in self.splits)
