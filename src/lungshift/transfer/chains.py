"""What a chain of cohorts keeps and what it brings: backward and forward transfer (Lopez-Paz and Ranzato, NeurIPS 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lungshift.measure.conventions import average
from lungshift.measure.overlap import Metric
from lungshift.transfer.outcome import Outcome, Run


@dataclass(frozen=True)
class ChainTransfer:
    """A chain in two numbers for each cohort; NaN where there is none.

    Attributes:
        cohorts: In the order in which they were trained on.
        when_learned: Score on each cohort right after it was trained on.
        backward: Score on each after the whole chain, less ``when_learned``: below 0 it was forgotten. NaN for the last.
        forward: Score on each just before it was trained on, less that of the chain's first network: what the cohorts between
            brought. NaN for the first two.
    """

    cohorts: tuple[str, ...]
    when_learned: tuple[float, ...]
    backward: tuple[float, ...]
    forward: tuple[float, ...]

    @property
    def mean_backward(self) -> float:
        """The mean over all cohorts but the last."""
        return float(np.mean(self.backward[:-1]))

    @property
    def mean_forward(self) -> float:
        """The mean over all cohorts but the first two; NaN for a chain of two."""
        return float(np.mean(self.forward[2:])) if len(self.forward) > 2 else math.nan


def chain_transfer(outcome: Outcome, convention: str = "lesion_slices", metric: Metric = "dice") -> ChainTransfer:
    """Backward and forward transfer of a chain, pooled over seeds."""
    names = tuple(cohort.name for cohort in outcome.cohorts)
    n = len(names)
    table = [
        [_score(outcome.runs, names[: stage + 1], name, convention, metric) for name in names] for stage in range(n)
    ]
    return ChainTransfer(
        cohorts=names,
        when_learned=tuple(table[k][k] for k in range(n)),
        backward=tuple(table[-1][k] - table[k][k] if k < n - 1 else math.nan for k in range(n)),
        forward=tuple(table[k - 1][k] - table[0][k] if k > 1 else math.nan for k in range(n)),
    )


def _score(runs: Sequence[Run], seen: tuple[str, ...], tested: str, convention: str, metric: Metric) -> float:
    mine = [run for run in runs if run.arm == "chain" and run.trained_on == seen and run.tested_on == tested]
    counts = np.concatenate([run.scores.counts for run in mine])
    cases = [f"{case} seed {run.seed}" for run in mine for case in run.scores.cases]
    return average(counts, cases, convention)[metric].value
