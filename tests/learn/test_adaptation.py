"""A network is fitted to scans without their labels, and what was changed in it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lungshift.errors import CheckpointError, ProtocolError
from lungshift.learn.adaptation import adapt_batch_norm, adapt_tent
from lungshift.learn.checkpoint import Checkpoint, Decision, build_network, load_checkpoint, save_checkpoint
from lungshift.learn.data import make_images
from lungshift.learn.pictures import SliceSet, cut_slices
from lungshift.learn.prediction import Predictor, predict_slices
from lungshift.learn.settings import NetworkSettings
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.prepare.windows import Window

NETWORK = NetworkSettings(width=4, levels=2, norm="batch", dropout=0.5, windows=(Window(-1024, 3000),))


def checkpoint_of(network: NetworkSettings = NETWORK) -> Checkpoint:
    torch.manual_seed(1)
    weights = {name: tensor.clone() for name, tensor in build_network(network).state_dict().items()}
    return Checkpoint(weights, network, 32, decision=Decision(0.3, 7), seed=4, fingerprint="source")


def slices_of(cohort: PreparedCohort, *rows: int) -> SliceSet:
    return SliceSet.of(cohort, np.array(rows or range(15)))


def moved(before: Checkpoint, after: Checkpoint) -> set[str]:
    return {name for name, tensor in after.weights.items() if not np.array_equal(tensor, before.weights[name])}


def names_of(checkpoint: Checkpoint, *endings: str) -> set[str]:
    """Of the tensors of batch norms, which alone have running statistics."""
    norms = {name.removesuffix(".running_mean") for name in checkpoint.weights if name.endswith(".running_mean")}
    return {f"{norm}.{ending}" for norm in norms for ending in endings}


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def probability(checkpoint: Checkpoint, slices: SliceSet) -> np.ndarray:
    predictor = Predictor.of(checkpoint, "cpu", "fp32")
    return np.concatenate([batch for _, batch in predict_slices(predictor, slices)])


def entropy(checkpoint: Checkpoint, slices: SliceSet) -> float:
    p = probability(checkpoint, slices).astype(float)[:, 8:24, 4:28].clip(1e-9, 1 - 1e-9)
    return float(-(p * np.log(p) + (1 - p) * np.log(1 - p)).mean())


def first_convolution(checkpoint: Checkpoint, slices: SliceSet, chosen: list[int]) -> torch.Tensor:
    hu, masks = cut_slices(slices, chosen, checkpoint.network)
    with torch.no_grad():
        return checkpoint.build().down[0][0](make_images(hu, masks[:, 0], checkpoint.network))


@pytest.mark.parametrize("crop", [False, True])
def test_the_first_norm_has_the_mean_and_variance_of_what_reaches_it(prepared: PreparedCohort, crop: bool) -> None:
    source = checkpoint_of(replace(NETWORK, crop=crop))

    adapted = adapt_batch_norm(source, slices_of(prepared, 1, 2, 3, 0), device="cpu")

    seen = first_convolution(source, slices_of(prepared, 1, 2, 3), [0, 1, 2])
    var, mean = torch.var_mean(seen, dim=(0, 2, 3))
    np.testing.assert_allclose(adapted.weights["down.0.1.running_mean"], mean, rtol=1.3e-6, atol=1e-5)
    np.testing.assert_allclose(adapted.weights["down.0.1.running_var"], var, rtol=1.3e-6, atol=1e-5)


def test_batches_count_alike(prepared: PreparedCohort) -> None:
    """Twelve slices with lung are two batches of six: the mean over both is that over all."""
    source, slices = checkpoint_of(), slices_of(prepared)

    adapted = adapt_batch_norm(source, slices, device="cpu")

    assert adapted.weights["down.0.1.num_batches_tracked"] == 2
    alive = np.flatnonzero(slices.boxes.any(axis=1)).tolist()
    mean = first_convolution(source, slices, alive).mean(dim=(0, 2, 3))
    np.testing.assert_allclose(adapted.weights["down.0.1.running_mean"], mean, rtol=1.3e-6, atol=1e-5)


def test_only_statistics_change(prepared: PreparedCohort) -> None:
    source = checkpoint_of()
    before = {name: weight.copy() for name, weight in source.weights.items()}

    adapted = adapt_batch_norm(source, slices_of(prepared), device="cpu")

    assert moved(source, adapted) == names_of(source, *STATISTICS)
    assert all(np.array_equal(source.weights[name], weight) for name, weight in before.items()), "the source is kept"


def test_another_gain_of_the_scanner_is_undone(prepared: PreparedCohort) -> None:
    source = checkpoint_of(replace(NETWORK, lung_channel=False))
    brighter = changed(prepared, "twice", hu=lambda _, hu: 2 * (hu + np.int16(1024)) - np.int16(1024))
    here, there = slices_of(prepared), slices_of(brighter)

    home = adapt_batch_norm(source, here, device="cpu")
    wanted = probability(home, here)
    repaired = probability(adapt_batch_norm(home, there, device="cpu"), there)

    np.testing.assert_allclose(repaired, wanted, atol=0.01)
    assert np.abs(probability(home, there) - wanted).max() > 0.1


def test_tent_is_surer_after_every_pass(prepared: PreparedCohort) -> None:
    source, slices = checkpoint_of(), slices_of(prepared)

    passes = [adapt_tent(source, slices, steps=steps, learning_rate=0.02, device="cpu") for steps in (1, 4, 16)]

    values = [entropy(one, slices) for one in (adapt_batch_norm(source, slices, device="cpu"), *passes)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.8 * values[0]


def test_tent_changes_batch_norms_alone(prepared: PreparedCohort) -> None:
    source = checkpoint_of()

    assert moved(source, adapt_tent(source, slices_of(prepared), device="cpu")) == names_of(
        source, "weight", "bias", *STATISTICS
    )


def test_tent_looks_inside_the_lung_where_the_network_sees_it(prepared: PreparedCohort) -> None:
    """Without lung in the masks there is no pixel to be sure of; a network that sees no mask looks at every pixel."""
    nowhere = slices_of(changed(prepared, "no lung", lung=lambda _, lung: np.zeros_like(lung)))
    blind = checkpoint_of(replace(NETWORK, lung_channel=False))

    assert moved(checkpoint_of(), adapt_tent(checkpoint_of(), nowhere, device="cpu")) == names_of(blind, *STATISTICS)
    assert moved(blind, adapt_tent(blind, nowhere, device="cpu")) > names_of(blind, "weight", "bias")


ADAPTATIONS = pytest.mark.parametrize("adapt", [adapt_batch_norm, adapt_tent])


@ADAPTATIONS
def test_the_same_slices_give_the_same_bits(prepared: PreparedCohort, adapt) -> None:  # type: ignore[no-untyped-def]
    one, other = (adapt(checkpoint_of(), slices_of(prepared), device="cpu") for _ in range(2))

    assert not moved(one, other)
    assert one.fingerprint == other.fingerprint


@ADAPTATIONS
def test_no_label_is_read(prepared: PreparedCohort, adapt) -> None:  # type: ignore[no-untyped-def]
    def labels(*_: object) -> np.ndarray:
        raise AssertionError("a lesion mask was read")

    secret = slices_of(changed(prepared, "secret", lesion=labels))

    adapted = adapt(checkpoint_of(), secret, device="cpu")

    assert not moved(adapted, adapt(checkpoint_of(), slices_of(prepared), device="cpu"))
    assert probability(adapted, secret).any(), "nor is one read to predict"


@ADAPTATIONS
def test_what_was_done_is_told(prepared: PreparedCohort, tmp_path: Path, adapt) -> None:  # type: ignore[no-untyped-def]
    source = checkpoint_of()

    adapted = adapt(source, slices_of(prepared, 1, 2, 6), device="cpu")
    save_checkpoint(adapted, tmp_path / "adapted")

    assert not moved(adapted, load_checkpoint(tmp_path / "adapted"))
    assert adapted.parent is not None
    assert adapted.parent["fingerprint"] == "source"
    assert adapted.decision == source.decision
    assert [(part["role"], part["patients"]) for part in adapted.trained_on] == [("unlabelled", ["case0", "case1"])]


def test_every_other_adaptation_is_named_otherwise(prepared: PreparedCohort) -> None:
    source, slices = checkpoint_of(), slices_of(prepared, 1, 2)
    other = replace(source, weights=source.weights | {"last.bias": torch.ones(1)})
    made = [
        source,
        adapt_batch_norm(source, slices, device="cpu"),
        adapt_batch_norm(source, slices_of(prepared, 1, 3), device="cpu"),
        adapt_batch_norm(other, slices, device="cpu"),
        adapt_tent(source, slices, device="cpu"),
        adapt_tent(source, slices, steps=2, device="cpu"),
        adapt_tent(source, slices, learning_rate=0.1, device="cpu"),
    ]

    assert len({one.fingerprint for one in made}) == len(made)


@ADAPTATIONS
@pytest.mark.parametrize("norm", ["none", "instance", "group"])
def test_a_network_without_batch_norm_is_refused(prepared: PreparedCohort, adapt, norm) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProtocolError, match=f"norm is '{norm}'"):
        adapt(checkpoint_of(replace(NETWORK, norm=norm)), slices_of(prepared), device="cpu")


@ADAPTATIONS
def test_slices_that_cannot_be_used_are_refused(prepared: PreparedCohort, adapt) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ProtocolError, match="None of 2 slices has lung"):
        adapt(checkpoint_of(), slices_of(prepared, 0, 5), device="cpu")
    with pytest.raises(CheckpointError, match="pictures of 64 pixels"):
        adapt(replace(checkpoint_of(), size=64), slices_of(prepared), device="cpu")


@pytest.mark.parametrize("settings", [{"steps": 0}, {"learning_rate": 0.0}])
def test_a_tent_that_does_nothing_is_refused(prepared: PreparedCohort, settings: dict) -> None:
    with pytest.raises(ProtocolError, match="1 pass or more"):
        adapt_tent(checkpoint_of(), slices_of(prepared), device="cpu", **settings)
