import math
from dataclasses import replace

import numpy as np
import pytest

from lungshift.show.drawing import style
from lungshift.show.dumbbells import draw_patients, pairs_of, patient_records, patient_scores


def test_a_patient_is_the_mean_over_the_seeds_and_undefined_if_one_of_them_is(run_of):
    runs = [
        run_of("zero_shot", rows, ["a", "b"], seed=seed)
        for seed, rows in ((0, [(1, 1, 1, 61), (0, 0, 0, 64)]), (1, [(3, 1, 1, 59), (1, 0, 0, 63)]))
    ]
    scores = patient_scores(runs)
    assert scores["a"] == pytest.approx((0.5 + 0.75) / 2)
    assert math.isnan(scores["b"])


def test_scans_of_a_patient_are_averaged_and_those_without_lesion_left_out(run_of):
    run = run_of("zero_shot", [(1, 1, 1, 61), (3, 1, 1, 59), (0, 0, 0, 64)], ["a", "b", "c"])
    run = replace(run, scores=replace(run.scores, patients=np.array(["p", "p", "p"])))
    assert patient_scores([run]) == {"p": pytest.approx((0.5 + 0.75) / 2)}


def test_folds_bring_different_patients_together(run_of):
    runs = [run_of("zero_shot", [(1, 1, 1, 61)], [case], fold=fold) for fold, case in enumerate("ab")]
    assert set(patient_scores(runs)) == {"a", "b"}


def test_before_is_no_retraining_and_after_the_largest_budget(rich):
    (pair,) = pairs_of(rich)
    assert pair.words == ("without retraining", "retrained on 4 patients and 1 to validate")
    assert {run.labels for run in pair.after} == {4}
    records = patient_records(rich)
    assert len(records) == 10
    assert [r["dice_before"] for r in records] == sorted(r["dice_before"] for r in records)
    assert all(r["change"] == pytest.approx(r["dice_after"] - r["dice_before"]) for r in records)


def test_without_fine_tuning_another_arm_with_labels_is_shown(outcome_of, run_of):
    runs = (run_of("zero_shot", [(1, 1, 1, 61)]), run_of("joint", [(1, 0, 0, 63)]))
    (pair,) = pairs_of(outcome_of(runs=runs))
    assert pair.words[1] == "trained on source and target together on 2 patients"


def test_a_chain_compares_its_first_and_last_stage_on_both_ends(chain):
    pairs = pairs_of(chain)
    assert [pair.cohort for pair in pairs] == ["west", "north"]
    assert pairs[1].words == ("after north", "after north, south, west")
    worse = [r for r in patient_records(chain) if r["cohort"] == "north"]
    assert all(r["change"] < 0 for r in worse)


def test_cohorts_left_out_have_a_figure_each(leave_one_out):
    with style():
        drawings = draw_patients(leave_one_out)
    assert [d.name for d in drawings] == ["cases", "cases-south", "cases-west"]
    assert "Better in 6 of 6." in drawings[0].caption


def test_a_case_without_any_lesion_is_named_undefined(outcome_of, run_of):
    with style():
        (drawing,) = draw_patients(outcome_of(runs=(run_of("zero_shot", [(0, 0, 0, 64)], ["healthy"]),)))
    assert "healthy: undefined to undefined" in drawing.alt
    assert "Better" not in drawing.caption


def test_patients_are_called_so_where_they_are_not_their_scans(outcome_of, run_of):
    run = run_of("zero_shot", [(1, 1, 1, 61)] * 2, ["a", "b"])
    other = replace(run, scores=replace(run.scores, patients=np.array(["p", "q"])))
    with style():
        captions = [draw_patients(outcome_of(runs=(one,)))[0].caption for one in (run, other)]
    assert captions[0].startswith("Dice of each case")
    assert captions[1].startswith("Dice of each patient")


def test_very_many_patients_still_make_a_figure_of_a_page(outcome_of, run_of):
    names = [f"p{n}" for n in range(300)]
    with style():
        (drawing,) = draw_patients(outcome_of(runs=(run_of("zero_shot", [(1, 1, 1, 61)] * 300, names),)))
    height = int.from_bytes(drawing.png[20:24], "big")
    assert height < 25 * 160


def test_nothing_tested_is_nothing_drawn(outcome_of):
    assert draw_patients(outcome_of(runs=())) == []
    assert patient_records(outcome_of(runs=())) == []
