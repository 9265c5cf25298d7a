"""Boxes around what is marked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lungshift.ct.boxes import box_of


def test_a_box_holds_what_is_marked_and_no_more() -> None:
    voxels = np.zeros((4, 6, 8), bool)
    voxels[1, 2, 3] = voxels[2, 4, 6] = True

    assert box_of(voxels) == (slice(1, 3), slice(2, 5), slice(3, 7))


def test_a_margin_begins_at_the_first_voxel_of_the_grid_at_the_least() -> None:
    voxels = np.zeros((4, 6, 8), bool)
    voxels[0, 3, 7] = True

    box = box_of(voxels, (2, 1, 3))

    assert box == (slice(0, 3), slice(2, 5), slice(4, 11))
    assert voxels[box].shape == (3, 3, 4)


@given(arrays(bool, st.tuples(*[st.integers(1, 5)] * 3)), st.integers(0, 124))
def test_nothing_is_marked_outside_and_every_side_of_the_box_touches_something(voxels: np.ndarray, some: int) -> None:
    voxels.flat[some % voxels.size] = True
    inside = voxels[box_of(voxels)]

    assert inside.sum() == voxels.sum()
    for axis in range(3):
        assert inside.take(0, axis).any()
        assert inside.take(-1, axis).any()


def test_nothing_marked_has_no_box() -> None:
    with pytest.raises(IndexError):
        box_of(np.zeros((2, 2, 2), bool))
