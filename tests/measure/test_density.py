"""Ground glass and consolidation, voxel by voxel."""

from __future__ import annotations

import numpy as np

from lungshift.measure.density import CONSOLIDATION_HU, is_dense


def test_a_lesion_voxel_at_the_cut_off_or_above_is_consolidation() -> None:
    hu = np.array([-600, CONSOLIDATION_HU - 1, CONSOLIDATION_HU, 40], np.int16)

    assert is_dense(hu).tolist() == [False, False, True, True]
