"""Lesions told apart on grids small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError
from lungshift.measure.lesions import find_lesions, label_lesions

GRID = Geometry.regular((4, 5, 6), (10.0, 1.0, 2.0), (100.0, 0.0, -50.0))


def mask_of(*places: tuple[int, int, int]) -> Mask:
    voxels = np.zeros(GRID.shape, bool)
    for place in places:
        voxels[place] = True
    return Mask(voxels, GRID)


def test_voxels_that_touch_by_a_corner_are_one_lesion() -> None:
    assert label_lesions(mask_of((0, 0, 0), (1, 1, 1))).max() == 1


def test_the_largest_lesion_is_number_one_wherever_it_lies() -> None:
    labels = label_lesions(mask_of((0, 0, 0), (3, 4, 4), (3, 4, 5)))

    assert (labels[3, 4, 5], labels[0, 0, 0]) == (1, 2)


def test_of_lesions_of_one_size_the_lower_comes_first() -> None:
    labels = label_lesions(mask_of((3, 0, 0), (0, 4, 4)))

    assert (labels[0, 4, 4], labels[3, 0, 0]) == (1, 2)


def test_a_lesion_has_its_volume_place_and_density() -> None:
    hu = np.full(GRID.shape, -800, np.int16)
    hu[2, 3, 4:6] = (-500, -300)
    (lesion,) = find_lesions(mask_of((2, 3, 4), (2, 3, 5)), Volume(hu, GRID))

    assert (lesion.number, lesion.voxels, lesion.mean_hu) == (1, 2, -400.0)
    assert lesion.volume_ml == pytest.approx(2 * 20 / 1000)
    assert lesion.centre_mm == pytest.approx((100 + 4.5 * 2, 3.0, -50 + 20))
    assert lesion.box == (slice(2, 3), slice(3, 4), slice(4, 6))


def test_the_seat_of_a_bent_lesion_lies_on_it() -> None:
    ring = [(1, r, c) for r in range(1, 4) for c in range(1, 4) if (r, c) != (2, 2)]
    (lesion,) = find_lesions(mask_of(*ring))

    assert lesion.seat in ring


def test_no_lesion_is_an_empty_list_and_no_scan_is_no_density() -> None:
    assert find_lesions(mask_of()) == ()
    assert np.isnan(find_lesions(mask_of((0, 0, 0)))[0].mean_hu)


def test_a_scan_on_another_grid_is_refused() -> None:
    other = Volume(np.arange(120, dtype=np.int16).reshape(GRID.shape), Geometry.regular(GRID.shape, (5.0, 1.0, 1.0)))

    with pytest.raises(GeometryError, match="Scan and lesion mask"):
        find_lesions(mask_of((0, 0, 0)), other)
