"""Lesions of two dates matched, once one date lies on the other: new, grown, stable, shrunk, gone, merged, split.

The rules, in their order:

1. Two lesions are one where at least a quarter (``LEAST_SHARE``) of the smaller lies in the other.
2. A lesion that is left alone goes with the nearest one of the other date that is alone too, if they come within ``tolerance_mm`` of each
   other, nearest pairs first: that is what registration may be off.
3. Lesions that hang together by this are one group, and a group is one event. One before and none after is *gone*; none and one is *new*;
   several and one are *merged*; one and several are *split*; several and several are *regrouped*: they merged and split at once, or which
   became which cannot be told. A crumb below ``least_ml`` beside a larger lesion does not count here: a border that breaks is no split.
4. One and one is *grown* or *shrunk* if its volume changed beyond noise, else *stable*. Groups of several say the same of their total.
5. A group whose lesions are all smaller than ``least_ml`` on both dates is no event; how many there are is counted.

Volumes are those of each date's own scan, never of a deformed mask. A change is beyond noise if its 95 % interval leaves out 0, both for the
volume as it is and for the earlier volume taken larger or smaller as the lung around it expanded: a lesion is not called grown because the
patient breathed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float64, Integer
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from lungshift.measure.burden import COUNTED_ML

EventKind = Literal["new", "grown", "stable", "shrunk", "gone", "merged", "split", "regrouped"]
Trend = Literal["new", "grown", "stable", "shrunk", "gone"]

LEAST_SHARE: Final = 0.25
"""Share of the smaller lesion that must lie in the other."""
TOLERANCE_MM: Final = 4.0
"""How far two lesions that do not overlap may be apart and still be one: what registration may be off."""
LEAST_ML: Final = COUNTED_ML
"""Groups of lesions that are all below this on both dates are not judged."""
FLOOR: Final = 0.25
"""Relative change of a volume that is no change, where nothing better is known: the limit of the NELSON trial (van Klaveren et al., NEJM 361, 2009)."""

_Z: Final = 1.959963984540054
_BORDER: Final = 0.29 * math.sqrt(4.84)
"""Standard deviation of a rounding, and the voxels on the surface of a ball of one voxel's volume."""
_ENDS: Final = math.pi * math.sqrt(2 / 180)
"""Two ends, each with the variance of the second Bernoulli polynomial, and the slope of a ball's cross-section there."""


@dataclass(frozen=True)
class Change:
    """A quantity on two dates, with the 95 % interval of its change.

    Attributes:
        before, after: The quantity.
        low, high: The interval of after less before, from noise alone.
        expected: What ``before`` would be by the deformation of the lung alone; ``before`` itself where that does not matter.
    """

    before: float
    after: float
    low: float
    high: float
    expected: float

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def percent(self) -> float:
        """The change in percent of before; NaN from nothing."""
        return 100 * self.change / self.before if self.before else float("nan")

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    @property
    def trend(self) -> Trend:
        """What may be said of it: beyond noise, and more than the lung's own expansion explains."""
        if not self.before or not self.after:
            return "new" if self.after else "gone" if self.before else "stable"
        least = self.after - max(self.before, self.expected)
        most = self.after - min(self.before, self.expected)
        if least > self.half_width:
            return "grown"
        return "shrunk" if most < -self.half_width else "stable"


@dataclass(frozen=True)
class Event:
    """What happened to a lesion, or to some that merged or split.

    Attributes:
        kind: What happened.
        before, after: Numbers of the lesions on either date, as ``label_lesions`` gave them; the largest first.
        volume: Their volumes together, ml.
        distance_mm: How far apart they lay where they do not overlap; 0 where they do, NaN where there is only one side.
    """

    kind: EventKind
    before: tuple[int, ...]
    after: tuple[int, ...]
    volume: Change
    distance_mm: float

    @property
    def trend(self) -> Trend:
        """Whether the total grew; for one lesion the same as ``kind``."""
        return self.volume.trend


@dataclass(frozen=True)
class Matching:
    """All lesions of two dates.

    Attributes:
        events: The largest first, by volume on the date where they are largest.
        specks: Groups of lesions below ``least_ml``, which were not judged.
        specks_ml: Their volume on the earlier and the later date.
    """

    events: tuple[Event, ...]
    specks: int
    specks_ml: tuple[float, float]

    def count(self, kind: EventKind) -> int:
        """How many events of a kind there are."""
        return sum(event.kind == kind for event in self.events)


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of one date, by number from 1.

    Attributes:
        volume_ml: Volume of each on its own scan.
        noise_ml: Half the width of the 95 % limits of each volume, by noise alone.
        expansion: What the lung around each does until the later date (local volume, later over earlier); 1 on the later date.
    """

    volume_ml: Float64[np.ndarray, " lesion"]
    noise_ml: Float64[np.ndarray, " lesion"]
    expansion: Float64[np.ndarray, " lesion"]


def match_lesions(
    before: Integer[np.ndarray, "slice row column"],
    after: Integer[np.ndarray, "slice row column"],
    spacing_mm: tuple[float, float, float],
    lesions: tuple[Lesions, Lesions],
    *,
    tolerance_mm: float = TOLERANCE_MM,
    least_ml: float = LEAST_ML,
) -> Matching:
    """Match the lesions of two dates.

    Args:
        before: 0, and the number of a lesion in its voxels, on the earlier date.
        after: The same on the later date, laid on the grid of the earlier.
        spacing_mm: Of that grid.
        lesions: What is known of the lesions of the earlier and the later date; one that is too small to have a voxel on the common
            grid is there too, and overlaps nothing.
        tolerance_mm: How far apart lesions may be that do not overlap.
        least_ml: Groups smaller than this on both dates are counted and not judged.
    """
    counts = tuple(len(one.volume_ml) for one in lesions)
    linked = _overlapping(before, after, (counts[0], counts[1]))
    away = _near(before, after, spacing_mm, tolerance_mm, linked)
    events: list[Event] = []
    specks: list[Event] = []
    for old, new in _groups(linked | (away <= tolerance_mm)):
        event = _event(old, new, lesions, linked, away, least_ml)
        small = max([*lesions[0].volume_ml[list(old)], *lesions[1].volume_ml[list(new)]]) < least_ml
        (specks if small else events).append(event)
    events.sort(key=lambda event: (-max(event.volume.before, event.volume.after), event.before, event.after))
    speck_ml = (sum(event.volume.before for event in specks), sum(event.volume.after for event in specks))
    return Matching(tuple(events), len(specks), (float(speck_ml[0]), float(speck_ml[1])))


def volume_noise(volume_ml: float, spacing_mm: tuple[float, float, float], *, relative: float = 0.0) -> float:
    """Half the width of the 95 % limits of one lesion's volume: a relative floor, and what a grid of voxels cannot resolve.

    The floor is such that a change by ``FLOOR`` is just no change. What the grid cannot resolve is taken for a ball that may lie anywhere on
    it: each voxel of its border is in or out by chance, and so is how far the outermost slices cut it (the first term of Euler and
    Maclaurin, for the axis with the largest step).

    Args:
        volume_ml: Of the lesion.
        spacing_mm: Of the scan.
        relative: Half the width as a share of the volume by the model's repeatability, where it is known.
    """
    floor = max(FLOOR / math.sqrt(2), relative) * volume_ml
    voxel, step, mm3 = math.prod(spacing_mm), max(spacing_mm), 1000 * volume_ml
    border = _BORDER * voxel * (mm3 / voxel) ** (1 / 3)
    ends = _ENDS * (3 * mm3 / (4 * math.pi)) ** (1 / 3) * step**2
    return max(floor, _Z * math.hypot(border, ends) / 1000)


def change_of(before: float, after: float, noise: tuple[float, float], expected: float | None = None) -> Change:
    """The change of a quantity, with the 95 % interval that noise leaves it.

    Args:
        before: On the earlier date.
        after: On the later date.
        noise: Half the widths of the 95 % limits of either.
        expected: What ``before`` would be by the deformation of the lung alone.
    """
    half, middle = math.hypot(*noise), after - before
    return Change(before, after, middle - half, middle + half, before if expected is None else expected)


def _overlapping(before: np.ndarray, after: np.ndarray, counts: tuple[int, int]) -> np.ndarray:
    """Which pairs share enough of the smaller one, on the common grid."""
    both = (before > 0) & (after > 0)
    shared = sparse.coo_array((np.ones(int(both.sum())), (before[both] - 1, after[both] - 1)), shape=counts).toarray()
    sizes = [
        np.bincount(labels[labels > 0], minlength=n + 1)[1:] for labels, n in zip((before, after), counts, strict=True)
    ]
    smaller = np.minimum(sizes[0][:, None], sizes[1][None, :])
    return np.asarray((shared > 0) & (shared >= LEAST_SHARE * smaller))


def _near(
    before: np.ndarray,
    after: np.ndarray,
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
    linked: np.ndarray,
) -> np.ndarray:
    """Distance in mm of the pairs of lonely lesions that go together, nearest first, each used once; infinite for all others."""
    away = np.full(linked.shape, np.inf)
    lonely = [set((1 + np.flatnonzero(~linked.any(axis=axis))).tolist()) for axis in (1, 0)]
    found = sorted(_gaps(before, after, spacing_mm, tolerance_mm, lonely))
    for gap, old, new in found:
        if old in lonely[0] and new in lonely[1]:
            away[old - 1, new - 1] = gap
            lonely[0].remove(old)
            lonely[1].remove(new)
    return away


def _gaps(
    before: np.ndarray,
    after: np.ndarray,
    spacing_mm: tuple[float, ...],
    tolerance_mm: float,
    lonely: Sequence[set[int]],
) -> Iterable[tuple[float, int, int]]:
    """Distance between each lonely lesion and those of the other date around it."""
    margin = [int(np.ceil(tolerance_mm / mm)) + 1 for mm in spacing_mm]
    boxes = ndimage.find_objects(before)
    for old in sorted(lonely[0]):
        box = boxes[old - 1] if old <= len(boxes) else None
        if box is None:
            continue
        window = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margin, strict=True))
        there = after[window]
        candidates = sorted(lonely[1] & set(np.unique(there).tolist()))
        if candidates:
            distance = ndimage.distance_transform_edt(before[window] != old, sampling=spacing_mm)
            gaps = ((float(distance[there == new].min()), old, new) for new in candidates)
            yield from (one for one in gaps if one[0] <= tolerance_mm)


def _groups(linked: np.ndarray) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Lesions that hang together, as indices from 0 on either side."""
    old, new = linked.shape
    table = sparse.coo_array(linked)
    graph = sparse.coo_array((table.data, (table.row, table.col + old)), shape=(old + new, old + new))
    count, group = connected_components(graph, directed=False) if old + new else (0, np.zeros(0, int))
    members = [np.flatnonzero(group == number).tolist() for number in range(count)]
    return [(tuple(m for m in one if m < old), tuple(m - old for m in one if m >= old)) for one in members]


def _event(
    old: tuple[int, ...],
    new: tuple[int, ...],
    lesions: tuple[Lesions, Lesions],
    linked: np.ndarray,
    away: np.ndarray,
    least_ml: float,
) -> Event:
    earlier, later = lesions
    one, other = list(old), list(new)
    before, after = float(earlier.volume_ml[one].sum()), float(later.volume_ml[other].sum())
    noise = (float(np.linalg.norm(earlier.noise_ml[one])), float(np.linalg.norm(later.noise_ml[other])))
    expected = float((earlier.volume_ml[one] * earlier.expansion[one]).sum())
    volume = change_of(before, after, noise, expected)
    distance = float("nan")
    if one and other:
        distance = 0.0 if linked[np.ix_(one, other)].any() else float(away[np.ix_(one, other)].min())
    counted = _counted(earlier.volume_ml[one], least_ml), _counted(later.volume_ml[other], least_ml)
    return Event(_kind(*counted, volume), _numbers(one, earlier), _numbers(other, later), volume, distance)


def _counted(volume_ml: np.ndarray, least_ml: float) -> int:
    """How many lesions count when it is told what happened: those that are no crumbs; one if all of them are."""
    return max(int((volume_ml >= least_ml).sum()), min(len(volume_ml), 1))


def _numbers(members: list[int], lesions: Lesions) -> tuple[int, ...]:
    return tuple(1 + number for number in sorted(members, key=lambda number: -lesions.volume_ml[number]))


def _kind(before: int, after: int, volume: Change) -> EventKind:
    if not before or not after:
        return "new" if after else "gone"
    if before == after == 1:
        return volume.trend
    if after == 1:
        return "merged"
    return "split" if before == 1 else "regrouped"
