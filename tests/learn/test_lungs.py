"""Lungs by a network: found slice by slice on the scan's own grid, small pieces dropped, refused where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lungshift.ct.case import Case, CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CheckpointError, GeometryError, IntensityError, ProtocolError
from lungshift.learn.checkpoint import Checkpoint, build_network
from lungshift.learn.lungs import LEAST_SHARE, find_lungs, predict_lungs, with_model_lungs
from lungshift.learn.prediction import Predictor, predict
from lungshift.learn.settings import NetworkSettings
from lungshift.prepare.windows import Window

LUNG, TISSUE = -850, 40
LUNG_NETWORK = NetworkSettings(width=1, levels=1, windows=(Window(-1000, 0),), lung_channel=False, target="lung")
BIG_MM = 33.0
"""Pixels so large that no hole is small enough to be filled, and no notch narrow enough to be closed."""


def thin_is_lung(size: int = 32) -> Predictor:
    """A network that calls lung what is below -500 HU: one path from the window to the logit, all other weights 0."""
    built = build_network(LUNG_NETWORK)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
        for block in (built.down[0], built.up[0]):
            for convolution in (block[0], block[3]):
                convolution.weight[0, 0, 1, 1] = 1
        built.last.weight[:] = -20
        built.last.bias[:] = 10
    weights = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    return Predictor.of(Checkpoint(weights, LUNG_NETWORK, size, fingerprint="f00d"), "cpu", "fp32")


PREDICTOR, TWELVE, LARGE = (thin_is_lung(size) for size in (32, 12, 48))


def scan(lungs: np.ndarray, spacing_mm: tuple[float, float, float] = (5.0, 12.0, 12.0)) -> Volume:
    """Lungs in tissue that fills the picture."""
    hu = np.where(lungs, LUNG, TISSUE).astype(np.int16)
    return Volume(hu, Geometry.regular(hu.shape, spacing_mm))


def two_lungs(rows: int = 32, columns: int = 32) -> np.ndarray:
    lungs = np.zeros((6, rows, columns), bool)
    lungs[1:, 8:24, 4:12] = lungs[1:, 8:24, 20:28] = True
    return lungs


def slices_of(volume: Volume) -> list[CaseSlice]:
    return [CaseSlice(index, hu, None, None) for index, hu in enumerate(volume.hu)]


def test_lungs_are_found_on_the_scans_own_grid() -> None:
    volume = scan(two_lungs())

    mask = predict_lungs(PREDICTOR, volume)

    mask.geometry.require_same(volume.geometry)
    np.testing.assert_array_equal(mask.voxels, two_lungs())


@pytest.mark.parametrize(("size", "columns"), [(16, 32), (64, 32), (40, 40), (80, 40)])
def test_pictures_of_another_size_give_lungs_on_the_scans_grid_all_the_same(size: int, columns: int) -> None:
    lungs = two_lungs(32, columns)

    found = predict_lungs(thin_is_lung(size), scan(lungs)).voxels

    assert found.shape == lungs.shape
    inner = np.s_[:, 4:28]  # what is not square is set in air, which this network takes for lung
    assert 2 * (found & lungs)[inner].sum() / (found[inner].sum() + lungs.sum()) > 0.95


def test_a_piece_that_is_small_beside_the_largest_is_dropped_and_one_at_the_limit_is_kept() -> None:
    lungs = np.zeros((6, 32, 32), bool)
    lungs[:5, 4:14, 2:12] = True  # 500 voxels
    lungs[1:3, 25:30, 20:25] = True  # 50, a tenth
    stray = lungs.copy()
    stray[4:6, 25:29, 26:32] = True  # 48

    assert LEAST_SHARE == 0.1
    np.testing.assert_array_equal(predict_lungs(PREDICTOR, scan(stray)).voxels, lungs)


def test_pieces_of_a_slice_that_join_in_another_are_one_lung() -> None:
    lungs = np.zeros((4, 32, 32), bool)
    lungs[:3, 4:24, 2:12] = True  # 600
    lungs[0, 4, 2:28] = True  # a bridge in one slice to what is small on its own
    lungs[0:2, 4:6, 26:28] = True

    np.testing.assert_array_equal(predict_lungs(PREDICTOR, scan(lungs)).voxels, lungs)


def test_a_dense_lesion_at_the_pleura_leaves_no_notch_and_two_lungs_are_not_joined() -> None:
    lungs = np.zeros((4, 48, 48), bool)
    lungs[:, 8:40, 4:22] = lungs[:, 8:40, 25:44] = True  # 15 mm apart
    expected = lungs.copy()
    lungs[:, 20:22, 4:8] = False  # a notch 10 mm wide in the outer edge
    expected[:, 20:22, 4] = False  # its mouth stays

    np.testing.assert_array_equal(predict_lungs(LARGE, scan(lungs, (5.0, 5.0, 5.0))).voxels, expected)


def test_a_vessel_is_filled_and_the_heart_is_not() -> None:
    lungs = np.zeros((4, 32, 32), bool)
    lungs[:, 4:28, 4:28] = True
    expected = lungs.copy()
    lungs[:, 5:7, 5:8] = False  # 6 pixels of 144 mm²: 864 mm²
    lungs[:, 12:15, 12:15] = expected[:, 12:15, 12:15] = False  # 1296 mm²

    np.testing.assert_array_equal(predict_lungs(PREDICTOR, scan(lungs)).voxels, expected)


@settings(max_examples=25, deadline=None)
@given(lungs=arrays(bool, (4, 8, 8), elements=st.booleans()))
def test_what_is_kept_is_what_labels_of_the_whole_scan_would_keep(lungs: np.ndarray) -> None:
    lungs[0, 0, :4] = True  # 3.9 ml: of the size of lungs in a scan of 3.6 mm
    lungs = np.pad(lungs, ((0, 0), (2, 2), (2, 2)))
    labels, count = ndimage.label(lungs)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes >= LEAST_SHARE * sizes[1:].max()
    kept[0] = False
    volume = scan(lungs, (0.9, BIG_MM, BIG_MM))

    found = find_lungs(TWELVE, slices_of(volume), volume.geometry)

    np.testing.assert_array_equal(found.mask().voxels, kept[labels])
    assert found.areas.sum() == kept[labels].sum()


def test_slices_may_come_from_head_to_foot() -> None:
    lungs = two_lungs()
    lungs[3:, 8:12, 14:16] = True
    volume = scan(lungs)

    up, down = (find_lungs(PREDICTOR, order, volume.geometry) for order in (slices_of(volume), slices_of(volume)[::-1]))

    np.testing.assert_array_equal(up.mask().voxels, down.mask().voxels)
    assert up.volume_ml == down.volume_ml == up.mask().volume_ml


def test_the_lungs_are_laid_on_the_slices_of_a_second_pass() -> None:
    volume = scan(two_lungs())
    lungs = find_lungs(PREDICTOR, slices_of(volume), volume.geometry)

    laid = list(lungs.lay(slices_of(volume)[2:4]))

    assert [piece.index for piece in laid] == [2, 3]
    for piece in laid:
        np.testing.assert_array_equal(piece.lung, two_lungs()[piece.index])
        np.testing.assert_array_equal(piece.hu, volume.hu[piece.index])


def test_each_slice_is_kept_in_less_than_a_kilobyte() -> None:
    volume = scan(two_lungs())

    packed = find_lungs(PREDICTOR, slices_of(volume), volume.geometry).packed

    assert max(map(len, packed.values())) < 1024


def test_a_scan_with_missing_slices_is_refused() -> None:
    volume = scan(two_lungs())

    with pytest.raises(GeometryError, match="6 slices and 5 came"):
        find_lungs(PREDICTOR, slices_of(volume)[1:], volume.geometry)


@pytest.mark.parametrize(
    ("lungs", "error", "code"),
    [
        pytest.param(np.zeros((6, 32, 32), bool), IntensityError, "E_NOT_HU", id="no voxel as thin as air"),
        pytest.param(np.eye(32, dtype=bool)[None] & np.eye(6, 1, dtype=bool)[..., None], GeometryError, "E_NO_LUNG", id="a few specks"),
        pytest.param(np.arange(32)[None, :, None] + np.zeros((6, 1, 32)) > 3, GeometryError, "E_NO_LUNG", id="nearly all is lung"),
    ],
)  # fmt: skip
def test_where_nothing_has_the_size_of_lungs_there_is_no_empty_mask(lungs: np.ndarray, error: type, code: str) -> None:
    hu = np.where(lungs, LUNG, TISSUE).astype(np.int16)
    hu[0, 0, 0] = TISSUE + 1

    with pytest.raises(error) as caught:
        predict_lungs(PREDICTOR, Volume(hu, Geometry.regular(hu.shape, (5.0, 8.0, 8.0))))
    assert caught.value.code == code


def test_a_case_remembers_that_a_model_drew_its_lungs_and_which() -> None:
    case = with_model_lungs(PREDICTOR, Case(scan(two_lungs())))

    assert case.lung is not None
    np.testing.assert_array_equal(case.lung.voxels, two_lungs())
    assert (case.lung_source, case.lung_model) == ("model", "f00d")


def test_a_lung_mask_that_is_there_is_kept() -> None:
    volume = scan(two_lungs())
    case = Case(volume, Mask(~two_lungs(), volume.geometry))

    assert with_model_lungs(PREDICTOR, case) is case


def test_a_checkpoint_of_lesions_finds_no_lungs() -> None:
    network = replace(LUNG_NETWORK, target="lesion")
    lesions = Predictor.of(replace(PREDICTOR.checkpoint, network=network), "cpu", "fp32")

    with pytest.raises(CheckpointError, match="finds lesion, and one that finds lung") as caught:
        predict_lungs(lesions, scan(two_lungs()))
    assert caught.value.code == "E_TARGET"


def test_a_checkpoint_of_lungs_finds_no_lesions() -> None:
    volume = scan(two_lungs())

    with pytest.raises(CheckpointError, match="finds lung, and one that finds lesion") as caught:
        predict(PREDICTOR, Case(volume, Mask(two_lungs(), volume.geometry)))
    assert caught.value.code == "E_TARGET"


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "lung"},
        {"target": "lung", "lung_channel": False, "crop": True},
        {"target": "heart"},
    ],
    ids=["shown the lungs", "cropped to them", "unknown"],
)
def test_a_network_that_finds_lungs_is_not_shown_them(wrong: dict) -> None:
    with pytest.raises(ProtocolError):
        NetworkSettings(**wrong)
