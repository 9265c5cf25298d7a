"""What a scan and the network say of a prediction, on networks whose answer is known and without a look at any label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CheckpointError
from lungshift.learn import signs
from lungshift.learn.checkpoint import Checkpoint, Decision, build_network
from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor
from lungshift.learn.settings import NetworkSettings
from lungshift.learn.signs import Signs, identify_model, signs_of_case
from lungshift.learn.unet import UNet
from lungshift.prepare.prepared import PreparedCohort, prepare_cohort
from lungshift.prepare.windows import Window
from worlds import cohort_of

NETWORK = NetworkSettings(width=1, levels=1, windows=(Window(-1000, 0),))
HU, LUNG = 0, 1
"""Input channels."""


def checkpoint_of(change: Callable[[UNet], None], decision: Decision | None = None) -> Checkpoint:
    """A network whose weights are 0 but for what ``change`` sets."""
    network = build_network(NETWORK)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        change(network)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return Checkpoint(weights, NETWORK, 32, decision=decision or Decision())


def brighter_than(channel: int, level: float) -> Callable[[UNet], None]:
    """The network that says lesion where an input channel is above a level."""

    def change(network: UNet) -> None:
        network.down[0][0].weight[0, channel, 1, 1] = 1  # type: ignore[index]
        for layer in (network.down[0][3], network.up[0][0], network.up[0][3]):  # type: ignore[index]
            layer.weight[0, 0, 1, 1] = 1
        network.last.weight[:] = 1000
        network.last.bias[:] = -1000 * level

    return change


def says_lung_at_the_bottom(network: UNet) -> None:
    """The first of two channels at the bottom of the U is the lung mask."""
    network.down[0][0].weight[0, LUNG, 1, 1] = 1  # type: ignore[index]
    for layer in (network.down[0][3], network.down[1][0], network.down[1][3]):  # type: ignore[index]
        layer.weight[0, 0, 1, 1] = 1


def scan(*, lung: bool = True) -> Case:
    """Lung of -800 HU in three of four slices, with 48 pixels of -490 and 48 of -200 in the second."""
    geometry = Geometry.regular((4, 32, 32), (5.0, 2.0, 2.0))
    hu = np.full(geometry.shape, -800, np.int16)
    lungs, lesion = np.zeros((2, *geometry.shape), bool)
    lungs[1:, 8:24, 4:28] = lung
    hu[1, 10:14, 8:20], hu[1, 16:20, 8:20] = -490, -200
    return Case(Volume(hu, geometry), Mask(lungs, geometry), Mask(lesion, geometry), "one")


def signs_of(folder: Path, checkpoint: Checkpoint, case: Case | None = None) -> Signs:
    prepared = prepare_cohort(cohort_of(case or scan()), folder, size=32)
    return signs_of_case(Predictor.of(checkpoint, "cpu", "fp32"), SliceSet.of(prepared, np.arange(4)))


def test_no_label_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a label was read")

    monkeypatch.setattr(PreparedCohort, "lesion", refuse)
    monkeypatch.setattr(PreparedCohort, "native_lesion", refuse)

    assert signs_of(folder, checkpoint_of(brighter_than(HU, 0.5))).predicts


def test_agreement_is_the_mean_dice_of_all_pairs_of_views(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "VIEWS", signs.VIEWS[:4])
    found = signs_of(folder, checkpoint_of(brighter_than(HU, 0.5)))

    # 30 HU less, and 48 of 96 pixels are no longer predicted: three of the six pairs have a Dice of 2 * 48 / (96 + 48).
    assert found.agreement == pytest.approx((3 * 1 + 3 * 2 / 3) / 6)
    assert found.share == pytest.approx(96 / (3 * 16 * 24))


def test_a_sure_network_agrees_with_itself_however_the_picture_lies(folder: Path) -> None:
    found = signs_of(folder, checkpoint_of(brighter_than(LUNG, 0.5)))

    assert found.agreement > 0.97
    assert (found.share, found.entropy) == pytest.approx((1, 0), abs=1e-4)


def test_a_network_that_does_not_know_has_an_entropy_of_one_bit(folder: Path) -> None:
    found = signs_of(folder, checkpoint_of(lambda _: None))

    assert found.entropy == pytest.approx(1)


def test_features_are_means_over_the_lung_and_hu_are_those_of_the_lung(folder: Path) -> None:
    found = signs_of(folder, checkpoint_of(says_lung_at_the_bottom))

    np.testing.assert_allclose(found.features, [1, 0])
    np.testing.assert_array_equal(found.lung_hu, [-800, -800, -800, -800, -490])


def test_without_lung_nothing_is_known(folder: Path) -> None:
    found = signs_of(folder, checkpoint_of(brighter_than(HU, 0.5)), scan(lung=False))

    assert not found.predicts
    assert np.isnan([found.agreement, found.entropy, found.share, *found.features, *found.lung_hu]).all()


def test_where_nothing_is_predicted_there_is_no_agreement(folder: Path) -> None:
    found = signs_of(folder, checkpoint_of(brighter_than(HU, 0.99)))

    assert (found.predicts, found.share) == (False, 0)
    assert np.isnan([found.agreement, found.entropy]).all()


def test_the_order_of_slices_does_not_matter(prepared: PreparedCohort) -> None:
    torch.manual_seed(2)
    network = NetworkSettings(width=2, levels=2, crop=True, neighbours=1, neighbour_mm=5.0)
    checkpoint = Checkpoint(
        dict(build_network(network).state_dict()), network, 32, decision=Decision(0.474, flips=True)
    )
    predictor, rows = Predictor.of(checkpoint, "cpu", "fp32"), np.arange(15)

    one, other = (signs_of_case(predictor, SliceSet.of(prepared, order)) for order in (rows, rows[::-1].copy()))

    assert (one.agreement, one.share) == pytest.approx((other.agreement, other.share))
    np.testing.assert_allclose(one.features, other.features, rtol=1e-5)
    np.testing.assert_array_equal(one.lung_hu, other.lung_hu)


def test_a_model_is_known_by_what_it_predicts_with() -> None:
    ours = checkpoint_of(brighter_than(HU, 0.5))
    others = [
        checkpoint_of(brighter_than(HU, 0.4)),
        ours.with_decision(Decision(threshold=0.4)),
        replace(ours, interpolation="nearest"),
    ]

    assert identify_model(ours) == identify_model(replace(ours, fingerprint="same weights by another name"))
    assert len({identify_model(one) for one in (ours, *others)}) == 4


def test_slices_prepared_at_another_size_are_refused(prepared: PreparedCohort) -> None:
    checkpoint = replace(checkpoint_of(lambda _: None), size=64)

    with pytest.raises(CheckpointError, match="pictures of 64 pixels"):
        signs_of_case(Predictor.of(checkpoint, "cpu", "fp32"), SliceSet.of(prepared, np.array([1])))
