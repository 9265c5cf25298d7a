"""What is wrong with a lesion mask, seen without any model: from the scan, the lung mask and the mask itself.

Everything is said per piece of lesion in 3-D, or once per case, never per pixel. Distances are in millimetres in 3-D, so that a piece
below the lungs is as far away as one beside them. HU are judged against the patient's own lungs, not against a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from lungshift.audit.finding import Finding, many, runs
from lungshift.ct.case import Case
from lungshift.ct.volume import Mask, Volume
from lungshift.measure.lesions import Lesion, find_lesions, label_lesions

OUTSIDE_MM = 5.0
"""Lesion voxels farther than this from the lung are outside it; nearer ones are how two readers draw one pleura."""
HEALTHY_HU = 40.0
"""A lesion whose median is less than this above that of the lung around it has nothing in it that healthy lung has not."""
VESSEL_HU, BONE_HU = -150.0, 250.0
SLICE_WISE, BLOCKY = 5.0, 0.25
"""Ratio of flicker between slices to that inside them; share of the outlines, where 1 is chance, on the lines that a coarse copy leaves out."""

_AROUND_MM = (3.0, 15.0)
_LEAST_VOXELS, _LEAST_SHELL = 100, 100
_RIM_MM, _LEAST_AREA, _PLEURA_PX = 3.0, 20, 2
_SPECK_ML, _SPECK_VOXELS = 0.01, 8
_ORPHAN_FACTOR = 3.0
_GAP_MM2, _GAP_VOXELS, _GAP_MM = 20.0, 8, 9.0
_BONE_SHARE = 0.25
_VESSEL_MM, _VESSEL_LONG = 4.0, 5.0
_HOLE_MM, _HOLE_ML = 10.0, 0.2
_LEAST_FLICKER, _LEAST_STEPS, _LEAST_SLICES, _LEAST_PLACES = 100, 30, 5, 12
_PERIODS = (2, 3, 4, 5)


def label_findings(case: Case, *, cohort: str = "") -> tuple[Finding, ...]:
    """What is wrong with the lesion mask of a case, and with its lung mask where there is lesion.

    Args:
        case: A scan in HU with a lesion mask; without one there is nothing to say.
        cohort: Name for the findings.
    """
    if case.lesion is None:
        return ()
    look = _Look(case.volume, case.lung, case.lesion, case.case_id, cohort)
    if not case.lesion.voxels.any():
        return (
            look.finding(
                "empty-lesion", "note", "no voxel is marked", "Is the patient healthy, or was the scan not read?"
            ),
        )
    found = [*look.specks(), *look.orphans(), *look.gaps(), *look.style()]
    if case.lung is not None and case.lung.voxels.any():
        found += [*look.outside(), *look.without_lung(), *look.holes()]
    return (*found, *look.too_wide(), *look.densities())


@dataclass(frozen=True, eq=False)
class _Look:
    """One case while it is looked at."""

    volume: Volume
    lung: Mask | None
    lesion: Mask
    case: str
    cohort: str

    def finding(self, code: str, severity: str, evidence: str, remedy: str, **more: object) -> Finding:
        return Finding(code, self.case, severity, evidence, remedy, self.cohort, **more)  # type: ignore[arg-type]

    @cached_property
    def labels(self) -> np.ndarray:
        return label_lesions(self.lesion)

    @cached_property
    def lesions(self) -> tuple[Lesion, ...]:
        return find_lesions(self.lesion, self.volume, self.labels)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.volume.geometry.spacing_mm

    @cached_property
    def lung_voxels(self) -> np.ndarray:
        return np.zeros(self.lesion.voxels.shape, bool) if self.lung is None else self.lung.voxels

    def around(self, lesion: Lesion, margin_mm: float) -> tuple[slice, slice, slice]:
        """The box of a lesion with a margin."""
        margins = (int(margin_mm / mm) + 1 for mm in self.spacing_mm)
        box = tuple(slice(max(0, part.start - m), part.stop + m) for part, m in zip(lesion.box, margins, strict=True))
        return box[0], box[1], box[2]

    def outside(self) -> Iterator[Finding]:
        """Pieces of lesion that lie more than a few millimetres from any lung."""
        beyond = self.lesion.voxels & ~self.lung_voxels
        if not beyond.any():
            return
        far = np.zeros(beyond.shape, np.float32)
        far[beyond] = self._distance_mm(beyond)
        pieces = label_lesions(Mask(beyond, self.lesion.geometry))
        for piece in find_lesions(Mask(beyond, self.lesion.geometry), None, pieces):
            inside = pieces[piece.box] == piece.number
            distances = far[piece.box][inside]
            most = float(distances.max())
            if most <= OUTSIDE_MM:
                continue
            wrong = int(np.count_nonzero(distances > OUTSIDE_MM))
            at = np.argwhere(inside & (far[piece.box] == most))[0] + [part.start for part in piece.box]
            ml = piece.voxels * self.lesion.geometry.voxel_ml
            yield self.finding(
                "lesion-outside-lung",
                "error" if most > 2 * OUTSIDE_MM else "warning",
                f"{many(piece.voxels, 'voxel')} ({ml:.2f} ml) outside the lung, {wrong} of them more than {OUTSIDE_MM:g} mm and up to {most:.0f} mm away",
                "Erase them, or complete the lung mask if there is lung.",
                slices=_slices(piece.box),
                voxels=piece.voxels,
                seat=(int(at[0]), int(at[1]), int(at[2])),
                numbers={"distance_mm": most, "ml": ml},
            )

    def _distance_mm(self, beyond: np.ndarray) -> np.ndarray:
        """How far each of these voxels is from the nearest lung, in mm in 3-D."""
        from scipy.spatial import cKDTree

        geometry = self.lesion.geometry
        surface = self.lung_voxels & ~ndimage.binary_erosion(self.lung_voxels)
        tree = cKDTree(geometry.world_mm(np.argwhere(surface)))
        return np.asarray(tree.query(geometry.world_mm(np.argwhere(beyond)))[0], dtype=np.float32)

    def without_lung(self) -> Iterator[Finding]:
        """Slices that have lesion and no lung at all."""
        area = np.count_nonzero(self.lesion.voxels, axis=(1, 2))
        bare = (area > 0) & ~self.lung_voxels.any(axis=(1, 2))
        if slices := tuple(int(at) for at in np.flatnonzero(bare)):
            yield self.finding(
                "lesion-without-lung",
                "error",
                f"{many(int(area[bare].sum()), 'voxel')} of lesion on {many(len(slices), 'slice')} without any lung ({runs(slices)})",
                "Erase them, or complete the lung mask.",
                slices=slices,
                voxels=int(area[bare].sum()),
                seat=_seat(self.lesion.voxels, slices[0]),
            )

    def holes(self) -> Iterator[Finding]:
        """Lesion that the lung mask leaves out although it lies between parts of the lung, as at the pleura."""
        left_out = self.lesion.voxels & ~self.lung_voxels
        if not left_out.any():
            return
        inside = np.zeros(left_out.shape, bool)
        for index in np.flatnonzero(left_out.any(axis=(1, 2))):
            inside[index] = left_out[index] & _closed(self.lung_voxels[index], self.spacing_mm[1:])
        if not inside.any():
            return
        for piece in find_lesions(Mask(inside, self.lesion.geometry)):
            if piece.volume_ml < _HOLE_ML:
                break
            yield self.finding(
                "lung-hole",
                "warning",
                f"the lung mask leaves out {piece.volume_ml:.2f} ml of lesion that lies in a hole or dent of it",
                "Complete the lung mask: a network that is shown the lung only never sees this lesion.",
                slices=_slices(piece.box),
                voxels=piece.voxels,
                seat=piece.seat,
                numbers={"ml": piece.volume_ml},
            )

    def specks(self) -> Iterator[Finding]:
        """Pieces of a few voxels, counted together."""
        small = [one for one in self.lesions if self._speck(one)]
        if not small:
            return
        yield self.finding(
            "speck",
            "note",
            f"{len(small)} of {len(self.lesions)} pieces have fewer than {_SPECK_VOXELS} voxels or {1000 * _SPECK_ML:g} mm³",
            "Erase them, or leave them: they count as lesions wherever lesions are counted.",
            slices=tuple(sorted({one.seat[0] for one in small})),
            voxels=sum(one.voxels for one in small),
            seat=small[0].seat,
        )

    def _speck(self, lesion: Lesion) -> bool:
        return lesion.voxels < _SPECK_VOXELS or lesion.volume_ml < _SPECK_ML

    def orphans(self) -> Iterator[Finding]:
        """Pieces on one slice that are far too wide to be so flat."""
        for lesion in self.lesions:
            if lesion.box[0].stop - lesion.box[0].start > 1 or self._speck(lesion):
                continue
            wide = 2 * float(np.sqrt(lesion.voxels * self.spacing_mm[1] * self.spacing_mm[2] / np.pi))
            if wide <= _ORPHAN_FACTOR * self.spacing_mm[0] + _AROUND_MM[0]:
                continue
            if lesion.seat[0] in (0, len(self.lesion.voxels) - 1):
                continue
            yield self.finding(
                "orphan",
                "warning",
                f"{lesion.voxels} voxels, about {wide:.0f} mm wide, on one slice of {self.spacing_mm[0]:g} mm and on neither neighbour",
                "Look at the neighbours: erase it, or mark it there too.",
                slices=(lesion.seat[0],),
                voxels=lesion.voxels,
                seat=lesion.seat,
                numbers={"wide_mm": wide},
            )

    def gaps(self) -> Iterator[Finding]:
        """Places where lesion is marked below and above a slice or two, and not a bit of it between."""
        least = max(_GAP_VOXELS, round(_GAP_MM2 / (self.spacing_mm[1] * self.spacing_mm[2])))
        lesion = self.lesion.voxels
        for missing in (1, 2):
            if missing > 1 and (missing + 1) * self.spacing_mm[0] > _GAP_MM:
                break
            for index in range(1, len(lesion) - missing):
                both = lesion[index - 1] & lesion[index + missing]
                if np.count_nonzero(both) < least:
                    continue
                yield from self._gaps_between(both, lesion[index : index + missing], index, least)

    def _gaps_between(self, both: np.ndarray, between: np.ndarray, index: int, least: int) -> Iterator[Finding]:
        pieces, count = ndimage.label(both)
        reached = ndimage.binary_dilation(np.asarray(between.any(axis=0)), iterations=2)
        for number in range(1, count + 1):
            piece = pieces == number
            size = int(np.count_nonzero(piece))
            if size < least or (piece & reached).any():
                continue
            row, column = np.argwhere(piece).mean(axis=0).astype(int).tolist()
            slices = tuple(range(index, index + len(between)))
            far = (len(between) + 1) * self.spacing_mm[0] > _GAP_MM
            yield self.finding(
                "gap",
                "note" if far else "warning",
                f"lesion is marked on slices {index - 1} and {index + len(between)} over {size} shared pixels, and not at all between",
                "Mark it there too, or look whether it is one lesion.",
                slices=slices,
                voxels=size * len(slices),
                seat=(index, row, column),
            )

    def style(self) -> Iterator[Finding]:
        """How the outlines were drawn: slice by slice, or on a coarser grid."""
        ratio, count = _flicker(self.lesion)
        if count >= _LEAST_FLICKER and ratio > SLICE_WISE:
            yield self.finding(
                "slice-wise",
                "note",
                f"outlines jump between slices {ratio:.1f} times as often as they do inside a slice ({count} voxels stand alone)",
                "Scores in 3-D, and on coronal views, count these steps; smooth along the slices or redraw if they matter.",
                voxels=count,
                numbers={"ratio": ratio},
            )
        period, share = _lattice(self.lesion.voxels)
        if share < BLOCKY:
            yield self.finding(
                "blocky",
                "note",
                f"of every {period} rows and columns one has hardly any outline ({share:.2f} of chance): the mask was enlarged from a coarser grid",
                "Distances below a pixel of the coarser grid mean nothing.",
                numbers={"period": float(period), "share": share},
            )

    def too_wide(self) -> Iterator[Finding]:
        """Whether the outermost millimetres of all that is marked, away from the pleura, are nothing but healthy lung."""
        if self.lung is None:
            return
        rim, around = self._beside_the_outline()
        if min(len(rim), len(around)) < _LEAST_SHELL:
            return
        inside, beside = float(np.median(rim)), float(np.median(around))
        if inside - beside >= HEALTHY_HU:
            return
        slices = tuple(int(at) for at in np.flatnonzero(self.lesion.voxels.any(axis=(1, 2))))
        yield self.finding(
            "too-wide",
            "warning",
            f"the outermost {_RIM_MM:g} mm of what is marked have a median of {inside:.0f} HU, the lung beside them {beside:.0f} HU",
            "The outlines hold a rim of healthy lung: redraw them, or say that they are generous.",
            slices=slices,
            voxels=len(rim),
            seat=self.lesions[0].seat,
            numbers={"inside_hu": inside, "around_hu": beside},
        )

    def _beside_the_outline(self) -> tuple[np.ndarray, np.ndarray]:
        """HU just inside the outlines and a little outside of them, slice by slice, in the lung only."""
        rim, around = [np.zeros(0)], [np.zeros(0)]
        pixel_mm = self.spacing_mm[1:]
        for index in np.flatnonzero(np.count_nonzero(self.lesion.voxels, axis=(1, 2)) >= _LEAST_AREA):
            box = _box(self.lesion.voxels[index], [int(_AROUND_MM[1] / mm) + 2 for mm in pixel_mm])
            lesion, lung, hu = (part[index][box] for part in (self.lesion.voxels, self.lung_voxels, self.volume.hu))
            deep = ndimage.distance_transform_edt(lesion, sampling=pixel_mm)
            away = ndimage.distance_transform_edt(~lesion, sampling=pixel_mm)
            free = ndimage.binary_erosion(lung, iterations=_PLEURA_PX)
            rim.append(hu[(deep > 0) & (deep <= _RIM_MM) & free])
            around.append(hu[(away > _AROUND_MM[0]) & (away < _AROUND_MM[1]) & lung])
        return np.concatenate(rim), np.concatenate(around)

    def densities(self) -> Iterator[Finding]:
        """Lesions that are nothing but healthy lung, vessel or bone by their HU."""
        for lesion in self.lesions:
            if lesion.voxels < _LEAST_VOXELS or self._speck(lesion):
                continue
            box = self.around(lesion, _AROUND_MM[1])
            me, hu = self.labels[box] == lesion.number, self.volume.hu[box]
            yield from self._healthy(lesion, box, me, hu)
            yield from self._vessel(lesion, box, me, hu)
            yield from self._bone(lesion, me, hu)

    def _healthy(self, lesion: Lesion, box: tuple[slice, ...], me: np.ndarray, hu: np.ndarray) -> Iterator[Finding]:
        away = ndimage.distance_transform_edt(~me, sampling=self.spacing_mm)
        shell = (away > _AROUND_MM[0]) & (away < _AROUND_MM[1]) & self.lung_voxels[box] & ~self.lesion.voxels[box]
        if np.count_nonzero(shell) < _LEAST_SHELL:
            return
        inside, around = float(np.median(hu[me])), float(np.median(hu[shell]))
        if inside - around >= HEALTHY_HU or inside > VESSEL_HU:
            return
        yield self.finding(
            "lesion-in-air",
            "warning",
            f"{lesion.voxels} voxels ({lesion.volume_ml:.2f} ml) have a median of {inside:.0f} HU, the lung around them {around:.0f} HU",
            "Nothing sets it off from the lung: look whether it is a lesion.",
            slices=_slices(lesion.box),
            voxels=lesion.voxels,
            seat=lesion.seat,
            numbers={"inside_hu": inside, "around_hu": around, "ml": lesion.volume_ml},
        )

    def _vessel(self, lesion: Lesion, box: tuple[slice, ...], me: np.ndarray, hu: np.ndarray) -> Iterator[Finding]:
        median = float(np.median(hu[me]))
        if median < VESSEL_HU:
            return
        thick = 2 * float(ndimage.distance_transform_edt(np.pad(me, 1), sampling=self.spacing_mm).max())
        long = float(
            np.linalg.norm([(p.stop - p.start) * mm for p, mm in zip(lesion.box, self.spacing_mm, strict=True)])
        )
        in_lung = float(np.mean(self.lung_voxels[box][me]))
        if thick > 2 * _VESSEL_MM or long < _VESSEL_LONG * thick or in_lung < 0.5:
            return
        yield self.finding(
            "lesion-in-vessel",
            "note",
            f"{lesion.voxels} voxels of {median:.0f} HU in the lung, {thick:.0f} mm thick and {long:.0f} mm long",
            "It has the density and shape of a vessel: look whether it is a lesion.",
            slices=_slices(lesion.box),
            voxels=lesion.voxels,
            seat=lesion.seat,
            numbers={"thick_mm": thick, "long_mm": long, "inside_hu": median},
        )

    def _bone(self, lesion: Lesion, me: np.ndarray, hu: np.ndarray) -> Iterator[Finding]:
        share = float(np.mean(hu[me] > BONE_HU))
        if share < _BONE_SHARE:
            return
        yield self.finding(
            "lesion-in-bone",
            "warning",
            f"{100 * share:.0f} % of {lesion.voxels} voxels are above {BONE_HU:g} HU",
            "No lesion of the lung is as dense as bone: erase what lies on bone.",
            slices=_slices(lesion.box),
            voxels=lesion.voxels,
            seat=lesion.seat,
            numbers={"share": share},
        )


def _box(picture: np.ndarray, margins: list[int]) -> tuple[slice, slice]:
    """The rows and columns that hold what is set, with a margin; something is."""
    lines = [np.flatnonzero(picture.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (slice(max(0, int(at[0]) - m), int(at[-1]) + 1 + m) for at, m in zip(lines, margins, strict=True))
    return rows, columns


def _slices(box: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(range(box[0].start, box[0].stop))


def _seat(voxels: np.ndarray, index: int) -> tuple[int, int, int]:
    row, column = np.argwhere(voxels[index])[0].tolist()
    return index, row, column


def _closed(lung: np.ndarray, pixel_mm: tuple[float, ...]) -> np.ndarray:
    """A slice of lung with its holes filled and its dents of up to 20 mm closed."""
    margin = [int(np.ceil(_HOLE_MM / mm)) + 1 for mm in pixel_mm]
    padded = np.pad(lung, [(m, m) for m in margin])
    near = ndimage.distance_transform_edt(~padded, sampling=pixel_mm) <= _HOLE_MM
    closed = ndimage.distance_transform_edt(near, sampling=pixel_mm) > _HOLE_MM
    inner = tuple(slice(m, -m) for m in margin)
    return np.asarray(ndimage.binary_fill_holes(closed[inner] | lung))


def _flicker(lesion: Mask) -> tuple[float, int]:
    """How much oftener voxels differ from both neighbours that agree along slices than along rows and columns, and how many do.

    Rows and columns are taken at steps of about the slice distance, so that all three look equally far.
    """
    slice_mm, row_mm, column_mm = lesion.geometry.spacing_mm
    rows, columns = max(1, round(slice_mm / row_mm)), max(1, round(slice_mm / column_mm))
    coarse = lesion.voxels[:, ::rows, ::columns]
    alone = [_standing_alone(coarse, axis) for axis in range(3)]
    return alone[0] / max(1.0, (alone[1] + alone[2]) / 2), alone[0]


def _standing_alone(voxels: np.ndarray, axis: int) -> int:
    line = np.moveaxis(voxels, axis, 0)
    return int(np.count_nonzero((line[1:-1] != line[:-2]) & (line[:-2] == line[2:])))


def _lattice(voxels: np.ndarray) -> tuple[int, float]:
    """The period of rows and columns along which one place has the least outlines, and its share where 1 is chance."""
    steps = [np.diff(voxels.view(np.int8), axis=axis) != 0 for axis in (1, 2)]
    lines = [np.count_nonzero(change, axis=other) for change, other in zip(steps, (2, 1), strict=True)]
    shares = {period: max(_emptiest(line, period) for line in lines) for period in _PERIODS}
    period = min(shares, key=lambda one: shares[one])
    return period, shares[period]


def _emptiest(counts: np.ndarray, period: int) -> float:
    """For outlines counted at each (slice, place): the share of the rarest place of a period, over the slices that have enough."""
    if np.count_nonzero(counts.any(axis=0)) < _LEAST_PLACES:
        return 1.0  # a few straight edges lie where they lie
    total = counts.sum(axis=1)
    counts, total = counts[total >= _LEAST_STEPS], total[total >= _LEAST_STEPS]
    if len(total) < _LEAST_SLICES:
        return 1.0
    residues = np.stack([counts[:, first::period].sum(axis=1) for first in range(period)])
    return float(period * residues.min(axis=0).sum() / total.sum())
