"""A forecast of Dice without labels, as files, a figure and words for the terminal."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lungshift.files import write_bytes, write_json, write_text
from lungshift.show.drawing import AFTER, FAINT, INK, MUTED, WIDTH, Drawing, finish, grid_lines, new_figure, style
from lungshift.show.tables import number, write_csv
from lungshift.show.words import RESEARCH_ONLY
from lungshift.transfer.calibration import Calibration, HeldOut, describe, write_calibration
from lungshift.transfer.forecast import CaseForecast, Forecast

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH: Final = 100
_LINE: Final = "  {:<34} {:>8}  {:<13} {:>9}"
_MAX_NAMED: Final = 60


def write_forecast(forecast: Forecast, folder: Path) -> str:
    """Write ``forecast.csv``, ``forecast.json``, ``calibration.json`` and the figure; return the text for the terminal.

    Args:
        forecast: What was forecast.
        folder: Where the files go.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    write_text(folder / "forecast.csv", write_csv(records(forecast)))
    write_json(folder / "forecast.json", _as_plain(forecast))
    write_calibration(forecast.calibration, folder / "calibration.json")
    drawing = draw_forecast(forecast)
    write_bytes(folder / "forecast.png", drawing.png)
    write_bytes(folder / "forecast.svg", drawing.svg)
    return f"{summary(forecast)}\n\nFiles in {folder}"


def records(forecast: Forecast) -> list[dict[str, Any]]:
    """A flat record for each case: what CSV and JSON hold."""
    return [asdict(case) | {"forecast": not case.abstain} for case in forecast.cases]


def summary(forecast: Forecast) -> str:
    """What is forecast, how far such forecasts were off, and what was withheld. Plain text, at most 100 columns."""
    lines = [_LINE.format("case", "Dice", "90 %", "agreement").rstrip()]
    lines += [line for case in forecast.cases for line in _case_lines(case)]
    told = [_answer(forecast), _error_words(forecast.calibration), _worth_words(forecast.calibration)]
    told += [_left_out_words(forecast.calibration)] if forecast.calibration.left_out else []
    filled = [textwrap.fill(text, _WIDTH) for text in told]
    return "\n\n".join([filled[0], "\n".join(lines), *filled[1:]])


def draw_forecast(forecast: Forecast) -> Drawing:
    """Each case with its interval, the lowest first; those withheld are named on top, without a number."""
    withheld = [case for case in forecast.cases if case.abstain]
    cases = [*sorted(forecast.given, key=lambda case: case.dice), *withheld]
    named = len(cases) <= _MAX_NAMED
    with style():
        figure = new_figure(WIDTH, 1.2 + len(cases) * (0.26 if named else 0.06))
        axis = figure.subplots()
        for height, case in enumerate(cases):
            _draw_case(axis, height, case, named)
        if forecast.given:
            _draw_mean(axis, forecast)
        axis.set_yticks(range(len(cases)) if named else [], [case.case_id for case in cases] if named else [])
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        axis.set_title(f"Forecast, not measured. {RESEARCH_ONLY}.", loc="left", fontsize=8, color=MUTED)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(cases) - 0.3), xlabel="forecast Dice of the case in 3-D")
        grid_lines(axis, "x")
        caption = f"{_answer(forecast)} {_error_words(forecast.calibration)}"
        alt = "; ".join(f"{case.case_id}: {case.reason or number(case.dice)}" for case in cases)
        return finish(figure, "forecast", "forecast", caption, f"{caption} {alt}.")


def _draw_case(axis: Axes, height: int, case: CaseForecast, named: bool) -> None:
    if case.abstain:
        words = textwrap.shorten(f"none: {case.reason.split(':')[0]}", 60, placeholder="…") if named else "×"
        axis.text(0.0, height, words, color=MUTED, va="center", fontsize=8)
        return
    axis.plot([case.low, case.high], [height, height], "-", color=FAINT, linewidth=3, solid_capstyle="round", zorder=1)
    axis.plot([case.dice], [height], "o", color=AFTER, markersize=6 if named else 3)


def _draw_mean(axis: Axes, forecast: Forecast) -> None:
    axis.axvspan(*forecast.interval, color=AFTER, alpha=0.08, linewidth=0, zorder=0)
    axis.axvline(forecast.mean, color=AFTER, linewidth=1, linestyle=":")


def _answer(forecast: Forecast) -> str:
    given, total = len(forecast.given), len(forecast.cases)
    if not given:
        return f"{forecast.cohort}: no forecast of any of {total} cases. {RESEARCH_ONLY}."
    low, high = forecast.interval
    rest = f" The {total - given} withheld are not in this mean; look at them first." if given < total else ""
    return (
        f"{forecast.cohort}: mean Dice forecast {number(forecast.mean, 2)} (90 % interval {number(low, 2)}–{number(high, 2)}) over "
        f"{given} of {total} cases, without their labels.{rest} {RESEARCH_ONLY}."
    )


def _case_lines(case: CaseForecast) -> list[str]:
    name, agreement = textwrap.shorten(case.case_id, 34, placeholder="…"), number(case.agreement, 2)
    if not case.abstain:
        interval = f"{number(case.low, 2)}–{number(case.high, 2)}"
        return [_LINE.format(name, number(case.dice, 2), interval, agreement)]
    indent = " " * 37
    return textwrap.wrap(f"none: {case.reason}", _WIDTH, initial_indent=f"  {name:<34} ", subsequent_indent=indent)


def _error_words(calibration: Calibration) -> str:
    held = [one for one in (calibration.by_patient, calibration.by_cohort) if one]
    off = "; ".join(_held_words(one) for one in held)
    few = "" if calibration.half_width < 1 else " Fewer than nine cases give a case no interval."
    alone = (
        ""
        if calibration.by_cohort
        else " With fewer than three cohorts the intervals hold for scans from the same places only: how far it is off elsewhere is not known."
    )
    return f"On {len(calibration.cases)} labelled cases, {off}.{few}{alone}"


def _held_words(held: HeldOut) -> str:
    return (
        f"with each {held.left_out} left out in turn ({held.groups}), the forecast was off by {number(held.mae, 2)} on average "
        f"and saying the mean of the others by {number(held.mae_of_mean, 2)}"
    )


def _worth_words(calibration: Calibration) -> str:
    low, high = (f"{value:+.2f}".replace("-", "−") for value in calibration.gain)
    interval = f"(gain {low} to {high}, 95 %)"
    if calibration.beats_mean:
        return f"The forecast is better than saying the mean {interval}."
    if calibration.gain[1] < 0:
        return f"The forecast is WORSE than saying the mean {interval}: do not use it."
    return f"The forecast cannot be told from saying the mean {interval}: do not rely on differences between cases."


def _left_out_words(calibration: Calibration) -> str:
    reasons: dict[str, list[str]] = {}
    for case, reason in calibration.left_out:
        reasons.setdefault(reason, []).append(case)
    return (
        "Not calibrated on: "
        + "; ".join(
            f"{', '.join(cases[:5])}{' and more' if len(cases) > 5 else ''} ({reason})"
            for reason, cases in reasons.items()
        )
        + "."
    )


def _as_plain(forecast: Forecast) -> dict[str, Any]:
    low, high = forecast.interval
    mean = {"dice": forecast.mean, "low": low, "high": high, "cases": len(forecast.given), "of": len(forecast.cases)}
    told = {"cohort": forecast.cohort, "model": forecast.calibration.model, "research_use_only": True}
    return told | {"mean": mean, "calibration": describe(forecast.calibration), "cases": records(forecast)}
