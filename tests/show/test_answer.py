import pytest

from lungshift.show.answer import question, worth_labelling
from lungshift.show.findings import Findings

GOOD, POOR = (4, 0, 0, 60), (1, 3, 3, 57)
CASES = [f"case-{n}" for n in range(10)]


def answer(outcome):
    return Findings.of(outcome).answer


def arms(outcome_of, run_of, before, *budgets):
    """Ten patients of one slice each: without retraining, and after it with 1, 2, … patients."""
    tuned = tuple(run_of("fine_tuned", rows, CASES, labels=n) for n, rows in enumerate(budgets, 1))
    return outcome_of(runs=(run_of("zero_shot", before, CASES), *tuned))


def test_the_answer_is_one_sentence_with_intervals_and_how_much_was_tested(outcome_of):
    text = answer(outcome_of())
    assert text.startswith(
        "By F1 averaged over slices with lesion (lesion_slices), the model from alpha reaches 0.58 [95 % "
    )
    assert "on 4 held-out slices from 2 patients of beta" in text
    assert ". " not in text


def test_the_answer_where_false_alarms_count_is_a_sentence_of_its_own(outcome_of):
    text = Findings.of(outcome_of()).on_all_slices
    assert text.startswith("Over all slices, where false alarms count too (empty_is_one), it goes from 0.54")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param([POOR] * 10, [GOOD] * 10, "a gain of 0.75 [0.75, 0.75]", id="better"),
        pytest.param([GOOD] * 10, [POOR] * 10, "a loss of 0.75 [change −0.75, −0.75]", id="worse"),
        pytest.param([GOOD, POOR] * 5, [POOR, GOOD] * 5, "that may be chance", id="no telling"),
    ],
)
def test_what_retraining_did_is_said_as_far_as_the_comparison_allows(outcome_of, run_of, before, after, said):
    assert said in answer(arms(outcome_of, run_of, before, after))


def test_the_cheapest_budget_with_a_sure_gain_is_named_beside_the_largest(outcome_of, run_of):
    text = answer(arms(outcome_of, run_of, [POOR] * 10, [POOR, GOOD] + [POOR] * 8, [GOOD] * 10, [GOOD] * 10))
    assert "retrained on 2 patients, the cheapest budget with a gain above chance, it reaches 1.00" in text
    assert "retrained on 3 patients, it reaches 1.00" in text
    assert "retrained on 1 patients" not in text


def test_what_is_worth_labelling_is_the_cheapest_sure_budget_and_who_stops_the_training(
    rich, rich_findings, outcome_of
):
    assert worth_labelling(rich, rich_findings.claims) == 1 + 1
    small = outcome_of()
    assert worth_labelling(small, Findings.of(small).claims) is None


def test_no_budget_is_called_cheapest_where_none_is_sure(outcome_of, run_of):
    mixed = [GOOD, POOR] * 5
    text = answer(arms(outcome_of, run_of, mixed, mixed, mixed[::-1]))
    assert "cheapest" not in text
    assert "retrained on 2 patients, it reaches" in text
    assert "may be chance" in text


def test_answer_and_claims_agree_on_what_may_be_chance(rich, rich_findings):
    found = rich_findings
    first = found.first_claims(rich)
    assert "retrained on 1 patient and 1 to validate, the cheapest budget with a gain above chance" in found.answer
    assert any(claim.startswith("Retraining with 1 patient gains") for claim in first)
    assert "a gain of 0.22 [0.20, 0.24]" in found.answer
    assert "Retraining with 4 patients gains 0.22 [0.20, 0.24] F1 over no retraining (corrected p 0.002)." in first


def test_every_claim_is_told_once_in_its_place(rich, rich_findings):
    found = rich_findings
    further = [claim for _, claims in found.further_claims(rich) for claim in claims]
    told = found.first_claims(rich) + further + found.leak_claims()
    compared = len(found.claims.compared)
    # What retraining forgot at its largest budget stands in both; the rest is labels saved, and a cohort without ids.
    assert len(told) == compared + 1 + len(found.claims.labels_saved) + 1
    assert {record["convention"] for record in found.claim_records} == {"lesion_slices", "empty_is_one", "per_case"}


def test_an_undefined_score_is_called_undefined(outcome_of, run_of):
    empty = [(0, 0, 0, 64)] * 10
    text = answer(arms(outcome_of, run_of, empty, empty))
    assert "reaches undefined [no interval]" in text
    assert "0.00" not in text


def test_without_a_tested_target_there_is_no_answer(outcome_of):
    assert answer(outcome_of(runs=())) == "Nothing was tested on beta."


def test_seeds_are_counted_in_the_answer(outcome_of):
    assert "and over 2 seeds" in answer(outcome_of(seeds=(0, 1)))


def test_a_chain_is_answered_by_what_it_reaches_and_what_became_of_the_first(chain):
    text = answer(chain)
    assert "trained on north, then south, then west reaches 0.64 [95 % interval" in text
    assert "on north it had 0.80 [0.66, 0.90] after the first cohort, a loss of 0.17 [change" in text


def test_leave_one_out_is_answered_by_its_worst_and_best_cohort(leave_one_out):
    text = answer(leave_one_out)
    assert (
        "reaches from 0.48 [95 % interval 0.38, 0.58] on west (0.83 [0.73, 0.90] by a model of its own) to 0.76" in text
    )
    assert "on south" in text
    assert "on north" not in text


def test_the_question_names_cohorts_and_budgets_and_leaves_out_what_was_not_done(
    outcome_of, rich, chain, leave_one_out
):
    asked = "Does a lesion model trained on alpha work on beta"
    assert question(outcome_of()) == f"{asked}, and what does retraining on 2 patients repair?"
    assert question(outcome_of(runs=outcome_of().runs[:2])) == f"{asked}?"
    assert question(rich).endswith("what does retraining on 1, 2 or 4 patients repair?")
    assert (
        question(chain)
        == "What does a lesion model learn and forget when it is trained on north, then south, then west?"
    )
    assert question(leave_one_out).endswith("that it was not trained on: north, south or west?")
