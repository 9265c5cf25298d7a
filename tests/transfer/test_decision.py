"""The rule that makes masks of probabilities is chosen on validation slices."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.learn.checkpoint import Decision
from lungshift.transfer.decision import choose_decision, mean_dice, silence_small, validation_score

LESION = np.zeros((1, 4, 4), bool)
LESION[0, :2] = True
EMPTY = np.zeros((1, 4, 4), bool)


def test_the_score_is_the_mean_of_both_conventions() -> None:
    counts = np.array([[8, 0, 8, 0], [0, 0, 0, 16]])

    assert mean_dice(counts) == pytest.approx((2 / 3 + (2 / 3 + 1) / 2) / 2)


def test_validation_without_any_lesion_counts_the_empty_slices_alone() -> None:
    assert mean_dice(np.array([[0, 0, 0, 16], [0, 1, 0, 15]])) == pytest.approx(0.5)


def test_batches_are_judged_as_one_set() -> None:
    batches = [(LESION.astype(np.float32), LESION), (EMPTY.astype(np.float32), EMPTY)]

    assert validation_score(batches) == pytest.approx(1.0)


def test_a_faint_lesion_lowers_the_threshold() -> None:
    faint = np.where(LESION, 0.35, 0.1).astype(np.float32)

    chosen = choose_decision([(faint, LESION)], Decision())

    assert chosen.threshold == pytest.approx(0.35)


def test_specks_on_empty_slices_raise_the_smallest_area() -> None:
    speck = np.zeros((1, 4, 4), np.float32)
    speck[0, 3, :3] = 0.95

    chosen = choose_decision([(LESION.astype(np.float32), LESION), (speck, EMPTY)], Decision(flips=True))

    assert chosen == Decision(0.5, 5, flips=True)


def test_a_good_rule_is_left_alone() -> None:
    assert choose_decision([(LESION.astype(np.float32), LESION)], Decision()) == Decision()


def test_silencing_moves_counts_and_loses_no_pixel() -> None:
    counts = np.array([[2, 1, 3, 10], [5, 5, 0, 6]])

    np.testing.assert_array_equal(silence_small(counts, 4), [[0, 0, 5, 11], [5, 5, 0, 6]])
