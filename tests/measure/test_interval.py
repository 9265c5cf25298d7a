"""Value and interval are one estimate, of patients and never of slices."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from lungshift.errors import InputError
from lungshift.measure.conventions import CONVENTIONS, average
from lungshift.measure.interval import (
    bounds,
    estimate,
    estimate_difference,
    patient_sums,
    seed_sums,
    spread_of,
    spread_over_seeds,
    value_and_error,
)

EMPTY = [0, 0, 0, 10]
RECALLS = st.lists(st.integers(0, 10), min_size=2, max_size=8)


def cohort(*tp: int, slices: int | tuple[int, ...] = 5) -> tuple[np.ndarray, list[str], list[str]]:
    """Patients of one case each; every slice has ``tp`` of 10 lesion voxels found and nothing else, so recall is tp / 10."""
    each = slices if isinstance(slices, tuple) else (slices,) * len(tp)
    table = np.array(
        [[n, 0, 10 - n, 10] for n, many in zip(tp, each, strict=True) for _ in range(many)], dtype=np.int64
    )
    cases = [f"case{index}" for index, many in enumerate(each) for _ in range(many)]
    return table, cases, [f"patient of {case}" for case in cases]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_value_is_the_average_and_lies_in_its_interval(convention: str) -> None:
    world = cohort(2, 4, 6, 8, 9)

    found = estimate(*world, convention, "recall")

    assert found.value == pytest.approx(average(*world[:2], convention)["recall"].value)
    assert 0 < found.low < found.value < found.high < 1
    assert (found.n_patients, found.convention, found.metric) == (5, convention, "recall")


def test_patients_of_equal_weight_have_students_t_on_the_logit_scale() -> None:
    found = estimate(*cohort(2, 4, 6, 8), "paper", "recall")

    error = np.std([0.2, 0.4, 0.6, 0.8], ddof=1) / 2 / (0.5 * 0.5)
    reach = stats.t.ppf(0.975, 3) * error
    assert (found.low, found.high) == pytest.approx((expit(logit(0.5) - reach), expit(logit(0.5) + reach)))


def test_a_difference_of_patients_of_equal_weight_has_students_t() -> None:
    before, cases, patients = cohort(1, 3, 5, 7)
    after = cohort(3, 4, 7, 8)[0]

    for convention in ("paper", "per_case", "pooled"):
        found = estimate_difference(before, after, cases, patients, convention, "recall")
        wanted = stats.ttest_1samp([0.2, 0.1, 0.2, 0.1], 0).confidence_interval(0.95)
        assert (found.value, found.low, found.high) == pytest.approx((0.15, *wanted))


def test_the_error_is_right_on_average_however_unequal_the_patients() -> None:
    weights = np.array([1.0, 2.0, 5.0, 12.0])
    # The squared error is a quadratic form of the patients' scores: what it is on average is the sum over unit scores.
    sums = np.stack([np.eye(4) * weights, np.tile(weights, (4, 1))], axis=-1)[:, None]

    assert np.sum(value_and_error(sums)[1] ** 2) == pytest.approx(np.sum((weights / 20) ** 2))


def test_unequal_patients_count_for_fewer() -> None:
    def freedom(*weights: float) -> float:
        return float(spread_of(np.array([[[w / 2, w] for w in weights]])).freedom)

    assert freedom(1, 1, 1, 1) == pytest.approx(3)
    assert 1 < freedom(1, 1, 1, 20) < freedom(1, 1, 1, 3) < 3
    assert freedom(1, 1, 1, 1, 0) == pytest.approx(3)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_patients_who_are_all_alike_leave_no_doubt(convention: str) -> None:
    for tp in (0, 7, 10):
        found = estimate(*cohort(tp, tp, tp), convention, "recall")
        assert (found.low, found.value, found.high) == pytest.approx((tp / 10,) * 3)


def test_one_patient_has_a_value_and_no_interval() -> None:
    found = estimate(*cohort(7), "paper", "recall")

    assert found.value == 0.7
    assert isnan(found.low)
    assert isnan(found.high)
    assert found.n_patients == 1


def test_nothing_to_average_is_not_a_number() -> None:
    table = np.array([EMPTY] * 3)

    found = estimate(table, ["a", "b", "c"], ["a", "b", "c"], "paper", "dice")

    assert all(map(isnan, (found.value, found.low, found.high)))
    assert found.n_patients == 0


def test_a_patient_with_nothing_to_average_does_not_count() -> None:
    table, cases, patients = cohort(4, 6)
    table = np.concatenate([table, [EMPTY]])

    alone, beside = (
        estimate(*cohort(4, 6), "paper", "dice"),
        estimate(table, [*cases, "w"], [*patients, "w"], "paper", "dice"),
    )
    assert alone == beside
    assert estimate(table, [*cases, "w"], [*patients, "w"], "empty_is_one", "dice").n_patients == 3


def test_two_scans_of_one_patient_are_one_patient() -> None:
    table, cases, _ = cohort(2, 2, 8, 8)
    two = ["a"] * 10 + ["b"] * 10

    assert estimate(table, cases, two, "per_case", "recall").n_patients == 2
    assert estimate(table, cases, cases, "per_case", "recall").n_patients == 4


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_seed_that_repeats_another_makes_nothing_surer(convention: str) -> None:
    table, cases, patients = cohort(2, 5, 9, slices=(3, 1, 6))
    again = [f"{case} again" for case in cases]

    once = estimate(table, cases, patients, convention, "recall")
    twice = estimate(np.concatenate([table, table]), cases + again, patients * 2, convention, "recall")

    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))


def test_value_and_interval_of_several_seeds_are_of_one_sum() -> None:
    first, second = cohort(2, 8), cohort(4, 8)
    cases = [*first[1], *(f"{case} again" for case in second[1])]

    found = estimate(np.concatenate([first[0], second[0]]), cases, first[2] * 2, "paper", "recall")

    one = estimate(*cohort(3, 8), "paper", "recall")
    assert (found.value, found.low, found.high) == pytest.approx((0.55, one.low, one.high))


def test_a_small_gain_of_every_patient_is_seen_where_intervals_overlap() -> None:
    before, cases, patients = cohort(1, 3, 5, 7, 8)
    after = cohort(2, 4, 6, 8, 9)[0]
    alone = [estimate(table, cases, patients, "paper", "recall") for table in (before, after)]

    for convention in CONVENTIONS:
        gain = estimate_difference(before, after, cases, patients, convention, "recall")
        assert (gain.low, gain.value, gain.high) == pytest.approx((0.1, 0.1, 0.1))
    assert alone[0].high > alone[1].low


def test_a_patient_whom_one_arm_leaves_undefined_takes_part_by_the_other() -> None:
    before = np.array([[0, 0, 10, 10], [5, 5, 5, 5], [2, 8, 8, 2]])
    after = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [5, 5, 5, 5]])

    found = estimate_difference(before, after, ["a", "b", "c"], ["a", "b", "c"], "empty_is_nan", "precision")

    assert found.n_patients == 3
    assert found.value == pytest.approx(0.5 - 0.35)


@given(RECALLS, st.data())
def test_the_order_of_slices_and_patients_changes_nothing(recalls: list[int], data: st.DataObject) -> None:
    table, cases, patients = cohort(*recalls, slices=2)
    order = data.draw(st.permutations(range(len(table))))
    shuffled = table[order], [cases[i] for i in order], [patients[i] for i in order]

    for convention in CONVENTIONS:
        once, again = (estimate(*world, convention, "recall") for world in ((table, cases, patients), shuffled))
        assert (again.value, again.low, again.high) == pytest.approx((once.value, once.low, once.high), abs=1e-9)


@given(RECALLS, st.integers(2, 5))
def test_more_slices_of_the_same_patients_change_nothing(recalls: list[int], times: int) -> None:
    for convention in CONVENTIONS:
        few, many = (estimate(*cohort(*recalls, slices=n), convention, "recall") for n in (2, 2 * times))
        assert (many.low, many.high) == pytest.approx((few.low, few.high), abs=1e-9)


@given(RECALLS, RECALLS)
def test_ends_stay_where_averages_and_differences_can_be(before: list[int], after: list[int]) -> None:
    n = min(len(before), len(after))
    old, cases, patients = cohort(*before[:n])
    new = cohort(*after[:n])[0]

    found = estimate(old, cases, patients, "paper", "recall")
    gain = estimate_difference(old, new, cases, patients, "paper", "recall")

    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    assert -1 <= gain.low <= gain.value + 1e-12
    assert gain.value - 1e-12 <= gain.high <= 1


@given(st.lists(st.integers(0, 7), min_size=2, max_size=8), st.integers(0, 3))
def test_adding_as_much_to_every_patient_is_a_sure_difference(recalls: list[int], more: int) -> None:
    before, cases, patients = cohort(*recalls)
    after = cohort(*(tp + more for tp in recalls))[0]

    found = estimate_difference(before, after, cases, patients, "paper", "recall")

    assert (found.low, found.value, found.high) == pytest.approx((more / 10,) * 3, abs=1e-12)


def test_a_higher_level_is_a_wider_interval() -> None:
    usual, sure = (estimate(*cohort(2, 5, 8), "paper", "recall", level=level) for level in (0.95, 0.99))

    assert sure.low < usual.low
    assert usual.high < sure.high
    assert usual.value == sure.value


@pytest.mark.parametrize("n", [4, 10, 40])
def test_intervals_hold_the_truth_19_times_in_20(n: int) -> None:
    """Skewed scores, unequal patients, a gain that follows the score; ``benchmarks/coverage.py`` has worlds with slices."""
    rng = np.random.default_rng(n)
    shape = (2000, n)
    weights = 1 + rng.geometric(0.05, shape)
    score = rng.beta(5, 2, shape)
    gain = 0.5 * (1 - score)
    sums = np.stack([np.stack([value * weights, weights], axis=-1) for value in (score, score + gain)], axis=1)
    truths = 5 / 7, 2 / 7 * 0.5

    for arms, truth in zip((sums[:, :1], sums), truths, strict=True):
        low, high = bounds(spread_of(arms))
        assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


def test_many_cohorts_at_once_are_each_as_if_alone() -> None:
    table, cases, patients = cohort(2, 4, 9, slices=(1, 4, 2))
    _, sums = patient_sums([table], cases, patients, "paper", "recall")
    _, other = patient_sums([10 - table], cases, patients, "empty_is_one", "recall")

    together = bounds(spread_of(np.stack([sums, other])))

    for index, one in enumerate((sums, other)):
        assert [end[index] for end in together] == pytest.approx([float(end) for end in bounds(spread_of(one))])


def test_predictions_of_other_slices_are_not_compared() -> None:
    table, cases, patients = cohort(1, 5)

    with pytest.raises(InputError, match="got 10 and 9 slices"):
        estimate_difference(table, table[:9], cases, patients, "paper", "dice")
    with pytest.raises(InputError, match="with other references or regions"):
        estimate_difference(table, table + np.array([1, 0, 0, 0]), cases, patients, "paper", "dice")


def test_ids_that_do_not_fit_the_slices_are_refused() -> None:
    table, cases, patients = cohort(1, 5)

    with pytest.raises(InputError, match="need as many labels; got 9"):
        estimate(table, cases[:9], patients, "paper", "dice")


def test_a_case_of_two_patients_is_refused_by_name() -> None:
    table, cases, patients = cohort(1, 5)
    patients[0] = "someone else"

    with pytest.raises(InputError, match="case0"):
        estimate(table, cases, patients, "per_case", "dice")


def test_one_seed_is_no_other_training() -> None:
    table, cases, patients = cohort(2, 5, 7, 8)

    alone = estimate(table, cases, patients, "paper", "recall")

    assert estimate(table, cases, patients, "paper", "recall", seeds=[7] * len(cases)) == alone


def seeds_of(*rows: tuple[int, ...]) -> tuple[np.ndarray, list[str], list[str], list[int]]:
    """One row of patients' recalls (in tenths) for each seed."""
    worlds = [cohort(*row) for row in rows]
    cases = [f"{case} {seed}" for seed, world in enumerate(worlds) for case in world[1]]
    seeds = [seed for seed, world in enumerate(worlds) for _ in world[1]]
    return np.concatenate([world[0] for world in worlds]), cases, [p for world in worlds for p in world[2]], seeds


def test_seeds_that_agree_add_no_doubt() -> None:
    *world, seeds = seeds_of((2, 5, 7, 8), (2, 5, 7, 8), (2, 5, 7, 8))

    for convention in CONVENTIONS:
        told = estimate(*world, convention, "recall", seeds=seeds)
        alone = estimate(*world, convention, "recall")
        assert (told.low, told.high) == pytest.approx((alone.low, alone.high))


def test_what_all_patients_of_a_seed_share_is_doubt_however_alike_the_patients_are() -> None:
    # Four patients alike; three trainings score .4, .6 and .8: all doubt is between trainings, with two degrees of freedom.
    *world, seeds = seeds_of((4,) * 4, (6,) * 4, (8,) * 4)

    found = estimate(*world, "paper", "recall", seeds=seeds)

    error = np.std([0.4, 0.6, 0.8], ddof=1) / np.sqrt(3) / (0.6 * 0.4)
    reach = stats.t.ppf(0.975, 2) * error
    assert (found.low, found.high) == pytest.approx((expit(logit(0.6) - reach), expit(logit(0.6) + reach)))
    assert estimate(*world, "paper", "recall").low == pytest.approx(0.6)


def test_patients_and_seeds_that_do_not_suit_each_other_are_no_luck_of_a_seed() -> None:
    # By analysis of variance: patients, seeds and what is left, on the deviations of each cell.
    rows = ((1, 4, 6, 9), (3, 3, 8, 7), (2, 6, 5, 6))
    *world, seeds = seeds_of(*rows)
    cells = np.array(rows).T / 10
    left = cells - cells.mean(axis=1, keepdims=True) - cells.mean(axis=0) + cells.mean()
    patient = np.var(cells.mean(axis=1), ddof=1) / 4
    by_seed, mixed = np.var(cells.mean(axis=0), ddof=1) / 3, (left**2).sum() / (3 * 2) / 12

    _, sums = seed_sums([world[0]], *world[1:], seeds, "paper", "recall")

    wanted = patient + max(by_seed - mixed, 0)
    assert spread_over_seeds(sums).error ** 2 == pytest.approx(wanted)
    assert spread_over_seeds(sums).error >= spread_of(sums.sum(axis=2)).error


def test_seeds_that_tested_other_patients_say_nothing_of_their_luck() -> None:
    table, cases, patients = cohort(2, 5, 7, 8)
    halves = [0 if patient in set(patients[:10]) else 1 for patient in patients]

    told = estimate(table, cases, patients, "paper", "recall", seeds=halves)

    alone = estimate(table, cases, patients, "paper", "recall")
    assert (told.low, told.high) == pytest.approx((alone.low, alone.high))


def test_a_case_of_two_seeds_is_refused_by_name() -> None:
    table, cases, patients = cohort(1, 5)

    with pytest.raises(InputError, match=r"case0.*apart by seed"):
        estimate(table, cases, patients, "per_case", "dice", seeds=[0, *[1] * (len(cases) - 1)])
