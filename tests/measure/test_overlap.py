"""Counts and ratios on worlds of a few voxels."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, GeometryError, InputError
from lungshift.measure.overlap import (
    RATIOS,
    Counts,
    accuracy,
    count_overlap,
    count_slices,
    dice,
    iou,
    precision,
    recall,
    sum_by,
)

SHAPE = (3, 2, 4)
GRID = Geometry.regular(SHAPE, (5.0, 0.7, 0.7))
VOXELS = npst.arrays(np.bool_, npst.array_shapes(min_dims=3, max_dims=3, max_side=4))
COUNT = st.integers(0, 10**12)
ANY_COUNTS = st.builds(Counts, COUNT, COUNT, COUNT, COUNT)


def mask(*where: tuple[int, int, int]) -> Mask:
    """Lesion in the voxels named."""
    voxels = np.zeros(SHAPE, dtype=bool)
    for index in where:
        voxels[index] = True
    return Mask(voxels, GRID)


EMPTY = mask()
REFERENCE = mask((1, 0, 0), (1, 0, 1))
PREDICTED = mask((1, 0, 1), (1, 0, 2), (2, 1, 3))


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        pytest.param(REFERENCE, PREDICTED, Counts(tp=1, fp=2, fn=1, tn=20), id="partly agreed"),
        pytest.param(REFERENCE, REFERENCE, Counts(tp=2, fp=0, fn=0, tn=22), id="agreed"),
        pytest.param(REFERENCE, EMPTY, Counts(tp=0, fp=0, fn=2, tn=22), id="nothing predicted"),
        pytest.param(EMPTY, PREDICTED, Counts(tp=0, fp=3, fn=0, tn=21), id="no lesion"),
        pytest.param(EMPTY, EMPTY, Counts(tp=0, fp=0, fn=0, tn=24), id="both empty"),
    ],
)
def test_every_voxel_is_counted_once(reference: Mask, prediction: Mask, expected: Counts) -> None:
    counts = count_overlap(reference, prediction)

    assert counts == expected
    assert counts.total == 24


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        pytest.param(REFERENCE, PREDICTED, (0.4, 1 / 3, 0.5, 0.25, 21 / 24), id="partly agreed"),
        pytest.param(REFERENCE, REFERENCE, (1.0, 1.0, 1.0, 1.0, 1.0), id="agreed"),
        pytest.param(REFERENCE, EMPTY, (0.0, nan, 0.0, 0.0, 22 / 24), id="nothing predicted"),
        pytest.param(EMPTY, PREDICTED, (0.0, 0.0, nan, 0.0, 21 / 24), id="no lesion"),
        pytest.param(EMPTY, EMPTY, (nan, nan, nan, nan, 1.0), id="both empty"),
    ],
)
def test_ratios_are_undefined_where_they_mean_nothing(
    reference: Mask, prediction: Mask, expected: tuple[float, ...]
) -> None:
    counts = count_overlap(reference, prediction)

    ratios = [ratio(counts) for ratio in (dice, precision, recall, iou, accuracy)]

    np.testing.assert_allclose(ratios, expected)


def test_every_ratio_of_no_voxel_at_all_is_undefined() -> None:
    assert all(isnan(ratio(Counts(0, 0, 0, 0))) for ratio in RATIOS.values())


def test_only_voxels_within_the_region_are_counted() -> None:
    lung = mask((1, 0, 1), (1, 0, 2), (0, 0, 0))

    assert count_overlap(REFERENCE, PREDICTED, within=lung) == Counts(tp=1, fp=1, fn=0, tn=1)


def test_slices_are_rows_of_tp_fp_fn_tn() -> None:
    table = count_slices(REFERENCE.voxels, PREDICTED.voxels)

    assert table.dtype == np.int64
    assert table.tolist() == [[0, 0, 0, 8], [1, 1, 1, 5], [0, 1, 0, 7]]


def test_a_table_without_slices_is_counted_too() -> None:
    nothing = np.zeros((0, 4, 4), dtype=bool)

    assert count_slices(nothing, nothing).shape == (0, 4)
    assert dice(count_slices(nothing, nothing)).shape == (0,)
    assert sum_by(count_slices(nothing, nothing), [])[1].shape == (0, 4)


def test_f1_has_the_factor_two_that_equation_5_lacks() -> None:
    agreed = Counts(tp=5, fp=0, fn=0, tn=5)
    as_printed = precision(agreed) * recall(agreed) / (precision(agreed) + recall(agreed))

    assert dice(agreed) == 1.0
    assert as_printed == 0.5


def test_rows_of_one_label_add_up_in_order_of_appearance() -> None:
    table = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 9]])

    labels, sums = sum_by(table, ["b", "a", "b"])

    assert labels == ["b", "a"]
    assert sums.tolist() == [[1, 0, 1, 9], [0, 1, 0, 0]]


def test_masks_of_two_grids_are_refused() -> None:
    elsewhere = Mask(REFERENCE.voxels, Geometry.regular(SHAPE, (5.0, 0.7, 0.7), (1.0, 0.0, 0.0)))

    with pytest.raises(GeometryError, match=r"Reference and prediction do not fit.*1 mm apart"):
        count_overlap(REFERENCE, elsewhere)
    with pytest.raises(GeometryError, match="the region to count in do not fit"):
        count_overlap(REFERENCE, REFERENCE, within=elsewhere)


def test_arrays_of_two_shapes_are_refused_instead_of_broadcast() -> None:
    with pytest.raises(GeometryError, match=r"prediction has \(1, 2, 4\)"):
        count_slices(REFERENCE.voxels, REFERENCE.voxels[:1])
    with pytest.raises(GeometryError, match=r"reference has \(2, 4\)"):
        count_slices(REFERENCE.voxels[0], REFERENCE.voxels[0])


def test_probabilities_are_refused_where_masks_are_expected() -> None:
    with pytest.raises(AnnotationError, match="prediction is float32"):
        count_slices(REFERENCE.voxels, REFERENCE.voxels.astype(np.float32))


@pytest.mark.parametrize(
    ("table", "labels"),
    [
        pytest.param(np.zeros((2, 3), dtype=np.int64), ["a", "a"], id="three columns"),
        pytest.param(np.zeros((2, 4)), ["a", "a"], id="floats"),
        pytest.param(np.array([[1, 0, -1, 0]]), ["a"], id="negative"),
        pytest.param(np.zeros((2, 4), dtype=np.int64), ["a"], id="a label short"),
    ],
)
def test_what_is_no_table_of_counts_is_refused(table: np.ndarray, labels: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        sum_by(table, labels)

    assert refusal.value.code == "E_COUNTS"


@given(st.data(), VOXELS)
def test_counts_of_slices_add_up_to_those_of_their_case(data: st.DataObject, reference: np.ndarray) -> None:
    prediction, within = (data.draw(npst.arrays(np.bool_, reference.shape)) for _ in range(2))
    grid = Geometry.regular(reference.shape, (1.0, 1.0, 1.0))

    whole = count_overlap(Mask(reference, grid), Mask(prediction, grid), Mask(within, grid))

    assert Counts.of(count_slices(reference, prediction, within)) == whole
    assert (
        sum((Counts.of(row[None]) for row in count_slices(reference, prediction, within)), Counts(0, 0, 0, 0)) == whole
    )
    assert whole.total == np.count_nonzero(within)


@given(st.data(), VOXELS)
def test_a_region_and_the_rest_make_the_whole(data: st.DataObject, reference: np.ndarray) -> None:
    prediction, within = (data.draw(npst.arrays(np.bool_, reference.shape)) for _ in range(2))

    inside, outside = count_slices(reference, prediction, within), count_slices(reference, prediction, ~within)

    np.testing.assert_array_equal(inside + outside, count_slices(reference, prediction))


@given(st.data(), VOXELS)
def test_exchanging_the_masks_exchanges_precision_and_recall(data: st.DataObject, reference: np.ndarray) -> None:
    prediction = data.draw(npst.arrays(np.bool_, reference.shape))

    there, back = count_slices(reference, prediction), count_slices(prediction, reference)

    np.testing.assert_array_equal(dice(there), dice(back))
    np.testing.assert_array_equal(iou(there), iou(back))
    np.testing.assert_array_equal(precision(there), recall(back))


@given(VOXELS)
def test_a_prediction_equal_to_the_reference_scores_one_where_defined(reference: np.ndarray) -> None:
    table = count_slices(reference, reference)
    has_lesion = reference.any(axis=(1, 2))

    for ratio in RATIOS.values():
        assert (ratio(table)[has_lesion] == 1).all()
    assert np.isnan(dice(table)[~has_lesion]).all()


@given(ANY_COUNTS)
def test_dice_is_the_harmonic_mean_of_precision_and_recall(counts: Counts) -> None:
    p, r = precision(counts), recall(counts)

    if counts.tp:
        assert dice(counts) == pytest.approx(2 * p * r / (p + r))
        assert iou(counts) == pytest.approx(dice(counts) / (2 - dice(counts)))
    elif counts.fp + counts.fn:
        assert dice(counts) == iou(counts) == 0


@given(st.lists(ANY_COUNTS, max_size=5))
def test_a_table_and_single_counts_give_the_same_ratios(rows: list[Counts]) -> None:
    table = np.array([[c.tp, c.fp, c.fn, c.tn] for c in rows], dtype=np.int64).reshape(-1, 4)

    for ratio in RATIOS.values():
        np.testing.assert_array_equal(ratio(table), [ratio(counts) for counts in rows])


@given(ANY_COUNTS)
def test_a_ratio_lies_between_zero_and_one_or_is_undefined(counts: Counts) -> None:
    for ratio in RATIOS.values():
        value = ratio(counts)
        assert isnan(value) or 0 <= value <= 1


def test_dice_and_iou_agree_with_simpleitk() -> None:
    sitk = pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(0)

    for _ in range(20):
        reference, prediction = (rng.random((3, 8, 9)) < rng.uniform(0.05, 0.9) for _ in range(2))
        judge = sitk.LabelOverlapMeasuresImageFilter()
        judge.Execute(*(sitk.GetImageFromArray(voxels.astype(np.uint8)) for voxels in (reference, prediction)))
        counts = Counts.of(count_slices(reference, prediction))

        assert dice(counts) == pytest.approx(judge.GetDiceCoefficient(), abs=1e-6)
        assert iou(counts) == pytest.approx(judge.GetJaccardCoefficient(), abs=1e-6)
