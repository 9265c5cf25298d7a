"""Surfaces of masks: where they are, what they enclose, which way they face."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grids import ball, geometries, oblique
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import InputError, MissingError
from lungshift.show.surfaces import Surface, surface_of, surface_of_shares

pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")

SHAPE = (6, 7, 8)
CHEST = oblique((40, 44, 48), (1.5, 0.9, 0.8), (0.2, -0.15, 0.3), (-100, 40, -300))


def mask_of(geometry: Geometry, voxels: np.ndarray) -> Mask:
    return Mask(voxels.astype(bool), geometry)


def box(geometry: Geometry, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Mask:
    voxels = np.zeros(geometry.shape, bool)
    voxels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return Mask(voxels, geometry)


def indices_of(surface: Surface, geometry: Geometry) -> np.ndarray:
    """The surface's points as voxel indices (slice, row, column)."""
    return (surface.points_mm - geometry.affine[:3, 3]) @ np.linalg.inv(geometry.affine[:3, :3]).T


def is_closed(surface: Surface) -> bool:
    """Whether every edge is run through once in each direction."""
    ends = np.concatenate([surface.triangles[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    return {tuple(edge) for edge in ends.tolist()} == {tuple(edge[::-1]) for edge in ends.tolist()}


def test_one_voxel_becomes_an_octahedron_half_a_voxel_around_its_centre() -> None:
    grid = Geometry.regular((3, 3, 3), (5.0, 2.0, 1.0), (10, 20, 30))

    surface = surface_of(box(grid, (1, 1, 1), (2, 2, 2)), smooth=False)

    np.testing.assert_allclose(
        sorted(map(tuple, surface.points_mm.tolist())),
        [(10.5, 22, 35), (11, 21, 35), (11, 22, 32.5), (11, 22, 37.5), (11, 23, 35), (11.5, 22, 35)],
    )
    assert surface.triangles.shape == (8, 3)


@settings(max_examples=40, deadline=None)
@given(geometries(SHAPE), st.data())
def test_a_box_is_enclosed_half_a_voxel_out_on_every_grid(geometry: Geometry, data: st.DataObject) -> None:
    start = data.draw(st.tuples(*[st.integers(0, n - 1) for n in SHAPE]))
    stop = data.draw(st.tuples(*[st.integers(a + 1, n) for a, n in zip(start, SHAPE, strict=True)]))

    surface = surface_of(box(geometry, start, stop), smooth=False)

    places = indices_of(surface, geometry)
    np.testing.assert_allclose(places.min(axis=0), np.array(start) - 0.5, atol=2e-3)
    np.testing.assert_allclose(places.max(axis=0), np.array(stop) - 0.5, atol=2e-3)
    assert is_closed(surface)
    assert surface.volume_ml > 0


@pytest.mark.parametrize(("smooth", "voxels"), [(False, 0.5), (True, 0.65)])
def test_points_of_a_ball_are_within_half_a_voxel_of_it_and_what_smoothing_may_move(
    smooth: bool, voxels: float
) -> None:
    centre = CHEST.world_mm(np.array([20.3, 21.7, 23.1]))

    surface = surface_of(mask_of(CHEST, ball(CHEST, centre, 14)), smooth=smooth)

    off_mm = np.abs(np.linalg.norm(surface.points_mm - centre, axis=1) - 14)
    assert off_mm.max() <= voxels * max(CHEST.spacing_mm)


@pytest.mark.parametrize("options", [{}, {"smooth": False}, {"reduce": 0.6}, {"step": 2}, {"step": (1, 2, 3)}], ids=str)
def test_a_ball_keeps_its_volume_within_two_percent(options: dict) -> None:
    mask = mask_of(CHEST, ball(CHEST, CHEST.world_mm(np.array([19.6, 22.2, 24.0])), 15))

    surface = surface_of(mask, **options)

    assert surface.volume_ml == pytest.approx(mask.volume_ml, rel=0.02)
    assert is_closed(surface)


def test_a_mask_that_fills_its_grid_is_closed_at_the_border() -> None:
    grid = Geometry.regular((4, 4, 4), (1, 1, 1))

    surface = surface_of(Mask(np.ones(grid.shape, bool), grid), smooth=False)

    assert is_closed(surface)
    assert surface.points_mm.min() == -0.5
    assert surface.points_mm.max() == 3.5


@pytest.mark.parametrize("step", [2, 3, (1, 2, 4)])
def test_blocks_stay_where_their_voxels_are(step: int | tuple[int, int, int]) -> None:
    grid = Geometry.regular((24, 24, 24), (1, 1, 1))

    surface = surface_of(box(grid, (5, 0, 6), (17, 24, 18)), smooth=False, step=step)

    middle = (surface.points_mm.min(axis=0) + surface.points_mm.max(axis=0)) / 2
    np.testing.assert_allclose(middle, (11.5, 11.5, 10.5), atol=0.75)


def test_smoothing_leaves_a_lesion_of_one_voxel_a_body() -> None:
    surface = surface_of(box(CHEST, (5, 5, 5), (6, 6, 6)))

    assert surface.volume_ml > 0


def test_fewer_triangles_are_made_when_asked() -> None:
    mask = mask_of(CHEST, ball(CHEST, CHEST.world_mm(np.array([20, 20, 20])), 12))

    assert len(surface_of(mask, reduce=0.75).triangles) <= 0.26 * len(surface_of(mask).triangles)


def test_an_empty_mask_has_an_empty_surface() -> None:
    surface = surface_of(Mask(np.zeros(CHEST.shape, bool), CHEST))

    assert surface.points_mm.shape == (0, 3)
    assert surface.triangles.shape == (0, 3)
    assert surface.volume_ml == 0


@pytest.mark.parametrize("options", [{"reduce": 1.0}, {"reduce": -0.1}, {"step": 0}, {"step": (1, 0, 1)}], ids=str)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match="reduce is 0 to below 1 and step 1 or more"):
        surface_of(box(CHEST, (1, 1, 1), (3, 3, 3)), **options)


def test_without_vtk_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vtkmodules.vtkCommonCore", None)

    with pytest.raises(MissingError, match=r"lungshift\[viz3d\]"):
        surface_of(box(CHEST, (1, 1, 1), (3, 3, 3)))


def test_the_surface_of_shares_runs_where_a_voxel_is_half_inside() -> None:
    shares = np.zeros((5, 5, 5), np.float32)
    shares[1:4, 1:4, 1:3] = 1
    shares[1:4, 1:4, 3] = 0.75
    grid = Geometry.regular((5, 5, 5), (2.0, 2.0, 2.0), (10, 20, 30))

    surface = surface_of_shares(shares, grid)

    assert is_closed(surface)
    assert surface.volume_ml > 0
    right, left = surface.points_mm[:, 0].min(), surface.points_mm[:, 0].max()
    assert right == pytest.approx(10 + 2 * 0.5, abs=0.31)
    assert left == pytest.approx(10 + 2 * (3 + 0.25 / 0.75), abs=0.31)


def test_a_surface_of_shares_is_about_as_light_as_asked() -> None:
    shares = ball(CHEST, CHEST.world_mm(np.array([20, 22, 24])), 12.0).astype(np.float32)
    full, light = surface_of_shares(shares, CHEST), surface_of_shares(shares, CHEST, triangles=500)

    assert len(full.triangles) > 2000
    assert len(light.triangles) == pytest.approx(500, rel=0.1)
    assert light.volume_ml == pytest.approx(full.volume_ml, rel=0.03)


def test_shares_below_a_half_have_an_empty_surface() -> None:
    assert (
        surface_of_shares(np.full((3, 3, 3), 0.4, np.float32), Geometry.regular((3, 3, 3), (1, 1, 1))).triangles.size
        == 0
    )
