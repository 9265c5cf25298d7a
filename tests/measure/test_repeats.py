"""Scatter of repeats, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lungshift.measure.repeats import UNKNOWN, Spread, spreads_of


def ml(*values: float) -> list[dict[str, float]]:
    return [{"lesion_ml": value} for value in values]


def test_the_sd_of_one_model_is_that_of_its_repeats() -> None:
    spread = spreads_of([ml(10, 12, 14)])["lesion_ml"]

    assert (spread.sd, spread.freedom, spread.repeats, spread.models) == (2, 2, 3, 1)


def test_few_repeats_widen_the_limits_by_students_t() -> None:
    spread = Spread(2.0, 5.0, 6)

    assert spread.half_width == pytest.approx(2.0 * stats.t.ppf(0.975, 5))
    assert spread.coefficient == pytest.approx(math.sqrt(2) * spread.half_width)


def test_models_that_disagree_add_their_variance() -> None:
    spread = spreads_of([ml(9, 11), ml(19, 21)])["lesion_ml"]

    assert spread.sd == pytest.approx(math.sqrt(2 + 50))
    assert spread.freedom == 2  # of the repeats: two models alone would have one, and limits without use


def test_limits_stay_within_what_a_quantity_can_be() -> None:
    low, high = Spread(10.0, 5.0, 6).limits(5.0, lowest=0.0)

    assert (low, high > 5) == (0.0, True)


def test_a_repeat_that_is_undefined_makes_the_spread_undefined() -> None:
    spread = spreads_of([ml(1, math.nan, 3)])["lesion_ml"]

    assert math.isnan(spread.sd)
    assert all(math.isnan(end) for end in spread.limits(2.0))


def test_what_was_never_repeated_has_no_limits() -> None:
    assert all(math.isnan(end) for end in UNKNOWN.limits(2.0))
    assert math.isnan(UNKNOWN.coefficient)


def test_repeats_that_agree_have_no_width() -> None:
    assert spreads_of([ml(3, 3, 3)])["lesion_ml"].limits(3.0) == (3.0, 3.0)


def test_the_coefficient_covers_95_percent_of_differences() -> None:
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(2000):
        repeats = rng.normal(50, 3, 6)
        spread = spreads_of([ml(*repeats)])["lesion_ml"]
        first, second = rng.normal(50, 3, 2)
        inside.append(abs(first - second) <= spread.coefficient)

    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
