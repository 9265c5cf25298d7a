"""A scan with what was drawn on it, and the cohort it belongs to."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.ct.case import Case, CaseRecord, Cohort, InMemory
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CohortError, GeometryError

SHAPE = (3, 2, 2)
GRID = Geometry.regular(SHAPE, (5.0, 1.0, 1.0))
VOLUME = Volume(np.arange(12, dtype=np.int16).reshape(SHAPE), GRID)
LUNG = Mask(np.ones(SHAPE, dtype=bool), GRID)
LESION = Mask(VOLUME.hu > 6, GRID)


def record(case_id: str, patient_id: str = "p") -> CaseRecord:
    """A case in memory as a cohort keeps it."""
    return CaseRecord(case_id, patient_id, InMemory.of(Case(VOLUME, LUNG, LESION)), lung_source="threshold")


def test_a_case_alone_is_its_own_patient() -> None:
    assert Case(VOLUME, case_id="a").patient_id == "a"
    assert Case(VOLUME, case_id="a", patient_id="p").patient_id == "p"


def test_without_a_lung_mask_nobody_drew_it() -> None:
    assert Case(VOLUME, lung_source="reader").lung_source == "none"
    assert Case(VOLUME, LUNG, lung_source="model").lung_source == "model"


@pytest.mark.parametrize("name", ["lung", "lesion"])
def test_a_mask_on_another_grid_is_refused_by_name(name: str) -> None:
    moved = Mask(LUNG.voxels, Geometry.regular(SHAPE, (5.0, 1.0, 1.0), (0.0, 0.0, 5.0)))

    with pytest.raises(GeometryError, match=f"ct7: scan and {name} mask do not fit.*5 mm apart"):
        Case(VOLUME, **{name: moved}, case_id="ct7")  # type: ignore[arg-type]


def test_a_record_reads_the_case_it_stands_for() -> None:
    case = record("a", "p").read()

    assert (case.case_id, case.patient_id, case.lung_source) == ("a", "p", "threshold")
    assert case.lesion is LESION


def test_nothing_is_read_before_it_is_asked_for() -> None:
    made: list[str] = []

    def make(name: str) -> Case:
        made.append(name)
        return Case(VOLUME, case_id=name)

    sources = {name: InMemory(lambda name=name: make(name), GRID, False, False, "seed 1") for name in "ab"}  # type: ignore[misc]
    cohort = Cohort("phantoms", tuple(CaseRecord(name, name, source) for name, source in sources.items()))
    cases = cohort.read()

    assert made == []
    assert next(cases).case_id == "a"
    assert made == ["a"]


def test_slices_come_in_order_with_the_masks_that_exist() -> None:
    full, bare = (list(InMemory.of(case).slices()) for case in (Case(VOLUME, LUNG, LESION), Case(VOLUME)))

    assert [one.index for one in full] == [0, 1, 2]
    for index, one in enumerate(full):
        np.testing.assert_array_equal(one.hu, VOLUME.hu[index])
        np.testing.assert_array_equal(one.lung, LUNG.voxels[index])
        np.testing.assert_array_equal(one.lesion, LESION.voxels[index])
    assert all(one.lung is None and one.lesion is None for one in bare)


def test_a_source_says_what_it_has_without_reading() -> None:
    source = InMemory.of(Case(VOLUME, LUNG))

    assert (source.has_lung, source.has_lesion, source.geometry) == (True, False, GRID)


def test_checksums_follow_the_voxels() -> None:
    once, again, other = (
        InMemory.of(Case(VOLUME, LUNG, lesion)).checksums()
        for lesion in (LESION, Mask(LESION.voxels.copy(), GRID), Mask(~LESION.voxels, GRID))
    )

    assert set(once) == {"scan voxels", "lung voxels", "lesion voxels"}
    assert once == again
    assert {name for name in once if once[name] != other[name]} == {"lesion voxels"}


def test_checksums_follow_the_place_of_the_voxels() -> None:
    moved = Geometry.regular(SHAPE, (5.0, 1.0, 1.0), (0.0, 0.0, 5.0))
    here, there = (InMemory.of(Case(Volume(VOLUME.hu, grid))).checksums() for grid in (GRID, moved))

    assert here != there


def test_a_generated_case_is_known_by_its_digest() -> None:
    source = InMemory(lambda: Case(VOLUME), GRID, digest="seed 1")

    assert source.checksums() == {"scan generated": "seed 1"}


def test_patients_stand_in_the_order_of_their_first_case() -> None:
    cohort = Cohort("source", (record("1", "z"), record("2", "a"), record("3", "z")))

    assert cohort.patients == ("z", "a")


def test_an_empty_cohort_is_refused() -> None:
    with pytest.raises(CohortError, match="'source' has no case") as refusal:
        Cohort("source", ())

    assert refusal.value.code == "E_EMPTY_COHORT"


def test_two_cases_of_one_id_are_refused_by_name() -> None:
    with pytest.raises(CohortError, match="more than one case called 1, 3; ids must be unique"):
        Cohort("source", (record("1"), record("2"), record("1"), record("3"), record("3")))


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "a\\b", "a\0b", "", ".hidden"])
def test_a_cohorts_name_never_leads_out_of_a_folder(name: str) -> None:
    with pytest.raises(CohortError, match="folder's"):
        Cohort(name, (record("1", "z"),))
