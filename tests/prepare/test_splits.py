"""Who trains and who is tested; which slices take part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.errors import CohortError, LeakageError, ProtocolError
from lungshift.prepare.slices import SLICE_DTYPE, describe_slice, draw_balanced, select_slices
from lungshift.prepare.splits import Split, leak_splits, split_by_patient, split_by_slice


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


@given(
    train=st.integers(1, 30),
    validation=st.integers(2, 9),
    seed=st.integers(0, 1000),
    budgets=st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_a_budget_of_slices_is_half_lesion_and_inside_the_larger_one(
    train: int, validation: int, seed: int, budgets: tuple[int, int]
) -> None:
    table, patients = world()
    small, large = sorted(min(budget, train) for budget in budgets)
    rows = select_slices(table, "lung")

    def split(budget: int | None) -> Split:
        return split_by_slice(table, rows, patients, train=train, validation=validation, seed=seed, budget=budget)

    few, many, whole = split(small), split(large), split(None)
    assert [len(part.train) for part in (few, many, whole)] == [small, large, train]
    assert set(few.train) <= set(many.train) <= set(whole.train)
    assert abs(2 * int((table["lesion"][few.train] > 0).sum()) - small) <= 1
    for other in (many, whole):
        assert (few.test.tolist(), few.validation.tolist()) == (other.test.tolist(), other.validation.tolist())


@pytest.mark.parametrize("budget", [0, 11])
def test_a_budget_of_slices_that_were_not_drawn_is_refused(budget: int) -> None:
    table, patients = world()

    with pytest.raises(ProtocolError, match=f"from 1 to the 10 .* got {budget}"):
        split_by_slice(table, np.arange(len(table)), patients, train=10, validation=4, seed=0, budget=budget)


def patients_of(split: Split) -> list[tuple[str, ...]]:
    return [split.patients_of(part) for part in ("train", "validation", "test")]


def draw(patients: int = 8, healthy: int = 0, **options: int | float | None) -> list[tuple[str, ...]]:
    """Patients who train, stop the training and are tested."""
    table, who = world(patients)
    table["lesion"][np.isin(who, [f"p{n}" for n in range(patients - healthy, patients)])] = 0
    settings = {"test_share": 0.4, "validation_patients": 1, "seed": 3} | options
    return patients_of(split_by_patient(table, np.arange(len(table)), who, **settings))  # type: ignore[arg-type]


def test_what_seed_3_drew_stays_drawn() -> None:
    assert draw(budget=2) == [("p4", "p5"), ("p1",), ("p2", "p6", "p7")]


@given(seed=st.integers(0, 1000), budget=st.sampled_from([None, 1, 3]))
def test_a_test_seed_that_is_the_seed_changes_nothing(seed: int, budget: int | None) -> None:
    assert draw(seed=seed, budget=budget) == draw(seed=seed, budget=budget, test_seed=seed)


@given(test_seed=st.integers(0, 1000), seeds=st.tuples(st.integers(0, 1000), st.integers(0, 1000)))
def test_the_tested_depend_on_the_test_seed_alone(test_seed: int, seeds: tuple[int, int]) -> None:
    one, other = (draw(seed=seed, test_seed=test_seed) for seed in seeds)

    assert one[2] == other[2] == draw(seed=test_seed)[2]


def test_the_seed_still_draws_who_trains() -> None:
    assert len({tuple(draw(seed=seed, test_seed=0, budget=1)[0]) for seed in range(20)}) > 2


def test_the_test_seed_still_draws_who_is_tested() -> None:
    assert len({tuple(draw(seed=0, test_seed=seed)[2]) for seed in range(20)}) > 2


@given(
    ill=st.integers(6, 11),
    healthy=st.integers(0, 3),
    folds=st.integers(3, 6),
    seed=st.integers(0, 1000),
    test_seed=st.none() | st.integers(0, 1000),
)
def test_over_the_folds_every_ill_patient_is_tested_once(
    ill: int, healthy: int, folds: int, seed: int, test_seed: int | None
) -> None:
    everyone = {f"p{n}" for n in range(ill + healthy)}
    drawn = [
        draw(ill + healthy, healthy, folds=folds, fold=fold, seed=seed, test_seed=test_seed) for fold in range(folds)
    ]
    tested = [who for _, _, fold in drawn for who in fold]

    assert sorted(tested) == sorted(f"p{n}" for n in range(ill))
    assert {len(fold[2]) for fold in drawn} <= {ill // folds, -(-ill // folds)}
    for train, validation, test in drawn:
        assert set(train) | set(validation) | set(test) == everyone
        assert len(validation) == 1


@given(seed=st.integers(0, 1000), fold=st.integers(0, 3), budget=st.integers(1, 4))
def test_a_folds_test_and_validation_do_not_depend_on_the_budget(seed: int, fold: int, budget: int) -> None:
    few, all_left = (draw(folds=4, fold=fold, seed=seed, budget=n) for n in (budget, None))

    assert few[1:] == all_left[1:]
    assert len(few[0]) == budget
    assert set(few[0]) <= set(all_left[0])


def test_a_budget_that_a_fold_does_not_leave_names_the_folds() -> None:
    with pytest.raises(ProtocolError, match=r"in folds of 3, 3 and 2 tested .* leave 4 to train on; 5 were asked for"):
        draw(folds=3, fold=0, budget=5)


@pytest.mark.parametrize(
    ("folds", "fold"),
    [
        pytest.param(1, 0, id="one fold tests everyone"),
        pytest.param(9, 0, id="more folds than patients"),
        pytest.param(3, 3, id="no such fold"),
        pytest.param(3, None, id="which one?"),
        pytest.param(0, 1, id="of no folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(folds: int, fold: int | None) -> None:
    with pytest.raises(ProtocolError, match="8 patients with lesion"):
        draw(folds=folds, fold=fold)


def test_a_split_by_case_keeps_cases_whole_though_not_patients() -> None:
    patients, cases = np.array(["anna", "anna", "ben", "cleo"]), np.array(["a1", "a2", "b", "c"])
    train, validation, test = np.array([0]), np.array([2]), np.array([1, 3])

    assert Split("case", train, validation, test, patients, cases=cases).leaky
    with pytest.raises(LeakageError, match="Cases on two sides of a split by case: a"):
        Split("case", train, validation, test, patients, cases=np.array(["a", "a", "b", "c"]))
    with pytest.raises(ProtocolError, match="give cases"):
        Split("case", train, validation, test, patients)


def scanned_twice(patients: int, visits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patients with cases of 20 slices each: the table, and patient and case of each row."""
    table, cases = world(patients * visits)
    return table, np.array([f"p{case // visits}" for case in table["case"]]), cases


@given(
    patients=st.integers(3, 7), visits=st.integers(1, 3), share=st.sampled_from([0.2, 0.4]), seed=st.integers(0, 1000)
)
def test_what_a_leak_is_worth_is_asked_with_one_test_and_as_much_training(
    patients: int, visits: int, share: float, seed: int
) -> None:
    table, who, cases = scanned_twice(patients, visits)
    splits = leak_splits(table, np.arange(len(table)), who, cases, test_share=share, seed=seed)

    assert set(splits) == {"slice", "case", "patient"}
    assert {kind: split.kind for kind, split in splits.items()} == {kind: kind for kind in splits}
    for part in ("test", "validation"):
        assert len({tuple(getattr(split, part)) for split in splits.values()}) == 1
    assert len({len(split.train) for split in splits.values()}) == 1


@given(patients=st.integers(3, 7), visits=st.integers(1, 3), seed=st.integers(0, 1000))
def test_each_split_trains_on_what_it_allows_and_nothing_else(patients: int, visits: int, seed: int) -> None:
    table, who, cases = scanned_twice(patients, visits)
    splits = leak_splits(table, np.arange(len(table)), who, cases, test_share=0.4, seed=seed)
    by_patient, by_case, by_slice = (splits[kind] for kind in ("patient", "case", "slice"))

    assert not set(who[by_patient.train]) & set(who[by_patient.test])
    assert not set(cases[by_case.train]) & set(cases[by_case.test])
    assert not set(by_slice.train) & set(by_slice.test)
    for split in splits.values():
        assert split.leaky == bool(set(who[split.train]) & set(who[split.test]))
        assert not set(who[split.validation]) & (set(who[split.train]) | set(who[split.test]))


@given(patients=st.integers(3, 7), visits=st.integers(1, 3), seed=st.integers(0, 1000))
def test_half_of_one_case_of_each_tested_patient_is_tested(patients: int, visits: int, seed: int) -> None:
    table, who, cases = scanned_twice(patients, visits)
    split = leak_splits(table, np.arange(len(table)), who, cases, test_share=0.4, seed=seed)["patient"]

    for patient in split.patients_of("test"):
        mine = split.test[who[split.test] == patient]
        assert len(set(cases[mine])) == 1
        assert [(table["lesion"][mine] > 0).sum(), (table["lesion"][mine] == 0).sum()] == [5, 5]


@given(patients=st.integers(3, 7), seed=st.integers(0, 1000))
def test_with_one_case_a_patient_by_case_is_by_patient(patients: int, seed: int) -> None:
    table, who, cases = scanned_twice(patients, 1)
    splits = leak_splits(table, np.arange(len(table)), who, cases, test_share=0.4, seed=seed)

    assert splits["case"].train.tolist() == splits["patient"].train.tolist()
    assert not splits["case"].leaky


def test_what_leaks_is_trained_on_in_its_natural_share() -> None:
    table, who, cases = scanned_twice(6, 2)
    shares: dict[str, list[float]] = {"slice": [], "case": []}
    for seed in range(200):
        splits = leak_splits(table, np.arange(len(table)), who, cases, test_share=1 / 3, seed=seed)
        tested = splits["patient"].patients_of("test")
        for kind, found in shares.items():
            found.append(float(np.isin(who[splits[kind].train], tested).mean()))

    # 2 tested patients: 40 slices of their other cases and 20 of the tested ones; 3 other patients: 120 slices
    assert np.mean(shares["case"]) == pytest.approx(40 / 160, abs=0.01)
    assert np.mean(shares["slice"]) == pytest.approx(60 / 180, abs=0.01)
    assert min(shares["slice"]) > 0.2


def test_healthy_cases_and_patients_are_never_tested_for_leaks() -> None:
    table, who, cases = scanned_twice(5, 2)
    table["lesion"][np.isin(cases, ["p0", "p3", "p8", "p9"])] = 0  # one case of two patients, both of another

    for seed in range(20):
        split = leak_splits(table, np.arange(len(table)), who, cases, test_share=0.5, seed=seed)["slice"]
        assert not {"p0", "p3", "p8", "p9"} & set(cases[split.test])


def test_a_split_without_any_lesion_to_learn_is_refused() -> None:
    table, patients = world(5)
    table["lesion"][~np.isin(patients, ["p0", "p1"])] = 0

    with pytest.raises(ProtocolError, match="none of them is left to train on"):
        split_by_patient(table, np.arange(len(table)), patients, test_share=0.4, validation_patients=1, seed=0)
