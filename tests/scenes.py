"""A small chest with two lungs and lesions, on an oblique grid, far from the origin."""

from __future__ import annotations

import numpy as np

from grids import ball, oblique
from lungshift.ct.case import Case
from lungshift.ct.volume import Mask, Volume

GRID = oblique((30, 40, 48), (5.0, 4.0, 4.2), (0.12, -0.08, 0.1), (-310, -240, -1180))
RIGHT, LEFT, SICK, SEEN = (15, 20, 12), (15, 20, 35), (11, 18, 12), (12, 19, 13)
"""Centres (slice, row, column) of the lungs, of the reader's lesion and of the predicted one, both in the right lung."""


def small_chest() -> tuple[Case, Mask]:
    """A case with the reader's lesion, and a prediction."""
    lung = _ball(RIGHT, 45) | _ball(LEFT, 40)
    rng = np.random.default_rng(0)
    hu = np.where(lung, -800, 40) + rng.normal(0, 20, GRID.shape)
    reference, prediction = (Mask(_ball(place, 17), GRID) for place in (SICK, SEEN))
    return Case(Volume(hu.astype(np.int16), GRID), Mask(lung, GRID), reference, "a name"), prediction


def _ball(place: tuple[int, int, int], radius_mm: float) -> np.ndarray:
    return ball(GRID, GRID.world_mm(np.array(place)), radius_mm)
