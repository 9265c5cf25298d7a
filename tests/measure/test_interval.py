"""Patients are drawn, never slices."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from lungshift.errors import InputError
from lungshift.measure.conventions import CONVENTIONS, average
from lungshift.measure.interval import paired_interval, patient_interval

EMPTY = [0, 0, 0, 10]


def cohort(*tp: int, slices: int = 5) -> tuple[np.ndarray, list[str], list[str]]:
    """Patients of one case each; every slice has ``tp`` of 10 lesion voxels found and nothing else, so recall is tp / 10."""
    table = np.array([[n, 0, 10 - n, 10] for n in tp for _ in range(slices)], dtype=np.int64)
    cases = [f"case{index}" for index in range(len(tp)) for _ in range(slices)]
    return table, cases, [f"patient of {case}" for case in cases]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_interval_holds_the_average_and_lies_within_the_patients(convention: str) -> None:
    world = cohort(2, 4, 6, 8, 9)

    interval = patient_interval(*world, convention, "recall")

    assert 0.2 <= interval.low < average(*world[:2], convention)["recall"].value < interval.high <= 0.9
    assert (interval.n_patients, interval.convention, interval.metric) == (5, convention, "recall")


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_patients_who_are_all_alike_leave_no_doubt(convention: str) -> None:
    interval = patient_interval(*cohort(7, 7, 7), convention, "recall")

    assert (interval.low, interval.high) == pytest.approx((0.7, 0.7))


def test_one_patient_has_no_interval() -> None:
    interval = patient_interval(*cohort(7), "paper", "dice")

    assert isnan(interval.low)
    assert isnan(interval.high)
    assert interval.n_patients == 1


def test_a_patient_with_nothing_to_average_is_not_drawn() -> None:
    table, cases, patients = cohort(4, 6)
    table = np.concatenate([table, [EMPTY]])

    assert patient_interval(table, [*cases, "well"], [*patients, "well"], "paper", "dice").n_patients == 2
    assert patient_interval(table, [*cases, "well"], [*patients, "well"], "empty_is_one", "dice").n_patients == 3


def test_more_slices_of_the_same_patients_make_nothing_surer() -> None:
    few, many = (patient_interval(*cohort(2, 4, 6, 8, slices=n), "paper", "recall") for n in (2, 50))

    assert (few.low, few.high) == pytest.approx((many.low, many.high))


def test_two_scans_of_one_patient_are_drawn_together() -> None:
    table, cases, _ = cohort(2, 2, 8, 8)
    two = ["a"] * 10 + ["b"] * 10

    assert patient_interval(table, cases, two, "per_case", "recall").n_patients == 2
    assert patient_interval(table, cases, cases, "per_case", "recall").n_patients == 4


def test_few_patients_widen_the_interval_as_students_t_asks() -> None:
    many = patient_interval(*cohort(*[2, 8] * 25, slices=1), "paper", "recall", resamples=5000)
    normal = 1.96 * 0.3 / np.sqrt(50)

    assert (many.high - many.low) / 2 == pytest.approx(normal, rel=0.1)
    assert patient_interval(*cohort(2, 4, 6, 8), "paper", "recall").high == pytest.approx(0.8, abs=0.02)


def test_a_seed_repeats_an_interval_whatever_the_order_of_slices() -> None:
    table, cases, patients = cohort(1, 4, 6, 9)
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = table[order], [cases[i] for i in order], [patients[i] for i in order]

    for convention in CONVENTIONS:
        once = patient_interval(table, cases, patients, convention, "dice", seed=3)
        again = patient_interval(*shuffled, convention, "dice", seed=3)
        assert (once.low, once.high) == pytest.approx((again.low, again.high))
    assert once != patient_interval(table, cases, patients, convention, "dice", seed=4, resamples=50)


def test_a_small_gain_of_every_patient_is_seen_where_intervals_overlap() -> None:
    before, cases, patients = cohort(1, 3, 5, 7, 8)
    after = cohort(2, 4, 6, 8, 9)[0]
    alone = [patient_interval(table, cases, patients, "paper", "recall") for table in (before, after)]

    for convention in CONVENTIONS:
        gain = paired_interval(before, after, cases, patients, convention, "recall")
        assert (gain.low, gain.high) == pytest.approx((0.1, 0.1))
    assert alone[0].high > alone[1].low


def test_no_change_is_a_gain_of_nothing() -> None:
    table, cases, patients = cohort(1, 5, 9)

    gain = paired_interval(table, table, cases, patients, "pooled", "dice")

    assert (gain.low, gain.high, gain.n_patients) == (0, 0, 3)


def test_predictions_of_other_slices_are_not_compared() -> None:
    table, cases, patients = cohort(1, 5)

    with pytest.raises(InputError, match="got 10 and 9 slices"):
        paired_interval(table, table[:9], cases, patients, "paper", "dice")
    with pytest.raises(InputError, match="with other references or regions"):
        paired_interval(table, table + np.array([1, 0, 0, 0]), cases, patients, "paper", "dice")


def test_a_case_of_two_patients_is_refused_by_name() -> None:
    table, cases, patients = cohort(1, 5)
    patients[0] = "someone else"

    with pytest.raises(InputError, match="case0"):
        patient_interval(table, cases, patients, "per_case", "dice")
