from pathlib import Path

import pytest

from lungshift.show import words
from lungshift.show.tables import SHOWN
from lungshift.show.terminal import summary
from lungshift.transfer.outcome import CohortSummary


def test_the_summary_holds_the_answer_the_conventions_and_where_to_look(outcome_of):
    text = summary(outcome_of(), Path("out"))
    assert "the model from alpha reaches 0.58" in text
    assert all(f"{name}: " in text for name in SHOWN)
    assert "out/report.html" in text
    assert "research use only" in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_folder_no_place_to_look(outcome_of):
    assert "report.html" not in summary(outcome_of())


@pytest.mark.parametrize("leaky", [True, False])
def test_the_leak_is_named_if_there_is_one(outcome_of, leaky):
    text = " ".join(summary(outcome_of(leaky=leaky)).split())
    assert (words.LEAK_WARNING in text) is leaky


def test_many_arms_and_budgets_are_one_short_table_of_f1(rich):
    text = summary(rich)
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) < 65
    assert "F1 (95 % interval)             labels  lesion_slices        empty_is_one         per_case" in text
    assert [line for line in text.splitlines() if line.startswith("on ")] == [
        "on medseg9-like",
        "on corona-like",
        "on medseg9-like, again",
    ]
    assert text.count("\n  Retrained ") == 6
    assert "nothing" not in text


def test_undefined_is_never_zero(outcome_of, run_of):
    run = run_of("zero_shot", [(0, 0, 0, 64)] * 2)
    line = summary(outcome_of(runs=(run,))).split("lesion_slices: ")[1].splitlines()[1]
    assert line.count("undefined") == 5


def test_the_papers_line_stands_below_its_own_cohorts_only(outcome_of):
    cohorts = (
        CohortSummary("medseg9", 9, 9, 829, 713, 373, ("reader",)),
        CohortSummary("coronacases10", 10, 10, 2581, 2170, 1351, ("reader",)),
    )
    assert "the paper, convention not stated" in summary(outcome_of(cohorts=cohorts))
    assert "the paper" not in summary(outcome_of())
