"""How sure an average is: the average and its 95 % interval over patients, as one estimate.

Slices of one patient resemble each other, so patients are what varies, never slices. Every average of ``conventions`` is a sum over
patients divided by another sum over patients; both are summed once per patient and seed, whatever the scans and folds in which
a patient was tested, and value and interval are then made of a few numbers.

The interval is Student's t of the linearised ratio, on the logit scale for an average and on its own for a difference. Two things
keep it from being too narrow for few patients of unequal weight: each patient's deviation is scaled up by what its own pull on the
average hides of it (``CR2`` of Bell and McCaffrey, Survey Methodology 28:169, 2002; Imbens and Kolesár, Review of Economics and
Statistics 98:701, 2016), and the degrees of freedom are the harmonic mean of patients less one, right where a patient's
deviation shrinks with its number of slices, and of Bell and McCaffrey's, right where it does not. It was chosen from some thirty
ways, bootstraps among them, on simulated cohorts; ``docs/benchmarks/coverage.md`` has its coverage on others, and where 93 to 97 %
is missed. Nothing is drawn: the same counts give the same interval.

Where several seeds tested the same patients, what the patients of one seed share because that training went well or badly is measured
too: the variance over seeds beyond what patients and seeds that do not suit each other bring about by themselves is added (two-way
clustering: Cameron, Gelbach and Miller, Journal of Business and Economic Statistics 29:238, 2011; balanced, as in an analysis of
variance), and the degrees of freedom are Satterthwaite's of the two parts.

What it covers: other patients of the same kind and, with several seeds, other trainings. What it does not: a leaky split; the luck of
the one training there is; that the models of leave-patients-out folds share patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lungshift.errors import InputError
from lungshift.measure.conventions import Convention, level_of, resolve_convention, score
from lungshift.measure.overlap import RATIOS, CountTable, Metric, group_sums, require_table, sum_by

_NOISE = 1e-12


@dataclass(frozen=True)
class Estimate:
    """An average, or the difference of two, with its interval over patients.

    Attributes:
        value: All patients' sums above the line by those below it; NaN if there was nothing to average.
        low: Lower end of the interval; NaN if fewer than two patients have anything to average.
        high: Upper end; NaN likewise.
        n_patients: Patients that have something to average.
        convention: How the ratio was averaged.
        metric: What was averaged.
    """

    value: float
    low: float
    high: float
    n_patients: int
    convention: Convention
    metric: Metric


@dataclass(frozen=True, eq=False)
class Spread:
    """A ratio of sums over patients, or the difference of two, and how sure it is; one entry per cohort, any number of them.

    Attributes:
        value: The ratio or difference.
        error: Its standard error over patients and, where several seeds were told apart, trainings; NaN if one patient alone has something
            to average.
        freedom: Degrees of freedom of the error.
        is_difference: Whether the value is a difference, from -1 to 1, or a ratio, from 0 to 1.
    """

    value: Float64[np.ndarray, "*cohort"]
    error: Float64[np.ndarray, "*cohort"]
    freedom: Float64[np.ndarray, "*cohort"]
    is_difference: bool


def estimate(
    counts: CountTable,
    cases: Sequence[str],
    patients: Sequence[str],
    convention: str,
    metric: Metric,
    *,
    seeds: Sequence[int] | None = None,
    level: float = 0.95,
) -> Estimate:
    """An average with its interval, were other patients of the same kind scanned.

    For an average over several seeds, give the slices of all seeds one after another, with cases named apart by seed and
    patients not: a patient is one, however often it was tested. Give the seeds too, or the interval is for these trainings only.

    Args:
        counts: TP, FP, FN, TN of each slice.
        cases: The case of each slice.
        patients: The patient of each slice.
        convention: One of ``CONVENTIONS``, or ``paper``.
        metric: Which ratio.
        seeds: The seed of the training that tested each slice.
        level: How often such intervals hold the truth.

    Raises:
        InputError: ``counts`` is not n x 4, ids are missing, or one case belongs to two patients.
        ProtocolError: No convention has this name.
    """
    _, sums = seed_sums([counts], cases, patients, seeds, convention, metric)
    return _estimate(sums, convention, metric, level)


def estimate_difference(
    before: CountTable,
    after: CountTable,
    cases: Sequence[str],
    patients: Sequence[str],
    convention: str,
    metric: Metric,
    *,
    seeds: Sequence[int] | None = None,
    level: float = 0.95,
) -> Estimate:
    """How much higher an average is ``after`` than ``before``, on the same slices of the same patients, with its interval.

    What patients differ in cancels out: an interval above 0 says that ``after`` is better, even where the two intervals of
    their own overlap.

    Args:
        before: TP, FP, FN, TN of each slice by one prediction.
        after: The same slices, in the same order, by another.
        cases: The case of each slice.
        patients: The patient of each slice.
        convention: One of ``CONVENTIONS``, or ``paper``.
        metric: Which ratio.
        seeds: The seed of the training that tested each slice.
        level: How often such intervals hold the truth.

    Raises:
        InputError: The two were not counted on the same voxels or references, or as for ``estimate``.
        ProtocolError: No convention has this name.
    """
    _, sums = seed_sums([before, after], cases, patients, seeds, convention, metric)
    return _estimate(sums, convention, metric, level)


def patient_sums(
    tables: Sequence[CountTable], cases: Sequence[str], patients: Sequence[str], convention: str, metric: Metric
) -> tuple[list[str], Float64[np.ndarray, "arm patient 2"]]:
    """What each patient adds above and below the line of each arm's average, over all seeds; those who add to none are left out.

    Returns:
        The patients, sorted, and their sums for each of ``tables``.

    Raises:
        InputError: The tables were not counted on the same voxels or references, or as for ``estimate``.
        ProtocolError: No convention has this name.
    """
    labels, sums = seed_sums(tables, cases, patients, None, convention, metric)
    return labels, sums[:, :, 0]


def seed_sums(
    tables: Sequence[CountTable],
    cases: Sequence[str],
    patients: Sequence[str],
    seeds: Sequence[int] | None,
    convention: str,
    metric: Metric,
) -> tuple[list[str], Float64[np.ndarray, "arm patient seed 2"]]:
    """``patient_sums`` of each seed; a patient whom a seed did not test adds nothing there.

    Args:
        tables: TP, FP, FN, TN of each slice by each arm.
        cases: The case of each slice, named apart by seed.
        patients: The patient of each slice.
        seeds: The seed of each slice; without them all are one.
        convention: One of ``CONVENTIONS``, or ``paper``.
        metric: Which ratio.

    Raises:
        InputError: As for ``patient_sums``, or seeds are missing, or one case belongs to two of them.
        ProtocolError: No convention has this name.
    """
    for table in tables:
        require_table(table)
        _require_paired(tables[0], table)
    require_table(tables[0], cases, patients)
    owners = list(zip(patients, [0] * len(patients) if seeds is None else seeds, strict=True))
    if level_of(convention) == "case":
        owner_of = _owner_of_case(cases, owners)
        names = [sum_by(table, cases) for table in tables]
        owners, tables = [owner_of[name] for name in names[0][0]], [rows for _, rows in names]
    fractions = np.concatenate([_fractions(rows, convention, metric) for rows in tables], axis=1)
    labels, flat = group_sums(fractions, owners)
    people, numbers = sorted({patient for patient, _ in labels}), sorted({seed for _, seed in labels})
    row_of = {patient: place for place, patient in enumerate(people)}
    column_of = {seed: place for place, seed in enumerate(numbers)}
    sums = np.zeros((len(tables), len(people), len(numbers), 2))
    for (patient, seed), row in zip(labels, flat, strict=True):
        sums[:, row_of[patient], column_of[seed]] = row.reshape(len(tables), 2)
    kept = np.flatnonzero(sums[..., 1].any(axis=(0, 2)))
    return [people[place] for place in kept], sums[:, kept]


def spread_of(sums: Float64[np.ndarray, "*cohort arm patient 2"]) -> Spread:
    """The average of one arm, or how much higher it is in the second of two, and how sure that is for these trainings.

    Args:
        sums: What each patient adds above and below the line, for one or two arms; any number of cohorts at once.
    """
    value, error = value_and_error(sums)
    with np.errstate(all="ignore"):
        weights = sums[..., 1] / sums[..., 1].sum(axis=-1, keepdims=True)
        freedom = _freedom(weights.mean(axis=-2))
    return Spread(value, error, freedom, sums.shape[-3] > 1)


def spread_over_seeds(sums: Float64[np.ndarray, "*cohort arm patient seed 2"]) -> Spread:
    """``spread_of`` for other trainings too, told by the patients that every seed tested; with one seed it is the same.

    Args:
        sums: What each patient adds above and below the line in each seed, for one or two arms; any number of cohorts at once.
    """
    alone = spread_of(sums.sum(axis=-2))
    seeds = sums.shape[-2]
    if seeds < 2:
        return alone
    by_seed, mixed, patients = _between_seeds(sums)
    with np.errstate(all="ignore"):
        luck = np.where((patients > 1) & (by_seed - mixed > _NOISE**2), by_seed - mixed, 0)
        variance = alone.error**2 + luck
        # Counting what is subtracted too, they could fall below those of seeds alone, and jump where luck is next to nothing.
        freedom = variance**2 / (alone.error**4 / alone.freedom + luck**2 / (seeds - 1))
        freedom = np.where(luck > 0, np.minimum(freedom, alone.freedom), alone.freedom)
    return Spread(alone.value, np.sqrt(variance), freedom, alone.is_difference)


def value_and_error(
    sums: Float64[np.ndarray, "*cohort arm patient 2"],
) -> tuple[Float64[np.ndarray, "*cohort"], Float64[np.ndarray, "*cohort"]]:
    """``spread_of`` without the degrees of freedom: what a test by many swaps needs of each."""
    top, bottom = sums[..., 0], sums[..., 1]
    with np.errstate(all="ignore"):
        ratio = top.sum(axis=-1) / bottom.sum(axis=-1)
        weight = bottom / bottom.sum(axis=-1, keepdims=True)
        # A patient's own pull draws the average towards it; its deviation is scaled up by what that hides.
        seen = 1 - 2 * weight + (weight**2).sum(axis=-1, keepdims=True)
        pull = (top - ratio[..., None] * bottom) / bottom.sum(axis=-1, keepdims=True) / np.sqrt(seen)
    if sums.shape[-3] == 1:
        return ratio[..., 0], np.sqrt((pull[..., 0, :] ** 2).sum(axis=-1))
    apart = pull[..., 1, :] - pull[..., 0, :]
    return ratio[..., 1] - ratio[..., 0], np.sqrt((apart**2).sum(axis=-1))


def bounds(
    spread: Spread, level: float = 0.95
) -> tuple[Float64[np.ndarray, "*cohort"], Float64[np.ndarray, "*cohort"]]:
    """Lower and upper end of the interval that holds the truth with probability ``level``."""
    from scipy.special import expit, logit, stdtrit

    reach = stdtrit(spread.freedom, (1 + level) / 2) * spread.error
    if spread.is_difference:
        return np.clip(spread.value - reach, -1, 1), np.clip(spread.value + reach, -1, 1)
    with np.errstate(all="ignore"):
        centre, stretched = logit(spread.value), reach / (spread.value * (1 - spread.value))
        ends = expit(centre - stretched), expit(centre + stretched)
    low, high = (np.where(spread.error <= _NOISE, spread.value, end) for end in ends)
    return low, high


def _between_seeds(
    sums: Float64[np.ndarray, "*cohort arm patient seed 2"],
) -> tuple[Float64[np.ndarray, "*cohort"], Float64[np.ndarray, "*cohort"], Float64[np.ndarray, "*cohort"]]:
    """Of patients that every seed tested: variance of the average over seeds, the part of it that luck of no training explains, and how many."""
    seeds = sums.shape[-2]
    tested: np.ndarray = np.all(sums[..., 1].any(axis=-3), axis=-1)
    patients = tested.sum(axis=-1, dtype=np.float64)
    top, bottom = np.moveaxis(np.where(tested[..., None, :, None, None], sums, 0), -1, 0)
    total = bottom.sum(axis=(-2, -1), keepdims=True)
    with np.errstate(all="ignore"):
        pull = (top - top.sum(axis=(-2, -1), keepdims=True) / total * bottom) / total
        pull = pull[..., -1, :, :] - (pull[..., 0, :, :] if sums.shape[-4] > 1 else 0)
        of_seed, of_patient = pull.sum(axis=-2, keepdims=True), pull.sum(axis=-1, keepdims=True)
        left = np.where(tested[..., None], pull - of_seed / patients[..., None, None] - of_patient / seeds, 0)
        more = seeds / (seeds - 1)
        by_seed = more * (of_seed**2).sum(axis=(-2, -1))
        return by_seed, more * patients / (patients - 1) * (left**2).sum(axis=(-2, -1)), patients


def _estimate(
    sums: Float64[np.ndarray, "arm patient seed 2"], convention: str, metric: Metric, level: float
) -> Estimate:
    spread = spread_over_seeds(sums)
    low, high = bounds(spread, level)
    name = resolve_convention(convention)
    return Estimate(float(spread.value), float(low), float(high), sums.shape[1], name, metric)


def _fractions(rows: CountTable, convention: str, metric: Metric) -> Float64[np.ndarray, "row 2"]:
    """What each row adds above and below the line of the average."""
    if level_of(convention) == "pooled":
        return np.stack([rows @ np.array(RATIOS[metric].top), rows @ np.array(RATIOS[metric].bottom)], axis=1) * 1.0
    values = score(rows, convention, metric)
    return np.stack([np.nan_to_num(values, nan=0.0), ~np.isnan(values)], axis=1)


def _freedom(weight: Float64[np.ndarray, "*cohort patient"]) -> Float64[np.ndarray, "*cohort"]:
    """Degrees of freedom of the error of an average of patients with these weights, which sum to 1."""
    square = (weight**2).sum(axis=-1, keepdims=True)
    centre = np.eye(weight.shape[-1]) - weight[..., None, :]
    form = np.swapaxes(centre, -1, -2) @ (centre * (weight**2 / (1 - 2 * weight + square))[..., None])
    satterthwaite = np.trace(form, axis1=-1, axis2=-2) ** 2 / (form**2).sum(axis=(-1, -2))
    patients = np.count_nonzero(weight > 0, axis=-1)
    return 2 / (1 / satterthwaite + 1 / (patients - 1))


def _owner_of_case(cases: Sequence[str], owners: Sequence[tuple[str, int]]) -> dict[str, tuple[str, int]]:
    owner_of = dict(zip(cases, owners, strict=True))
    torn = sorted({case for case, owner in zip(cases, owners, strict=True) if owner_of[case] != owner})
    if torn:
        raise InputError(
            f"A case belongs to one patient and one seed; {', '.join(torn)} to more. Check the ids, and name cases apart by seed.",
            code="E_COUNTS",
        )
    return owner_of


def _require_paired(before: CountTable, after: CountTable) -> None:
    same = before.shape == after.shape
    # TP + FN is the reference, the sum is what was compared: neither depends on a prediction.
    if not same or ((before - after)[:, [0, 2]].sum(axis=1) != 0).any() or ((before - after).sum(axis=1) != 0).any():
        raise InputError(
            f"Only predictions of the same slices can be compared; got {len(before)} and {len(after)} slices"
            + (" with other references or regions." if same else ".")
            + " Count both on the same slices, in the same order.",
            code="E_COUNTS",
        )
