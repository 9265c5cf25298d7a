"""Several dates of one phantom patient, with changes of single lesions planted and known.

The first date is the chest as it is; on every later one the patient lies and breathes anew (``phantom_motion``), noise is drawn anew, and each
planted lesion does what the plan says. Lesions are kept apart, so that two of them meet only where they are meant to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import ProtocolError
from lungshift.prepare.phantom import DAYS_BETWEEN, Recipe, phantom_anatomy, phantom_geometry, render_chest
from lungshift.prepare.phantom_anatomy import Anatomy, lung_depth
from lungshift.prepare.phantom_lesions import Lesion, draw_border
from lungshift.prepare.phantom_motion import STILL, Breathing, Motion, draw_motion, move_scan
from lungshift.prepare.phantom_site import Site, draw_noise, stored

ChangeKind = Literal["new", "grown", "stable", "shrunk", "gone", "merged", "split"]
CHANGES: tuple[ChangeKind, ...] = ("new", "grown", "stable", "shrunk", "gone", "merged", "split")
_RADIUS_MM = (6.0, 14.0)
_GROWTH = (1.2, 1.5)
_APART_MM = 9.0
_PAIR_GAP_MM = (5.0, 9.0)
_PLACES, _MOTION, _NOISE = 11, 12, 13
_TRIES = 4000


@dataclass(frozen=True)
class PlantedChange:
    """What was done to a lesion between two dates.

    Attributes:
        kind: What it is.
        earlier_mm: Centres of its lesions in the earlier scan, LPS; none if it is new.
        later_mm: Centres of its lesions in the later scan; none if it is gone.
        factor: Radius on the later date over the earlier; 1 where that is not what changed.
    """

    kind: ChangeKind
    earlier_mm: tuple[tuple[float, float, float], ...]
    later_mm: tuple[tuple[float, float, float], ...]
    factor: float


@dataclass(frozen=True, eq=False)
class PhantomDate:
    """One date of a phantom patient.

    Attributes:
        case: The scan with its true lungs and lesions.
        day: Days since the first date.
        motion: Where its tissue lay on the first date; None on that itself.
        changes: What was planted since the date before.
    """

    case: Case
    day: int
    motion: Motion | None
    changes: tuple[PlantedChange, ...]


def phantom_dates(
    seed: int,
    patient: int,
    site: Site,
    plans: Sequence[Sequence[ChangeKind]],
    *,
    breathing: Breathing | None = None,
) -> tuple[PhantomDate, ...]:
    """A phantom patient on two dates or more.

    Args:
        seed: Of the patients.
        patient: Number of the patient, from 0.
        site: Where all scans are made; it may not flip them.
        plans: For each date after the first, the changes to plant; each has lesions of its own, which keep still on all other dates.
        breathing: How the patient lies and breathes on later dates; as ``Breathing()`` if not given, ``STILL`` for as before.

    Raises:
        ProtocolError: No later date, a site that flips, or more lesions than the lungs have room for.
    """
    recipe = Recipe(seed, patient, site)
    if not plans or site.flip or site.eight_bit:
        raise ProtocolError(
            "A follow-up has a first date and later ones, at a site that neither flips its scans nor cuts them to 8 bits."
        )
    anatomy, rng = phantom_anatomy(recipe), recipe.rng(_PLACES)
    courses = _courses(rng, anatomy, plans)
    how = Breathing() if breathing is None else breathing
    motions: list[Motion | None] = [None]
    for date in range(1, len(plans) + 1):
        low, high = _box(anatomy)
        motions.append(None if how == STILL else draw_motion(recipe.rng(_MOTION, date), how, low, high))
    dates = []
    for date, motion in enumerate(motions):
        lesions = tuple(lesion for course in courses for lesion in course.states[date])
        case = _scan(recipe, lesions, motion, date)
        changes = tuple(course.change(motions) for course in courses if course.date == date)
        dates.append(PhantomDate(case, DAYS_BETWEEN * date, motion, changes))
    return tuple(dates)


@dataclass(frozen=True, eq=False)
class _Course:
    """One planted change over all dates: the lesions that are there on each."""

    kind: ChangeKind
    date: int
    states: tuple[tuple[Lesion, ...], ...]
    factor: float

    def change(self, motions: Sequence[Motion | None]) -> PlantedChange:
        """As it is seen in the scans before and at its date."""
        earlier, later = (
            tuple(_placed(lesion, motions[at]) for lesion in _pieces(self.states[at]))
            for at in (self.date - 1, self.date)
        )
        return PlantedChange(self.kind, earlier, later, self.factor)


def _pieces(lesions: tuple[Lesion, ...]) -> tuple[Lesion, ...]:
    """The lesions of a state that are seen as pieces of their own: of three with a bridge the bridge, which is in their middle."""
    return lesions[2:] or lesions


def _placed(lesion: Lesion, motion: Motion | None) -> tuple[float, float, float]:
    at = np.array(lesion.centre_mm)
    x, y, z = (at if motion is None else motion.forward_mm(at)).tolist()
    return x, y, z


def _courses(rng: np.random.Generator, anatomy: Anatomy, plans: Sequence[Sequence[ChangeKind]]) -> list[_Course]:
    courses: list[_Course] = []
    taken: list[tuple[np.ndarray, float]] = []
    for date, plan in enumerate(plans, 1):
        for kind in plan:
            courses.append(_course(rng, anatomy, kind, date, len(plans) + 1, taken))
    return courses


def _course(
    rng: np.random.Generator,
    anatomy: Anatomy,
    kind: ChangeKind,
    date: int,
    dates: int,
    taken: list[tuple[np.ndarray, float]],
) -> _Course:
    radius = float(rng.uniform(*_RADIUS_MM))
    factor = float(rng.uniform(*_GROWTH)) if kind in ("grown", "shrunk") else 1.0
    small, large = radius, radius * factor
    if kind in ("merged", "split"):
        radius, gap = 0.8 * radius, float(rng.uniform(*_PAIR_GAP_MM))
        apart = 2 * 1.2 * radius + gap
        way = _direction(rng)
        ends_mm = np.array([-1.0, 0.0, 1.0])[:, None] * apart / 2 * way
        centre = _place(rng, anatomy, apart / 2 + 1.3 * radius, taken, ends_mm, deep=0.3 * radius)
        ends = [_lesion(rng, centre + side * apart / 2 * way, radius) for side in (-1, 1)]
        bridge = _lesion(rng, centre, apart / 2)
        before, after = (*ends,), (*ends, bridge)
        before, after = (before, after) if kind == "merged" else (after, before)
    else:
        lesion = _lesion(rng, _place(rng, anatomy, 1.3 * large, taken, np.zeros((1, 3)), deep=2.0), small)
        grown = replace(lesion, radii_mm=_scaled(lesion.radii_mm, factor))
        before, after = {
            "new": ((), (lesion,)),
            "gone": ((lesion,), ()),
            "grown": ((lesion,), (grown,)),
            "shrunk": ((grown,), (lesion,)),
        }.get(kind, ((lesion,), (lesion,)))
    states = tuple(before if at < date else after for at in range(dates))
    return _Course(kind, date, states, 1 / factor if kind == "shrunk" else factor)


def _place(
    rng: np.random.Generator,
    anatomy: Anatomy,
    reach: float,
    taken: list[tuple[np.ndarray, float]],
    parts_mm: np.ndarray,
    deep: float,
) -> np.ndarray:
    """A place in the lungs, away from all lesions there are, with all parts (shifts from it) at least so deep."""
    low, high = _box(anatomy)
    for _ in range(_TRIES):
        at = rng.uniform(low, high)
        if lung_depth(anatomy, *(at + parts_mm).T).min() < deep:
            continue
        if all(np.linalg.norm(at - other) > reach + radius + _APART_MM for other, radius in taken):
            taken.append((at, reach))
            return np.asarray(at)
    raise ProtocolError(f"The lungs have no room for {len(taken) + 1} lesions that do not touch; plan fewer changes.")


def _lesion(rng: np.random.Generator, centre: np.ndarray, radius: float) -> Lesion:
    x, y, z = (float(one) for one in centre)
    dense = bool(rng.random() < 0.35)
    return Lesion(
        number=0,
        kind="consolidation" if dense else "ground_glass",
        centre_mm=(x, y, z),
        radii_mm=(radius, radius * float(rng.uniform(0.85, 1.0)), radius * float(rng.uniform(0.9, 1.15))),
        hu=float(rng.uniform(-650, -450)),
        core_hu=float(rng.uniform(-100, 40)),
        core=float(rng.uniform(0.35, 0.75)) if dense else 0.0,
        softness=float(rng.uniform(0.25, 0.6)),
        waves=draw_border(rng, radius),
    )


def _scaled(radii: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    x, y, z = radii
    return factor * x, factor * y, factor * z


def _direction(rng: np.random.Generator) -> np.ndarray:
    way = rng.normal(size=3)
    return np.asarray(way / np.linalg.norm(way))


def _box(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    a = anatomy
    low = np.array([-a.cavity_width, a.middle_y - a.cavity_depth, 0.0])
    return low, np.array([a.cavity_width, a.middle_y + a.cavity_depth, a.height])


def _scan(recipe: Recipe, lesions: tuple[Lesion, ...], motion: Motion | None, date: int) -> Case:
    """The chest with these lesions, moved, with noise of its own."""
    site, geometry = recipe.site, phantom_geometry(recipe)
    hu, *shares = render_chest(recipe, lesions)
    if motion is None:
        lung, lesion = (share >= 0.5 for share in shares)
    else:
        first, geometry = geometry, _covering(geometry, motion, phantom_anatomy(recipe))
        hu, (lung, lesion) = move_scan(hu, shares, first, motion, geometry)
    lesion &= lung
    noise = (draw_noise(recipe.rng(_NOISE, date, index), site) for index in range(len(hu)))
    noisy = np.stack([stored(one + grain, site) for one, grain in zip(hu, noise, strict=True)])
    return Case(
        Volume(noisy, geometry),
        Mask(lung, geometry),
        Mask(lesion, geometry),
        f"{recipe.patient_id}-d{date}",
        recipe.patient_id,
    )


def _covering(first: Geometry, motion: Motion, anatomy: Anatomy) -> Geometry:
    """The first date's grid, its ends moved along with those of the lungs: a scanner covers the chest as it lies."""
    low, high = _box(anatomy)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    moved = motion.forward_mm(corners)[:, 2]
    below, above = low[2] - first.affine[2, 3], first.world_mm(np.array([first.shape[0] - 1, 0, 0]))[2] - high[2]
    count = int(np.ceil((moved.max() - moved.min() + below + above) / first.spacing_mm[0])) + 1
    affine = first.affine.copy()
    affine[2, 3] = moved.min() - below
    return Geometry((count, *first.shape[1:]), affine)
