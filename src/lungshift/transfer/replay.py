"""A model replayed on a cohort, as it is or as it is seen without a difference; its masks are kept, eight pixels in a byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor, decide, predict_slices
from lungshift.measure.overlap import CountTable, count_slices
from lungshift.prepare.prepared import PreparedCohort
from lungshift.transfer.looks import PackedMasks, pixel_mm_of
from lungshift.transfer.removal import Back
from lungshift.transfer.watcher import Watcher


@dataclass(frozen=True, eq=False)
class Played:
    """What the model predicted for some rows, and how it was counted against their references.

    Attributes:
        masks: What was predicted on each row's own picture.
    """

    cohort: PreparedCohort
    rows: Int64[np.ndarray, " row"]
    counts: CountTable
    masks: PackedMasks

    @property
    def cases(self) -> list[str]:
        """Case of each row."""
        return [str(name) for name in self.cohort.case_ids[self.rows]]

    @property
    def patients(self) -> list[str]:
        """Patient of each row."""
        return [str(name) for name in self.cohort.patients[self.rows]]

    @property
    def pixel_mm(self) -> Float64[np.ndarray, " row"]:
        """Millimetres of a pixel of each row's picture."""
        sizes = [pixel_mm_of(self.cohort, number) for number in range(len(self.cohort.cases))]
        return np.array(sizes)[self.cohort.table["case"][self.rows]]

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """Reference, prediction and pixel size of each row."""
        for row, mm in zip(self.rows.tolist(), self.pixel_mm.tolist(), strict=True):
            yield self.cohort.lesion(row), self.masks[row], mm


@dataclass(frozen=True, eq=False)
class Player:
    """A model that predicts cohorts."""

    predictor: Predictor
    watcher: Watcher

    def play(
        self,
        cohort: PreparedCohort,
        rows: Int64[np.ndarray, " row"],
        seen: PreparedCohort | None = None,
        backs: Sequence[Back] = (),
    ) -> Played:
        """Predict rows as they are, or as they are seen, and count on the cohort's own references.

        Args:
            cohort: Whose references count.
            rows: Which slices.
            seen: The cohort without a difference.
            backs: What brings masks of ``seen`` back to the cohort's own pictures, in the order in which these were changed.
        """
        counts, masks = [], PackedMasks(cohort.size)
        for chosen, probability in predict_slices(self.predictor, SliceSet.of(seen or cohort, rows)):
            found = decide(probability, self.predictor.checkpoint.decision)
            for n, mask in zip(rows[chosen].tolist(), found, strict=True):
                masks.put(n, _brought_back(n, mask, backs))
            counts += [count_slices(cohort.lesion(n)[None], masks[n][None]) for n in rows[chosen].tolist()]
            self.watcher.slices(int(chosen[-1]) + 1, len(rows))
        return Played(cohort, rows, np.concatenate(counts), masks)


def _brought_back(row: int, mask: np.ndarray, backs: Sequence[Back]) -> np.ndarray:
    for back in reversed(backs):
        mask = back(row, mask)
    return mask
