"""What a study may claim, on outcomes small enough to count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan, sqrt
from typing import Any

import numpy as np
import pytest

from lungshift.errors import ProtocolError
from lungshift.transfer.claims import Claims, claims_of, worth_of
from lungshift.transfer.outcome import CohortSummary, Outcome, Run, Scores, SplitSummary
from lungshift.transfer.protocol import Protocol, SplitSettings

SIX = [20, 30, 35, 40, 50, 55]


def run(arm: str, recalls: Sequence[int], labels: int = 0, *, role: str = "target", first: int = 0, **more: Any) -> Run:
    """Every patient has one case of two slices with 100 lesion voxels, of which so many are found and nothing else."""
    names = np.array([f"patient{first + index}" for index in range(len(recalls)) for _ in range(2)])
    counts = np.array([[tp, 0, 100 - tp, 100] for tp in recalls for _ in range(2)], dtype=np.int64)
    scores = Scores(names, names, np.arange(len(names)) % 2, counts, counts)
    settings = {"seed": 0, "labels": labels} | more
    return Run(arm, "beta" if role == "target" else "alpha", role, f"{labels} patients", scores=scores, **settings)


def outcome(
    *runs: Run, leak: Sequence[Run] = (), known: bool = True, leaky: bool = False, kind: str = "patient"
) -> Outcome:
    cohorts = tuple(CohortSummary(name, 6, 6, 12, 12, 12, ("reader",), "", known) for name in ("alpha", "beta"))
    split = SplitSummary("beta", kind, leaky, {}, {})
    protocol = Protocol("tiny", split=SplitSettings(kind=kind))  # type: ignore[arg-type]
    return Outcome(protocol, cohorts, (split,), runs, (), leak=tuple(leak))


def claims(*runs: Run, **more: Any) -> Claims:
    return claims_of(outcome(*runs, **more), metric="recall")


def better(by: int) -> list[int]:
    return [recall + by for recall in SIX]


def test_every_arm_is_compared_with_no_retraining_at_each_budget() -> None:
    found = claims(
        run("fine_tuned", better(20), 4),
        run("fine_tuned", better(10), 2),
        run("zero_shot", SIX),
        run("adapted_tent", better(-5)),
    )

    told = [(claim.arm, claim.labels, round(claim.comparison.difference, 6)) for claim in found.over_zero_shot]
    assert told == [("fine_tuned", 2, 0.1), ("fine_tuned", 4, 0.2), ("adapted_tent", 0, -0.05)]
    assert {(claim.against, claim.against_labels, claim.tested_on) for claim in found.over_zero_shot} == {
        ("zero_shot", 0, "beta")
    }


def test_fine_tuning_is_compared_with_its_rivals_at_the_same_budget_only() -> None:
    arms = ("from_scratch", "frozen_encoder", "head_only", "joint")
    rivals = [run(arm, better(place), labels) for place, arm in enumerate(arms) for labels in (1, 2)]

    found = claims(run("fine_tuned", better(10), 2), run("fine_tuned", SIX, 8), *rivals)

    assert [(claim.against, claim.labels, claim.against_labels) for claim in found.between_arms] == [
        ("from_scratch", 2, 2),
        ("joint", 2, 2),
        ("frozen_encoder", 2, 2),
        ("head_only", 2, 2),
    ]
    assert [claim.comparison.difference for claim in found.between_arms] == pytest.approx([0.1, 0.07, 0.09, 0.08])
    assert found.over_zero_shot == ()


def test_what_is_asked_on_the_target_is_one_family_and_the_source_and_the_leak_are_others() -> None:
    found = claims(
        run("zero_shot", SIX),
        run("fine_tuned", better(10), 2),
        run("from_scratch", better(-10), 2),
        run("source", SIX, role="source"),
        run("fine_tuned", better(-10), 2, role="source"),
        leak=[run("split_by_slice", SIX, role="source"), run("split_by_patient", better(-10), role="source")],
    )

    assert [claim.comparison.n_compared for claim in found.compared] == [3, 3, 3, 1, 1]
    assert [claim.kind for claim in found.compared] == ["over_zero_shot"] * 2 + ["between_arms", "forgetting", "leak"]


def test_forgetting_is_the_source_after_against_before() -> None:
    found = claims(run("source", better(20), role="source"), run("joint", SIX, 2, role="source"), run("joint", SIX, 2))

    (claim,) = found.forgetting
    assert (claim.arm, claim.labels, claim.against, claim.tested_on) == ("joint", 2, "source", "alpha")
    assert claim.comparison.difference == pytest.approx(-0.2)


def test_a_source_tested_once_is_compared_with_the_models_of_all_folds() -> None:
    folds = [run("fine_tuned", better(-10 - 2 * fold), 2, role="source", fold=fold) for fold in range(3)]

    (claim,) = claims(run("source", SIX, role="source"), *folds).forgetting

    assert claim.comparison.difference == pytest.approx(-0.12)
    assert claim.comparison.n_patients == 6


def test_the_price_of_a_leak_is_each_split_against_that_by_patient() -> None:
    leak = [
        run("split_by_slice", better(20), role="source"),
        run("split_by_case", better(5), role="source"),
        run("split_by_patient", SIX, role="source"),
    ]

    found = claims(leak=leak).leak

    assert [(claim.arm, round(claim.comparison.difference, 6)) for claim in found] == [
        ("split_by_slice", 0.2),
        ("split_by_case", 0.05),
    ]


def test_a_patient_of_several_seeds_is_one_patient() -> None:
    zero = [run("zero_shot", SIX, seed=seed) for seed in (0, 1)]
    tuned = [run("fine_tuned", better(by), 2, seed=seed) for seed, by in ((0, 10), (1, 20))]

    (claim,) = claims(*zero, *tuned).over_zero_shot

    assert claim.comparison.difference == pytest.approx(0.15)
    assert claim.comparison.n_patients == 6


def test_seeds_are_matched_whatever_the_order_of_runs() -> None:
    zero = [run("zero_shot", better(30), seed=1), run("zero_shot", SIX, seed=0)]
    tuned = [run("fine_tuned", better(10), 2, seed=0), run("fine_tuned", better(40), 2, seed=1)]

    (claim,) = claims(*zero, *tuned).over_zero_shot

    assert (claim.comparison.low, claim.comparison.high) == pytest.approx((0.1, 0.1))


def test_folds_together_test_every_patient_once() -> None:
    zero = [run("zero_shot", SIX[:3], fold=0), run("zero_shot", SIX[3:], fold=1, first=3)]
    tuned = [run("fine_tuned", better(10)[:3], 2, fold=0), run("fine_tuned", better(30)[3:], 2, fold=1, first=3)]

    (claim,) = claims(*zero, *tuned).over_zero_shot

    assert claim.comparison.difference == pytest.approx(0.2)
    assert claim.comparison.n_patients == 6


def test_only_slices_that_both_arms_were_tested_on_are_compared() -> None:
    (claim,) = claims(run("zero_shot", SIX), run("fine_tuned", [79, 45, 50], 2, first=2)).over_zero_shot

    assert claim.comparison.n_patients == 3
    assert claim.comparison.difference == pytest.approx((79 - 35 + 45 - 40 + 50 - 50) / 300)
    assert claims(run("zero_shot", SIX), run("fine_tuned", SIX, 2, first=6)).over_zero_shot == ()


def test_scores_are_by_the_convention_that_is_asked_for() -> None:
    arms = outcome(run("zero_shot", SIX), run("fine_tuned", better(10), 2))

    assert claims_of(arms, "paper").convention == "lesion_slices"
    assert claims_of(arms, "pooled").over_zero_shot[0].comparison.difference != pytest.approx(
        claims_of(arms, "per_case").over_zero_shot[0].comparison.difference
    )
    with pytest.raises(ProtocolError, match="no convention"):
        claims_of(arms, "mean")


def test_labels_saved_lie_on_the_learning_curve_of_training_from_scratch() -> None:
    scratch = [run("from_scratch", better(by), labels) for labels, by in ((1, -20), (3, 0), (7, 10))]

    found = claims(
        run("fine_tuned", better(-10), 1), run("fine_tuned", SIX, 2), run("fine_tuned", better(15), 4), *scratch
    )

    # Halfway between 1 and 3 on log(1 + budget): the root of 2 times 4, less 1.
    assert [saved.worth for saved in found.labels_saved] == [pytest.approx(sqrt(8) - 1), pytest.approx(3), inf]
    assert [saved.labels for saved in found.labels_saved] == [1, 2, 4]
    assert {saved.tried for saved in found.labels_saved} == {(1, 3, 7)}
    # Every patient has the same curve, up to rounding at its corners: all draws agree.
    assert (found.labels_saved[0].low, found.labels_saved[0].high) == pytest.approx((sqrt(8) - 1,) * 2)


def test_labels_saved_are_unsure_where_patients_disagree() -> None:
    scratch = [run("from_scratch", better(by), labels) for labels, by in ((1, -20), (4, 20))]

    (found,) = claims(run("fine_tuned", [60, 30, 75, 40, 90, 55], 1), *scratch).labels_saved

    assert found.low < found.worth < found.high
    assert found.n_patients == 6


@pytest.mark.parametrize(
    ("score", "curve", "worth"),
    [
        pytest.param(0.1, (0.2, 0.4), 0.0, id="less than the least that was tried"),
        pytest.param(0.2, (0.2, 0.4), 1.0, id="as much as the least"),
        pytest.param(0.4, (0.2, 0.4), 3.0, id="as much as the most"),
        pytest.param(0.5, (0.2, 0.4), inf, id="more than the most"),
        pytest.param(0.3, (0.2, 0.4, 0.1, 0.5), sqrt(8) - 1, id="where a curve that falls again first reaches it"),
        pytest.param(0.5, (0.4,), inf, id="one budget, more"),
        pytest.param(0.3, (0.4,), 0.0, id="one budget, less"),
    ],
)
def test_worth_is_where_the_curve_first_reaches_the_score(score: float, curve: tuple[float, ...], worth: float) -> None:
    found = worth_of(np.array([[score, *curve]]), (1, 3, 7, 15)[: len(curve)])

    assert found == pytest.approx([worth])


def test_worth_of_what_is_undefined_is_undefined() -> None:
    assert isnan(worth_of(np.array([[0.3, np.nan, 0.4]]), (1, 2))[0])


def test_one_patient_has_differences_and_no_interval() -> None:
    found = claims(run("zero_shot", [50]), run("fine_tuned", [60], 2), run("from_scratch", [55], 2))

    claim = found.over_zero_shot[-1]
    assert claim.comparison.difference == pytest.approx(0.1)
    assert isnan(claim.comparison.low)
    assert isnan(found.labels_saved[0].low)
    assert found.labels_saved[0].worth == inf


def test_arms_that_were_not_tested_leave_their_claims_empty() -> None:
    found = claims(run("zero_shot", SIX))

    assert found.compared == ()
    assert found.labels_saved == ()


def test_what_limits_all_claims_is_kept_with_them() -> None:
    found = claims(run("zero_shot", SIX), known=False, leaky=True, kind="slice")

    assert (found.leaky, found.without_ids, found.unit) == (True, ("alpha", "beta"), "slice")
    assert claims(run("zero_shot", SIX)).without_ids == ()


def test_a_network_of_all_other_cohorts_is_compared_with_the_cohorts_own() -> None:
    found = claims(run("leave_one_out", better(-10)), run("at_home", SIX))

    (claim,) = found.left_out
    assert (claim.against, claim.tested_on, round(claim.comparison.difference, 6)) == ("at_home", "beta", -0.1)
    assert found.compared == (claim,)


def test_a_cohort_left_out_that_has_no_network_of_its_own_is_compared_with_nothing() -> None:
    assert claims(run("leave_one_out", SIX)).left_out == ()
