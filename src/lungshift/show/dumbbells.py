"""Patient by patient: a line for each from its Dice before to its Dice after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lungshift.measure.overlap import dice, sum_by
from lungshift.show.drawing import (
    AFTER,
    BEFORE,
    FAINT,
    INK,
    MUTED,
    WIDTH,
    Drawing,
    finish,
    grid_lines,
    new_figure,
    slug,
    warn_of_leak,
)
from lungshift.show.pooled import arm_runs, group_runs
from lungshift.show.tables import number
from lungshift.transfer.arms import ARMS
from lungshift.transfer.outcome import Outcome, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CIRCLE: Final[dict[str, Any]] = {
    "linestyle": "none",
    "marker": "o",
    "markerfacecolor": "white",
    "markeredgecolor": BEFORE,
    "markeredgewidth": 2,
}
_MAX_NAMED: Final = 60


@dataclass(frozen=True, eq=False)
class Pair:
    """Two ways of getting a model, tested on the same patients of one cohort, and both in words."""

    cohort: str
    before: tuple[Run, ...]
    after: tuple[Run, ...]
    words: tuple[str, str]


def pairs_of(outcome: Outcome) -> list[Pair]:
    """What is worth comparing patient by patient: without and with labels, after the first and the last cohort of a chain, left out and at home."""
    if outcome.kind == "chain":
        return list(_chain_pairs(outcome))
    if outcome.kind == "leave_one_out":
        return [
            Pair(cohort.name, *_tested_on(outcome, cohort.name), ("trained on all others", "trained on itself"))
            for cohort in outcome.cohorts
        ]
    tuned = [name for name in ("fine_tuned", *ARMS) if ARMS[name].labels and arm_runs(outcome, name)]
    before, after = arm_runs(outcome, "zero_shot"), arm_runs(outcome, tuned[0]) if tuned else ()
    words = f"{ARMS[tuned[0]].words} on {after[0].budget}" if after else ""
    return [Pair(outcome.target.name, before, after, (ARMS["zero_shot"].words, words))] if before or after else []


def patient_scores(runs: Sequence[Run]) -> dict[str, float]:
    """Dice of each patient: the mean over its scans in 3-D, and over the seeds and folds that tested it.

    A scan without lesion in reference and prediction is left out; a patient is NaN who has none left in one of the runs.
    """
    values: dict[str, list[float]] = {}
    for run in runs:
        names, sums = sum_by(run.scores.counts, [str(case) for case in run.scores.cases])
        scores = dict(zip(names, dice(sums).tolist(), strict=True))
        for patient, cases in _cases_of(run).items():
            found = [scores[case] for case in cases if not math.isnan(scores[case])]
            values.setdefault(patient, []).append(float(np.mean(found)) if found else math.nan)
    return {patient: sum(found) / len(found) for patient, found in values.items()}


def patient_records(outcome: Outcome) -> list[dict[str, Any]]:
    """The numbers behind the figures: a record for each patient of each pair."""
    return [
        {"cohort": pair.cohort, "patient": patient, "before": pair.words[0], "after": pair.words[1]}
        | {"dice_before": old, "dice_after": new, "change": new - old}
        for pair in pairs_of(outcome)
        for patient, old, new in _lines(pair)
    ]


def draw_patients(outcome: Outcome) -> list[Drawing]:
    """A figure for each pair."""
    pairs = [pair for pair in pairs_of(outcome) if pair.before or pair.after]
    names = ["cases", *(f"cases-{slug(pair.cohort)}" for pair in pairs[1:])]
    return [_draw(outcome, name, pair) for name, pair in zip(names, pairs, strict=False)]


def _chain_pairs(outcome: Outcome) -> Iterator[Pair]:
    """The first and the last cohort, after the first stage and after all."""
    for cohort in (outcome.target, outcome.source):
        stages = [runs for runs in group_runs(outcome.runs) if runs[0].tested_on == cohort.name]
        if len(stages) > 1:
            first, last = (f"after {', '.join(runs[0].trained_on)}" for runs in (stages[0], stages[-1]))
            yield Pair(cohort.name, stages[0], stages[-1], (first, last))


def _tested_on(outcome: Outcome, cohort: str) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    groups = [runs for runs in group_runs(outcome.runs) if runs[0].tested_on == cohort]
    left, home = (next((runs for runs in groups if runs[0].arm == arm), ()) for arm in ("leave_one_out", "at_home"))
    return left, home


def _cases_of(run: Run) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for case, patient in dict.fromkeys(zip(map(str, run.scores.cases), map(str, run.scores.patients), strict=True)):
        found.setdefault(patient, []).append(case)
    return found


def _lines(pair: Pair) -> list[tuple[str, float, float]]:
    """Patient, before and after; the worst before first, undefined last."""
    before, after = patient_scores(pair.before), patient_scores(pair.after)
    lines = [(name, before.get(name, math.nan), after.get(name, math.nan)) for name in {**before, **after}]
    return sorted(lines, key=lambda line: (_last(line[1]), _last(line[2]), line[0]))


def _draw(outcome: Outcome, name: str, pair: Pair) -> Drawing:
    lines = _lines(pair)
    named = len(lines) <= _MAX_NAMED
    figure = new_figure(WIDTH, 1.4 + len(lines) * (0.26 if named else 0.06))
    axis = figure.subplots()
    for height, (_, old, new) in enumerate(lines):
        _dumbbell(axis, height, old, new, 9 if named else 4)
    _dress(axis, [line[0] for line in lines] if named else [], len(lines), pair)
    if outcome.leaky:
        warn_of_leak(figure)
    both = [new - old for _, old, new in lines if not math.isnan(new - old)]
    better = f" Better in {sum(change > 0 for change in both)} of {len(both)}." if both else ""
    caption = f"Dice of each {_unit(pair)} of {pair.cohort} in 3-D (each on its own, the mean over seeds).{better}"
    alt = "; ".join(f"{who}: {number(old)} to {number(new)}" for who, old, new in lines)
    return finish(
        figure, name, "cases", caption, f"{caption} {pair.words[0]} and {pair.words[1] or 'nothing else'}: {alt}."
    )


def _dumbbell(axis: Axes, height: int, before: float, after: float, size: float) -> None:
    axis.plot([before, after], [height, height], "-", color=FAINT, linewidth=3, solid_capstyle="round", zorder=1)
    axis.plot([before], [height], **_CIRCLE, markersize=size)
    axis.plot([after], [height], "o", color=AFTER, markersize=0.6 * size)
    if math.isnan(before) and math.isnan(after):
        axis.text(0.01, height, "undefined: no lesion in reference or prediction", color=MUTED, va="center", fontsize=8)


def _dress(axis: Axes, names: Sequence[str], count: int, pair: Pair) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.7, count - 0.3), xlabel=f"Dice of the {_unit(pair)} in 3-D")
    grid_lines(axis, "x")
    if pair.before:
        axis.plot([], [], **_CIRCLE, markersize=9, label=pair.words[0])
    if pair.after:
        axis.plot([], [], "o", color=AFTER, label=pair.words[1])
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.2, handletextpad=0.2)


def _unit(pair: Pair) -> str:
    """``case`` where every patient has one scan and gave it its name, else ``patient``."""
    ids = {
        (str(c), str(p))
        for run in (*pair.before, *pair.after)
        for c, p in zip(run.scores.cases, run.scores.patients, strict=True)
    }
    return "case" if all(case == patient for case, patient in ids) else "patient"


def _last(value: float) -> float:
    """A value to sort by, undefined last (drawn on top)."""
    return math.inf if math.isnan(value) else value
