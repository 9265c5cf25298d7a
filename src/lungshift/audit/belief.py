"""How likely a suspect is an error of the label: learned from errors that are planted in the cohort's own labels.

Nobody knows which labels of a cohort are wrong, but errors can be planted where networks never saw the case: a lesion erased, a ball of lung
marked, the mask shifted by three slices, drawn too wide, or marked beside the lung. Suspects that lie in what was changed are errors; those
that were there before count as none, though some of them are, so beliefs rather are too low. A logistic regression with a ridge on what a
suspect looks like (how sure the networks are, how large and how far it is, how dense) gives the probability; of each case it is read from
the planted errors of other cases.

What a belief means: of a hundred suspects that look so, in labels that have as many errors as were planted, so many are errors. A
cohort with fewer errors has fewer true ones among the same suspects; the order of a list does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float64

from lungshift.audit.suspects import Opinion, Suspect, SuspectKind, find_suspects
from lungshift.ct.geometry import Geometry
from lungshift.prepare.phantom_errors import LabelError, LabelErrorKind, plant

PLANTED: Final[tuple[LabelErrorKind, ...]] = ("removed", "spurious", "shifted", "dilated", "outside_lung")
"""What is planted, each alone, once in every case."""

_HIT = 0.5
_RIDGE, _WEAK = 1.0, 0.05
_LEAST = 5
_BODY_HU = -500
_KINDS: Final[tuple[SuspectKind, ...]] = ("missing-lesion", "spurious-lesion", "boundary-drift")


@dataclass(frozen=True, eq=False)
class Example:
    """A suspect of a label with a planted error, and whether it is that error.

    Attributes:
        case: Where it was found; beliefs of a case are not read from its own examples.
        features: What it looks like, see ``features``.
        wrong: Whether half of it or more lies in what was planted.
    """

    case: str
    features: Float64[np.ndarray, " feature"]
    wrong: bool


@dataclass(frozen=True, eq=False)
class Belief:
    """The learned regression.

    Attributes:
        weights: Of the features on their common scale, the first of a constant.
        middle, scale: Of the features.
        examples: How many it was learned from.
        wrong: How many of them are planted errors.
    """

    weights: Float64[np.ndarray, " weight"]
    middle: Float64[np.ndarray, " feature"]
    scale: Float64[np.ndarray, " feature"]
    examples: int
    wrong: int

    def of(self, suspect: Suspect) -> float:
        """The probability that a suspect is an error of the label."""
        return float(self.predict(features(suspect)[None])[0])

    def predict(self, rows: Float64[np.ndarray, "n feature"]) -> Float64[np.ndarray, " n"]:
        """Probabilities of suspects by their features."""
        from scipy.special import expit

        probability: np.ndarray = expit(_design((rows - self.middle) / self.scale) @ self.weights)
        return probability


def features(suspect: Suspect) -> Float64[np.ndarray, " feature"]:
    """What a suspect looks like: kind, the networks' doubt and accord, size, distance, density, place.

    A lesion that nobody marked and a mark without lesion look unlike each other, so what tells most has weights of its own for the first.
    """
    missing = suspect.kind == "missing-lesion"
    doubt = suspect.probability if missing else 1 - suspect.probability
    far, size = np.log1p(min(suspect.distance_mm, 50.0)), np.log(suspect.ml)
    contrast = 0.0 if np.isnan(suspect.contrast_hu) else np.clip(suspect.contrast_hu / 300, -2, 3)
    # dense tissue that nobody marked speaks for a missing lesion, thin tissue that was marked for a spurious one
    dense = contrast if missing else -contrast
    kinds = [float(suspect.kind == kind) for kind in _KINDS[1:]]
    looks = [doubt, doubt**2, suspect.spread, size, far, dense]
    place = [suspect.peak, suspect.whole, suspect.outside, suspect.accord]
    own = [missing * value for value in (doubt, size, dense, suspect.peak, suspect.whole)]
    return np.array([*kinds, *looks, *place, *own], dtype=np.float64)


def plant_errors(opinion: Opinion, rng: np.random.Generator) -> Iterator[tuple[LabelErrorKind, Opinion, np.ndarray]]:
    """The case with each error alone, and what was changed; errors that change nothing are left out.

    The networks' part of an opinion stays as it is, for they never saw this label.
    """
    geometry = Geometry.regular(opinion.reference.shape, opinion.spacing_mm)
    body = opinion.hu > _BODY_HU
    for kind in PLANTED:
        wrong, _ = plant(rng, LabelError(kind, 0), opinion.reference, opinion.lung, body, geometry)
        changed = wrong != opinion.reference
        if changed.any():
            yield kind, replace(opinion, reference=wrong), changed


def examples_of(case: str, opinion: Opinion, rng: np.random.Generator) -> list[Example]:
    """Suspects of a case with errors planted in its label, each known to be one or taken for none."""
    found = []
    for _, spoilt, changed in plant_errors(opinion, rng):
        for suspect in find_suspects(spoilt):
            found.append(Example(case, features(suspect), suspect.overlap(changed) >= _HIT))
    return found


def learn_belief(examples: Sequence[Example]) -> Belief | None:
    """The regression on examples; None where fewer than five of them are errors."""
    from scipy.optimize import minimize

    rows = np.array([one.features for one in examples], dtype=np.float64)
    wrong = np.array([one.wrong for one in examples], dtype=np.float64)
    if wrong.sum() < _LEAST:
        return None
    middle, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design, ridge = _design((rows - middle) / scale), np.full(rows.shape[1] + 1, _RIDGE)
    ridge[0] = _WEAK  # so that examples of one kind alone do not make it sure beyond their number

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        at = design @ weights
        probability = 1 / (1 + np.exp(-at))
        value = float(np.sum(np.logaddexp(0, at) - wrong * at) + 0.5 * np.sum(ridge * weights**2))
        return value, design.T @ (probability - wrong) + ridge * weights

    best = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return Belief(np.asarray(best), middle, scale, len(examples), int(wrong.sum()))


def beliefs_without(examples: Sequence[Example], cases: Sequence[str], groups: int = 4) -> dict[str, Belief]:
    """For each case a belief that was learned without it: cases are divided into groups, each judged by the others' examples.

    Cases whose others are too few to learn from have none.
    """
    known: dict[str, Belief] = {}
    names = sorted(set(cases))
    for group in range(min(groups, len(names))):
        mine = names[group::groups]
        learned = learn_belief([one for one in examples if one.case not in mine])
        if learned is not None:
            known |= dict.fromkeys(mine, learned)
    return known


def _design(rows: Float64[np.ndarray, "n feature"]) -> Float64[np.ndarray, "n weight"]:
    return np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
