"""Phantom cohorts: the same arguments make the same bits, each switch changes what it says, the truth is known."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungshift.ct.case import Case, CaseRecord, InMemory
from lungshift.errors import CohortError, ProtocolError
from lungshift.prepare.phantom import Recipe, phantom_case, phantom_cohort, phantom_geometry, phantom_truth
from lungshift.prepare.phantom_errors import LabelError
from lungshift.prepare.phantom_lesions import TYPICAL, Lesions
from lungshift.prepare.phantom_site import FLIP_AXIS, Site

CLEAN = Site(noise_hu=0, slice_mm=12, pixel_mm=4.4, size=80)
NOISY = replace(CLEAN, noise_hu=20)
SEVERE = Lesions(mild=0, moderate=0, severe=1)
NONE = Lesions(mild=0, moderate=0, severe=0)


@lru_cache(maxsize=64)
def made(site: Site = CLEAN, patient: int = 0, lesions: Lesions = TYPICAL, visit: int = 0) -> Case:
    """A case of seed 3 that several tests look at; made once."""
    return phantom_case(3, patient, site, lesions=lesions, visit=visit)


def heart_side(case: Case) -> float:
    """Mean column, from the middle, of soft tissue in the front half of the chest, two fifths up the lungs: the heart."""
    lung = case.lung.voxels
    used = np.flatnonzero(lung.any(axis=(1, 2)))
    index = used[int(len(used) * (0.6 if lung_height(case) > 0 else 0.4))]
    rows, columns = (np.flatnonzero(lung[index].any(axis=axis)) for axis in (1, 0))
    if table_row(case) < 0:
        rows = rows[::-1]
    soft = (case.volume.hu[index] > -20) & ~lung[index]
    front = soft[rows[3 : len(rows) // 2], columns[0] : columns[-1]]
    return float(np.argwhere(front)[:, 1].mean() - (columns[-1] - columns[0]) / 2)


def table_row(case: Case) -> float:
    """Mean row, from the middle, of what lies outside the body: the table."""
    hu = case.volume.hu[len(case.volume.hu) // 2].astype(int)
    return float(np.argwhere(hu[:, :3] > -990)[:, 0].mean() - (hu.shape[0] - 1) / 2)


def lung_height(case: Case) -> float:
    """Where the widest slice of lung is, from the middle: below it."""
    area = case.lung.voxels.sum(axis=(1, 2))
    return float(np.argmax(area) - (len(area) - 1) / 2)


def test_the_same_arguments_make_the_same_bits() -> None:
    one, other = (phantom_case(3, 1, NOISY, visit=1) for _ in range(2))
    np.testing.assert_array_equal(one.volume.hu, other.volume.hu)
    np.testing.assert_array_equal(one.lesion.voxels, other.lesion.voxels)


@pytest.mark.parametrize("change", [{"seed": 4}, {"patient": 2}])
def test_another_seed_or_patient_is_another_chest(change: dict[str, int]) -> None:
    one = Recipe(3, 1, CLEAN)
    other = replace(one, **change)
    assert one.digest != other.digest
    assert one.patient_id != other.patient_id
    first, second = (phantom_case(r.seed, r.patient, CLEAN).lung.volume_ml for r in (one, other))
    assert first != pytest.approx(second, rel=1e-3)


def test_a_chest_is_plausible() -> None:
    case = made(CLEAN)
    hu, lung = case.volume.hu, case.lung.voxels
    assert hu.dtype == np.int16
    assert 2500 < case.lung.volume_ml < 7000
    assert -900 < np.median(hu[lung & ~case.lesion.voxels]) < -780
    assert np.median(hu[:, :5, :]) == -1000
    assert 300 < hu.max() < 1000


def test_the_back_of_the_lung_is_denser_than_the_front() -> None:
    case = made(CLEAN, lesions=NONE)
    middle = len(case.volume.hu) // 2
    rows = np.flatnonzero(case.lung.voxels[middle].any(axis=1))
    third = len(rows) // 3
    front, back = (
        np.median(case.volume.hu[middle][part][case.lung.voxels[middle][part]])
        for part in (rows[:third], rows[-third:])
    )
    assert back > front + 20


def test_the_heart_is_on_the_left_the_table_behind_and_the_lungs_wider_below() -> None:
    case = made(CLEAN)
    assert heart_side(case) > 1
    assert table_row(case) > 10
    assert lung_height(case) < 0


@pytest.mark.parametrize("flip", ["left_right", "up_down", "head_foot"])
def test_a_flip_turns_the_voxels_and_the_header_does_not_say_so(flip: str) -> None:
    plain, turned = made(NOISY), made(replace(NOISY, flip=flip))
    plain.volume.geometry.require_same(turned.volume.geometry)
    for name in ("volume", "lung", "lesion"):
        one, other = (getattr(case, name) for case in (plain, turned))
        array = "hu" if name == "volume" else "voxels"
        np.testing.assert_array_equal(np.flip(getattr(one, array), FLIP_AXIS[flip]), getattr(other, array))
    landmarks = {"left_right": heart_side, "up_down": table_row, "head_foot": lung_height}
    for name, landmark in landmarks.items():
        sign = -1 if name == flip else 1
        assert landmark(turned) * sign * landmark(plain) > 0, name


@settings(max_examples=8, deadline=None)
@given(offset=st.integers(-200, 200), noise=st.sampled_from([0.0, 30.0]))
def test_an_offset_shifts_every_voxel_by_exactly_that(offset: int, noise: float) -> None:
    site = replace(CLEAN, noise_hu=noise, slice_mm=15, size=48, pixel_mm=7.2)
    plain, shifted = (made(s).volume.hu.astype(int) for s in (site, replace(site, hu_offset=offset)))
    np.testing.assert_array_equal(shifted - plain, offset)


def test_sites_that_differ_in_name_only_make_equal_arrays() -> None:
    one, other = made(NOISY), made(replace(NOISY, name="another"))
    np.testing.assert_array_equal(one.volume.hu, other.volume.hu)


@pytest.mark.parametrize(
    "change",
    [
        {"hu_offset": 50},
        {"sharpness_mm": 6},
        {"edge": 1},
        {"noise_hu": 40},
        {"noise_texture_mm": 12},
        {"eight_bit": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_switch_of_the_scanner_leaves_the_truth_and_the_annotation_alone(change: dict[str, float]) -> None:
    one, other = made(NOISY), made(replace(NOISY, **change))
    assert (one.volume.hu != other.volume.hu).any()
    np.testing.assert_array_equal(one.lung.voxels, other.lung.voxels)
    np.testing.assert_array_equal(one.lesion.voxels, other.lesion.voxels)


@pytest.mark.parametrize("annotation", ["generous", "blocky"])
def test_a_style_of_annotation_changes_the_lesion_mask_only(annotation: str) -> None:
    site = replace(CLEAN, pixel_mm=2.2, size=160)
    one, other = (made(s, lesions=SEVERE) for s in (site, replace(site, annotation=annotation)))
    np.testing.assert_array_equal(one.volume.hu, other.volume.hu)
    np.testing.assert_array_equal(one.lung.voxels, other.lung.voxels)
    both = np.count_nonzero(one.lesion.voxels & other.lesion.voxels)
    dice = 2 * both / (np.count_nonzero(one.lesion.voxels) + np.count_nonzero(other.lesion.voxels))
    assert 0.6 < dice < 0.99
    assert not (other.lesion.voxels & ~other.lung.voxels).any()
    if annotation == "generous":
        assert not (one.lesion.voxels & ~other.lesion.voxels).any()


@pytest.mark.parametrize("texture", [0.0, 6.0, 12.0])
def test_noise_has_the_spread_asked_for_whatever_its_grain(texture: float) -> None:
    quiet = replace(CLEAN, noise_texture_mm=texture)
    plain, noisy = (made(s).volume.hu.astype(float) for s in (quiet, replace(quiet, noise_hu=30)))
    tissue = plain > -900
    assert np.std((noisy - plain)[tissue]) == pytest.approx(30, rel=0.12)


def test_coarser_grain_makes_neighbours_alike() -> None:
    def likeness(texture: float) -> float:
        site = replace(CLEAN, noise_texture_mm=texture)
        noise = made(replace(site, noise_hu=30)).volume.hu - made(site).volume.hu
        part = noise[8, 25:55, 25:55].astype(float)
        return float(np.corrcoef(part[:, 1:].ravel(), part[:, :-1].ravel())[0, 1])

    assert likeness(0) < 0.15
    assert likeness(12) > 0.6


def test_a_softer_kernel_smears_edges_and_a_sharp_one_overshoots() -> None:
    soft, plain, sharp = (
        made(replace(CLEAN, **change)).volume.hu.astype(float)
        for change in ({"sharpness_mm": 10}, {"sharpness_mm": 0}, {"sharpness_mm": 0, "edge": 2.0})
    )
    steps = [np.abs(np.diff(hu, axis=2)).mean() for hu in (soft, plain, sharp)]
    assert steps == sorted(steps)
    assert steps[0] < 0.9 * steps[1] < 0.9 * steps[2]


def test_eight_bit_values_are_a_lung_window() -> None:
    hu, bits = (made(s).volume.hu.astype(float) for s in (CLEAN, replace(CLEAN, eight_bit=True)))
    assert bits.min() >= 0
    assert bits.max() == 255
    np.testing.assert_array_equal(bits, np.rint(np.clip((hu + 1350) / 1500, 0, 1) * 255))


@pytest.mark.parametrize(
    "finer", [{"slice_mm": 4.0}, {"pixel_mm": 2.2, "size": 160}], ids=["thinner slices", "smaller pixels"]
)
def test_another_grid_samples_the_same_anatomy(finer: dict[str, float]) -> None:
    one, other = (made(s, lesions=SEVERE) for s in (CLEAN, replace(CLEAN, **finer)))
    assert one.lung.volume_ml == pytest.approx(other.lung.volume_ml, rel=0.03)
    assert one.lesion.volume_ml == pytest.approx(other.lesion.volume_ml, rel=0.08)
    for mask in ("lung", "lesion"):
        first, second = (_centre_mm(getattr(case, mask)) for case in (one, other))
        assert np.abs(first - second).max() < 3


def _centre_mm(mask) -> np.ndarray:
    return mask.geometry.world_mm(np.argwhere(mask.voxels)).mean(axis=0)


def test_a_thick_slice_is_the_mean_of_thin_ones() -> None:
    thick, thin = replace(CLEAN, slice_mm=9, sharpness_mm=0), replace(CLEAN, slice_mm=3, sharpness_mm=0)
    one, other = (made(site).volume.hu.astype(float) for site in (thick, thin))
    count = min(len(one), len(other) // 3)
    mean = other[: 3 * count].reshape(count, 3, *other.shape[1:]).mean(axis=1)
    assert np.abs(one[:count] - mean).max() <= 1


def test_lesions_lie_in_the_lungs_are_denser_and_leave_slices_free() -> None:
    case = made(CLEAN, lesions=replace(SEVERE, effusion=0))
    lesion, lung, hu = case.lesion.voxels, case.lung.voxels, case.volume.hu
    assert lesion.any()
    assert not (lesion & ~lung).any()
    assert np.median(hu[lesion]) > np.median(hu[lung & ~lesion]) + 150
    assert (lung.any(axis=(1, 2)) & ~lesion.any(axis=(1, 2))).any()


def test_patients_without_lesions_have_none() -> None:
    assert not made(CLEAN, lesions=NONE).lesion.voxels.any()


def test_an_effusion_is_fluid_at_the_back_of_one_side() -> None:
    case = made(CLEAN, lesions=replace(SEVERE, effusion=1.0))
    without = made(CLEAN, lesions=replace(SEVERE, effusion=0.0))
    fluid = case.lesion.voxels & ~without.lesion.voxels
    assert fluid.any()
    places = np.argwhere(fluid) - (np.array(fluid.shape) - 1) / 2
    assert (places[:, 1] > 5).all()
    assert abs(np.sign(places[:, 2]).sum()) == len(places)


def test_the_cohort_is_named_at_once_and_made_when_read() -> None:
    cohort = phantom_cohort("far", patients=200, site=CLEAN, seed=9)
    assert len(cohort.cases) == 200
    assert cohort.cases[7].case_id == "far-007"
    assert cohort.cases[7].site == "A"
    case = cohort.cases[7].read()
    case.volume.geometry.require_same(cohort.cases[7].source.geometry)
    np.testing.assert_array_equal(case.volume.hu, phantom_case(9, 7, CLEAN).volume.hu)


def test_a_patient_is_the_same_person_at_every_site_and_visit() -> None:
    one = phantom_cohort("near", patients=2, site=CLEAN, seed=9)
    other = phantom_cohort("far", patients=2, site=NOISY, seed=9, visits=2)
    assert one.patients == other.patients == ("phantom-9-000", "phantom-9-001")
    assert [case.date for case in other.cases[:2]] == ["2020-03-01", "2020-03-08"]
    assert set(one.patients).isdisjoint(phantom_cohort("near", patients=2, site=CLEAN, seed=10).patients)


def test_checksums_tell_settings_apart_without_making_the_scan() -> None:
    sums = {
        phantom_cohort("c", patients=1, site=site, seed=seed).cases[0].source.checksums()["scan generated"]
        for site, seed in ((CLEAN, 1), (NOISY, 1), (CLEAN, 2))
    }
    assert len(sums) == 3
    again = phantom_cohort("c", patients=1, site=CLEAN, seed=1).cases[0].source.checksums()["scan generated"]
    assert again in sums


def test_visits_keep_the_chest_and_log_what_happens_to_each_lesion() -> None:
    cohort = phantom_cohort("dates", patients=1, site=CLEAN, seed=3, visits=3, lesions=replace(SEVERE, effusion=0))
    truths = [phantom_truth(record) for record in cohort.cases]
    for truth in truths[1:]:
        np.testing.assert_array_equal(truth.lung.voxels, truths[0].lung.voxels)
    assert {event.change for event in truths[-1].events} >= {"present", "grows", "shrinks", "vanishes"}
    for visit in range(1, 3):
        _check_visit(truths[visit - 1], truths[visit], visit)


def _check_visit(before, after, visit: int) -> None:
    """The lesions seen are those of the visit before with the logged changes, and no others."""
    assert after.events[: len(before.events)] == before.events
    radius = {lesion.number: lesion.radii_mm[0] for lesion in before.lesions}
    for event in after.events[len(before.events) :]:
        assert event.visit == visit
        if event.change == "appears":
            assert event.lesion not in radius
            radius[event.lesion] = next(le.radii_mm[0] for le in after.lesions if le.number == event.lesion)
        elif event.change == "vanishes":
            del radius[event.lesion]
        else:
            radius[event.lesion] *= event.factor
    assert {lesion.number: pytest.approx(lesion.radii_mm[0]) for lesion in after.lesions} == radius


@pytest.mark.parametrize(
    ("kind", "flip"),
    [
        ("removed", None),
        ("spurious", "left_right"),
        ("shifted", None),
        ("shifted", "head_foot"),
        ("dilated", "up_down"),
        ("outside_lung", "head_foot"),
    ],
)
def test_a_planted_error_is_where_its_record_says(kind: str, flip: str | None) -> None:
    site = replace(CLEAN, flip=flip)
    cohort = phantom_cohort("c", patients=2, site=site, seed=3, label_errors=(LabelError(kind, 1),), lesions=SEVERE)
    spoilt = cohort.cases[1]
    truth, case = phantom_truth(spoilt), spoilt.read()
    changed = case.lesion.voxels != truth.lesion.voxels
    (planted,) = truth.planted
    assert planted.voxels == np.count_nonzero(changed) > 0
    assert planted.slices == tuple(np.flatnonzero(changed.any(axis=(1, 2))))
    added, lost = case.lesion.voxels & ~truth.lesion.voxels, truth.lesion.voxels & ~case.lesion.voxels
    lung = truth.lung.voxels
    assert lost.any() == (kind in ("removed", "shifted"))
    assert added.any() == (kind != "removed")
    if kind == "outside_lung":
        assert not (added & lung).any()
    if kind == "spurious":
        assert not (added & ~lung).any()


def test_an_error_in_the_labels_leaves_the_scan_alone() -> None:
    plain = made(NOISY)
    spoilt = phantom_case(3, 0, NOISY, label_errors=(LabelError("dilated", 0),))
    np.testing.assert_array_equal(plain.volume.hu, spoilt.volume.hu)
    np.testing.assert_array_equal(plain.lung.voxels, spoilt.lung.voxels)


@pytest.mark.parametrize("kind", ["removed", "shifted", "dilated"])
def test_an_error_that_finds_no_lesion_changes_nothing_and_says_so(kind: str) -> None:
    cohort = phantom_cohort("c", patients=1, site=CLEAN, seed=3, label_errors=(LabelError(kind, 0),), lesions=NONE)
    (planted,) = phantom_truth(cohort.cases[0]).planted
    assert (planted.slices, planted.voxels) == ((), 0)


def test_the_truth_of_a_case_that_is_no_phantom_is_not_known() -> None:
    record = CaseRecord("real", "real", InMemory.of(made(CLEAN)))
    with pytest.raises(CohortError, match="not a phantom"):
        phantom_truth(record)


def test_the_grid_covers_the_lungs() -> None:
    geometry = phantom_geometry(Recipe(3, 0, CLEAN))
    assert geometry.spacing_mm == (12.0, 4.4, 4.4)
    lung = made(CLEAN).lung.voxels
    assert not lung[0].any()
    assert not lung[-1].any()


@pytest.mark.parametrize(
    "change",
    [{"noise_hu": -1}, {"slice_mm": 0}, {"pixel_mm": 0.1}, {"size": 8}, {"flip": "sideways"}, {"annotation": "sloppy"}],
    ids=str,
)
def test_a_site_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        replace(CLEAN, **change)


def test_an_empty_cohort_and_errors_without_a_patient_are_refused() -> None:
    with pytest.raises(CohortError, match="at least one patient"):
        phantom_cohort("c", patients=0, site=CLEAN, seed=1)
    with pytest.raises(ProtocolError, match="no place"):
        phantom_cohort("c", patients=1, site=CLEAN, seed=1, label_errors=(LabelError("removed", 1),))
    with pytest.raises(ProtocolError, match="counted from 0"):
        phantom_case(-1, 0, CLEAN)
    with pytest.raises(ProtocolError, match="one of"):
        LabelError("smudged", 0)
