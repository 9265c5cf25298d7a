"""Grids of every kind that a scan may lie on: anisotropic, off-centre, oblique."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from lungshift.ct.geometry import Geometry

_ANGLE = st.floats(-0.35, 0.35)
_SPACING = st.floats(0.4, 5.0)
_ORIGIN = st.floats(-400, 400)


def oblique(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    angles: tuple[float, float, float],
    origin_mm: tuple[float, float, float] = (0, 0, 0),
) -> Geometry:
    """A regular grid turned about the patient's three axes, in radians."""
    a, b, c = angles
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    affine = np.array(Geometry.regular(shape, spacing_mm).affine)
    affine[:3, :3] = np.array(about_z) @ about_y @ about_x @ affine[:3, :3]
    affine[:3, 3] = origin_mm
    return Geometry(shape, affine)


def geometries(shape: tuple[int, int, int]) -> st.SearchStrategy[Geometry]:
    """Canonical grids of one shape, anywhere, with any spacing, turned by up to 20 degrees about each axis."""
    return st.builds(
        oblique,
        st.just(shape),
        st.tuples(_SPACING, _SPACING, _SPACING),
        st.tuples(_ANGLE, _ANGLE, _ANGLE),
        st.tuples(_ORIGIN, _ORIGIN, _ORIGIN),
    )


def ball(geometry: Geometry, centre_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    """Voxels whose centre is in a ball."""
    places = geometry.world_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))
    return np.linalg.norm(places - centre_mm, axis=-1) <= radius_mm
