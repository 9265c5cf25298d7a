"""What arithmetic says of a published row: the true convention is never excluded, and impossible ones are, with the reason."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from lungshift.errors import ProtocolError
from lungshift.measure.conventions import CONVENTIONS, average, background_baseline
from lungshift.measure.forensics import (
    CANDIDATES,
    Published,
    Verdict,
    examine,
    highest_f1,
    lowest_accuracy,
    lowest_f1,
)
from lungshift.measure.overlap import RATIOS

CT_1_9 = Published("0.751451", "0.833533", "0.783245", "0.997375", slices=214, lesion_slices=123)
NOT_RETRAINED = Published("0.628606", "0.647012", "0.613689", "0.995027", slices=2156, lesion_slices=1351)
RETRAINED = Published("0.813515", "0.863668", "0.827899", "0.997397", slices=1656, lesion_slices=1101)
"""Table 2 of the source paper."""

COUNT = st.one_of(st.integers(0, 3), st.integers(0, 200))
LESION = st.tuples(COUNT, COUNT, COUNT, st.integers(1, 400)).filter(lambda row: row[0] + row[2] > 0)
NO_LESION = st.tuples(st.just(0), st.sampled_from([0, 0, 3]), st.just(0), st.integers(1, 400))
TABLES = st.tuples(st.lists(LESION, min_size=1, max_size=7), st.lists(NO_LESION, max_size=7)).map(
    lambda both: np.array([*both[0], *both[1]], dtype=np.int64)
)
SHARES = st.integers(0, 1000).map(lambda thousandth: f"{thousandth / 1000:.3f}")


def verdict(published: Published, convention: str) -> Verdict:
    return next(one for one in examine(published) if one.convention == convention)


def possible(published: Published) -> set[str]:
    return {one.convention for one in examine(published) if one.possible}


def printed(value: float, digits: int) -> str | None:
    return None if isnan(value) else f"{value:.{digits}f}"


def row_of(table: np.ndarray, cases: list[str], convention: str, digits: int) -> Published:
    """What a paper would print that averages so; an undefined mean is not told."""
    lesion = int(np.count_nonzero(table[:, 0] + table[:, 2]))
    averages = average(table, cases, "lesion_slices" if convention == "empty_is_zero" else convention)
    means = {name: mean.value for name, mean in averages.items()}
    if convention == "empty_is_zero":
        means = {name: value * lesion / len(table) for name, value in means.items()}
        means["accuracy"] = average(table, cases, "empty_is_nan")["accuracy"].value
    names = {"precision": "precision", "recall": "recall", "f1": "dice", "accuracy": "accuracy"}
    ratios = {name: printed(means[metric], digits) for name, metric in names.items()}
    background = average(background_baseline(table), cases, "pooled")["accuracy"].value
    return Published(
        **ratios,
        slices=len(table),
        lesion_slices=lesion,
        cases=len(set(cases)),
        background_accuracy=printed(background, digits),
    )


# --- the paper


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(CT_1_9, id="CT 1-9"),
        pytest.param(NOT_RETRAINED, id="CT 10"),
        pytest.param(RETRAINED, id="retrained"),
    ],
)
def test_table_2_leaves_neither_pooling_nor_zeros_nor_equation_5(row: Published) -> None:
    assert possible(row) == {"lesion_slices", "empty_is_one", "empty_is_nan", "per_case"}
    assert not any(one.barely or one.needs for one in examine(row))


@pytest.mark.parametrize(
    ("row", "convention", "reason"),
    [
        pytest.param(CT_1_9, "empty_is_zero", "precision of 0.751451 × 214 / 123 = 1.3074", id="CT 1-9, zeros"),
        pytest.param(CT_1_9, "pooled", "2PR/(P + R) = 0.7904; 0.783245 is printed", id="CT 1-9, pooled"),
        pytest.param(CT_1_9, "misprint", "PR/(P + R) is 0.3952; 0.783245 is printed", id="CT 1-9, equation 5"),
        pytest.param(
            CT_1_9, "empty_is_one", "at least 56 of the 91 slices without lesion were rightly", id="CT 1-9, ones"
        ),
        pytest.param(
            CT_1_9, "empty_is_nan", "at most 2 of the 91 slices without lesion had a false", id="CT 1-9, left out"
        ),
        pytest.param(CT_1_9, "lesion_slices", "between the 0.5877 and 0.7904", id="CT 1-9, lesion slices"),
        pytest.param(NOT_RETRAINED, "empty_is_zero", "precision of 0.628606 × 2156 / 1351 = 1.0032", id="CT 10, zeros"),
        pytest.param(NOT_RETRAINED, "pooled", "2PR/(P + R) = 0.6377; 0.613689 is printed", id="CT 10, pooled"),
        pytest.param(NOT_RETRAINED, "empty_is_one", "at least 77 of the 805", id="CT 10, ones"),
        pytest.param(RETRAINED, "empty_is_zero", "recall of 0.863668 × 1656 / 1101 = 1.2990", id="retrained, zeros"),
        pytest.param(RETRAINED, "pooled", "2PR/(P + R) = 0.8378; 0.827899 is printed", id="retrained, pooled"),
        pytest.param(RETRAINED, "empty_is_one", "at least 330 of the 555", id="retrained, ones"),
    ],
)
def test_the_reason_has_the_numbers_that_decide(row: Published, convention: str, reason: str) -> None:
    assert reason in verdict(row, convention).reason


def test_what_follows_is_given_as_numbers() -> None:
    ones, zeros, pooled = (verdict(CT_1_9, name).implied for name in ("empty_is_one", "empty_is_zero", "pooled"))

    # By hand: R n - lesion = 0.833533 * 214 - 123 = 55.4, so 56; all 91 blank leave (0.783245 * 214 - 91) / 123.
    assert (ones["blank_slices_low"], ones["blank_slices_high"]) == (56, 91)
    assert ones["f1_lesion_slices_low"] == pytest.approx((0.783245 * 214 - 91) / 123, abs=1e-6)
    assert ones["f1_lesion_slices_high"] == pytest.approx((0.783245 * 214 - 56) / 123, abs=1e-6)
    assert zeros["recall_lesion_slices"] == pytest.approx(0.833533 * 214 / 123)
    assert pooled["f1_low"] < 2 * 0.751451 * 0.833533 / (0.751451 + 0.833533) < pooled["f1_high"]


# --- the truth is never excluded


@settings(max_examples=800, deadline=None)
@given(
    TABLES,
    st.integers(1, 3),
    st.sampled_from([*CONVENTIONS, "empty_is_zero"]),
    st.sampled_from([1, 2, 3, 6]),
    st.sets(st.sampled_from(list(Published.__annotations__))),
)
def test_the_convention_that_was_used_is_never_excluded(
    table: np.ndarray, cases: int, convention: str, digits: int, untold: set[str]
) -> None:
    row = row_of(table, [f"case{index % cases}" for index in range(len(table))], convention, digits)
    less = replace(row, **dict.fromkeys(untold - {"accuracy"}))

    for told in (row, less):
        assert verdict(told, convention).possible, (told, verdict(told, convention).reason)


@settings(max_examples=200, deadline=None)
@given(TABLES, st.sampled_from([3, 6]))
def test_a_forgotten_factor_is_never_excluded_where_it_was_forgotten(table: np.ndarray, digits: int) -> None:
    precision, recall, f1 = (
        average(table, ["a"] * len(table), "paper")[name].value for name in ("precision", "recall", "dice")
    )
    of_means = precision * recall / (precision + recall) if precision + recall else 0.0
    row = Published(*(f"{value:.{digits}f}" for value in (precision, recall, of_means)))
    assert verdict(row, "misprint").possible
    of_slices = replace(row, f1=f"{f1 / 2:.{digits}f}")
    assert verdict(of_slices, "misprint").possible or verdict(of_slices, "lesion_slices").possible


@settings(max_examples=100, deadline=None)
@given(SHARES, SHARES, SHARES, st.integers(1, 9), st.integers(0, 9))
def test_more_digits_never_make_possible_what_fewer_exclude(
    precision: str, recall: str, f1: str, lesion: int, empty: int
) -> None:
    row = Published(precision, recall, f1, slices=lesion + empty, lesion_slices=lesion)
    exact = Published(f"{precision}0", f"{recall}0", f"{f1}0", slices=lesion + empty, lesion_slices=lesion)
    # The misprint is only looked for where fewer digits leave no true mean.
    assert possible(exact) - {"misprint"} <= possible(row)


# --- the bounds are the true ones


@pytest.mark.parametrize(("precision", "recall"), [(0.75, 0.85), (0.3, 0.4), (0.5, 0.5), (0.95, 0.1), (1.0, 0.6)])
def test_no_mixture_of_slices_passes_the_bounds_and_some_reach_them(precision: float, recall: float) -> None:
    """All mixtures of slices with ratios in steps of 0.05: a linear program finds the lowest and highest mean F1."""
    steps = np.linspace(0, 1, 21)
    p, r = (grid.ravel() for grid in np.meshgrid(steps, steps))
    f1 = np.array([2 * a * b / (a + b) if a + b else 0 for a, b in zip(p, r, strict=True)])
    means = {"A_eq": np.stack([np.ones_like(p), p, r]), "b_eq": [1, precision, recall]}

    lowest, highest = linprog(f1, **means).fun, -linprog(-f1, **means).fun

    assert lowest == pytest.approx(lowest_f1(precision, recall), abs=1e-9)
    assert highest == pytest.approx(highest_f1(precision, recall), abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_of_few_slices_every_combination_keeps_the_bounds_and_some_reach_the_lower(n: int) -> None:
    found: dict[tuple[int, int], float] = {}
    ratios = [(a, b, 2 * a * b / (a + b) / 4 if a + b else 0.0) for a, b in product(range(5), repeat=2)]
    for slices in product(ratios, repeat=n):
        sums = sum(one[0] for one in slices), sum(one[1] for one in slices)
        mean = sum(one[2] for one in slices) / n
        assert mean <= highest_f1(sums[0] / 4 / n, sums[1] / 4 / n) + 1e-12
        found[sums] = min(mean, found.get(sums, 1.0))

    for (p, r), least in found.items():
        assert lowest_f1(p / 4 / n, r / 4 / n, n) == pytest.approx(least, abs=1e-12)
        assert least >= lowest_f1(p / 4 / n, r / 4 / n) - 1e-12


@given(COUNT, COUNT, COUNT, st.integers(0, 9))
def test_accuracy_is_never_below_its_bound_and_reaches_it_without_background(
    tp: int, fp: int, fn: int, tn: int
) -> None:
    counts = np.array([[tp, fp, fn, tn], [tp, fp, fn, 0]])
    f1, accuracy = (RATIOS[name](counts) for name in ("dice", "accuracy"))
    if tp + fp + fn:
        assert accuracy[0] >= lowest_accuracy(f1[0]) - 1e-12
        assert accuracy[1] == pytest.approx(lowest_accuracy(f1[1]))


def fills(total: float, n: int) -> list[float]:
    """``n`` ratios with this sum, 1 as often as possible."""
    return [min(1.0, max(0.0, total - index)) for index in range(n)]


def meets(low: tuple, high: tuple, n: int) -> bool:
    """Whether ``n`` slices with lesion can have sums of precision, recall and F1 in these ranges, slice by slice."""
    if n == 0 or any(at > n + 1e-9 for at in low) or any(at < -1e-9 for at in high):
        return n == 0 and all(at <= 1e-9 for at in low) and all(at >= -1e-9 for at in high)
    low, high = ([min(max(at, 0), n) for at in ends] for ends in (low, high))
    pairs = zip(fills(low[0], n), reversed(fills(low[1], n)), strict=True)
    least = sum(2 * a * b / (a + b) for a, b in pairs if a + b)
    most = 2 * high[0] * high[1] / (high[0] + high[1]) if high[0] + high[1] else 0
    return low[2] <= most + 1e-9 and high[2] >= least - 1e-9


def by_search(row: Published, convention: str) -> bool:
    """The same question answered slowly: every number of blank, missed, wrongly marked and left-out slices is tried."""
    spans = [row.span(name) for name in ("precision", "recall", "f1")]

    def scaled(p: float, r: float, f: float, shift: float, n: int) -> bool:
        low, high = ([span[end] * by - shift for span, by in zip(spans, (p, r, f), strict=True)] for end in (0, 1))
        return meets(low, high, n)

    def left_out(lesion: int, empty: int) -> bool:
        # p over slices with a prediction, r over those with lesion, F1 over those with either; `missed` have no p, r = F1 = 0.
        return any(
            scaled(lesion - missed + alarms, lesion, lesion + alarms, 0, lesion - missed)
            for missed, alarms in product(range(lesion + 1), range(empty + 1))
        )

    lesion, n = row.lesion_slices, row.slices
    if convention == "empty_is_one":
        return any(scaled(n, n, n, blank, lesion) for blank in range(n - lesion + 1))
    if convention == "empty_is_nan":
        return left_out(lesion, n - lesion)
    if convention == "per_case":
        return any(left_out(ill, well) for ill in range(1, row.cases + 1) for well in range(row.cases - ill + 1))
    of = lesion if convention == "lesion_slices" else n
    return scaled(of, of, of, 0, lesion)


@settings(max_examples=400, deadline=None)
@given(
    *[st.one_of(SHARES, st.sampled_from(["0.5000", "1.0000", "0.2500", "0.3333", "0.6667", "0.0000"]))] * 3,
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(1, 4),
)
def test_a_slow_search_through_all_slices_agrees(
    precision: str, recall: str, f1: str, lesion: int, empty: int, cases: int
) -> None:
    row = Published(precision, recall, f1, slices=lesion + empty, lesion_slices=lesion, cases=cases)
    for convention in ("lesion_slices", "empty_is_one", "empty_is_zero", "empty_is_nan", "per_case"):
        assert verdict(row, convention).possible == by_search(row, convention), convention


# --- what stands out


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 6]))
def test_a_pooled_row_is_recognised(seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.concatenate([rng.integers(20, 900, (40, 4)), np.array([[0, 9, 0, 900]] * 20)])
    row = row_of(table, [f"case{index % 10}" for index in range(60)], "pooled", digits)

    assert verdict(row, "pooled").possible
    assert all(one.barely or not one.possible for one in examine(row) if one.convention != "pooled")


def test_a_mean_over_slices_is_told_from_a_pool() -> None:
    rng = np.random.default_rng(7)
    row = row_of(rng.integers(20, 900, (60, 4)), ["a"] * 60, "lesion_slices", 6)

    assert not verdict(row, "pooled").possible
    assert not verdict(row, "lesion_slices").barely


def test_two_digits_cannot_tell_them_apart() -> None:
    row = Published("0.75", "0.83", "0.79")

    assert {"pooled", "lesion_slices"} <= possible(row)
    assert not verdict(row, "lesion_slices").barely


def test_how_closely_slices_would_have_to_agree_is_a_bound_that_holds() -> None:
    """Near the ceiling the reason names the typical distance; slices that far apart are made and give such an F1."""
    away = 0.01
    p, r = np.array([0.7 - away, 0.7 + away] * 50), np.array([0.7 + away, 0.7 - away] * 50)
    row = Published(*(f"{mean:.6f}" for mean in (p.mean(), r.mean(), highest_f1(p, r).mean())), lesion_slices=100)
    one = verdict(row, "lesion_slices")
    told = float(one.reason.rsplit(" ", 1)[1].rstrip("."))

    assert one.barely
    assert np.sqrt(((p - r) ** 2).mean()) <= told < 2 * np.sqrt(((p - r) ** 2).mean())


def test_perfect_rows_and_single_cases_are_not_called_suspicious() -> None:
    perfect = Published("1.0000", "1.0000", "1.0000", slices=10, lesion_slices=5)
    single = Published("0.7515", "0.8335", "0.7904", cases=1)

    assert not any(one.barely for one in examine(perfect))
    assert verdict(single, "per_case").possible
    assert not verdict(single, "per_case").barely


def test_one_case_averages_to_its_own_ratio() -> None:
    assert not verdict(replace(CT_1_9, cases=1), "per_case").possible
    assert verdict(replace(CT_1_9, cases=9), "per_case").possible


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(
            Published("0.7515", "0.8335", "0.3952"), "F1 is PR/(P + R) = 0.3952", id="of the row's own P and R"
        ),
        pytest.param(
            Published("0.900", "0.900", "0.420"), "fits as a mean of PR/(P + R), at most 0.4502", id="slice by slice"
        ),
    ],
)
def test_equation_5_as_printed_is_recognised(row: Published, reason: str) -> None:
    assert possible(row) == {"misprint"}
    assert reason in verdict(row, "misprint").reason


# --- each condition decides somewhere


@pytest.mark.parametrize(
    ("row", "convention", "reason"),
    [
        pytest.param(
            Published("0.80", "0.80", "0.90"), "lesion_slices", "F1 is at most 2PR/(P + R), 0.8050 here; it is 0.8950 or more", id="F1 too high"
        ),
        pytest.param(
            Published("0.80", "0.80", "0.50"), "per_case", "need an F1 of at least 0.5900; it is 0.5050 or less", id="F1 too low"
        ),
        pytest.param(
            Published("0.800", "0.800", "0.750", "0.500"), "empty_is_one", "accuracy is at least F1/(2 − F1), 0.5994 here; it is 0.5005", id="accuracy too low"
        ),
        pytest.param(
            Published("0.800", "0.800", "0.800", "0.500"), "pooled", "Accuracy is at least F1/(2 − F1), here 0.6660; 0.500", id="accuracy too low, pooled"
        ),
        pytest.param(
            Published("0.800", "0.800", "0.800", "0.990", background_accuracy="0.900"), "pooled", "imply that predicting nothing scores 0.9737 to 0.9763; 0.900", id="another background"
        ),
        pytest.param(
            Published("0.40", "0.95", "0.36", slices=100, lesion_slices=40), "empty_is_one", "At least 55 of the 60", id="too few blank slices"
        ),
        pytest.param(
            Published("0.500", "0.500", "0.100", slices=10, lesion_slices=6), "empty_is_zero", "Averaged over the 6 slices with lesion, this precision and recall need", id="zeros, F1 too low for the rest"
        ),
        pytest.param(
            Published("0.5000", "1.0000", "0.6000", slices=2, lesion_slices=1), "empty_is_nan", "No number of false alarms, 0 to 1", id="no number of false alarms"
        ),
    ],
)  # fmt: skip
def test_each_condition_excludes_with_its_own_reason(row: Published, convention: str, reason: str) -> None:
    assert not verdict(row, convention).possible
    assert reason in verdict(row, convention).reason


def test_blank_slices_that_would_need_more_accuracy_are_excluded() -> None:
    """Half of 100 slices are blank and right, so accuracy is .5 at least; with F1 over the rest, more."""
    row = Published("0.900", "0.900", "0.890", "0.81", slices=100, lesion_slices=50)

    assert verdict(replace(row, accuracy=None), "empty_is_one").possible
    assert verdict(replace(row, accuracy="0.82"), "empty_is_one").possible
    assert "No number of rightly blank slices" in verdict(replace(row, accuracy="0.80"), "empty_is_one").reason


def test_accuracy_of_slices_without_lesion_is_taken_off_before_it_is_judged() -> None:
    """100 slices, half with lesion, F1 .9 on these, so an accuracy of .818 there.

    Counted as 0, the others may have had any accuracy: .409 in all is enough. Left out as blank, they had 1: .909 in all is needed.
    """
    halves = {"slices": 100, "lesion_slices": 50}

    def allowed(ratio: str, accuracy: str, convention: str) -> bool:
        return verdict(Published(ratio, ratio, ratio, accuracy, **halves), convention).possible

    assert [allowed("0.450", accuracy, "empty_is_zero") for accuracy in ("0.400", "0.420")] == [False, True]
    assert [allowed("0.900", accuracy, "empty_is_nan") for accuracy in ("0.900", "0.920")] == [False, True]


# --- too little, and too much


@pytest.mark.parametrize(
    ("row", "convention", "needs"),
    [
        pytest.param(Published(f1="0.78"), "pooled", ("precision", "recall"), id="pooled"),
        pytest.param(replace(CT_1_9, f1=None), "lesion_slices", ("f1",), id="no F1"),
        pytest.param(replace(CT_1_9, slices=None), "empty_is_one", ("slices",), id="no slices"),
        pytest.param(
            replace(CT_1_9, slices=None, lesion_slices=None),
            "empty_is_zero",
            ("slices", "lesion_slices"),
            id="no counts",
        ),
        pytest.param(Published("0.9", f1="0.4"), "misprint", ("recall",), id="no recall"),
    ],
)
def test_what_is_missing_is_named_where_nothing_is_excluded(
    row: Published, convention: str, needs: tuple[str, ...]
) -> None:
    one = verdict(row, convention)

    assert (one.possible, one.needs) == (True, needs)
    assert one.reason.startswith("It cannot be excluded by what is given")


def test_where_every_slice_has_lesion_slices_without_it_cannot_matter() -> None:
    row = Published("0.751", "0.834", "0.783", slices=123, lesion_slices=123)

    assert {verdict(row, name).reason for name in ("empty_is_one", "empty_is_zero", "empty_is_nan")} == {
        verdict(row, "lesion_slices").reason
    }


def test_one_ratio_can_be_enough_to_exclude() -> None:
    row = Published(recall="0.833533", slices=214, lesion_slices=123)

    assert not verdict(row, "empty_is_zero").possible
    assert verdict(row, "empty_is_one").needs == ("precision", "f1")


def test_there_is_a_verdict_for_every_candidate_in_order() -> None:
    assert tuple(one.convention for one in examine(CT_1_9)) == CANDIDATES
    assert set(CANDIDATES) == {*CONVENTIONS, "empty_is_zero", "misprint"}


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        pytest.param(
            {"f1": "75.1451"}, "between 0 and 1; got F1 '75.1451'.*given as a ratio: 0.751451\\.$", id="percentage"
        ),
        pytest.param({"f1": "75 %"}, "A percentage is given as a ratio: 0.75", id="percent sign"),
        pytest.param({"recall": "0.5%"}, "given as a ratio: 0.005", id="small percentage"),
        pytest.param({"accuracy": "1.2"}, "between 0 and 1; got accuracy '1.2'", id="above 1"),
        pytest.param({"accuracy": "-0.2"}, "between 0 and 1; got accuracy '-0.2'", id="negative"),
        pytest.param({"accuracy": "120"}, "between 0 and 1; got accuracy '120'", id="no percentage either"),
        pytest.param({"precision": "n/a"}, "A ratio is a number such as 0.751; got precision 'n/a'", id="no number"),
        pytest.param({"precision": "nan"}, "A ratio is a number", id="not a number"),
        pytest.param({"precision": "0,75"}, "with a point", id="comma"),
        pytest.param({"precision": ""}, "A ratio is a number", id="nothing"),
        pytest.param({"precision": "."}, "A ratio is a number", id="a point"),
        pytest.param({"precision": 0.75}, "as text, so that its digits are known; got precision 0.75", id="a float"),
        pytest.param({"f1": "0.7", "background_accuracy": "99"}, "got background accuracy '99'", id="background"),
        pytest.param(
            {"f1": "0.7", "slices": 5, "lesion_slices": 6}, "got 6 of 5", id="more with lesion than there are"
        ),
        pytest.param({"f1": "0.7", "slices": 0}, "Slices are counted, 1 to 1,000,000; got 0", id="no slices"),
        pytest.param({"f1": "0.7", "lesion_slices": -3}, "Lesion slices are counted", id="negative slices"),
        pytest.param({"f1": "0.7", "cases": 2.5}, "Cases are counted", id="half a case"),
        pytest.param({"slices": 5}, "nothing to examine", id="no ratio"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(given_: dict, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        Published(**given_)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        pytest.param("0.75", 0.745, 0.755, id="two digits"),
        pytest.param(".751451", 0.7514505, 0.7514515, id="six digits, no zero before"),
        pytest.param("0.750", 0.7495, 0.7505, id="a last zero counts"),
        pytest.param("1.00", 0.995, 1.0, id="cut at 1"),
        pytest.param("0.0", 0.0, 0.05, id="cut at 0"),
        pytest.param("1", 0.5, 1.0, id="no digits"),
    ],
)
def test_a_printed_ratio_is_a_range(text: str, low: float, high: float) -> None:
    assert Published(f1=text).span("f1") == pytest.approx((low, high))
    assert Published(f1=text).span("recall") == (0, 1)
