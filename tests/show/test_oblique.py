"""The lungs in 3-D on worlds of boxes: what is where, what hides what, and that nothing is lost at the edges or for being small."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from lungshift.show.oblique import Box, Oblique

MM = 4.0
SHAPE = (40, 40, 60)
BLUE, GREEN, RED = "#0000ff", "#00ff00", "#ff0000"
PIXELS = 240


def block(*where: tuple[int, int], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """A grid with one box marked, from and to along slices, rows, columns."""
    voxels = np.zeros(shape, bool)
    voxels[tuple(slice(*one) for one in where)] = True
    return voxels


NOTHING = np.zeros(SHAPE, bool)
EVERYWHERE: Box = (slice(0, 40), slice(0, 40), slice(0, 60))
LUNGS = block((5, 35), (10, 30), (5, 25)) | block((5, 35), (10, 30), (35, 55))
ABOVE = 38
"""A slice without lung, so that no sheet is drawn."""


def seen(view: Oblique, finding: np.ndarray = NOTHING, at: int = ABOVE) -> np.ndarray:
    """The picture, red, green and blue from 0 to 255."""
    box: Box = (slice(0, finding.shape[0]), slice(0, finding.shape[1]), slice(0, finding.shape[2]))
    return np.asarray(view.picture(PIXELS, finding, box, RED, at), dtype=int)


def middle_of(picture: np.ndarray, channel: int = 0) -> tuple[float, float]:
    """Where a colour is, right and down; red if nothing is said."""
    others = [one for one in range(3) if one != channel]
    down, right = np.nonzero(picture[..., channel] - picture[..., others].max(axis=-1) > 40)
    return float(right.mean()), float(down.mean())


def test_a_ball_in_the_right_lung_is_on_the_left_of_the_picture_and_the_left_ones_on_the_right() -> None:
    view = Oblique(LUNGS, [], (MM, MM, MM))
    right, left = (seen(view, block((18, 22), (18, 22), columns)) for columns in ((12, 16), (44, 48)))

    assert middle_of(right)[0] < 0.4 * right.shape[1]
    assert middle_of(left)[0] > 0.6 * left.shape[1]


def test_head_is_up() -> None:
    view = Oblique(LUNGS, [], (MM, MM, MM))
    high, low = (seen(view, block(slices, (18, 22), (12, 16))) for slices in ((30, 34), (6, 10)))

    assert middle_of(high)[1] < middle_of(low)[1] - 0.4 * high.shape[0]


def test_a_step_in_the_chest_is_as_large_in_the_picture_as_seen_from_25_degrees_left_and_20_above() -> None:
    """From there a way up is seen shortened by cos 20; one to the left by cos 25, a little lower; one to the back goes right and up."""
    view = Oblique(LUNGS, [], (MM, MM, MM))
    scale, here = view.pixel_mm(PIXELS), np.array(view.place(PIXELS, (20, 20, 30)))
    turn, rise = math.radians(25), math.radians(20)
    expected = {
        (21, 20, 30): (0, -math.cos(rise)),
        (20, 21, 30): (math.sin(turn), -math.cos(turn) * math.sin(rise)),
        (20, 20, 31): (math.cos(turn), math.sin(turn) * math.sin(rise)),
    }

    for seat, step in expected.items():
        np.testing.assert_allclose(np.array(view.place(PIXELS, seat)) - here, np.array(step) * MM / scale, atol=1e-9)


@pytest.mark.parametrize("spacing_mm", [(4.0, 4.0, 4.0), (8.0, 2.0, 2.0), (1.0, 1.0, 1.0), (2.0, 0.7, 0.7)])
def test_a_finding_is_drawn_where_its_place_is_said_to_be_on_any_grid(spacing_mm: tuple[float, float, float]) -> None:
    view = Oblique(LUNGS, [], spacing_mm)
    x, y = middle_of(seen(view, block((18, 23), (17, 22), (42, 47))))

    # the front of a box is seen, so a little lower and more to the left than its middle
    np.testing.assert_allclose((x, y), view.place(PIXELS, (20, 19, 44)), atol=0.02 * PIXELS + 1)


@pytest.mark.parametrize("spacing_mm", [(1.2, 1.2, 1.2), (6.0, 1.2, 1.2)])
@pytest.mark.parametrize("corner", list(product((0, 39), (0, 39), (0, 59))))
def test_one_voxel_in_a_corner_of_the_grid_is_seen(
    corner: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    """Where voxels are as small as these a block has many, and one of them is enough."""
    one = NOTHING.copy()
    one[corner] = True
    view = Oblique(LUNGS, [(one, BLUE)], spacing_mm)

    np.testing.assert_allclose(middle_of(seen(view), 2), view.place(PIXELS, corner), atol=5)


def test_a_ball_behind_the_lung_is_fainter_than_one_before_it() -> None:
    view = Oblique(block((5, 35), (12, 28), (5, 55)), [], (MM, MM, MM))
    before, behind = (seen(view, block((18, 22), rows, (28, 32))) for rows in ((5, 9), (31, 35)))
    red, faded = (int((one[..., 0] - one[..., 1]).max()) for one in (before, behind))

    assert 0.4 * red < faded < 0.9 * red


def test_a_finding_is_seen_through_a_lesion_before_it_and_hides_one_behind_it() -> None:
    lesion = block((15, 25), (18, 22), (25, 35))
    view = Oblique(LUNGS, [(lesion, BLUE)], (MM, MM, MM))
    before, behind = (seen(view, block((18, 22), rows, (28, 32))) for rows in ((12, 14), (26, 28)))

    for picture in (before, behind):
        x, y = middle_of(picture)
        red, _, blue = picture[round(y), round(x)]
        assert red > blue
    through = seen(view, block((18, 22), (26, 28), (28, 32))) - seen(view)
    assert through[..., 0].max() > 60


def test_the_first_of_two_layers_is_seen_where_both_are_and_the_nearer_where_they_are_apart() -> None:
    same = block((10, 20), (15, 20), (10, 20))
    only = seen(Oblique(LUNGS, [(same, BLUE), (same, GREEN)], (MM, MM, MM)))
    before = seen(Oblique(LUNGS, [(same, BLUE), (block((10, 20), (2, 6), (10, 20)), GREEN)], (MM, MM, MM)))

    assert not ((only[..., 1] - only[..., 2]) > 60).any()
    assert ((before[..., 1] - before[..., 2]) > 60).any()


def test_the_slice_is_drawn_as_a_sheet_at_its_height() -> None:
    view = Oblique(LUNGS, [], (MM, MM, MM))
    plain = seen(view)
    low, high = (seen(view, at=at) for at in (10, 30))
    rows = [np.nonzero((one - plain).max(axis=-1) > 60)[0] for one in (low, high)]

    assert abs(rows[0].mean() - view.place(PIXELS, (10, 20, 30))[1]) < 6
    assert abs(rows[1].mean() - view.place(PIXELS, (30, 20, 30))[1]) < 6


def test_without_lung_the_lesion_and_the_finding_are_drawn_alone() -> None:
    view = Oblique(NOTHING, [(block((10, 20), (10, 20), (10, 20)), BLUE), (NOTHING, GREEN)], (MM, MM, MM))
    picture = seen(view, block((16, 20), (10, 20), (10, 20)), at=15)

    assert middle_of(picture)[1] < middle_of(picture, 2)[1]


def test_with_nothing_at_all_the_picture_is_empty() -> None:
    picture = seen(Oblique(NOTHING, [(NOTHING, BLUE)], (MM, MM, MM)))

    assert max(picture.shape) == PIXELS
    assert (picture == picture[0, 0]).all()
