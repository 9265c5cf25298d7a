"""Planted errors are told apart from honest doubt, and a probability means what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungshift.audit.belief import (
    PLANTED,
    Example,
    beliefs_without,
    examples_of,
    features,
    learn_belief,
    plant_errors,
)
from lungshift.audit.suspects import Opinion, find_suspects

SHAPE = (24, 48, 48)


def case(seed: int) -> Opinion:
    """Two lesions that the networks see, and a place where they are half sure of something that nobody marked."""
    rng = np.random.default_rng(seed)
    reference = np.zeros(SHAPE, bool)
    reference[4:12, 6:16, 8:18] = reference[12:20, 26:34, 30:42] = True
    probability = np.where(reference, 0.9, 0.02).astype(np.float32)
    top = int(rng.integers(4, 12))
    probability[top : top + 7, 30:38, 6:14] = rng.uniform(0.5, 0.7)
    lung = np.zeros(SHAPE, bool)
    lung[1:-1, 3:-3, 3:-3] = True
    hu = np.where(lung, np.where(reference, -300, -850), 20).astype(np.int16)
    return Opinion(
        reference, probability, (probability >= 0.5).astype(np.float32), probability * 0, hu, lung, (2.0, 1.5, 1.5)
    )


def made(*seeds: int) -> list[Example]:
    return [one for s in seeds for one in examples_of(f"case{s}", case(s), np.random.default_rng(s))]


def test_every_kind_of_error_is_planted_and_the_networks_part_stays() -> None:
    opinion = case(0)
    planted = list(plant_errors(opinion, np.random.default_rng(0)))

    assert [kind for kind, _, _ in planted] == list(PLANTED)
    for _, spoilt, changed in planted:
        np.testing.assert_array_equal(spoilt.reference ^ changed, opinion.reference)
        assert spoilt.probability is opinion.probability


def test_an_erased_lesion_is_a_wrong_example_and_a_doubtful_place_is_not() -> None:
    wrong = [one for one in made(0) if one.wrong]
    right = [one for one in made(0) if not one.wrong]

    assert len(wrong) >= 3
    assert len(right) >= len(PLANTED) - 1


def test_planted_errors_are_believed_more_than_what_was_there_before() -> None:
    known = beliefs_without(made(*range(8)), [f"case{n}" for n in range(8)])
    opinion = case(0)
    erased = replace(opinion, reference=opinion.reference & (np.arange(SHAPE[0]) >= 12)[:, None, None])

    missing, doubtful = find_suspects(erased)

    assert known["case0"].of(missing) > 0.8
    assert known["case0"].of(doubtful) < 0.3


def test_a_belief_is_not_read_from_the_case_itself() -> None:
    examples = made(*range(4))
    known = beliefs_without(examples, [f"case{n}" for n in range(4)])

    assert known["case0"].examples == sum(one.case != "case0" for one in examples)


def test_probabilities_mean_what_they_say() -> None:
    """On examples whose truth is drawn by a known law, of suspects believed to p a share of p is wrong."""
    rng = np.random.default_rng(0)
    width = len(features(find_suspects(case(0))[0]))
    rows = rng.normal(size=(4000, width))
    truth = 1 / (1 + np.exp(-(1.5 * rows[:, 2] - 0.5)))
    wrong = rng.random(4000) < truth
    learned = learn_belief([Example("a", row, bool(is_wrong)) for row, is_wrong in zip(rows, wrong, strict=True)])

    assert learned is not None
    said = learned.predict(rng.normal(size=(4000, width)))
    told = learned.predict(rows)
    for low in np.arange(0, 1, 0.2):
        inside = (told >= low) & (told < low + 0.2)
        assert wrong[inside].mean() == pytest.approx(told[inside].mean(), abs=0.05)
    assert 0 < said.min() < said.max() < 1


def test_too_few_examples_teach_nothing() -> None:
    assert learn_belief(made(0)[:3]) is None
