"""A packed mask says what the mask in memory says."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.ct.case import CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import PackedMask, pack, unpack
from lungshift.ct.volume import Mask
from lungshift.errors import GeometryError

VOXELS = np.zeros((3, 5, 7), bool)
VOXELS[0, 2, 3] = VOXELS[2, 4, 1:4] = True
MASK = Mask(VOXELS, Geometry.regular(VOXELS.shape, (4.0, 3.0, 2.0)))


def test_what_was_packed_comes_back() -> None:
    np.testing.assert_array_equal(unpack(pack(VOXELS[2]), (5, 7)), VOXELS[2])
    np.testing.assert_array_equal(PackedMask.of(MASK).mask().voxels, VOXELS)


def test_it_says_of_itself_what_the_mask_in_memory_says() -> None:
    packed = PackedMask.of(MASK)

    assert packed.areas.tolist() == MASK.areas.tolist() == [1, 0, 3]
    assert packed.volume_ml == MASK.volume_ml == pytest.approx(4 * 0.024)
    for axis in range(3):
        np.testing.assert_array_equal(packed.shadow(axis), MASK.shadow(axis))
    assert packed.shadow(2).tolist() == [False, True, True, True, False, False, False]
    np.testing.assert_array_equal(packed.slice(2), MASK.slice(2))


def test_it_is_laid_on_the_slices_of_its_scan() -> None:
    hu = np.zeros((5, 7), np.int16)

    (laid,) = PackedMask.of(MASK).lay([CaseSlice(2, hu, None, None)])

    assert laid.hu is hu
    np.testing.assert_array_equal(laid.lung, VOXELS[2])


def test_a_mask_with_slices_missing_is_refused() -> None:
    with pytest.raises(GeometryError, match="3 slices and 2 came"):
        PackedMask(MASK.geometry, {0: pack(VOXELS[0]), 2: pack(VOXELS[2])})
