"""A model that is a threshold, played on chests drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from chests import chest, chests, threshold_model
from lungshift.learn.prediction import Predictor
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.transfer.replay import Player
from lungshift.transfer.watcher import Silent

ROWS = np.array([9, 2, 3])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    return chests(tmp_path_factory.mktemp("replay"), "home", chest(0), chest(1))


@pytest.fixture(scope="module")
def player() -> Player:
    return Player(Predictor.of(threshold_model(), "cpu"), Silent())


def test_rows_keep_their_order_with_case_patient_and_pixel(cohort: PreparedCohort, player: Player) -> None:
    played = player.play(cohort, ROWS)

    assert played.cases == ["case1", "case0", "case0"]
    assert played.pixel_mm.tolist() == [2.0, 2.0, 2.0]
    assert (played.counts[:, [0, 2]].sum(axis=1) == cohort.table["lesion"][ROWS]).all()


def test_pairs_are_what_was_counted(cohort: PreparedCohort, player: Player) -> None:
    played = player.play(cohort, ROWS)

    for (reference, mask, _), counts in zip(played.pairs(), played.counts, strict=True):
        assert np.count_nonzero(reference & mask) == counts[0]
        assert np.count_nonzero(mask & ~reference) == counts[1]


def test_masks_of_a_changed_view_come_back_in_the_opposite_order(cohort: PreparedCohort, player: Player) -> None:
    def shift(_: int, picture: np.ndarray) -> np.ndarray:
        return np.roll(picture, 3, axis=1)

    def turn(_: int, picture: np.ndarray) -> np.ndarray:
        return picture[:, ::-1]

    shifted = changed(cohort, "shifted", hu=shift, lung=shift)
    both = changed(shifted, "turned", hu=turn, lung=turn)

    plain = player.play(cohort, ROWS)
    back = player.play(cohort, ROWS, both, [lambda _, mask: np.roll(mask, -3, axis=1), turn])

    np.testing.assert_array_equal(back.counts, plain.counts)
