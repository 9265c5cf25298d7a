import math
from dataclasses import replace
from typing import get_args

from lungshift.show.causes import CAUSE_WORDS, cause_records, draw_causes
from lungshift.show.drawing import style
from lungshift.transfer.outcome import CauseName


def test_every_cause_has_words():
    assert set(CAUSE_WORDS) == set(get_args(CauseName))


def test_bars_are_told_in_words_with_intervals_and_the_drop(rich):
    with style():
        (drawing,) = draw_causes(rich)
    assert "CT values: +0.100 (0.040–0.160)" in drawing.alt
    assert "the whole drop, 0.240 (0.110–0.360)" in drawing.caption
    assert "slice thickness" not in drawing.alt
    assert len(cause_records(rich.explanation)) == 6


def test_where_nothing_was_tried_nothing_is_drawn(rich, outcome_of):
    assert draw_causes(outcome_of()) == []
    untried = tuple(replace(cause, gained=math.nan) for cause in rich.explanation.causes)
    assert draw_causes(outcome_of(explanation=replace(rich.explanation, causes=untried))) == []


def test_without_a_drop_there_is_no_share(rich, outcome_of):
    causes = tuple(replace(cause, share=math.nan) for cause in rich.explanation.causes)
    explanation = replace(rich.explanation, drop=math.nan, low=math.nan, high=math.nan, causes=causes)
    with style():
        (drawing,) = draw_causes(outcome_of(explanation=explanation))
    assert "the whole drop, undefined (no interval)" in drawing.caption
