"""How scans look, on chests drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from chests import LUNG, TISSUE, chest, chests
from lungshift.prepare.peaks import Peaks, between
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.transfer.looks import PackedMasks, Scan, scans_of


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    return chests(tmp_path_factory.mktemp("looks"), "home", chest(0), chest(1))


@pytest.fixture
def scan(cohort: PreparedCohort) -> Scan:
    return scans_of(cohort, np.arange(len(cohort.table)))[0]


def test_a_scan_is_its_rows_with_lung(cohort: PreparedCohort) -> None:
    one, other = scans_of(cohort, np.array([2, 9, 3]))

    assert (one.number, other.number) == (0, 1)
    assert (one.rows.tolist(), other.rows.tolist()) == ([2, 3], [9])


def test_peaks_are_where_lung_and_soft_tissue_are(scan: Scan) -> None:
    assert scan.peaks.lung == pytest.approx(LUNG, abs=5)
    assert scan.peaks.tissue == pytest.approx(TISSUE, abs=5)


def test_contrast_is_the_same_on_any_scale() -> None:
    np.testing.assert_allclose(Peaks(-850, 50).contrast(np.array([-850, -400, 50])), [0, 0.5, 1])
    np.testing.assert_allclose(Peaks(80, 240).contrast(np.array([80, 160, 240])), [0, 0.5, 1])


def test_soft_tissue_is_looked_for_between_the_lungs_and_away_from_them() -> None:
    lung = np.zeros((5, 16), bool)
    lung[1:4, 2:4] = lung[1:4, 12:14] = True

    rows, columns = np.nonzero(between(lung))
    assert set(rows) == {1, 2, 3}
    assert columns.min() >= 5
    assert columns.max() <= 10


@pytest.mark.parametrize(
    ("change", "eight_bit"),
    [(lambda _, hu: np.clip((hu + 1350) * 0.17, 0, 255), True), (lambda _, hu: hu, False)],
    ids=["a window of 8 bits", "HU"],
)
def test_eight_bits_are_told_from_hu(cohort: PreparedCohort, change: object, eight_bit: bool) -> None:
    seen = changed(cohort, "scale", hu=change)  # type: ignore[arg-type]

    assert scans_of(seen, np.arange(8))[0].is_eight_bit is eight_bit


def test_the_box_is_of_the_masks_as_they_are_seen(cohort: PreparedCohort) -> None:
    moved = changed(cohort, "moved", lung=lambda _, mask: np.roll(mask, 2, axis=1))

    box, own = (scans_of(one, np.arange(8))[0].box for one in (moved, cohort))
    assert box == (own[0], slice(own[1].start + 2, own[1].stop + 2))


def test_masks_are_packed_and_unpacked() -> None:
    mask = np.random.default_rng(0).random((13, 13)) > 0.5
    masks = PackedMasks(13)
    masks.put(4, mask)

    np.testing.assert_array_equal(masks[4], mask)
    np.testing.assert_array_equal(masks.get(5, ~mask), ~mask)


def test_lungs_by_threshold_are_found_for_every_row(scan: Scan) -> None:
    made = scan.threshold_lungs

    assert len(made) == len(scan.rows)
    overlap = sum(np.count_nonzero(made[row] & scan.cohort.lung(row)) for row in scan.rows)
    assert overlap / sum(np.count_nonzero(scan.cohort.lung(row)) for row in scan.rows) > 0.9


def test_there_are_none_where_numbers_are_no_hu(cohort: PreparedCohort) -> None:
    bright = changed(cohort, "bright", hu=lambda _, hu: hu + 2000)

    assert not scans_of(bright, np.arange(8))[0].threshold_lungs
