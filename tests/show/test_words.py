import pytest

from lungshift.show import words
from lungshift.show.tables import build_table
from lungshift.transfer.outcome import Run
from lungshift.transfer.protocol import DecisionSettings, Protocol, SplitSettings

GOOD, POOR = (4, 0, 0, 60), (1, 3, 3, 57)
CASES = ["a", "b", "c", "d"]


def answer(outcome):
    return words.answer(outcome, build_table(outcome))


def arms(outcome_of, scores_of, before, after):
    runs = (
        Run("zero_shot", "beta", "target", "0 patients", 0, scores_of(before, CASES)),
        Run("fine_tuned", "beta", "target", "2 patients", 0, scores_of(after, CASES)),
    )
    return outcome_of(runs=runs)


def test_the_answer_is_a_sentence_for_each_convention_that_the_papers_numbers_allow(outcome_of):
    text = answer(outcome_of())
    assert text.startswith(
        "By F1 averaged over slices with lesion (lesion_slices), the model from alpha reaches 0.583 (95 % "
    )
    assert "on 4 held-out slices from 2 patients of beta" in text
    assert text.count(". ") == 1
    assert "Over all slices, where false alarms count too (empty_is_one), it goes from" in text


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param([POOR] * 4, [GOOD] * 4, "a gain of 0.750 (0.750 to 0.750)", id="better"),
        pytest.param([GOOD] * 4, [POOR] * 4, "a loss of 0.750 (change −0.750 to −0.750)", id="worse"),
        pytest.param([GOOD, POOR, GOOD, POOR], [POOR, GOOD, POOR, GOOD], "that may be chance", id="no telling"),
    ],
)
def test_what_retraining_did_is_said_as_far_as_the_paired_interval_allows(outcome_of, scores_of, before, after, said):
    assert said in answer(arms(outcome_of, scores_of, before, after))


def test_an_undefined_score_is_called_undefined(outcome_of, scores_of):
    empty = [(0, 0, 0, 64)] * 4
    text = answer(arms(outcome_of, scores_of, empty, empty))
    assert "reaches undefined (no interval)" in text
    assert "0.000" not in text.split(". ")[0]


def test_without_a_tested_target_there_is_no_answer(outcome_of):
    assert answer(outcome_of(runs=())) == "Nothing was tested on beta."


def test_seeds_are_counted_in_the_answer(outcome_of):
    assert "and over 2 seeds" in answer(outcome_of(seeds=(0, 1)))


def test_the_question_leaves_retraining_out_where_nothing_was_retrained(outcome_of):
    assert words.question(outcome_of()) == (
        "Does a lesion model trained on alpha work on beta, and what does retraining on 2 patients repair?"
    )
    assert (
        words.question(outcome_of(runs=outcome_of().runs[:2])) == "Does a lesion model trained on alpha work on beta?"
    )


def test_methods_tell_what_the_protocol_set(outcome_of):
    protocol = Protocol("tiny", split=SplitSettings("slice"), decision=DecisionSettings(0.3, flips=True))
    text = words.methods(outcome_of(protocol=protocol))
    for part in (
        "-970 to -150 HU",
        "320 × 320",
        "split by slice",
        "0.3",
        "mirrored",
        "reader, threshold",
        "Retraining on beta",
    ):
        assert part in text
    assert "Retraining" not in words.methods(outcome_of(runs=outcome_of().runs[:2]))


def test_the_price_of_the_leak_is_named_only_where_ours_does_not_leak(outcome_of):
    assert len(words.comparison_notes(outcome_of())) == len(words.comparison_notes(outcome_of(leaky=True))) + 1
