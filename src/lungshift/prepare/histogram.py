"""HU of one scan made to have the histogram of a cohort's: what a scanner's scale alone changed is undone without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, Int64

from lungshift.errors import CohortError
from lungshift.files import digest
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import ChangedCohort, changed

_LOW_HU, _HIGH_HU = -1024, 3071
_LEVELS = np.arange(_LOW_HU, _HIGH_HU + 1)


@dataclass(frozen=True, eq=False)
class HuHistogram:
    """How many pixels have each whole HU from -1024 to 3071, inside boxes around the lungs.

    Raises:
        CohortError: There is no pixel, or not one count for each HU.
    """

    counts: Int64[np.ndarray, " hu"]

    def __post_init__(self) -> None:
        if self.counts.shape != _LEVELS.shape or not self.counts.any() or self.counts.min() < 0:
            raise CohortError(
                f"A histogram counts pixels of {len(_LEVELS)} HU around the lungs; got {self.counts.sum()} pixels of "
                f"{self.counts.size}. Have the slices lung?"
            )


def histogram_of(cohort: PreparedCohort, rows: Int64[np.ndarray, " row"]) -> HuHistogram:
    """The histogram of slices, each inside its own lung box.

    Raises:
        CohortError: None of the slices has lung.
    """
    counts = np.zeros(len(_LEVELS), dtype=np.int64)
    for row in rows:
        top, bottom, left, right = map(int, cohort.table["box"][row])
        hu = cohort.hu(row, (slice(top, bottom), slice(left, right)))
        counts += np.bincount(_index(hu).ravel(), minlength=len(_LEVELS))
    return HuHistogram(counts)


def match(found: HuHistogram, wanted: HuHistogram) -> Int16[np.ndarray, " hu"]:
    """The HU that each HU from -1024 becomes, so that pixels with the one histogram get the other.

    An HU goes to the one of the same quantile, counted at the middle of its pixels; between HU that were found it is
    interpolated, and beyond the last of them shifted as that. It never falls, and changes nothing where both are the same.
    """
    there, quantiles = _quantiles(found)
    becomes = np.interp(quantiles, *_quantiles(wanted)[::-1])
    table = np.interp(_LEVELS, there, becomes)
    table += np.minimum(_LEVELS - there[0], 0) + np.maximum(_LEVELS - there[-1], 0)
    return np.rint(table.clip(_LOW_HU, _HIGH_HU)).astype(np.int16)


def matched(cohort: PreparedCohort, wanted: HuHistogram) -> ChangedCohort:
    """The cohort as if every scan had the wanted histogram; a scan without lung stays as it is.

    Each case is matched by the slices of its own that have lung, when the first of its pictures is read.
    """
    name = f"histogram {digest(wanted.counts.tolist())}"
    return changed(cohort, name, hu=_Matching(cohort, wanted, {}))


@dataclass(frozen=True, eq=False)
class _Matching:
    cohort: PreparedCohort
    wanted: HuHistogram
    tables: dict[int, np.ndarray]

    def __call__(self, row: int, picture: np.ndarray) -> np.ndarray:
        number = int(self.cohort.table["case"][row])
        if number not in self.tables:
            self.tables[number] = self._table(number)
        return self.tables[number][_index(picture)]

    def _table(self, number: int) -> np.ndarray:
        rows = np.flatnonzero((self.cohort.table["case"] == number) & (self.cohort.table["lung"] > 0))
        return match(histogram_of(self.cohort, rows), self.wanted) if len(rows) else _LEVELS.astype(np.int16)


def _index(hu: np.ndarray) -> np.ndarray:
    """Place of each HU among those from -1024."""
    return np.rint(hu).astype(np.int64).clip(_LOW_HU, _HIGH_HU) - _LOW_HU


def _quantiles(histogram: HuHistogram) -> tuple[np.ndarray, np.ndarray]:
    """The HU that occur, and the share of pixels below the middle of each."""
    occurs = histogram.counts > 0
    middle = np.cumsum(histogram.counts) - histogram.counts / 2
    return _LEVELS[occurs], middle[occurs] / histogram.counts.sum()
