"""No network judges a patient that it was trained on, and a run that was stopped asks nothing twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.case import Cohort
from lungshift.ct.volume import Mask
from lungshift.errors import ProtocolError
from lungshift.learn.checkpoint import load_checkpoint
from lungshift.learn.settings import NetworkSettings, TrainingSettings
from lungshift.transfer.out_of_fold import OutOfFold, predict_out_of_fold
from lungshift.transfer.protocol import PrepareSettings, Protocol
from lungshift.transfer.watcher import Silent
from worlds import cohort_of, tiny_case

TINY = Protocol(
    "tiny",
    prepare=PrepareSettings(size=16),
    network=NetworkSettings(width=2, levels=2),
    training=TrainingSettings(epochs=1, patience=0, batch=8, micro_batch=8, learning_rate=1e-2),
    seeds=(0, 1),
)


def cohort() -> Cohort:
    """Four patients with lesion and one whose mask is empty."""
    cases = [tiny_case(seed) for seed in range(5)]
    healthy = np.zeros(cases[4].volume.geometry.shape, bool)
    cases[4] = replace(cases[4], lesion=Mask(healthy, cases[4].volume.geometry))
    return cohort_of(*cases)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[OutOfFold, Path]:
    folder = tmp_path_factory.mktemp("out")
    return predict_out_of_fold(TINY, cohort(), folder, folds=2, device="cpu"), folder


def test_every_case_is_asked_about_those_without_lesion_too(run: tuple[OutOfFold, Path]) -> None:
    assert run[0].numbers == (0, 1, 2, 3, 4)


def test_no_network_saw_the_patient_it_is_asked_about(run: tuple[OutOfFold, Path]) -> None:
    found, folder = run
    for checkpoint in (folder / "checkpoints").iterdir():
        fold = int(checkpoint.name[len("fold")]) - 1
        seen = {who for part in load_checkpoint(checkpoint).trained_on for who in part["patients"]}

        assert not seen & {who for who, its in found.fold_of.items() if its == fold}


def test_an_opinion_is_the_mean_of_the_seeds_and_lies_between_0_and_1(run: tuple[OutOfFold, Path]) -> None:
    found = run[0]
    alone = [replace(found, seeds=(seed,)).opinion(0) for seed in (0, 1)]
    both = found.opinion(0)

    np.testing.assert_allclose(both.probability, (alone[0].probability + alone[1].probability) / 2, atol=1e-6)
    np.testing.assert_allclose(both.votes, (alone[0].votes + alone[1].votes) / 2)
    assert set(np.unique(both.votes)) <= {0.0, 0.5, 1.0}
    assert (alone[0].spread == 0).all()
    assert 0 <= both.probability.min() <= both.probability.max() <= 1


class Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text.split(maxsplit=1)[0])


def test_what_is_done_is_not_done_again_and_what_was_lost_is(run: tuple[OutOfFold, Path]) -> None:
    found, folder = run
    before, again = found.opinion(2).probability, Listening()
    (folder / "out_of_fold" / "seed1" / "case2.npz").write_bytes(b"half")

    predict_out_of_fold(TINY, cohort(), folder, folds=2, device="cpu", watcher=again)

    assert again.said == ["Preparing", "Asking"]
    np.testing.assert_array_equal(found.opinion(2).probability, before)


@pytest.mark.parametrize("folds", [1, 5])
def test_folds_need_patients_with_lesion(tmp_path: Path, folds: int) -> None:
    with pytest.raises(ProtocolError, match=r"4 patients with lesion.*Got"):
        predict_out_of_fold(TINY, cohort(), tmp_path, folds=folds, device="cpu")
