"""Scans taken again, and a model whose every answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from chests import chest, threshold_model
from lungshift.ct.volume import Volume
from lungshift.errors import CheckpointError, ProtocolError
from lungshift.learn.prediction import Predictor, predict
from lungshift.learn.repeatability import (
    Retake,
    draw_retakes,
    estimate_noise,
    predict_again,
    spread_numbers,
    take_again,
)
from lungshift.measure.regions import find_regions

STILL = Retake(seed=1, mirrored=False, shift_px=(0.0, 0.0), turn_deg=0.0, scale=1.0, offset_hu=0.0)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.of(threshold_model(), "cpu", "fp32")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def test_the_same_seed_draws_the_same_retakes_and_fewer_are_the_first_of_more() -> None:
    assert draw_retakes(6) == draw_retakes(6)
    assert draw_retakes(8)[:3] == draw_retakes(3)
    assert draw_retakes(3, seed=1) != draw_retakes(3)


def test_every_other_retake_is_mirrored() -> None:
    assert [one.mirrored for one in draw_retakes(4)] == [True, False, True, False]


def test_one_retake_has_no_spread_and_is_refused() -> None:
    with pytest.raises(ProtocolError, match="two retakes"):
        draw_retakes(1)


@pytest.mark.parametrize(
    "retake",
    [STILL, replace(STILL, mirrored=True)],
    ids=["still", "mirrored"],
)
def test_a_retake_that_moves_nothing_finds_the_same_lesion(retake: Retake, predictor: Predictor) -> None:
    case = chest()
    (_, found) = next(iter(predict_again(predictor, case, [retake])))

    assert dice(found.voxels, predict(predictor, case).voxels) > 0.98


@pytest.mark.parametrize(
    "change", [{"shift_px": (3.0, -2.0)}, {"turn_deg": 8.0}, {"scale": 1.1}, {"mirrored": True, "turn_deg": -5.0}]
)
def test_the_lesion_comes_back_to_where_it_is_in_the_scan(change: dict, predictor: Predictor) -> None:
    case = chest()
    (_, found) = next(iter(predict_again(predictor, case, [replace(STILL, **change)])))

    lesion = case.lesion.voxels
    assert np.count_nonzero(found.voxels & lesion) > 0.93 * np.count_nonzero(
        lesion
    )  # the rim of the lung is found as well


def test_a_retake_has_other_noise_and_another_scale_within_the_lungs_slices_only() -> None:
    case = chest()
    lung = replace(case.lung, voxels=case.lung.voxels & (np.arange(8) < 4)[:, None, None])
    again = take_again(case.volume, lung, replace(STILL, offset_hu=10.0), 12.0)
    difference = again.hu.astype(float) - case.volume.hu

    assert difference[:4].mean() == pytest.approx(10, abs=0.5)
    assert difference[:4].std() == pytest.approx(12, abs=0.5)
    assert not difference[4:].any()
    assert again.hu.dtype == case.volume.hu.dtype


@pytest.mark.parametrize("noise_hu", [5.0, 12.0, 30.0])
def test_the_noise_of_a_scan_is_told_by_its_soft_tissue(noise_hu: float) -> None:
    case, rng = chest(), np.random.default_rng(3)
    hu = np.where(case.lung.voxels, -850, 40) + rng.normal(0, noise_hu, case.volume.hu.shape)

    assert estimate_noise(Volume(hu.astype(np.float32), case.volume.geometry)) == pytest.approx(noise_hu, rel=0.1)


def test_a_scan_without_soft_tissue_is_taken_to_have_ordinary_noise() -> None:
    hu = np.full((2, 8, 8), -900, np.int16)
    hu[0, 0, 0] = 0

    assert estimate_noise(Volume(hu, replace(chest().volume.geometry, shape=hu.shape))) == 10


def test_numbers_scatter_and_the_lung_which_is_kept_does_not(predictor: Predictor) -> None:
    case = chest()
    spreads = spread_numbers([predictor], case, find_regions(case.lung), draw_retakes(4))

    assert 0 < spreads["lesion_ml"].sd < case.lesion.volume_ml
    assert (spreads["lesion_ml"].repeats, spreads["lesion_ml"].models) == (5, 1)  # the scan itself is one
    assert np.isnan(spreads["lung_ml"].sd)
    assert spreads["mean_hu"].sd > 2


def test_another_model_widens_the_spread(predictor: Predictor) -> None:
    case = chest()
    blind = Predictor.of(threshold_model(min_pixels=4000), "cpu", "fp32")
    regions, retakes = find_regions(case.lung), draw_retakes(3)

    alone = spread_numbers([predictor], case, regions, retakes)["lesion_ml"]
    both = spread_numbers([predictor, blind], case, regions, retakes)["lesion_ml"]

    assert both.models == 2
    assert both.sd > 10 > alone.sd  # one sees some 20 ml, the other none


def test_a_case_without_lungs_is_refused(predictor: Predictor) -> None:
    with pytest.raises(CheckpointError, match="lung mask"):
        list(predict_again(predictor, replace(chest(), lung=None), draw_retakes(2)))
