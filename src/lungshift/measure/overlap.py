"""How two masks overlap: voxels counted per slice, counts that add up, ratios that are NaN where they mean nothing.

Counts come first and ratios last. What an undefined ratio becomes in a mean is decided in ``lungshift.measure.conventions``
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import astuple, dataclass
from typing import Final, Literal, TypeVar, overload

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, GeometryError, InputError

Metric = Literal["dice", "precision", "recall", "iou", "accuracy"]
"""The names of the ratios; ``dice`` is the F1 score."""

CountTable = Int64[np.ndarray, "n 4"]
"""A row of TP, FP, FN, TN per slice (or case), as ``count_slices`` makes it."""

Label = TypeVar("Label", bound=Hashable)


@dataclass(frozen=True)
class Counts:
    """Voxels by agreement of prediction and reference; counts of slices add up to those of their case.

    Attributes:
        tp: Lesion in both.
        fp: Lesion in the prediction only.
        fn: Lesion in the reference only.
        tn: Lesion in neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def total(self) -> int:
        """Number of voxels that were compared."""
        return self.tp + self.fp + self.fn + self.tn

    @classmethod
    def of(cls, table: CountTable) -> Counts:
        """The sum of a table's rows."""
        tp, fp, fn, tn = (int(n) for n in table.sum(axis=0))
        return cls(tp, fp, fn, tn)


def count_overlap(reference: Mask, prediction: Mask, within: Mask | None = None) -> Counts:
    """Count agreeing and disagreeing voxels of two masks on one grid.

    Args:
        reference: What a reader drew.
        prediction: What is judged.
        within: Only these voxels count (the lung, say); all of them if None.

    Raises:
        GeometryError: The masks are not on one grid.
    """
    reference.geometry.require_same(prediction.geometry, "Reference and prediction")
    if within is not None:
        reference.geometry.require_same(within.geometry, "Reference and the region to count in")
    region = None if within is None else within.voxels
    return Counts.of(count_slices(reference.voxels, prediction.voxels, region))


def count_slices(
    reference: Bool[np.ndarray, "slice row column"],
    prediction: Bool[np.ndarray, "slice row column"],
    within: Bool[np.ndarray, "slice row column"] | None = None,
) -> Int64[np.ndarray, "slice 4"]:
    """TP, FP, FN, TN of every slice, as columns in this order; memory beyond that is one slice.

    Args:
        reference: What a reader drew.
        prediction: What is judged.
        within: Only these voxels count; all of them if None.

    Raises:
        GeometryError: The arrays differ in shape, or are not slices of rows and columns.
        AnnotationError: An array is not bool.
    """
    for name, array in (("reference", reference), ("prediction", prediction), ("within", within)):
        if array is not None:
            _require_voxels(name, array, reference.shape)
    table = np.empty((len(reference), 4), dtype=np.int64)
    for index in range(len(reference)):
        region = None if within is None else within[index]
        table[index] = _count_slice(reference[index], prediction[index], region)
    return table


def sum_by(table: CountTable, labels: Sequence[Label]) -> tuple[list[Label], CountTable]:
    """Add up the rows of one label (the slices of a case, the cases of a patient).

    Returns:
        The labels in the order of their first row, and a row of counts for each.

    Raises:
        InputError: ``table`` is not (n, 4), or there is not one label for each row.
    """
    require_table(table, labels)
    return group_sums(table, labels)


def group_sums(rows: np.ndarray, labels: Sequence[Label]) -> tuple[list[Label], np.ndarray]:
    """Add up the rows of one label, of any two-dimensional array.

    Returns:
        The labels in the order of their first row, and a row of sums for each.
    """
    names = list(dict.fromkeys(labels))
    place = {name: index for index, name in enumerate(names)}
    sums = np.zeros((len(names), rows.shape[1]), dtype=rows.dtype)
    np.add.at(sums, np.array([place[label] for label in labels], dtype=np.intp), rows)
    return names, sums


def require_table(table: CountTable, *labels: Sequence[Hashable]) -> None:
    """Refuse what is not a table of counts with a label for each row.

    Raises:
        InputError: ``table`` is not (n, 4) whole numbers of at least 0, or a list of labels is shorter or longer.
    """
    if table.ndim != 2 or table.shape[1] != 4 or not np.issubdtype(table.dtype, np.integer):
        raise InputError(
            f"Counts are whole numbers, n x 4 (TP, FP, FN, TN); got {table.dtype} of shape {table.shape}. "
            "Make them with count_slices.",
            code="E_COUNTS",
        )
    if table.size and table.min() < 0:
        raise InputError("Counts are at least 0; some are negative. Make them with count_slices.", code="E_COUNTS")
    for names in labels:
        if len(names) != len(table):
            raise InputError(
                f"{len(table)} rows of counts need as many labels; got {len(names)}. Give each slice its case's and patient's id.",
                code="E_COUNTS",
            )


@dataclass(frozen=True)
class Ratio:
    """A ratio of weighted counts; NaN where it is 0 / 0, and never a number by accident.

    Call it with ``Counts`` for a float, or with an (n, 4) table of counts for a float64 array of n. Both are the same
    computation.

    Attributes:
        name: As in tables and JSON.
        top: Weights of TP, FP, FN, TN in the numerator.
        bottom: Weights of TP, FP, FN, TN in the denominator.
    """

    name: Metric
    top: tuple[int, int, int, int]
    bottom: tuple[int, int, int, int]

    @overload
    def __call__(self, counts: Counts) -> float: ...
    @overload
    def __call__(self, counts: CountTable) -> Float64[np.ndarray, " n"]: ...
    def __call__(self, counts: Counts | CountTable) -> float | Float64[np.ndarray, " n"]:
        """The ratio, between 0 and 1, or NaN."""
        if isinstance(counts, Counts):
            return float(self(np.array([astuple(counts)], dtype=np.int64))[0])
        top, bottom = counts @ np.array(self.top), counts @ np.array(self.bottom)
        ratio: np.ndarray = np.divide(top, bottom, out=np.full(len(counts), np.nan), where=bottom > 0)
        return ratio


dice: Final = Ratio("dice", (2, 0, 0, 0), (2, 1, 1, 0))
"""2 TP / (2 TP + FP + FN), the F1 score; NaN if both masks are empty, 0 if one is.

It equals 2 P R / (P + R) of precision P and recall R. Equation 5 of the source paper (arXiv 2205.02152) lacks the factor 2 and
could never exceed 0.5.
"""

precision: Final = Ratio("precision", (1, 0, 0, 0), (1, 1, 0, 0))
"""TP / (TP + FP), the part of the predicted lesion that is one; NaN if nothing is predicted."""

recall: Final = Ratio("recall", (1, 0, 0, 0), (1, 0, 1, 0))
"""TP / (TP + FN), the part of the reference lesion that was found; NaN if the reference is empty."""

iou: Final = Ratio("iou", (1, 0, 0, 0), (1, 1, 1, 0))
"""TP / (TP + FP + FN), intersection over union or Jaccard index; NaN if both masks are empty, 0 if one is."""

accuracy: Final = Ratio("accuracy", (1, 0, 0, 1), (1, 1, 1, 1))
"""(TP + TN) / all voxels; NaN if no voxel was compared. Mostly background: read it beside ``background_baseline``."""

RATIOS: Final[dict[Metric, Ratio]] = {ratio.name: ratio for ratio in (dice, precision, recall, iou, accuracy)}
"""The ratios by name, in the order in which tables show them."""


def _require_voxels(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.ndim != 3:
        raise GeometryError(
            f"Masks to compare have one shape (slices, rows, columns); {name} has {array.shape}, reference {shape}."
        )
    if array.dtype != np.bool_:
        raise AnnotationError(f"Masks to compare are bool; {name} is {array.dtype}. Say which labels belong to it.")


def _count_slice(reference: np.ndarray, prediction: np.ndarray, within: np.ndarray | None) -> tuple[int, int, int, int]:
    if within is not None:
        reference, prediction = reference & within, prediction & within
    total = reference.size if within is None else int(np.count_nonzero(within))
    tp = int(np.count_nonzero(reference & prediction))
    fp, fn = int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(reference)) - tp
    return tp, fp, fn, total - tp - fp - fn
