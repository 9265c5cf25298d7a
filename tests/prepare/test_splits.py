"""Who trains and who is tested; which slices take part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.errors import CohortError, LeakageError, ProtocolError
from lungshift.prepare.slices import SLICE_DTYPE, describe_slice, draw_balanced, select_slices
from lungshift.prepare.splits import Split, split_by_patient, split_by_slice


def world(patients: int = 5, slices: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Patients with one case each; the first half of a case's slices has lesion, its last has no lung."""
    table = np.zeros(patients * slices, dtype=SLICE_DTYPE)
    table["case"] = np.repeat(np.arange(patients), slices)
    table["index"] = np.tile(np.arange(slices), patients)
    table["lung"] = np.where(table["index"] < slices - 1, 50, 0)
    table["lesion"] = np.where(table["index"] < slices // 2, 5, 0)
    return table, np.array([f"p{case}" for case in table["case"]])


def test_a_slice_is_described_by_its_pixels_and_its_lung_box() -> None:
    lung, lesion = np.zeros((2, 8, 8), bool)
    lung[2:5, 1:7] = True
    lesion[0, 0] = True

    row = describe_slice(3, 7, lung, lesion)

    assert (int(row["case"]), int(row["index"]), int(row["lung"]), int(row["lesion"])) == (3, 7, 18, 1)
    assert row["box"].tolist() == [2, 5, 1, 7]


@pytest.mark.parametrize(("rule", "kept"), [("lung", [0, 1]), ("lung_or_lesion", [0, 1, 2]), ("all", [0, 1, 2, 3])])
def test_slices_are_selected_by_rule(rule: str, kept: list[int]) -> None:
    table = np.zeros(4, dtype=SLICE_DTYPE)
    table["lung"], table["lesion"] = [9, 9, 0, 0], [0, 2, 2, 0]

    assert select_slices(table, rule).tolist() == kept  # type: ignore[arg-type]


def test_a_cohort_without_any_lung_is_refused() -> None:
    with pytest.raises(CohortError, match="lung masks"):
        select_slices(np.zeros(4, dtype=SLICE_DTYPE), "lung")


def test_a_balanced_draw_is_half_lesion_and_half_not() -> None:
    table, _ = world()

    drawn = draw_balanced(table, np.arange(len(table)), 31, np.random.default_rng(0))

    assert len(set(drawn.tolist())) == 31
    assert (table["lesion"][drawn] > 0).sum() == 16


def test_a_balanced_draw_of_more_than_there_is_says_so() -> None:
    table, _ = world()

    with pytest.raises(ProtocolError, match="only 50 are left"):
        draw_balanced(table, np.arange(len(table)), 120, np.random.default_rng(0))


def test_the_papers_split_draws_train_and_validation_half_with_lesion_and_tests_the_rest() -> None:
    table, patients = world()
    rows = select_slices(table, "lung")

    split = split_by_slice(table, rows, patients, train=44, validation=6, seed=0)

    assert split.leaky
    assert [len(part) for part in (split.train, split.validation, split.test)] == [44, 6, 45]
    assert (table["lesion"][split.train] > 0).sum() == 22
    assert (table["lesion"][split.validation] > 0).sum() == 3
    assert sorted(np.concatenate([split.train, split.validation, split.test]).tolist()) == rows.tolist()


@given(seed=st.integers(0, 1000), budget=st.integers(1, 2))
def test_a_split_by_patient_never_tears_one_apart(seed: int, budget: int) -> None:
    table, patients = world()

    split = split_by_patient(
        table, np.arange(len(table)), patients, test_share=0.4, validation_patients=1, seed=seed, budget=budget
    )

    assert not split.leaky
    assert len(split.patients_of("train")) == budget
    assert len(split.patients_of("test")) == 2


def test_every_budget_is_tested_on_the_same_patients_and_holds_the_smaller_ones() -> None:
    table, patients = world(8)
    splits = [
        split_by_patient(
            table, np.arange(len(table)), patients, test_share=0.4, validation_patients=1, seed=3, budget=n
        )
        for n in (1, 2, 4)
    ]

    assert len({split.patients_of("test") for split in splits}) == 1
    trained = [set(split.patients_of("train")) for split in splits]
    assert trained[0] < trained[1] < trained[2]


def test_patients_without_lesion_are_not_tested() -> None:
    table, patients = world(6)
    table["lesion"][np.isin(patients, ["p0", "p4"])] = 0

    for seed in range(20):
        split = split_by_patient(
            table, np.arange(len(table)), patients, test_share=0.5, validation_patients=1, seed=seed
        )
        assert not {"p0", "p4"} & set(split.patients_of("test"))


def test_a_budget_that_is_too_large_says_how_many_are_left() -> None:
    table, patients = world()

    with pytest.raises(ProtocolError, match="leave 2 to train on"):
        split_by_patient(
            table, np.arange(len(table)), patients, test_share=0.4, validation_patients=1, seed=0, budget=3
        )


def test_a_patient_on_two_sides_is_refused_by_name() -> None:
    patients = np.array(["anna", "anna", "ben", "cleo"])

    with pytest.raises(LeakageError, match="anna"):
        Split("patient", np.array([0]), np.array([2]), np.array([1, 3]), patients)


def test_a_slice_in_two_parts_is_refused_even_by_slice() -> None:
    with pytest.raises(LeakageError, match="1 slices"):
        Split("slice", np.array([0]), np.array([0]), np.array([1]), np.array(["a", "a"]))


def test_the_tested_share_is_of_the_patients_with_lesion_and_the_ill_train_first() -> None:
    table, patients = world(11)
    healthy = np.isin(patients, [f"p{n}" for n in range(5, 11)])
    table["lesion"][healthy] = 0

    split = split_by_patient(
        table, np.arange(len(table)), patients, test_share=0.4, validation_patients=1, seed=0, budget=2
    )

    assert len(split.patients_of("test")) == 2
    for rows in (split.train, split.validation, split.test):
        assert (table["lesion"][rows] > 0).any()


def test_a_split_without_any_lesion_to_learn_is_refused() -> None:
    table, patients = world(5)
    table["lesion"][~np.isin(patients, ["p0", "p1"])] = 0

    with pytest.raises(ProtocolError, match="none of them is left to train on"):
        split_by_patient(table, np.arange(len(table)), patients, test_share=0.4, validation_patients=1, seed=0)
