"""Slices as a radiologist sees them: right way up, the lesion where it is."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.measure.burden import burden_of
from lungshift.measure.regions import find_regions
from lungshift.show.drawing import rgb
from lungshift.show.planes import (
    CONSOLIDATION,
    GROUND_GLASS,
    LUNG_LINE,
    View,
    draw_views,
    draw_zones,
    paint,
    pick_views,
)

GRID = Geometry.regular((9, 20, 30), (10.0, 4.0, 4.0))


def world() -> tuple[Volume, Mask, Mask]:
    """Two box lungs; a lesion at the back of the patient's right lung, near the foot."""
    lung, lesion = np.zeros((2, *GRID.shape), bool)
    lung[:, 3:17, 3:13] = lung[:, 3:17, 17:27] = True
    lesion[1, 12:16, 4:8] = True
    hu = np.where(lung, -850, 40).astype(np.int16)
    hu[lesion] = -500
    return Volume(hu, GRID), Mask(lesion, GRID), Mask(lung, GRID)


def views() -> tuple[View, ...]:
    volume, lesion, lung = world()
    return pick_views(volume, lesion, find_regions(lung))


def test_each_third_shows_its_slice_with_most_lesion_or_most_lung() -> None:
    assert [view.title for view in views()] == [
        "coronal",
        "upper, slice 7 of 9",
        "middle, slice 4 of 9",
        "lower, slice 2 of 9",
    ]


def test_in_an_axial_view_the_back_is_down_and_the_right_is_left() -> None:
    lower = views()[-1]
    rows, columns = np.nonzero(lower.lesion)

    assert rows.mean() > lower.hu.shape[0] / 2
    assert columns.mean() < lower.hu.shape[1] / 2


def test_in_the_coronal_view_the_foot_is_down() -> None:
    rows, _ = np.nonzero(views()[0].lesion)

    assert (rows == views()[0].hu.shape[0] - 2).all()
    assert views()[0].pixel_mm == (10.0, 4.0)


def test_lesion_is_tinted_by_density_and_the_lung_outlined() -> None:
    shape = (10, 10)
    hu, lesion, lung = np.full(shape, -850, np.int16), np.zeros(shape, bool), np.zeros(shape, bool)
    lung[2:, 2:], lesion[4:8, 4:8] = True, True
    hu[4:8, 4:6], hu[4:8, 6:8] = -500, 0
    image = paint(View("", hu, lesion, lung, (8.0, 8.0))).astype(int)  # ten fine pixels for each

    assert image.shape == (100, 100, 3)
    red, green, blue = image[60, 45]
    assert min(red, green) > blue + 20  # amber
    red, green, blue = image[60, 75]
    assert min(red, blue) > green + 20  # magenta
    assert (image[20, 50] == np.round(np.array(rgb(LUNG_LINE)) * 255)).all()
    assert len(set(image[10, 10])) == len(set(image[30, 30])) == 1


def test_colours_of_ground_glass_and_consolidation_differ_in_lightness_too() -> None:
    grey = [np.dot(rgb(colour), (0.2126, 0.7152, 0.0722)) for colour in (GROUND_GLASS, CONSOLIDATION)]

    assert abs(grey[0] - grey[1]) > 0.2


def test_a_lung_of_one_slice_has_pictures_too() -> None:
    volume, lesion, lung = world()
    one = Mask(lung.voxels & (np.arange(9) == 4)[:, None, None], GRID)
    found = pick_views(volume, lesion, find_regions(one))

    assert [view.title for view in found] == ["coronal", "middle, slice 5 of 9"]
    assert draw_views(found).png


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_map_of_zones_names_every_percent(share: float) -> None:
    volume, _, lung = world()
    regions = find_regions(lung)
    drawn = draw_zones(regions, burden_of(volume, Mask(lung.voxels & (share > 0), GRID), lung))

    assert drawn.alt.count("100 %" if share else " 0 %") == 6
    assert drawn.png.startswith(b"\x89PNG")
