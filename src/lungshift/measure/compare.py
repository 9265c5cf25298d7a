"""Which of two arms is better on the same patients, for a whole family of such questions asked at once.

A patient's two results could have come the other way round if the arms did not differ. So for every patient they are swapped or not, in
all 2^n ways where patients are few and in a random part of them where not, and ``p`` is the share of ways in which the difference
of the averages, in units of its standard error, is at least as large as it was found. This asks for no distribution, and it is
blunt for few patients: the smallest possible ``p`` is 1 in 2^(n - 1), 0.125 for four patients and 0.002 for ten.

Swaps of patients know nothing of the luck of a training. Where several seeds differ by more than patients explain, the error of the
difference as it was found counts that too, and it is known less well; the difference in units of this error is taken down to what is
as unlikely with patients alone (by Student's t of both), and that is looked up among the swaps.

Asked of thirty pairs, Holm's correction multiplies the smallest ``p`` by thirty; with ten patients nothing could then ever be told
from noise. The correction used here takes Holm's steps, but counts in how many swaps the largest of the differences not yet told apart
is as large (Westfall and Young, Resampling-Based Multiple Testing, 1993): patients are swapped in all pairs at once, so that what
the pairs share is not paid for twice. It asks that a patient's differences be as likely to lie all the other way round.
``correction="holm"`` asks less, and is there for those who want it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from lungshift.measure.interval import Spread, bounds, seed_sums, spread_of, spread_over_seeds, value_and_error
from lungshift.measure.overlap import CountTable, Metric

Correction = Literal["joint", "holm"]
"""How p is corrected for the size of the family; the module says what each asks."""

LEVEL = 0.05
"""How often a family of arms that do not differ may bring forth a difference."""

POWER = 0.8
"""How surely a difference of the size ``detectable`` would be found."""

_EXACT = 14
_DRAWS = 9999
_NOISE = 1e-12


@dataclass(frozen=True, eq=False)
class Pair:
    """Two predictions of the same slices.

    Attributes:
        before, after: TP, FP, FN, TN of each slice by either.
        cases: The case of each slice, named apart by seed.
        patients: The patient of each slice; the same patient has the same id in every pair of a family.
        seeds: The seed of the trainings that are compared on each slice; without them the answer is for these trainings only.
    """

    before: CountTable
    after: CountTable
    cases: Sequence[str]
    patients: Sequence[str]
    seeds: Sequence[int] | None = None


@dataclass(frozen=True)
class Comparison:
    """How much higher an average is after than before, and whether that may be chance.

    Attributes:
        difference: Of the averages; NaN if one of them is undefined.
        low, high: Its 95 % interval over patients and, with several seeds, trainings; NaN with fewer than two patients.
        simultaneous_low, simultaneous_high: The interval at Bonferroni's level: all of a family hold the truth together 95 % of the time.
        p: Share of swaps with a difference as large; NaN where there is nothing to test.
        p_corrected: The same, corrected for the family.
        n_patients: Patients that have something to average.
        n_compared: Pairs of the family that could be tested.
        detectable: The smallest true difference that so many patients of this spread would show 80 % of the time, at Bonferroni's
            level; infinite where so few patients cannot show any, NaN where there is nothing to test.
    """

    difference: float
    low: float
    high: float
    simultaneous_low: float
    simultaneous_high: float
    p: float
    p_corrected: float
    n_patients: int
    n_compared: int
    detectable: float

    @property
    def is_told(self) -> bool:
        """Whether the difference is told from noise, corrected for the family."""
        return self.p_corrected < LEVEL


def compare(
    pairs: Sequence[Pair], convention: str, metric: Metric, *, correction: Correction = "joint", seed: int = 0
) -> tuple[Comparison, ...]:
    """Compare the arms of each pair; all pairs are one family.

    Args:
        pairs: What is asked.
        convention: One of ``CONVENTIONS``, or ``paper``.
        metric: Which ratio.
        correction: How p is corrected for the number of pairs.
        seed: Of the swaps where there are too many patients for all of them.

    Raises:
        InputError: A pair's predictions are not of the same slices, or ids are missing.
        ProtocolError: No convention has this name.
    """
    asked = [_Asked.of(pair, convention, metric) for pair in pairs]
    can = np.array([one.can_be_tested for one in asked], dtype=bool)
    statistics = _statistics([one for one in asked if one.can_be_tested], seed)
    p, corrected = np.full((2, len(asked)), np.nan)
    p[can] = _shares(statistics, statistics[0])
    corrected[can] = _step_down(statistics) if correction == "joint" else _holm(p[can])
    family = int(np.count_nonzero(can))
    least = (1 if correction == "joint" else family) / len(statistics)
    return tuple(
        _comparison(one, float(a), float(b), family, least) for one, a, b in zip(asked, p, corrected, strict=True)
    )


@dataclass(frozen=True, eq=False)
class _Asked:
    """A pair as sums over patients."""

    patients: list[str]
    sums: Float64[np.ndarray, "arm patient 2"]
    spread: Spread

    @classmethod
    def of(cls, pair: Pair, convention: str, metric: Metric) -> _Asked:
        tables = [pair.before, pair.after]
        patients, sums = seed_sums(tables, pair.cases, pair.patients, pair.seeds, convention, metric)
        return cls(patients, sums.sum(axis=2), spread_over_seeds(sums))

    @property
    def can_be_tested(self) -> bool:
        return bool(np.isfinite(self.spread.value) and np.isfinite(self.spread.error))


def _comparison(asked: _Asked, p: float, p_corrected: float, family: int, least: float) -> Comparison:
    low, high = bounds(asked.spread)
    simultaneous_low, simultaneous_high = bounds(asked.spread, 1 - LEVEL / max(family, 1))
    return Comparison(
        difference=float(asked.spread.value),
        low=float(low),
        high=float(high),
        simultaneous_low=float(simultaneous_low),
        simultaneous_high=float(simultaneous_high),
        p=p,
        p_corrected=p_corrected,
        n_patients=len(asked.patients),
        n_compared=family,
        detectable=_detectable(asked.spread, family, least) if asked.can_be_tested else math.nan,
    )


def _statistics(asked: Sequence[_Asked], seed: int) -> Float64[np.ndarray, "swap pair"]:
    """The size of each difference in units of its error, for every swap of patients; the first swap is none."""
    patients = sorted({patient for one in asked for patient in one.patients})
    place = {patient: index for index, patient in enumerate(patients)}
    swaps = _swaps(len(patients), seed)
    columns = [_sizes(one.sums, swaps[:, [place[patient] for patient in one.patients]]) for one in asked]
    for one, column in zip(asked, columns, strict=True):
        column[0] = _found(one, column[0])
    return np.stack(columns, axis=1) if columns else np.empty((1, 0))


def _found(asked: _Asked, size: float) -> float:
    """The size of the difference as it was found: over patients, or as unlikely as it is over patients and trainings."""
    from scipy.special import stdtr, stdtrit

    alone, spread = spread_of(asked.sums), asked.spread
    if not np.isfinite(size) or size == 0 or spread.error <= alone.error:
        return size
    return float(-stdtrit(alone.freedom, stdtr(spread.freedom, -np.abs(spread.value) / spread.error)))


def _swaps(patients: int, seed: int) -> Bool[np.ndarray, "swap patient"]:
    """Whether each patient's arms are swapped: no patient's first, then all ways where they are few, or a draw of them."""
    if patients <= _EXACT:
        # Swapping everyone changes the sign alone: the first patient may stay as it is.
        ways = np.array(list(product((False, True), repeat=max(patients - 1, 0))), dtype=bool)
        return np.concatenate([np.zeros((len(ways), min(patients, 1)), dtype=bool), ways], axis=1)
    drawn = np.random.default_rng(seed).random((_DRAWS + 1, patients)) < 0.5
    drawn[0] = False
    return drawn


def _sizes(
    sums: Float64[np.ndarray, "arm patient 2"], swaps: Bool[np.ndarray, "swap patient"]
) -> Float64[np.ndarray, " swap"]:
    value, error = value_and_error(np.where(swaps[:, None, :, None], sums[::-1], sums))
    with np.errstate(all="ignore"):
        sizes = np.abs(value) / error
    # A swap that leaves an arm without anything to average counts as large: against finding a difference.
    sizes[(error <= _NOISE) | np.isnan(sizes)] = np.inf
    sizes[np.abs(value) <= _NOISE] = 0.0
    return sizes


def _shares(
    statistics: Float64[np.ndarray, "swap pair"], found: Float64[np.ndarray, " pair"]
) -> Float64[np.ndarray, " pair"]:
    """The part of all swaps that is at least as large as what was found."""
    shares: np.ndarray = (statistics >= found * (1 - 1e-9)).mean(axis=0)
    return shares


def _step_down(statistics: Float64[np.ndarray, "swap pair"]) -> Float64[np.ndarray, " pair"]:
    """Corrected p: each difference against the largest of those that are not larger than it."""
    falling = np.argsort(-statistics[0], kind="stable")
    largest = np.maximum.accumulate(statistics[:, falling[::-1]], axis=1)[:, ::-1]
    corrected = np.empty(len(falling))
    corrected[falling] = np.maximum.accumulate(_shares(largest, statistics[0, falling]))
    return corrected


def _holm(p: Float64[np.ndarray, " pair"]) -> Float64[np.ndarray, " pair"]:
    from statsmodels.stats.multitest import multipletests

    corrected: np.ndarray = multipletests(p, method="holm")[1] if len(p) else p
    return corrected


def _detectable(spread: Spread, family: int, least: float) -> float:
    """Bloom's minimum detectable effect (Evaluation Review 19:547, 1995)."""
    from scipy.special import stdtrit

    if least > LEVEL:
        return math.inf
    return float((stdtrit(spread.freedom, 1 - LEVEL / family / 2) + stdtrit(spread.freedom, POWER)) * spread.error)
