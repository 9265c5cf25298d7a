"""What differs in the labels, on masks drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.transfer.references import Borders, Style, borders_of, signed_distance, size_weights


def square(side: int, at: int = 10) -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[at : at + side, at : at + side] = True
    return mask


def test_distance_is_counted_from_the_border_between_pixels() -> None:
    line = np.array([[False, False, True, True, True]])

    np.testing.assert_array_equal(signed_distance(line), [[1.5, 0.5, -0.5, -1.5, -2.5]])


class TestBorders:
    def test_a_prediction_that_is_the_reference_lies_on_its_border(self) -> None:
        same = borders_of([(square(8), square(8), 2.0)])

        assert same.outside_mm == pytest.approx(0, abs=0.1)
        assert same.apart_mm == pytest.approx(1.0, abs=0.1)  # pixels on both sides are half a pixel of 2 mm away

    @pytest.mark.parametrize(("at", "side", "expected"), [(8, 12, 4.0), (12, 4, -4.0)], ids=["wider", "narrower"])
    def test_a_reference_two_pixels_wider_lies_outside_by_them(self, at: int, side: int, expected: float) -> None:
        assert borders_of([(square(side, at), square(8), 2.0)]).outside_mm == pytest.approx(expected, abs=0.6)

    def test_lesions_that_were_not_found_at_all_do_not_count(self) -> None:
        both = square(6, 2) | square(6, 22)

        assert borders_of([(both, square(6, 2), 2.0)]).outside_mm == pytest.approx(0, abs=0.1)

    def test_nothing_in_common_is_not_a_number(self) -> None:
        assert np.isnan(borders_of([(square(4, 2), square(4, 22), 2.0)]).outside_mm)


class TestStyle:
    HOME = Borders(0.5, 1.5)

    @pytest.mark.parametrize(
        ("here", "expected"),
        [
            pytest.param(Borders(0.9, 1.9), Style(), id="drawn alike"),
            pytest.param(Borders(2.5, 3.0), Style(wider_mm=2.0), id="drawn wider"),
            pytest.param(Borders(-2.0, 2.5), Style(wider_mm=-2.5), id="drawn narrower"),
            pytest.param(Borders(0.6, 3.0), Style(tolerance_mm=1.5), id="drawn less exactly"),
            pytest.param(Borders(np.nan, np.nan), Style(), id="not known"),
        ],
    )
    def test_only_what_is_beyond_home_differs(self, here: Borders, expected: Style) -> None:
        assert Style.between(self.HOME, here, least_mm=1.0) == expected

    @pytest.mark.parametrize(("wider_mm", "side", "at"), [(2.0, 10, 9), (-2.0, 6, 11)])
    def test_a_border_moves_by_its_millimetres(self, wider_mm: float, side: int, at: int) -> None:
        drawn = Style(wider_mm=wider_mm).drawn(square(20, 4), square(8), 2.0)

        np.testing.assert_array_equal(drawn, square(side, at))

    def test_within_the_tolerance_the_reference_is_agreed_to(self) -> None:
        wrong = square(10, 9)
        wrong[30, 30] = True

        drawn = Style(tolerance_mm=2.0).drawn(square(8), wrong, 2.0)

        assert np.argwhere(drawn ^ square(8)).tolist() == [[30, 30]]

    @pytest.mark.parametrize("style", [Style(), Style(wider_mm=3.0), Style(tolerance_mm=3.0)])
    def test_nothing_grows_out_of_nothing(self, style: Style) -> None:
        nothing = np.zeros((32, 32), bool)

        assert not style.drawn(nothing, nothing, 2.0).any()

    def test_without_a_difference_nothing_changes(self) -> None:
        np.testing.assert_array_equal(Style().drawn(square(8), square(4), 2.0), square(4))


class TestSizeWeights:
    def test_the_target_takes_the_mix_of_the_source(self) -> None:
        here = np.array([1.0] * 15 + [5.0] * 5)
        home = np.array([1.0] * 10 + [5.0] * 10)

        weights, apart = size_weights(home, here)

        np.testing.assert_allclose(weights, [2 / 3] * 15 + [2.0] * 5)
        assert apart == pytest.approx(0.25)

    def test_slices_without_lesion_are_a_size_of_their_own(self) -> None:
        weights, _ = size_weights(np.array([0, 0, 3.0, 3.0]), np.array([0, 0, 0, 3.0]))

        np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2.0])

    def test_sizes_that_the_source_lacks_have_no_weight(self) -> None:
        weights, apart = size_weights(np.full(20, 1.0), np.array([1.0] * 10 + [9.0] * 10))

        np.testing.assert_allclose(weights, [2.0] * 10 + [0.0] * 10)
        assert apart == pytest.approx(0.5)

    @given(st.lists(st.floats(0, 50), min_size=1, max_size=60))
    def test_the_same_mix_needs_no_weights(self, sizes: list[float]) -> None:
        weights, apart = size_weights(np.array(sizes), np.array(sizes))

        np.testing.assert_allclose(weights, 1.0)
        assert apart == pytest.approx(0, abs=1e-12)
