"""Slices become square pictures and come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.prepare.grid import AIR_HU, SliceGrid


def test_a_slice_of_the_pictures_size_is_left_as_it_is() -> None:
    hu = np.arange(16, dtype=np.int16).reshape(4, 4)

    assert SliceGrid(4, 4, 4).image(hu, "nearest") is hu


def test_nearest_takes_the_pixel_in_the_middle_of_each_new_one() -> None:
    hu = np.arange(36, dtype=np.int16).reshape(6, 6)

    np.testing.assert_array_equal(SliceGrid(6, 6, 2).image(hu, "nearest"), [[7, 10], [25, 28]])


def test_linear_averages_where_it_shrinks() -> None:
    stripes = np.tile(np.array([0, 100], np.int16), (8, 4))

    shrunk = SliceGrid(8, 8, 4).image(stripes, "linear")

    assert shrunk.dtype == np.float32
    np.testing.assert_allclose(shrunk, 50, atol=15)


def test_a_slice_that_is_not_square_gets_air_on_both_sides_and_is_not_stretched() -> None:
    hu = np.zeros((2, 4), np.int16)

    picture = SliceGrid(2, 4, 4).image(hu, "nearest")

    np.testing.assert_array_equal(picture[:, 0], [AIR_HU, 0, 0, AIR_HU])


@given(rows=st.integers(3, 20), columns=st.integers(3, 20), factor=st.integers(1, 3))
def test_a_mask_enlarged_by_a_whole_factor_comes_back_the_same(rows: int, columns: int, factor: int) -> None:
    mask = np.random.default_rng(rows * columns).random((rows, columns)) > 0.5
    grid = SliceGrid(rows, columns, factor * max(rows, columns))

    back = grid.back(grid.mask(mask).astype(np.float32))

    np.testing.assert_array_equal(back >= 0.5, mask)


@pytest.mark.parametrize(("rows", "columns"), [(5, 9), (9, 5), (8, 8)])
def test_what_is_on_the_left_stays_on_the_left(rows: int, columns: int) -> None:
    mask = np.zeros((rows, columns), bool)
    mask[:, : columns // 2] = True
    grid = SliceGrid(rows, columns, 16)

    back = grid.back(grid.mask(mask).astype(np.float32)) >= 0.5

    assert back.shape == (rows, columns)
    assert back[:, 0].all()
    assert not back[:, -1].any()


@given(
    rows=st.integers(2, 40),
    columns=st.integers(2, 40),
    size=st.integers(4, 40),
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0, 1.1]),
    spread=st.sampled_from([0.5, 2.0, 8.0]),
)
def test_what_reaches_the_threshold_is_what_bringing_everything_back_finds(
    rows: int, columns: int, size: int, seed: int, threshold: float, spread: float
) -> None:
    draw, grid = np.random.default_rng(seed), SliceGrid(rows, columns, size)
    i, j = np.ogrid[:size, :size]
    row, column = draw.uniform(0, size, 2)
    blob = np.exp(-((i - row) ** 2 + (j - column) ** 2) / (2 * spread**2)) * draw.uniform(0.7, 1, (size, size))
    probability = blob.astype(np.float32)

    whole = grid.back(probability)
    sure = np.abs(whole - threshold) > 1e-6
    reaching = grid.back_reaching(probability, threshold)

    assert reaching.shape == (rows, columns)
    np.testing.assert_array_equal(reaching[sure], whole[sure] >= threshold)


@given(rows=st.integers(3, 60), columns=st.integers(3, 60), size=st.integers(2, 80), data=st.data())
def test_a_pixel_of_the_slice_lies_in_the_picture_where_the_picture_says_it_is(
    rows: int, columns: int, size: int, data: st.DataObject
) -> None:
    grid = SliceGrid(rows, columns, size)
    own = data.draw(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)))
    back = grid.own_pixel(*grid.pixel(*own))

    assert max(abs(a - b) for a, b in zip(own, back, strict=True)) <= max(rows, columns) / size / 2 + 1
