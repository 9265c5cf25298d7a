"""What a study may claim: which arms differ on the same patients, what was forgotten, what labels were saved, what a leak is worth.

Four families are corrected for their size, each on its own: all comparisons on the target (every arm against ``zero_shot``, and
``fine_tuned`` against the other arms with labels), those on the source after retraining, those of the leak, and those of cohorts left out. A family is
the comparisons that a reader goes through to find the one that stands out.

Slices are compared within a seed and, where both arms were tested in it, within a fold. A model that was tested once for all folds
(the source at home) is compared with that of every fold. A patient tested by several seeds is one patient, and what seeds differ
in beyond that is the luck of trainings, which intervals and p-values count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from jaxtyping import Float64

from lungshift.measure.compare import Comparison, Pair, compare
from lungshift.measure.conventions import Convention, resolve_convention
from lungshift.measure.interval import patient_sums
from lungshift.measure.overlap import CountTable, Metric
from lungshift.transfer.arms import ARMS
from lungshift.transfer.outcome import Outcome, Run

ClaimKind = Literal["over_zero_shot", "between_arms", "forgetting", "leak", "left_out"]
"""What is compared: an arm with no retraining, two ways of using the same labels, the source after and before, two splits, a cohort's own network with that of all others."""

RIVALS: Final = ("from_scratch", "joint", "frozen_encoder", "head_only")
"""What ``fine_tuned`` is compared with at each budget."""

LEAKS: Final = ("split_by_slice", "split_by_case")
"""Splits that are compared with ``split_by_patient``."""

_DRAWS = 2000


@dataclass(frozen=True)
class Claim:
    """One arm against another on the same slices.

    Attributes:
        arm, labels: Who is judged, and what it was trained on of the target.
        against, against_labels: By whom.
        tested_on: The cohort of the slices.
        comparison: How much higher the arm scores than the other.
    """

    kind: ClaimKind
    arm: str
    labels: int
    against: str
    against_labels: int
    tested_on: str
    comparison: Comparison


@dataclass(frozen=True)
class LabelsSaved:
    """How many labels training from scratch needs to score what fine-tuning scores with fewer.

    Attributes:
        labels: What fine-tuning was given.
        worth: What training from scratch needs; infinite if more than the most that was tried, 0 if less than the least.
        low, high: A rough 95 % interval from draws of patients, in the same terms; NaN with fewer than two patients.
        tried: Budgets of training from scratch, rising.
        tested_on: The cohort of the slices.
        n_patients: Patients that have something to average.
    """

    labels: int
    worth: float
    low: float
    high: float
    tried: tuple[int, ...]
    tested_on: str
    n_patients: int


@dataclass(frozen=True)
class Claims:
    """Everything a study may claim by one convention; what was not tested is empty.

    Attributes:
        over_zero_shot: Every other arm on the target, at each budget, against no retraining.
        between_arms: ``fine_tuned`` against ``RIVALS`` at each budget.
        forgetting: Every arm that was tested on the source again, against the source model.
        leak: ``LEAKS`` against the split by patient.
        left_out: The network of all other cohorts against the cohort's own, on each cohort.
        labels_saved: ``fine_tuned`` at each budget in labels of ``from_scratch``.
        unit: What labels are counted in.
        leaky: Whether slices of one patient stood on both sides of a split.
        without_ids: Cohorts that came without patient ids, so that every scan was taken for a patient.
    """

    convention: Convention
    metric: Metric
    over_zero_shot: tuple[Claim, ...]
    between_arms: tuple[Claim, ...]
    forgetting: tuple[Claim, ...]
    leak: tuple[Claim, ...]
    left_out: tuple[Claim, ...]
    labels_saved: tuple[LabelsSaved, ...]
    unit: Literal["patient", "slice"]
    leaky: bool
    without_ids: tuple[str, ...]

    @property
    def compared(self) -> tuple[Claim, ...]:
        """All comparisons, in the order of the fields."""
        return self.over_zero_shot + self.between_arms + self.forgetting + self.leak + self.left_out


def claims_of(outcome: Outcome, convention: str = "lesion_slices", metric: Metric = "dice") -> Claims:
    """What a study may claim, by one convention of averaging.

    Raises:
        ProtocolError: No convention has this name.
    """
    name = resolve_convention(convention)
    tested = _grouped(outcome.runs)
    on_target = _compared([*_over_zero_shot(tested), *_between_arms(tested)], name, metric)
    return Claims(
        convention=name,
        metric=metric,
        over_zero_shot=tuple(claim for claim in on_target if claim.kind == "over_zero_shot"),
        between_arms=tuple(claim for claim in on_target if claim.kind == "between_arms"),
        forgetting=_compared(list(_forgetting(tested)), name, metric),
        leak=_compared(list(_leak(_grouped(outcome.leak))), name, metric),
        left_out=_compared(list(_left_out(tested)), name, metric),
        labels_saved=tuple(_labels_saved(tested, name, metric)),
        unit="slice" if outcome.protocol.split.kind == "slice" else "patient",
        leaky=outcome.leaky,
        without_ids=tuple(cohort.name for cohort in outcome.cohorts if not cohort.patients_known),
    )


_Key = tuple[int, int, str, int]


@dataclass(frozen=True, eq=False)
class _Tested:
    """An arm at one budget, over its seeds and folds; a row's key is its seed, fold, case and slice."""

    runs: tuple[Run, ...]

    @cached_property
    def keys(self) -> list[_Key]:
        return [
            (run.seed, run.fold, str(case), int(index))
            for run in self.runs
            for case, index in zip(run.scores.cases, run.scores.slices, strict=True)
        ]

    @cached_property
    def counts(self) -> CountTable:
        return np.concatenate([run.scores.counts for run in self.runs])

    @cached_property
    def patients(self) -> list[str]:
        return [str(patient) for run in self.runs for patient in run.scores.patients]

    @cached_property
    def exact(self) -> dict[_Key, int]:
        """The row of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def only(self) -> dict[tuple[int, str, int], int]:
        """The row of each seed, case and slice that one fold alone has."""
        rows: dict[tuple[int, str, int], list[int]] = {}
        for row, (seed, _, case, index) in enumerate(self.keys):
            rows.setdefault((seed, case, index), []).append(row)
        return {key: found[0] for key, found in rows.items() if len(found) == 1}

    def find(self, key: _Key) -> int | None:
        """The row that a row of another arm is compared with, if there is one."""
        seed, _, case, index = key
        return self.exact.get(key, self.only.get((seed, case, index)))


_Place = tuple[str, str, str, int]


@dataclass(frozen=True, eq=False)
class _Question:
    """A claim before it is computed."""

    kind: ClaimKind
    after: _Place
    before: _Place
    pair: Pair


def _grouped(runs: Sequence[Run]) -> dict[_Place, _Tested]:
    """Runs of one arm, role, tested cohort and budget, over seeds and folds; arms in their order, budgets rising."""
    groups: dict[_Place, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.arm, run.role, run.tested_on, run.labels), []).append(run)
    order = {arm: place for place, arm in enumerate(ARMS)}
    places = sorted(groups, key=lambda place: (order.get(place[0], len(order)), place[3]))
    return {place: _Tested(tuple(groups[place])) for place in places}


def _over_zero_shot(tested: Mapping[_Place, _Tested]) -> Iterator[_Question]:
    for place in tested:
        arm, role, on, _ = place
        if role == "target" and arm in ARMS and arm != "zero_shot":
            yield from _question("over_zero_shot", tested, place, ("zero_shot", role, on, 0))


def _between_arms(tested: Mapping[_Place, _Tested]) -> Iterator[_Question]:
    for place in tested:
        arm, role, on, labels = place
        if role == "target" and arm == "fine_tuned":
            for rival in RIVALS:
                yield from _question("between_arms", tested, place, (rival, role, on, labels))


def _forgetting(tested: Mapping[_Place, _Tested]) -> Iterator[_Question]:
    for place in tested:
        arm, role, on, _ = place
        if role == "source" and arm in ARMS:
            yield from _question("forgetting", tested, place, ("source", role, on, 0))


def _leak(tested: Mapping[_Place, _Tested]) -> Iterator[_Question]:
    clean = {place[1:3]: place for place in tested if place[0] == "split_by_patient"}
    for place in tested:
        if place[0] in LEAKS and place[1:3] in clean:
            yield from _question("leak", tested, place, clean[place[1:3]])


def _left_out(tested: Mapping[_Place, _Tested]) -> Iterator[_Question]:
    own = {place[2]: place for place in tested if place[0] == "at_home"}
    for place in tested:
        if place[0] == "leave_one_out" and place[2] in own:
            yield from _question("left_out", tested, place, own[place[2]])


def _question(kind: ClaimKind, tested: Mapping[_Place, _Tested], after: _Place, before: _Place) -> Iterator[_Question]:
    """The question, if both arms were tested on a slice in common."""
    if before in tested and (pair := _pair(tested[before], tested[after])) is not None:
        yield _Question(kind, after, before, pair)


def _pair(before: _Tested, after: _Tested) -> Pair | None:
    """The slices that both arms were tested on."""
    matched = [(old, new) for new, key in enumerate(after.keys) if (old := before.find(key)) is not None]
    if not matched:
        return None
    old, new = np.array(matched).T
    cases, patients = _labels(after, new)
    return Pair(before.counts[old], after.counts[new], cases, patients, [after.keys[row][0] for row in new])


def _labels(tested: _Tested, rows: Sequence[int] | np.ndarray) -> tuple[list[str], list[str]]:
    """Case, named apart by seed and fold, and patient of rows."""
    keys = [tested.keys[row] for row in rows]
    return [f"{case} {seed}.{fold}" for seed, fold, case, _ in keys], [tested.patients[row] for row in rows]


def _compared(questions: list[_Question], convention: Convention, metric: Metric) -> tuple[Claim, ...]:
    """The questions, answered as one family."""
    answers = compare([question.pair for question in questions], convention, metric)
    return tuple(
        Claim(
            question.kind,
            arm=question.after[0],
            labels=question.after[3],
            against=question.before[0],
            against_labels=question.before[3],
            tested_on=question.after[2],
            comparison=answer,
        )
        for question, answer in zip(questions, answers, strict=True)
    )


def _labels_saved(tested: Mapping[_Place, _Tested], convention: Convention, metric: Metric) -> Iterator[LabelsSaved]:
    for place, tuned in tested.items():
        arm, role, on, labels = place
        curve = {other[3]: found for other, found in tested.items() if other[:3] == ("from_scratch", "target", on)}
        if (arm, role) == ("fine_tuned", "target") and curve:
            found = _saved(labels, on, tuned, curve, convention, metric)
            if found is not None:
                yield found


def _saved(
    labels: int, on: str, tuned: _Tested, curve: Mapping[int, _Tested], convention: Convention, metric: Metric
) -> LabelsSaved | None:
    """What fine-tuning is worth on the slices that all of these were tested on; None if there are none."""
    arms = [tuned, *curve.values()]
    keys = [key for key in tuned.keys if all(key in arm.exact for arm in arms)]
    if not keys:
        return None
    tables = [arm.counts[[arm.exact[key] for key in keys]] for arm in arms]
    cases, owners = _labels(tuned, [tuned.exact[key] for key in keys])
    patients, sums = patient_sums(tables, cases, owners, convention, metric)
    tried, n = tuple(curve), len(patients)
    worth = float(worth_of(_scores(sums, np.ones((1, n))), tried)[0])
    low, high = (math.nan, math.nan) if n < 2 or math.isnan(worth) else _rough_interval(sums, tried)
    return LabelsSaved(labels, worth, low, high, tried, on, n)


def worth_of(scores: Float64[np.ndarray, "draw arm"], tried: Sequence[int]) -> Float64[np.ndarray, " draw"]:
    """The budget at which a learning curve first reaches a score, on straight lines over log(1 + budget).

    Args:
        scores: The score, and then that of each budget that was tried.
        tried: The budgets, rising.

    Returns:
        Infinite where no budget reaches the score, 0 where the least exceeds it, NaN where a score is undefined.
    """
    score, curve, place = scores[:, 0], scores[:, 1:], np.log1p(tried)
    worth = np.full(len(scores), np.inf)
    with np.errstate(all="ignore"):
        for step in reversed(range(len(tried) - 1)):
            low, high = curve[:, step], curve[:, step + 1]
            here = place[step] + (score - low) / (high - low) * (place[step + 1] - place[step])
            worth = np.where((low < score) & (score <= high), np.expm1(here), worth)
    worth = np.where(score == curve[:, 0], tried[0], np.where(score < curve[:, 0], 0.0, worth))
    return np.where(np.isnan(scores).any(axis=1), np.nan, worth)


def _scores(
    sums: Float64[np.ndarray, "arm patient 2"], drawn: Float64[np.ndarray, "draw patient"]
) -> Float64[np.ndarray, "draw arm"]:
    """Each arm's average when each patient is taken so many times."""
    with np.errstate(all="ignore"):
        scores: np.ndarray = (drawn @ sums[..., 0].T) / (drawn @ sums[..., 1].T)
    return scores


def _rough_interval(sums: Float64[np.ndarray, "arm patient 2"], tried: Sequence[int]) -> tuple[float, float]:
    """Percentiles over draws of patients, as far out as Student's t asks (Hesterberg, The American Statistician 69:371, 2015)."""
    from scipy.special import ndtr, stdtrit

    n = sums.shape[1]
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), _DRAWS).astype(np.float64)
    worth = worth_of(_scores(sums, drawn), tried)
    reach = stdtrit(n - 1, 0.975) * math.sqrt(n / (n - 1))
    # Not interpolated: between the most that was tried and more there is nothing.
    low, high = np.quantile(worth[~np.isnan(worth)], [ndtr(-reach), ndtr(reach)], method="inverted_cdf")
    return float(low), float(high)
