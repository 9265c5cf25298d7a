"""The outcome as tables: a row per arm, seed, region and convention, with intervals and the background baseline.

Every row names its convention, and what is undefined stays NaN here and becomes an empty field in CSV, null in JSON.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from lungshift.measure.conventions import CONVENTIONS, Average, Convention, average, background_baseline, level_of
from lungshift.measure.interval import Interval, paired_interval, patient_interval
from lungshift.measure.overlap import CountTable, Metric
from lungshift.show.paper import PaperRow, paper_row
from lungshift.transfer.outcome import Outcome, Run, Scores

Region = Literal["whole_slice", "in_lung", "native"]
"""Where voxels were counted."""

REGIONS: Final[dict[Region, str]] = {
    "whole_slice": "the whole prepared slice",
    "in_lung": "inside the lung mask only",
    "native": "the whole slice on the scan's own pixels",
}
"""The regions in words."""

METRICS: Final[tuple[Metric, ...]] = ("accuracy", "precision", "recall", "dice", "iou")
"""Ratios in the order of the paper's table."""

COLUMN: Final[dict[Metric, str]] = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "dice": "f1",
    "iou": "iou",
}
"""A ratio's name in files; F1 is the paper's name for Dice."""

PAPER_CONVENTIONS: Final[tuple[Convention, ...]] = ("lesion_slices", "empty_is_one")
"""The two ways of averaging that the paper's arithmetic leaves open."""

SHOWN: Final[tuple[Convention, ...]] = (*PAPER_CONVENTIONS, "per_case", "pooled")
"""Conventions that pages show; the files have all."""

_ARMS: Final = {
    ("source", "source"): "Source test",
    ("zero_shot", "target"): "Target, without retraining",
    ("fine_tuned", "target"): "Target, retrained",
    ("fine_tuned", "source"): "Source again, after retraining",
}


@dataclass(frozen=True)
class Cell:
    """A ratio with its 95 % interval over patients; NaN is undefined.

    Attributes:
        value: Between 0 and 1.
        low, high: Ends of the interval; NaN with fewer than two patients.
        n: Slices or cases in the mean, or slices pooled.
        n_undefined: How many of them were 0 / 0.
    """

    value: float
    low: float
    high: float
    n: int
    n_undefined: int


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table: an arm tested on a cohort, at one seed or as the mean over several.

    Attributes:
        seeds: The seed, or those that ``cells`` are the mean of.
        slices, lesion_slices: Tested slices, and those of them with lesion, per seed.
        cases, patients: How many were tested, over all seeds.
        baseline: Accuracy of predicting nothing at all, by the same convention.
        paper: The paper's row where the cohorts, the region and the convention are the paper's.
    """

    arm: str
    role: str
    tested_on: str
    budget: str
    seeds: tuple[int, ...]
    region: Region
    convention: Convention
    slices: tuple[int, ...]
    lesion_slices: tuple[int, ...]
    cases: int
    patients: int
    cells: dict[Metric, Cell]
    baseline: float
    leaky: bool
    paper: PaperRow | None = None

    @property
    def label(self) -> str:
        """The row in words, without seed and convention."""
        words = _ARMS.get((self.arm, self.role), f"{self.arm.replace('_', ' ').capitalize()}, {self.role}")
        return f"{words} ({self.budget})" if self.arm == "fine_tuned" and self.budget else words

    @property
    def is_mean(self) -> bool:
        """Whether the row is the mean over several seeds."""
        return len(self.seeds) > 1

    def difference(self, metric: Metric) -> float:
        """Ours minus the paper's; NaN where there is nothing to compare."""
        theirs = self.paper.ratios.get(metric, math.nan) if self.paper else math.nan
        return self.cells[metric].value - theirs


@dataclass(frozen=True, eq=False)
class _Tested:
    """What one or more seeds of an arm counted in a region; cases of several seeds are kept apart, patients are not."""

    runs: tuple[Run, ...]
    tables: tuple[CountTable, ...]

    @property
    def counts(self) -> CountTable:
        return np.concatenate(self.tables)

    @property
    def cases(self) -> list[str]:
        if len(self.runs) == 1:
            return _names(self.runs[0].scores.cases)
        return [f"{case} seed {run.seed}" for run in self.runs for case in run.scores.cases]

    @property
    def patients(self) -> list[str]:
        return [str(patient) for run in self.runs for patient in run.scores.patients]


def build_table(outcome: Outcome) -> tuple[Row, ...]:
    """Every arm, seed, region and convention as a row; where an arm has several seeds, their mean comes first.

    The interval of a mean over seeds resamples patients, each with all seeds in which it was tested.
    """
    return tuple(
        _row(outcome, runs, region, convention)
        for arm in group_runs(outcome.runs)
        for runs in ([arm] if len(arm) > 1 else []) + [(run,) for run in arm]
        for region in REGIONS
        if all(_counts(run.scores, region) is not None for run in runs)
        for convention in CONVENTIONS
    )


def summary_rows(table: Sequence[Row], convention: str, region: Region = "whole_slice") -> list[Row]:
    """The rows to show first: the mean over the seeds of each arm, or its only seed."""
    rows = [row for row in table if row.convention == convention and row.region == region]
    averaged = {_key(row) for row in rows if row.is_mean}
    return [row for row in rows if row.is_mean or _key(row) not in averaged]


def seed_rows(table: Sequence[Row]) -> list[Row]:
    """Each seed of the arms that have several, for the whole slice and the conventions that pages show."""
    averaged = {_key(row) for row in table if row.is_mean}
    return [
        row
        for row in table
        if _key(row) in averaged and not row.is_mean and row.region == "whole_slice" and row.convention in SHOWN
    ]


def group_runs(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """Runs that differ in their seed only, together; in the order of the paper's table."""
    groups: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    order = list(_ARMS)
    place = {key: order.index(key[:2]) if key[:2] in order else len(order) for key in groups}
    return [tuple(groups[key]) for key in sorted(groups, key=place.__getitem__)]


def gain(outcome: Outcome, convention: Convention = "lesion_slices", metric: Metric = "dice") -> Interval | None:
    """How much higher the retrained arm is than the untrained on the target, as a paired interval over patients.

    Returns:
        None if there are not both arms, tested on the same slices with the same seeds.
    """
    before, after = arm_on_target(outcome, "zero_shot"), arm_on_target(outcome, "fine_tuned")
    if not before or not after or not _same_slices(before, after):
        return None
    old, new = _tested(before, "whole_slice"), _tested(after, "whole_slice")
    return paired_interval(old.counts, new.counts, old.cases, old.patients, convention, metric)


def arm_on_target(outcome: Outcome, arm: str) -> tuple[Run, ...]:
    """The runs of an arm on the target, a run per seed; at its last budget where there are several."""
    found = [runs for runs in group_runs(outcome.runs) if runs[0].arm == arm and runs[0].role == "target"]
    return found[-1] if found else ()


def records(table: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows as flat dictionaries with the same keys: what CSV and JSON hold."""
    return [_record(row) for row in table]


def to_csv(table: Sequence[Row]) -> str:
    """``records`` as CSV: six decimals, undefined is empty."""
    return write_csv(_record(row) for row in table)


def counts_csv(outcome: Outcome) -> str:
    """TP, FP, FN, TN of each run and slice: from these every other number can be computed again."""
    return write_csv(record for run in outcome.runs for record in _count_records(run))


def write_csv(rows: Iterable[dict[str, Any]]) -> str:
    """Dictionaries with the same keys as CSV with a header; empty text if there are none."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(first), lineterminator="\n")
    writer.writeheader()
    for row in (first, *rows):
        writer.writerow({key: exact(value) if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def exact(value: float) -> str:
    """Six decimals, as in the files and behind each number of the page; empty if undefined."""
    return "" if math.isnan(value) else f"{value:.6f}"


def number(value: float, digits: int = 3) -> str:
    """A ratio for reading: three decimals, or ``undefined``."""
    return "undefined" if math.isnan(value) else f"{value:.{digits}f}"


def span(cell: Cell | Interval, digits: int = 3, join: str = "–") -> str:
    """The interval for reading, ``0.521–0.702``, or ``no interval`` where patients are too few for one."""
    if math.isnan(cell.low) or math.isnan(cell.high):
        return "no interval"
    return f"{number(cell.low, digits)}{join}{number(cell.high, digits)}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign: ``+0.012``, ``−0.034``."""
    return "undefined" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def whole(values: Sequence[int]) -> str:
    """A count per seed: ``214``, or ``210–218`` where seeds differ."""
    return str(values[0]) if min(values) == max(values) else f"{min(values)}–{max(values)}"


def _row(outcome: Outcome, runs: tuple[Run, ...], region: Region, convention: Convention) -> Row:
    tested, first = _tested(runs, region), runs[0]
    comparable = region == "whole_slice" and convention in PAPER_CONVENTIONS
    return Row(
        arm=first.arm,
        role=first.role,
        tested_on=first.tested_on,
        budget=first.budget,
        seeds=tuple(run.seed for run in runs),
        region=region,
        convention=convention,
        slices=tuple(len(table) for table in tested.tables),
        lesion_slices=tuple(int(np.count_nonzero(table[:, 0] + table[:, 2])) for table in tested.tables),
        cases=len({str(case) for run in runs for case in run.scores.cases}),
        patients=len(set(tested.patients)),
        cells=_cells(tested, convention),
        baseline=_baseline(tested, convention),
        leaky=outcome.leaky,
        paper=paper_row(outcome, first.arm, first.role) if comparable else None,
    )


def _cells(tested: _Tested, convention: Convention) -> dict[Metric, Cell]:
    means = [average(table, _names(run.scores.cases), convention) for run, table in _pairs(tested)]
    counts, cases, patients = tested.counts, tested.cases, tested.patients
    return {
        metric: _cell([mean[metric] for mean in means], patient_interval(counts, cases, patients, convention, metric))
        for metric in METRICS
    }


def _cell(means: Sequence[Average], interval: Interval) -> Cell:
    # A seed without a value leaves the mean undefined: it must not drop out of it unseen.
    value = sum(mean.value for mean in means) / len(means)
    return Cell(value, interval.low, interval.high, sum(m.n for m in means), sum(m.n_undefined for m in means))


def _baseline(tested: _Tested, convention: Convention) -> float:
    values = [
        average(background_baseline(table), _names(run.scores.cases), convention)["accuracy"].value
        for run, table in _pairs(tested)
    ]
    return sum(values) / len(values)


def _pairs(tested: _Tested) -> Iterator[tuple[Run, CountTable]]:
    return zip(tested.runs, tested.tables, strict=True)


def _tested(runs: tuple[Run, ...], region: Region) -> _Tested:
    tables = tuple(table for run in runs if (table := _counts(run.scores, region)) is not None)
    return _Tested(runs, tables)


def _counts(scores: Scores, region: Region) -> CountTable | None:
    return {"whole_slice": scores.counts, "in_lung": scores.in_lung, "native": scores.native}[region]


def _same_slices(before: tuple[Run, ...], after: tuple[Run, ...]) -> bool:
    def places(runs: tuple[Run, ...]) -> list[tuple[int, str, int]]:
        return [
            (run.seed, str(case), int(index))
            for run in runs
            for case, index in zip(run.scores.cases, run.scores.slices, strict=True)
        ]

    return places(before) == places(after)


def _key(item: Run | Row) -> tuple[str, str, str, str]:
    return item.arm, item.role, item.tested_on, item.budget


def _names(labels: Iterable[object]) -> list[str]:
    return [str(label) for label in labels]


def _spaced(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _record(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {
        "arm": row.arm,
        "role": row.role,
        "tested_on": row.tested_on,
        "budget": row.budget,
        "seed": "mean" if row.is_mean else row.seeds[0],
        "seeds": _spaced(row.seeds),
        "region": row.region,
        "convention": row.convention,
        "level": level_of(row.convention),
        "slices": _spaced(row.slices),
        "lesion_slices": _spaced(row.lesion_slices),
        "cases": row.cases,
        "patients": row.patients,
        "leaky_split": row.leaky,
    }
    for metric, cell in row.cells.items():
        name = COLUMN[metric]
        record |= {name: cell.value, f"{name}_low": cell.low, f"{name}_high": cell.high}
        record |= {f"{name}_n": cell.n, f"{name}_undefined": cell.n_undefined}
    record["background_accuracy"] = row.baseline
    for metric in METRICS[:4]:
        record[f"paper_{COLUMN[metric]}"] = row.paper.ratios[metric] if row.paper else math.nan
        record[f"difference_{COLUMN[metric]}"] = row.difference(metric)
    record["paper_slices"] = row.paper.slices if row.paper else math.nan
    return record


def _count_records(run: Run) -> Iterator[dict[str, Any]]:
    scores = run.scores
    for index in range(len(scores.slices)):
        record: dict[str, Any] = {"arm": run.arm, "tested_on": run.tested_on, "budget": run.budget, "seed": run.seed}
        record |= {"case": scores.cases[index], "patient": scores.patients[index], "slice": int(scores.slices[index])}
        for region in REGIONS:
            table = _counts(scores, region)
            for column, name in enumerate(("tp", "fp", "fn", "tn")):
                record[f"{region}_{name}"] = "" if table is None else int(table[index, column])
        yield record
