"""What differs between source and target in the pictures, found without labels, and the target seen without it.

Each scan of the target is held against what the source's training scans look like. One that lies outside their range, and a
tolerance beyond it, is brought to their middle; one inside it is left as it is, for the model has seen its like. A difference
that no scan has is not replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from lungshift.prepare.grid import AIR_HU
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import Change, changed
from lungshift.transfer.looks import Peaks, Scan, band_sigmas, chest, fine_detail, likeness, with_detail
from lungshift.transfer.outcome import CauseName

Back = Callable[[int, np.ndarray], np.ndarray]
"""Brings a mask of a row from the picture as it was seen to the row's own picture."""

_HU_SLACK = 25.0
_DETAIL_SLACK, _PIXEL_SLACK, _SLICE_SLACK = 0.2, 0.1, 0.3
_MASK_SLACK, _LIKENESS_SLACK = 0.03, 0.03
_WEAKEST, _STRONGEST, _ROUNDS = 0.1, 4.0, 4
_TURN_WORDS = ("head for foot", "front for back", "left for right")


def _as_it_is(_: int, mask: np.ndarray) -> np.ndarray:
    return mask


@dataclass(frozen=True, eq=False)
class Removal:
    """A difference as it was found, and the target without it.

    Attributes:
        found: What was measured at home and here, in words with units.
        seen: The target without the difference; None where there is none, or none that could be taken away.
        back: Brings what was predicted on ``seen`` back to the target's own pictures.
        at_home: Where it cannot be taken away: the source with the difference put in, to see what that costs.
        note: What limits the removal, or why it could not be done; else empty.
    """

    found: str
    seen: PreparedCohort | None = None
    back: Back = _as_it_is
    at_home: PreparedCohort | None = None
    note: str = ""


_How = Mapping[int, Callable[[np.ndarray], np.ndarray]]

Remover = Callable[[Sequence[Scan], Sequence[Scan]], Removal]
"""Finds a difference of the target's scans (second) from the source's (first), and removes it."""


def remove_hu(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """HU offset and scale: lung and soft tissue of each scan are mapped linearly to the source's."""
    at_home, here = (np.array([(scan.peaks.lung, scan.peaks.tissue) for scan in scans]) for scans in (home, away))
    wanted = np.nanmedian(at_home, axis=0)
    odd = _beyond(here, np.nanmin(at_home, axis=0) - _HU_SLACK, np.nanmax(at_home, axis=0) + _HU_SLACK)
    lung, tissue = np.nanmedian(here, axis=0)
    found = (
        f"lung at {wanted[0]:.0f} HU and soft tissue at {wanted[1]:.0f} HU at home, {lung:.0f} and {tissue:.0f} here"
        f"{_counted(odd)}{_eight_bit(home, away)}"
    )
    how = {scan.number: partial(_mapped, own=scan.peaks, wanted=Peaks(*wanted)) for scan in _chosen(away, odd)}
    return Removal(found, _view(away, "HU", hu=how))


def _eight_bit(home: Sequence[Scan], away: Sequence[Scan]) -> str:
    count = sum(scan.is_eight_bit for scan in away)
    if not count or any(scan.is_eight_bit for scan in home):
        return ""
    return f"; the numbers of {count} run from 0 to 255 at most, an 8-bit picture and not HU"


def _mapped(picture: np.ndarray, own: Peaks, wanted: Peaks) -> np.ndarray:
    return own.contrast(picture) * np.float32(wanted.tissue - wanted.lung) + np.float32(wanted.lung)


def remove_sharpness(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """Sharpness and noise: three bands of detail are made as strong as the source has them."""
    pixel_mm = float(np.median([scan.pixel_mm for scan in home]))
    at_home, here = (np.array([fine_detail(scan, pixel_mm) for scan in scans]) for scans in (home, away))
    wanted, slack = np.nanmedian(at_home, axis=0), 1 + _DETAIL_SLACK
    odd = _beyond(here, np.nanmin(at_home, axis=0) / slack, np.nanmax(at_home, axis=0) * slack)
    found = f"{_strength(here, wanted, pixel_mm)}{_counted(odd)}"
    how = {
        scan.number: partial(
            with_detail, sigmas=band_sigmas(scan.pixel_mm, pixel_mm), gains=_fit_gains(scan, wanted, pixel_mm)
        )
        for scan in _chosen(away, odd)
    }
    note = "Removed by a filter, which cannot tell edges from noise." if how else ""
    return Removal(found, _view(away, "detail", hu=how), note=note)


def _strength(here: np.ndarray, wanted: np.ndarray, pixel_mm: float) -> str:
    """The bands that the target's pixels can show, in words."""
    shown = [k for k in range(len(wanted)) if np.isfinite(here[:, k]).any()]
    sizes = " and ".join(f"{band_sigmas(1, pixel_mm)[k]:.1f}" for k in shown)
    shares = " and ".join(f"{np.nanmedian(here[:, k]) / wanted[k]:.2f}" for k in shown)
    return f"detail of {sizes} mm is {shares} × as strong here as at home"


def _fit_gains(scan: Scan, wanted: Float64[np.ndarray, " band"], pixel_mm: float) -> tuple[float, ...]:
    """The gains that make the scan's detail as strong as wanted; bands overlap, so they are found in a few rounds."""
    gains = np.ones(len(wanted))
    for _ in range(_ROUNDS):
        gains = gains * np.nan_to_num(wanted / fine_detail(scan, pixel_mm, gains.tolist()), nan=1.0)
        gains = gains.clip(_WEAKEST, _STRONGEST)
    return tuple(gains.tolist())


def remove_pixel_size(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """In-plane size: the chest is made as large in the picture as the source has it, and the mask brought back."""
    at_home, here = (np.array([[scan.pixel_mm] for scan in scans]) for scans in (home, away))
    wanted = float(np.median(at_home))
    odd = _beyond(here, at_home.min() / (1 + _PIXEL_SLACK), at_home.max() * (1 + _PIXEL_SLACK))
    found = f"a pixel of the picture is {wanted:.2f} mm at home, {np.median(here):.2f} mm here{_counted(odd)}"
    frames = {scan.number: Frame.of(scan, scan.pixel_mm / wanted) for scan in _chosen(away, odd)}
    mask = {number: frame.mask for number, frame in frames.items()}
    picture = {number: frame.picture for number, frame in frames.items()}
    view = _view(away, "size", hu=picture, lung=mask, lesion=mask)
    back = _for_cases(away[0].cohort, {number: frame.back for number, frame in frames.items()})
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
    slack = 1 + _SLICE_SLACK
    thin, thick = here < at_home.min() / slack, here > at_home.max() * slack
    found = f"slices are {wanted:.1f} mm apart at home, {usual:.1f} mm here{_counted(thin | thick)}"
    chosen = {scan.number for scan in _chosen(away, thin)}
    if not chosen and thick.any():
        note = "What a thick slice has averaged cannot be told apart again; told is what slices as thick cost at home."
        return Removal(found, at_home=thickened(home[0].cohort, range(len(home[0].cohort.cases)), usual), note=note)
    note = "The thicker of its scans stay as they are." if thick.any() else ""
    return Removal(found, thickened(away[0].cohort, chosen, wanted, masks=False) if chosen else None, note=note)


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
    view = _view(away, "orientation", hu=how, lung=how, lesion=how, upside_down=upside_down)
    return Removal(found, view, _for_cases(away[0].cohort, how))


def best_turn(one: np.ndarray, typical: np.ndarray) -> tuple[int, ...]:
    """The axes (height, row, column) along which a small chest must be turned to be most like the typical one."""
    turns = [tuple(np.flatnonzero(turn).tolist()) for turn in product((False, True), repeat=3)]
    like = {turn: likeness(np.flip(one, turn), typical) for turn in turns}
    best = max(turns, key=lambda turn: like[turn])
    return best if like[best] > like[()] + _LIKENESS_SLACK else ()


def remove_lung_mask(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """Lung masks: those that agree with masks by threshold less well than the source's do are replaced by these."""
    agreed, here = (np.array([_agreement(scan) for scan in scans]) for scans in (home, away))
    odd = here < np.nanmin(agreed) - _MASK_SLACK
    found = (
        f"lung masks ({_sources(home)} at home, {_sources(away)} here) have a Dice with masks by threshold of "
        f"{np.nanmedian(agreed):.3f} at home, {np.nanmedian(here):.3f} here{_counted(odd[:, None])}"
    )
    place = {row: mask for scan in _chosen(away, odd[:, None]) for row, mask in scan.threshold_lungs.items()}
    lost = sum(not scan.threshold_lungs for scan in away)
    note = f"In {lost} of {len(away)} scans a threshold finds no lungs; these keep their masks." if lost else ""
    view = changed(away[0].cohort, "lungs by threshold", lung=place.get) if place else None
    return Removal(found, view, note=note)


def _agreement(scan: Scan) -> float:
    """Dice of a scan's lung masks with those by threshold, over its rows; NaN without the latter."""
    made = scan.threshold_lungs
    if not made:
        return float("nan")
    sums = np.sum([_overlap(scan.cohort.lung(row), mask) for row, mask in made.items()], axis=0)
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


def _beyond(
    here: Float64[np.ndarray, "scan value"], low: np.ndarray, high: np.ndarray
) -> Bool[np.ndarray, "scan value"]:
    """Which values lie outside; what is not known does not."""
    with np.errstate(invalid="ignore"):
        return np.asarray((here < low) | (here > high))


def _chosen(scans: Sequence[Scan], odd: Bool[np.ndarray, "scan value"]) -> list[Scan]:
    return [scan for scan, one in zip(scans, odd, strict=True) if one.any()]


def _counted(odd: Bool[np.ndarray, "scan value"]) -> str:
    count = int(odd.any(axis=1).sum())
    return (
        f"; {count} of {len(odd)} scans lie outside of what the source has" if count else "; within what the source has"
    )


def _for_cases(cohort: PreparedCohort, how: _How) -> Change:
    """A change of the pictures of some cases."""

    def change(row: int, picture: np.ndarray) -> np.ndarray:
        one = how.get(int(cohort.table["case"][row]))
        return picture if one is None else one(picture)

    return change


def _view(
    scans: Sequence[Scan],
    name: str,
    *,
    hu: _How,
    lung: _How | None = None,
    lesion: _How | None = None,
    upside_down: frozenset[int] = frozenset(),
) -> PreparedCohort | None:
    """The cohort with the pictures of some cases changed; None if there are no such cases."""
    if not hu:
        return None
    cohort = scans[0].cohort
    masks = (None if how is None else _for_cases(cohort, how) for how in (lung, lesion))
    return changed(
        cohort,
        f"{name} of the source",
        hu=_for_cases(cohort, hu),
        lung=next(masks),
        lesion=next(masks),
        upside_down=upside_down,
    )
