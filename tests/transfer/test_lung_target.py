"""A network that finds lungs is trained, fine-tuned and judged as one of lesions is, on readers' lung masks alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.case import Cohort
from lungshift.errors import CheckpointError, CohortError, LeakageError, ProtocolError
from lungshift.learn.checkpoint import load_checkpoint
from lungshift.learn.settings import Augmentation, NetworkSettings, TrainingSettings
from lungshift.show.scores import write_scores
from lungshift.transfer.forecast import calibrate
from lungshift.transfer.protocol import PrepareSettings, Protocol, read_protocol
from lungshift.transfer.single import Trained, evaluate_cohort, train_cohort
from lungshift.transfer.study import run
from worlds import cohort_of, tiny_case

SHORT = TrainingSettings(epochs=1, patience=0, batch=8, micro_batch=8, learning_rate=1e-2)
LUNG = Protocol(
    "tiny",
    prepare=PrepareSettings(size=16, slices="all"),
    network=NetworkSettings(width=2, levels=2, lung_channel=False, target="lung"),
    training=SHORT,
    fine_tuning=SHORT,
)
LESION = replace(LUNG, network=NetworkSettings(width=2, levels=2))
LUNG_PIXELS = (16 // 2) * (24 // 2)
"""Of a tiny case's slice with lung, on a picture of half its size."""


def cohort(name: str, first: int) -> Cohort:
    return cohort_of(*(tiny_case(seed) for seed in range(first, first + 5)), name=name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_cohort(LUNG, cohort("home", 0), tmp_path_factory.mktemp("lung"), device="cpu")


def test_the_reference_is_the_readers_lung_on_all_slices(trained: Trained) -> None:
    scores = trained.scores
    reference = scores.counts[:, 0] + scores.counts[:, 2]

    assert (scores.counts.sum(axis=1) == 16 * 16).all()
    np.testing.assert_array_equal(reference[scores.slices == 0], 0)
    np.testing.assert_array_equal(reference[scores.slices > 0], LUNG_PIXELS)
    assert set(scores.slices.tolist()) == set(range(5))


def test_the_checkpoint_says_what_it_finds(trained: Trained) -> None:
    assert load_checkpoint(trained.folder).network.target == "lung"


def test_the_words_for_the_terminal_say_that_lungs_were_scored(trained: Trained, tmp_path: Path) -> None:
    assert "The target is lung" in write_scores(trained.scores, trained.checkpoint, "home", tmp_path)


def test_lungs_may_be_learned_where_nobody_drew_lesions(tmp_path: Path) -> None:
    cases = (replace(tiny_case(seed), lesion=None) for seed in range(5))

    assert train_cohort(LUNG, cohort_of(*cases, name="healthy"), tmp_path, device="cpu").checkpoint.size == 16


def test_it_is_judged_elsewhere_and_not_where_it_learned(trained: Trained, tmp_path: Path) -> None:
    judged = evaluate_cohort(trained.checkpoint, cohort("away", 10), tmp_path, device="cpu")

    assert len(judged.scores.cases) == 25, "slices without lung too"
    with pytest.raises(LeakageError, match="was trained on"):
        evaluate_cohort(trained.checkpoint, cohort("home", 0), tmp_path, device="cpu")


def test_it_is_fine_tuned(trained: Trained, tmp_path: Path) -> None:
    tuned = train_cohort(LUNG, cohort("away", 10), tmp_path, start=trained.checkpoint, budget=1, device="cpu")

    assert tuned.checkpoint.network.target == "lung"
    assert tuned.checkpoint.parent is not None
    assert tuned.checkpoint.parent["network"]["target"] == "lung"


@pytest.mark.parametrize("source", ["threshold", "model", "none"])
def test_a_lung_mask_that_no_reader_drew_teaches_nothing(trained: Trained, tmp_path: Path, source: str) -> None:
    home = cohort("away", 10)
    other = replace(home.cases[2], lung_source=source)
    if source == "none":
        other = cohort_of(tiny_case(12, lung=False)).cases[0]
    mixed = replace(home, cases=(*home.cases[:2], other, *home.cases[3:]))

    for refused in (
        lambda: train_cohort(LUNG, mixed, tmp_path, device="cpu"),
        lambda: evaluate_cohort(trained.checkpoint, mixed, tmp_path, device="cpu"),
    ):
        with pytest.raises(CohortError, match=rf"case12 \({source}\)") as caught:
            refused()
        assert caught.value.code == "E_LUNG_SOURCE"


def test_a_lesion_is_not_learned_from_a_lung_checkpoint_nor_the_other_way_round(
    trained: Trained, tmp_path: Path
) -> None:
    lesions = train_cohort(LESION, cohort("home", 0), tmp_path / "lesion", device="cpu").checkpoint

    for protocol, start in ((LESION, trained.checkpoint), (LUNG, lesions)):
        with pytest.raises(CheckpointError) as caught:
            train_cohort(protocol, cohort("away", 10), tmp_path / "tuned", start=start, device="cpu")
        assert caught.value.code == "E_TARGET"
    assert not (tmp_path / "tuned").exists(), "before anything is prepared"


def test_no_study_and_no_forecast_is_made_of_lungs(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="about lesions") as caught:
        run(LUNG, cohort("home", 0), cohort("away", 10), tmp_path, device="cpu")
    assert caught.value.code == "E_TARGET"
    with pytest.raises(CheckpointError) as refused:
        calibrate(trained.checkpoint, (cohort("away", 10),), tmp_path, device="cpu")
    assert refused.value.code == "E_TARGET"


def test_the_shipped_protocol_finds_lungs_in_whole_pictures_of_all_slices() -> None:
    protocol = read_protocol("lung")

    assert (protocol.network.target, protocol.network.lung_channel, protocol.network.crop) == ("lung", False, False)
    assert protocol.prepare.slices == "all"


def test_dense_patches_are_not_painted_for_a_network_that_finds_lesions(tmp_path: Path) -> None:
    painting = replace(SHORT, augmentation=replace(Augmentation.none(), consolidation=0.5))

    with pytest.raises(ProtocolError, match="consolidation paints dense lung"):
        train_cohort(replace(LESION, training=painting), cohort("home", 0), tmp_path, device="cpu")
    assert train_cohort(replace(LUNG, training=painting), cohort("home", 0), tmp_path, device="cpu")
