"""Voxels that are Hounsfield units, and voxels that are yes or no."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError, GeometryError, IntensityError

SHAPE = (2, 3, 4)
GRID = Geometry.regular(SHAPE, (5.0, 0.5, 0.5))
HU = np.arange(-1000, -976, dtype=np.int16).reshape(SHAPE)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_volume_keeps_its_hounsfield_units_as_they_are(dtype: type) -> None:
    hu = HU.astype(dtype)

    assert Volume(hu, GRID).hu is hu


@pytest.mark.parametrize(
    ("hu", "error", "code"),
    [
        pytest.param(HU[:1], GeometryError, "E_GEOMETRY", id="a slice short"),
        pytest.param(HU.astype(np.float64), IntensityError, "E_DTYPE", id="float64"),
        pytest.param(HU.astype(np.int32), IntensityError, "E_DTYPE", id="int32"),
        pytest.param(np.where(HU == -990, np.nan, HU).astype(np.float32), IntensityError, "E_NAN", id="one NaN"),
        pytest.param(np.where(HU == -990, np.inf, HU).astype(np.float32), IntensityError, "E_NAN", id="infinite"),
        pytest.param(
            np.where(HU == -990, -np.inf, HU).astype(np.float32), IntensityError, "E_NAN", id="minus infinite"
        ),
        pytest.param(np.full(SHAPE, -1000, dtype=np.int16), IntensityError, "E_CONSTANT", id="air everywhere"),
    ],
)
def test_what_is_no_scan_is_refused(hu: np.ndarray, error: type[Exception], code: str) -> None:
    with pytest.raises(error) as refusal:
        Volume(hu, GRID)

    assert refusal.value.code == code  # type: ignore[attr-defined]


def test_a_mask_knows_its_volume_in_millilitres() -> None:
    voxels = np.zeros(SHAPE, dtype=bool)
    assert Mask(voxels, GRID).volume_ml == 0

    voxels[0, :2, 0] = True
    assert Mask(voxels, GRID).volume_ml == pytest.approx(2 * 5.0 * 0.5 * 0.5 / 1000)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_labels_are_no_mask_until_someone_says_which_count(dtype: type) -> None:
    with pytest.raises(AnnotationError, match=f"got {np.dtype(dtype)}. Say which labels"):
        Mask(np.ones(SHAPE, dtype=dtype), GRID)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"shape \(2, 4, 3\) is not on a grid of \(2, 3, 4\)"):
        Mask(np.zeros((2, 4, 3), dtype=bool), GRID)
