"""Where a label and networks that never saw the patient disagree: lesions nobody marked, marks without lesion, outlines that drift.

Label and prediction differ along every border, by a voxel or two, and nobody is to look at that. What is farther than ``BORDER_MM`` from
the other mask is no border: each connected piece of it, with the rim that belongs to it, is one suspect, ``missing-lesion`` where the
networks see lesion and ``spurious-lesion`` where only the label does. What is left along the borders of one lesion is one suspect more,
``boundary-drift``, if it is much for the lesion. So no voxel is in two suspects, and every disagreement is told once.

The size of a suspect is the volume that is expected to be wrong, were the networks' probabilities right: the sum of abs(label - probability). How
likely it is to be an error is another matter, see ``audit.belief``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32
from scipy import ndimage

from lungshift.ct.boxes import box_of

SuspectKind = Literal["missing-lesion", "spurious-lesion", "boundary-drift"]

BORDER_MM: Final = 3.0
"""Disagreement no farther than this from the other mask is a matter of outlines: two readers differ by as much."""
LEAST_ML: Final = 0.05
"""Suspects of less expected error are not told."""
DRIFT_MM: Final = 2.0
"""Borders are told where they are this far apart all around: expected error over the surface of the lesion that both see."""

_TOUCHING = np.ones((3, 3, 3), bool)
_ROUND = 2 / 3
"""Faces of voxels make a ball's surface half again as large as it is."""


@dataclass(frozen=True, eq=False)
class Opinion:
    """A case as label and networks see it, on one regular grid; slices from the foot.

    Attributes:
        reference: The label.
        probability: Of lesion, the mean over networks.
        votes: Share of the networks that call a voxel lesion.
        spread: Standard deviation of the probability over networks.
        hu: The scan.
        lung: The lung mask.
        spacing_mm: Distance of neighbours along slice, row, column.
    """

    reference: Bool[np.ndarray, "slice row column"]
    probability: Float32[np.ndarray, "slice row column"]
    votes: Float32[np.ndarray, "slice row column"]
    spread: Float32[np.ndarray, "slice row column"]
    hu: np.ndarray
    lung: Bool[np.ndarray, "slice row column"]
    spacing_mm: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000

    @cached_property
    def counts(self) -> tuple[int, int]:
        """Voxels that label and networks share, and those of label and networks added up."""
        masks = self.reference & self.predicted, self.reference, self.predicted
        shared, marked, seen = (int(np.count_nonzero(mask)) for mask in masks)
        return shared, marked + seen

    @cached_property
    def predicted(self) -> Bool[np.ndarray, "slice row column"]:
        """What at least half of the networks call lesion."""
        return np.asarray(self.votes >= 0.5)

    @cached_property
    def doubt(self) -> Float32[np.ndarray, "slice row column"]:
        """How far the label is from the probability."""
        return np.abs(self.reference.astype(np.float32) - self.probability)

    @cached_property
    def lung_hu(self) -> float:
        """Median HU of lung that neither calls lesion."""
        healthy = self.hu[self.lung & ~self.reference & ~self.predicted]
        return float(np.median(healthy)) if healthy.size else float("nan")


@dataclass(frozen=True, eq=False)
class Suspect:
    """One place where label and networks disagree.

    Attributes:
        kind: In which way.
        box: Slices, rows and columns that hold it.
        inside: Its voxels within the box.
        seat: The voxel (slice, row, column) where the doubt is largest in its largest slice.
        ml: Volume that is expected to be wrong.
        probability: Mean probability of lesion in it.
        spread: Mean standard deviation over networks.
        votes: Mean share of networks that call it lesion.
        contrast_hu: Mean HU less that of healthy lung.
        distance_mm: The farthest it lies from the other mask; infinite where there is none.
        peak: Doubt where it is large, the 95th percentile of abs(label - probability).
        whole: Its share of the connected pieces that it is part of, in the mask that has it; 1 if it stands alone.
        outside: Share of it that lies outside the lung mask.
        accord: Dice of label and networks in the rest of the case.
    """

    kind: SuspectKind
    box: tuple[slice, slice, slice]
    inside: Bool[np.ndarray, "slice row column"]
    seat: tuple[int, int, int]
    ml: float
    probability: float
    spread: float
    votes: float
    contrast_hu: float
    distance_mm: float
    peak: float = 1.0
    whole: float = 1.0
    outside: float = 0.0
    accord: float = 1.0

    @property
    def voxels(self) -> int:
        """How many voxels it has."""
        return int(np.count_nonzero(self.inside))

    @property
    def slices(self) -> tuple[int, ...]:
        """Slices that have some of it."""
        return tuple(int(at) + self.box[0].start for at in np.flatnonzero(self.inside.any(axis=(1, 2))))

    def moved(self, slices: int) -> Suspect:
        """The same on a grid that begins so many slices lower."""
        box = (slice(self.box[0].start + slices, self.box[0].stop + slices), *self.box[1:])
        return replace(self, box=box, seat=(self.seat[0] + slices, *self.seat[1:]))

    def overlap(self, mask: Bool[np.ndarray, "slice row column"]) -> float:
        """Share of its voxels that lie in a mask of the whole grid."""
        return float(np.count_nonzero(mask[self.box] & self.inside)) / self.voxels


def find_suspects(opinion: Opinion) -> tuple[Suspect, ...]:
    """All disagreements of a case that are no matter of outlines, the largest expected error first."""
    found = [*_apart(opinion, "missing-lesion"), *_apart(opinion, "spurious-lesion")]
    told = np.zeros(opinion.reference.shape, bool)
    for suspect in found:
        told[suspect.box] |= suspect.inside
    found += _drifts(opinion, told)
    known = [replace(one, accord=_accord(opinion, one)) for one in found if one.ml >= LEAST_ML]
    return tuple(sorted(known, key=lambda one: -one.ml))


def _accord(opinion: Opinion, suspect: Suspect) -> float:
    """Dice of label and networks without the suspect, which is in one of them alone."""
    shared, both = opinion.counts
    rest = both - suspect.voxels
    return 2 * shared / rest if rest else 1.0


def _apart(opinion: Opinion, kind: SuspectKind) -> Iterator[Suspect]:
    """Pieces of one mask that lie beyond the borders of the other, each with its rim."""
    mine, other = opinion.predicted, opinion.reference
    if kind == "spurious-lesion":
        mine, other = other, mine
    alone = mine & ~other
    if not alone.any():
        return
    # a margin wider than a border, so that what lies outside the box is not missed as near
    box = box_of(alone, [int(2 * BORDER_MM / mm) + 1 for mm in opinion.spacing_mm])
    far = _distance_mm(other, box, opinion.spacing_mm)
    alone, whole = alone[box], far > BORDER_MM
    cores, count = ndimage.label(alone & whole, structure=_TOUCHING)
    if not count:
        return
    owner = _grown(cores, alone, opinion.spacing_mm)
    pieces, _ = ndimage.label(mine, structure=_TOUCHING)
    sizes = np.bincount(pieces.ravel())
    for number, part in enumerate(ndimage.find_objects(owner), 1):
        if part is not None:
            inside, seat = owner[part] == number, _placed(part, box)
            its = int(sizes[np.unique(pieces[seat][inside])].sum())
            share = int(np.count_nonzero(inside)) / its
            yield _suspect(opinion, kind, seat, inside, float(far[part][inside].max()), share)


def _grown(cores: Int32[np.ndarray, "*shape"], alone: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Cores with the rim that is theirs: what lies no farther than a border from them and touches no other mask's own."""
    far, nearest = ndimage.distance_transform_edt(cores == 0, sampling=spacing_mm, return_indices=True)
    return np.where(alone & (far <= BORDER_MM + max(spacing_mm)), cores[tuple(nearest)], 0)


def _drifts(opinion: Opinion, told: np.ndarray) -> Iterator[Suspect]:
    """Lesions that both see, with outlines that differ by much."""
    both = opinion.reference | opinion.predicted
    labels, count = ndimage.label(both, structure=_TOUCHING)
    if not count:
        return
    rim = (opinion.reference ^ opinion.predicted) & ~told
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = rim[box] & (labels[box] == number)
        lesion = opinion.reference[box] & (labels[box] == number)
        shared = lesion & opinion.predicted[box]
        if inside.any() and shared.any() and _apart_mm(opinion, box, inside, lesion) >= DRIFT_MM:
            far = float(ndimage.distance_transform_edt(~lesion, sampling=opinion.spacing_mm)[inside].max())
            whole = int(np.count_nonzero(inside)) / int(np.count_nonzero(labels[box] == number))
            yield _suspect(opinion, "boundary-drift", (box[0], box[1], box[2]), inside, far, whole)


def _apart_mm(opinion: Opinion, box: tuple[slice, ...], inside: np.ndarray, lesion: np.ndarray) -> float:
    """How far two outlines are apart on average: the doubtful volume over the surface of the label."""
    faces_mm2 = sum(_faces(lesion, axis) * opinion.voxel_ml * 1000 / mm for axis, mm in enumerate(opinion.spacing_mm))
    doubtful_mm3 = float(opinion.doubt[box][inside].sum()) * opinion.voxel_ml * 1000
    return doubtful_mm3 / (_ROUND * faces_mm2)


def _faces(mask: np.ndarray, axis: int) -> int:
    """How many faces across an axis a mask has."""
    padded = np.pad(mask, [(int(axis == other), int(axis == other)) for other in range(3)])
    return int(np.count_nonzero(np.diff(padded.view(np.int8), axis=axis)))


def _suspect(
    opinion: Opinion,
    kind: SuspectKind,
    box: tuple[slice, slice, slice],
    inside: np.ndarray,
    distance_mm: float,
    whole: float,
) -> Suspect:
    doubt = np.where(inside, opinion.doubt[box], 0)
    largest = int(doubt.sum(axis=(1, 2)).argmax())
    row, column = np.unravel_index(int(doubt[largest].argmax()), doubt.shape[1:])
    seat = (box[0].start + largest, box[1].start + int(row), box[2].start + int(column))

    def mean(values: np.ndarray) -> float:
        return float(values[box][inside].mean(dtype=np.float64))

    return Suspect(
        kind=kind,
        box=box,
        inside=inside,
        seat=seat,
        ml=float(doubt.sum()) * opinion.voxel_ml,
        probability=mean(opinion.probability),
        spread=mean(opinion.spread),
        votes=mean(opinion.votes),
        contrast_hu=mean(opinion.hu) - opinion.lung_hu,
        distance_mm=distance_mm,
        peak=float(np.percentile(opinion.doubt[box][inside], 95)),
        whole=whole,
        outside=1 - mean(opinion.lung),
    )


def _distance_mm(mask: np.ndarray, box: tuple[slice, ...], spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Distance of every voxel of the box from a mask; infinite where the mask is nowhere near."""
    near = mask[box]
    if not near.any():
        return np.full(near.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~near, sampling=spacing_mm))


def _placed(part: tuple[slice, ...], box: tuple[slice, ...]) -> tuple[slice, slice, slice]:
    """A part of a box in the whole grid."""
    placed = [slice(one.start + outer.start, one.stop + outer.start) for one, outer in zip(part, box, strict=True)]
    return placed[0], placed[1], placed[2]
