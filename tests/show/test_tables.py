import csv
import io
import math

import pytest

from lungshift.measure.conventions import CONVENTIONS
from lungshift.show import tables
from lungshift.show.tables import Cell, build_table, by_seed, counts_csv, summary_rows, to_csv
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


def test_rows_go_from_home_abroad_to_home_again_and_from_few_labels_to_many(rich_findings):
    rows = summary_rows(rich_findings.table, "per_case")
    assert [row.arm for row in rows[:5]] == [
        "source", "zero_shot", "adapted_batch_norm", "adapted_histogram", "adapted_tent",
    ]  # fmt: skip
    assert [(row.arm, row.labels) for row in rows if row.role == "target"][4:8] == [
        ("from_scratch", 1), ("from_scratch", 2), ("from_scratch", 4), ("fine_tuned", 1),
    ]  # fmt: skip
    assert rows[-1].label == "Source again, trained on source and target together (4 patients and 1 to validate)"
    assert rows[-1].done == "Trained on source and target together"


def test_the_background_baseline_is_the_accuracy_of_predicting_nothing(outcome_of):
    row = summary_rows(build_table(outcome_of()), "pooled")[1]
    assert row.baseline == pytest.approx(1 - 12 / 256)
    assert row.cells["accuracy"].value == pytest.approx(1 - 9 / 256)


def test_inside_the_lung_fewer_voxels_count(outcome_of):
    row = next(row for row in summary_rows(build_table(outcome_of()), "pooled", "in_lung") if row.arm == "zero_shot")
    assert row.cells["accuracy"].value == pytest.approx(1 - 9 / 96)


def test_native_rows_exist_only_where_native_counts_do(outcome_of, scores_of):
    assert not summary_rows(build_table(outcome_of()), "pooled", "native")
    run = Run("zero_shot", "beta", "target", "nothing", 0, scores_of([(1, 1, 1, 61)] * 2, native=True))
    assert f1(outcome_of(runs=(run,)), "pooled", region="native").value == pytest.approx(0.5)


def test_counts_of_several_seeds_are_put_together_and_each_seed_is_listed(outcome_of, run_of):
    runs = tuple(run_of("zero_shot", [(tp, 1, 1, 60)] * 2, seed=seed) for seed, tp in ((0, 1), (1, 3)))
    table = build_table(outcome_of(runs=runs))
    (row,) = summary_rows(table, "pooled")
    assert row.is_pooled
    assert row.cells["dice"].value == pytest.approx(2 * 8 / (2 * 8 + 8))
    listed = {(line["seed"], line["seeds"]) for line in read(to_csv(table))}
    assert listed == {("all", "0 1"), ("0", "0"), ("1", "1")}
    seeds, lines = by_seed(table, "pooled")
    assert seeds == (0, 1)
    assert [cell.value for cell in lines[0][1]] == pytest.approx([0.5, 0.75])


def test_folds_of_a_seed_are_one_row_in_which_every_patient_was_tested_once(outcome_of, run_of):
    runs = tuple(
        run_of("zero_shot", [(tp, 1, 1, 60)] * 2, [case] * 2, fold=fold)
        for fold, (case, tp) in enumerate((("a", 1), ("b", 3)))
    )
    (row,) = summary_rows(build_table(outcome_of(runs=runs)), "per_case")
    assert (row.folds, row.seeds, row.patients, row.slices) == (2, (0,), 2, (4,))
    assert row.cells["dice"].value == pytest.approx((0.5 + 0.75) / 2)
    assert not row.is_pooled


def test_slices_that_every_fold_tests_are_counted_once(outcome_of, run_of):
    at_home = {"tested_on": "alpha", "role": "source"}
    runs = tuple(
        run_of("fine_tuned", [(1, 1, 1, 60), (0, 0, 0, 63)], ["a", "a"], fold=fold, **at_home) for fold in (0, 1)
    )
    (row,) = summary_rows(build_table(outcome_of(runs=runs)), "lesion_slices")
    assert (row.slices, row.lesion_slices, row.cells["dice"].n) == ((2,), (1,), 2)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_value_lies_in_its_own_interval_whatever_the_seeds_weigh(outcome_of, run_of, convention):
    # Seed 0 tests three patients, seed 1 one of them with other slices: a mean of means would not be the pooled ratio.
    rows = [(6, 1, 2, 60), (1, 4, 3, 60), (8, 0, 1, 60)]
    runs = (
        run_of("zero_shot", rows, ["a", "b", "c"]),
        run_of("zero_shot", [(1, 9, 1, 60)] * 4, ["b"] * 4, seed=1),
    )
    (row,) = summary_rows(build_table(outcome_of(runs=runs)), convention)
    cell = row.cells["dice"]
    assert cell.low < cell.value < cell.high
    assert row.patients == 3


def test_budgets_of_one_arm_are_rows_of_their_own(outcome_of, run_of):
    runs = tuple(run_of("fine_tuned", [(n, 1, 1, 60)] * 2, labels=n) for n in (4, 1, 2))
    rows = summary_rows(build_table(outcome_of(runs=runs)), "pooled")
    assert [row.labels for row in rows] == [1, 2, 4]
    assert [line["labels"] for line in read(to_csv(rows))] == ["1", "2", "4"]


def test_stages_of_a_chain_are_rows_by_what_they_were_trained_on(chain):
    rows = [row for row in summary_rows(build_table(chain), "pooled") if row.tested_on == "north"]
    assert [row.done for row in rows] == [
        "After north",
        "After north, then south",
        "After north, then south, then west",
    ]
    assert [line["trained_on"] for line in read(to_csv(rows))] == ["north", "north + south", "north + south + west"]


def test_splits_that_share_patients_are_called_leaky(rich_findings):
    rows = summary_rows(rich_findings.leak, "lesion_slices")
    assert [(row.arm, row.leaky) for row in rows] == [
        ("split_by_slice", True),
        ("split_by_case", True),  # nine cases of eight patients
        ("split_by_patient", False),
    ]


def test_one_seed_has_no_row_for_all(outcome_of):
    table = build_table(outcome_of())
    assert not any(row.is_pooled for row in table)
    assert by_seed(table, "pooled") == ((), [])


def test_a_seed_without_a_value_adds_nothing_and_is_seen_to_be_undefined(outcome_of, run_of):
    runs = tuple(
        run_of("zero_shot", rows, seed=seed) for seed, rows in ((0, [(1, 1, 1, 61)] * 2), (1, [(0, 0, 0, 64)] * 2))
    )
    table = build_table(outcome_of(runs=runs))
    assert summary_rows(table, "lesion_slices")[0].cells["dice"].value == pytest.approx(0.5)
    first, second = by_seed(table, "lesion_slices")[1][0][1]
    assert first.value == pytest.approx(0.5)
    assert math.isnan(second.value)


def test_a_single_patient_has_no_interval(outcome_of, scores_of):
    run = Run("zero_shot", "beta", "target", "", 0, scores_of([(1, 1, 1, 61)] * 2))
    cell = f1(outcome_of(runs=(run,)), "lesion_slices")
    assert math.isnan(cell.low)
    assert tables.span(cell) == "no interval"


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
    assert {line["fold"] for line in lines} == {"0"}
    assert {line["labels"] for line in lines} == {"0", "2"}


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
    table = build_table(outcome_of(cohorts=(summary(*source), summary(*target))))
    beside = {(row.arm, row.convention, row.region) for row in table if row.paper}
    assert bool(beside) is compared
    if compared:
        assert {convention for _, convention, _ in beside} == {"lesion_slices", "empty_is_one"}
        assert {region for _, _, region in beside} == {"whole_slice"}
        assert {arm for arm, _, _ in beside} == {"source", "zero_shot", "fine_tuned"}


def test_the_difference_is_ours_minus_the_papers(outcome_of):
    outcome = outcome_of(cohorts=(summary("medseg9", 1, 1, 1), summary("coronacases10", 1, 1, 1)))
    row = summary_rows(build_table(outcome), "lesion_slices")[1]
    assert row.difference("dice") == pytest.approx((0.5 + 8 / 12) / 2 - 0.613689)


def test_of_several_budgets_the_largest_stands_beside_the_paper(outcome_of, run_of):
    runs = tuple(run_of("fine_tuned", [(n, 1, 1, 60)] * 2, labels=n) for n in (1, 2, 4))
    outcome = outcome_of(runs=runs, cohorts=(summary("medseg9", 1, 1, 1), summary("coronacases10", 1, 1, 1)))
    assert {row.labels for row in build_table(outcome) if row.paper} == {4}


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
