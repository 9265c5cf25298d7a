"""The part of a grid that holds what is marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool


def box_of(
    voxels: Bool[np.ndarray, "slice row column"], margin: Sequence[int] = (0, 0, 0)
) -> tuple[slice, slice, slice]:
    """Slices, rows and columns that hold all that is marked; something must be.

    Args:
        voxels: What is marked.
        margin: So many more on both sides, as far as the grid goes at its beginning; beyond its end a slice reaches no farther anyway.
    """
    box = []
    for axis, more in enumerate(margin):
        used = np.flatnonzero(voxels.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, int(used[0]) - more), int(used[-1]) + 1 + more))
    return box[0], box[1], box[2]
