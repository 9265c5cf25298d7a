"""Is the whole chest there, once and at its true size? Slices doubled, missing or empty; lungs cut off; voxel sizes that cannot be; marks.

Neighbouring slices of a scan change steadily. A slice that hardly differs from the one before was copied; one that differs far more than
those around it has neighbours missing, or the patient breathed. Both are judged against the slices around them and not by a number of HU.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy import ndimage

from lungshift.audit.finding import Finding, many, runs
from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import AnyMask
from lungshift.ct.volume import Mask, Volume

JUMP = 2.0
"""Times the usual change between neighbours from which on a change is a jump; 18 of 19 real and all phantom scans stay below 1.7."""
STANDS_STILL = 0.2
"""Share of the usual change below which a slice is a copy of the one before; natural ones were 0.6 and more."""
CUT_OFF = 0.05
"""Share of the largest slice of lung in the first or last slice of a scan, from which on the lungs must go on beyond it."""

_SIDE, _AROUND, _LEAST_SLICES = 64, 4, 6
_DARK, _BRIGHT, _EMPTY_HU = -1000.0, 200.0, 30.0
_BORDER_PX = 1
_LUNG_MM = {"width": (150.0, 430.0), "height": (100.0, 460.0)}
_LUNG_SHAPE = {"height": (0.35, 1.7), "depth": (0.45, 1.1)}
_PIXEL_MM, _SLICE_MM = (0.2, 8.0), (0.2, 15.0)
_ACROSS, _FEW_JUMPS = 1.25, 3
_MARK_HU, _MARK_AIR_HU, _MARK_PX, _MARK_AROUND_PX, _MARK_SLICES = -650.0, -850.0, 5, 9, 24
_MARK_ROWS = 0.7
"""Share of the body from its front within which marks are looked for: a table may be as small, and lies behind."""
_BODY_HU = -300


def completeness_findings(
    volume: Volume, lung: Mask | None = None, *, case: str = "case", cohort: str = ""
) -> tuple[Finding, ...]:
    """What is missing from a scan, doubled, or not of its true size.

    Args:
        volume: The scan in HU.
        lung: Its lungs; without them nothing is said about cut-off lungs and voxel sizes beyond their limits.
        case: Id for the findings.
        cohort: Name for the findings.
    """
    seen = SeenSlices(volume.geometry)
    for index, plane in enumerate(volume.hu):
        seen.see(index, plane)
    return seen.findings(lung, case=case, cohort=cohort)


class SeenSlices:
    """What is kept of a scan's slices while they pass, to say in the end what is missing from it; far less than the scan.

    Args:
        geometry: The scan's grid.
    """

    def __init__(self, geometry: Geometry) -> None:
        count, *plane = geometry.shape
        self.geometry = geometry
        self.spread = np.zeros(count)
        self.hashes: dict[int, bytes] = {}
        self.change, self.small_change = np.zeros((2, max(0, count - 1)))
        self.across, self.brighter = np.zeros((2, count))
        self.marks = _Marks((plane[0], plane[1]), _picked(count))
        self._last: list[tuple[int, np.ndarray, np.ndarray]] = []

    def see(self, index: int, hu: np.ndarray) -> None:
        """Look at one slice; they come in order, from either end."""
        some = hu[::4, ::4]
        self.spread[index] = np.percentile(some, 99) - np.percentile(some, 1)
        if hu.min() != hu.max():
            self.hashes[index] = hashlib.sha256(np.ascontiguousarray(hu).tobytes()).digest()
        self.marks.see(index, hu)
        self._compare(index, hu)

    def _compare(self, index: int, hu: np.ndarray) -> None:
        """With the one slice or two before."""
        small = _small(hu)
        if self._last:
            before, plane, thumbnail = self._last[-1]
            self.change[min(index, before)] = _difference(plane, hu)
            self.small_change[min(index, before)] = np.abs(small - thumbnail).mean()
        if len(self._last) == 2:
            (_, _, first), (middle, _, between) = self._last
            around = (first + small) / 2
            body = around > _BODY_HU
            self.across[middle] = np.abs(small - first).mean()
            self.brighter[middle] = np.median((between - around)[body]) if body.any() else 0.0
        self._last = [*self._last[-1:], (index, hu, small)]

    def findings(self, lung: AnyMask | None, *, case: str = "case", cohort: str = "") -> tuple[Finding, ...]:
        """What is missing, once every slice was seen; the rest as ``completeness_findings``."""
        steps = _Steps(case, cohort)
        found = [
            *steps.empty(self),
            *steps.doubled(self),
            *steps.jumps(self),
            *steps.marks(self),
            *steps.voxels(self.geometry),
        ]
        if lung is not None and lung.areas.any():
            found += [*steps.cut_off(lung), *steps.size(lung)]
        return tuple(found)


class _Steps:
    """The single checks of one case."""

    def __init__(self, case: str, cohort: str) -> None:
        self._case, self._cohort = case, cohort

    def _finding(self, code: str, severity: str, evidence: str, remedy: str, **more: object) -> Finding:
        return Finding(code, self._case, severity, evidence, remedy, self._cohort, **more)  # type: ignore[arg-type]

    def empty(self, seen: SeenSlices) -> Iterator[Finding]:
        if slices := tuple(int(at) for at in np.flatnonzero(seen.spread < _EMPTY_HU)):
            yield self._finding(
                "slice-empty",
                "warning",
                f"hardly more than one value in {many(len(slices), 'slice')}",
                "Take them out of scan and masks, or get the scan again.",
                slices=slices,
                seat=_middle(seen.geometry, slices[0]),
            )

    def doubled(self, seen: SeenSlices) -> Iterator[Finding]:
        """Slices that are equal, wherever they lie, and neighbours that are nearly so."""
        places = defaultdict(list)
        for index in sorted(seen.hashes):
            places[seen.hashes[index]].append(index)
        equal = [tuple(group) for group in places.values() if len(group) > 1]
        again = tuple(sorted(index for group in equal for index in group[1:]))
        change, usual = seen.change, _usual(seen.change)
        near = tuple(int(at) + 1 for at in np.flatnonzero(change < STANDS_STILL * usual) if int(at) + 1 not in again)
        if again:
            pairs = "; ".join(f"{group[0]} = {runs(group[1:])}" for group in equal[:5])
            more = f" and {len(equal) - 5} more" if len(equal) > 5 else ""
            yield self._finding(
                "slice-doubled",
                "error",
                f"the same picture as on an earlier slice on {many(len(again), 'slice')}: {pairs}{more}",
                "Take the copies out of scan and masks; where they fill a gap, get the scan again.",
                slices=again,
                seat=_middle(seen.geometry, again[0]),
            )
        if near:
            yield self._finding(
                "slice-doubled",
                "warning",
                f"a change from the slice before of less than {100 * STANDS_STILL:.0f} % of what is usual, on {many(len(near), 'slice')}",
                "Look whether they are copies.",
                slices=near,
                seat=_middle(seen.geometry, near[0]),
                numbers={"change": float((change / np.maximum(usual, 1e-6))[[at - 1 for at in near]].min())},
            )

    def jumps(self, seen: SeenSlices) -> Iterator[Finding]:
        """Slices that do not belong between their neighbours, and neighbours that differ far more than those around them."""
        if len(seen.spread) < _LEAST_SLICES:
            return
        change = seen.small_change
        usual = np.maximum(_usual(change), 1e-6)
        jump = change / usual > JUMP
        across = seen.across[1:-1] / usual[1:]
        odd = np.flatnonzero(jump[:-1] & jump[1:] & (across < _ACROSS * JUMP)) + 1
        jump[odd] = jump[odd - 1] = False
        yield from self._odd(seen, odd)
        yield from self._jumps(seen, np.flatnonzero(jump) + 1, change / usual)

    def _odd(self, seen: SeenSlices, odd: np.ndarray) -> Iterator[Finding]:
        if not len(odd):
            return
        brighter = float(np.median(seen.brighter[odd]))
        slices = tuple(int(one) for one in odd)
        yield self._finding(
            "slice-odd",
            "warning",
            f"slice {runs(slices)} differs from both neighbours, which are like each other (by {brighter:+.0f} HU in the body)",
            "Look at it: it has another brightness, or belongs elsewhere. Get it again, or leave it out of what is measured.",
            slices=slices,
            seat=_middle(seen.geometry, slices[0]),
            numbers={"brighter_hu": brighter},
        )

    def _jumps(self, seen: SeenSlices, at: np.ndarray, ratio: np.ndarray) -> Iterator[Finding]:
        if not len(at):
            return
        slices = tuple(int(one) for one in at)
        highest = float(ratio[at - 1].max())
        yield self._finding(
            "slice-missing" if len(at) <= _FEW_JUMPS else "slice-spacing",
            "warning",
            f"the picture jumps before slice {runs(slices)}: {highest:.1f} times the usual change (from {JUMP:g} on it is called a jump)",
            f"Slices may be missing there (about {max(1, round(highest) - 1)}), or the patient breathed: look at it in a coronal view.",
            slices=slices,
            seat=_middle(seen.geometry, slices[0]),
            numbers={"jump": highest},
        )

    def marks(self, seen: SeenSlices) -> Iterator[Finding]:
        """Pixels beside the body that are bright wherever air is around them, slice after slice: text, logos, rulers."""
        if len(seen.spread) < _LEAST_SLICES:
            return
        marked = seen.marks.drawn()
        count = int(np.count_nonzero(marked))
        if count < _MARK_PX:
            return
        rows, columns = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
        row, column = (int(value) for value in np.argwhere(marked)[0])
        yield self._finding(
            "burnt-in",
            "warning",
            f"{count} bright pixels beside the body, in rows {runs(rows.tolist())} and columns {runs(columns.tolist())}, stay where they are on all slices",
            "Look whether it is text: it may name the patient, and be marked as a lesion. Get the scan without it.",
            voxels=count * len(seen.spread),
            seat=(len(seen.spread) // 2, row, column),
            numbers={"pixels": float(count)},
        )

    def voxels(self, geometry: Geometry) -> Iterator[Finding]:
        slice_mm, row_mm, column_mm = geometry.spacing_mm
        sizes = f"{slice_mm:.3g} x {row_mm:.3g} x {column_mm:.3g} mm (slice, row, column)"
        inside = all(_PIXEL_MM[0] <= mm <= _PIXEL_MM[1] for mm in (row_mm, column_mm))
        if inside and _SLICE_MM[0] <= slice_mm <= _SLICE_MM[1] and 0.5 < row_mm / column_mm < 2:
            return
        yield self._finding(
            "spacing",
            "error",
            f"voxels of {sizes}",
            "No chest CT has such voxels: get the size from the original series.",
        )

    def cut_off(self, lung: AnyMask) -> Iterator[Finding]:
        """Lungs that reach the first or last slice, or the border of the picture."""
        area = lung.areas
        for end, name in ((0, "foot"), (len(area) - 1, "head")):
            share = area[end] / area.max()
            if share >= CUT_OFF:
                yield self._finding(
                    "cut-off",
                    "warning",
                    f"the last slice towards the {name} still has {100 * share:.0f} % of the lung of the largest one",
                    "Volumes and shares of the lung are of the part that is there.",
                    slices=(end,),
                    seat=_seat(lung.slice(end), end),
                    numbers={"share": float(share)},
                )
        edge = np.ones(lung.geometry.shape[1:], bool)
        edge[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = False
        touching = np.array([np.count_nonzero(lung.slice(index) & edge) for index in range(len(area))])
        if slices := tuple(int(at) for at in np.flatnonzero(touching)):
            yield self._finding(
                "cut-off",
                "warning",
                f"lung reaches the border of the picture on {many(len(slices), 'slice')}",
                "The field of view cuts the lungs, or the lung mask is wrong.",
                slices=slices,
                voxels=int(touching.sum()),
                seat=_seat(lung.slice(slices[0]) & edge, slices[0]),
            )

    def size(self, lung: AnyMask) -> Iterator[Finding]:
        """Lungs of a size or shape that no person has, by the voxel size that the header states."""
        area = lung.areas
        whole = max(area[0], area[-1]) < CUT_OFF * area.max()
        height, depth, width = (
            np.ptp(np.flatnonzero(lung.shadow(axis))) * mm + mm for axis, mm in enumerate(lung.geometry.spacing_mm)
        )
        tall, flat = (
            height / width,
            whole and (height < _LUNG_MM["height"][0] or height / width < _LUNG_SHAPE["height"][0]),
        )
        odd = [] if _LUNG_MM["width"][0] <= width <= _LUNG_MM["width"][1] else ["width"]
        odd += [] if _LUNG_SHAPE["depth"][0] <= depth / width <= _LUNG_SHAPE["depth"][1] else ["depth"]
        if flat or height > _LUNG_MM["height"][1] or tall > _LUNG_SHAPE["height"][1]:
            odd.append("height")
        if odd:
            yield self._finding(
                "spacing",
                "warning",
                f"by the header's voxel size the lungs are {width:.0f} mm wide, {depth:.0f} mm deep and {height:.0f} mm high: "
                f"{' and '.join(odd)} cannot be an adult's",
                "Get the voxel size from the original series: no volume or distance of this scan can be trusted.",
                numbers={"width_mm": float(width), "depth_mm": float(depth), "height_mm": float(height)},
            )


def _picked(count: int) -> Int64[np.ndarray, " picked"]:
    """The slices that are looked at for marks."""
    return np.unique(np.linspace(0, count - 1, _MARK_SLICES).astype(int))


class _Marks:
    """Pixels that are bright on nearly every slice on which there is air around them, less the table behind the patient.

    The table stays where it is as well, so nothing is looked for behind the front of the body; see ``_MARK_ROWS``.
    """

    def __init__(self, shape: tuple[int, int], picked: Int64[np.ndarray, " picked"]) -> None:
        self._in_air, self._bright = np.zeros((2, *shape), np.int32)
        self._rows: list[tuple[int, int]] = []
        self._picked = frozenset(picked.tolist())

    def see(self, index: int, hu: np.ndarray) -> None:
        if index not in self._picked:
            return
        plane = hu.astype(np.float32)
        dark = ndimage.uniform_filter((plane < _MARK_AIR_HU).astype(np.float32), _MARK_AROUND_PX)
        air = ndimage.binary_erosion(dark > 0.5, iterations=2)
        self._in_air += air
        self._bright += air & (plane > _MARK_HU)
        self._rows.append(_body_rows(plane))

    def drawn(self) -> Bool[np.ndarray, "row column"]:
        often = (self._in_air >= len(self._picked) / 3) & (self._bright >= 0.9 * self._in_air)
        top, bottom = np.median(np.array(self._rows), axis=0)
        often[int(top + _MARK_ROWS * (bottom - top)) :] = False
        labels, _ = ndimage.label(ndimage.binary_dilation(often, iterations=3))
        sizes = np.bincount(labels[often], minlength=1)
        return np.asarray(often & (sizes >= _MARK_PX)[labels])


def _body_rows(plane: np.ndarray) -> tuple[int, int]:
    """First and last row of the largest dense piece of a slice; all rows if there is none."""
    labels, found = ndimage.label(plane > _BODY_HU)
    if not found:
        return 0, len(plane)
    rows = np.flatnonzero((labels == 1 + int(np.bincount(labels.ravel())[1:].argmax())).any(axis=1))
    return int(rows[0]), int(rows[-1]) + 1


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean change of HU from one slice to the next, at every second pixel."""
    return float(np.abs(other[::2, ::2].astype(np.float32) - one[::2, ::2]).mean())


def _usual(change: np.ndarray) -> np.ndarray:
    """The median of the changes around each, itself left out."""
    footprint = np.ones(2 * _AROUND + 1, bool)
    footprint[_AROUND] = False
    return np.asarray(ndimage.median_filter(change, footprint=footprint, mode="mirror")) if len(change) > 1 else change


def _small(plane: np.ndarray) -> Float32[np.ndarray, "row column"]:
    """A slice as 64 x 64 means, in which noise hardly counts."""
    from PIL import Image

    picture = Image.fromarray(plane.clip(_DARK, _BRIGHT).astype(np.float32))
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _middle(geometry: Geometry, index: int) -> tuple[int, int, int]:
    return index, geometry.shape[1] // 2, geometry.shape[2] // 2


def _seat(plane: np.ndarray, index: int) -> tuple[int, int, int]:
    """A voxel of a mask on a slice, near the middle of what is there."""
    places = np.argwhere(plane)
    nearest = int(np.square(places - places.mean(axis=0)).sum(axis=1).argmin())
    return index, int(places[nearest][0]), int(places[nearest][1])
