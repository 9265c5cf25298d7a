"""The study, end to end, on worlds that train in seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.case import Case, Cohort
from lungshift.errors import CohortError, LeakageError, ProtocolError
from lungshift.learn.checkpoint import load_checkpoint
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.measure.overlap import Counts
from lungshift.show.scores import write_scores
from lungshift.transfer.arms import ARMS
from lungshift.transfer.chains import chain_transfer
from lungshift.transfer.outcome import Outcome
from lungshift.transfer.protocol import DecisionSettings, PrepareSettings, Protocol, SplitSettings
from lungshift.transfer.single import Trained, evaluate_cohort, train_cohort
from lungshift.transfer.study import run, run_chain, run_leave_one_out
from lungshift.transfer.watcher import Silent
from lungshift.workers import Workers
from worlds import cohort_of, tiny_case

SHORT = TrainingSettings(epochs=1, patience=0, batch=8, micro_batch=8, learning_rate=1e-2)
TINY = Protocol(
    "tiny",
    prepare=PrepareSettings(size=16),
    split=SplitSettings(test_share=0.4, validation_patients=1),
    network=NetworkSettings(width=2, levels=2),
    training=SHORT,
    fine_tuning=SHORT,
    decision=DecisionSettings(choose_on_validation=True),
    budgets=(1, 2),
)
EVERY = replace(
    TINY,
    network=NetworkSettings(width=2, levels=2, norm="batch"),
    split=SplitSettings(test_share=0.4, folds=2, test_seed=0),
    arms=tuple(ARMS),
    budgets=(0, 1),
    price_leak=True,
    explain_drop=False,
)
BY_SLICE = replace(TINY, budgets=(), split=SplitSettings("slice", train_slices=8, validation_slices=4))


def cohort(name: str, first: int, **options: int) -> Cohort:
    return cohort_of(*(tiny_case(seed, **options) for seed in range(first, first + 5)), name=name)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(TINY, cohort("home", 0), cohort("away", 10), tmp_path_factory.mktemp("study"), device="cpu")


def test_every_arm_is_tested_on_the_same_held_out_slices(outcome: Outcome) -> None:
    away = [run for run in outcome.runs if run.role == "target"]

    assert [(run.arm, run.budget) for run in away] == [
        ("zero_shot", "nothing"),
        ("fine_tuned", "1 patient and 1 to validate"),
        ("fine_tuned", "2 patients and 1 to validate"),
    ]
    assert len({(tuple(run.scores.cases), tuple(run.scores.slices)) for run in away}) == 1


def test_no_patient_stands_on_two_sides(outcome: Outcome) -> None:
    assert not outcome.leaky
    for split in outcome.splits:
        sides = [set(split.patients[part]) for part in ("train", "validation", "test")]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        assert not sides[0] & sides[1]


def test_counts_hold_every_pixel_of_every_tested_slice(outcome: Outcome) -> None:
    for tested in outcome.runs:
        assert (tested.scores.counts.sum(axis=1) == 16 * 16).all()
        assert (tested.scores.in_lung.sum(axis=1) < 16 * 16).all()


def test_scores_on_the_scans_own_pixels_count_its_own_reference(outcome: Outcome) -> None:
    for tested in outcome.runs:
        native = tested.scores.native
        assert native is not None
        assert (native.sum(axis=1) == 32 * 32).all()
        lesion = Counts.of(native)
        assert lesion.tp + lesion.fn == 16 * (tested.scores.counts[:, [0, 2]].sum(axis=1) > 0).sum()


def test_the_manifest_says_what_the_result_depends_on(outcome: Outcome) -> None:
    assert outcome.manifest["protocol"]["seeds"] == (0,)
    assert set(outcome.manifest["inputs"]) == {"home", "away"}
    assert {"torch", "python", "threads", "instructions"} <= set(outcome.manifest["software"])


def test_examples_are_good_typical_and_bad(outcome: Outcome) -> None:
    kinds = [example.kind for example in outcome.examples]
    first = {example.kind: example.dice for example in outcome.examples[:3]}

    assert kinds[:3] == ["good", "typical", "bad"]
    assert first["good"] >= first["typical"] >= first["bad"]


def test_a_study_that_is_run_again_in_its_folder_trains_nothing_and_says_the_same(tmp_path: Path) -> None:
    once = run(TINY, cohort("home", 0), cohort("away", 10), tmp_path, device="cpu")
    stages: list[str] = []

    class Listening(Silent):
        def stage(self, text: str) -> None:
            stages.append(text)

    again = run(TINY, cohort("home", 0), cohort("away", 10), tmp_path, device="cpu", watcher=Listening())

    assert not [stage for stage in stages if stage.startswith("Training")]
    for one, other in zip(once.runs, again.runs, strict=True):
        np.testing.assert_array_equal(one.scores.counts, other.scores.counts)
    assert not list((tmp_path / "checkpoints").glob("*.state.*"))


def test_the_split_by_slice_is_called_leaky(tmp_path: Path) -> None:
    leaky = run(BY_SLICE, cohort("home", 0), cohort("away", 10), tmp_path, device="cpu")

    assert leaky.leaky
    assert [run.budget for run in leaky.runs if run.role == "target"] == ["nothing", "8 slices and 4 to validate"]


def test_each_seed_has_its_own_runs(tmp_path: Path) -> None:
    two = run(replace(TINY, seeds=(0, 1), budgets=(1,)), cohort("home", 0), cohort("away", 10), tmp_path, device="cpu")

    assert [run.seed for run in two.runs] == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("arms", [("zero_shot",), ("fine_tuned",)])
def test_only_the_arms_that_were_asked_for_are_run(tmp_path: Path, arms: tuple) -> None:
    some = run(replace(TINY, arms=arms, budgets=(1,)), cohort("home", 0), cohort("away", 10), tmp_path, device="cpu")

    assert tuple(run.arm for run in some.runs if run.role == "target") == arms


@pytest.fixture(scope="module")
def every_arm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    folder = tmp_path_factory.mktemp("every")
    return run(EVERY, cohort("home", 0), cohort("away", 10), folder, device="cpu"), folder


def test_every_arm_is_tested_abroad_and_those_with_labels_at_home_again(every_arm: tuple[Outcome, Path]) -> None:
    outcome, _ = every_arm
    roles = {arm: {run.role for run in outcome.runs if run.arm == arm} for arm in ARMS}

    assert roles == {arm: {"target", "source"} if ARMS[arm].labels else {"target"} for arm in ARMS}


def test_over_the_folds_every_patient_is_tested_once(every_arm: tuple[Outcome, Path]) -> None:
    outcome, _ = every_arm
    for arm in ARMS:
        tested = [run for run in outcome.runs if run.arm == arm and run.role == "target"]
        assert [run.fold for run in tested] == [0, 1]
        patients = [set(run.scores.patients) for run in tested]
        assert not patients[0] & patients[1]
        assert len(patients[0] | patients[1]) == 5


def test_layers_that_an_arm_does_not_train_stay_as_the_source_left_them(every_arm: tuple[Outcome, Path]) -> None:
    _, folder = every_arm
    source, frozen, head = (
        load_checkpoint(folder / "checkpoints" / name).weights
        for name in ("source-seed0", "frozen_encoder-1_patient-seed0-fold1", "head_only-1_patient-seed0-fold1")
    )
    changed = {
        arm: {name.split(".")[0] for name in source if not (source[name] == weights[name]).all()}
        for arm, weights in (("frozen", frozen), ("head", head))
    }

    assert changed == {"frozen": {"grow", "up", "last"}, "head": {"last"}}


def test_the_price_of_leakage_is_kept_apart_from_the_arms(every_arm: tuple[Outcome, Path]) -> None:
    outcome, _ = every_arm

    assert [run.arm for run in outcome.leak] == ["split_by_slice", "split_by_case", "split_by_patient"]
    assert len({tuple(run.scores.slices) for run in outcome.leak}) == 1
    assert not any(run.arm.startswith("split") for run in outcome.runs)


def test_processes_side_by_side_find_what_one_finds(every_arm: tuple[Outcome, Path], tmp_path: Path) -> None:
    alone, _ = every_arm
    two = run(EVERY, cohort("home", 0), cohort("away", 10), tmp_path, device="cpu", workers=Workers(2))

    for one, other in zip((*alone.runs, *alone.leak), (*two.runs, *two.leak), strict=True):
        assert one.label == other.label
        np.testing.assert_array_equal(one.scores.counts, other.scores.counts)


def test_a_chain_is_tested_on_all_cohorts_after_each(tmp_path: Path) -> None:
    cohorts = [cohort(name, 10 * number) for number, name in enumerate(("first", "second", "third"))]
    chain = run_chain(replace(TINY, budgets=()), cohorts, tmp_path, device="cpu")
    told = chain_transfer(chain)

    assert (chain.kind, [one.name for one in chain.cohorts]) == ("chain", ["first", "second", "third"])
    assert len(chain.runs) == 9
    assert np.isnan(told.backward).tolist() == [False, False, True]
    assert np.isnan(told.forward).tolist() == [True, True, False]


def test_each_cohort_is_left_out_in_turn(tmp_path: Path) -> None:
    cohorts = [cohort(name, 10 * number) for number, name in enumerate(("first", "second", "third"))]
    left = run_leave_one_out(replace(TINY, budgets=()), cohorts, tmp_path, device="cpu")

    assert [(run.arm, run.tested_on, run.trained_on) for run in left.runs[:2]] == [
        ("leave_one_out", "first", ("second", "third")),
        ("at_home", "first", ("first",)),
    ]


def test_one_cohort_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="at least two cohorts"):
        run_chain(TINY, [cohort("home", 0)], tmp_path)


def test_cohorts_that_share_a_scan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LeakageError, match="case4 of home and case4 of away are one scan"):
        run(TINY, cohort("home", 0), cohort("away", 4), tmp_path, device="cpu")


def test_a_cohort_against_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="different names"):
        run(TINY, cohort("home", 0), cohort("home", 10), tmp_path, device="cpu")


def test_a_case_without_lesion_mask_is_named(tmp_path: Path) -> None:
    bare = tiny_case(20)
    broken = cohort_of(tiny_case(10), Case(bare.volume, bare.lung, None, "bare"), name="away")

    with pytest.raises(CohortError, match="no lesion mask for bare"):
        run(TINY, cohort("home", 0), broken, tmp_path, device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_cohort(TINY, cohort("home", 0), tmp_path_factory.mktemp("train"), device="cpu")


class TestOneCohort:
    def test_training_keeps_a_checkpoint_and_scores_the_patients_held_back(self, trained: Trained) -> None:
        assert load_checkpoint(trained.folder).fingerprint == trained.checkpoint.fingerprint
        assert set(trained.scores.patients) == set(trained.split.patients["test"])

    def test_fine_tuning_remembers_its_parent(self, trained: Trained, tmp_path: Path) -> None:
        tuned = train_cohort(TINY, cohort("away", 10), tmp_path, start=trained.checkpoint, budget=1, device="cpu")

        assert tuned.checkpoint.parent is not None
        assert tuned.checkpoint.parent["trained_on"][0]["cohort"] == "home"
        assert len(tuned.split.patients["train"]) == 1

    def test_a_checkpoint_is_judged_on_another_cohort(self, trained: Trained, tmp_path: Path) -> None:
        judged = evaluate_cohort(trained.checkpoint, cohort("away", 10), tmp_path, device="cpu")

        assert len(set(judged.scores.patients)) == 5
        assert judged.known == ()

    @pytest.mark.parametrize("name", ["home", "the same files under another name"])
    def test_it_is_not_judged_on_what_it_was_trained_on(self, trained: Trained, tmp_path: Path, name: str) -> None:
        with pytest.raises(LeakageError, match="was trained on"):
            evaluate_cohort(trained.checkpoint, cohort(name, 0), tmp_path, device="cpu")

    def test_nor_on_what_chose_its_best_epoch(self, trained: Trained, tmp_path: Path) -> None:
        chosen_by = trained.split.patients["validation"][0]
        one = Cohort("home", tuple(case for case in cohort("home", 0).cases if case.patient_id == chosen_by))

        with pytest.raises(LeakageError, match=chosen_by):
            evaluate_cohort(trained.checkpoint, one, tmp_path, device="cpu")

    def test_unless_that_is_asked_for_and_then_it_is_said(self, trained: Trained, tmp_path: Path) -> None:
        judged = evaluate_cohort(trained.checkpoint, cohort("home", 0), tmp_path, allow_leak=True, device="cpu")

        text = write_scores(judged.scores, trained.checkpoint, "home", tmp_path, known=judged.known)

        assert set(judged.known) == {*trained.split.patients["train"], *trained.split.patients["validation"]}
        assert "WARNING" in text
        assert json.loads((tmp_path / "scores.json").read_text())["leaky"] is True

    def test_fine_tuning_at_home_does_not_test_what_the_parent_learned(self, trained: Trained, tmp_path: Path) -> None:
        with pytest.raises(LeakageError, match="was trained on, or chosen by"):
            train_cohort(replace(TINY, seeds=(3,)), cohort("home", 0), tmp_path, start=trained.checkpoint, device="cpu")


def test_one_scan_under_two_patients_is_refused(tmp_path: Path) -> None:
    twice = replace(tiny_case(10), case_id="again", patient_id="somebody else")

    with pytest.raises(LeakageError, match="case10 and again are one scan"):
        run(TINY, cohort("home", 0), cohort_of(tiny_case(10), twice, name="away"), tmp_path, device="cpu")


def test_a_budget_that_cannot_be_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="were asked for"):
        run(replace(TINY, budgets=(1, 20)), cohort("home", 0), cohort("away", 10), tmp_path, device="cpu")

    assert not (tmp_path / "checkpoints").exists()


def test_a_case_whose_lung_mask_is_empty_does_not_drop_out_of_the_mean(tmp_path: Path) -> None:
    case = tiny_case(10)
    assert case.lung is not None
    case.lung.voxels[:] = False

    with pytest.raises(CohortError, match="case10"):
        run(TINY, cohort("home", 0), cohort_of(case, tiny_case(11), name="away"), tmp_path, device="cpu")


def test_another_rule_for_masks_is_not_answered_with_the_old_one(tmp_path: Path) -> None:
    plain = replace(TINY, decision=DecisionSettings(), budgets=(1,))
    run(plain, cohort("home", 0), cohort("away", 10), tmp_path, device="cpu")

    strict = run(
        replace(plain, decision=DecisionSettings(threshold=0.9)),
        cohort("home", 0),
        cohort("away", 10),
        tmp_path,
        device="cpu",
    )

    assert {run.threshold for run in strict.runs} == {0.9}
