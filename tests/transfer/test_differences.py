"""Differences found and taken away without labels, on chests drawn by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chests import chest, chests
from lungshift.ct.case import Case
from lungshift.ct.volume import Mask, Volume
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.transfer.differences import (
    REMOVERS,
    Frame,
    remove_hu,
    remove_lung_mask,
    remove_orientation,
    remove_pixel_size,
    remove_slice_thickness,
    thickened,
)
from lungshift.transfer.looks import Scan, scans_of

Change = Callable[[int, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> list[Scan]:
    return all_of(chests(tmp_path_factory.mktemp("home"), "home", *(chest(seed) for seed in range(3))))


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    return chests(tmp_path_factory.mktemp("away"), "away", *(chest(seed) for seed in (10, 11)))


def all_of(cohort: PreparedCohort) -> list[Scan]:
    return scans_of(cohort, np.arange(len(cohort.table)))


def only_first(cohort: PreparedCohort, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda row, picture: change(picture) if cohort.table["case"][row] == 0 else picture


@pytest.mark.parametrize("name", REMOVERS)
def test_cohorts_that_look_alike_have_no_difference(home: list[Scan], away: PreparedCohort, name: str) -> None:
    removal = REMOVERS[name](home, all_of(away))  # type: ignore[index]

    assert removal.seen is None
    assert removal.at_home is None
    assert removal.note == ""


class TestHu:
    @pytest.mark.parametrize(
        "change",
        [lambda hu: hu + 150, lambda hu: hu * np.float32(0.8) - 100, lambda hu: np.clip((hu + 1350) * 0.17, 0, 255)],
        ids=["offset", "scale", "8 bits"],
    )
    def test_the_scan_that_is_off_comes_back_to_the_sources_values(
        self, home: list[Scan], away: PreparedCohort, change: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        off = changed(away, "off", hu=only_first(away, change))

        removal = remove_hu(home, all_of(off))

        assert removal.seen is not None
        assert "1 of 2 scans" in removal.found
        lung = away.lung(3)
        np.testing.assert_allclose(removal.seen.hu(3)[lung], away.hu(3)[lung], atol=15)
        np.testing.assert_array_equal(removal.seen.hu(9), away.hu(9))

    def test_eight_bits_are_named(self, home: list[Scan], away: PreparedCohort) -> None:
        window = changed(away, "window", hu=lambda _, hu: np.clip((hu + 1350) * 0.17, 0, 255))

        assert "8-bit" in remove_hu(home, all_of(window)).found


class TestPixelSize:
    @pytest.mark.parametrize("factor", [1.5, 0.7])
    def test_a_frame_enlarges_and_brings_back(self, factor: float) -> None:
        mask = np.zeros((64, 64), bool)
        mask[24:36, 20:44] = True
        frame = Frame(factor, (30.0, 32.0), cuts=False)

        larger = frame.mask(mask)

        assert larger.sum() == pytest.approx(mask.sum() * factor**2, rel=0.15)
        assert np.count_nonzero(frame.back(larger) ^ mask) <= 0.1 * mask.sum() + 24

    def test_smaller_pixels_are_found_by_their_millimetres(self, home: list[Scan], away: PreparedCohort) -> None:
        cases = tuple(replace(case, spacing_mm=(5.0, 1.4, 1.4)) for case in away.cases)

        removal = remove_pixel_size(home, all_of(replace(away, cases=cases)))

        assert removal.seen is not None
        assert "2.00 mm at home, 1.40 mm here" in removal.found
        assert removal.seen.lung(3).sum() == pytest.approx(away.lung(3).sum() * 0.49, rel=0.05)
        back = removal.back(3, removal.seen.lung(3))
        assert np.count_nonzero(back ^ away.lung(3)) < 0.1 * away.lung(3).sum()

    def test_lungs_that_do_not_fit_are_told(self, home: list[Scan], away: PreparedCohort) -> None:
        cases = tuple(replace(case, spacing_mm=(5.0, 4.0, 4.0)) for case in away.cases)

        assert "do not fit" in remove_pixel_size(home, all_of(replace(away, cases=cases))).note


class TestSliceThickness:
    def test_thin_slices_are_averaged(self, home: list[Scan], tmp_path: Path) -> None:
        thin = chests(tmp_path, "thin", chest(10, slices=24, slice_mm=5 / 3))

        removal = remove_slice_thickness(home, all_of(thin))

        assert removal.seen is not None
        np.testing.assert_allclose(removal.seen.hu(9), np.mean([thin.hu(row) for row in (8, 9, 10)], axis=0), atol=0.1)
        np.testing.assert_array_equal(removal.seen.lesion(9), thin.lesion(9))

    def test_thick_ones_are_put_into_the_source(self, home: list[Scan], tmp_path: Path) -> None:
        thick = chests(tmp_path, "thick", chest(10, slices=4, slice_mm=10.0))

        removal = remove_slice_thickness(home, all_of(thick))

        assert removal.seen is None
        assert removal.at_home is not None
        expected = np.average([home[0].cohort.hu(row) for row in (2, 3, 4)], axis=0, weights=[1, 2, 1])
        np.testing.assert_allclose(removal.at_home.hu(3), expected, atol=0.1)

    def test_a_mask_keeps_what_most_of_a_thick_slice_holds(self, home: list[Scan]) -> None:
        cohort = home[0].cohort
        thick = thickened(cohort, {0}, 15.0)

        assert not cohort.lesion(0).any()
        np.testing.assert_array_equal(thick.lesion(1), cohort.lesion(1))
        np.testing.assert_array_equal(thick.lesion(9), cohort.lesion(9))


class TestOrientation:
    @pytest.mark.parametrize("axis", [0, 1])
    def test_a_scan_lying_otherwise_is_turned_back(self, home: list[Scan], away: PreparedCohort, axis: int) -> None:
        turn = only_first(away, lambda picture: np.flip(picture, axis))
        turned = changed(away, "turned", hu=turn, lung=turn, lesion=turn)

        removal = remove_orientation(home, all_of(turned))

        assert removal.seen is not None
        np.testing.assert_array_equal(removal.seen.hu(3), away.hu(3))
        np.testing.assert_array_equal(removal.seen.hu(12), away.hu(12))
        np.testing.assert_array_equal(removal.back(3, away.lesion(3)), turned.lesion(3))

    def test_head_for_foot_changes_the_neighbours(self, home: list[Scan], tmp_path: Path) -> None:
        case = chest(10)
        assert case.lung
        assert case.lesion
        over = Case(
            Volume(case.volume.hu[::-1].copy(), case.volume.geometry),
            Mask(case.lung.voxels[::-1].copy(), case.volume.geometry),
            Mask(case.lesion.voxels[::-1].copy(), case.volume.geometry),
            "over",
        )

        removal = remove_orientation(home, all_of(chests(tmp_path, "over", over)))

        assert "head for foot" in removal.found
        assert removal.seen is not None
        assert removal.seen.neighbour(3, 5.0) == 2


class TestLungMask:
    def test_masks_without_their_lesions_are_made_anew(self, home: list[Scan], away: PreparedCohort) -> None:
        bare = changed(away, "bare", lung=only_first(away, lambda mask: mask & (np.indices(mask.shape)[0] < 30)))

        removal = remove_lung_mask(home, all_of(bare))

        assert removal.seen is not None
        assert np.count_nonzero(removal.seen.lung(3) ^ away.lung(3)) < 0.1 * away.lung(3).sum()
        np.testing.assert_array_equal(removal.seen.lung(12), away.lung(12))

    def test_without_hu_no_masks_can_be_made_and_that_is_told(self, home: list[Scan], away: PreparedCohort) -> None:
        bright = changed(away, "bright", hu=lambda _, hu: hu + 2000)

        removal = remove_lung_mask(home, all_of(bright))

        assert removal.seen is None
        assert "are these HU?" in removal.note
