"""The question of a study and its answer: one sentence of numbers, as far as the intervals allow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lungshift.measure.compare import Comparison
from lungshift.measure.conventions import Convention
from lungshift.measure.interval import Estimate
from lungshift.show.pooled import arm_runs, budgets_of, gain, group_runs
from lungshift.show.tables import Row, Spanned, number, signed, span, summary_rows, whole
from lungshift.show.words import CONVENTION_SHORT, listed, plural, unit
from lungshift.transfer.arms import ARMS
from lungshift.transfer.claims import Claims
from lungshift.transfer.outcome import Outcome

_DIGITS = 2


def question(outcome: Outcome) -> str:
    """What the study asks, with its cohorts' names."""
    names = [cohort.name for cohort in outcome.cohorts]
    if outcome.kind == "chain":
        return f"What does a lesion model learn and forget when it is trained on {', then '.join(names)}?"
    if outcome.kind == "leave_one_out":
        return f"Does a lesion model work on a cohort that it was not trained on: {listed(names, 'or')}?"
    asked = f"Does a lesion model trained on {outcome.source.name} work on {outcome.target.name}"
    arm = tuned_arm(outcome)
    if not arm:
        return f"{asked}?"
    budgets = budgets_of(outcome, arm)
    nouns = unit(outcome) if budgets == [1] else f"{unit(outcome)}s"
    return f"{asked}, and what does retraining on {listed(budgets, 'or')} {nouns} repair?"


def answer(outcome: Outcome, table: Sequence[Row], claims: Claims) -> str:
    """The question answered in one sentence with 95 % intervals, by the convention of the claims."""
    told = {"transfer": _transfer, "chain": _chain, "leave_one_out": _leave_one_out}[outcome.kind]
    parts = told(outcome, table, claims)
    if not parts:
        return f"Nothing was tested on {outcome.target.name}."
    seeds = max((len(row.seeds) for row in table), default=1)
    over = f" and over {seeds} seeds" if seeds > 1 else ""
    how = CONVENTION_SHORT[claims.convention].replace("mean", "averaged")
    return f"By F1 {how} ({claims.convention}){over}, {'; '.join(parts)}."


def on_all_slices(outcome: Outcome, table: Sequence[Row], claims: Claims) -> str:
    """The same where false alarms count: a model that marks healthy slices can look well over slices with lesion alone.

    Args:
        outcome: What a study found.
        table: Its rows.
        claims: Those by ``empty_is_one``.
    """
    zero, tuned = (_row(table, arm, claims.convention) for arm in ("zero_shot", tuned_arm(outcome)))
    if zero is None or tuned is None:
        return ""
    return (
        f"Over all slices, where false alarms count too ({claims.convention}), it goes from {_score(zero)} to {_score(tuned)}"
        f" with {tuned.budget}{_change(_gain(claims, tuned))}."
    )


def tuned_arm(outcome: Outcome) -> str:
    """The arm that stands for retraining: all layers if that was done, else the first with labels; empty if none was tested."""
    names = [name for name in ("fine_tuned", *ARMS) if ARMS[name].labels and arm_runs(outcome, name)]
    return names[0] if names else ""


def worth_labelling(outcome: Outcome, claims: Claims) -> int | None:
    """Target patients to label, those that stop the training too: the cheapest budget with a gain above chance; None if none has."""
    arm = tuned_arm(outcome)
    sure = [claim.labels for claim in claims.over_zero_shot if claim.arm == arm and _is_sure(claim.comparison)]
    if not sure or unit(outcome) == "slice":
        return None
    return min(sure) + outcome.protocol.split.validation_patients


def _is_sure(found: Comparison | None) -> bool:
    """Whether a gain is told from noise."""
    return found is not None and found.is_told and found.difference > 0


def _transfer(outcome: Outcome, table: Sequence[Row], claims: Claims) -> list[str]:
    zero, home = _row(table, "zero_shot", claims.convention), _row(table, "source", claims.convention, "source")
    parts = []
    if zero:
        at_home = f", and {_score(home)} at home" if home else ""
        parts.append(
            f"the model from {outcome.source.name} reaches {_score(zero, first=True)} without retraining, on {_tested(zero)}{at_home}"
        )
    return parts + _budgets(outcome, table, claims, zero)


def _budgets(outcome: Outcome, table: Sequence[Row], claims: Claims, zero: Row | None) -> list[str]:
    """What the cheapest budget with a gain that is told from noise reaches, and what the largest."""
    arm = tuned_arm(outcome)
    rows = [row for row in summary_rows(table, claims.convention) if row.arm == arm and row.role == "target"]
    gains = {row.labels: _gain(claims, row) for row in rows}
    sure = [row for row in rows if _is_sure(gains[row.labels])]
    told = []
    for row in dict.fromkeys([*sure[:1], *rows[-1:]]):
        cheapest = ", the cheapest budget with a gain above chance," if len(rows) > 1 and row in sure[:1] else ","
        where = "" if zero else f", on {_tested(row)}"
        told.append(
            f"{ARMS[arm].words} on {row.budget}{cheapest} it reaches {_score(row)}{where}{_change(gains[row.labels])}"
        )
    return told


def _gain(claims: Claims, row: Row) -> Comparison | None:
    """A row against no retraining, corrected for how many arms and budgets were compared."""
    found = [claim for claim in claims.over_zero_shot if (claim.arm, claim.labels) == (row.arm, row.labels)]
    return found[0].comparison if found else None


def _chain(outcome: Outcome, table: Sequence[Row], claims: Claims) -> list[str]:
    """Each cohort after the last stage, and what became of the first."""
    rows = [row for row in summary_rows(table, claims.convention) if row.arm == "chain"]
    if not rows:
        return []
    last = [row for row in rows if row.trained_on == rows[-1].trained_on]
    reached = listed([f"{_score(row, first=row is last[0])} on {row.tested_on}" for row in last])
    parts = [f"the model that was trained on {', then '.join(last[0].trained_on)} reaches {reached}"]
    first = outcome.source.name
    stages = [runs for runs in group_runs(outcome.runs) if runs[0].arm == "chain" and runs[0].tested_on == first]
    if len(stages) > 1:
        early = next(row for row in rows if row.tested_on == first)
        change = _difference(gain(stages[0], stages[-1], claims.convention))
        parts.append(f"on {first} it had {_score(early)} after the first cohort{change}")
    return parts


def _leave_one_out(_: Outcome, table: Sequence[Row], claims: Claims) -> list[str]:
    """The worst and the best of the cohorts that were left out, each beside a model of its own."""
    rows = [row for row in summary_rows(table, claims.convention) if row.arm == "leave_one_out"]
    home = {row.tested_on: row for row in summary_rows(table, claims.convention) if row.arm == "at_home"}
    ranked = sorted(rows, key=lambda row: row.cells["dice"].value)
    told: list[str] = []
    for row in dict.fromkeys([*ranked[:1], *ranked[-1:]]):
        own = f" ({_score(home[row.tested_on])} by a model of its own)" if row.tested_on in home else ""
        told.append(f"{_score(row, first=not told)} on {row.tested_on}{own}")
    return [f"a model of all other cohorts reaches from {' to '.join(told)}"] if told else []


def _row(table: Sequence[Row], arm: str, convention: Convention, role: str = "target") -> Row | None:
    """An arm at its largest budget."""
    found = [row for row in summary_rows(table, convention) if (row.arm, row.role) == (arm, role)]
    return found[-1] if found else None


def _score(row: Row, *, first: bool = False) -> str:
    cell = row.cells["dice"]
    told = "95 % interval " if first and not math.isnan(cell.low) else ""
    return f"{number(cell.value, _DIGITS)} [{told}{_ends(cell)}]"


def _tested(row: Row) -> str:
    return f"{whole(row.slices)} held-out slices from {plural(row.patients, 'patient')} of {row.tested_on}"


def _change(found: Comparison | None) -> str:
    """What changed, in words that the comparison allows."""
    if found is None:
        return ""
    if math.isnan(found.low) or math.isnan(found.difference):
        return f", a change of {signed(found.difference, _DIGITS)} with no interval"
    if not found.is_told:
        return f", a change of {signed(found.difference, _DIGITS)} [{_ends(found)}] that may be chance"
    return _told(found.difference, found)


def _difference(found: Estimate | None) -> str:
    """What changed between two that were compared by themselves."""
    if found is None or math.isnan(found.low):
        return ""
    if found.low > 0 or found.high < 0:
        return _told(found.value, found)
    return f", a change of {signed(found.value, _DIGITS)} [{_ends(found)}] that may be chance"


def _told(value: float, ends: Spanned) -> str:
    if value > 0:
        return f", a gain of {number(value, _DIGITS)} [{_ends(ends)}]"
    return f", a loss of {number(-value, _DIGITS)} [change {_ends(ends)}]"


def _ends(spanned: Spanned) -> str:
    return span(spanned, _DIGITS, join=", ")
