import pytest

from lungshift.show.pooled import Pooled, arm_runs, budgets_of, gain, group_runs


def test_runs_of_other_seeds_and_folds_belong_together(rich):
    groups = group_runs(rich.runs)
    assert sum(map(len, groups)) == len(rich.runs)
    assert {len(runs) for runs in groups if runs[0].arm != "source"} == {6}
    assert all(len({(run.arm, run.role, run.labels) for run in runs}) == 1 for runs in groups)


def test_the_same_scan_tested_by_two_models_is_two_scans_of_one_patient(run_of):
    pooled = Pooled(tuple(run_of("zero_shot", [(1, 1, 1, 61)] * 2, ["a", "a"], seed=seed) for seed in (0, 1)))
    assert len(set(pooled.cases)) == 2
    assert set(pooled.patients) == {"a"}


def test_an_arm_is_found_at_a_budget_or_at_its_largest(rich):
    assert {run.labels for run in arm_runs(rich, "fine_tuned")} == {4}
    assert {run.labels for run in arm_runs(rich, "fine_tuned", 1)} == {1}
    assert {run.tested_on for run in arm_runs(rich, "fine_tuned", role="source")} == {"medseg9-like"}
    assert arm_runs(rich, "fine_tuned", 3) == ()
    assert budgets_of(rich, "joint") == [1, 2, 4]


def test_a_gain_is_paired_over_the_same_slices_whatever_the_order_of_the_runs(run_of):
    before = [
        run_of("zero_shot", rows, seed=seed) for seed, rows in ((0, [(2, 1, 1, 60)] * 6), (1, [(1, 2, 2, 59)] * 6))
    ]
    after = [run_of("fine_tuned", [(3, 0, 0, 61)] * 6, seed=seed) for seed in (0, 1)]
    found = gain(before, after)
    assert found is not None
    assert found.value == pytest.approx(1 - (4 / 6 + 2 / 6) / 2)
    assert found.n_patients == 3


def test_there_is_no_gain_between_arms_of_other_slices_or_with_nothing(run_of):
    before = [run_of("zero_shot", [(1, 1, 1, 61)] * 4)]
    assert gain(before, [run_of("fine_tuned", [(1, 1, 1, 61)] * 2)]) is None
    assert gain(before, [run_of("fine_tuned", [(1, 1, 1, 61)] * 4, seed=1)]) is None
    assert gain((), ()) is None
