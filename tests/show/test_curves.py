import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.show.curves import curves_of, draw_curves, home_of, look_of, spread
from lungshift.show.drawing import style
from lungshift.show.tables import build_table
from lungshift.transfer.arms import ARMS


def test_arms_that_start_from_the_source_start_without_labels_and_those_from_scratch_do_not(rich_findings):
    curves = {curve.arm: curve for curve in curves_of(rich_findings.table, "lesion_slices")}
    assert curves["fine_tuned"].labels == curves["joint"].labels == (0, 1, 2, 4)
    assert curves["from_scratch"].labels == (1, 2, 4)
    assert curves["adapted_tent"].labels == (0,)
    assert curves["fine_tuned"].cells[0] == curves["zero_shot"].cells[0]


def test_the_numbers_of_a_curve_are_those_of_the_table(rich_findings):
    row = next(r for r in rich_findings.table if (r.arm, r.labels, r.convention) == ("joint", 4, "per_case"))
    curve = next(c for c in curves_of(rich_findings.table, "per_case") if c.arm == "joint")
    assert curve.cells[-1] == row.cells["dice"]


def test_what_is_left_at_home_starts_at_the_source_model(rich_findings):
    curve = next(c for c in curves_of(rich_findings.table, "lesion_slices", "source") if c.arm == "fine_tuned")
    assert curve.cells[0] == home_of(rich_findings.table, "lesion_slices").cells["dice"]


def test_each_convention_has_a_panel_and_forgetting_has_one_with_every_value_in_words(rich, rich_findings):
    with style():
        drawings = draw_curves(rich, rich_findings.table)
    assert [d.name for d in drawings] == ["curves-lesion-slices", "curves-per-case", "forgetting-lesion-slices"]
    assert "lesion_slices" in drawings[0].caption
    for arm in ARMS:
        assert ARMS[arm].words in drawings[0].alt
    assert len(re.findall(r"with [0124]", drawings[0].alt)) == 4 * 4 + 3 + 4


def test_without_budgets_there_is_no_curve(outcome_of):
    outcome = outcome_of(runs=outcome_of().runs[:2])
    assert draw_curves(outcome, build_table(outcome)) == []


def test_undefined_scores_are_drawn_around(outcome_of, run_of):
    empty = [(0, 0, 0, 64)] * 2
    outcome = outcome_of(runs=(run_of("zero_shot", empty), run_of("fine_tuned", empty)))
    with style():
        drawings = draw_curves(outcome, build_table(outcome))
    assert "undefined (no interval) with 2" in drawings[0].alt


def test_an_arm_looks_the_same_in_every_study_and_like_no_other():
    labelled = [name for name in ARMS if ARMS[name].labels]
    assert len({look_of(name) for name in labelled}) == len(labelled)
    assert len({look_of(name) for name in ARMS}) == len(ARMS)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_labels_are_apart_inside_and_in_the_order_of_their_values(values):
    heights = spread(values, 0.1, 0.05, 0.95)
    ranked = sorted(zip(values, heights, strict=True))
    placed = sorted(heights)
    assert all(second - first > 0.1 - 1e-9 for first, second in pairwise(placed))
    assert placed[-1] <= 0.95 + 1e-9
    assert placed[0] >= 0.05 - 1e-9
    assert [height for _, height in ranked] == pytest.approx(placed)


def test_labels_that_have_room_stay_at_their_values():
    assert spread([0.2, 0.9, 0.5], 0.1, 0, 1) == pytest.approx([0.2, 0.9, 0.5])
