"""A difference between two cohorts as it was found, and the target seen without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import Change, changed
from lungshift.transfer.looks import Scan

Back = Callable[[int, np.ndarray], np.ndarray]
"""Brings a mask of a row from the picture as it was seen to the row's own picture."""

How = Mapping[int, Callable[[np.ndarray], np.ndarray]]
"""What is done to the pictures, or masks, of some cases."""


def _as_it_is(_: int, mask: np.ndarray) -> np.ndarray:
    return mask


@dataclass(frozen=True, eq=False)
class Removal:
    """A difference as it was found, and the target without it.

    Without ``seen`` and ``at_home`` there is no difference; with a ``note`` but neither, it could not be looked for.

    Attributes:
        found: What was measured at home and here, in words with units.
        seen: The target without the difference.
        back: Brings what was predicted on ``seen`` back to the target's own pictures.
        at_home: The source with the difference put in, where it cannot well be taken away: what it costs there can be seen.
        note: What limits the removal, or why it could not be done; else empty.
    """

    found: str
    seen: PreparedCohort | None = None
    back: Back = _as_it_is
    at_home: PreparedCohort | None = None
    note: str = ""


Remover = Callable[[Sequence[Scan], Sequence[Scan]], Removal]
"""Finds a difference of the target's scans (second) from the source's (first), and removes it."""


def outside(
    at_home: Float64[np.ndarray, "source value"],
    here: Float64[np.ndarray, "target value"],
    *,
    by: float = 0.0,
    times: float = 1.0,
) -> Bool[np.ndarray, " target"]:
    """Which scans have a value below the source's smallest or above its largest, and a tolerance beyond.

    Args:
        at_home: Values of the source's scans; NaN is not known.
        here: The same of the target's; what is not known is not outside.
        by: Tolerance in the values' own unit.
        times: Tolerance as a factor.
    """
    low = np.nanmin(at_home, axis=0, initial=np.inf) / times - by
    high = np.nanmax(at_home, axis=0, initial=-np.inf) * times + by
    known = np.isfinite(low) & np.isfinite(here)
    return np.asarray((known & ((here < low) | (here > high))).any(axis=1))


def chosen(scans: Sequence[Scan], odd: Bool[np.ndarray, " scan"]) -> list[Scan]:
    """The scans that are marked."""
    return [scan for scan, one in zip(scans, odd, strict=True) if one]


def counted(odd: Bool[np.ndarray, " scan"]) -> str:
    """How many scans are outside, as the end of a sentence."""
    if not odd.any():
        return "; within what the source has"
    return f"; {np.count_nonzero(odd)} of {len(odd)} scans lie outside of what the source has"


def middle(values: Float64[np.ndarray, "scan value"]) -> Float64[np.ndarray, " value"]:
    """The median of what is known over scans; NaN where nothing is."""
    columns = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.median(column) if len(column) else np.nan for column in columns])


def for_cases(cohort: PreparedCohort, how: How) -> Change:
    """A change of the pictures of some cases."""

    def change(row: int, picture: np.ndarray) -> np.ndarray:
        one = how.get(int(cohort.table["case"][row]))
        return picture if one is None else one(picture)

    return change


def view_of(
    scans: Sequence[Scan],
    name: str,
    *,
    hu: How,
    lung: How | None = None,
    lesion: How | None = None,
    upside_down: frozenset[int] = frozenset(),
) -> PreparedCohort | None:
    """The cohort with the pictures of some cases changed; None if there are no such cases."""
    if not hu:
        return None
    cohort = scans[0].cohort
    change = {
        part: for_cases(cohort, how)
        for part, how in (("hu", hu), ("lung", lung), ("lesion", lesion))
        if how is not None
    }
    return changed(cohort, f"{name} of the source", **change, upside_down=upside_down)
