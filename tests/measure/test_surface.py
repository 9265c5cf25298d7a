"""Surface distances where they can be computed by hand."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import GeometryError, InputError
from lungshift.measure.surface import hausdorff95_mm, surface_dice

SPACING_MM = (5.0, 1.0, 0.5)
SHAPE = (12, 14, 16)
GRID = Geometry.regular(SHAPE, SPACING_MM)
UNIT = Geometry.regular((32, 32, 32), (1.0, 1.0, 1.0))


def box(start: tuple[int, int, int], stop: tuple[int, int, int], grid: Geometry = GRID) -> Mask:
    """A box of voxels."""
    voxels = np.zeros(grid.shape, dtype=bool)
    voxels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return Mask(voxels, grid)


def ball(radius_mm: float) -> Mask:
    """A ball in the middle of a grid of 1 mm."""
    squares = sum((axis - 16.0) ** 2 for axis in np.ogrid[:32, :32, :32])
    return Mask(np.asarray(squares <= radius_mm**2), UNIT)


CUBE = box((2, 2, 2), (8, 8, 8))
EMPTY = Mask(np.zeros(SHAPE, dtype=bool), GRID)
ONE_VOXEL = box((3, 3, 3), (4, 4, 4))


@pytest.mark.parametrize(
    ("step", "distance_mm"),
    [
        pytest.param((0, 0, 0), 0.0, id="not moved"),
        pytest.param((1, 0, 0), 5.0, id="one slice"),
        pytest.param((0, 1, 0), 1.0, id="one row"),
        pytest.param((0, 0, 1), 0.5, id="one column"),
        pytest.param((0, 0, 4), 2.0, id="four columns"),
    ],
)
def test_a_moved_cube_is_as_far_as_it_moved(step: tuple[int, int, int], distance_mm: float) -> None:
    moved = Mask(np.roll(CUBE.voxels, step, axis=(0, 1, 2)), GRID)

    assert hausdorff95_mm(CUBE, moved) == pytest.approx(distance_mm)
    assert surface_dice(CUBE, moved, distance_mm) == pytest.approx(1.0)
    if distance_mm:
        assert surface_dice(CUBE, moved, distance_mm - 0.01) < 1


@pytest.mark.parametrize(
    ("spacing_mm", "voxels"),
    [
        pytest.param((1.0, 1.0, 1.0), (30, 20, 20), id="equal spacing"),
        pytest.param((5.0, 1.0, 0.5), (6, 20, 40), id="thick slices"),
    ],
)
def test_surfaces_count_by_their_area_in_square_millimetres(
    spacing_mm: tuple[float, float, float], voxels: tuple[int, int, int]
) -> None:
    grid = Geometry.regular((voxels[0] + 5, 24, 44), spacing_mm)
    low = box((1, 2, 2), (1 + voxels[0], 2 + voxels[1], 2 + voxels[2]), grid)
    tall = box((1, 2, 2), (2 + voxels[0], 2 + voxels[1], 2 + voxels[2]), grid)
    height_mm, depth_mm, width_mm = np.multiply(voxels, spacing_mm)
    lid_mm2, wall_mm2 = depth_mm * width_mm, 2 * (depth_mm + width_mm) * height_mm
    ring_mm2 = wall_mm2 / voxels[0]

    # Area belongs to voxel corners: half of the added ring to corners that both share, half to those of the higher lid.
    shared_mm2, apart_mm2 = 2 * (lid_mm2 + wall_mm2) + ring_mm2 / 2, 2 * lid_mm2 + ring_mm2 / 2

    assert surface_dice(low, tall, 0.0) == pytest.approx(shared_mm2 / (shared_mm2 + apart_mm2), abs=0.02)
    assert surface_dice(low, tall, spacing_mm[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("gap_mm", [2.0, 4.0])
def test_a_ball_in_a_ball_is_the_difference_of_radii_away(gap_mm: float) -> None:
    inner, outer = ball(8.0), ball(8.0 + gap_mm)

    assert hausdorff95_mm(inner, outer) == pytest.approx(gap_mm, abs=1.0)
    assert surface_dice(inner, outer, gap_mm + 1) == pytest.approx(1.0)
    assert surface_dice(inner, outer, gap_mm / 2 - 0.1) == 0


@pytest.mark.parametrize(
    ("reference", "prediction", "dice", "distance_mm"),
    [
        pytest.param(EMPTY, EMPTY, nan, nan, id="both empty"),
        pytest.param(CUBE, EMPTY, 0.0, nan, id="nothing predicted"),
        pytest.param(EMPTY, CUBE, 0.0, nan, id="no lesion"),
        pytest.param(ONE_VOXEL, ONE_VOXEL, 1.0, 0.0, id="one voxel, agreed"),
        pytest.param(ONE_VOXEL, box((3, 3, 5), (4, 4, 6)), 1.0, 1.0, id="one voxel, 1 mm off"),
        pytest.param(
            ONE_VOXEL, box((4, 3, 3), (5, 4, 4)), 0.5, 5.0, id="its neighbour slice: half of the corners are shared"
        ),
    ],
)
def test_what_empty_and_tiny_masks_mean(reference: Mask, prediction: Mask, dice: float, distance_mm: float) -> None:
    assert hausdorff95_mm(reference, prediction) == pytest.approx(distance_mm, nan_ok=True)
    assert surface_dice(reference, prediction, 1.0) == pytest.approx(
        dice, nan_ok=True, abs=0.3 if dice == 0.7 else 1e-6
    )


def test_both_directions_count() -> None:
    two = Mask(CUBE.voxels | box((2, 12, 2), (8, 13, 8)).voxels, GRID)

    assert hausdorff95_mm(CUBE, two) == hausdorff95_mm(two, CUBE) == pytest.approx(5.0)
    assert surface_dice(CUBE, two, 1.0) == pytest.approx(surface_dice(two, CUBE, 1.0))


def test_a_lesion_at_the_edge_of_the_scan_has_its_whole_surface() -> None:
    corner, inside = box((0, 0, 0), (3, 3, 3)), box((4, 4, 4), (7, 7, 7))
    corner_less, inside_less = box((0, 0, 0), (2, 3, 3)), box((4, 4, 4), (6, 7, 7))

    assert surface_dice(corner, corner_less, 1.0) == pytest.approx(surface_dice(inside, inside_less, 1.0))
    assert hausdorff95_mm(corner, corner_less) == hausdorff95_mm(inside, inside_less)


def test_a_mask_of_the_whole_scan_is_measured() -> None:
    everything = Mask(np.ones(SHAPE, dtype=bool), GRID)

    assert surface_dice(everything, everything, 0.0) == 1
    assert hausdorff95_mm(everything, everything) == 0


def test_other_grids_and_impossible_tolerances_are_refused() -> None:
    elsewhere = Mask(CUBE.voxels, Geometry.regular(SHAPE, (5.0, 1.0, 0.6)))

    with pytest.raises(GeometryError):
        surface_dice(CUBE, elsewhere, 1.0)
    with pytest.raises(GeometryError):
        hausdorff95_mm(CUBE, elsewhere)
    for tolerance_mm in (-1.0, nan, float("inf")):
        with pytest.raises(InputError, match="0 mm or more"):
            surface_dice(CUBE, CUBE, tolerance_mm)


def test_distances_agree_with_all_pairs_of_surface_voxels() -> None:
    rng = np.random.default_rng(5)
    one, other = (Mask(rng.random((5, 6, 7)) < 0.3, Geometry.regular((5, 6, 7), SPACING_MM)) for _ in range(2))

    assert hausdorff95_mm(one, other) == pytest.approx(_by_hand(one, other), abs=1e-5)
    assert not isnan(surface_dice(one, other, 1.0))


def _by_hand(one: Mask, other: Mask) -> float:
    """Every surface voxel against every other: slow and obvious."""
    first, second = (_surface(mask) * SPACING_MM for mask in (one, other))
    apart = np.linalg.norm(first[:, None] - second[None], axis=2)
    return float(max(np.quantile(apart.min(axis=1), 0.95), np.quantile(apart.min(axis=0), 0.95)))


def _surface(mask: Mask) -> np.ndarray:
    padded = np.pad(mask.voxels, 1)
    neighbours = [np.roll(padded, step, axis) for axis in range(3) for step in (-1, 1)]
    return np.argwhere((padded & ~np.all(neighbours, axis=0))[1:-1, 1:-1, 1:-1])
