"""Sentences made of numbers: the question, the answer, the conventions, the methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from lungshift.learn.settings import TrainingSettings
from lungshift.measure.conventions import Convention
from lungshift.show.tables import Row, arm_on_target, gain, number, signed, span, summary_rows, whole
from lungshift.transfer.outcome import Outcome

RESEARCH_ONLY: Final = "Research use only"
"""Stands on everything that people read."""

LEAK_WARNING: Final = "Split by slice: slices of the same patient were trained on; these numbers are too good."
"""Stands wherever numbers of a leaky split are shown."""

LEAK_INTERVALS: Final = "The intervals say how patients differ; they do not cover the leak."
"""Stands beside the intervals of a leaky split."""

CONVENTION_WORDS: Final[dict[Convention, str]] = {
    "lesion_slices": "Each slice whose reference has lesion gets its ratio, and these are averaged. What is predicted on "
    "slices without lesion does not count, so false alarms there cost nothing. A slice where nothing was predicted has "
    "precision 0. One of the two readings that the paper's numbers allow, and what “paper” means here.",
    "empty_is_one": "Each slice gets its ratio, and all are averaged. A slice where neither reference nor prediction has "
    "lesion counts as 1, one with a false alarm only as 0. The more slices are free of lesion, the higher the mean. The "
    "other reading that the paper's numbers allow.",
    "empty_is_nan": "Each slice gets its ratio; slices where it is 0 / 0 are left out of the mean.",
    "per_case": "All slices of a scan are added up first; each scan gets one ratio in 3-D, and these are averaged. What "
    "most of the field reports.",
    "pooled": "All voxels of all scans are added up, and there is one ratio. Large lesions rule it.",
}
"""What each way of averaging means."""

CONVENTION_SHORT: Final[dict[Convention, str]] = {
    "lesion_slices": "mean over slices with lesion",
    "empty_is_one": "mean over all slices, empty counts as 1",
    "empty_is_nan": "mean over slices where it is defined",
    "per_case": "mean over cases in 3-D",
    "pooled": "all voxels pooled",
}
"""The same in a few words."""


def question(outcome: Outcome) -> str:
    """What the study asks, with its cohorts' names."""
    asked = f"Does a lesion model trained on {outcome.source.name} work on {outcome.target.name}"
    tuned = arm_on_target(outcome, "fine_tuned")
    return f"{asked}, and what does retraining on {tuned[0].budget} repair?" if tuned else f"{asked}?"


def answer(outcome: Outcome, table: Sequence[Row]) -> str:
    """The question answered by the two conventions that the paper's numbers allow, with 95 % intervals."""
    rows = {(row.arm, row.role): row for row in summary_rows(table, "lesion_slices")}
    source, target = outcome.source.name, outcome.target.name
    zero, home = rows.get(("zero_shot", "target")), rows.get(("source", "source"))
    tuned = rows.get(("fine_tuned", "target"))
    parts = []
    if zero:
        at_home = f", and {_score(home)} at home" if home else ""
        parts.append(
            f"the model from {source} reaches {_score(zero, first=True)} without retraining, on {_tested(zero)}{at_home}"
        )
    if tuned:
        where = "" if zero else f", on {_tested(tuned)}"
        parts.append(f"retrained on {tuned.budget}, it reaches {_score(tuned)}{where}{_gain(outcome, zero, tuned)}")
    if not parts:
        return f"Nothing was tested on {target}."
    seeds = max(len(row.seeds) for row in (zero, tuned) if row)
    over = f" and over {seeds} seeds" if seeds > 1 else ""
    first = f"By F1 averaged over slices with lesion (lesion_slices){over}, {'; '.join(parts)}."
    return f"{first}{_false_alarms(outcome, table)}"


def _false_alarms(outcome: Outcome, table: Sequence[Row]) -> str:
    """The same over all slices: a model that marks healthy slices can look well by the first convention alone."""
    rows = {(row.arm, row.role): row for row in summary_rows(table, "empty_is_one")}
    zero, tuned = rows.get(("zero_shot", "target")), rows.get(("fine_tuned", "target"))
    if zero is None or tuned is None:
        return ""
    change = _gain(outcome, zero, tuned, "empty_is_one")
    return f" Over all slices, where false alarms count too (empty_is_one), it goes from {_score(zero)} to {_score(tuned)}{change}."


def comparison_notes(outcome: Outcome) -> list[str]:
    """Why our numbers and the paper's are not of the same slices."""
    notes = [
        "The paper does not say how slices without lesion count, so ours stand beside it under both conventions that "
        "its numbers allow.",
        "The paper scored “no retraining” on all 2156 slices and “retrained” on the 1656 that were left; here both arms "
        "are scored on the same held-out slices.",
    ]
    if not outcome.leaky:
        notes.append(
            "The paper split by slice, so its models had seen neighbours of the tested slices; here whole patients are "
            "held out, and part of the difference is the price of that leak."
        )
    return notes


def methods(outcome: Outcome) -> str:
    """How the numbers were made, as a paragraph of a paper."""
    protocol = outcome.protocol
    prepare, network, decision = protocol.prepare, protocol.network, protocol.decision
    windows = " and ".join(str(window) for window in network.windows)
    rule = {"lung": "with lung", "lung_or_lesion": "with lung or lesion", "all": "of the scans"}[prepare.slices]
    cut = "chosen on validation slices" if decision.choose_on_validation else f"{decision.threshold:g}"
    retraining = [f"Retraining on {outcome.target.name} continued from there: {_training(protocol.fine_tuning)}."]
    return " ".join(
        (
            f"Slices {rule} were resized to {prepare.size} × {prepare.size} (CT {prepare.interpolation}, masks nearest "
            f"neighbour) and windowed to {windows}{_lung_words(outcome)}.",
            f"A U-Net with {network.levels} levels, {network.width} filters at the first and "
            f"{'no' if network.norm == 'none' else network.norm} normalisation was trained on {outcome.source.name}: "
            f"{_training(protocol.training)}.",
            *(retraining if arm_on_target(outcome, "fine_tuned") else ()),
            *(
                f"{cohort.name} came without patient ids: every scan was taken for a patient, so scans of one patient may stand on "
                "both sides, and intervals may be too narrow."
                for cohort in (outcome.source, outcome.target)
                if not cohort.patients_known
            ),
            f"Cohorts were split by {protocol.split.kind}; every arm was scored on the same held-out slices. Pixels "
            f"with a probability from a threshold ({cut}) are lesion{', averaged over mirrored slices' if decision.flips else ''}"
            f"{', inside the lung mask only' if decision.inside_lung else ''}.",
            "True and false positives and negatives were counted per slice and divided last. F1 is Dice, 2PR / (P + R). "
            "Intervals are 95 %, from 2000 draws of patients with replacement, widened to Student's t for few patients; "
            "below about five patients they are a rough guide.",
        )
    )


def plural(count: int, noun: str) -> str:
    """``1 patient``, ``2 patients``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _score(row: Row, *, first: bool = False) -> str:
    cell = row.cells["dice"]
    told = "95 % interval " if first and not math.isnan(cell.low) else ""
    return f"{number(cell.value)} ({told}{span(cell)})"


def _tested(row: Row) -> str:
    return f"{whole(row.slices)} held-out slices from {plural(row.patients, 'patient')} of {row.tested_on}"


def _gain(outcome: Outcome, zero: Row | None, tuned: Row, convention: Convention = "lesion_slices") -> str:
    """What retraining changed, in words that the paired interval allows."""
    paired = gain(outcome, convention) if zero else None
    if zero is None or paired is None:
        return ""
    change = tuned.cells["dice"].value - zero.cells["dice"].value
    if math.isnan(paired.low) or math.isnan(change):
        return f", a change of {signed(change)} with no interval"
    interval = span(paired, join=" to ")
    if paired.low > 0:
        return f", a gain of {number(change)} ({interval})"
    if paired.high < 0:
        return f", a loss of {number(-change)} (change {interval})"
    return f", a change of {signed(change)} ({interval}) that may be chance"


def _lung_words(outcome: Outcome) -> str:
    if not outcome.protocol.network.lung_channel:
        return ""
    sources = sorted({*outcome.source.lung_sources, *outcome.target.lung_sources})
    return f", with the lung mask as a further channel (lung masks from: {', '.join(sources) or 'unknown'})"


def _training(settings: TrainingSettings) -> str:
    stop = (
        f", stopped after {settings.patience} without a better validation {settings.monitor}"
        if settings.patience
        else ""
    )
    return (
        f"at most {plural(settings.epochs, 'epoch')}{stop}, {settings.loss} loss, {settings.optimiser} with a learning rate of "
        f"{settings.learning_rate:g} ({settings.schedule.replace('_', ' ')}), batches of {settings.batch}"
    )
