"""Does a scan lie as its header says? The chest itself tells: spine, heart, liver and the shape of the lungs.

A header can lie without a trace: a converter that flips the rows and keeps the affine leaves a file that reads well and shows a mirror
image. What is looked at does not depend on voxel size or on the true scale of the HU: a thumbnail of the chest, cut to the box of its
lungs. Each sign gives a number that changes its sign when the chest is mirrored along one axis, so healthy and mirrored chests lie on two
sides of 0. The signs of an axis vote, each at most 1.5 (the spine 2), and an axis is called flipped when the votes add up to -1 or less.

Where the lungs go on beyond the scan, its levels are not those of a whole chest: signs that need them are left out, and -2 is asked for.

The units are round numbers near half of what healthy chests show, set once on 19 real scans and 16 phantoms; whole ones of these had sums
of 1.1 and more on every axis, so -1 is as far beyond 0 as the least certain of them lies before it. How well units from one cohort hold on
the other, and on parts of scans, is measured in ``benchmarks/audit.py``.

An organ may truly lie on the other side (situs inversus, one in about 10,000 people), be pushed there, or be missing from a scan of a part
of the chest: the remedy says to look before anything is turned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from lungshift.audit.finding import Finding
from lungshift.ct.packed import AnyMask
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError, IntensityError
from lungshift.prepare.lungmask import threshold_lungs

FLIPPED, FLIPPED_PART = -1.0, -2.0
"""Votes up to which an axis is called flipped: of a scan in which the lungs end at foot and head, and of a part of one."""

_SIDE, _MARGIN = 64, 0.4
_LEVELS, _BELOW = 40, 10
_LEAST_SLICES, _LEAST_PIXELS = 8, 20
_MOST_VOTE = 1.5
_AIR_HU, _SOFT_HU, _BONE_HU = -1000.0, -200.0, 200.0
_CUT = 0.25
_FEW = 20

_ALONG = (np.arange(_SIDE) + 0.5) / _SIDE * (1 + 2 * _MARGIN) - _MARGIN
"""Place of a thumbnail's rows and columns in the lung box: 0 its front or right edge, 1 its back or left edge."""
_HEIGHT = (np.arange(-_BELOW, _LEVELS + _BELOW) + 0.5) / _LEVELS
"""Place of a thumbnail's slices: 0 the lowest lung, 1 the highest."""
_INSIDE = slice(_BELOW, _BELOW + _LEVELS)
"""The levels that have lung."""


class Sign(NamedTuple):
    """One thing that tells which way an axis runs.

    Attributes:
        value: What was measured; above 0 speaks for the header.
        unit: The value that is worth one vote.
        most: The most votes it has.
        right, wrong: In words, what was seen when it speaks for and against the header.
    """

    value: float
    unit: float
    right: str
    wrong: str
    most: float = _MOST_VOTE

    @property
    def votes(self) -> float:
        """For the header above 0, against it below."""
        return float(np.clip(self.value / self.unit, -self.most, self.most))


@dataclass(frozen=True)
class Orientation:
    """What the chest says about the three axes.

    Attributes:
        signs: By axis (``front-back``, ``head-foot``, ``left-right``) and name; empty where there is too little lung to tell.
        whole: Whether the lungs end inside the scan at foot and head.
    """

    signs: Mapping[str, Mapping[str, Sign]]
    whole: bool = True

    def votes(self, axis: str) -> float:
        """Sum of the votes of an axis; 0 where nothing can be told."""
        return sum(sign.votes for sign in self.signs.get(axis, {}).values())

    @property
    def limit(self) -> float:
        """Votes up to which an axis is called flipped."""
        return FLIPPED if self.whole else FLIPPED_PART

    @property
    def flipped(self) -> tuple[str, ...]:
        """The axes along which the scan is mirrored."""
        return tuple(axis for axis in self.signs if self.votes(axis) <= self.limit)


AXES: Mapping[str, int] = {"front-back": 1, "head-foot": 0, "left-right": 2}
"""The axes in the order in which they are judged: left and right can only be told where front and head are known."""


def orientation_findings(
    volume: Volume, lung: Mask | None = None, *, case: str = "case", cohort: str = ""
) -> tuple[Finding, ...]:
    """Say along which axes a scan is mirrored against its header, or that no lung is in it.

    Args:
        volume: A chest CT in HU, or in what ``audit.intensity`` made of it.
        lung: Its lungs; found by threshold if not given.
        case: Id for the findings.
        cohort: Name for the findings.

    Returns:
        ``flipped-left-right``, ``flipped-front-back``, ``flipped-head-foot`` or ``no-lung``, each an ``error``; nothing where the scan lies
        right or too little of the chest is there to tell.
    """
    if lung is None or not lung.voxels.any():
        try:
            lung = threshold_lungs(volume)
        except (GeometryError, IntensityError) as error:
            return (_no_lung(error, case, cohort),)
    return flipped_findings(judge_orientation(volume, lung), case=case, cohort=cohort)


def flipped_findings(found: Orientation, *, case: str = "case", cohort: str = "") -> tuple[Finding, ...]:
    """A finding for each axis along which a scan is mirrored."""
    return tuple(_flipped(axis, found, case, cohort) for axis in found.flipped)


def judge_orientation(volume: Volume, lung: Mask) -> Orientation:
    """Measure every sign of every axis."""
    seen = SeenChest(lung)
    for index in seen.levels:
        seen.see(index, volume.hu[index], lung.voxels[index])
    return seen.judge()


def _judge(chest: _Chest | None) -> Orientation:
    """Front and back come first, then head and foot; where either is flipped the thumbnail is turned before the next is judged."""
    if chest is None:
        return Orientation({})
    signs: dict[str, Mapping[str, Sign]] = {"front-back": _front_back(chest)}
    chest = _turned(chest, "front-back", signs)
    signs["head-foot"] = _head_foot(chest)
    chest = _turned(chest, "head-foot", signs)
    signs["left-right"] = _left_right(chest)
    return Orientation(signs, all(chest.ends))


class _Chest(NamedTuple):
    """A thumbnail: HU and lungs at 64 x 64 places around the lung box, from a quarter below the lungs to a quarter above them.

    Attributes:
        hu: NaN where the scan has no slice.
        lung: The lungs.
        ends: Whether the lungs end inside the scan at the foot and at the head.
    """

    hu: Float32[np.ndarray, "level row column"]
    lung: Bool[np.ndarray, "level row column"]
    ends: tuple[bool, bool]


class SeenChest:
    """The thumbnail of a scan, made while its slices pass.

    Args:
        lung: The lungs.

    Attributes:
        levels: The slices that it is made of; none where there is too little lung to tell anything.
    """

    def __init__(self, lung: AnyMask) -> None:
        self.levels: dict[int, list[int]] = {}
        area, used = lung.areas, [np.flatnonzero(lung.shadow(axis)) for axis in range(3)]
        if not len(used[0]):
            return
        low, high = (np.array([line[at] for line in used]) for at in (0, -1))
        extent = high - low + 1
        if extent[0] < _LEAST_SLICES or min(extent[1:]) < _LEAST_PIXELS:
            return
        levels = np.floor(low[0] + (np.arange(-_BELOW, _LEVELS + _BELOW) + 0.5) / _LEVELS * extent[0]).astype(int)
        for place, level in enumerate(levels.tolist()):
            if 0 <= level < len(area):
                self.levels.setdefault(level, []).append(place)
        self._box = tuple(_frame(int(low[axis]), int(extent[axis])) for axis in (1, 2))
        self._hu = np.full((len(levels), _SIDE, _SIDE), np.nan, np.float32)
        self._lung = np.zeros(self._hu.shape, bool)
        self._ends = bool(area[0] < _CUT * area.max()), bool(area[-1] < _CUT * area.max())

    def see(self, index: int, hu: np.ndarray, lung: Bool[np.ndarray, "row column"]) -> None:
        """Look at a slice with its lungs, if it is one of the levels; in any order."""
        if index in self.levels:
            places = self.levels[index]
            self._hu[places] = _shrink(hu.astype(np.float32), self._box, _AIR_HU)
            self._lung[places] = _shrink(lung.astype(np.float32), self._box, 0.0) > 0.5

    def judge(self) -> Orientation:
        """What the chest says, once all were seen."""
        return _judge(_Chest(self._hu, self._lung, self._ends) if self.levels else None)


def _frame(low: int, extent: int) -> tuple[int, int]:
    """First and last pixel of the lung box with its margin; they may lie outside the picture."""
    margin = round(_MARGIN * extent)
    return low - margin, low + extent + margin


def _shrink(picture: np.ndarray, box: tuple[tuple[int, int], ...], outside: float) -> np.ndarray:
    """A part of a picture as 64 x 64 means; what lies outside the picture gets one value."""
    from PIL import Image

    (top, bottom), (left, right) = box
    pad = [(max(0, -low), max(0, high - size)) for (low, high), size in zip(box, picture.shape, strict=True)]
    part = picture[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    part = np.ascontiguousarray(np.pad(part, pad, constant_values=outside))
    return np.asarray(Image.fromarray(part).resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _turned(chest: _Chest, axis: str, signs: Mapping[str, Mapping[str, Sign]]) -> _Chest:
    """The thumbnail turned round along an axis that is flipped."""
    if axis not in Orientation(signs, all(chest.ends)).flipped:
        return chest
    number = AXES[axis]
    ends = chest.ends[::-1] if number == 0 else chest.ends
    return _Chest(np.flip(chest.hu, number), np.flip(chest.lung, number), (ends[0], ends[1]))


def _bones(chest: _Chest) -> np.ndarray:
    """What is clearly denser than muscle, also where a window cuts the bones off."""
    hu = chest.hu[np.isfinite(chest.hu)]
    tissue = hu[(hu > -50) & (hu < 90)]
    if not len(tissue):
        return np.zeros(chest.hu.shape, bool)
    limit = min(_BONE_HU, (float(np.median(tissue)) + float(np.percentile(hu, 99.9))) / 2)
    return np.nan_to_num(chest.hu, nan=_AIR_HU) > limit


def _between(place: np.ndarray, low: float, high: float) -> np.ndarray:
    return (place > low) & (place < high)


def _front_back(chest: _Chest) -> dict[str, Sign]:
    bones = _bones(chest)[:, :, _between(_ALONG, 0.3, 0.7)].sum(axis=(0, 2))
    front, back = bones[_between(_ALONG, -0.2, 0.4)].sum(), bones[_between(_ALONG, 0.6, 1.25)].sum()
    spine = (back - front) / max(_FEW, back + front)
    lung = chest.lung[_INSIDE]
    rows = lung.sum(axis=2)
    middle = _centre(rows)
    reach = [_centre(rows[part]) - middle for part in (slice(0, _LEVELS // 8), slice(-(_LEVELS // 8), None))]
    furthest = max(reach, key=abs)
    return {
        "spine": Sign(spine, 0.3, "the spine lies behind", "the spine lies in front", 2.0),
        "recess": Sign(furthest, 0.2, "the lungs end at the back", "the lungs end at the front"),
    }


def _centre(rows: np.ndarray) -> float:
    """Mean place of what is counted along rows, in the lung box; its middle if there is nothing."""
    total = rows.sum()
    return float((rows * _ALONG).sum() / total) if total else 0.5


def _head_foot(chest: _Chest) -> dict[str, Sign]:
    lung = chest.lung[_INSIDE]
    soft = (np.nan_to_num(chest.hu, nan=_AIR_HU) > _SOFT_HU)[_INSIDE]
    soft = soft[:, _between(_ALONG, 0.05, 0.85)][:, :, _between(_ALONG, 0.2, 0.8)]
    foot, head = slice(0, _LEVELS // 8), slice(-(_LEVELS // 8), None)
    heart = soft[_part(0.15, 0.5)].mean() - soft[_part(0.5, 0.85)].mean()
    width = [lung[part].any(axis=1).sum(axis=1).mean() / (_SIDE / (1 + 2 * _MARGIN)) for part in (foot, head)]
    rows = lung.sum(axis=2)
    hollow = [_fullness(lung[part]) for part in (_part(0.8, 1.0), _part(0.0, 0.2))]
    return {
        "heart": Sign(float(heart), 0.15, "the heart lies in the lower half", "the heart lies in the upper half"),
        "apex": Sign(
            width[0] - width[1], 0.25, "the lungs are narrower at the head", "the lungs are narrower at the foot"
        ),
        "recess": Sign(
            _centre(rows[foot]) - _centre(rows[head]),
            0.2,
            "the lungs end at the back below",
            "the lungs end at the back above",
        ),
        "dome": Sign(
            hollow[0] - hollow[1],
            0.2,
            "the diaphragm hollows the lungs out from below",
            "the diaphragm hollows the lungs out from above",
        ),
    }


def _part(low: float, high: float) -> np.ndarray:
    """Levels of the lungs from one share of their height to another."""
    return _between(_HEIGHT[_INSIDE], low, high)


def _fullness(lung: np.ndarray) -> float:
    """How much of its own box each lung fills, slice by slice; 0.5 if there is hardly any."""
    shares = []
    for half in (lung[:, :, : _SIDE // 2], lung[:, :, _SIDE // 2 :]):
        for piece in half:
            tall, wide = (np.flatnonzero(piece.any(axis=axis)) for axis in (1, 0))
            if np.count_nonzero(piece) > 5:
                box = (tall[-1] - tall[0] + 1) * (wide[-1] - wide[0] + 1)
                shares.append(np.count_nonzero(piece) / box)
    return float(np.mean(shares)) if shares else 0.5


def _left_right(chest: _Chest) -> dict[str, Sign]:
    foot_seen, head_seen = chest.ends
    signs = {} if foot_seen and not head_seen else _left_right_of_the_middle(chest)
    if foot_seen:
        signs["liver"] = Sign(_liver(chest), 40.0, "the liver lies on the right", "the liver lies on the left")
    return signs


def _left_right_of_the_middle(chest: _Chest) -> dict[str, Sign]:
    """What is seen between the lungs, and of their size."""
    off = _ALONG - _spine_column(chest)
    tissue = (np.nan_to_num(chest.hu, nan=_AIR_HU) > _SOFT_HU)[_INSIDE]
    lung = chest.lung[_INSIDE]
    heart = tissue[_part(0.25, 0.6)][:, _between(_ALONG, 0.05, 0.6)][:, :, np.abs(off) < 0.35]
    shift = (heart * off[np.abs(off) < 0.35]).sum() / max(_FEW, heart.sum())
    beside = (tissue & ~lung)[_part(0.25, 0.75)][:, _between(_ALONG, 0.5, 0.85)]
    aorta = beside[:, :, _between(off, 0.02, 0.22)].mean() - beside[:, :, _between(off, -0.22, -0.02)].mean()
    right, left = (int(np.count_nonzero(lung[:, :, side])) for side in (off < 0, off > 0))
    size = (right - left) / max(1, right + left)
    return {
        "heart": Sign(float(shift), 0.04, "the heart lies on the left", "the heart lies on the right"),
        "aorta": Sign(float(aorta), 0.1, "the aorta lies left of the spine", "the aorta lies right of the spine"),
        "size": Sign(size, 0.08, "the right lung is the larger", "the left lung is the larger"),
    }


def _liver(chest: _Chest) -> float:
    """How many HU denser it is around the base of the right lung, with air and bone limited so that neither leads."""
    levels = _between(_HEIGHT, -0.25, 0.2)
    part = chest.hu[levels][:, _between(_ALONG, 0.1, 0.9)]
    part = part[np.isfinite(part).any(axis=(1, 2))].clip(-150, 80)
    right, left = (float(np.nanmean(part[:, :, _between(_ALONG, *side)])) for side in ((0.05, 0.5), (0.5, 0.95)))
    return right - left


def _spine_column(chest: _Chest) -> float:
    """Where the spine is from right to left; the middle of the lung box if hardly any bone is seen there."""
    rows, columns = _between(_ALONG, 0.55, 1.15), _between(_ALONG, 0.3, 0.7)
    spine = _bones(chest)[:, rows][:, :, columns]
    total = np.count_nonzero(spine)
    return float((spine * _ALONG[columns]).sum() / total) if total > _FEW else 0.5


_TURN = {
    "left-right": "columns",
    "front-back": "rows",
    "head-foot": "slices",
}


def _flipped(axis: str, found: Orientation, case: str, cohort: str) -> Finding:
    signs = found.signs[axis]
    against = [sign.wrong for sign in signs.values() if sign.votes < 0]
    words = axis.replace("-", " and ")
    return Finding(
        f"flipped-{axis}",
        case,
        "error",
        f"{'; '.join(against)} ({found.votes(axis):+.1f} votes; {found.limit:+.0f} or less is called flipped)",
        f"Look at the scan. If its header lies, flip the {_TURN[axis]} of the voxels and keep the affine, or convert the original series "
        f"again; the same for its masks if they were made on it. Leave it if {words} are truly exchanged in this patient.",
        cohort,
        numbers={"votes": found.votes(axis)} | {name: sign.value for name, sign in signs.items()},
    )


def _no_lung(error: GeometryError | IntensityError, case: str, cohort: str) -> Finding:
    return Finding(
        "no-lung",
        case,
        "error",
        str(error),
        "Look at the scan: is it a chest CT? Give a lung mask if the lungs are there and a threshold cannot find them.",
        cohort,
        error=error.code,
    )
