"""How a chest lies and breathes on another day: a smooth, known deformation of a scan and of what was drawn on it.

A patient lies down anew (a shift and a turn), breathes in more or less (the lungs grow longest at the diaphragm and hardly at the
apex, and a little to the front and the sides), and tissue moves locally. Everything is one smooth map without folds, known at every
point, so that a registration can be held against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lungshift.ct.geometry import Geometry
from lungshift.errors import ProtocolError

_FORWARD_STEPS = 40


@dataclass(frozen=True)
class Breathing:
    """How far a chest may differ from the first date; every amplitude is drawn evenly up to it, or as a normal of that spread.

    Attributes:
        shift_mm: Largest shift along each axis.
        turn_deg: Largest turn about each axis.
        descent_mm: Largest way of the lungs' base, up or down; it fades to nothing at the apex.
        widening: Largest relative change of width and depth.
        local_mm: Spread of the local movements.
        local_count: How many local movements there are.
    """

    shift_mm: float = 12.0
    turn_deg: float = 3.0
    descent_mm: float = 22.0
    widening: float = 0.03
    local_mm: float = 3.0
    local_count: int = 12

    def __post_init__(self) -> None:
        if min(self.shift_mm, self.turn_deg, self.descent_mm, self.widening, self.local_mm, self.local_count) < 0:
            raise ProtocolError(f"Shifts, turns and movements are at least 0; got {self}.")


STILL = Breathing(0.0, 0.0, 0.0, 0.0, 0.0, 0)
"""The patient lies and breathes exactly as before."""


@dataclass(frozen=True, eq=False)
class Motion:
    """A map from a place in this date's scan to the place of the same tissue in the first date's.

    Attributes:
        linear: Turn and widening, about ``pivot_mm``.
        shift_mm: Added to it.
        pivot_mm: Centre of the lungs.
        base_mm: Height of their lowest point.
        height_mm: From there to the apex.
        descent_mm: Shift along z at the base, fading evenly to nothing at the apex.
        bumps: A row for each local movement: centre (3), reach (1, standard deviation) and vector (3), mm.
    """

    linear: Float64[np.ndarray, "3 3"]
    shift_mm: Float64[np.ndarray, "3"]
    pivot_mm: Float64[np.ndarray, "3"]
    base_mm: float
    height_mm: float
    descent_mm: float
    bumps: Float64[np.ndarray, "bump 7"]

    def back_mm(self, points_mm: np.ndarray) -> Float64[np.ndarray, "*n 3"]:
        """Where the tissue at (…, 3) LPS points of this date lay on the first date."""
        points = np.asarray(points_mm, dtype=np.float64)
        moved = (points - self.pivot_mm) @ self.linear.T + self.pivot_mm + self.shift_mm
        level = np.clip((points[..., 2] - self.base_mm) / self.height_mm, -0.3, 1.0)
        moved[..., 2] += self.descent_mm * (1 - level)
        for *centre, reach, x, y, z in self.bumps:
            square = np.square(points - np.array(centre)).sum(axis=-1)
            moved += np.exp(-square / (2 * reach * reach))[..., None] * np.array([x, y, z])
        return moved

    def forward_mm(self, points_mm: np.ndarray) -> Float64[np.ndarray, "*n 3"]:
        """Where the tissue at points of the first date lies on this one: the inverse of ``back_mm``, to 0.001 mm."""
        goal = np.asarray(points_mm, dtype=np.float64)
        found = goal.copy()
        for _ in range(_FORWARD_STEPS):
            step = goal - self.back_mm(found)
            found += step
            if not step.size or np.abs(step).max() < 1e-3:
                break
        return found


def draw_motion(rng: np.random.Generator, how: Breathing, low_mm: np.ndarray, high_mm: np.ndarray) -> Motion:
    """A random day.

    Args:
        rng: Draws everything.
        how: How far it may differ.
        low_mm: Lowest x, y, z of the lungs on the first date.
        high_mm: Highest x, y, z of the lungs.
    """
    low, high = np.asarray(low_mm, np.float64), np.asarray(high_mm, np.float64)
    turn = Rotation.from_euler("xyz", rng.uniform(-how.turn_deg, how.turn_deg, 3), degrees=True).as_matrix()
    wide, deep = 1 + rng.uniform(-how.widening, how.widening, 2)
    shift = rng.uniform(-how.shift_mm, how.shift_mm, 3)
    descent = float(rng.uniform(-how.descent_mm, how.descent_mm))
    centres = rng.uniform(low, high, (how.local_count, 3))
    reach = rng.uniform(25, 45, (how.local_count, 1))
    vectors = rng.normal(0, how.local_mm, (how.local_count, 3)).clip(-2.5 * how.local_mm, 2.5 * how.local_mm)
    return Motion(
        linear=turn @ np.diag([wide, deep, 1.0]),
        shift_mm=shift,
        pivot_mm=(low + high) / 2,
        base_mm=float(low[2]),
        height_mm=float(high[2] - low[2]),
        descent_mm=descent,
        bumps=np.hstack([centres, reach, vectors]),
    )


def move_volume(values: np.ndarray, geometry: Geometry, motion: Motion, onto: Geometry | None = None) -> np.ndarray:
    """A scan of the first date as it would be on the motion's date; cubic in between, and beyond its ends as at its ends.

    Args:
        values: (slice, row, column) HU.
        geometry: Its grid.
        motion: The day.
        onto: The grid of that day's scan; the same if not given.
    """
    return move_scan(values, (), geometry, motion, onto)[0]


def move_mask(
    voxels: Bool[np.ndarray, "slice row column"], geometry: Geometry, motion: Motion, onto: Geometry | None = None
) -> Bool[np.ndarray, "slice row column"]:
    """A mask of the first date as it would be on the motion's date: where at least half of a voxel belongs to it."""
    return move_scan(None, (voxels.astype(np.float32),), geometry, motion, onto)[1][0]


def move_scan(
    hu: np.ndarray | None,
    shares: Sequence[Float32[np.ndarray, "slice row column"]],
    geometry: Geometry,
    motion: Motion,
    onto: Geometry | None = None,
) -> tuple[np.ndarray, list[Bool[np.ndarray, "slice row column"]]]:
    """A scan with its masks as they would be on the motion's date.

    Args:
        hu: As in ``move_volume``; None for none.
        shares: How much of each voxel belongs to a structure, for each of some structures.
        geometry: Their grid.
        motion: The day.
        onto: The grid of that day's scan; the same if not given.

    Returns:
        HU of the kind they had, and where at least half of a voxel belongs to each structure.
    """
    onto, last = onto or geometry, np.array(geometry.shape) - 1
    smooth = None if hu is None else ndimage.spline_filter(hu.astype(np.float32), order=3, output=np.float32)
    moved = np.empty(onto.shape, np.float32)
    masks = [np.empty(onto.shape, np.bool_) for _ in shares]
    for index, there in enumerate(_places(geometry, motion, onto)):
        if smooth is not None:
            at = np.clip(there, 0, last[:, None, None])
            moved[index] = ndimage.map_coordinates(smooth, at, order=3, mode="mirror", prefilter=False)
        for mask, share in zip(masks, shares, strict=True):
            mask[index] = ndimage.map_coordinates(share, there, order=1) >= 0.5
    return _as_stored(moved, hu), masks


def _places(geometry: Geometry, motion: Motion, onto: Geometry) -> Iterator[Float64[np.ndarray, "3 row column"]]:
    """For each slice of the new grid, where its voxels lie in the old one, in voxels."""
    back = np.linalg.inv(geometry.affine)
    rows, columns = np.meshgrid(np.arange(onto.shape[1]), np.arange(onto.shape[2]), indexing="ij")
    for index in range(onto.shape[0]):
        places = np.stack([np.full(rows.shape, index), rows, columns], axis=-1)
        there = motion.back_mm(onto.world_mm(places)) @ back[:3, :3].T + back[:3, 3]
        yield np.moveaxis(there, -1, 0)


def _as_stored(moved: np.ndarray, hu: np.ndarray | None) -> np.ndarray:
    """Within the values that there were (a spline overshoots), and of their kind."""
    if hu is None:
        return moved
    np.clip(moved, float(hu.min()), float(hu.max()), out=moved)
    return np.rint(moved).astype(hu.dtype) if hu.dtype.kind == "i" else moved.astype(hu.dtype)
