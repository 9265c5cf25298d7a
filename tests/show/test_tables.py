import csv
import io
import math

import pytest

from lungshift.measure.conventions import CONVENTIONS
from lungshift.show import tables
from lungshift.show.tables import Cell, build_table, counts_csv, gain, seed_rows, summary_rows, to_csv
from lungshift.transfer.outcome import CohortSummary, Run

NAN = float("nan")


def f1(outcome, convention, arm="zero_shot", region="whole_slice"):
    rows = summary_rows(build_table(outcome), convention, region)
    return next(row for row in rows if row.arm == arm).cells["dice"]


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        # Dice of the slices with lesion: 4/8 and 8/12; the two others: both empty, and a false alarm
        pytest.param("lesion_slices", (0.5 + 8 / 12) / 2, id="lesion slices only"),
        pytest.param("empty_is_one", (0.5 + 1 + 8 / 12 + 0) / 4, id="all slices, empty is one"),
        pytest.param("per_case", (0.5 + 8 / 13) / 2, id="cases in 3-D"),
        pytest.param("pooled", 12 / 21, id="pooled"),
    ],
)
def test_f1_is_what_the_convention_says(outcome_of, convention, expected):
    assert f1(outcome_of(), convention).value == pytest.approx(expected)


def test_rows_stand_in_the_order_of_the_papers_table(outcome_of):
    outcome = outcome_of()
    shuffled = outcome_of(runs=outcome.runs[::-1])
    labels = [row.label for row in summary_rows(build_table(shuffled), "per_case")]
    assert labels == ["Source test", "Target, without retraining", "Target, retrained (2 patients)"]


def test_the_background_baseline_is_the_accuracy_of_predicting_nothing(outcome_of):
    row = summary_rows(build_table(outcome_of()), "pooled")[1]
    assert row.baseline == pytest.approx(1 - 12 / 256)
    assert row.cells["accuracy"].value == pytest.approx(1 - 9 / 256)


def test_inside_the_lung_fewer_voxels_count(outcome_of):
    row = next(row for row in summary_rows(build_table(outcome_of()), "pooled", "in_lung") if row.arm == "zero_shot")
    assert row.cells["accuracy"].value == pytest.approx(1 - 9 / 96)


def test_native_rows_exist_only_where_native_counts_do(outcome_of, scores_of):
    assert not summary_rows(build_table(outcome_of()), "pooled", "native")
    run = Run("zero_shot", "beta", "target", "", 0, scores_of([(1, 1, 1, 61)] * 2, native=True))
    assert f1(outcome_of(runs=(run,)), "pooled", region="native").value == pytest.approx(0.5)


def test_several_seeds_are_averaged_and_each_is_listed(outcome_of, scores_of):
    runs = tuple(
        Run("zero_shot", "beta", "target", "", seed, scores_of([(tp, 1, 1, 60)] * 2)) for seed, tp in ((0, 1), (1, 3))
    )
    table = build_table(outcome_of(runs=runs))
    (mean,) = summary_rows(table, "pooled")
    assert mean.is_mean
    assert mean.cells["dice"].value == pytest.approx((0.5 + 0.75) / 2)
    listed = {(line["seed"], line["seeds"]) for line in read(to_csv(table))}
    assert listed == {("mean", "0 1"), ("0", "0"), ("1", "1")}
    assert {row.seeds for row in seed_rows(table)} == {(0,), (1,)}


def test_one_seed_has_no_mean_row(outcome_of):
    table = build_table(outcome_of())
    assert not any(row.is_mean for row in table)
    assert not seed_rows(table)


def test_a_seed_without_a_value_leaves_the_mean_undefined(outcome_of, scores_of):
    runs = tuple(
        Run("zero_shot", "beta", "target", "", seed, scores_of(rows))
        for seed, rows in ((0, [(1, 1, 1, 61)] * 2), (1, [(0, 0, 0, 64)] * 2))
    )
    assert math.isnan(f1(outcome_of(runs=runs), "lesion_slices").value)


def test_a_single_patient_has_no_interval(outcome_of, scores_of):
    run = Run("zero_shot", "beta", "target", "", 0, scores_of([(1, 1, 1, 61)] * 2))
    cell = f1(outcome_of(runs=(run,)), "lesion_slices")
    assert math.isnan(cell.low)
    assert tables.span(cell) == "no interval"


def test_the_gain_is_paired_over_the_same_slices(outcome_of):
    interval = gain(outcome_of())
    assert interval is not None
    assert interval.low > 0


def test_there_is_no_gain_between_arms_of_other_slices(outcome_of, scores_of):
    before, after = outcome_of().runs[1:]
    other = Run("fine_tuned", "beta", "target", "2 patients", 0, scores_of([(1, 0, 0, 63)] * 2))
    assert gain(outcome_of(runs=(before, after))) is not None
    assert gain(outcome_of(runs=(before, other))) is None


def test_csv_leaves_undefined_empty_and_never_zero(outcome_of, scores_of):
    run = Run("zero_shot", "beta", "target", "", 0, scores_of([(0, 0, 0, 64)] * 2))
    lines = {line["convention"]: line for line in read(to_csv(build_table(outcome_of(runs=(run,)))))}
    assert lines["lesion_slices"]["f1"] == ""
    assert lines["lesion_slices"]["f1_low"] == ""
    assert lines["empty_is_one"]["f1"] == "1.000000"


def test_every_csv_row_names_convention_region_and_leak(outcome_of):
    lines = read(to_csv(build_table(outcome_of(leaky=True))))
    assert {line["convention"] for line in lines} == set(CONVENTIONS)
    assert {line["region"] for line in lines} == {"whole_slice", "in_lung"}
    assert {line["leaky_split"] for line in lines} == {"True"}


def test_counts_csv_has_a_line_per_run_and_slice(outcome_of):
    lines = read(counts_csv(outcome_of()))
    assert len(lines) == 3 * 4
    assert [lines[4][f"whole_slice_{name}"] for name in ("tp", "fp", "fn", "tn")] == ["2", "2", "2", "58"]
    assert lines[4]["native_tp"] == ""


def test_no_rows_make_no_text(outcome_of):
    assert to_csv(build_table(outcome_of(runs=()))) == ""


def summary(name, slices, lung, lesion):
    return CohortSummary(name, 9, 9, slices, lung, lesion, ("reader",))


@pytest.mark.parametrize(
    ("source", "target", "compared"),
    [
        pytest.param(("medseg9", 1, 1, 1), ("coronacases10", 1, 1, 1), True, id="names"),
        pytest.param(("a", 829, 713, 373), ("b", 2581, 2170, 1351), True, id="counts"),
        pytest.param(("a", 829, 713, 373), ("b", 2581, 2156, 1351), True, id="the paper's own lung count"),
        pytest.param(("coronacases10", 1, 1, 1), ("medseg9", 1, 1, 1), False, id="the other way round"),
        pytest.param(("a", 829, 713, 373), ("b", 2581, 2170, 1350), False, id="one slice off"),
        pytest.param(("medseg9", 829, 713, 373), ("other", 5, 5, 5), False, id="only the source"),
    ],
)
def test_the_paper_stands_beside_its_own_cohorts_only(outcome_of, source, target, compared):
    table = build_table(outcome_of(source=summary(*source), target=summary(*target)))
    beside = {(row.arm, row.convention, row.region) for row in table if row.paper}
    assert bool(beside) is compared
    if compared:
        assert {convention for _, convention, _ in beside} == {"lesion_slices", "empty_is_one"}
        assert {region for _, _, region in beside} == {"whole_slice"}
        assert {arm for arm, _, _ in beside} == {"source", "zero_shot", "fine_tuned"}


def test_the_difference_is_ours_minus_the_papers(outcome_of):
    outcome = outcome_of(source=summary("medseg9", 1, 1, 1), target=summary("coronacases10", 1, 1, 1))
    row = summary_rows(build_table(outcome), "lesion_slices")[1]
    assert row.difference("dice") == pytest.approx((0.5 + 8 / 12) / 2 - 0.613689)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (tables.number(NAN), "undefined"),
        (tables.number(0.61369), "0.614"),
        (tables.exact(NAN), ""),
        (tables.signed(-0.0341), "−0.034"),
        (tables.signed(0.0341), "+0.034"),
        (tables.span(Cell(0.5, 0.41, 0.62, 3, 0)), "0.410–0.620"),
        (tables.whole((7, 7)), "7"),
        (tables.whole((7, 9)), "7–9"),
    ],
)
def test_numbers_are_written_for_reading(text, expected):
    assert text == expected
