"""One patient over time: each date measured, each laid on the one before, lesions matched, and a change said only beyond noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int16, Int32

from lungshift.ct.boxes import box_of
from lungshift.ct.case import Case, LungSource
from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, CohortError, GeometryError
from lungshift.measure.burden import Burden, measure_burden
from lungshift.measure.lesions import Lesion, label_lesions
from lungshift.measure.matching import (
    FLOOR,
    LEAST_ML,
    TOLERANCE_MM,
    Change,
    EventKind,
    Lesions,
    Matching,
    Trend,
    change_of,
    match_lesions,
    volume_noise,
)
from lungshift.measure.regions import ZONES, find_regions
from lungshift.patient.registration import Registration, register_lungs
from lungshift.prepare.lungmask import with_lungs

MOST_LOOKS = 6
"""Events between two dates of which pictures are kept."""

_SHOWN_FIRST: tuple[EventKind, ...] = ("new", "gone", "merged", "split", "regrouped", "grown", "shrunk", "stable")
_MARGIN_MM = 12.0
_AIR_HU = -1024


D = TypeVar("D", bound="Dated")


class Dated(Protocol):
    """A scan of one date, not read yet; ``patient.dates.DatedScan`` is one."""

    @property
    def label(self) -> str:
        """What it is called in everything that is written."""

    @property
    def day(self) -> int:
        """Days since the first date."""

    def read(self) -> Case:
        """The scan with its lesion mask, and its lung mask if there is one."""


@dataclass(frozen=True)
class Noise:
    """Half the widths of the 95 % limits of one date's numbers.

    Attributes:
        lesion_ml: Of the volume of all lesions.
        percent: Of the percent of lung.
        source: ``model`` for the repeatability of the model that drew the lesions, ``floor`` for the relative floor.
    """

    lesion_ml: float
    percent: float
    source: str


@dataclass(frozen=True, eq=False)
class DateFound:
    """What was measured on one date.

    Attributes:
        label: What it is called.
        day: Days since the first.
        burden: Everything that was measured.
        noise: How far the two main numbers may be off.
        lung_source: Who drew the lung mask.
        spacing_mm: Of the scan, by slice, row, column.
        zones: Where each lesion sits, in the order of ``burden.lesions``: ``right upper`` and so on, ``outside the lungs``.
    """

    label: str
    day: int
    burden: Burden
    noise: Noise
    lung_source: LungSource
    spacing_mm: tuple[float, float, float]
    zones: tuple[str, ...]

    @property
    def lung_ml(self) -> float:
        """Volume of the lungs."""
        return self.burden.whole.lung_ml

    @property
    def lesion_ml(self) -> float:
        """Volume of lesion inside the lungs."""
        return self.burden.whole.lesion_ml

    @property
    def percent(self) -> float:
        """Lesion as percent of the lungs."""
        return self.burden.whole.percent

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """The lesions, the largest first."""
        return self.burden.lesions


@dataclass(frozen=True, eq=False)
class Look:
    """One slice of the earlier scan, and the same level of the later scan laid on it.

    Attributes:
        event: Which event it shows, by its place in the matching; None for a view of the registration.
        plane: ``axial`` or ``coronal``.
        slice_index: Slice (axial) or row (coronal) of the earlier scan.
        pixel_mm: Size of a picture's pixel, by its row and column.
        earlier, later: HU.
        lung, earlier_lesion, later_lesion: Masks on the same pixels; the later one moved along.
        shown: Which part of the lesion masks the event is.
    """

    event: int | None
    plane: str
    slice_index: int
    pixel_mm: tuple[float, float]
    earlier: Int16[np.ndarray, "row column"]
    later: Int16[np.ndarray, "row column"]
    lung: Bool[np.ndarray, "row column"]
    earlier_lesion: Bool[np.ndarray, "row column"]
    later_lesion: Bool[np.ndarray, "row column"]
    shown: Bool[np.ndarray, "row column"]


@dataclass(frozen=True, eq=False)
class Step:
    """From one date to the next.

    Attributes:
        earlier, later: The two dates, by their place.
        lesion_ml: Volume of all lesion inside the lungs.
        percent: Lesion as percent of lung.
        matching: What happened to the lesions.
        registration: How the later scan was laid on the earlier.
        to_earlier: 4 x 4, takes LPS mm of the later scan to those of the earlier as nearly as an affine map can; for linked cameras.
        looks: Pictures: of the events that matter most, then of the registration.
    """

    earlier: int
    later: int
    lesion_ml: Change
    percent: Change
    matching: Matching
    registration: Registration
    to_earlier: Float64[np.ndarray, "4 4"]
    looks: tuple[Look, ...]


@dataclass(frozen=True, eq=False)
class FollowUp:
    """A patient over time.

    Attributes:
        dates: At least two, the oldest first.
        steps: From each date to the next.
        lesion_ml, percent: From the first date to the last.
        tolerance_mm, least_ml: How lesions were matched.
    """

    dates: tuple[DateFound, ...]
    steps: tuple[Step, ...]
    lesion_ml: Change
    percent: Change
    tolerance_mm: float
    least_ml: float

    @property
    def trend(self) -> Trend:
        """What may be said of the whole time: ``grown`` and ``shrunk`` only where millilitres and percent do not disagree."""
        ml, percent = self.lesion_ml.trend, self.percent.trend
        if {ml, percent} == {"grown", "shrunk"}:
            return "stable"
        return ml


def follow_up(
    dates: Sequence[D],
    *,
    noise_of: Callable[[D, Case, Burden], Noise | None] = lambda _dated, _case, _burden: None,
    complete: Callable[[D, Case], Case] = lambda _dated, case: case,
    tolerance_mm: float = TOLERANCE_MM,
    least_ml: float = LEAST_ML,
    progress: Callable[[str], None] = lambda _: None,
) -> FollowUp:
    """Compare the dates of one patient; two scans are in memory at a time.

    Args:
        dates: Two or more, the oldest first.
        noise_of: What a model says of the noise of a date's numbers; without it the relative floor is taken.
        complete: Called with each scan once its lungs are known, to add the lesions where it has none.
        tolerance_mm: How far apart lesions may be that do not overlap.
        least_ml: Groups of lesions smaller than this on both dates are not judged.
        progress: Told what is being done.

    Raises:
        CohortError: Fewer than two dates, dates in a wrong order or twice (``E_DATES``), one scan twice (``E_SAME_SCAN``), or two
            patients by the inside of their lungs (``E_TWO_PATIENTS``).
        AnnotationError: A date has no lesion mask (``E_NO_LESION``).
        RegistrationError: Two dates cannot be laid on each other.
    """
    _require_order(dates)
    found: list[DateFound] = []
    steps: list[Step] = []
    before: Case | None = None
    for dated in dates:
        progress(f"reading {dated.label}")
        case = _read(dated, complete)
        found.append(_measure(dated, case, noise_of))
        if before is not None:
            steps.append(_step(len(steps), before, case, found, tolerance_mm, least_ml, progress))
        before = case
    first, last = found[0], found[-1]
    return FollowUp(
        tuple(found), tuple(steps), _ml(first, last, _expected(steps)), _percent(first, last), tolerance_mm, least_ml
    )


def _require_order(dates: Sequence[Dated]) -> None:
    days = [dated.day for dated in dates]
    if len(days) < 2 or any(later <= earlier for earlier, later in pairwise(days)):
        raise CohortError(
            f"A follow-up has two dates or more, the oldest first and none twice; got days {', '.join(map(str, days)) or 'none'}.",
            code="E_DATES",
        )


def _read(dated: D, complete: Callable[[D, Case], Case]) -> Case:
    case = complete(dated, with_lungs(replace(dated.read(), case_id=dated.label)))
    if case.lesion is None:
        raise AnnotationError(
            f"{dated.label} has no lesion mask. Give --lesion or --prediction for each date, or a --checkpoint that predicts them.",
            code="E_NO_LESION",
        )
    return case


def _measure(dated: D, case: Case, noise_of: Callable[[D, Case, Burden], Noise | None]) -> DateFound:
    regions = find_regions(_lung(case), case.volume)
    burden = measure_burden(case.volume, _lesion(case), regions)
    names = ("outside the lungs", *(zone.replace("_", " ") for zone in ZONES))
    zones = tuple(names[int(regions.zones[lesion.seat])] for lesion in burden.lesions)
    whole, floor = burden.whole, FLOOR / np.sqrt(2)
    told = noise_of(dated, case, burden)
    noise = told or Noise(float(floor * whole.lesion_ml), float(floor * whole.percent), "floor")
    return DateFound(dated.label, dated.day, burden, noise, case.lung_source, case.volume.geometry.spacing_mm, zones)


def _lesion(case: Case) -> Mask:
    if case.lesion is None:
        raise AnnotationError(f"{case.case_id} has no lesion mask.", code="E_NO_LESION")
    return case.lesion


def _lung(case: Case) -> Mask:
    if case.lung is None:
        raise GeometryError(f"{case.case_id} has no lung mask.", code="E_NO_LUNG")
    return case.lung


def _step(
    number: int,
    earlier: Case,
    later: Case,
    found: Sequence[DateFound],
    tolerance_mm: float,
    least_ml: float,
    progress: Callable[[str], None],
) -> Step:
    one, other = found[number], found[number + 1]
    if np.array_equal(earlier.volume.hu, later.volume.hu):
        raise CohortError(
            f"{earlier.case_id} and {later.case_id} are one and the same scan, voxel by voxel. Give each date its own scan.",
            code="E_SAME_SCAN",
        )
    registration = register_lungs(earlier, later, lambda text: progress(f"{one.label} to {other.label}: {text}"))
    progress(f"{one.label} to {other.label}: matching lesions")
    labels = label_lesions(_lesion(earlier)), label_lesions(_lesion(later))
    moved = registration.onto_earlier(labels[1], outside=0, linear=False)
    expansion = expansion_of(labels[0], len(one.lesions), registration)
    matching = match_lesions(
        labels[0],
        moved,
        earlier.volume.geometry.spacing_mm,
        (_known(one, earlier, expansion), _known(other, later, np.ones(len(other.lesions)))),
        tolerance_mm=tolerance_mm,
        least_ml=least_ml,
    )
    looks = tuple(_looks(earlier, later, labels[0], moved, matching, registration))
    ml = _ml(one, other, _mean_expansion(one, expansion))
    to_earlier = affine_of(registration, _lung(earlier))
    return Step(number, number + 1, ml, _percent(one, other), matching, registration, to_earlier, looks)


def expansion_of(
    labels: Int32[np.ndarray, "slice row column"], count: int, registration: Registration
) -> Float64[np.ndarray, " lesion"]:
    """What the lung around each lesion of the earlier date does until the later: the mean local change of volume over its voxels."""
    places = np.argwhere(labels > 0)
    if not len(places):
        return np.ones(count)
    local = registration.expansion_at(registration.earlier.world_mm(places))
    numbers = labels[tuple(places.T)]
    sums = np.bincount(numbers, local, minlength=count + 1)[1:]
    return np.asarray(sums / np.maximum(np.bincount(numbers, minlength=count + 1)[1:], 1))


def _known(date: DateFound, case: Case, expansion: np.ndarray) -> Lesions:
    ml = np.array([lesion.volume_ml for lesion in date.lesions])
    relative = date.noise.lesion_ml / date.lesion_ml if date.noise.source != "floor" and date.lesion_ml else 0.0
    noise = [volume_noise(float(one), case.volume.geometry.spacing_mm, relative=relative) for one in ml]
    return Lesions(ml, np.array(noise), expansion)


def _ml(earlier: DateFound, later: DateFound, expansion: float) -> Change:
    noise = (earlier.noise.lesion_ml, later.noise.lesion_ml)
    return change_of(earlier.lesion_ml, later.lesion_ml, noise, expansion * earlier.lesion_ml)


def _percent(earlier: DateFound, later: DateFound) -> Change:
    return change_of(earlier.percent, later.percent, (earlier.noise.percent, later.noise.percent))


def _mean_expansion(date: DateFound, expansion: np.ndarray) -> float:
    ml = np.array([lesion.volume_ml for lesion in date.lesions])
    return float((ml * expansion).sum() / ml.sum()) if ml.sum() else 1.0


def _expected(steps: Sequence[Step]) -> float:
    """What all lesions would have become by the lungs' expansion alone, from the first date to the last."""
    parts = [step.lesion_ml.expected / step.lesion_ml.before for step in steps if step.lesion_ml.before]
    return float(np.prod(parts)) if parts else 1.0


def _looks(
    earlier: Case, later: Case, before: np.ndarray, after: np.ndarray, matching: Matching, registration: Registration
) -> Iterator[Look]:
    """Pictures of the events that matter most, then one axial and one coronal of the registration."""
    moved = registration.onto_earlier(later.volume.hu, outside=_AIR_HU)
    lung = _lung(earlier).voxels
    box = box_of(lung, [math.ceil(_MARGIN_MM / mm) for mm in earlier.volume.geometry.spacing_mm])
    for number in _most_telling(matching):
        event = matching.events[number]
        shown = np.isin(before, event.before) & (before > 0) | np.isin(after, event.after) & (after > 0)
        if not shown.any():
            continue
        index = int(shown.sum(axis=(1, 2)).argmax())
        yield _cut(number, "axial", index, earlier, moved, (lung, before > 0, after > 0, shown), box)
    nothing = np.zeros(before.shape, np.bool_)
    masks = (lung, before > 0, after > 0, nothing)
    yield _cut(None, "axial", int(lung.sum(axis=(1, 2)).argmax()), earlier, moved, masks, box)
    yield _cut(None, "coronal", int(lung.sum(axis=(0, 2)).argmax()), earlier, moved, masks, box)


def _most_telling(matching: Matching) -> list[int]:
    """The events of which pictures are kept: what is not stable first, kind by kind in turn, the largest of a kind first."""
    kinds = [[n for n, event in enumerate(matching.events) if event.kind == kind] for kind in _SHOWN_FIRST]
    turns = max(map(len, kinds), default=0)
    changed = [one[turn] for turn in range(turns) for one in kinds[:-1] if turn < len(one)]
    return [*changed, *kinds[-1]][:MOST_LOOKS]


def _cut(
    event: int | None,
    plane: str,
    index: int,
    earlier: Case,
    moved: np.ndarray,
    masks: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    box: tuple[slice, slice, slice],
) -> Look:
    spacing = earlier.volume.geometry.spacing_mm
    place = (index, box[1], box[2]) if plane == "axial" else (box[0], index, box[2])
    turn = 1 if plane == "axial" else -1  # a coronal picture has the head on top
    hu = [np.clip(np.rint(one[place]), _AIR_HU, 3071).astype(np.int16)[::turn] for one in (earlier.volume.hu, moved)]
    lung, before, after, shown = (mask[place][::turn] for mask in masks)
    pixel = (spacing[1] if plane == "axial" else spacing[0], spacing[2])
    return Look(event, plane, index, pixel, hu[0], hu[1], lung, before, after, shown)


def affine_of(registration: Registration, lung: Mask) -> Float64[np.ndarray, "4 4"]:
    """The affine map, later mm to earlier mm, that comes nearest to a registration inside the lungs: what linked cameras can follow."""
    places = np.argwhere(lung.voxels)
    earlier = lung.geometry.world_mm(places[:: max(1, len(places) // 5000)])
    later = registration.later_mm(earlier)
    known = np.hstack([later, np.ones((len(later), 1))])
    solved, *_ = np.linalg.lstsq(known, earlier, rcond=None)
    affine = np.eye(4)
    affine[:3] = solved.T
    return affine
