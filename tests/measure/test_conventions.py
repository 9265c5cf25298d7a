"""What each way of averaging makes of slices with and without lesion."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.errors import InputError, ProtocolError
from lungshift.measure.conventions import (
    CONVENTIONS,
    Average,
    all_conventions,
    average,
    background_baseline,
    level_of,
    resolve_convention,
    score,
)
from lungshift.measure.overlap import RATIOS, Metric, dice

HALF, MISSED, EMPTY, FALSE_ALARM, NO_LUNG = [1, 1, 1, 1], [0, 0, 2, 2], [0, 0, 0, 4], [0, 1, 0, 3], [0, 0, 0, 0]
TABLE = np.array([HALF, MISSED, EMPTY, FALSE_ALARM, NO_LUNG], dtype=np.int64)
CASES = ["ill", "ill", "ill", "well", "well"]
"""ill: TP 1, FP 1, FN 3, TN 7; well: FP 1, TN 3."""

TABLES = st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1, max_size=8)


def same(one: Average, other: Average) -> bool:
    """Equal, NaN being equal to NaN."""
    return repr(one) == repr(other)


@pytest.mark.parametrize(
    ("convention", "metric", "value", "n", "n_undefined"),
    [
        pytest.param("lesion_slices", "dice", (0.5 + 0) / 2, 2, 0, id="lesion_slices: slices with lesion only"),
        pytest.param("lesion_slices", "precision", (0.5 + 0) / 2, 2, 1, id="lesion_slices: nothing predicted is 0"),
        pytest.param("lesion_slices", "recall", (0.5 + 0) / 2, 2, 0, id="lesion_slices: recall"),
        pytest.param("lesion_slices", "accuracy", (0.5 + 0.5) / 2, 2, 0, id="lesion_slices: accuracy"),
        pytest.param("empty_is_one", "dice", (0.5 + 0 + 1 + 0) / 4, 4, 1, id="empty_is_one: empty and empty is 1"),
        pytest.param("empty_is_one", "precision", (0.5 + 0 + 1 + 0) / 4, 4, 2, id="empty_is_one: missed is 0"),
        pytest.param("empty_is_one", "recall", (0.5 + 0 + 1 + 0) / 4, 4, 2, id="empty_is_one: false alarm is 0"),
        pytest.param("empty_is_nan", "dice", (0.5 + 0 + 0) / 3, 3, 1, id="empty_is_nan: empty left out"),
        pytest.param("empty_is_nan", "precision", (0.5 + 0) / 2, 2, 2, id="empty_is_nan: only where predicted"),
        pytest.param("empty_is_nan", "recall", (0.5 + 0) / 2, 2, 2, id="empty_is_nan: only where lesion"),
        pytest.param(
            "empty_is_nan", "accuracy", (0.5 + 0.5 + 1 + 0.75) / 4, 4, 0, id="empty_is_nan: no voxel, no slice"
        ),
        pytest.param("per_case", "dice", (2 / 6 + 0) / 2, 2, 0, id="per_case: sums by case"),
        pytest.param("per_case", "recall", 1 / 4, 1, 1, id="per_case: undefined case left out and counted"),
        pytest.param("pooled", "dice", 2 / 7, 4, 0, id="pooled: one ratio of everything"),
        pytest.param("pooled", "accuracy", 11 / 16, 4, 0, id="pooled: accuracy"),
    ],
)
def test_each_convention_means_one_thing(
    convention: str, metric: Metric, value: float, n: int, n_undefined: int
) -> None:
    mean = average(TABLE, CASES, convention)[metric]

    assert (mean.convention, mean.metric, mean.n, mean.n_undefined) == (convention, metric, n, n_undefined)
    assert mean.value == pytest.approx(value)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("table", "n_undefined"),
    [
        pytest.param(np.zeros((0, 4), dtype=np.int64), 0, id="no slice"),
        pytest.param(np.array([NO_LUNG]), 0, id="no voxel"),
    ],
)
def test_an_average_of_nothing_is_nan(convention: str, table: np.ndarray, n_undefined: int) -> None:
    for mean in average(table, ["a"] * len(table), convention).values():
        assert isnan(mean.value)
        assert (mean.n, mean.n_undefined) == (0, n_undefined)


@pytest.mark.parametrize(
    ("convention", "value", "n", "n_undefined"),
    [
        pytest.param("lesion_slices", nan, 0, 0, id="lesion_slices"),
        pytest.param("empty_is_one", 1.0, 2, 2, id="empty_is_one"),
        pytest.param("empty_is_nan", nan, 0, 2, id="empty_is_nan"),
        pytest.param("per_case", nan, 0, 1, id="per_case"),
        pytest.param("pooled", nan, 2, 1, id="pooled"),
    ],
)
def test_a_healthy_scan_rightly_left_blank(convention: str, value: float, n: int, n_undefined: int) -> None:
    mean = average(np.array([EMPTY, EMPTY]), ["well", "well"], convention)["dice"]

    assert mean.value == pytest.approx(value, nan_ok=True)
    assert (mean.n, mean.n_undefined) == (n, n_undefined)


def test_paper_is_another_name_of_lesion_slices() -> None:
    assert resolve_convention("paper") == "lesion_slices"
    assert average(TABLE, CASES, "paper")["dice"].convention == "lesion_slices"


def test_an_unknown_convention_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProtocolError, match=r"'mean' is no convention.*lesion_slices.*pooled or paper"):
        average(TABLE, CASES, "mean")


def test_an_id_short_is_refused() -> None:
    with pytest.raises(InputError, match="5 rows of counts need as many labels; got 4"):
        average(TABLE, CASES[:4], "per_case")


def test_levels_go_with_conventions() -> None:
    assert [level_of(name) for name in CONVENTIONS] == ["slice", "slice", "slice", "case", "pooled"]
    assert average(TABLE, CASES, "per_case")["dice"].level == "case"


def test_all_conventions_stand_beside_each_other() -> None:
    means = all_conventions(TABLE, CASES)

    assert [(mean.convention, mean.metric) for mean in means] == [(c, m) for c in CONVENTIONS for m in RATIOS]
    assert same(means[0], average(TABLE, CASES, "lesion_slices")["dice"])


def test_scores_of_slices_mark_what_is_left_out() -> None:
    np.testing.assert_array_equal(score(TABLE, "paper", "precision"), [0.5, 0, nan, nan, nan])
    np.testing.assert_array_equal(score(TABLE, "empty_is_one", "precision"), [0.5, 0, 1, 0, nan])


def test_predicting_nothing_looks_accurate_where_lesions_are_small() -> None:
    small = np.array([[300, 50, 800 - 300, 320 * 320 - 850]])

    nothing = background_baseline(small)

    assert nothing.tolist() == [[0, 0, 800, 320 * 320 - 800]]
    assert average(nothing, ["a"], "paper")["accuracy"].value == pytest.approx(0.992, abs=5e-4)
    assert average(nothing, ["a"], "paper")["dice"].value == 0


@pytest.mark.parametrize(
    ("printed_precision", "printed_recall", "printed_f1", "pooled_f1"),
    [
        pytest.param(0.751451, 0.833533, 0.783245, 0.7904, id="CT 1-9"),
        pytest.param(0.628606, 0.647012, 0.613689, 0.6377, id="CT 10, no retraining"),
        pytest.param(0.813515, 0.863668, 0.827899, 0.8378, id="CT 10, retrained"),
    ],
)
def test_table_2_of_the_paper_cannot_be_pooled(
    printed_precision: float, printed_recall: float, printed_f1: float, pooled_f1: float
) -> None:
    forced = 2 * printed_precision * printed_recall / (printed_precision + printed_recall)

    assert forced == pytest.approx(pooled_f1, abs=1e-4)
    assert forced != pytest.approx(printed_f1, abs=5e-3)


@given(TABLES, st.randoms(use_true_random=False))
def test_the_order_of_slices_changes_nothing(rows: list[tuple[int, ...]], random: object) -> None:
    table = np.array(rows, dtype=np.int64)
    cases = [f"case{index % 3}" for index in range(len(rows))]
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]

    for one, other in zip(
        all_conventions(table, cases), all_conventions(table[order], [cases[i] for i in order]), strict=True
    ):
        assert one.value == pytest.approx(other.value, nan_ok=True)
        assert (one.n, one.n_undefined) == (other.n, other.n_undefined)


@given(TABLES)
def test_a_perfect_prediction_scores_one_by_every_convention_that_is_defined(rows: list[tuple[int, ...]]) -> None:
    table = np.array(rows, dtype=np.int64)
    table[:, 1:3] = 0

    for mean in all_conventions(table, ["a"] * len(rows)):
        assert isnan(mean.value) or mean.value == 1


@given(TABLES)
def test_one_case_of_one_slice_scores_the_same_by_slice_case_and_pool(rows: list[tuple[int, ...]]) -> None:
    table = np.array(rows[:1], dtype=np.int64)

    for convention in ("empty_is_nan", "per_case", "pooled"):
        assert average(table, ["a"], convention)["dice"].value == pytest.approx(float(dice(table)[0]), nan_ok=True)


@given(TABLES)
def test_slices_without_lesion_change_nothing_for_lesion_slices(rows: list[tuple[int, ...]]) -> None:
    table = np.array(rows, dtype=np.int64)
    more = np.concatenate([table, [FALSE_ALARM, EMPTY]])

    before, after = (average(counts, ["a"] * len(counts), "paper") for counts in (table, more))

    assert all(same(before[metric], after[metric]) for metric in RATIOS)
