"""Scans of one patient are found by what is inside their lungs; other people's are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lungshift.audit.duplicates import Twins, find_twins, group_patients, require_apart, require_whole
from lungshift.ct.case import Case, CaseRecord, Cohort, InMemory
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import LeakageError
from lungshift.io.cohort import read_cohort
from lungshift.prepare.phantom import phantom_cohort
from lungshift.prepare.phantom_site import SITE_A, SITE_B
from lungshift.prepare.prepared import PreparedCase, PreparedCohort, prepare_cohort

Scan = tuple[np.ndarray, np.ndarray]
SIZE, SLICES = 64, 48


def person(number: int) -> Scan:
    """HU and lungs: an oval body of 40 HU with two lungs of -850 HU and vessels in them that nobody else has."""
    z, y, x = np.meshgrid(np.linspace(-1, 1, SLICES), *(np.linspace(-1, 1, SIZE),) * 2, indexing="ij")
    body = np.hypot(x, y / 0.8) < 0.95
    lungs = ((np.abs(x) - 0.42) / 0.36) ** 2 + (y / 0.6) ** 2 + (z / 1.1) ** 4 < 1
    vessels = ndimage.gaussian_filter(np.random.default_rng(number).standard_normal(lungs.shape), 1.5)
    hu = np.where(body, 40.0, -1000.0)
    return np.where(lungs, -850 + 2500 * np.maximum(vessels, 0), hu), lungs


def prepared(folder: Path, scans: dict[str, Scan], name: str = "home", size: int = SIZE) -> PreparedCohort:
    """A cohort of scans by case id, each a patient of that id."""
    records = []
    for case_id, (hu, lungs) in scans.items():
        geometry = Geometry.regular(hu.shape, (5.0, 5.0, 5.0))
        case = Case(
            Volume(np.rint(hu).astype(np.int16), geometry),
            Mask(np.ascontiguousarray(lungs), geometry),
            Mask(np.zeros(hu.shape, bool), geometry),
            case_id,
        )
        records.append(CaseRecord(case_id, case_id, InMemory.of(case)))
    return prepare_cohort(Cohort(name, tuple(records)), folder, size=size)


def pairs(twins: tuple[Twins, ...]) -> list[tuple[str, str]]:
    return [(pair.first[1], pair.second[1]) for pair in twins]


def thick(scan: Scan) -> Scan:
    hu, lungs = (array.astype(float).reshape(-1, 2, SIZE, SIZE).mean(axis=1) for array in scan)
    return hu, lungs >= 0.5


def narrow_window(hu: np.ndarray) -> np.ndarray:
    return np.clip((hu + 1000) / 900, 0, 1) * 255


def moved_and_smaller(scan: Scan) -> Scan:
    """Seen in a larger field, off the middle."""
    hu, lungs = scan
    move = {"matrix": [1, 1.3, 1.3], "offset": [0, -5, -15], "order": 1}
    lungs = ndimage.affine_transform(lungs.astype(float), **move) > 0.5
    return ndimage.affine_transform(hu, **move, cval=-1000), lungs


def noisy(hu: np.ndarray) -> np.ndarray:
    return hu + 60 * np.random.default_rng(99).standard_normal(hu.shape)


CHANGES: dict[str, Callable[[Scan], Scan]] = {
    "nothing": lambda scan: scan,
    "mirrored": lambda scan: (scan[0][..., ::-1], scan[1][..., ::-1]),
    "front to back": lambda scan: (scan[0][:, ::-1], scan[1][:, ::-1]),
    "head to foot": lambda scan: (scan[0][::-1], scan[1][::-1]),
    "turned in every way": lambda scan: (scan[0][::-1, ::-1, ::-1], scan[1][::-1, ::-1, ::-1]),
    "HU offset": lambda scan: (scan[0] + 200, scan[1]),
    "eight bits of a window": lambda scan: (narrow_window(scan[0]), scan[1]),
    "noise": lambda scan: (noisy(scan[0]), scan[1]),
    "slices twice as thick": thick,
    "every other slice": lambda scan: (scan[0][1::2], scan[1][1::2]),
    "the lower half": lambda scan: (scan[0][: SLICES // 2], scan[1][: SLICES // 2]),
    "the middle": lambda scan: (scan[0][10:38], scan[1][10:38]),
    "smaller and off the middle": moved_and_smaller,
    "a larger lung mask": lambda scan: (scan[0], ndimage.binary_dilation(scan[1], np.ones((1, 3, 3)))),
    "a smaller lung mask": lambda scan: (scan[0], ndimage.binary_erosion(scan[1], np.ones((1, 3, 3)))),
    "all at once": lambda scan: thick(moved_and_smaller((noisy(scan[0] + 110)[::-1, :, ::-1], scan[1][::-1, :, ::-1]))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_scan_is_found_again_among_others(tmp_path: Path, change: str) -> None:
    home = prepared(tmp_path, {"anna": person(1), "ben": person(2), "anna again": CHANGES[change](person(1))})

    (pair,) = find_twins(home)

    assert (pair.first, pair.second) == (("home", "anna"), ("home", "anna again"))
    assert pair.patients == ("anna", "anna again")
    assert 0.4 <= pair.likeness <= 1


def test_a_copy_is_the_same_scan_and_said_how_it_was_turned(tmp_path: Path) -> None:
    hu, lungs = person(1)
    home = prepared(tmp_path, {"anna": (hu, lungs), "copy": (hu[::-1, :, ::-1], lungs[::-1, :, ::-1])})

    (pair,) = find_twins(home)

    assert pair.kind == "same scan"
    assert pair.likeness == pytest.approx(1, abs=1e-3)
    assert "turned head to foot and left to right" in pair.reason


def test_a_scan_that_changed_much_is_the_same_patient(tmp_path: Path) -> None:
    (hu, lungs), (other, _) = person(1), person(2)
    changed = np.where(lungs, (hu + other) / 2, hu)

    (pair,) = find_twins(prepared(tmp_path, {"anna": (hu, lungs), "next month": (changed, lungs)}))

    assert pair.kind == "same patient"
    assert 0.4 <= pair.likeness < 0.85


def test_twelve_people_of_one_body_are_twelve(tmp_path: Path) -> None:
    assert find_twins(prepared(tmp_path, {str(number): person(number) for number in range(12)})) == ()


@settings(max_examples=12, deadline=None)
@given(first=st.integers(0, 22), length=st.integers(25, 48), turned=st.booleans())
def test_any_half_is_found_in_the_whole(
    tmp_path_factory: pytest.TempPathFactory, first: int, length: int, turned: bool
) -> None:
    part = slice(first, min(SLICES, first + length))
    hu, lungs = person(1)
    cut = hu[part][:: -1 if turned else 1], lungs[part][:: -1 if turned else 1]

    home = prepared(tmp_path_factory.mktemp("cut"), {"part": cut, "ben": person(2), "whole": (hu, lungs)})

    assert pairs(find_twins(home)) == [("part", "whole")]


def test_parts_of_one_scan_are_known_by_the_slices_where_it_was_cut(tmp_path: Path) -> None:
    (hu, lungs), (ben, _) = person(1), person(2)
    cut = SLICES // 2
    home = prepared(
        tmp_path, {"lower": (hu[:cut], lungs[:cut]), "upper": (hu[cut:], lungs[cut:]), "ben": (ben[cut:], lungs[cut:])}
    )

    (pair,) = find_twins(home)

    assert (pair.first[1], pair.second[1], pair.kind) == ("lower", "upper", "same patient")
    assert "begins where the other ends" in pair.reason


def test_twins_are_found_across_cohorts_of_any_size_and_order(tmp_path: Path) -> None:
    home = prepared(tmp_path, {"anna": person(1), "ben": person(2)})
    away = prepared(tmp_path, {"cleo": person(3), "x": person(1)}, name="away", size=96)

    (pair,), (back,) = find_twins(home, away), find_twins(away, home)

    assert (pair.first, pair.second) == (back.second, back.first) == (("home", "anna"), ("away", "x"))
    assert pair.likeness == pytest.approx(back.likeness, abs=0.05)
    assert find_twins(home, away) == (pair,)


def mask_of_the_body(scan: Scan) -> Scan:
    hu, _ = scan
    return hu, hu > -999


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda scan: (scan[0][20:27], scan[1][20:27]), id="seven slices"),
        pytest.param(lambda scan: (scan[0][:, ::4, ::4], scan[1][:, ::4, ::4]), id="a coarse picture"),
        pytest.param(lambda scan: (scan[0], np.zeros_like(scan[1])), id="no lung"),
        pytest.param(lambda scan: (scan[0], np.ones_like(scan[1])), id="lung everywhere"),
        pytest.param(lambda scan: (np.where(scan[1], -850, scan[0]), scan[1]), id="nothing in the lungs"),
        pytest.param(mask_of_the_body, id="the body as lung"),
    ],
)
def test_what_cannot_be_told_apart_is_not_called_twins_though_it_is(
    tmp_path: Path, spoil: Callable[[Scan], Scan]
) -> None:
    scan = spoil(person(1))

    assert find_twins(prepared(tmp_path, {"anna": scan, "copy": scan}, size=len(scan[0][0]))) == ()


def test_phantom_patients_are_known_at_another_site_and_visit_and_not_taken_for_others(tmp_path: Path) -> None:
    small = {"size": 96, "pixel_mm": 3.6}
    one = phantom_cohort("one", patients=3, site=replace(SITE_A, **small), seed=5)
    two = phantom_cohort("two", patients=2, site=replace(SITE_B, **small, flip="left_right"), seed=5, visits=2)

    home, away = (prepare_cohort(cohort, tmp_path, size=96) for cohort in (one, two))
    twins = find_twins(home, away)

    assert all(pair.patients[0] == pair.patients[1] for pair in twins)
    assert pairs(twins) == [
        ("one-000", "two-000-v0"),
        ("one-000", "two-000-v1"),
        ("one-001", "two-001-v0"),
        ("one-001", "two-001-v1"),
        ("two-000-v0", "two-000-v1"),
        ("two-001-v0", "two-001-v1"),
    ]
    with pytest.raises(LeakageError, match="one-000 of one"):
        require_apart(home, away, twins)
    require_whole(away, twins)


def cohort_of_ids(*patients: str, name: str = "home") -> PreparedCohort:
    """Cases c0, c1, ... of these patients; there is no picture."""
    cases = tuple(
        PreparedCase(f"c{number}", patient, 1, 16, 16, (1.0, 1.0, 1.0), "reader")
        for number, patient in enumerate(patients)
    )
    return PreparedCohort(Path(), name, "", 16, "linear", cases, np.zeros(0), {})


def twins_of(
    cohort: PreparedCohort, first: int, second: int, other: PreparedCohort | None = None, reason: str = "alike"
) -> Twins:
    sides = ((cohort, cohort.cases[first]), (other or cohort, (other or cohort).cases[second]))
    one, two = ((side.name, case.case_id) for side, case in sides)
    return Twins(one, two, (sides[0][1].patient_id, sides[1][1].patient_id), "same patient", 0.7, reason)


def test_patients_of_whom_twins_were_found_are_one() -> None:
    home = cohort_of_ids("d", "b", "a", "c", "b")
    away = cohort_of_ids("d", "b", name="away")
    twins = [twins_of(home, 4, 0), twins_of(home, 0, 2), twins_of(home, 3, 1, away)]

    assert group_patients(home, twins) == ("a+b+d", "a+b+d", "a+b+d", "c", "a+b+d")
    assert group_patients(home, []) == ("d", "b", "a", "c", "b")


@given(patients=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9), data=st.data())
def test_groups_are_the_connected_components(patients: list[str], data: st.DataObject) -> None:
    home = cohort_of_ids(*patients)
    case = st.integers(0, len(patients) - 1)
    edges = data.draw(st.lists(st.tuples(case, case), max_size=8))
    twins = [twins_of(home, *edge) for edge in edges]

    groups = group_patients(home, twins)

    linked = [*edges, *((one, other) for one, a in enumerate(patients) for other, b in enumerate(patients) if a == b)]
    graph = coo_matrix((np.ones(len(linked)), tuple(zip(*linked, strict=True))), shape=(len(patients),) * 2)
    _, label = connected_components(graph, directed=False)
    for one, group in enumerate(groups):
        together = {patient for patient, there in zip(patients, label, strict=True) if there == label[one]}
        assert group == "+".join(sorted(together))


def test_one_patient_of_two_ids_is_refused_with_the_reason_and_the_remedy() -> None:
    home = cohort_of_ids("anna", "ben", "anna")
    require_whole(home, [twins_of(home, 0, 2)])

    with pytest.raises(LeakageError, match=r"c0 of home \(patient anna\) and c1 of home \(patient ben\)") as refused:
        require_whole(home, [twins_of(home, 0, 1, reason="the same vessels")])

    assert refused.value.code == "E_TWINS"
    assert "the same vessels" in str(refused.value)
    assert "one patient id in the manifest, or leave one out" in str(refused.value)


def test_twins_that_were_made_one_patient_are_not_refused() -> None:
    home = cohort_of_ids("anna", "ben")
    twins = [twins_of(home, 0, 1)]
    grouped = [replace(case, patient_id=who) for case, who in zip(home.cases, group_patients(home, twins), strict=True)]

    require_whole(replace(home, cases=tuple(grouped)), twins)


def test_a_patient_in_two_cohorts_is_refused_even_under_one_id() -> None:
    home, away, third = cohort_of_ids("anna"), cohort_of_ids("anna", name="away"), cohort_of_ids("x", name="third")
    twins = [twins_of(home, 0, 0, away)]

    require_apart(home, third, twins)
    require_apart(home, home, [twins_of(home, 0, 0)])
    for source, target in ((home, away), (away, home)):
        with pytest.raises(LeakageError, match="leave one of the two out") as refused:
            require_apart(source, target, twins)
        assert refused.value.code == "E_TWINS"


def test_many_twins_are_counted_and_not_all_told() -> None:
    home = cohort_of_ids("a", "b", "c", "d", "e", "f")

    with pytest.raises(LeakageError, match="and 2 pairs more"):
        require_whole(home, [twins_of(home, 0, n) for n in range(1, 6)])


@pytest.mark.real
def test_of_the_real_cohorts_only_the_known_pair_is_one_patient(real_data: Path, tmp_path: Path) -> None:
    cohorts = [
        prepare_cohort(read_cohort(real_data / name), tmp_path, size=160) for name in ("medseg9", "coronacases10")
    ]

    (pair,) = find_twins(*cohorts)

    assert (pair.first, pair.second) == (("medseg9", "2"), ("medseg9", "3"))
    assert pair.likeness > 0.6
    alone = replace(cohorts[0], cases=tuple(replace(case, patient_id=case.case_id) for case in cohorts[0].cases))
    assert group_patients(alone, [pair])[:4] == ("1", "2+3", "2+3", "4")
    with pytest.raises(LeakageError, match="2 of medseg9"):
        require_whole(alone, [pair])
    require_apart(*cohorts, [pair])
