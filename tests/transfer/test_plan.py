"""A study is drawn up before anything is computed: who is trained, who is tested, on what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.prepare.prepared import prepare_cohort
from lungshift.prepare.slices import select_slices
from lungshift.transfer.arms import ARMS
from lungshift.transfer.plan import Plan, Training, plan_chain, plan_leak, plan_leave_one_out, plan_transfer
from lungshift.transfer.protocol import PrepareSettings, Protocol, SplitSettings
from lungshift.transfer.sides import Side
from worlds import cohort_of, tiny_case

EVERY = Protocol(
    "every",
    prepare=PrepareSettings(size=16),
    split=SplitSettings(test_share=0.4, validation_patients=1, folds=2, test_seed=0),
    network=NetworkSettings(width=2, levels=2, norm="batch"),
    training=TrainingSettings(epochs=3),
    fine_tuning=TrainingSettings(epochs=1),
    arms=tuple(ARMS),
    budgets=(0, 1, 2),
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> list[Side]:
    folder, made = tmp_path_factory.mktemp("prepared"), []
    for number, name in enumerate(("home", "away", "third")):
        cases = (tiny_case(seed) for seed in range(10 * number, 10 * number + 8))
        prepared = prepare_cohort(cohort_of(*cases, name=name), folder, size=16)
        made.append(Side("target" if number else "source", prepared, select_slices(prepared.table, "lung")))
    return made


@pytest.fixture(scope="module")
def plan(sides: list[Side]) -> Plan:
    return plan_transfer(EVERY, sides[:2])


def training(plan: Plan, name: str) -> Training:
    return next(one for one in plan.trainings if one.name == name)


def test_all_arms_and_budgets_of_a_fold_are_tested_on_the_same_rows(plan: Plan) -> None:
    for seed in EVERY.seeds:
        for fold in range(2):
            rows = {
                tuple(trial.rows)
                for trial in plan.trials
                if (trial.role, trial.seed, trial.fold) == ("target", seed, fold)
            }
            assert len(rows) == 1


def test_every_target_patient_is_tested_once_for_each_seed(plan: Plan, sides: list[Side]) -> None:
    tested = Counter(
        str(patient)
        for trial in plan.trials
        if trial.arm == "zero_shot" and trial.seed == 1
        for patient in set(sides[1].prepared.patients[trial.rows])
    )

    assert tested == Counter({f"case{seed}": 1 for seed in range(10, 18)})


def test_no_network_sees_a_patient_that_it_is_tested_on(plan: Plan, sides: list[Side]) -> None:
    by_name = {one.name: one for one in plan.trainings}
    for trial in plan.trials:
        network = by_name[trial.model]
        line = [network, *([by_name[network.start]] if network.start else [])]
        seen = {
            (number, str(patient))
            for one in line
            for number, rows in (*one.train, *one.validation)
            for patient in sides[number].prepared.patients[rows]
        }
        assert not seen & {(trial.on, str(patient)) for patient in sides[trial.on].prepared.patients[trial.rows]}


def test_a_larger_budget_holds_the_smaller_and_keeps_its_validation(plan: Plan) -> None:
    one, two = (training(plan, f"fine_tuned-{n}-seed0-fold2") for n in ("1_patient", "2_patients"))

    assert set(one.train[0][1]) < set(two.train[0][1])
    np.testing.assert_array_equal(one.validation[0][1], two.validation[0][1])


def test_the_arms_differ_in_where_they_start_and_what_they_learn_from(plan: Plan) -> None:
    found = {arm: training(plan, f"{arm}-2_patients-seed0-fold1") for arm in ARMS if ARMS[arm].labels}

    assert {arm: (bool(one.start), one.trainable, [n for n, _ in one.train]) for arm, one in found.items()} == {
        "from_scratch": (False, "all", [1]),
        "fine_tuned": (True, "all", [1]),
        "frozen_encoder": (True, "decoder", [1]),
        "head_only": (True, "head", [1]),
        "joint": (False, "all", [0, 1]),
    }
    assert found["from_scratch"].settings is EVERY.training
    assert found["fine_tuned"].settings is EVERY.fine_tuning


def test_arms_without_labels_train_nothing_and_have_no_budget(plan: Plan) -> None:
    adapted = [trial for trial in plan.trials if trial.arm.startswith("adapted") and (trial.seed, trial.fold) == (0, 0)]

    assert {trial.adaptation for trial in adapted} == {"batch_norm", "histogram", "tent"}
    assert {(trial.model, trial.labels, trial.budget) for trial in adapted} == {("source-seed0", 0, "nothing")}
    assert not any(set(trial.unlabelled) & set(trial.rows) for trial in adapted)


def test_every_arm_with_labels_is_tested_at_home_again(plan: Plan) -> None:
    home = next(trial for trial in plan.trials if trial.arm == "source" and trial.seed == 0)
    again = [trial for trial in plan.trials if trial.role == "source" and trial.labels and trial.seed == 0]

    assert len(again) == 5 * 2 * 2
    assert all((trial.rows == home.rows).all() for trial in again)


def test_each_training_comes_after_the_one_it_starts_from(plan: Plan) -> None:
    names = [one.name for one in plan.trainings]

    assert len(set(names)) == len(names) == 2 * (1 + 5 * 2 * 2)
    assert all(names.index(one.start) < number for number, one in enumerate(plan.trainings) if one.start)


def test_by_slice_a_budget_is_in_slices_and_the_test_stays(sides: list[Side]) -> None:
    by_slice = replace(
        EVERY,
        split=SplitSettings("slice", train_slices=16, validation_slices=4),
        budgets=(8, 16),
        arms=("fine_tuned",),
        seeds=(0,),
    )
    plan = plan_transfer(by_slice, sides[:2])

    tested = [trial for trial in plan.trials if trial.role == "target"]
    assert [trial.budget for trial in tested] == ["8 slices and 4 to validate", "16 slices and 4 to validate"]
    np.testing.assert_array_equal(tested[0].rows, tested[1].rows)


def test_the_price_of_leakage_is_taken_on_the_same_tested_slices(sides: list[Side]) -> None:
    plan = plan_leak(replace(EVERY, seeds=(0,)), sides[0])

    assert [trial.arm for trial in plan.trials] == ["split_by_slice", "split_by_case", "split_by_patient"]
    assert len({tuple(trial.rows) for trial in plan.trials}) == 1
    assert len({len(one.train[0][1]) for one in plan.trainings}) == 1


def test_a_chain_starts_each_network_from_the_one_before(sides: list[Side]) -> None:
    plan = plan_chain(replace(EVERY, seeds=(0,)), sides)

    first, second, third = plan.trainings
    assert (first.start, second.start, third.start) == ("", first.name, second.name)
    assert len(plan.trials) == 9
    assert plan.trials[-1].trained_on == ("home", "away", "third")


def test_leaving_one_cohort_out_trains_on_all_others(sides: list[Side]) -> None:
    plan = plan_leave_one_out(replace(EVERY, seeds=(0,)), sides)

    left = training(plan, "leave_one_out-away-seed0")
    assert [number for number, _ in left.train] == [0, 2]
    assert {(trial.arm, sides[trial.on].name, trial.trained_on) for trial in plan.trials if trial.on == 1} == {
        ("leave_one_out", "away", ("home", "third")),
        ("at_home", "away", ("away",)),
    }
