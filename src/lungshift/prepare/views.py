"""A prepared cohort seen through a change of its pictures or masks, made when they are read; nothing on disk changes."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from jaxtyping import Bool

from lungshift.files import digest
from lungshift.prepare.prepared import WHOLE, Place, PreparedCohort

Change = Callable[[int, np.ndarray], np.ndarray]
"""Makes another picture or mask of a row's own one: both are whole, (size, size)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ChangedCohort(PreparedCohort):
    """What ``changed`` makes: reads as any prepared cohort, and predicts and scores as one."""

    seen: PreparedCohort
    change_hu: Change | None = None
    change_lung: Change | None = None
    change_lesion: Change | None = None
    upside_down: Set[int] = frozenset()

    def hu(self, row: int | np.integer, place: Place = WHOLE) -> np.ndarray:
        """A changed picture in HU, or a part of it."""
        return _through(self.change_hu, row, self.seen.hu, place)

    def lung(self, row: int | np.integer, place: Place = WHOLE) -> Bool[np.ndarray, "row column"]:
        """The changed lung mask of a picture, or a part of it."""
        return _through(self.change_lung, row, self.seen.lung, place)

    def lesion(self, row: int | np.integer, place: Place = WHOLE) -> Bool[np.ndarray, "row column"]:
        """The changed lesion mask of a picture, or a part of it."""
        return _through(self.change_lesion, row, self.seen.lesion, place)

    def neighbour(self, row: int | np.integer, distance_mm: float) -> int:
        """The slice that far towards the head, or towards the foot in a case that is seen upside down."""
        turned = int(self.table["case"][row]) in self.upside_down
        return self.seen.neighbour(row, -distance_mm if turned else distance_mm)


def changed(
    cohort: PreparedCohort,
    name: str,
    *,
    hu: Change | None = None,
    lung: Change | None = None,
    lesion: Change | None = None,
    upside_down: Set[int] = frozenset(),
) -> ChangedCohort:
    """The cohort with its pictures or masks changed as they are read; what was changed before may be changed again.

    Its table and its lesions on the scans' own pixels stay those of the unchanged cohort.

    Args:
        cohort: What is seen.
        name: Says what was changed, and tells the result's key apart from the cohort's.
        hu: Makes a picture in HU of a row's own.
        lung: Makes a lung mask of a row's own.
        lesion: Makes a lesion mask of a row's own.
        upside_down: Numbers of the cases whose neighbouring slices change places, head for foot.
    """
    own = {field.name: getattr(cohort, field.name) for field in fields(PreparedCohort)}
    key = digest((cohort.key, name))
    return ChangedCohort(
        **own | {"key": key},
        seen=cohort,
        change_hu=hu,
        change_lung=lung,
        change_lesion=lesion,
        upside_down=upside_down,
    )


def lungs_as_target(cohort: PreparedCohort) -> ChangedCohort:
    """The cohort as a network that finds lungs sees it: the lung mask stands where the lesion does, every slice is looked at whole.

    The table says so too, so every split, rule and score of lesions works on lungs. Readers' lungs on the scans' own pixels
    are not kept in a prepared cohort: its cases are as large as the pictures, and scored there.
    """
    table, size = cohort.table.copy(), cohort.size
    table["lesion"], table["lung"], table["box"] = table["lung"], size * size, (0, size, 0, size)
    cases = tuple(replace(case, rows=size, columns=size) for case in cohort.cases)
    seen = changed(cohort, "lungs as target", lung=_everywhere, lesion=partial(_lung_instead, cohort))
    return replace(seen, key=cohort.key, table=table, cases=cases)  # its pictures are those of the cohort


def _everywhere(_: int, lung: np.ndarray) -> Bool[np.ndarray, "row column"]:
    return np.ones_like(lung)


def _lung_instead(cohort: PreparedCohort, row: int, _: np.ndarray) -> Bool[np.ndarray, "row column"]:
    return cohort.lung(row)


def _through(change: Change | None, row: int | np.integer, read: Callable[..., np.ndarray], place: Place) -> np.ndarray:
    return read(row, place) if change is None else change(int(row), read(row, WHOLE))[place]
