"""Cameras: what is left, right, up and down in each standard view."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.show.cameras import VIEWS, Camera, View, cameras_of, turntable
from lungshift.show.surfaces import Surface

LETTERS = {"R": (-1, 0, 0), "L": (1, 0, 0), "A": (0, -1, 0), "P": (0, 1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
CORNERS = np.array(np.meshgrid((-150, 140), (-90, 100), (-1200, -900)), np.float32).reshape(3, -1).T
BOX = Surface(CORNERS, np.zeros((0, 3), np.int32))


def on_picture(camera: Camera, point: np.ndarray) -> np.ndarray:
    """Where a point is in the picture: right and up from its middle, as shares of half its height."""
    ahead = np.subtract(camera.target_mm, camera.eye_mm)
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(ahead, camera.up)
    from_middle = np.asarray(point) - camera.target_mm
    return np.array([from_middle @ right, from_middle @ np.array(camera.up)]) / camera.half_height_mm


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_letters_stand_at_the_edge_that_they_name(view: View) -> None:
    camera = cameras_of([BOX])[view.name]

    for letter, (across, along) in zip(view.edges, ((-1, 0), (1, 0), (0, 1), (0, -1)), strict=True):
        moved = on_picture(camera, np.add(camera.target_mm, LETTERS[letter]))
        np.testing.assert_allclose(moved * camera.half_height_mm, (across, along), atol=1e-9)


@pytest.mark.parametrize("view", [view for view in VIEWS if "R" in view.edges], ids=lambda view: view.name)
def test_the_patients_right_is_on_the_left(view: View) -> None:
    assert view.edges[:2] == ("R", "L")


def test_everything_is_in_the_picture_and_fills_it() -> None:
    for camera in cameras_of([BOX]).values():
        places = np.abs([on_picture(camera, corner) for corner in CORNERS])

        assert 0.85 < places.max() < 1


def test_a_turn_begins_at_the_front_goes_over_the_left_and_cuts_nothing_off() -> None:
    cameras = list(turntable([BOX], 12))

    towards = [np.subtract(camera.eye_mm, camera.target_mm) for camera in (cameras[0], cameras[3])]
    np.testing.assert_allclose([one / np.linalg.norm(one) for one in towards], [(0, -1, 0), (1, 0, 0)], atol=1e-9)
    assert len({camera.half_height_mm for camera in cameras}) == 1
    assert max(np.abs(on_picture(camera, corner)).max() for camera in cameras for corner in CORNERS) < 1
