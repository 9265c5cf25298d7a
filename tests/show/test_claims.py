"""A sentence for each claim, as far as the numbers allow."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, isnan, nan
from typing import Any

import pytest

from lungshift.measure.compare import Comparison
from lungshift.show.claims import records, sentences
from lungshift.transfer.arms import ARMS
from lungshift.transfer.claims import Claim, Claims, LabelsSaved, claims_of

TOLD = Comparison(0.112, 0.041, 0.183, 0.01, 0.2, 0.002, 0.012, 10, 6, 0.04)
CHANCE = Comparison(0.021, -0.034, 0.072, -0.06, 0.1, 0.4, 0.9, 10, 6, 0.038)
NONE = Claims("lesion_slices", "dice", (), (), (), (), (), (), "patient", False, ())
SAVED = LabelsSaved(2, 4.96, 3.2, inf, (1, 4, 8), "beta", 10)


def claim(comparison: Comparison, kind: Any = "over_zero_shot", **more: Any) -> Claim:
    settings = {"arm": "fine_tuned", "labels": 2, "against": "zero_shot", "against_labels": 0, "tested_on": "beta"}
    return Claim(kind, **settings | more, comparison=comparison)


def said(comparison: Comparison, kind: Any = "over_zero_shot", **more: Any) -> str:
    (sentence,) = sentences(replace(NONE, over_zero_shot=(claim(comparison, kind, **more),)))
    return sentence


def test_a_gain_that_is_told_from_noise() -> None:
    assert said(TOLD) == "Retraining with 2 patients gains 0.11 [0.04, 0.18] F1 over no retraining (corrected p 0.012)."


def test_a_loss_is_told_without_signs() -> None:
    loss = replace(TOLD, difference=-0.112, low=-0.183, high=-0.041, p_corrected=0.0004)

    assert said(loss).startswith(
        "Retraining with 2 patients loses 0.11 [0.04, 0.18] F1 over no retraining (corrected p under"
    )


def test_a_change_that_may_be_chance_says_what_could_have_been_told() -> None:
    assert said(CHANCE) == (
        "Retraining with 2 patients changes F1 by +0.02 [−0.03, 0.07] over no retraining, which may be chance; "
        "with 10 patients a difference under 0.04 cannot be told from noise."
    )


def test_nothing_has_no_minus() -> None:
    assert "by +0.00 [−0.03, 0.00] over" in said(replace(CHANCE, difference=-0.001, high=-0.004))


def test_an_interval_above_0_may_still_be_chance_among_many() -> None:
    found = replace(TOLD, p_corrected=0.2)

    assert "by +0.11 [0.04, 0.18] over no retraining, which may be chance among 6 comparisons; with 10" in said(found)


def test_too_few_patients_for_any_difference() -> None:
    assert said(replace(CHANCE, n_patients=4, detectable=inf)).endswith(
        "which may be chance; 4 patients are too few to tell any difference from noise."
    )


def test_no_ratio_differs_by_more_than_1_so_that_is_not_said() -> None:
    assert said(replace(CHANCE, detectable=1.63)).endswith(
        "which may be chance; patients and trainings differ too much for any difference to be told from noise."
    )


def test_one_patient_says_nothing_of_others() -> None:
    found = Comparison(0.1, nan, nan, nan, nan, nan, nan, 1, 0, nan)

    assert (
        said(found)
        == "Retraining with 2 patients changes F1 by +0.10 over no retraining; one patient says nothing of others."
    )


def test_what_is_undefined_is_not_compared() -> None:
    found = Comparison(nan, nan, nan, nan, nan, nan, nan, 3, 0, nan)

    assert said(found) == "Retraining with 2 patients over no retraining: nothing to compare, a score is undefined."


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (
            "between_arms",
            {"against": "from_scratch", "against_labels": 2},
            "Retraining with 2 patients gains 0.11 [0.04, 0.18] F1 over training on the target alone (",
        ),
        (
            "over_zero_shot",
            {"arm": "adapted_tent", "labels": 0},
            "Adapting to each scan by TENT gains 0.11 [0.04, 0.18] F1 over no retraining (",
        ),
        (
            "over_zero_shot",
            {"arm": "head_only", "labels": 1},
            "Retraining the last layer with 1 patient gains",
        ),
        (
            "forgetting",
            {"against": "source", "tested_on": "alpha"},
            "Retraining with 2 patients gains 0.11 [0.04, 0.18] F1 on alpha, where the model came from (",
        ),
        (
            "leak",
            {"arm": "split_by_slice", "against": "split_by_patient", "tested_on": "alpha"},
            "A split by slice gains 0.11 [0.04, 0.18] F1 over a split by patient, tested on the same slices of alpha (",
        ),
    ],
)
def test_each_kind_of_claim_says_what_is_compared(kind: str, more: dict[str, Any], words: str) -> None:
    assert said(TOLD, kind, **more).startswith(words)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_words(arm: str) -> None:
    assert said(TOLD, arm=arm, labels=0)[0].isupper()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, " is worth about 5 patients [3.2 to more than 8] of training on the target alone."),
        ({"worth": 1.0, "low": 0.0, "high": 2.0}, " is worth about 1 patient [fewer than 1 to 2] of training on"),
        ({"worth": inf}, " is worth more than 8 patients [3.2 to more than 8] of training on the target alone, the most that was tried."),
        ({"worth": inf, "low": inf}, " is worth more than 8 patients of training on the target alone, the most that was tried."),
        ({"worth": 0.0, "low": nan}, " is worth fewer than 1 patient of training on the target alone, the least that was tried."),
        ({"worth": nan}, ": its worth in labels is unknown, a score is undefined."),
    ],
)  # fmt: skip
def test_labels_saved_are_told_as_far_as_budgets_were_tried(changes: dict[str, float], words: str) -> None:
    (sentence,) = sentences(replace(NONE, labels_saved=(replace(SAVED, **changes),)))

    assert sentence.startswith("Retraining with 2 patients" + words)


def test_budgets_of_slices_are_told_in_slices() -> None:
    (sentence,) = sentences(replace(NONE, unit="slice", labels_saved=(replace(SAVED, labels=40),)))

    assert sentence.startswith("Retraining with 40 slices is worth about 5 slices")


def test_a_leaky_split_and_unknown_patients_are_said() -> None:
    leak, unknown = sentences(replace(NONE, leaky=True, without_ids=("beta",)))

    assert "too good" in leak
    assert unknown.startswith("beta came without patient ids")


def test_nothing_is_said_of_nothing() -> None:
    assert sentences(NONE) == []
    assert records(NONE) == []


def test_records_are_flat_have_the_same_keys_and_are_valid_json() -> None:
    hopeless = replace(CHANCE, detectable=inf)
    whole = replace(
        NONE,
        over_zero_shot=(claim(TOLD),),
        leak=(claim(hopeless, "leak", arm="split_by_case", against="split_by_patient"),),
        labels_saved=(replace(SAVED, worth=0.0),),
    )

    gain, leak, saved = records(whole)

    assert gain.keys() == leak.keys() == saved.keys()
    assert [record["sentence"] for record in (gain, leak, saved)] == sentences(whole)
    assert (gain["claim"], gain["difference"], gain["p_corrected"], gain["patients"]) == (
        "over_zero_shot",
        0.112,
        0.012,
        10,
    )
    assert (saved["worth"], saved["worth_low"], saved["worth_high"]) == ("<1", 3.2, ">8")
    assert isnan(leak["detectable"])
    values = [value for record in (gain, leak, saved) for value in record.values()]
    assert "Infinity" not in json.dumps(values)


def test_a_cohort_left_out_is_compared_with_its_own_network_in_words(leave_one_out):
    said = sentences(claims_of(leave_one_out))

    assert any(
        line.startswith("Training on all other cohorts") and "over training on the cohort itself" in line
        for line in said
    )
