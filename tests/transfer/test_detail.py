"""How sharp and how noisy scans are, on chests drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from chests import chest, chests
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.transfer.detail import fine_detail, noise_of, remove_sharpness, with_detail
from lungshift.transfer.looks import Scan, scans_of

PIXEL_MM = 2.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    return chests(tmp_path_factory.mktemp("detail"), "home", *(chest(seed) for seed in range(3)))


@pytest.fixture
def scan(cohort: PreparedCohort) -> Scan:
    return scans_of(cohort, np.arange(len(cohort.table)))[0]


def noisy(cohort: PreparedCohort, spread_hu: float) -> PreparedCohort:
    def hu(row: int, picture: np.ndarray) -> np.ndarray:
        return picture + np.random.default_rng(row).normal(0, spread_hu, picture.shape)

    return changed(cohort, f"noise {spread_hu}", hu=hu)


def all_of(cohort: PreparedCohort) -> list[Scan]:
    return scans_of(cohort, np.arange(len(cohort.table)))


class TestDetail:
    def test_noise_shows_in_the_finest_band_first(self, cohort: PreparedCohort, scan: Scan) -> None:
        loud = Scan(noisy(cohort, 200), scan.number, scan.rows)

        ratio = fine_detail(loud, PIXEL_MM) / fine_detail(scan, PIXEL_MM)
        assert ratio[0] > 1.5
        assert ratio[0] > ratio[1] > ratio[2]

    def test_it_does_not_depend_on_the_scale_of_the_numbers(self, cohort: PreparedCohort, scan: Scan) -> None:
        shifted = changed(cohort, "scaled", hu=lambda _, hu: 0.2 * hu.astype(np.float32) + 300)

        np.testing.assert_allclose(fine_detail(scans_of(shifted, scan.rows)[0], 2.0), fine_detail(scan, 2.0), rtol=0.02)

    def test_a_band_finer_than_the_pixels_is_not_known(self, scan: Scan) -> None:
        assert np.isnan(fine_detail(scan, 1.0)).tolist() == [True, False, False]

    def test_gains_of_one_leave_the_picture_and_gains_of_none_leave_its_blur(self) -> None:
        picture = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)

        np.testing.assert_array_equal(with_detail(picture, (0.6, 1.2, 2.4), (1, 1, 1)), picture)
        assert with_detail(picture, (0.6, 1.2, 2.4), (0, 0, 0)).std() < 0.2 * picture.std()


class TestNoise:
    def test_it_is_measured_where_there_is_little_else(self, cohort: PreparedCohort, scan: Scan) -> None:
        quiet, loud = (noise_of(Scan(one, 0, scan.rows), PIXEL_MM) for one in (noisy(cohort, 30), noisy(cohort, 60)))

        own_hu, contrast_hu = 12, 890  # of the chests
        expected = np.sqrt((60**2 + own_hu**2) / (30**2 + own_hu**2))
        assert loud[0] / quiet[0] == pytest.approx(expected, rel=0.1)
        assert 0.3 * 60 / contrast_hu < loud[0] < 60 / contrast_hu

    def test_a_scan_without_tissue_between_its_lungs_has_none(self, cohort: PreparedCohort, scan: Scan) -> None:
        one_lung = changed(cohort, "one lung", lung=lambda _, mask: mask & (np.arange(64) < 30))

        assert np.isnan(noise_of(Scan(one_lung, 0, scan.rows), PIXEL_MM)).all()


class TestRemoval:
    def test_a_blur_is_filtered_back_to_the_sources_detail(self, cohort: PreparedCohort) -> None:
        from scipy import ndimage

        soft = changed(cohort, "soft", hu=lambda _, hu: ndimage.gaussian_filter(hu.astype(np.float32), 0.6))

        removal = remove_sharpness(all_of(cohort), all_of(soft))

        assert removal.seen is not None
        assert removal.at_home is None
        wanted = fine_detail(all_of(cohort)[0], PIXEL_MM)
        assert fine_detail(all_of(soft)[0], PIXEL_MM)[0] < 0.7 * wanted[0]
        np.testing.assert_allclose(fine_detail(all_of(removal.seen)[0], PIXEL_MM), wanted, rtol=0.1)

    def test_noise_is_put_into_the_source_as_strong_as_it_is_here(self, cohort: PreparedCohort) -> None:
        loud = noisy(cohort, 80)

        removal = remove_sharpness(all_of(cohort), all_of(loud))

        assert removal.at_home is not None
        assert "3 of 3 scans" in removal.found
        wanted, got = (noise_of(all_of(one)[1], PIXEL_MM) for one in (loud, removal.at_home))
        np.testing.assert_allclose(got, wanted, rtol=0.25)
        np.testing.assert_array_equal(removal.at_home.hu(5), removal.at_home.hu(5))
