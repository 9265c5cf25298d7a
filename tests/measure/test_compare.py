"""Arms on the same patients: what is told from noise, and what it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from lungshift.errors import InputError
from lungshift.measure.compare import Pair, compare
from lungshift.measure.conventions import CONVENTIONS
from lungshift.measure.interval import estimate_difference

RECALLS = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=2, max_size=6)


def table(recalls: Sequence[int], slices: Sequence[int]) -> np.ndarray:
    return np.array(
        [[tp, 0, 100 - tp, 10] for tp, many in zip(recalls, slices, strict=True) for _ in range(many)], dtype=np.int64
    )


def pair(before: Sequence[int], after: Sequence[int], slices: Sequence[int] | None = None) -> Pair:
    """Patients of one case; of 100 lesion voxels in each slice, so many are found, and nothing else: recall in per cent."""
    each = slices or [1] * len(before)
    names = [f"patient{index:02}" for index, many in enumerate(each) for _ in range(many)]
    return Pair(table(before, each), table(after, each), names, names)


def gain(*gains: int) -> Pair:
    return pair([50] * len(gains), [50 + more for more in gains])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_thing_does_not_differ_from_itself(convention: str) -> None:
    (found,) = compare([pair([10, 50, 90], [10, 50, 90], [1, 5, 3])], convention, "recall")

    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.p, found.p_corrected, found.is_told) == (1, 1, False)


@pytest.mark.parametrize("n", [2, 4, 6, 10])
def test_a_gain_of_every_patient_is_one_way_among_all(n: int) -> None:
    (found,) = compare([gain(*range(10, 10 + n))], "paper", "recall")

    assert found.p == 1 / 2 ** (n - 1)


def test_p_is_that_of_scipy_where_patients_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        before, after = rng.integers(0, 100, (2, 8))
        wanted = stats.permutation_test(
            (after / 100, before / 100), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
        )

        (found,) = compare([pair(before, after)], "paper", "recall")

        assert found.p == pytest.approx(wanted.pvalue)


def test_p_of_many_patients_is_drawn_near_that_of_all_ways_and_repeats() -> None:
    gains = [30, -10, 20, -15, 25, 5, -20, 10, 15, -5, 10, 0, 5, -10]
    (exact,) = compare([gain(*gains)], "paper", "recall")
    # A patient without any difference is one more to draw and changes no swap.
    drawn = [compare([gain(*gains, 0)], "paper", "recall", seed=seed)[0].p for seed in (0, 0, 1)]

    assert drawn[0] == drawn[1]
    assert drawn == pytest.approx([exact.p] * 3, abs=0.02)


@given(RECALLS, st.data())
@settings(max_examples=25, deadline=None)
def test_the_order_of_patients_changes_nothing(recalls: list[tuple[int, int]], data: st.DataObject) -> None:
    one = pair(*zip(*recalls, strict=True), slices=range(1, len(recalls) + 1))
    order = data.draw(st.permutations(range(len(one.before))))
    names = [one.cases[row] for row in order]

    (once,) = compare([one], "paper", "recall")
    (again,) = compare([Pair(one.before[order], one.after[order], names, names)], "paper", "recall")

    assert again.p == once.p
    assert (again.low, again.high) == pytest.approx((once.low, once.high), abs=1e-9)


@given(RECALLS)
@settings(max_examples=25, deadline=None)
def test_the_other_way_round_is_the_same_with_the_other_sign(recalls: list[tuple[int, int]]) -> None:
    before, after = zip(*recalls, strict=True)

    (there,) = compare([pair(before, after)], "paper", "recall")
    (back,) = compare([pair(after, before)], "paper", "recall")

    assert (back.p, back.difference) == pytest.approx((there.p, -there.difference))
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


@given(st.lists(RECALLS, min_size=1, max_size=4), st.sampled_from(["joint", "holm"]))
@settings(max_examples=25, deadline=None)
def test_correction_raises_p_and_keeps_its_order(worlds: list[list[tuple[int, int]]], correction: str) -> None:
    found = compare([pair(*zip(*world, strict=True)) for world in worlds], "paper", "recall", correction=correction)

    assert all(one.p <= one.p_corrected <= 1 for one in found)
    if correction == "holm":
        rising = sorted(found, key=lambda one: one.p)
        assert [one.p_corrected for one in rising] == sorted(one.p_corrected for one in found)


def test_holm_multiplies_the_smallest_p_by_the_number_of_pairs() -> None:
    pairs = [gain(10, 11, 12, 13, 14), gain(10, -11, 12, -13, 14), gain(1, 2, 3, 4, -1)]

    found = compare(pairs, "paper", "recall", correction="holm")

    first, *others = sorted(found, key=lambda one: one.p)
    assert first.p_corrected == pytest.approx(3 * first.p)
    assert others[0].p_corrected == pytest.approx(max(2 * others[0].p, 3 * first.p))


def test_ten_patients_can_tell_one_of_thirty_differences_which_holm_never_could() -> None:
    rng = np.random.default_rng(1)
    pairs = [gain(*range(20, 30)), *(gain(*rng.integers(-9, 10, 10)) for _ in range(29))]

    joint, holm = (compare(pairs, "paper", "recall", correction=name) for name in ("joint", "holm"))

    assert [one.is_told for one in joint] == [True] + [False] * 29
    assert joint[0].p_corrected == 1 / 2**9
    assert holm[0].p_corrected == pytest.approx(30 / 2**9)
    assert holm[0].detectable == inf


def test_pairs_that_say_the_same_are_paid_for_once() -> None:
    alone = compare([gain(9, 8, -2, 7, 6, 5, -1)], "paper", "recall")
    often = compare([gain(9, 8, -2, 7, 6, 5, -1)] * 5, "paper", "recall")

    assert {one.p_corrected for one in often} == {alone[0].p}


def test_arms_that_do_not_differ_are_told_apart_1_time_in_20_at_most() -> None:
    rng = np.random.default_rng(5)
    families = []
    for _ in range(200):
        zero, *arms = rng.integers(20, 80, 8) + rng.integers(-10, 11, (4, 8))
        families.append(compare([pair(zero, arm) for arm in arms], "paper", "recall"))

    false = np.mean([any(one.is_told for one in family) for family in families])
    assert 0 < false <= 0.08


def test_the_interval_is_that_of_the_difference_and_the_simultaneous_one_is_wider() -> None:
    one = pair([10, 50, 60, 90], [20, 55, 80, 95], [2, 1, 4, 3])
    wanted = estimate_difference(one.before, one.after, one.cases, one.patients, "paper", "recall")

    (alone,) = compare([one], "paper", "recall")
    first, *_ = compare([one, gain(1, 2, 3, 4)], "paper", "recall")

    assert (alone.difference, alone.low, alone.high) == (wanted.value, wanted.low, wanted.high)
    assert (alone.simultaneous_low, alone.simultaneous_high) == pytest.approx((wanted.low, wanted.high))
    assert first.simultaneous_low < first.low < first.high < first.simultaneous_high


@pytest.mark.parametrize("n", [6, 10, 20])
def test_what_can_be_told_from_noise_is_what_the_power_of_students_t_says(n: int) -> None:
    gains = np.random.default_rng(n).integers(-30, 31, n)
    wanted = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * np.std(gains / 100, ddof=1)

    (found,) = compare([gain(*gains)], "paper", "recall")

    assert found.detectable == pytest.approx(wanted, rel=0.05)


def test_five_patients_cannot_tell_any_difference_from_noise() -> None:
    (five,) = compare([gain(*range(30, 35))], "paper", "recall")
    (six,) = compare([gain(*range(30, 36))], "paper", "recall")

    assert (five.detectable, five.is_told) == (inf, False)
    assert six.detectable < 0.1
    assert six.is_told


def test_one_patient_has_a_difference_and_nothing_to_test() -> None:
    (found,) = compare([gain(10)], "paper", "recall")

    assert found.difference == pytest.approx(0.1)
    assert all(map(isnan, (found.low, found.high, found.p, found.p_corrected, found.detectable)))
    assert not found.is_told


def test_what_cannot_be_tested_does_not_count_in_the_family() -> None:
    found = compare([gain(10), gain(5, 6, 7)], "paper", "recall")

    assert [one.n_compared for one in found] == [1, 1]
    assert found[1].p_corrected == found[1].p == 0.25


def test_nobody_to_compare_is_an_empty_family() -> None:
    assert compare([], "paper", "recall") == ()


def test_pairs_may_be_of_different_patients() -> None:
    found = compare([gain(5, 6, 7, 8), gain(5, 6, 7)], "paper", "recall")

    assert [one.n_patients for one in found] == [4, 3]
    assert [one.p for one in found] == [1 / 8, 1 / 4]


def test_predictions_of_other_slices_are_refused() -> None:
    one = gain(1, 2)

    with pytest.raises(InputError, match="with other references"):
        compare([Pair(one.before, one.after + 1, one.cases, one.patients)], "paper", "recall")


def test_luck_of_trainings_is_no_difference_of_arms() -> None:
    # Ten patients gain nothing in one training and much in another: over patients that is sure, over trainings it is not.
    before, after = ((5,) * 10, (5,) * 10), ((5, 4) * 5, (9, 8) * 5)
    pair = _over_seeds(before, after)

    sure, unsure = (compare([one], "paper", "recall")[0] for one in (replace(pair, seeds=None), pair))

    assert sure.is_told
    assert not unsure.is_told
    assert unsure.low < 0 < sure.low


def test_trainings_that_agree_change_nothing() -> None:
    pair = _over_seeds(((5, 4) * 5,) * 3, ((6, 7) * 5,) * 3)

    told, alone = (compare([one], "paper", "recall")[0] for one in (pair, replace(pair, seeds=None)))

    assert told == alone


def _over_seeds(before: tuple[tuple[int, ...], ...], after: tuple[tuple[int, ...], ...]) -> Pair:
    """Recalls in tenths of patients with one slice, a row for each seed."""
    tables = [np.array([[tp, 0, 10 - tp, 10] for row in rows for tp in row]) for rows in (before, after)]
    seeds = [seed for seed, row in enumerate(before) for _ in row]
    patients = [f"p{place}" for row in before for place in range(len(row))]
    return Pair(tables[0], tables[1], [f"{p} {s}" for p, s in zip(patients, seeds, strict=True)], patients, seeds)
