"""Which ways of averaging can have given a published row, by arithmetic alone.

A printed ratio is a range: half a unit of its last digit either way. A convention is excluded if no precision, recall, F1 and
accuracy inside these ranges can be its averages; what is not excluded is possible, not proven.

Every slice (or case) has F1 = 2pr / (p + r) of its precision p and recall r, and 0 where nothing overlaps. This function is concave,
so the mean F1 of slices with mean precision P and mean recall R is at most 2PR / (P + R). It is least where the good precisions
stand on other slices than the good recalls, at least P + R - 1. Both bounds are sharp, and so is everything between. Accuracy
is at least TP / (TP + FP + FN) = F1 / (2 - F1) on every slice, a convex function, so the same holds for the means.

Each convention is then these bounds after a change of scale. Pooled counts have no mean: their F1 *is* 2PR / (P + R).
``docs/forensics.md`` has the steps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64

from lungshift.errors import ProtocolError

Candidate = Literal["lesion_slices", "empty_is_one", "empty_is_zero", "empty_is_nan", "per_case", "pooled", "misprint"]
"""What is examined: the conventions of ``lungshift.measure.conventions`` and two that nobody should use.

``empty_is_zero`` averages over all slices and scores 0 where the reference has no lesion. ``misprint`` is F1 = PR / (P + R),
equation 5 of the source paper (arXiv 2205.02152) as printed, never above 0.5.
"""

CANDIDATES: Final[tuple[Candidate, ...]] = get_args(Candidate)
"""All of them, in the order in which ``examine`` answers."""

_RATIOS: Final = ("precision", "recall", "f1", "accuracy", "background_accuracy")
_COUNTS: Final = ("slices", "lesion_slices", "cases")
_MOST_COUNTED: Final = 1_000_000
_WORDS: Final = {"f1": "F1"}

_SLACK: Final = 1e-9
"""What rounding in here may add; far below the digits of any table."""

_NEAR: Final = 0.002
"""How near to its highest value an F1 is suspicious, as part of the range it may have. The means of our own studies
(``docs/benchmarks/paper``) stay 0.03 to 0.35 below it; a pooled row of four digits or more lies within this."""

Numbers = float | Float64[np.ndarray, " n"]
"""A number, or one for each of several choices."""


@dataclass(frozen=True)
class Published:
    """A row as it was printed: ratios as text, so that their digits are known; None for what is not told.

    Attributes:
        precision: Such as ``"0.751451"``.
        recall: Likewise.
        f1: F1 score or Dice.
        accuracy: Right voxels among all.
        slices: How many slices the row is about, with and without lesion.
        lesion_slices: How many of them have lesion in the reference.
        cases: How many scans the row is about.
        background_accuracy: Accuracy of predicting nothing, all slices pooled: 1 less the part of the voxels that is lesion.

    Raises:
        ProtocolError: A ratio is no text of a number between 0 and 1, counts do not fit, or no ratio is given.
    """

    precision: str | None = None
    recall: str | None = None
    f1: str | None = None
    accuracy: str | None = None
    slices: int | None = None
    lesion_slices: int | None = None
    cases: int | None = None
    background_accuracy: str | None = None

    def __post_init__(self) -> None:
        for name in _RATIOS:
            self.span(name)
        for name in _COUNTS:
            _require_count(name, getattr(self, name))
        if self.slices is not None and self.lesion_slices is not None and self.lesion_slices > self.slices:
            raise ProtocolError(
                f"Slices with lesion are among the slices; got {self.lesion_slices} of {self.slices}. Exchange or correct them."
            )
        if not any((self.precision, self.recall, self.f1, self.accuracy)):
            raise ProtocolError("There is nothing to examine; give precision, recall, F1 or accuracy as printed.")

    def span(self, name: str) -> tuple[float, float]:
        """Lowest and highest value that is printed so; 0 to 1 for what is not told.

        Args:
            name: One of the ratios.
        """
        return _read_ratio(name, getattr(self, name))


@dataclass(frozen=True)
class Verdict:
    """What arithmetic says of one way of averaging.

    Attributes:
        convention: The way.
        possible: Whether it can have given the row.
        reason: A sentence with the numbers that decide.
        implied: Numbers that follow if it was used, by name.
        needs: What it takes to judge this way and was not given.
        barely: Possible only if precision and recall keep one proportion on every slice (or case), which real masks do not.
    """

    convention: Candidate
    possible: bool
    reason: str
    implied: dict[str, float] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    barely: bool = False


def examine(published: Published) -> tuple[Verdict, ...]:
    """Say of every way of averaging whether it can have given a row, and why.

    Returns:
        A verdict for each of ``CANDIDATES``, in their order.
    """
    row = _Row.of(published)
    return tuple(_judge(name, row) for name in CANDIDATES)


def highest_f1(precision: Numbers, recall: Numbers) -> Numbers:
    """2PR / (P + R): the highest mean F1 of slices with these mean precision and recall, and the F1 of pooled counts."""
    total = np.asarray(precision + recall, dtype=np.float64)
    ratio: np.ndarray = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return ratio


def lowest_f1(precision: Numbers, recall: Numbers, n: Numbers | None = None) -> Numbers:
    """The lowest mean F1 of slices with these mean precision and recall.

    It is least where ratios are 0 or 1 as far as the means allow, and precisions fall where recalls rise. Of ``n`` slices one
    precision and one recall may have to lie between; of very many slices what remains is P + R - 1, or 0.

    Args:
        precision: Mean over the slices.
        recall: Likewise.
        n: How many slices; any number of them if None.
    """
    if n is None:
        return np.maximum(0.0, precision + recall - 1)
    ones_p, rest_p = np.divmod(n * precision, 1)
    ones_r, rest_r = np.divmod(n * recall, 1)
    both = ones_p + ones_r - n
    met = both + highest_f1(rest_p, 1.0) + highest_f1(1.0, rest_r)
    return np.where(both >= 0, met, np.where(both == -1, highest_f1(rest_p, rest_r), 0.0)) / n


def lowest_accuracy(f1: Numbers) -> Numbers:
    """F1 / (2 - F1), intersection over union: the lowest accuracy that goes with an F1, of one slice or of means."""
    return f1 / (2 - f1)


@dataclass(frozen=True)
class _Row:
    """Ranges of precision, recall, F1 (``low`` and ``high``, in this order), and the highest accuracy."""

    published: Published
    low: Float64[np.ndarray, " ratio"]
    high: Float64[np.ndarray, " ratio"]
    accuracy: float

    @classmethod
    def of(cls, published: Published) -> _Row:
        low, high = zip(*(published.span(name) for name in _RATIOS[:3]), strict=True)
        return cls(published, np.array(low), np.array(high), published.span("accuracy")[1])

    @property
    def counts(self) -> tuple[int, int] | None:
        """Slices with and without lesion, if both are known."""
        n, lesion = self.published.slices, self.published.lesion_slices
        return None if n is None or lesion is None else (lesion, n - lesion)

    @property
    def most(self) -> float:
        """The highest F1 that precision and recall leave."""
        return float(highest_f1(self.high[0], self.high[1]))

    def least(self, n: Numbers | None) -> float:
        """The lowest F1 that precision and recall leave over ``n`` slices, or over the best of several numbers of them."""
        return float(np.min(lowest_f1(self.low[0], self.low[1], n)))


@dataclass(frozen=True)
class _Choices:
    """What slices with lesion must have averaged, for each possible number of other slices that came out right or wrong."""

    number: np.ndarray
    low: Float64[np.ndarray, "ratio choice"]
    high: Float64[np.ndarray, "ratio choice"]
    accuracy: Float64[np.ndarray, " choice"]
    n: int

    def fit(self) -> Bool[np.ndarray, " choice"]:
        """Whether ``n`` slices can have such means."""
        low, high = np.clip(self.low, 0, 1), np.clip(self.high, 0, 1)
        least, most = lowest_f1(low[0], low[1], self.n), highest_f1(high[0], high[1])
        f1 = np.maximum(low[2], least)
        inside = (self.low <= 1 + _SLACK).all(axis=0) & (self.high >= -_SLACK).all(axis=0)
        fits: np.ndarray = inside & (f1 <= np.minimum(high[2], most) + _SLACK)
        return fits & (lowest_accuracy(f1) <= self.accuracy + _SLACK)

    def f1(self) -> tuple[float, float]:
        """Lowest and highest mean F1 over the ``n`` slices, of the choices that fit."""
        low, high = np.clip(self.low, 0, 1)[:, self.fit()], np.clip(self.high, 0, 1)[:, self.fit()]
        lowest = np.maximum(low[2], lowest_f1(low[0], low[1], self.n))
        highest = np.minimum(high[2], highest_f1(high[0], high[1]))
        return float(lowest.min()), float(highest.max())


def _lesion_slices(row: _Row) -> Verdict:
    n = row.published.lesion_slices
    return _fault("lesion_slices", row, n, "slices") or _possible("lesion_slices", row, n, _inside(row, n))


def _per_case(row: _Row) -> Verdict:
    # Cases without lesion and without prediction drop out, so the mean may be over fewer than are told.
    n = None if row.published.cases is None else np.arange(1.0, row.published.cases + 1)
    return _fault("per_case", row, n, "cases") or _possible("per_case", row, n, _inside(row, n))


def _empty_is_one(row: _Row) -> Verdict:
    name: Candidate = "empty_is_one"
    if fault := _fault(name, row, row.published.slices, "slices"):
        return fault
    if row.counts is None:
        return _possible(name, row, row.published.slices, "", ("slices", "lesion_slices"))
    lesion, empty = row.counts
    choices = _blank_slices(row, np.arange(empty + 1.0))
    blank = choices.number[choices.fit()]
    if not blank.size:
        return Verdict(name, False, _no_blank_number(choices, empty))
    (low, high), fewest, most = choices.f1(), int(blank[0]), int(blank[-1])
    reason = (
        f"It fits if {_count(fewest, most, empty)} were rightly left blank; "
        f"F1 over the {lesion} with lesion was then {_range(low, high)}."
    )
    implied = {"blank_slices_low": float(fewest), "blank_slices_high": float(most), "f1_lesion_slices_low": low}
    return _possible(name, row, row.published.slices, reason, implied=implied | {"f1_lesion_slices_high": high})


def _empty_is_zero(row: _Row) -> Verdict:
    name: Candidate = "empty_is_zero"
    n = row.published.slices
    if fault := _fault(name, row, n, "slices"):
        return fault
    if row.counts is None:
        return _possible(name, row, n, "", ("slices", "lesion_slices"))
    lesion, empty = row.counts
    scale = (lesion + empty) / lesion
    printed = {key: text for key in _RATIOS[:3] if (text := getattr(row.published, key))}
    implied = {f"{key}_lesion_slices": float(text) * scale for key, text in printed.items()}
    if (row.low * scale > 1 + _SLACK).any():
        return Verdict(name, False, _above_one(row, printed), implied)
    inner = replace(row, low=row.low * scale, high=np.minimum(1, row.high * scale), accuracy=row.accuracy * scale)
    if fault := _fault(name, inner, lesion, f"the {lesion} slices with lesion"):
        return replace(fault, implied=implied)
    told = ", ".join(f"{_word(key)} {min(1, float(text) * scale):.4f}" for key, text in printed.items())
    reason = f"The {empty} slices without lesion add nothing, so the {lesion} with lesion averaged {told}, which go together."
    return _possible(name, row, n, reason, implied=implied)


def _empty_is_nan(row: _Row) -> Verdict:
    name: Candidate = "empty_is_nan"
    if fault := _fault(name, row, None, "slices"):
        return fault
    if row.counts is None:
        return _possible(name, row, None, _inside(row, None))
    lesion, empty = row.counts
    choices = _false_alarms(row, np.arange(empty + 1.0))
    alarms = choices.number[choices.fit()]
    if not alarms.size:
        return Verdict(name, False, _no_number("false alarms", choices, empty))
    fewest, most = int(alarms[0]), int(alarms[-1])
    implied = {"false_alarms_low": float(fewest), "false_alarms_high": float(most)}
    return _possible(name, row, lesion, f"It fits if {_count(fewest, most, empty)} had a false alarm.", implied=implied)


def _pooled(row: _Row) -> Verdict:
    forced = float(highest_f1(row.low[0], row.low[1])), row.most
    share = _lesion_share(row)
    implied = {"f1_low": forced[0], "f1_high": forced[1]}
    if fault := _pooled_fault(row, forced, share):
        return Verdict("pooled", False, fault, implied)
    reason = (
        f"F1 is 2PR/(P + R) = {_range(*forced)} as far as it is printed: pooled counts force that, and so does an F1 that was "
        "computed from mean precision and mean recall."
    )
    if row.published.accuracy:
        implied |= {"lesion_share_low": share[0], "lesion_share_high": share[1]}
        reason += f" Accuracy then makes lesion {_range(*share)} of the voxels, so predicting nothing scores {_range(1 - share[1], 1 - share[0])}."
    return _possible("pooled", row, None, reason, implied=implied)


def _pooled_fault(row: _Row, forced: tuple[float, float], share: tuple[float, float]) -> str:
    """Why pooled counts cannot give the row; empty if they can."""
    printed = row.published
    f1 = max(row.low[2], forced[0])
    if f1 > min(row.high[2], forced[1]) + _SLACK:
        told = _range(*forced, apart=row.low[2] if row.low[2] > forced[1] else row.high[2])
        return f"Pooled counts force F1 to 2PR/(P + R) = {told}; {printed.f1} is printed."
    if lowest_accuracy(f1) > row.accuracy + _SLACK:
        floor = _apart(float(lowest_accuracy(f1)), row.accuracy)
        return f"Accuracy is at least F1/(2 − F1), here {floor}; {printed.accuracy} is printed."
    low, high = printed.span("background_accuracy")
    if 1 - high > share[1] + _SLACK or 1 - low < share[0] - _SLACK:
        told = _range(1 - share[1], 1 - share[0], apart=low if 1 - low < share[0] else high)
        return (
            f"Precision, recall and accuracy of pooled counts imply that predicting nothing scores {told}; "
            f"{printed.background_accuracy} is given."
        )
    return ""


def _misprint(row: _Row) -> Verdict:
    """F1 without its factor 2: of the row's own precision and recall, or, where no true mean fits, of every slice before the mean."""
    half = float(highest_f1(row.low[0], row.low[1])) / 2, row.most / 2
    implied = {"f1_low": half[0], "f1_high": half[1]}
    needs = _missing(row)
    if row.high[2] < min(half[0], row.least(None)) - _SLACK and 2 * row.high[2] >= row.least(None):
        reason = (
            f"F1 is too low for its precision and recall, but fits as a mean of PR/(P + R), at most {half[1]:.4f} here: "
            "the factor 2 was left out."
        )
        return Verdict("misprint", True, reason, implied, needs)
    if row.low[2] > half[1] + _SLACK or row.high[2] < half[0] - _SLACK:
        told = _range(*half, apart=row.low[2] if row.low[2] > half[1] else row.high[2])
        return Verdict("misprint", False, f"PR/(P + R) is {told}; {row.published.f1} is printed.", implied)
    if needs:
        return Verdict("misprint", True, _unsettled(needs), implied, needs)
    reason = f"F1 is PR/(P + R) = {_range(*half)} as far as it is printed: the factor 2 was left out."
    return Verdict("misprint", True, reason, implied)


_JUDGES: Final[dict[Candidate, Callable[[_Row], Verdict]]] = {
    "lesion_slices": _lesion_slices,
    "empty_is_one": _empty_is_one,
    "empty_is_zero": _empty_is_zero,
    "empty_is_nan": _empty_is_nan,
    "per_case": _per_case,
    "pooled": _pooled,
    "misprint": _misprint,
}


def _judge(name: Candidate, row: _Row) -> Verdict:
    if row.counts and row.counts[1] == 0 and name.startswith("empty"):
        return replace(_lesion_slices(row), convention=name)
    return _JUDGES[name](row)


def _fault(name: Candidate, row: _Row, n: Numbers | None, what: str) -> Verdict | None:
    """Why no ``n`` slices (or cases) average to the row; None if some can."""
    least, most = row.least(n), row.most
    f1 = max(row.low[2], least)
    if row.low[2] > most + _SLACK:
        reason = f"Averaged over {what}, F1 is at most 2PR/(P + R), {_apart(most, row.low[2])} here; it is {_apart(row.low[2], most)} or more."
    elif row.high[2] < least - _SLACK:
        reason = f"Averaged over {what}, this precision and recall need an F1 of at least {_apart(least, row.high[2])}; it is {_apart(row.high[2], least)} or less."
    elif lowest_accuracy(f1) > row.accuracy + _SLACK:
        floor = float(lowest_accuracy(f1))
        reason = f"Averaged over {what}, accuracy is at least F1/(2 − F1), {_apart(floor, row.accuracy)} here; it is {_apart(row.accuracy, floor)} or less."
    else:
        return None
    return Verdict(name, False, reason, {"f1_low": least, "f1_high": most})


def _possible(
    name: Candidate,
    row: _Row,
    n: Numbers | None,
    reason: str,
    counts: tuple[str, ...] = (),
    implied: dict[str, float] | None = None,
) -> Verdict:
    """The verdict where nothing excludes it: with what could, and whether it only just fits."""
    needs = _missing(row, counts)
    least, most = row.least(n), row.most
    barely = bool(name != "pooled" and not _missing(row) and most - row.low[2] < _NEAR * (most - least))
    if barely:
        scatter = 2 * math.sqrt(max(0.0, most - row.low[2]))
        reason += (
            f" But only just: F1 is so near 2PR/(P + R) = {most:.4f} that precision and recall of every "
            f"{'case' if name == 'per_case' else 'slice'} would stand in the same proportion, typically to within {scatter:.4f}."
        )
    known = {"f1_low": least, "f1_high": most} if implied is None else implied
    return Verdict(name, True, _unsettled(needs) if needs else reason.strip(), known, needs, barely)


def _inside(row: _Row, n: Numbers | None) -> str:
    return f"F1 lies between the {row.least(n):.4f} and {row.most:.4f} that this precision and recall leave to a mean."


def _missing(row: _Row, counts: tuple[str, ...] = ()) -> tuple[str, ...]:
    return tuple(name for name in (*_RATIOS[:3], *counts) if getattr(row.published, name) is None)


def _word(name: str) -> str:
    return _WORDS.get(name, name.replace("_", " "))


def _unsettled(needs: tuple[str, ...]) -> str:
    *others, last = map(_word, needs)
    told = f"{', '.join(others)} and {last}" if others else last
    return f"It cannot be excluded by what is given; {told} could decide."


def _blank_slices(row: _Row, blank: Float64[np.ndarray, " choice"]) -> _Choices:
    """What the slices with lesion averaged, if so many others were rightly left blank and counted 1."""
    lesion, empty = row.counts or (1, 0)
    n = lesion + empty
    low, high = ((ratio[:, None] * n - blank) / lesion for ratio in (row.low, row.high))
    return _Choices(blank, low, high, (row.accuracy * n - blank) / lesion, lesion)


def _false_alarms(row: _Row, alarms: Float64[np.ndarray, " choice"]) -> _Choices:
    """What the slices with lesion averaged, if so many others had a false alarm and the rest of these were left out.

    A slice with lesion where nothing is predicted has no precision. It need not be looked at: where such slices fit, the same
    slices with the mean precision and no overlap fit too.
    """
    lesion, empty = row.counts or (1, 0)
    scale = 1 + alarms / lesion
    factor = np.stack([scale, np.ones_like(scale), scale])
    accuracy = (row.accuracy * (lesion + empty) - (empty - alarms)) / lesion
    return _Choices(alarms, row.low[:, None] * factor, row.high[:, None] * factor, accuracy, lesion)


def _no_blank_number(choices: _Choices, empty: int) -> str:
    """Why no number of rightly blank slices fits: more are needed than there may be, or nothing goes with the accuracy."""
    low, high = np.maximum(choices.low, 0), np.maximum(choices.high, 0)
    enough = (choices.low <= 1 + _SLACK).all(axis=0) & (high[2] >= lowest_f1(low[0], low[1], choices.n) - _SLACK)
    few = (choices.high >= -_SLACK).all(axis=0) & (low[2] <= highest_f1(high[0], high[1]) + _SLACK)
    fewest, most = choices.number[enough].min(initial=empty), choices.number[few].max(initial=0)
    if fewest > most:
        return (
            f"At least {fewest:.0f} of the {empty} slices without lesion would have to be rightly left blank, or the {choices.n} with "
            f"lesion would average above 1 or below the F1 that they need; but with more than {most:.0f} they would average below 0 "
            "or have an F1 above 2PR/(P + R)."
        )
    return _no_number("rightly blank slices", choices, empty)


def _no_number(what: str, choices: _Choices, empty: int) -> str:
    return f"No number of {what}, 0 to {empty}, leaves the {choices.n} slices with lesion ratios that go together."


def _above_one(row: _Row, printed: dict[str, str]) -> str:
    lesion, empty = row.counts or (1, 0)
    scale = (lesion + empty) / lesion
    sums = [
        f"{_word(name)} of {text} × {lesion + empty} / {lesion} = {_apart(float(text) * scale, 1)}"
        for name, text in printed.items()
        if row.published.span(name)[0] * scale > 1 + _SLACK
    ]
    return (
        f"The {empty} slices without lesion would add nothing, so the {lesion} with lesion would need a mean {', '.join(sums)}; "
        "no ratio exceeds 1."
    )


def _lesion_share(row: _Row) -> tuple[float, float]:
    """Lowest and highest part of the voxels that is lesion, if counts are pooled.

    Errors are FN = share (1 - R) and FP = share (R / P - R), so 1 - accuracy = share (1 - 2R + R / P), which is monotone in P and in R.
    """
    (p_low, r_low, _), (p_high, r_high, _) = row.low.tolist(), row.high.tolist()
    accuracy = row.published.span("accuracy")
    most = max(1 - 2 * r + r / p_low for r in (r_low, r_high)) if p_low > 0 else math.inf
    least = min(1 - 2 * r + r / p_high for r in (r_low, r_high))
    high = min(1.0, (1 - accuracy[0]) / least) if least > _SLACK else 1.0
    return min(high, (1 - accuracy[1]) / most) if most > 0 else 0.0, high


def _digits(value: float, other: float) -> int:
    """At least four decimals, and as many as tell a number from another."""
    return next((digits for digits in range(4, 10) if f"{value:.{digits}f}" != f"{other:.{digits}f}"), 9)


def _apart(value: float, other: float) -> str:
    return f"{value:.{_digits(value, other)}f}"


def _range(low: float, high: float, apart: float | None = None) -> str:
    """``0.7904``, or ``0.790 to 0.800`` where the ends differ; with as many decimals as tell it from another number."""
    digits = 4 if apart is None else max(_digits(low, apart), _digits(high, apart))
    ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _count(fewest: int, most: int, total: int) -> str:
    """``at most 2 of the 91 slices without lesion``."""
    if (fewest, most) == (total, total):
        return f"all {total} slices without lesion"
    if most == total:
        told = f"at least {fewest}" if fewest else "any number"
    elif fewest == 0:
        told = f"at most {most}" if most else "none"
    else:
        told = f"exactly {most}" if fewest == most else f"{fewest} to {most}"
    return f"{told} of the {total} slices without lesion"


def _read_ratio(name: str, text: str | None) -> tuple[float, float]:
    """The range of values that is printed as a text."""
    if text is None:
        return 0.0, 1.0
    word = _word(name)
    if not isinstance(text, str):
        raise ProtocolError(f"A ratio is given as text, so that its digits are known; got {word} {text!r}. Quote it.")
    found = re.fullmatch(r"([+-]?[0-9]*\.?([0-9]*))\s*(%?)", text.strip(), flags=re.ASCII)
    if not found or not re.search("[0-9]", text):
        raise ProtocolError(
            f"A ratio is a number such as 0.751; got {word} {text!r}. Give it as printed, with a point."
        )
    value, digits = float(found[1]), len(found[2])
    if found[3] or not 0 <= value <= 1:
        hint = f" A percentage is given as a ratio: {value / 100:.{digits + 2}f}." if 0 <= value <= 100 else ""
        raise ProtocolError(f"A ratio lies between 0 and 1; got {word} {text!r}.{hint}")
    half = 0.5 * 10.0**-digits
    return max(0.0, value - half), min(1.0, value + half)


def _require_count(name: str, value: object) -> None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_COUNTED):
        return
    raise ProtocolError(
        f"{_word(name).capitalize()} are counted, 1 to {_MOST_COUNTED:,}; got {value!r}. Leave it out if unknown."
    )
