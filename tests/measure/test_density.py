"""Ground glass and consolidation, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError
from lungshift.measure.density import CONSOLIDATION_HU, split_density

GRID = Geometry.regular((1, 1, 4), (5, 1, 1))


def test_a_lesion_is_split_at_the_cut_off_and_nothing_is_lost() -> None:
    hu = np.array([[[-600, CONSOLIDATION_HU - 1, CONSOLIDATION_HU, 40]]], np.int16)
    glass, dense = split_density(Mask(np.array([[[True, True, True, False]]]), GRID), Volume(hu, GRID))

    assert glass.voxels.ravel().tolist() == [True, True, False, False]
    assert dense.voxels.ravel().tolist() == [False, False, True, False]


def test_a_scan_on_another_grid_is_refused() -> None:
    other = Volume(np.arange(4, dtype=np.int16).reshape(1, 1, 4), Geometry.regular((1, 1, 4), (5, 1, 2)))

    with pytest.raises(GeometryError, match="Scan and lesion mask"):
        split_density(Mask(np.ones((1, 1, 4), bool), GRID), other)
