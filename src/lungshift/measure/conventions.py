"""How ratios become one number: by slice, by case or pooled, and what a slice without lesion counts for.

A mean Dice says nothing until it is known what was averaged, and what two empty masks scored. Each way has a name here, every
``Average`` carries it, and all of them are printed beside each other.

============== ======= =================================== ================================ =======================
convention     level   averaged over                       both masks empty                 other 0 / 0
============== ======= =================================== ================================ =======================
lesion_slices  slice   slices whose reference has lesion   cannot be                        0 (nothing predicted)
empty_is_one   slice   all slices                          1                                0
empty_is_nan   slice   slices where the ratio is defined   left out                         left out
per_case       case    cases where the ratio is defined    left out                         left out
pooled         pooled  nothing: one ratio of all counts    NaN                              NaN
============== ======= =================================== ================================ =======================

``paper`` is another name of ``lesion_slices``. The source paper (arXiv 2205.02152, Table 2) does not say how slices without
lesion count. Arithmetic on its rows excludes two ways: scoring such slices 0 would need a precision above 1 on the others, and
``pooled`` forces F1 to 2 P R / (P + R), which the rows are not. Of the ways that give such a slice a score it leaves one,
``empty_is_one``, beside ``lesion_slices``, which does not look at it. It cannot exclude ``empty_is_nan`` either, if false alarms
were very rare, nor ``per_case`` (``measure.forensics``, ``docs/forensics.md``). The 0 here for the precision of a slice where
nothing was predicted is what Keras and scikit-learn (``zero_division=0``) report.

Slices without any voxel to compare (no lung, where counts are taken within the lung) are left out everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64

from lungshift.errors import ProtocolError
from lungshift.measure.overlap import RATIOS, CountTable, Metric, require_table, sum_by

Level = Literal["slice", "case", "pooled"]
"""What a ratio is taken of: each slice, each case in 3-D, or everything at once."""

Convention = Literal["lesion_slices", "empty_is_one", "empty_is_nan", "per_case", "pooled"]
"""The ways of averaging; the module's table says what each means."""

CONVENTIONS: Final[tuple[Convention, ...]] = get_args(Convention)
"""All conventions, in the order in which tables show them."""


@dataclass(frozen=True)
class Average:
    """A ratio averaged by a named convention.

    Attributes:
        convention: How it was averaged.
        metric: What was averaged.
        value: Between 0 and 1; NaN if there was nothing to average.
        n: Slices (level ``slice``) or cases (``case``) in the mean, or slices that were pooled.
        n_undefined: Slices or cases whose ratio was 0 / 0: counted as 1 or 0, or left out, as the convention says.
            Pooled counts make one ratio, so this is 0 or 1 there.
    """

    convention: Convention
    metric: Metric
    value: float
    n: int
    n_undefined: int

    @property
    def level(self) -> Level:
        """What the ratio was taken of."""
        return _RULES[self.convention].level


@dataclass(frozen=True)
class _Rule:
    level: Level
    lesion_only: bool = False
    both_empty: float = np.nan
    undefined: float = np.nan


_RULES: Final[dict[Convention, _Rule]] = {
    "lesion_slices": _Rule("slice", lesion_only=True, undefined=0.0),
    "empty_is_one": _Rule("slice", both_empty=1.0, undefined=0.0),
    "empty_is_nan": _Rule("slice"),
    "per_case": _Rule("case"),
    "pooled": _Rule("pooled"),
}


def resolve_convention(name: str) -> Convention:
    """The convention of a name; ``paper`` means ``lesion_slices``.

    Raises:
        ProtocolError: No convention has this name.
    """
    for convention in CONVENTIONS:
        if name == convention or (name == "paper" and convention == "lesion_slices"):
            return convention
    raise ProtocolError(
        f"{name!r} is no convention of averaging; choose one of {', '.join(CONVENTIONS)} or paper.", code="E_CONVENTION"
    )


def level_of(convention: str) -> Level:
    """What a convention's ratios are taken of: slices, cases, or everything at once.

    Raises:
        ProtocolError: No convention has this name.
    """
    return _RULES[resolve_convention(convention)].level


def average(counts: CountTable, cases: Sequence[str], convention: str) -> dict[Metric, Average]:
    """Every ratio averaged by one convention.

    Args:
        counts: TP, FP, FN, TN of each slice, as ``count_slices`` makes them; slices of several cases one after another.
        cases: The case of each slice.
        convention: One of ``CONVENTIONS``, or ``paper``.

    Raises:
        InputError: ``counts`` is not n x 4, or ``cases`` does not have n ids.
        ProtocolError: No convention has this name.
    """
    name = resolve_convention(convention)
    return {metric: _average(counts, cases, name, metric) for metric in RATIOS}


def all_conventions(counts: CountTable, cases: Sequence[str]) -> list[Average]:
    """Every ratio by every convention: what a report prints beside each other.

    Args:
        counts: TP, FP, FN, TN of each slice.
        cases: The case of each slice.
    """
    return [mean for convention in CONVENTIONS for mean in average(counts, cases, convention).values()]


def background_baseline(counts: CountTable) -> CountTable:
    """The counts that predicting nothing at all would have: what an accuracy must be read beside.

    Some 99 % of a chest CT slice is no lesion, so this baseline's accuracy is about .992 on the source paper's cohorts, against
    the .995 to .997 of its models. Averaged like any counts: ``average(background_baseline(counts), cases, convention)``.
    """
    require_table(counts)
    tp, fp, fn, tn = counts.T
    zero = np.zeros_like(tp)
    return np.stack([zero, zero, tp + fn, fp + tn], axis=1)


def score(counts: CountTable, convention: str, metric: Metric) -> Float64[np.ndarray, " n"]:
    """The ratio of each row with the convention's values for 0 / 0; NaN marks what its mean leaves out.

    The rows are taken as they are: slices for a convention by slice, sums of cases for ``per_case``.

    Raises:
        ProtocolError: No convention has this name.
    """
    rule = _RULES[resolve_convention(convention)]
    values = RATIOS[metric](counts)
    empty = counts[:, :3].sum(axis=1) == 0
    values = np.where(np.isnan(values), np.where(empty, rule.both_empty, rule.undefined), values)
    return np.where(_considered(counts, rule), values, np.nan)


def _average(counts: CountTable, cases: Sequence[str], convention: Convention, metric: Metric) -> Average:
    require_table(counts, cases)
    rule = _RULES[convention]
    rows = _rows(counts, cases, rule.level)
    values = score(rows, convention, metric)
    undefined = np.isnan(RATIOS[metric](rows)) & _considered(rows, rule)
    used = ~np.isnan(values)
    n = int(np.count_nonzero(counts.sum(axis=1))) if rule.level == "pooled" else int(np.count_nonzero(used))
    value = float(values[used].mean()) if used.any() else float("nan")
    return Average(convention, metric, value, n, int(np.count_nonzero(undefined)))


def _rows(counts: CountTable, cases: Sequence[str], level: Level) -> CountTable:
    """The counts to take ratios of: a row per slice, per case, or one."""
    if level == "slice":
        return counts
    return sum_by(counts, cases)[1] if level == "case" else counts.sum(axis=0, keepdims=True)


def _considered(rows: CountTable, rule: _Rule) -> Bool[np.ndarray, " n"]:
    """The rows a convention looks at: with voxels, and with lesion in the reference where it asks for that."""
    has_lesion = rows[:, 0] + rows[:, 2] > 0
    has_voxels: np.ndarray = rows.sum(axis=1) > 0
    return has_voxels & has_lesion if rule.lesion_only else has_voxels
