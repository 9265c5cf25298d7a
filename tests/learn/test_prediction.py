"""A checkpoint predicts on the scan's own grid, slice by slice, whatever comes with a slice."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lungshift.ct.case import Case, CaseSlice, InMemory
from lungshift.errors import CheckpointError, FileFormatError
from lungshift.io.nifti import read_mask
from lungshift.io.scan import open_scan
from lungshift.io.writing import new_mask, write_mask, write_volume
from lungshift.learn.checkpoint import Checkpoint, Decision, build_network
from lungshift.learn.pictures import SliceSet
from lungshift.learn.prediction import Predictor, decide, predict, predict_slices, predict_source, predict_stream
from lungshift.learn.settings import NetworkSettings
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.windows import Window
from worlds import tiny_case

NETWORK = NetworkSettings(width=2, levels=2, crop=True, neighbours=1, neighbour_mm=5.0)


def predictor(network: NetworkSettings = NETWORK, decision: Decision | None = None, size: int = 32) -> Predictor:
    torch.manual_seed(1)
    weights = {name: tensor.clone() for name, tensor in build_network(network).state_dict().items()}
    checkpoint = Checkpoint(weights, network, size, decision=decision or Decision(threshold=0.5))
    return Predictor.of(checkpoint, "cpu", "fp32")


def bright(size: int = 32) -> Predictor:
    """A network that says lesion where the lung mask is: all its weights 0 but a path from the mask to the logit."""
    network = NetworkSettings(width=1, levels=1, windows=(Window(-1000, 0),))
    built = build_network(network)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
        built.down[0][0].weight[0, 1, 1, 1] = 1
        built.down[0][3].weight[0, 0, 1, 1] = 1
        built.up[0][0].weight[0, 0, 1, 1] = 1
        built.up[0][3].weight[0, 0, 1, 1] = 1
        built.last.weight[:] = 20
        built.last.bias[:] = -10
    weights = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    return Predictor.of(Checkpoint(weights, network, size), "cpu", "fp32")


@pytest.mark.parametrize("size", [32, 64, 16])
def test_the_mask_lies_on_the_scans_own_grid(size: int) -> None:
    case = tiny_case()

    mask = predict(bright(size), case)

    mask.geometry.require_same(case.volume.geometry)
    np.testing.assert_array_equal(mask.voxels, case.lung.voxels)  # type: ignore[union-attr]


def test_a_case_and_its_prepared_slices_are_predicted_alike(prepared: PreparedCohort) -> None:
    case, ours = tiny_case(0), predictor()

    whole = predict(ours, case).voxels
    rows = np.array([3, 1, 2])
    parts = {
        int(rows[n]): one
        for chosen, batch in predict_slices(ours, SliceSet.of(prepared, rows))
        for n, one in zip(chosen, batch, strict=True)
    }

    assert whole.any()
    for row, probability in parts.items():
        np.testing.assert_array_equal(decide(probability, ours.checkpoint.decision), whole[row])


def test_slices_may_come_from_head_to_foot() -> None:
    case, ours = tiny_case(0, slices=9), predictor()
    pieces = [CaseSlice(k, case.volume.hu[k], case.lung.voxels[k], None) for k in range(9)]  # type: ignore[union-attr]

    up, down = (dict(predict_stream(ours, order, SliceGrid(32, 32, 32), 5.0)) for order in (pieces, pieces[::-1]))

    assert list(up) == list(range(9))
    for index in up:
        np.testing.assert_array_equal(up[index], down[index])


def test_a_slice_without_lung_has_no_lesion() -> None:
    assert not predict(predictor(), tiny_case()).voxels[0].any()


def test_a_slice_without_lung_is_neither_resized_nor_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    case, ours, seen = tiny_case(size=32), bright(16), []
    image = SliceGrid.image
    monkeypatch.setattr(SliceGrid, "image", lambda grid, hu, how: seen.append(hu) or image(grid, hu, how))

    found = predict(ours, case)

    assert [hu.tolist() for hu in seen] == case.volume.hu[1:].tolist(), "the lowest slice has no lung"
    assert found.voxels[1:].any()


def test_a_scan_on_disk_is_predicted_as_it_streams_and_as_when_it_is_whole(tmp_path: Path) -> None:
    case, ours = tiny_case(), predictor()
    scan, lung, lesion = (tmp_path / f"{name}.nii.gz" for name in ("scan", "lung", "lesion"))
    write_volume(case.volume, scan)
    write_mask(case.lung, lung)  # type: ignore[arg-type]

    source = open_scan(scan, lung=lung)
    with new_mask(lesion, source.geometry, like=scan) as writer:
        for found in predict_source(ours, source):
            writer.write(found.index, found.lesion)
            np.testing.assert_array_equal(found.lung, case.lung.voxels[found.index])  # type: ignore[union-attr]

    whole = predict(ours, case)
    assert whole.voxels.any()
    np.testing.assert_array_equal(read_mask(lesion, source.geometry).voxels, whole.voxels)


def test_lungs_may_be_added_as_the_slices_pass() -> None:
    case, ours = tiny_case(), predictor()

    def add_lungs(pieces: Iterator[CaseSlice]) -> Iterator[CaseSlice]:
        for piece in pieces:
            yield replace(piece, lung=case.lung.voxels[piece.index])  # type: ignore[union-attr]

    found = predict_source(ours, InMemory.of(tiny_case(lung=False)), add_lungs)

    np.testing.assert_array_equal(np.stack([one.lesion for one in found]), predict(ours, case).voxels)


def test_memory_does_not_grow_with_the_slices(tmp_path: Path) -> None:
    ours, peaks = predictor(), []
    for slices in (128, 128, 384):  # the first has what is made once; thumbnails are 64 at most
        case = tiny_case(slices=slices)
        scan, lung = tmp_path / "scan.nii", tmp_path / "lung.nii"
        write_volume(case.volume, scan)
        write_mask(case.lung, lung)  # type: ignore[arg-type]
        source = open_scan(scan, lung=lung)
        gc.collect()
        tracemalloc.start()
        with new_mask(tmp_path / "lesion.nii", source.geometry, like=scan) as writer:
            for found in predict_source(ours, source):
                writer.write(found.index, found.lesion)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    more_of_the_scan = 256 * 32 * 32 * 2
    assert peaks[2] - peaks[1] < more_of_the_scan / 5


def test_a_damaged_scan_is_refused_though_its_first_slices_were_predicted(tmp_path: Path) -> None:
    case = tiny_case()
    scan, lung, lesion = (tmp_path / f"{name}.nii.gz" for name in ("scan", "lung", "lesion"))
    write_volume(case.volume, scan)
    write_mask(case.lung, lung)  # type: ignore[arg-type]
    scan.write_bytes(scan.read_bytes()[:-6] + b"broken")
    source = open_scan(scan, lung=lung)

    with pytest.raises(FileFormatError), new_mask(lesion, source.geometry, like=scan) as writer:
        for found in predict_source(predictor(), source):
            writer.write(found.index, found.lesion)

    assert not lesion.exists()


def test_the_mirrored_slice_may_be_averaged_in() -> None:
    case = tiny_case()
    mirrored = Case(
        replace(case.volume, hu=case.volume.hu[..., ::-1].copy()),
        replace(case.lung, voxels=case.lung.voxels[..., ::-1].copy()),
    )  # type: ignore[type-var,union-attr]
    ours = predictor(decision=Decision(0.5, flips=True))

    np.testing.assert_array_equal(predict(ours, case).voxels[..., ::-1], predict(ours, mirrored).voxels)


def test_only_the_lung_can_hold_lesion_where_that_is_the_rule() -> None:
    case = tiny_case()
    everywhere = predictor(decision=Decision(threshold=0.0))
    inside = predictor(decision=Decision(threshold=1e-6, inside_lung=True))

    assert predict(everywhere, case).voxels.sum() > case.lung.voxels.sum()  # type: ignore[union-attr]
    np.testing.assert_array_equal(predict(inside, case).voxels, case.lung.voxels)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("min_pixels", "kept"),
    [pytest.param(0, 3, id="all"), pytest.param(3, 3, id="just enough"), pytest.param(4, 0, id="too few")],
)
def test_a_slice_with_too_few_pixels_has_none(min_pixels: int, kept: int) -> None:
    probability = np.array([[0.9, 0.6], [0.5, 0.4]], np.float32)

    assert decide(probability, Decision(0.5, min_pixels)).sum() == kept


def test_a_case_without_lung_mask_is_refused_and_not_answered_with_nothing() -> None:
    with pytest.raises(CheckpointError, match="wants a lung mask"):
        predict(predictor(), tiny_case(lung=False))


def test_slices_prepared_at_another_size_are_refused(prepared: PreparedCohort) -> None:
    with pytest.raises(CheckpointError, match="pictures of 64 pixels"):
        next(predict_slices(predictor(size=64), SliceSet.of(prepared, np.array([1]))))
