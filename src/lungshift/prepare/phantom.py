"""Phantom chest CT: cohorts of made-up patients at made-up hospitals, with the truth known.

A patient is a seed and a number: the same chest and the same lesions at every ``Site``, slice thickness and pixel size. ``phantom_cohort``
makes each scan only when it is read, so that a cohort of hundreds costs nothing to name. The same arguments make the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import lru_cache, partial

import numpy as np
from jaxtyping import Bool, Float32

from lungshift.ct.case import Case, CaseRecord, Cohort, InMemory
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CohortError, ProtocolError
from lungshift.prepare.phantom_anatomy import (
    BLOOD_HU,
    Anatomy,
    Plane,
    Trees,
    body_distance,
    draw_anatomy,
    draw_body,
    draw_trees,
    draw_tubes,
    inside,
    lung_depth,
    lung_field,
)
from lungshift.prepare.phantom_errors import LabelError, Planted, plant
from lungshift.prepare.phantom_lesions import (
    TYPICAL,
    Lesion,
    LesionEvent,
    Lesions,
    draw_lesions,
    next_visit,
    paint_lesions,
)
from lungshift.prepare.phantom_site import Site, annotate, blur, draw_noise, flipped, stored

RECIPE = 1
"""Number of the recipe; it changes whenever the same arguments would make another picture, and with it every checksum."""

DAY_ZERO, DAYS_BETWEEN = date(2020, 3, 1), 7
"""The first visit of every patient, and the days between two visits."""

_WALL_HU = -150.0
_LUMEN_HU = -1000.0
_SUB_MM, _MOST_PARTS = 3.0, 3
_ANATOMY, _LESIONS, _NOISE, _READERS, _ERRORS, _TREES = range(6)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of a phantom scan and its annotation.

    Attributes:
        lung: The lungs, with the lesions in them and the fluid beside them.
        lesion: The lesions before any reader drew them, on the grid (and turned as the voxels) of the scan.
        lesions: Each lesion at this visit.
        events: What happened to each lesion up to and at this visit.
        planted: The label errors in the annotation.
    """

    lung: Mask
    lesion: Mask
    lesions: tuple[Lesion, ...]
    events: tuple[LesionEvent, ...]
    planted: tuple[Planted, ...]


@dataclass(frozen=True)
class Recipe:
    """Everything that makes one phantom scan.

    Attributes:
        seed: Of the cohort's patients.
        patient: Number of the patient, from 0.
        site: Where the scan is made and read.
        lesions: How ill the patients are.
        visit: Number of the visit, from 0.
        label_errors: What goes wrong in the annotation.
    """

    seed: int
    patient: int
    site: Site
    lesions: Lesions = TYPICAL
    visit: int = 0
    label_errors: tuple[LabelError, ...] = ()

    def __post_init__(self) -> None:
        if min(self.seed, self.patient, self.visit) < 0:
            raise ProtocolError(
                f"Seed, patient and visit are counted from 0; got {self.seed}, {self.patient}, {self.visit}."
            )

    @property
    def patient_id(self) -> str:
        """One patient keeps it at every site and visit."""
        return f"phantom-{self.seed}-{self.patient:03d}"

    @property
    def digest(self) -> str:
        """SHA-256 of the settings, which stand for the voxels."""
        return hashlib.sha256(f"{RECIPE} {self!r}".encode()).hexdigest()

    def rng(self, *stream: int) -> np.random.Generator:
        """An own stream of random numbers for each purpose, so that one switch never moves another's dice."""
        return np.random.default_rng([self.seed, self.patient, *stream])


def phantom_case(
    seed: int,
    patient: int,
    site: Site,
    *,
    lesions: Lesions = TYPICAL,
    visit: int = 0,
    label_errors: tuple[LabelError, ...] = (),
) -> Case:
    """One scan of a phantom patient, as the site stores and annotates it.

    Args:
        seed: Of the cohort's patients.
        patient: Number of the patient, from 0; seed and patient together are one person.
        site: Where the scan is made and read.
        lesions: How ill the patients are.
        visit: Number of the visit, from 0: the same chest, lesions that have changed.
        label_errors: Planted into the annotation; their own ``patient`` and ``visit`` are not looked at here.

    Raises:
        ProtocolError: A negative seed, patient or visit.
    """
    recipe = Recipe(seed, patient, site, lesions, visit, label_errors)
    return _make(recipe, f"{recipe.patient_id}-v{visit}")


def phantom_cohort(
    name: str,
    *,
    patients: int,
    site: Site,
    seed: int,
    label_errors: tuple[LabelError, ...] = (),
    visits: int = 1,
    lesions: Lesions = TYPICAL,
) -> Cohort:
    """A cohort of phantom patients at one site; no scan is made before it is read.

    Args:
        name: Of the cohort; case ids begin with it.
        patients: How many.
        site: Where all scans are made and read.
        seed: Two cohorts of one seed have the same patients, and the same patient ids.
        label_errors: Which annotations are spoilt, and how.
        visits: Scans of each patient, a week apart.
        lesions: How ill the patients are.

    Raises:
        CohortError: No patient or no visit.
        ProtocolError: A label error for a patient or visit that the cohort does not have.
    """
    if patients < 1 or visits < 1:
        raise CohortError(f"A cohort has at least one patient and one visit; got {patients} and {visits}.")
    if lost := [error for error in label_errors if error.patient >= patients or error.visit >= visits]:
        raise ProtocolError(f"Cohort {name!r} has {patients} patients with {visits} visits; no place for {lost}.")
    records = []
    for patient in range(patients):
        for visit in range(visits):
            errors = tuple(error for error in label_errors if (error.patient, error.visit) == (patient, visit))
            recipe = Recipe(seed, patient, site, lesions, visit, errors)
            case_id = f"{name}-{patient:03d}" + (f"-v{visit}" if visits > 1 else "")
            records.append(_record(recipe, case_id))
    return Cohort(name, tuple(records), licence="made up, no patient", source=f"phantom recipe {RECIPE}, seed {seed}")


def phantom_truth(record: CaseRecord) -> Truth:
    """What is known of a case of a phantom cohort: the masks before any reader, lesions, events, planted errors.

    Raises:
        CohortError: The case is not a phantom.
    """
    if not isinstance(record.source, PhantomSource):
        raise CohortError(f"Nothing but its own annotation is known of {record.case_id}: it is not a phantom.")
    recipe = record.source.recipe
    hu, lung, lesion = _render(recipe)
    _, planted = _annotated(recipe, lung, lesion)
    geometry = phantom_geometry(recipe)
    present, events = _course(recipe)
    return Truth(
        Mask(flipped(lung, recipe.site), geometry),
        Mask(flipped(lesion, recipe.site), geometry),
        present,
        events,
        _as_stored(planted, recipe, len(hu)),
    )


def phantom_geometry(recipe: Recipe) -> Geometry:
    """The grid of a scan, known before it is made."""
    low, high = _anatomy(recipe.seed, recipe.patient).z_range_mm
    site = recipe.site
    count = max(1, int(np.ceil((high - low) / site.slice_mm)))
    corner = -(site.size - 1) / 2 * site.pixel_mm
    spacing = (site.slice_mm, site.pixel_mm, site.pixel_mm)
    return Geometry.regular((count, site.size, site.size), spacing, (corner, corner, low + site.slice_mm / 2))


@dataclass(frozen=True, eq=False)
class PhantomSource(InMemory):
    """A ``CaseSource`` that makes the scan when it is read, and knows its recipe."""

    recipe: Recipe = Recipe(0, 0, Site())


def _record(recipe: Recipe, case_id: str) -> CaseRecord:
    source = PhantomSource(
        partial(_make, recipe, case_id), phantom_geometry(recipe), digest=recipe.digest, recipe=recipe
    )
    day = DAY_ZERO + timedelta(days=DAYS_BETWEEN * recipe.visit)
    return CaseRecord(case_id, recipe.patient_id, source, recipe.site.name, day.isoformat())


def _make(recipe: Recipe, case_id: str) -> Case:
    hu, lung, lesion = _render(recipe)
    drawn, _ = _annotated(recipe, lung, lesion)
    site, geometry = recipe.site, phantom_geometry(recipe)
    return Case(
        Volume(flipped(hu, site), geometry),
        Mask(flipped(lung, site), geometry),
        Mask(flipped(drawn, site), geometry),
        case_id,
        recipe.patient_id,
    )


@lru_cache(maxsize=32)
def _anatomy(seed: int, patient: int) -> Anatomy:
    return draw_anatomy(np.random.default_rng([seed, patient, _ANATOMY]))


@lru_cache(maxsize=32)
def _trees(seed: int, patient: int) -> Trees:
    return draw_trees(np.random.default_rng([seed, patient, _TREES]), _anatomy(seed, patient))


def _course(recipe: Recipe) -> tuple[tuple[Lesion, ...], tuple[LesionEvent, ...]]:
    """The lesions at the recipe's visit, and everything that happened on the way."""
    anatomy = _anatomy(recipe.seed, recipe.patient)
    present = draw_lesions(recipe.rng(_LESIONS, 0), anatomy, recipe.lesions)
    events = [LesionEvent(0, lesion.number, "present", 1.0, lesion.centre_mm) for lesion in present]
    free = len(present)
    for visit in range(1, recipe.visit + 1):
        present, news = next_visit(recipe.rng(_LESIONS, visit), anatomy, recipe.lesions, present, visit, free)
        events.extend(news)
        free += sum(event.change == "appears" for event in news)
    return present, tuple(events)


def phantom_anatomy(recipe: Recipe) -> Anatomy:
    """The chest of the recipe's patient."""
    return _anatomy(recipe.seed, recipe.patient)


def render_chest(recipe: Recipe, lesions: tuple[Lesion, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The recipe's chest with other lesions than its own, without noise.

    Returns:
        HU as the site's scanner sees them, the share of each voxel that is lung, and that is lesion: float32, (slice, row, column).
    """
    geometry = phantom_geometry(recipe)
    found = [np.empty(geometry.shape, np.float32) for _ in range(3)]
    for index, (slice_hu, lung, lesion) in enumerate(_slices(recipe, geometry, lesions)):
        found[0][index], found[1][index], found[2][index] = blur(slice_hu, recipe.site), lung, lesion
    return found[0], found[1], found[2]


def _render(recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU as stored (int16), true lung and true lesion, not yet turned round; one slice in memory besides the result."""
    lesions, _ = _course(recipe)
    geometry = phantom_geometry(recipe)
    hu = np.empty(geometry.shape, np.int16)
    lung, lesion = np.empty(geometry.shape, np.bool_), np.empty(geometry.shape, np.bool_)
    for index, (slice_hu, lung_share, lesion_share) in enumerate(_slices(recipe, geometry, lesions)):
        noise = draw_noise(recipe.rng(_NOISE, recipe.visit, index), recipe.site)
        hu[index] = stored(blur(slice_hu, recipe.site) + noise, recipe.site)
        lung[index] = lung_share >= 0.5
        lesion[index] = (lesion_share >= 0.5) & lung[index]
    return hu, lung, lesion


def _slices(
    recipe: Recipe, geometry: Geometry, lesions: tuple[Lesion, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each slice as the mean over its thickness: HU, share of lung, share of lesion."""
    site, anatomy = recipe.site, _anatomy(recipe.seed, recipe.patient)
    plane = Plane.centred(site.size, site.pixel_mm)
    parts = min(_MOST_PARTS, int(np.ceil(site.slice_mm / _SUB_MM)))
    trees = _trees(recipe.seed, recipe.patient)
    for index in range(geometry.shape[0]):
        middle = geometry.affine[2, 3] + index * site.slice_mm
        heights = middle + ((np.arange(parts) + 0.5) / parts - 0.5) * site.slice_mm
        thin = [_draw(anatomy, trees, lesions, plane, float(z)) for z in heights]
        hu, lung, lesion = (np.mean(np.stack(images), axis=0) for images in zip(*thin, strict=True))
        yield np.asarray(hu), np.asarray(lung), np.asarray(lesion)


def _draw(
    anatomy: Anatomy, trees: Trees, lesions: tuple[Lesion, ...], plane: Plane, z: float
) -> tuple[Float32[np.ndarray, "row column"], Float32[np.ndarray, "row column"], Float32[np.ndarray, "row column"]]:
    """The chest in an infinitely thin slice at height ``z``: HU, share of lung, share of lesion."""
    hu = draw_body(anatomy, plane, z)
    lung = inside(-lung_depth(anatomy, plane.x, plane.y, z), plane)
    lesion = np.zeros_like(hu)
    if lung.any():
        tissue = lung_field(anatomy, plane, z)
        paint_lesions(tissue, lesion, lesions, anatomy, plane, z)
        tissue += draw_tubes(trees.bronchus_walls, plane, z) * np.maximum(_WALL_HU - 300 - tissue, 0)
        tissue += draw_tubes(trees.bronchi, plane, z) * (_LUMEN_HU + 30 - tissue)
        tissue += draw_tubes(trees.vessels, plane, z) * np.maximum(BLOOD_HU - tissue, 0)
        hu += lung * (tissue - hu)
    airway = draw_tubes(trees.airway_walls, plane, z)
    hu += airway * (_WALL_HU + 150 - hu)
    hu += draw_tubes(trees.airways, plane, z) * (_LUMEN_HU - hu)
    return hu, lung * (1 - airway), lesion * lung


def _annotated(
    recipe: Recipe, lung: np.ndarray, lesion: np.ndarray
) -> tuple[Bool[np.ndarray, "slice row column"], tuple[Planted, ...]]:
    """The lesion mask as the site's readers draw it, with the planted errors."""
    site = recipe.site
    drawn = np.empty_like(lesion)
    for index in range(len(lesion)):
        drawn[index] = annotate(recipe.rng(_READERS, recipe.visit, index), lesion[index], lung[index], site)
    planted, geometry = [], phantom_geometry(recipe)
    for number, error in enumerate(recipe.label_errors):
        rng = recipe.rng(_ERRORS, recipe.visit, number)
        drawn, record = plant(rng, error, drawn, lung, _body(recipe, geometry), geometry)
        planted.append(record)
    return drawn, tuple(planted)


def _body(recipe: Recipe, geometry: Geometry) -> Bool[np.ndarray, "slice row column"]:
    plane = Plane.centred(recipe.site.size, recipe.site.pixel_mm)
    body = body_distance(_anatomy(recipe.seed, recipe.patient), plane.x, plane.y) < 0
    return np.broadcast_to(body, geometry.shape)


def _as_stored(planted: tuple[Planted, ...], recipe: Recipe, slices: int) -> tuple[Planted, ...]:
    """The records with slice numbers as in the array that the site stores."""
    if recipe.site.flip != "head_foot":
        return planted
    return tuple(replace(one, slices=tuple(slices - 1 - index for index in reversed(one.slices))) for one in planted)
