"""Scores of one checkpoint on one cohort, as files and as words for the terminal."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

from lungshift.files import write_json, write_text
from lungshift.learn.checkpoint import Checkpoint
from lungshift.learn.settings import Target
from lungshift.measure.conventions import CONVENTIONS, average, background_baseline
from lungshift.measure.interval import estimate
from lungshift.measure.overlap import Metric
from lungshift.show.tables import number, write_csv
from lungshift.transfer.outcome import Scores, SplitSummary

_METRICS: tuple[Metric, ...] = ("accuracy", "precision", "recall", "dice", "iou")


def write_scores(
    scores: Scores,
    checkpoint: Checkpoint,
    cohort: str,
    folder: Path,
    *,
    split: SplitSummary | None = None,
    known: tuple[str, ...] = (),
) -> str:
    """Write ``scores.csv``, ``scores.json`` and ``counts.csv``; return the table for the terminal.

    Args:
        scores: Counts of the tested slices.
        checkpoint: What predicted them.
        cohort: Name of the cohort.
        folder: Where the files go.
        split: How the cohort was divided, if it was.
        known: Cases that the checkpoint knew from its training.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    rows = [record for convention in CONVENTIONS for record in _records(scores, convention)]
    leak = _leak_words(split, known)
    write_text(folder / "scores.csv", write_csv(rows))
    write_text(folder / "counts.csv", write_csv(_count_rows(scores)))
    text = {
        "cohort": cohort,
        "leaky": bool(leak),
        "known_cases": known,
        "split": asdict(split) if split else None,
        "checkpoint": checkpoint.describe(),
        "averages": rows,
    }
    write_json(folder / "scores.json", text)
    target = checkpoint.network.target
    return _table(rows, cohort, scores, leak, target) + f"\nFiles in {folder}"


def _records(scores: Scores, convention: str) -> list[dict[str, object]]:
    """A record for each metric of one convention, with its interval and what predicting nothing would score."""
    cases, patients = scores.cases.tolist(), scores.patients.tolist()
    ours = average(scores.counts, cases, convention)
    nothing = average(background_baseline(scores.counts), cases, convention)
    estimates = {metric: estimate(scores.counts, cases, patients, convention, metric) for metric in _METRICS}
    return [
        {
            "convention": convention,
            "metric": metric,
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "n": ours[metric].n,
            "undefined": ours[metric].n_undefined,
            "patients": found.n_patients,
            "predicting_nothing": nothing[metric].value,
        }
        for metric, found in estimates.items()
    ]


def _count_rows(scores: Scores) -> list[dict[str, object]]:
    names = ("tp", "fp", "fn", "tn")
    return [
        {"case": str(case), "patient": str(patient), "slice": int(index)}
        | dict(zip(names, counts.tolist(), strict=True))
        for case, patient, index, counts in zip(
            scores.cases, scores.patients, scores.slices, scores.counts, strict=True
        )
    ]


def _leak_words(split: SplitSummary | None, known: tuple[str, ...]) -> str:
    if known:
        return (
            f"WARNING: the checkpoint was trained on, or chosen by, {', '.join(known[:5])}; these numbers are too good."
        )
    if split and split.leaky:
        return "WARNING: split by slice; slices of the same patients were trained on, so these numbers are too good."
    return ""


def _table(rows: list[dict], cohort: str, scores: Scores, leak: str, target: Target) -> str:
    patients = len(set(scores.patients.tolist()))
    lines = [f"{cohort}: {len(scores.cases)} slices of {patients} patients. Research use only."]
    if target != "lesion":
        lines.append(f"The target is {target}: where a convention says lesion, read {target}.")
    if leak:
        lines.append(leak)
    lines.append(
        "  ".join(["Dice (F1) by convention".ljust(24), "value", "95 % interval".ljust(15), "slices or cases"])
    )
    for row in rows:
        if row["metric"] == "dice":
            known = not math.isnan(row["low"])
            span = f"{number(row['low'])}–{number(row['high'])}" if known else "one patient: none"
            lines.append("  ".join([row["convention"].ljust(24), number(row["value"]), span.ljust(15), str(row["n"])]))
    return "\n".join(lines)
