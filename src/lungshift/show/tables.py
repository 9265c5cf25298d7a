"""The outcome as tables: a row per arm, budget, region and convention, with intervals and the background baseline.

Every row names its convention, and what is undefined stays NaN here and becomes an empty field in CSV, null in JSON.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

from lungshift.measure.conventions import CONVENTIONS, Average, Convention, average, background_baseline, level_of
from lungshift.measure.interval import estimate
from lungshift.measure.overlap import Metric
from lungshift.show.paper import PaperRow, paper_row
from lungshift.show.pooled import Key, Pooled, Region, counts_of, group_runs
from lungshift.transfer.arms import ARMS
from lungshift.transfer.outcome import Outcome, Run

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


_DONE: Final = {
    "source": "Source test",
    "chain": "After {seen}, on {tested}",
    "at_home": "Trained on {tested} itself",
    "leave_one_out": "Trained on all others, on {tested}",
}


class Spanned(Protocol):
    """Anything with the two ends of a 95 % interval."""

    @property
    def low(self) -> float:
        """Lower end; NaN where there is none."""

    @property
    def high(self) -> float:
        """Upper end; NaN where there is none."""


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
    """One line of the table: an arm at one budget tested on a cohort, at one seed or over several, its folds together.

    Attributes:
        seeds: The seed, or those that ``cells`` are over.
        labels: The budget as a number.
        trained_on: Names of the cohorts that were trained on, in order.
        slices, lesion_slices: Tested slices, and those of them with lesion, per seed.
        cases, patients: How many were tested, over all seeds and folds.
        baseline: Accuracy of predicting nothing at all, by the same convention.
        paper: The paper's row where the cohorts, the region and the convention are the paper's.
        folds: Into how many groups the tested patients were divided.
    """

    arm: str
    role: str
    tested_on: str
    labels: int
    trained_on: tuple[str, ...]
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
    folds: int = 1

    @property
    def key(self) -> Key:
        """What the row shares with those of other seeds, regions and conventions."""
        return self.arm, self.role, self.tested_on, self.labels, self.trained_on

    @property
    def label(self) -> str:
        """The row in words, without seed and convention."""
        return f"{self.name} ({self.budget})" if self.labels and self.budget else self.name

    @property
    def name(self) -> str:
        """What was done and where it was tested, in words, without the budget."""
        if self.arm in ARMS:
            return f"{'Source again' if self.role == 'source' else 'Target'}, {ARMS[self.arm].words}"
        return _DONE.get(self.arm, self.arm.replace("_", " ").capitalize()).format(
            seen=", then ".join(self.trained_on), tested=self.tested_on
        )

    @property
    def done(self) -> str:
        """What was done, under a heading that says where it was tested."""
        words = self.name.removeprefix("Source again, ").removeprefix("Target, ").removesuffix(f", on {self.tested_on}")
        return words[:1].upper() + words[1:]

    @property
    def is_pooled(self) -> bool:
        """Whether the row is over several seeds."""
        return len(self.seeds) > 1

    def difference(self, metric: Metric) -> float:
        """Ours minus the paper's; NaN where there is nothing to compare."""
        theirs = self.paper.ratios.get(metric, math.nan) if self.paper else math.nan
        return self.cells[metric].value - theirs


def build_table(outcome: Outcome) -> tuple[Row, ...]:
    """Every arm, budget, seed, region and convention as a row; where an arm has several seeds, all of them together come first."""
    return _table(outcome, outcome.runs)


def leak_table(outcome: Outcome) -> tuple[Row, ...]:
    """The same for the price of leakage: one network under splits by slice, case and patient, tested on the same slices."""
    return _table(outcome, outcome.leak)


def summary_rows(table: Sequence[Row], convention: str, region: Region = "whole_slice") -> list[Row]:
    """The rows to show first: each arm and budget over all its seeds."""
    rows = [row for row in table if row.convention == convention and row.region == region]
    pooled = {row.key for row in rows if row.is_pooled}
    return [row for row in rows if row.is_pooled or row.key not in pooled]


def by_seed(table: Sequence[Row], convention: str) -> tuple[tuple[int, ...], list[tuple[Row, list[Cell | None]]]]:
    """F1 of each seed beside that of all, for the whole slice: the seeds, and a line for each arm that has several."""
    rows = [row for row in table if row.convention == convention and row.region == "whole_slice"]
    pooled = [row for row in rows if row.is_pooled]
    found = {(row.key, row.seeds[0]): row.cells["dice"] for row in rows if not row.is_pooled}
    seeds = tuple(dict.fromkeys(seed for row in pooled for seed in row.seeds))
    return seeds, [(row, [found.get((row.key, seed)) for seed in seeds]) for row in pooled]


def records(table: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows as flat dictionaries with the same keys: what CSV and JSON hold."""
    return [_record(row) for row in table]


def to_csv(table: Sequence[Row]) -> str:
    """``records`` as CSV: six decimals, undefined is empty."""
    return write_csv(_record(row) for row in table)


def counts_csv(outcome: Outcome) -> str:
    """TP, FP, FN, TN of each run and slice: from these every other number can be computed again."""
    return write_csv(record for run in (*outcome.runs, *outcome.leak) for record in _count_records(run))


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


def span(cell: Spanned, digits: int = 3, join: str = "–") -> str:
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


def _table(outcome: Outcome, runs: Iterable[Run]) -> tuple[Row, ...]:
    return tuple(
        _row(outcome, pooled, convention)
        for group in group_runs(runs)
        for part in _parts(group)
        for region in REGIONS
        if len((pooled := Pooled(part, region)).tables) == len(part)
        for convention in CONVENTIONS
    )


def _parts(group: tuple[Run, ...]) -> list[tuple[Run, ...]]:
    """All runs of a group, then those of each seed where there are several."""
    seeds = [tuple(runs) for _, runs in groupby(group, key=lambda run: run.seed)]
    return [group, *seeds] if len(seeds) > 1 else [group]


def _row(outcome: Outcome, pooled: Pooled, convention: Convention) -> Row:
    first = pooled.runs[0]
    comparable = pooled.region == "whole_slice" and convention in PAPER_CONVENTIONS
    baseline = average(background_baseline(pooled.counts), pooled.cases, convention)["accuracy"]
    return Row(
        arm=first.arm,
        role=first.role,
        tested_on=first.tested_on,
        labels=first.labels,
        trained_on=first.trained_on,
        budget=first.budget,
        seeds=tuple(dict.fromkeys(run.seed for run in pooled.runs)),
        region=pooled.region,
        convention=convention,
        slices=pooled.slices,
        lesion_slices=pooled.lesion_slices,
        cases=len({str(case) for run in pooled.runs for case in run.scores.cases}),
        patients=len(set(pooled.patients)),
        cells=_cells(pooled, convention),
        baseline=baseline.value,
        leaky=outcome.leaky or _leaks(outcome, first.arm),
        paper=paper_row(outcome, first.arm, first.role) if comparable and _is_last(outcome, first) else None,
        folds=len({run.fold for run in pooled.runs}),
    )


def _cells(pooled: Pooled, convention: Convention) -> dict[Metric, Cell]:
    means = average(pooled.counts, pooled.cases, convention)
    return {metric: _cell(pooled, means[metric]) for metric in METRICS}


def _cell(pooled: Pooled, mean: Average) -> Cell:
    found = estimate(pooled.counts, pooled.cases, pooled.patients, mean.convention, mean.metric, seeds=pooled.seeds)
    return Cell(found.value, found.low, found.high, mean.n, mean.n_undefined)


def _leaks(outcome: Outcome, arm: str) -> bool:
    """Whether a split of the price of leakage lets a patient stand on both sides."""
    return arm == "split_by_slice" or (arm == "split_by_case" and outcome.source.patients < outcome.source.cases)


def _is_last(outcome: Outcome, run: Run) -> bool:
    """Whether a run is at its arm's largest budget: the paper has one budget only."""
    return run.labels == max((other.labels for other in outcome.runs if other.arm == run.arm), default=0)


def _spaced(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _record(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {
        "arm": row.arm,
        "role": row.role,
        "trained_on": " + ".join(row.trained_on),
        "tested_on": row.tested_on,
        "labels": row.labels,
        "budget": row.budget,
        "seed": "all" if row.is_pooled else row.seeds[0],
        "seeds": _spaced(row.seeds),
        "folds": row.folds,
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
    names = ("arm", "role", "tested_on", "labels", "seed", "fold")
    who: dict[str, Any] = {name: getattr(run, name) for name in names} | {"trained_on": " + ".join(run.trained_on)}
    for index in range(len(scores.slices)):
        record = who | {"case": scores.cases[index], "patient": scores.patients[index]}
        record |= {"slice": int(scores.slices[index])}
        for region in REGIONS:
            table = counts_of(scores, region)
            for column, name in enumerate(("tp", "fp", "fn", "tn")):
                record[f"{region}_{name}"] = "" if table is None else int(table[index, column])
        yield record
