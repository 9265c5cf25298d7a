"""Runs that belong together, over seeds and folds, as one table of counts: what rows, curves and sentences are made of.

A value and its interval come of the same sums: the counts of every seed and fold are put in one table, each scan once for
each model that was tested on it, and patients and seeds are what varies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np

from lungshift.measure.conventions import Convention
from lungshift.measure.interval import Estimate, estimate_difference
from lungshift.measure.overlap import CountTable, Metric
from lungshift.transfer.arms import ARMS
from lungshift.transfer.outcome import Outcome, Run, Scores

Region = Literal["whole_slice", "in_lung", "native"]
"""Where voxels were counted."""

Key = tuple[str, str, str, int, tuple[str, ...]]
"""What runs of one group share: arm, role, tested cohort, labels, and the cohorts that were trained on."""

_FIRST: Final = ("source", "chain", "at_home", "leave_one_out", "split_by_slice", "split_by_case", "split_by_patient")
_ORDER: Final = {name: place for place, name in enumerate((*_FIRST, *ARMS))}


@dataclass(frozen=True, eq=False)
class Pooled:
    """The counts of runs in one region; scans of different models are kept apart, patients are not."""

    runs: tuple[Run, ...]
    region: Region = "whole_slice"

    @cached_property
    def tables(self) -> tuple[CountTable, ...]:
        """The counts of each run, without those that were not counted in the region."""
        return tuple(table for run in self.runs if (table := counts_of(run.scores, self.region)) is not None)

    @cached_property
    def counts(self) -> CountTable:
        """All counts, run after run."""
        return np.concatenate(self.tables)

    @cached_property
    def cases(self) -> list[str]:
        """The case of each slice, told apart by seed and fold."""
        return [f"{case} {run.seed}.{run.fold}" for run in self.runs for case in run.scores.cases]

    @cached_property
    def patients(self) -> list[str]:
        """The patient of each slice."""
        return [str(patient) for run in self.runs for patient in run.scores.patients]

    @cached_property
    def seeds(self) -> list[int]:
        """The seed of each slice."""
        return [run.seed for run in self.runs for _ in run.scores.patients]

    @cached_property
    def places(self) -> list[tuple[str, int]]:
        """Case, seed and fold, and slice of each row: the same places can be compared."""
        slices = [int(index) for run in self.runs for index in run.scores.slices]
        return list(zip(self.cases, slices, strict=True))

    @cached_property
    def slices(self) -> tuple[int, ...]:
        """How many slices each seed tested, each once however many folds tested it."""
        return self._per_seed([np.ones(len(table), dtype=bool) for table in self.tables])

    @cached_property
    def lesion_slices(self) -> tuple[int, ...]:
        """How many of them have lesion."""
        return self._per_seed([table[:, 0] + table[:, 2] > 0 for table in self.tables])

    def _per_seed(self, chosen: Sequence[np.ndarray]) -> tuple[int, ...]:
        found: dict[int, set[tuple[str, int]]] = {run.seed: set() for run in self.runs}
        for run, rows in zip(self.runs, chosen, strict=True):
            cases, slices = run.scores.cases[rows].tolist(), run.scores.slices[rows].tolist()
            found[run.seed].update(zip(cases, slices, strict=True))
        return tuple(len(places) for places in found.values())


def counts_of(scores: Scores, region: Region) -> CountTable | None:
    """The counts in a region; None where they were not asked for."""
    return {"whole_slice": scores.counts, "in_lung": scores.in_lung, "native": scores.native}[region]


def key_of(run: Run) -> Key:
    """What a run shares with those of other seeds and folds."""
    return run.arm, run.role, run.tested_on, run.labels, run.trained_on


def group_runs(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """Runs that differ in seed and fold only, together: at home first, then abroad by arm and budget, then home again."""
    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(key_of(run), []).append(run)
    ordered = sorted(groups, key=_place)
    return [tuple(sorted(groups[key], key=lambda run: (run.seed, run.fold))) for key in ordered]


def arm_runs(outcome: Outcome, arm: str, labels: int | None = None, role: str = "target") -> tuple[Run, ...]:
    """The runs of an arm, over seeds and folds; at its largest budget if none is named, empty if there are none."""
    groups = [runs for runs in group_runs(outcome.runs) if (runs[0].arm, runs[0].role) == (arm, role)]
    found = [runs for runs in groups if labels in (None, runs[0].labels)]
    return found[-1] if found else ()


def budgets_of(outcome: Outcome, arm: str) -> list[int]:
    """The budgets at which an arm was tested on the target, rising."""
    return sorted({run.labels for run in outcome.runs if run.arm == arm and run.role == "target"})


def shared_by_seeds(outcome: Outcome) -> dict[str, int]:
    """For each cohort, the fewest patients with lesion whom every seed of an arm tested."""
    tested: dict[tuple, dict[int, set[str]]] = {}
    for run in outcome.runs:
        with_lesion = run.scores.counts[:, [0, 2]].any(axis=1)
        seeds = tested.setdefault((run.tested_on, run.arm, run.labels, run.trained_on), {})
        seeds.setdefault(run.seed, set()).update(run.scores.patients[with_lesion].tolist())
    fewest: dict[str, int] = {}
    for (cohort, *_), seeds in tested.items():
        shared = len(set.intersection(*seeds.values()))
        fewest[cohort] = min(shared, fewest.get(cohort, shared))
    return fewest


def gain(
    before: Sequence[Run], after: Sequence[Run], convention: Convention = "lesion_slices", metric: Metric = "dice"
) -> Estimate | None:
    """How much higher an average is after than before, on the same slices of the same seeds and folds.

    Returns:
        None if one of them is empty or they were tested on different slices.
    """
    old, new = Pooled(tuple(before)), Pooled(tuple(after))
    if not before or old.places != new.places:
        return None
    return estimate_difference(old.counts, new.counts, old.cases, old.patients, convention, metric, seeds=old.seeds)


def _place(key: Key) -> tuple[bool, bool, int, int, int]:
    """At home, abroad without labels, abroad with them by arm and budget, home again; chains by their length."""
    arm, role, _, labels, trained_on = key
    return role == "source" and arm in ARMS, labels > 0, _ORDER.get(arm, len(_ORDER)), labels, len(trained_on)
