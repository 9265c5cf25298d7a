"""The lungs in 3-D, small and cheap: a translucent shell seen obliquely from the front, with lesions and one finding inside.

A page of hundreds of findings can afford neither VTK nor large pictures. So masks are made of blocks of about ``_BLOCK_MM``, and each coronal
plane of blocks is shifted against the one before it, so that rays from the eye become columns of the array (the first half of a shear-warp). What a
ray meets first is shaded by its slope; the picture is warped once, at the end. All of a case is done once; a finding shifts its own box only. What
lies behind lung is seen as through smoke, the fainter the more lung is before it.

Source: Lacroute, Levoy, Fast volume rendering using a shear-warp factorization of the viewing transformation, SIGGRAPH 1994.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage

from lungshift.ct.boxes import box_of
from lungshift.show.drawing import rgb

if TYPE_CHECKING:
    from PIL.Image import Image

TURN_DEGREES, RISE_DEGREES = 25.0, 20.0
"""The eye is before the patient, this far round to the patient's left and this far above."""

Box = tuple[slice, slice, slice]
Triple = tuple[int, int, int]
Voxels = Bool[np.ndarray, "slice row column"]

_TURN, _RISE = math.radians(TURN_DEGREES), math.radians(RISE_DEGREES)
_EYE: Final = np.array([math.sin(_RISE), -math.cos(_TURN) * math.cos(_RISE), math.sin(_TURN) * math.cos(_RISE)])
_UP: Final = np.array([math.cos(_RISE), math.cos(_TURN) * math.sin(_RISE), -math.sin(_TURN) * math.sin(_RISE)])
_RIGHT: Final = np.array([0, math.sin(_TURN), math.cos(_TURN)])
"""Towards the eye, and up and right in the picture, along slices (up), rows (back) and columns (the patient's left)."""
_LIGHT: Final = (0.72 * _EYE + 0.55 * _UP - 0.42 * _RIGHT) / math.hypot(0.72, 0.55, 0.42)

_BLOCK_MM = 2.5
_MARGIN_MM, _HEADROOM_MM = 8.0, 26.0
_BACKGROUND: Final = np.array([20, 27, 36]) / 255
_GLASS: Final = np.array([205, 209, 214]) / 255
_SMOKE_MM = 220.0
_FAINTEST, _FAINTEST_FINDING, _THROUGH_LESION = 0.5, 0.65, 0.8
_NEARER_MM = 5.0
_LINE, _SHEET = 0.35, 0.12
_DIMMEST = 0.35
_ROUNDED: Final = {False: 0.8, True: 0.55}
_INSIDE: Final = {False: 0.5, True: 0.12}
"""By whether whole blocks are in: how far edges are rounded, in blocks, and from which value on a block is inside after that. A single block
has 0.38 then, and 0.13 half-way between four rays, so none is lost."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What the rays through a part of the picture meet first of one structure.

    Attributes:
        part: Rays, up and to the patient's left.
        met: Rays that meet it.
        depth: In which row of blocks; infinite where nothing is met.
        light: How bright it is there.
        facing: 1 where it faces the eye, 0 where it is seen along its surface.
    """

    part: tuple[slice, slice]
    met: Bool[np.ndarray, "up left"]
    depth: Float32[np.ndarray, "up left"]
    light: Float32[np.ndarray, "up left"]
    facing: Float32[np.ndarray, "up left"]


@dataclass(frozen=True, eq=False)
class Oblique:
    """A case seen obliquely from the front, head up and the patient's right on the left.

    Attributes:
        lung: The lung mask; may be empty.
        layers: Lesion masks and their colours, on the same grid; of two that lie at one depth the first is seen.
        spacing_mm: Distance of neighbours along slice, row, column. Slices go up, rows to the back, columns to the patient's left.
    """

    lung: Voxels
    layers: Sequence[tuple[Voxels, str]]
    spacing_mm: tuple[float, float, float]

    def picture(self, pixels: int, finding: Voxels, box: Box, colour: str, at: int) -> Image:
        """The case with a finding, which is seen through whatever lies before it, and the sheet that a slice cuts out of the lungs.

        Args:
            pixels: Along the longer side.
            finding: Its voxels within the box; may be none.
            box: Slices, rows and columns of the whole grid.
            colour: Of the finding, as ``#rrggbb``.
            at: The slice.
        """
        picture, lesion = self._inside[0].copy(), self._inside[1]
        self._behind_glass(picture)
        self._cut(picture, at)
        if finding.any():
            sight = self._sight(finding, box)
            hidden = sight.depth > lesion[sight.part] + _NEARER_MM / self._row_mm
            share = np.where(hidden, _THROUGH_LESION, 1) * np.maximum(
                self._clear(sight.part, sight.depth), _FAINTEST_FINDING
            )
            _paint(picture[sight.part], sight, sight.met, share, colour)
        return self._warped(picture, pixels)

    def place(self, pixels: int, seat: tuple[float, float, float]) -> tuple[float, float]:
        """Where a voxel is in a picture, right and down in pixels from its upper left corner."""
        scale, (left, top), _ = self._frame(pixels)
        mm = np.array(seat) * self.spacing_mm
        return float(mm @ _RIGHT - left) / scale, float(-mm @ _UP - top) / scale

    def pixel_mm(self, pixels: int) -> float:
        """Size of a pixel of a picture."""
        return self._frame(pixels)[0]

    # The lattice: blocks, those of thick slices divided. Its first point is one block before the grid.

    @cached_property
    def _factors(self) -> tuple[int, int, int]:
        """Voxels of a block."""
        slice_, row, column = (max(1, round(_BLOCK_MM / mm)) for mm in self.spacing_mm)
        return slice_, row, column

    @cached_property
    def _divided(self) -> int:
        """Parts of a block along the slices."""
        return max(1, round(self._factors[0] * self.spacing_mm[0] / _BLOCK_MM))

    @cached_property
    def _lattice_mm(self) -> Float64[np.ndarray, "3"]:
        return np.array(self._factors) * self.spacing_mm / (self._divided, 1, 1)

    @cached_property
    def _first_mm(self) -> Float64[np.ndarray, "3"]:
        return -(np.array(self._factors) + 1) / 2 * self.spacing_mm

    @cached_property
    def _shifts(self) -> tuple[float, float]:
        """How far a row of blocks is shifted against the one before, up and to the patient's left, in steps of the lattice."""
        up, left = (float(-_EYE[axis] / _EYE[1] * self._lattice_mm[1] / self._lattice_mm[axis]) for axis in (0, 2))
        return up, left

    @cached_property
    def _rays(self) -> tuple[int, int]:
        """How many there are, up and to the patient's left."""
        slices, rows, columns = (-(-n // factor) for n, factor in zip(self.lung.shape, self._factors, strict=True))
        up, left = (math.ceil(shift * (rows + 1)) + 2 for shift in self._shifts)
        return (slices + 1) * self._divided + up, columns + 1 + left

    @cached_property
    def _row_mm(self) -> float:
        """The way of a ray from one row of blocks to the next."""
        return float(self._lattice_mm[1] / -_EYE[1])

    def _blocks(self, mask: Voxels, box: Box, *, whole: bool) -> tuple[Float32[np.ndarray, "s r c"], Triple]:
        """A mask on the lattice with nothing around it, and where it begins.

        Args:
            mask: Within the box.
            box: In the whole grid.
            whole: Whether all of a block is in as soon as one voxel is, so that nothing vanishes; else its share of voxels.
        """
        ends = [
            (part.start % factor, -(part.start + n) % factor)
            for part, factor, n in zip(box, self._factors, mask.shape, strict=True)
        ]
        blocks = np.pad(mask if whole else mask.astype(np.uint16), ends)
        for axis, factor in enumerate(self._factors):
            parts = (blocks[(slice(None),) * axis + (slice(one, None, factor),)] for one in range(factor))
            blocks = reduce(np.logical_or if whole else np.add, parts)
        share = blocks.astype(np.float32) / np.float32(1 if whole else math.prod(self._factors))
        blocks = ndimage.gaussian_filter(np.pad(share, 1), _ROUNDED[whole], truncate=2)
        slice_, row, column = (part.start // factor for part, factor in zip(box, self._factors, strict=True))
        return self._divide(blocks, smooth=not whole), (slice_ * self._divided, row, column)

    def _divide(self, blocks: Float32[np.ndarray, "s r c"], *, smooth: bool) -> Float32[np.ndarray, "s r c"]:
        """Thick slices as thin ones, by interpolation."""
        if self._divided == 1:
            return blocks
        place = np.arange((len(blocks) - 1) * self._divided + 1) / self._divided
        low = np.minimum(place.astype(int), len(blocks) - 2)
        share = (place - low).astype(np.float32)[:, None, None]
        thin = blocks[low] + share * (blocks[low + 1] - blocks[low])
        return ndimage.gaussian_filter1d(thin, self._divided / 2, axis=0, truncate=2) if smooth else thin

    # What rays meet.

    def _sheared(self, mask: Voxels, box: Box, *, whole: bool) -> tuple[Float32[np.ndarray, "row up left"], Triple]:
        """A mask with its rows of blocks shifted until rays run straight through them, and its first row and rays."""
        blocks, (first_up, first_row, first_left) = self._blocks(mask, box, whole=whole)
        up, left = (np.arange(first_row, first_row + blocks.shape[1]) * shift for shift in self._shifts)
        low = int(up[0]), int(left[0])
        ends = blocks.shape[0] + math.ceil(up[-1]) + 1, blocks.shape[2] + math.ceil(left[-1]) + 1
        sheared = np.zeros((blocks.shape[1], ends[0] - low[0], ends[1] - low[1]), np.float32)
        for row, (by_up, by_left) in enumerate(zip(up - low[0], left - low[1], strict=True)):
            _add_shifted(sheared[row], blocks[:, row], float(by_up), float(by_left))
        return sheared, (first_row, first_up + low[0], first_left + low[1])

    def _met(self, sheared: Float32[np.ndarray, "row up left"], first: Triple, level: float) -> Sight:
        """Where rays enter, and how the surface lies there."""
        inside = sheared >= level
        met, at = np.asarray(inside.any(axis=0)), inside.argmax(axis=0)
        up, left = np.ogrid[: met.shape[0], : met.shape[1]]

        def value(by_row: int = 0, by_up: int = 0, by_left: int = 0) -> np.ndarray:
            places = (at + by_row, up + by_up, left + by_left)
            return np.asarray(
                sheared[tuple(np.clip(one, 0, n - 1) for one, n in zip(places, sheared.shape, strict=True))]
            )

        before, here = value(-1), value()
        depth = np.where(met, first[0] + at - (here - level) / np.maximum(here - before, 1e-6), np.inf)
        along, upward, leftward = value(1) - before, value(0, 1) - value(0, -1), value(0, 0, 1) - value(0, 0, -1)
        back = along + self._shifts[0] * upward + self._shifts[1] * leftward
        slope = np.stack([upward, back, leftward], axis=-1) / -self._lattice_mm
        slope /= np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
        part = slice(first[1], first[1] + met.shape[0]), slice(first[2], first[2] + met.shape[1])
        light = _DIMMEST + (1 - _DIMMEST) * np.clip(slope @ _LIGHT, 0, 1) * 1.2
        return Sight(
            part,
            met,
            depth.astype(np.float32),
            light.astype(np.float32),
            np.clip(slope @ _EYE, 0, 1).astype(np.float32),
        )

    def _sight(self, mask: Voxels, box: Box) -> Sight:
        return self._met(*self._sheared(mask, box, whole=True), _INSIDE[True])

    @cached_property
    def _lung(self) -> tuple[Float32[np.ndarray, "row up left"], int, Sight] | None:
        """The lungs as rays run through them, their first row of blocks, and what is met of them."""
        if not self.lung.any():
            return None
        box = box_of(self.lung)
        sheared, first = self._sheared(self.lung[box], box, whole=False)
        return sheared, first[0], self._met(sheared, first, _INSIDE[False])

    def _clear(
        self, part: tuple[slice, slice], depth: Float32[np.ndarray, "up left"]
    ) -> Float32[np.ndarray, "up left"]:
        """How much is seen of what lies at a depth, through the lung before it; 1 where there is none."""
        clear = np.ones(depth.shape, np.float32)
        if self._lung is None:
            return clear
        sheared, first, sight = self._lung
        both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part, sight.part, strict=True)]
        if any(one.start >= one.stop for one in both):
            return clear
        mine = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(both, part, strict=True))
        its = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(both, sight.part, strict=True))
        before = np.arange(first, first + len(sheared), dtype=np.float32)[:, None, None] < depth[mine]
        rows = np.einsum("rul,rul->ul", sheared[:, *its], before)
        clear[mine] = np.exp(-rows * np.float32(self._row_mm / _SMOKE_MM))
        return clear

    # The picture, a pixel a ray, feet first.

    @cached_property
    def _inside(self) -> tuple[Float64[np.ndarray, "up left 3"], Float32[np.ndarray, "up left"]]:
        """The picture without a finding and without the front of the lungs; and how deep lesions are."""
        everywhere = slice(0, self._rays[0]), slice(0, self._rays[1])
        lesions = np.full(self._rays, np.inf, np.float32)
        smoke = 0.5 * (1 - self._clear(everywhere, lesions)[..., None])
        picture = (1 - smoke) * _BACKGROUND + smoke * _GLASS
        for mask, colour in self.layers:
            if mask.any():
                box = box_of(mask)
                sight = self._sight(mask[box], box)
                nearer = sight.met & (sight.depth < lesions[sight.part] - _NEARER_MM / self._row_mm)
                share = np.maximum(self._clear(sight.part, sight.depth), _FAINTEST)
                _paint(picture[sight.part], sight, nearer, share, colour)
                lesions[sight.part] = np.where(nearer, sight.depth, lesions[sight.part])
        return picture, lesions

    def _behind_glass(self, picture: np.ndarray) -> None:
        """Put the front of the lungs before it: more is seen of them along their surface than through it."""
        if self._lung is None:
            return
        shell, part = self._lung[2], picture[self._lung[2].part]
        share = (shell.met * (0.22 + 0.6 * (1 - shell.facing) ** 2))[..., None]
        part[:] = (1 - share) * part + share * np.minimum(shell.light[..., None] * _GLASS, 1)

    def _cut(self, picture: np.ndarray, at: int) -> None:
        """Draw where a slice cuts the lungs, as a sheet with an outline; the outline is fainter behind lung."""
        if self._lung is None:
            return
        sheared, first, sight = self._lung
        height = (at * self.spacing_mm[0] - self._first_mm[0]) / self._lattice_mm[0]
        rays = np.arange(sheared.shape[1])
        # a ray goes down as it goes back, so each line of rays meets the slice in one row of blocks
        row = (rays + sight.part[0].start - height) / self._shifts[0] - first
        near = np.clip(row.astype(int), 0, len(sheared) - 2)
        share = np.clip(row - near, 0, 1)[:, None]
        lung = (1 - share) * sheared[near, rays] + share * sheared[near + 1, rays]
        depth = np.broadcast_to((row + first)[:, None], lung.shape).astype(np.float32)
        line = np.clip((1 - lung) / _LINE, 0, 0.95) * self._clear(sight.part, depth)
        white = (np.maximum(line, _SHEET) * (lung >= _INSIDE[False]))[..., None]
        part = picture[sight.part]
        part[:] = (1 - white) * part + white

    def _frame(self, pixels: int) -> tuple[float, tuple[float, float], tuple[int, int]]:
        """Millimetres of a pixel, the upper left corner in mm (right, down), and columns and rows of the picture."""
        left, top, right, bottom = self._extent
        scale = max(right - left, bottom - top) / pixels
        return scale, (left, top), (max(1, round((right - left) / scale)), max(1, round((bottom - top) / scale)))

    @cached_property
    def _extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what there is, in mm to the right and down, with a margin; more at the head, for letters."""
        seen = np.isfinite(self._inside[1])
        if self._lung is not None:
            seen[self._lung[2].part] |= self._lung[2].met
        ups, lefts = np.nonzero(seen if seen.any() else ~seen)
        points = self._first_mm + np.stack([ups, np.zeros(len(ups)), lefts], axis=1) * self._lattice_mm
        right, down = points @ _RIGHT, -(points @ _UP)
        low, high = ((float(f(right)), float(f(down))) for f in (np.min, np.max))
        return low[0] - _MARGIN_MM, low[1] - _HEADROOM_MM, high[0] + _MARGIN_MM, high[1] + _MARGIN_MM

    def _warped(self, picture: Float64[np.ndarray, "up left 3"], pixels: int) -> Image:
        """The picture as the eye has it, right side up."""
        from PIL import Image

        scale, (left, top), size = self._frame(pixels)
        up_mm, _, left_mm = self._lattice_mm
        per_column, first_column = (
            scale / (left_mm * _RIGHT[2]),
            (left - self._first_mm @ _RIGHT) / (left_mm * _RIGHT[2]),
        )
        lean = -left_mm * _UP[2] / (up_mm * _UP[0])
        per_row, first_row = -scale / (up_mm * _UP[0]), (-top - self._first_mm @ _UP) / (up_mm * _UP[0])
        image = Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))
        # Pillow counts from the corner of a pixel, rays are at the middle of one
        across = (per_column, 0, first_column + 0.5)
        upward = (lean * per_column, per_row, first_row + lean * first_column + 0.5)
        fill = tuple(round(255 * one) for one in _BACKGROUND)
        return image.transform(
            size, Image.Transform.AFFINE, (*across, *upward), Image.Resampling.BICUBIC, fillcolor=fill
        )


def _paint(picture: np.ndarray, sight: Sight, where: np.ndarray, share: np.ndarray, colour: str) -> None:
    """Lay a colour, shaded, on a part of the picture."""
    solid = np.minimum(sight.light[..., None] * np.array(rgb(colour)), 1)
    picture[where] = ((1 - share[..., None]) * picture + share[..., None] * solid)[where]


def _add_shifted(into: np.ndarray, plane: np.ndarray, up: float, left: float) -> None:
    """Add a plane, moved by what may be parts of a pixel."""
    i, j = int(up), int(left)
    f, g = np.float32(up - i), np.float32(left - j)
    rows, columns = plane.shape
    into[i : i + rows, j : j + columns] += (1 - f) * (1 - g) * plane
    into[i + 1 : i + 1 + rows, j : j + columns] += f * (1 - g) * plane
    into[i : i + rows, j + 1 : j + 1 + columns] += (1 - f) * g * plane
    into[i + 1 : i + 1 + rows, j + 1 : j + 1 + columns] += f * g * plane
