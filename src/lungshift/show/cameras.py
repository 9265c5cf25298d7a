"""From where a chest is looked at: the standard views, the same for our pictures and for ParaView."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from lungshift.show.surfaces import Surface

_MARGIN: Final = 1.12
Place = tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """A standard view, without perspective.

    Attributes:
        name: File name without suffix.
        words: What it is called.
        towards: From the chest to the eye, LPS.
        up: What is up in the picture, LPS.
        edges: What lies at the left, right, upper and lower edge: R, L, A, P, S or I.
    """

    name: str
    words: str
    towards: Place
    up: Place
    edges: tuple[str, str, str, str]


VIEWS: Final = (
    View("anterior", "from the front", (0, -1, 0), (0, 0, 1), ("R", "L", "S", "I")),
    View("left", "from the left", (1, 0, 0), (0, 0, 1), ("A", "P", "S", "I")),
    View("superior", "from above", (0, 0, 1), (0, 1, 0), ("R", "L", "P", "A")),
    View("inferior", "from the feet, as CT slices are read", (0, 0, -1), (0, -1, 0), ("R", "L", "A", "P")),
)
"""The patient's right is on the left wherever it shows, as in a radiograph."""


@dataclass(frozen=True)
class Camera:
    """A parallel camera: where the eye is, what it looks at, what is up, and half the height of the picture in mm."""

    eye_mm: Place
    target_mm: Place
    up: Place
    half_height_mm: float


def cameras_of(surfaces: Sequence[Surface]) -> dict[str, Camera]:
    """The cameras of all views, by name, that have all of the surfaces in a square picture."""
    low, high = _bounds(surfaces)
    return {view.name: _camera(low, high, view.towards, view.up) for view in VIEWS}


def turntable(surfaces: Sequence[Surface], frames: int) -> Iterator[Camera]:
    """Cameras once around the patient's long axis, from the front over the patient's left; none cuts anything off."""
    low, high = _bounds(surfaces)
    reach = math.hypot(*(high - low)[:2])
    for frame in range(frames):
        angle = 2 * math.pi * frame / frames
        yield _camera(low, high, (math.sin(angle), -math.cos(angle), 0.0), (0, 0, 1), reach)


def _bounds(surfaces: Sequence[Surface]) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    points = np.concatenate([surface.points_mm for surface in surfaces]).astype(np.float64)
    return points.min(axis=0), points.max(axis=0)


def _camera(low: np.ndarray, high: np.ndarray, towards: Place, up: Place, width: float | None = None) -> Camera:
    middle, extent = (low + high) / 2, high - low
    height = float(extent @ np.abs(up))
    across = float(extent @ np.abs(np.cross(up, towards))) if width is None else width
    eye = middle + 2 * np.linalg.norm(extent) * np.array(towards)
    return Camera(_place(eye), _place(middle), _place(np.array(up)), _MARGIN * max(height, across) / 2)


def _place(values: np.ndarray) -> Place:
    x, y, z = (float(value) for value in values)
    return x, y, z
