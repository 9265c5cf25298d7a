"""Coarse copies of a scan: where they lie, what they average, what must not vanish."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grids import ball, geometries, oblique
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.measure.lesions import find_lesions
from lungshift.show.coarse import AIR_HU, coarse_geometry, coarse_hu, coarse_shares

SHAPE = (6, 7, 8)


def edges(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest LPS mm of a grid's voxels, of all their corners."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in geometry.shape])).reshape(3, -1).T
    world = geometry.world_mm(corners)
    return world.min(axis=0), world.max(axis=0)


def test_a_scan_that_is_small_enough_keeps_its_own_grid() -> None:
    scan = Geometry.regular((4, 5, 6), (3.0, 1.0, 1.0), (10, 20, 30))

    assert coarse_geometry(scan, 120).difference(scan) is None


def test_half_of_each_side_covers_the_same_box() -> None:
    grid = coarse_geometry(Geometry.regular((4, 8, 8), (2.0, 2.0, 2.0), (0, 0, 0)), 32)

    assert grid.shape == (2, 4, 4)
    np.testing.assert_allclose(grid.spacing_mm, (4, 4, 4))
    np.testing.assert_allclose(grid.affine[:3, 3], (1, 1, 1))


def test_thick_slices_stay_and_the_pixels_become_coarser() -> None:
    grid = coarse_geometry(Geometry.regular((10, 100, 100), (8.0, 1.0, 1.0)), 10 * 50 * 50)

    assert grid.shape == (10, 50, 50)


@settings(max_examples=60, deadline=None)
@given(geometries(SHAPE), st.integers(250, 600))
def test_every_grid_is_covered_and_the_limit_is_kept(geometry: Geometry, voxels: int) -> None:
    grid = coarse_geometry(geometry, voxels)

    assert np.prod(grid.shape) <= voxels
    np.testing.assert_allclose(edges(grid), edges(geometry), atol=1e-6)


def test_hu_are_means_by_hand() -> None:
    scan = Geometry.regular((2, 2, 4), (1.0, 1.0, 1.0))
    hu = np.arange(16, dtype=np.int16).reshape(scan.shape)

    coarse = coarse_hu(Volume(hu, scan), Geometry.regular((1, 1, 2), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5)))

    np.testing.assert_allclose(coarse, [[[6.5, 8.5]]])


def test_parts_of_voxels_count_by_their_share() -> None:
    scan = Geometry.regular((1, 1, 3), (1.0, 1.0, 1.0))
    hu = np.array([[[0, 30, 90]]], np.int16)

    coarse = coarse_hu(Volume(hu, scan), Geometry.regular((1, 1, 2), (1.0, 1.0, 1.5), (0.25, 0, 0)))

    np.testing.assert_allclose(coarse, [[[10, 70]]], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(geometries((24, 24, 24)))
def test_a_ball_stays_where_it_is_on_every_grid(geometry: Geometry) -> None:
    centre = geometry.world_mm(np.array([10.0, 13.0, 11.0]))
    radius = 7 * min(geometry.spacing_mm)
    mask = Mask(ball(geometry, centre, radius), geometry)
    grid = coarse_geometry(geometry, 24**3)

    shares = coarse_shares(mask, grid)

    places = grid.world_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
    found = (places * shares[..., None]).sum(axis=(0, 1, 2)) / shares.sum()
    truth = geometry.world_mm(np.argwhere(mask.voxels)).mean(axis=0)
    assert np.abs(found - truth).max() < 0.5 * max(grid.spacing_mm)


def test_outside_of_an_oblique_scan_there_is_air() -> None:
    scan = oblique((20, 20, 20), (2.0, 2.0, 2.0), (0.3, 0.2, 0.3))
    hu = np.full(scan.shape, 40, np.int16)
    hu[0, 0, 0] = 50
    grid = coarse_geometry(scan, 8000)

    coarse = coarse_hu(Volume(hu, scan), grid)

    assert coarse[0, 0, 0] == AIR_HU
    assert coarse[tuple(n // 2 for n in grid.shape)] == pytest.approx(40)


def test_the_share_of_a_block_that_is_inside_is_exact() -> None:
    scan = Geometry.regular((2, 2, 2), (1.0, 1.0, 1.0))
    voxels = np.zeros(scan.shape, bool)
    voxels[0, 0] = voxels[1, 1, 0] = True

    shares = coarse_shares(Mask(voxels, scan), Geometry.regular((1, 1, 1), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5)))

    assert shares[0, 0, 0] == pytest.approx(3 / 8, abs=1e-5)


def test_a_lesion_too_small_for_the_grid_gets_the_voxel_of_its_seat() -> None:
    scan = Geometry.regular((8, 8, 8), (1.0, 1.0, 1.0))
    voxels = np.zeros(scan.shape, bool)
    voxels[5, 2, 7] = True
    mask = Mask(voxels, scan)
    grid = coarse_geometry(scan, 8)

    assert not (coarse_shares(mask, grid) >= 0.5).any()
    assert np.argwhere(coarse_shares(mask, grid, find_lesions(mask)) >= 0.5).tolist() == [[1, 0, 1]]
