"""What differs between source and target in the pictures, found without labels, and the target seen without it.

Each scan of the target is held against what the source's training scans look like. One that lies outside their range, and a
tolerance beyond it, is brought to their middle; one inside it is left as it is, for the model has seen its like. A difference
that no scan has is not replayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Final

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from lungshift.prepare.grid import AIR_HU
from lungshift.prepare.peaks import Peaks
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.transfer.detail import remove_sharpness
from lungshift.transfer.looks import Scan, chest, likeness
from lungshift.transfer.outcome import CauseName
from lungshift.transfer.removal import Removal, Remover, chosen, counted, for_cases, middle, outside, view_of

_HU_SLACK, _PIXEL_SLACK, _SLICE_SLACK = 40.0, 0.1, 0.3
_MASK_SLACK, _LIKENESS_SLACK = 0.03, 0.03
_TURN_WORDS = ("head for foot", "front for back", "left for right")


def remove_hu(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """HU offset and scale: lung and soft tissue of each scan are mapped linearly to the source's."""
    at_home, here = (np.array([(scan.peaks.lung, scan.peaks.tissue) for scan in scans]) for scans in (home, away))
    wanted, usual, odd = middle(at_home), middle(here), outside(at_home, here, by=_HU_SLACK)
    if np.isnan(wanted + usual).any():
        return Removal(
            "not measured", note="Too little lung, or soft tissue between the lungs, to say where their HU lie."
        )
    found = (
        f"lung at {wanted[0]:.0f} HU and soft tissue at {wanted[1]:.0f} HU at home, {usual[0]:.0f} and {usual[1]:.0f} here"
        f"{counted(odd)}{_eight_bit(home, away)}"
    )
    how = {scan.number: partial(_mapped, own=scan.peaks, wanted=Peaks(*wanted)) for scan in chosen(away, odd)}
    return Removal(found, view_of(away, "HU", hu=how))


def _eight_bit(home: Sequence[Scan], away: Sequence[Scan]) -> str:
    count = sum(scan.is_eight_bit for scan in away)
    if not count or any(scan.is_eight_bit for scan in home):
        return ""
    return f"; the numbers of {count} run from 0 to 255 at most, an 8-bit picture and not HU"


def _mapped(picture: np.ndarray, own: Peaks, wanted: Peaks) -> np.ndarray:
    return own.contrast(picture) * np.float32(wanted.tissue - wanted.lung) + np.float32(wanted.lung)


def remove_pixel_size(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """In-plane size: the chest is made as large in the picture as the source has it, and the mask brought back."""
    at_home, here = (np.array([[scan.pixel_mm] for scan in scans]) for scans in (home, away))
    wanted = float(np.median(at_home))
    odd = outside(at_home, here, times=1 + _PIXEL_SLACK)
    found = f"a pixel of the picture is {wanted:.2f} mm at home, {np.median(here):.2f} mm here{counted(odd)}"
    frames = {scan.number: Frame.of(scan, scan.pixel_mm / wanted) for scan in chosen(away, odd)}
    mask = {number: frame.mask for number, frame in frames.items()}
    picture = {number: frame.picture for number, frame in frames.items()}
    view = view_of(away, "size", hu=picture, lung=mask, lesion=mask)
    back = for_cases(away[0].cohort, {number: frame.back for number, frame in frames.items()})
    note = "Enlarged, some lungs do not fit into the picture." if any(frame.cuts for frame in frames.values()) else ""
    return Removal(found, view, back, note=note)


@dataclass(frozen=True)
class Frame:
    """The part of a picture that is looked at, enlarged or made smaller.

    Attributes:
        factor: How many times larger things become.
        middle: Row and column that come to the middle.
        cuts: Whether some lung comes to lie outside.
    """

    factor: float
    middle: tuple[float, float]
    cuts: bool

    @classmethod
    def of(cls, scan: Scan, factor: float) -> Frame:
        """Around the lungs of a scan."""
        middle = [(side.start + side.stop - 1) / 2 for side in scan.box]
        longest = max(side.stop - side.start for side in scan.box)
        return cls(factor, (middle[0], middle[1]), longest * factor > scan.cohort.size)

    def picture(self, hu: np.ndarray) -> np.ndarray:
        """The part of a picture in HU; what is made smaller is blurred first, as resizing does."""
        hu = np.asarray(hu, dtype=np.float32)
        if self.factor < 1:
            hu = ndimage.gaussian_filter(hu, 0.5 * np.sqrt(self.factor**-2 - 1))
        return np.asarray(ndimage.affine_transform(hu, *self._onto(hu), order=3, cval=AIR_HU))

    def mask(self, mask: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
        """The part of a mask, each pixel from the nearest."""
        return np.asarray(ndimage.affine_transform(mask.astype(np.uint8), *self._onto(mask), order=0) > 0)

    def back(self, mask: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
        """A mask of the part, on the whole picture."""
        centre = (np.array(mask.shape) - 1) / 2
        offset = centre - self.factor * np.array(self.middle)
        return np.asarray(ndimage.affine_transform(mask.astype(np.uint8), [self.factor] * 2, offset, order=0) > 0)

    def _onto(self, array: np.ndarray) -> tuple[list[float], np.ndarray]:
        centre = (np.array(array.shape) - 1) / 2
        return [1 / self.factor] * 2, np.array(self.middle) - centre / self.factor


def remove_slice_thickness(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """Slice thickness: thinner slices are averaged to the source's; thicker ones can only be put into the source."""
    at_home, here = (np.array([[scan.slice_mm] for scan in scans]) for scans in (home, away))
    wanted, usual = float(np.median(at_home)), float(np.median(here))
    odd = outside(at_home, here, times=1 + _SLICE_SLACK)
    found = f"slices are {wanted:.1f} mm apart at home, {usual:.1f} mm here{counted(odd)}"
    thin = {scan.number for scan in chosen(away, odd) if scan.slice_mm < wanted}
    thick = np.count_nonzero(odd) - len(thin)
    if thick and not thin:
        note = "What a thick slice has averaged cannot be told apart again; told is what slices as thick cost at home."
        return Removal(found, at_home=thickened(home[0].cohort, range(len(home[0].cohort.cases)), usual), note=note)
    note = "Its scans with thicker slices stay as they are." if thick else ""
    return Removal(found, thickened(away[0].cohort, thin, wanted, masks=False) if thin else None, note=note)


def thickened(
    cohort: PreparedCohort, cases: Sequence[int] | set[int], wanted_mm: float, masks: bool = True
) -> PreparedCohort:
    """The cohort with every slice of some cases averaged over ``wanted_mm``, and its masks by majority."""

    def average(read: Callable[[int], np.ndarray], row: int, own: np.ndarray) -> np.ndarray:
        number = int(cohort.table["case"][row])
        slice_mm = cohort.cases[number].spacing_mm[0]
        if number not in cases or wanted_mm <= slice_mm:
            return own
        half = wanted_mm / slice_mm / 2
        steps = range(-int(np.ceil(half - 0.5)), int(np.ceil(half - 0.5)) + 1)
        weights = [min(half, step + 0.5) - max(-half, step - 0.5) for step in steps]
        rows = [cohort.neighbour(row, step * slice_mm) if step else row for step in steps]
        return np.average([read(one) for one in rows], axis=0, weights=weights).astype(np.float32)

    def majority(read: Callable[[int], np.ndarray], row: int, own: np.ndarray) -> np.ndarray:
        return average(read, row, own) >= 0.5

    lung, lesion = (partial(majority, read) if masks else None for read in (cohort.lung, cohort.lesion))
    return changed(cohort, f"slices of {wanted_mm} mm", hu=partial(average, cohort.hu), lung=lung, lesion=lesion)


def remove_orientation(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """Orientation: a scan is turned the way in which it looks most like the source's chests, if that is clearly better."""
    typical = np.mean([chest(scan) for scan in home], axis=0)
    turns = {scan.number: turn for scan in away if (turn := best_turn(chest(scan), typical))}
    if not turns:
        return Removal("no scan looks more like the source's chests when it is turned")
    told = sorted({" and ".join(_TURN_WORDS[axis] for axis in turn) for turn in turns.values()})
    found = f"{len(turns)} of {len(away)} scans look like the source's chests when turned {', or '.join(told)}"
    how = {n: partial(np.flip, axis=tuple(axis - 1 for axis in turn if axis)) for n, turn in turns.items()}
    upside_down = frozenset(number for number, turn in turns.items() if 0 in turn)
    view = view_of(away, "orientation", hu=how, lung=how, lesion=how, upside_down=upside_down)
    return Removal(found, view, for_cases(away[0].cohort, how))


def best_turn(one: np.ndarray, typical: np.ndarray) -> tuple[int, ...]:
    """The axes (height, row, column) along which a small chest must be turned to be most like the typical one."""
    turns = [tuple(np.flatnonzero(turn).tolist()) for turn in product((False, True), repeat=3)]
    like = {turn: likeness(np.flip(one, turn), typical) for turn in turns}
    best = max(turns, key=lambda turn: like[turn])
    return best if like[best] > like[()] + _LIKENESS_SLACK else ()


def remove_lung_mask(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """Lung masks: those that agree with masks by threshold less well than the source's do are replaced by these."""
    agreed, here = (np.array([[_agreement(scan)] for scan in scans]) for scans in (home, away))
    usual, own = float(middle(agreed)[0]), float(middle(here)[0])
    if math.isnan(usual + own):
        where = "the source" if math.isnan(usual) else "the target"
        return Removal("not compared", note=f"A threshold finds no lungs in {where}: are these HU?")
    odd = outside(agreed, np.minimum(here, usual), by=_MASK_SLACK)
    found = (
        f"lung masks ({_sources(home)} at home, {_sources(away)} here) have a Dice with masks by threshold of "
        f"{usual:.3f} at home, {own:.3f} here{counted(odd)}"
    )
    better = {scan.number: scan.threshold_lungs for scan in chosen(away, odd)}
    lost = sum(not scan.threshold_lungs for scan in away)
    note = f"In {lost} of {len(away)} scans a threshold finds no lungs; these keep their masks." if lost else ""
    cohort = away[0].cohort

    def lung(row: int, own: np.ndarray) -> np.ndarray:
        masks = better.get(int(cohort.table["case"][row]))
        return own if masks is None else masks.get(row, own)

    return Removal(found, changed(cohort, "lungs by threshold", lung=lung) if better else None, note=note)


def _agreement(scan: Scan) -> float:
    """Dice of a scan's lung masks with those by threshold, over its rows; NaN without the latter."""
    made = scan.threshold_lungs
    if not made:
        return float("nan")
    sums = np.sum([_overlap(scan.cohort.lung(row), made[row]) for row in scan.rows.tolist()], axis=0)
    return float(2 * sums[0] / sums[1])


def _overlap(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    return int(np.count_nonzero(one & other)), int(np.count_nonzero(one) + np.count_nonzero(other))


def _sources(scans: Sequence[Scan]) -> str:
    return " and ".join(sorted({scan.cohort.cases[scan.number].lung_source for scan in scans}))


REMOVERS: Final[dict[CauseName, Remover]] = {
    "hu": remove_hu,
    "lung_mask": remove_lung_mask,
    "slice_thickness": remove_slice_thickness,
    "sharpness": remove_sharpness,
    "orientation": remove_orientation,
    "pixel_size": remove_pixel_size,
}
"""Differences that show without labels, in the order in which they can be removed one after another."""
