"""A prepared cohort seen through a change."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.prepare.views import changed, lungs_as_target
from worlds import cohort_of, tiny_case

PART = (slice(4, 12), slice(2, 30))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    return prepare_cohort(cohort_of(tiny_case(0), tiny_case(1)), tmp_path_factory.mktemp("prepared"), size=32)


def test_what_is_not_changed_stays_as_it_is(cohort: PreparedCohort) -> None:
    seen = changed(cohort, "nothing")

    for read in ("hu", "lung", "lesion"):
        np.testing.assert_array_equal(getattr(seen, read)(3), getattr(cohort, read)(3))
    np.testing.assert_array_equal(seen.native_lesion(3), cohort.native_lesion(3))
    assert seen.table is cohort.table


def test_a_change_is_told_the_row_and_sees_the_whole_picture(cohort: PreparedCohort) -> None:
    seen = changed(cohort, "moved", hu=lambda row, picture: np.roll(picture, 3, axis=0) + row)

    np.testing.assert_array_equal(seen.hu(2, PART), (np.roll(cohort.hu(2), 3, axis=0) + 2)[PART])
    np.testing.assert_array_equal(seen.lung(2), cohort.lung(2))


def test_masks_change_on_their_own(cohort: PreparedCohort) -> None:
    seen = changed(cohort, "no lesion", lesion=lambda _, mask: np.zeros_like(mask))

    assert not seen.lesion(1, PART).any()
    assert cohort.lesion(1, PART).any()


def test_changes_follow_one_another(cohort: PreparedCohort) -> None:
    brighter = changed(cohort, "brighter", hu=lambda _, picture: picture + 10)
    both = changed(brighter, "doubled", hu=lambda _, picture: picture * 2)

    np.testing.assert_array_equal(both.hu(0), (cohort.hu(0) + 10) * 2)


def test_neighbours_change_sides_in_a_case_that_is_seen_upside_down(cohort: PreparedCohort) -> None:
    seen = changed(cohort, "turned", upside_down=frozenset({1}))

    assert [seen.neighbour(2, 5.0), cohort.neighbour(2, 5.0)] == [3, 3]
    assert [seen.neighbour(7, 5.0), cohort.neighbour(7, 5.0)] == [6, 8]
    assert changed(seen, "turned back", upside_down=frozenset({1})).neighbour(7, 5.0) == 8


def test_each_change_has_a_key_of_its_own(cohort: PreparedCohort) -> None:
    keys = {cohort.key, changed(cohort, "one").key, changed(cohort, "two").key}

    assert len(keys) == 3
    assert changed(cohort, "one").key == changed(cohort, "one").key


def test_a_network_of_lungs_sees_whole_slices_and_the_lung_where_the_lesion_was(cohort: PreparedCohort) -> None:
    seen = lungs_as_target(cohort)

    for row in (0, 3):
        np.testing.assert_array_equal(seen.hu(row, PART), cohort.hu(row, PART))
        np.testing.assert_array_equal(seen.lesion(row, PART), cohort.lung(row, PART))
        assert seen.lung(row).all()
    np.testing.assert_array_equal(seen.table["lesion"], cohort.table["lung"])
    assert (seen.table["box"] == (0, 32, 0, 32)).all()
    assert (cohort.table["lung"] == np.tile([0, 384, 384, 384, 384], 2)).all(), "the cohort itself stays as it is"
    assert seen.key == cohort.key
