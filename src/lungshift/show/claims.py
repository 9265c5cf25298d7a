"""What a study may claim, a plain sentence for each claim, and the same as flat records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from lungshift.measure.compare import Comparison
from lungshift.show.tables import number, signed
from lungshift.transfer.arms import ARMS
from lungshift.transfer.claims import Claim, Claims, LabelsSaved

_DIGITS = 2

_DOING: Final = {
    "zero_shot": "no retraining",
    "from_scratch": "training on the target alone",
    "fine_tuned": "retraining",
    "frozen_encoder": "retraining the decoder",
    "head_only": "retraining the last layer",
    "joint": "training on source and target together",
    "adapted_batch_norm": "taking batch-norm statistics from the target",
    "adapted_histogram": "matching the histogram to the source",
    "adapted_tent": "adapting to each scan by TENT",
    "leave_one_out": "training on all other cohorts",
    "at_home": "training on the cohort itself",
}
"""What is done in an arm, as the subject of a sentence; the words of ``ARMS`` for others."""

_METRICS: Final = {"dice": "F1", "iou": "IoU"}


def sentences(claims: Claims) -> list[str]:
    """A sentence for each claim, and one for each thing that limits them all."""
    return [
        *(_compared(claim, claims) for claim in claims.compared),
        *(_saved(saved, claims) for saved in claims.labels_saved),
        *_cautions(claims),
    ]


def records(claims: Claims) -> list[dict[str, Any]]:
    """The claims as flat dictionaries with the same keys: what CSV and JSON hold; NaN is what a claim does not have.

    ``worth`` and its ends are numbers, or ``>4`` and ``<1`` where they lie outside of the budgets that were tried.
    ``detectable`` is NaN where so few patients cannot show any difference.
    """
    return [
        *(_compared_record(claim, claims) for claim in claims.compared),
        *(_saved_record(saved, claims) for saved in claims.labels_saved),
    ]


def _compared(claim: Claim, claims: Claims) -> str:
    found = claim.comparison
    if math.isnan(found.difference):
        return f"{_subject(claim, claims)} {_against(claim, claims)}: nothing to compare, a score is undefined."
    if not found.is_told:
        return f"{_subject(claim, claims)} changes {_metric(claims)} by {_change(found)} {_against(claim, claims)}{_doubt(found)}."
    verb = "gains" if found.difference > 0 else "loses"
    corrected = f"corrected p {_p(found.p_corrected)}"
    return f"{_subject(claim, claims)} {verb} {_size(found)} {_metric(claims)} {_against(claim, claims)} ({corrected})."


def _subject(claim: Claim, claims: Claims) -> str:
    if claim.kind == "leak":
        return f"A {claim.arm.replace('_', ' ')}"
    return _capital(_done(claim.arm, claim.labels, claims))


def _against(claim: Claim, claims: Claims) -> str:
    if claim.kind == "leak":
        return f"over a {claim.against.replace('_', ' ')}, tested on the same slices of {claim.tested_on}"
    if claim.kind == "forgetting":
        return f"on {claim.tested_on}, where the model came from"
    if claim.kind == "left_out":
        return f"on {claim.tested_on} over {_doing(claim.against)}"
    same = claim.labels == claim.against_labels
    return f"over {_doing(claim.against) if same else _done(claim.against, claim.against_labels, claims)}"


def _doubt(found: Comparison) -> str:
    """Why a difference is not told from noise, and how large it would have to be."""
    if math.isnan(found.low):
        return "; one patient says nothing of others"
    among = f" among {found.n_compared} comparisons" if found.low > 0 or found.high < 0 else ""
    if math.isinf(found.detectable):
        least = f"{found.n_patients} patients are too few to tell any difference from noise"
    elif found.detectable >= 1:
        least = "patients and trainings differ too much for any difference to be told from noise"
    else:
        small = number(found.detectable, _DIGITS)
        least = f"with {found.n_patients} patients a difference under {small} cannot be told from noise"
    return f", which may be chance{among}; {least}"


def _saved(saved: LabelsSaved, claims: Claims) -> str:
    ends = [] if math.isnan(saved.low) else list(dict.fromkeys(_budget(saved, end) for end in (saved.low, saved.high)))
    spread = f" [{' to '.join(ends)}]" if len(ends) > 1 else ""
    subject = _capital(_done("fine_tuned", saved.labels, claims))
    alone = f"of {_doing('from_scratch')}"
    if math.isnan(saved.worth):
        return f"{subject}: its worth in labels is unknown, a score is undefined."
    if math.isinf(saved.worth):
        tried = f"more than {_many(saved.tried[-1], claims)}{spread} {alone}, the most that was tried"
    elif saved.worth == 0:
        tried = f"fewer than {_many(saved.tried[0], claims)}{spread} {alone}, the least that was tried"
    else:
        tried = f"about {_many(saved.worth, claims)}{spread} {alone}"
    return f"{subject} is worth {tried}."


def _cautions(claims: Claims) -> Iterator[str]:
    if claims.leaky:
        yield "Slices of the same patient were trained on and tested: these scores are too good, and no interval covers that."
    for name in claims.without_ids:
        yield f"{name} came without patient ids: every scan was taken for a patient, so its intervals may be too narrow."


def _done(arm: str, labels: int, claims: Claims) -> str:
    return f"{_doing(arm)} with {_many(labels, claims)}" if labels else _doing(arm)


def _doing(arm: str) -> str:
    return _DOING.get(arm) or ARMS[arm].words


def _many(count: float, claims: Claims) -> str:
    return f"{_plain(count)} {claims.unit}{'' if count == 1 else 's'}"


def _plain(count: float) -> str:
    return f"{count:.1f}".removesuffix(".0")


def _budget(saved: LabelsSaved, worth: float) -> str:
    if math.isinf(worth):
        return f"more than {saved.tried[-1]}"
    return _plain(worth) if worth else f"fewer than {saved.tried[0]}"


def _metric(claims: Claims) -> str:
    return _METRICS.get(claims.metric, claims.metric)


def _size(found: Comparison) -> str:
    """A gain or loss without its sign: ``0.11 [0.04, 0.18]``."""
    ends = (found.low, found.high) if found.difference > 0 else (-found.high, -found.low)
    return f"{number(abs(found.difference), _DIGITS)} [{_ends(*ends)}]"


def _change(found: Comparison) -> str:
    """A change with its sign: ``+0.02 [−0.03, 0.07]``."""
    spread = "" if math.isnan(found.low) else f" [{_ends(found.low, found.high)}]"
    return f"{signed(_rounded(found.difference), _DIGITS)}{spread}"


def _ends(low: float, high: float) -> str:
    return f"{number(_rounded(low), _DIGITS)}, {number(_rounded(high), _DIGITS)}".replace("-", "−")


def _rounded(value: float) -> float:
    """Without a minus where nothing is left of it."""
    return round(value, _DIGITS) + 0.0


def _p(p: float) -> str:
    return "under 0.001" if p < 0.001 else number(p, 3)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _record(claims: Claims) -> dict[str, Any]:
    """What every record has, before it is filled in."""
    keys = ("arm", "labels", "against", "against_labels", "tested_on", "difference", "low", "high")
    tests = ("simultaneous_low", "simultaneous_high", "p", "p_corrected", "comparisons", "patients", "detectable")
    whole = {"claim": "", "convention": claims.convention, "metric": claims.metric}
    missing = dict.fromkeys((*keys, *tests, "worth", "worth_low", "worth_high"), math.nan)
    return whole | missing | {"labels_unit": claims.unit, "leaky_split": claims.leaky, "sentence": ""}


def _compared_record(claim: Claim, claims: Claims) -> dict[str, Any]:
    found = claim.comparison
    return _record(claims) | {
        "claim": claim.kind,
        "arm": claim.arm,
        "labels": claim.labels,
        "against": claim.against,
        "against_labels": claim.against_labels,
        "tested_on": claim.tested_on,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "simultaneous_low": found.simultaneous_low,
        "simultaneous_high": found.simultaneous_high,
        "p": found.p,
        "p_corrected": found.p_corrected,
        "comparisons": found.n_compared,
        "patients": found.n_patients,
        "detectable": math.nan if math.isinf(found.detectable) else found.detectable,
        "sentence": _compared(claim, claims),
    }


def _saved_record(saved: LabelsSaved, claims: Claims) -> dict[str, Any]:
    def end(worth: float) -> float | str:
        if math.isinf(worth):
            return f">{saved.tried[-1]}"
        return worth or f"<{saved.tried[0]}"

    return _record(claims) | {
        "claim": "labels_saved",
        "arm": "fine_tuned",
        "labels": saved.labels,
        "against": "from_scratch",
        "tested_on": saved.tested_on,
        "patients": saved.n_patients,
        "worth": end(saved.worth),
        "worth_low": end(saved.low),
        "worth_high": end(saved.high),
        "sentence": _saved(saved, claims),
    }
