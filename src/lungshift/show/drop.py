"""Why it dropped, in sentences: what differs, how much of the drop that explains, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from lungshift.show.causes import CAUSE_WORDS
from lungshift.show.tables import number, signed, span
from lungshift.show.words import listed
from lungshift.transfer.outcome import Cause, CauseName, Explanation

_ADVICE: Final[dict[CauseName, str]] = {
    "hu": "Correct the HU calibration: check slope and intercept in the files, or bring lung and soft tissue to the source's "
    "values before predicting",
    "sharpness": "Reconstruct with a kernel like the source's, or filter the scans to its sharpness before predicting; or train the "
    "source model again with random sharpness and noise",
    "pixel_size": "Resample the scans before predicting, so that the chest is as large in the picture as at home",
    "slice_thickness": "Average thin slices to the source's thickness before predicting, or ask for thinner slices where they are "
    "thicker",
    "orientation": "Turn the scans before predicting, and mend what their files say of their orientation",
    "lung_mask": "Replace the lung masks: make them by threshold, or as the source's were made",
    "lesion_sizes": "The lesions differ, not the scanner: compare slices of like size before blaming the model, and {label} with "
    "lesions of the sizes that are new to it",
    "annotation": "Agree on how borders are drawn: score with a boundary tolerance, or {label} drawn the target's way and retrain",
}

OVERLAP: Final = (
    "Each difference was removed alone. They overlap and work together, so their shares need not add up to 100 %, and the intervals are "
    "not widened for how many were tried."
)
"""Stands below every explanation that names a cause."""


def sentences(explanation: Explanation, scans: int | None = None) -> list[str]:
    """Why it dropped, a sentence or two for each thing to know.

    Args:
        explanation: What the replays found.
        scans: How many target scans are worth labelling, by the learning curve, where that is known.
    """
    tried = [cause for cause in explanation.causes if not math.isnan(cause.gained)]
    sure = [cause for cause in tried if cause.gained > 0 and cause.low > 0]
    unsure = [cause for cause in tried if cause not in sure and cause.gained != 0]
    absent = [cause for cause in tried if cause.gained == 0]
    told = [_opening(explanation, sure, scans), *(_explained(cause, scans) for cause in sure)]
    if unsure:
        gains = listed([f"{CAUSE_WORDS[cause.name]} ({signed(cause.gained)}, {span(cause)})" for cause in unsure])
        told.append(f"Removing these does not help beyond chance: {gains}.")
    if absent:
        told.append(f"No difference to remove in {listed([CAUSE_WORDS[cause.name] for cause in absent], 'or')}.")
    told += [
        f"Not tried: {CAUSE_WORDS[cause.name]}. {cause.note}" for cause in explanation.causes if cause not in tried
    ]
    return [*told, OVERLAP] if sure else told


def advice(cause: Cause, scans: int | None = None) -> str:
    """What to do about a cause, as a sentence."""
    if cause.name == "hu" and "8-bit" in cause.found:
        return "Convert the scans again from their originals, in HU: 8-bit pictures have lost what lies outside their window."
    return f"{_ADVICE[cause.name].format(label=_label(scans))}."


def _opening(explanation: Explanation, sure: Sequence[Cause], scans: int | None) -> str:
    """The drop and its largest cause, or that there is none."""
    if math.isnan(explanation.drop):
        return "There is nothing to explain: home or target has no slice to score."
    if explanation.drop <= 0:
        scores = f"{number(explanation.abroad)} on the target and {number(explanation.home)} at home"
        return f"There is no drop to explain: the source model scores {scores}."
    whole = f"{number(explanation.drop)} ({span(explanation)})"
    if not explanation.low > 0:
        start = f"The drop of {whole} may be chance: some patients are harder than others."
        return f"{start} Still, {_largest(sure[0])}." if sure else start
    if sure:
        return f"Of the drop of {whole}, {_largest(sure[0])}, {100 * sure[0].share:.0f} % of it."
    return (
        f"Nothing that was looked for explains the drop of {whole}. What is left is what cannot be measured in the pictures: "
        f"{_label(scans)} and retrain."
    )


def _largest(cause: Cause) -> str:
    return f"the largest part found is {CAUSE_WORDS[cause.name]}: {number(cause.gained)} ({span(cause)})"


def _explained(cause: Cause, scans: int | None) -> str:
    name = CAUSE_WORDS[cause.name]
    start = (
        f"{name[0].upper()}{name[1:]}, {signed(cause.gained)} ({span(cause)}): {cause.found}. {advice(cause, scans)}"
    )
    return f"{start} {cause.note}" if cause.note else start


def _label(scans: int | None) -> str:
    return "label more scans of the target" if scans is None else f"label about {scans} scans of the target"
