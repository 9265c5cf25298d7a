"""Pieces put together slice by slice are those of the whole array."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lungshift.prepare.pieces import Pieces


@settings(max_examples=30, deadline=None)
@given(mask=arrays(bool, (4, 5, 6), elements=st.booleans()), backwards=st.booleans())
def test_sizes_are_those_of_labels_of_the_whole_from_either_end(mask: np.ndarray, backwards: bool) -> None:
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    pieces = Pieces()

    for index in range(4)[:: -1 if backwards else 1]:
        pieces.add(index, mask[index])

    for index in range(4):
        np.testing.assert_array_equal(pieces.spread(index, pieces.sizes(), mask[index]), sizes[labels[index]])
    assert sorted(pieces.whole()[pieces.whole() > 0]) == sorted(sizes[1:])


@pytest.mark.parametrize("nothing", [np.zeros((3, 3), bool)])
def test_where_nothing_is_marked_there_is_no_piece(nothing: np.ndarray) -> None:
    pieces = Pieces()
    pieces.add(0, nothing)

    assert len(pieces.sizes()) == 0
    assert not pieces.spread(0, pieces.sizes(), nothing).any()
