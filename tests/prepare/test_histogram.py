"""A scan is made to have the histogram of others, by a table from HU to HU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.ct.case import Case
from lungshift.errors import CohortError
from lungshift.prepare.histogram import HuHistogram, histogram_of, match, matched
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from worlds import cohort_of, tiny_case

LUNG = (slice(8, 24), slice(4, 28))


def histogram(pixels: dict[int, int]) -> HuHistogram:
    counts = np.zeros(4096, np.int64)
    for hu, count in pixels.items():
        counts[hu + 1024] = count
    return HuHistogram(counts)


def sparse() -> st.SearchStrategy[HuHistogram]:
    return st.dictionaries(st.integers(-1024, 3071), st.integers(1, 10**6), min_size=1, max_size=30).map(histogram)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    cases = (tiny_case(seed) for seed in range(2))
    return prepare_cohort(cohort_of(*cases), tmp_path_factory.mktemp("prepared"), size=32)


def brighter(case: Case, offset: int) -> Case:
    return replace(case, volume=replace(case.volume, hu=case.volume.hu + np.int16(offset)))


def seen_table(found: HuHistogram, wanted: HuHistogram, *hu: int) -> list[int]:
    return match(found, wanted)[np.array(hu) + 1024].tolist()


def test_quantiles_go_to_quantiles() -> None:
    found, wanted = histogram({0: 1, 10: 2, 20: 1}), histogram({100: 1, 300: 2, 400: 1})

    assert seen_table(found, wanted, 0, 10, 20) == [100, 300, 400]
    assert seen_table(found, wanted, 5, 15) == [200, 350], "between those that were found"
    assert seen_table(found, wanted, -7, 27) == [93, 407], "shifted beyond them"
    assert seen_table(found, wanted, -1024, 3071) == [-924, 3071], "and never out of range"


def test_a_half_between_two_kinds_goes_between_them() -> None:
    assert seen_table(histogram({0: 4}), histogram({-50: 1, 50: 1}), 0) == [0]


@given(one=sparse())
def test_the_same_histogram_changes_nothing(one: HuHistogram) -> None:
    np.testing.assert_array_equal(match(one, one), np.arange(-1024, 3072))


@given(found=sparse(), wanted=sparse())
def test_a_brighter_pixel_never_becomes_darker(found: HuHistogram, wanted: HuHistogram) -> None:
    table = match(found, wanted)

    assert table.dtype == np.int16
    assert (np.diff(table.astype(int)) >= 0).all()
    occurs = np.flatnonzero(wanted.counts) - 1024
    kept = table[found.counts > 0]
    assert (kept >= occurs[0]).all()
    assert (kept <= occurs[-1]).all()


@given(one=sparse(), offset=st.integers(-300, 300))
def test_an_offset_is_undone_exactly(one: HuHistogram, offset: int) -> None:
    occurs = np.flatnonzero(one.counts) - 1024
    inside = occurs[(occurs + offset >= -1024) & (occurs + offset <= 3071)]
    if not len(inside):
        return
    wanted = histogram({int(hu): int(one.counts[hu + 1024]) for hu in inside})
    found = histogram({int(hu) + offset: int(one.counts[hu + 1024]) for hu in inside})

    np.testing.assert_array_equal(match(found, wanted)[inside + offset + 1024], inside)


def test_pixels_are_counted_inside_the_lung_boxes(prepared: PreparedCohort) -> None:
    counts = histogram_of(prepared, np.array([0, 1, 7])).counts

    pixels = np.concatenate([prepared.hu(row)[LUNG].ravel() for row in (1, 7)])
    values, wanted = np.unique(pixels, return_counts=True)
    np.testing.assert_array_equal(np.flatnonzero(counts) - 1024, values)
    np.testing.assert_array_equal(counts[counts > 0], wanted)


def test_slices_without_lung_have_no_histogram(prepared: PreparedCohort) -> None:
    with pytest.raises(CohortError, match="Have the slices lung"):
        histogram_of(prepared, np.array([0, 5]))


def test_each_scan_is_matched_by_its_own_table(prepared: PreparedCohort, tmp_path: Path) -> None:
    """Every scan of the target has an offset of its own; all come back to the pictures they were."""
    wanted = [histogram_of(prepared, np.arange(first + 1, first + 5)) for first in (0, 5)]
    shifted = prepare_cohort(cohort_of(brighter(tiny_case(0), 40), brighter(tiny_case(1), -20)), tmp_path, size=32)

    for number, rows in enumerate((range(5), range(5, 10))):
        repaired = matched(shifted, wanted[number])
        for row in rows:
            np.testing.assert_array_equal(repaired.hu(row), prepared.hu(row))
            np.testing.assert_array_equal(repaired.hu(row, LUNG), prepared.hu(row, LUNG))


def test_masks_stay_and_the_key_tells_the_wanted_histogram(prepared: PreparedCohort) -> None:
    one, other = (matched(prepared, histogram_of(prepared, np.array([row]))) for row in (1, 2))

    assert len({prepared.key, one.key, other.key}) == 3
    np.testing.assert_array_equal(one.lung(1), prepared.lung(1))
    np.testing.assert_array_equal(one.lesion(1), prepared.lesion(1))
    assert one.hu(1).dtype == np.int16


def test_a_scan_without_lung_stays_as_it_is(tmp_path: Path) -> None:
    case = tiny_case()
    empty = replace(case.lung, voxels=np.zeros_like(case.lung.voxels))  # type: ignore[type-var,union-attr]
    cohort = prepare_cohort(cohort_of(replace(case, lung=empty)), tmp_path, size=32)

    np.testing.assert_array_equal(matched(cohort, histogram({0: 1})).hu(1), cohort.hu(1))
