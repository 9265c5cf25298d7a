"""Where voxels are, and which grids are one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.ct.geometry import Geometry
from lungshift.errors import GeometryError

FARTHEST_MM = 1e6
SPACING = st.floats(0.2, 8.0)
ORIGIN = st.tuples(*[st.floats(-500, 500)] * 3)
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
GRID = Geometry.regular((3, 4, 5), (5.0, 0.7, 0.6), (-100.0, -50.0, 20.0))


def affine(**changes: object) -> np.ndarray:
    """A sound affine but for some entries."""
    matrix = np.array(GRID.affine)
    for place, value in changes.items():
        matrix[int(place[1]), int(place[2])] = value
    return matrix


def test_axes_run_from_foot_to_head_front_to_back_and_right_to_left() -> None:
    first, slice_step, row_step, column_step = GRID.world_mm([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])

    np.testing.assert_allclose(first, (-100, -50, 20))
    np.testing.assert_allclose(slice_step - first, (0, 0, 5), atol=1e-12)
    np.testing.assert_allclose(row_step - first, (0, 0.7, 0), atol=1e-12)
    np.testing.assert_allclose(column_step - first, (0.6, 0, 0), atol=1e-12)


def test_spacing_and_voxel_volume_come_from_the_affine() -> None:
    assert GRID.spacing_mm == pytest.approx((5.0, 0.7, 0.6))
    assert GRID.voxel_ml == pytest.approx(0.0021)


def test_a_tilted_grid_keeps_its_spacing() -> None:
    turn = np.eye(4)
    turn[:3, :3] = [[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]]

    tilted = Geometry((3, 4, 5), turn @ GRID.affine)

    assert tilted.spacing_mm == pytest.approx(GRID.spacing_mm)
    assert tilted.voxel_ml == pytest.approx(GRID.voxel_ml)


def test_indices_of_any_shape_become_points() -> None:
    assert GRID.world_mm(np.zeros((2, 7, 3))).shape == (2, 7, 3)
    np.testing.assert_allclose(GRID.world_mm(np.array([0.5, 0, 0])), (-100, -50, 22.5))


def test_a_geometry_cannot_change_once_made() -> None:
    matrix = np.array(GRID.affine)
    made = Geometry((3, 4, 5), matrix)
    matrix[0, 3] = 999

    assert made.affine[0, 3] == -100
    with pytest.raises(ValueError, match="read-only"):
        made.affine[0, 3] = 0


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((3, 4), id="two axes"),
        pytest.param((3, 4, 5, 1), id="four axes"),
        pytest.param((0, 4, 5), id="no slice"),
        pytest.param((3, -4, 5), id="negative"),
    ],
)
def test_a_shape_that_is_no_scan_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="slices, rows and columns") as refusal:
        Geometry(shape, GRID.affine)  # type: ignore[arg-type]

    assert refusal.value.code == "E_GEOMETRY"


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        pytest.param(np.eye(3), "4 x 4, finite", id="3 x 3"),
        pytest.param(affine(a03=np.nan), "4 x 4, finite", id="not a number"),
        pytest.param(affine(a20=np.inf), "4 x 4, finite", id="infinite"),
        pytest.param(affine(a30=1.0), "last row 0 0 0 1", id="projective"),
        pytest.param(affine(a20=0.0), "no CT voxel", id="singular"),
        pytest.param(GRID.affine * [[1e-3], [1e-3], [1e-3], [1]], "metres or micrometres", id="metres"),
        pytest.param(GRID.affine * [[1e3], [1e3], [1e3], [1]], "metres or micrometres", id="micrometres"),
        pytest.param(affine(a20=-5.0), "not canonical", id="head to foot"),
        pytest.param(affine(a11=-0.7), "not canonical", id="back to front"),
        pytest.param(affine(a02=-0.6), "not canonical", id="left to right"),
        pytest.param(GRID.affine[:, [2, 1, 0, 3]], "not canonical", id="columns first"),
    ],
)
def test_an_affine_that_cannot_be_is_refused(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(GeometryError, match=message) as refusal:
        Geometry((3, 4, 5), matrix)

    assert refusal.value.code == "E_AFFINE"


@pytest.mark.parametrize("lean", [0.01, -0.01, 0.3])
def test_axes_that_do_not_stand_at_right_angles_are_refused(lean: float) -> None:
    with pytest.raises(GeometryError, match="not at right angles; resample a sheared scan first") as refusal:
        Geometry((3, 4, 5), affine(a10=5 * lean))

    assert refusal.value.code == "E_SHEARED"


@pytest.mark.parametrize("beyond_mm", [0.5, 1e7])
def test_a_grid_that_reaches_beyond_what_a_scanner_has_is_refused(beyond_mm: float) -> None:
    last_slice_mm = 2 * 5.0

    with pytest.raises(GeometryError, match="km from the scanner's origin") as refusal:
        Geometry((3, 4, 5), affine(a23=FARTHEST_MM - last_slice_mm + beyond_mm))

    assert refusal.value.code == "E_AFFINE"
    with pytest.raises(GeometryError, match="km from the scanner's origin"):
        Geometry((3, 4, 5), affine(a23=-FARTHEST_MM - beyond_mm))


def test_a_grid_that_ends_just_before_it_is_taken() -> None:
    last_slice_mm = 2 * 5.0

    assert Geometry((3, 4, 5), affine(a23=FARTHEST_MM - last_slice_mm - 0.5)).shape == (3, 4, 5)
    assert Geometry((3, 4, 5), affine(a23=-FARTHEST_MM + 0.5)).shape == (3, 4, 5)


def test_an_angle_that_is_off_by_rounding_is_a_right_angle() -> None:
    assert Geometry((3, 4, 5), affine(a10=5 * 5e-4)).spacing_mm == pytest.approx(GRID.spacing_mm)


def test_a_shape_of_any_whole_numbers_is_kept_as_ints() -> None:
    grid = Geometry(tuple(np.array([3, 4, 5])), GRID.affine)

    assert grid.shape == (3, 4, 5)
    assert all(type(n) is int for n in grid.shape)


def test_single_precision_becomes_double_so_that_places_far_from_the_origin_are_exact() -> None:
    grid = Geometry((3, 4, 5), GRID.affine.astype(np.float32))

    assert grid.affine.dtype == np.float64
    assert grid.world_mm(np.zeros((1, 3), np.float32)).dtype == np.float64


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        pytest.param(Geometry((3, 4, 5), GRID.affine), None, id="the same"),
        pytest.param(Geometry((3, 4, 5), affine(a03=-100.0005)), None, id="half a micrometre off"),
        pytest.param(Geometry((3, 4, 5), affine(a03=-99.0)), "corners up to 1 mm apart", id="moved"),
        pytest.param(Geometry((3, 4, 5), affine(a20=5.5)), "corners up to 1 mm apart", id="another spacing"),
        pytest.param(
            Geometry((3, 4, 5), affine(a20=5.5, a23=19.0)), "corners up to 1 mm apart", id="another start only"
        ),
        pytest.param(Geometry((3, 4, 6), GRID.affine), r"shape \(3, 4, 5\) against \(3, 4, 6\)", id="another shape"),
    ],
)
def test_grids_are_one_if_their_corners_are(other: Geometry, difference: str | None) -> None:
    if difference is None:
        GRID.require_same(other)
        assert GRID.difference(other) is None
        return
    with pytest.raises(GeometryError, match=rf"^case 7 do not fit.*{difference}"):
        GRID.require_same(other, "case 7")
    with pytest.raises(GeometryError, match=rf"^The two grids do not fit.*{difference}"):
        GRID.require_same(other)


@given(SHAPES, st.tuples(SPACING, SPACING, SPACING), ORIGIN)
def test_a_regular_grid_gives_back_what_it_was_made_of(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], origin_mm: tuple[float, float, float]
) -> None:
    grid = Geometry.regular(shape, spacing_mm, origin_mm)

    assert grid.shape == shape
    assert grid.spacing_mm == pytest.approx(spacing_mm)
    assert grid.voxel_ml == pytest.approx(np.prod(spacing_mm) / 1000)
    np.testing.assert_allclose(grid.world_mm(np.zeros(3)), origin_mm)
    assert grid.difference(grid) is None
