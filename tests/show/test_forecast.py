"""A forecast as people read it: every case named, what was withheld said, and its worth told against saying the mean."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from lungshift.learn.signs import Signs
from lungshift.show.forecast import draw_forecast, summary, write_forecast
from lungshift.transfer.calibration import Calibration, Labelled, read_calibration
from lungshift.transfer.forecast import CaseForecast, Forecast

GIVEN = CaseForecast("good", "P1", 0.9, 0.1, 0.5, 0.4, 0.8, 0.7, 0.9)
OTHER = CaseForecast("poor $1$", "P2", 0.5, 0.1, 0.9, 0.4, 0.4, 0.3, 0.5)
WITHHELD = CaseForecast(
    "odd", "P3", 0.98, 1.2, 5.0, 7.0, reason="unlike anything seen: its lung HU lie 7.0 times as far"
)


def calibration_of(cases: int = 12, slope: float = 1.0, cohorts: int = 1, noise: float = 0.02) -> Calibration:
    rng, found = np.random.default_rng(0), []
    for number, agreement in enumerate(np.linspace(0.2, 0.9, cases)):
        signs = Signs(float(agreement), 0.1, 0.2, rng.normal(size=3), rng.normal(size=5))
        true = float(np.clip(0.5 + slope * (agreement - 0.55) + rng.normal(0, noise), 0, 1))
        found.append(Labelled(f"cohort{number % cohorts}", f"case{number}", f"P{number}", (), signs, true))
    return Calibration("model", tuple(found), (("cohort0/known", "the model was trained on it"),))


def forecast_of(*cases: CaseForecast, calibration: Calibration | None = None) -> Forecast:
    return Forecast("hospital-c", cases or (GIVEN, OTHER, WITHHELD), calibration or calibration_of())


def words(forecast: Forecast) -> str:
    return " ".join(summary(forecast).split())


def test_the_answer_comes_first_with_its_n_and_what_is_withheld() -> None:
    told = words(forecast_of())

    assert told.startswith("hospital-c: mean Dice forecast 0.60 (90 % interval 0.")
    assert "over 2 of 3 cases, without their labels. The 1 withheld are not in this mean" in told
    assert "Research use only." in told


def test_every_case_is_named_with_its_number_or_its_reason() -> None:
    told = words(forecast_of())

    assert "good 0.80 0.70–0.90 0.90" in told
    assert "odd none: unlike anything seen: its lung HU lie 7.0 times as far" in told
    assert "Not calibrated on: cohort0/known (the model was trained on it)." in told


def test_no_line_is_wider_than_a_terminal() -> None:
    long = CaseForecast("x" * 80, "P4", reason="unlike anything seen " * 12)

    assert max(map(len, summary(forecast_of(GIVEN, long)).splitlines())) <= 100


def test_the_error_on_held_out_cases_is_told_beside_that_of_the_mean() -> None:
    told = words(forecast_of(calibration=calibration_of(cohorts=3)))

    assert "with each patient left out in turn (12), the forecast was off by 0.0" in told
    assert "with each cohort left out in turn (3), the forecast was off by 0.0" in told
    assert "not known" not in told


def test_one_cohort_says_nothing_of_other_sites() -> None:
    assert "the intervals hold for scans from the same places only: how far it is off elsewhere is not known." in words(
        forecast_of()
    )


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        pytest.param(calibration_of(), "The forecast is better than saying the mean (gain +0.", id="useful"),
        pytest.param(calibration_of(slope=0, noise=0.2), "cannot be told from saying the mean", id="useless"),
    ],
)
def test_its_worth_is_told(calibration: Calibration, said: str) -> None:
    assert said in words(forecast_of(calibration=calibration))


def test_a_forecast_that_is_worse_than_the_mean_is_not_to_be_used() -> None:
    calibration = calibration_of()
    vars(calibration)["gain"] = (-0.2, -0.1)

    assert "WORSE than saying the mean (gain −0.20 to −0.10, 95 %): do not use it." in words(
        forecast_of(calibration=calibration)
    )


def test_too_few_cases_give_no_interval_and_that_is_said() -> None:
    assert "Fewer than nine cases give a case no interval." in words(forecast_of(calibration=calibration_of(8)))


def test_without_any_forecast_that_is_the_answer() -> None:
    assert words(forecast_of(WITHHELD)).startswith("hospital-c: no forecast of any of 1 cases.")


def test_files_hold_every_case_and_undefined_is_empty(tmp_path: Path) -> None:
    text = write_forecast(forecast_of(), tmp_path)

    rows = list(csv.DictReader((tmp_path / "forecast.csv").open()))
    plain = json.loads((tmp_path / "forecast.json").read_text())
    assert text.endswith(f"Files in {tmp_path}")
    assert [(row["case_id"], row["dice"], row["forecast"]) for row in rows] == [
        ("good", "0.800000", "True"),
        ("poor $1$", "0.400000", "True"),
        ("odd", "", "False"),
    ]
    assert plain["cases"][2]["dice"] is None
    assert (plain["mean"]["dice"], plain["mean"]["cases"], plain["mean"]["of"]) == (pytest.approx(0.6), 2, 3)
    assert plain["calibration"]["held_out"][0]["left_out"] == "patient"
    assert read_calibration(tmp_path / "calibration.json").line == calibration_of().line


def test_the_figure_shows_the_lowest_first_and_is_the_same_every_time() -> None:
    one, other = draw_forecast(forecast_of()), draw_forecast(forecast_of())

    assert (one.png, one.svg) == (other.png, other.svg)
    assert one.alt.index("poor $1$: 0.400") < one.alt.index("good: 0.800") < one.alt.index("odd: unlike")


def test_many_cases_still_make_a_figure() -> None:
    cases = [CaseForecast(f"case{n}", f"P{n}", 0.9, 0.1, 0.5, 0.4, 0.8, 0.7, 0.9) for n in range(80)]

    assert draw_forecast(forecast_of(*cases, WITHHELD)).png.startswith(b"\x89PNG")
