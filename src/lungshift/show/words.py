"""Words that pages, tables and the terminal share: warnings, conventions, counted nouns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lungshift.measure.conventions import Convention
from lungshift.show.pooled import shared_by_seeds
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


def twins_line(outcome: Outcome) -> str:
    """What the search for scans of one patient found; empty if nobody looked."""
    cases = sum(cohort.cases for cohort in outcome.cohorts)
    if outcome.twins:
        found = plural(len(outcome.twins), "pair")
        kept = (
            "stand on both sides of this split by slice"
            if outcome.leaky
            else "were kept on one side of every split by patient"
        )
        return f"{found} of scans among {plural(cases, 'case')} are of one patient by their content, and {kept}."
    return f"Scans of one patient under two ids: none found among {plural(cases, 'case')}." if _looked(outcome) else ""


def unit(outcome: Outcome) -> str:
    """What a budget is counted in: ``patient`` or ``slice``."""
    return "slice" if outcome.protocol.split.kind == "slice" else "patient"


def plural(count: int, noun: str) -> str:
    """``1 patient``, ``2 patients``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(items: Sequence[object], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    words = [str(item) for item in items]
    return " ".join([", ".join(words[:-1]), last, words[-1]]) if len(words) > 1 else "".join(words)


def _looked(outcome: Outcome) -> bool:
    return bool(outcome.manifest.get("looked_for_twins"))


def over_whom(outcome: Outcome) -> str:
    """What intervals are over: ``patients``, and ``trainings`` too where several seeds tested the same patients of every cohort."""
    counted = len({run.seed for run in outcome.runs}) > 1 and all(n > 1 for n in shared_by_seeds(outcome).values())
    return "patients and trainings" if counted else "patients"
