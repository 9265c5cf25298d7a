"""Is this scan one that the model can be asked about? What is unlike the training data is said, and with ``strict`` refused.

Values that are not HU, damaged files and scans without lung are refused before this by who reads them. Here is what can be read and may
still be wrong: a chest that lies otherwise than its header says, lungs that are cut off, a scale that is not that of HU, voxels of
a size that the model has never seen. Limits come from the checkpoint where it knows its training data, else from the numbers below,
which leave room around 19 real scans of two cohorts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lungshift.audit.completeness import SeenSlices
from lungshift.audit.intensity import SeenValues, landmark_findings, range_of
from lungshift.audit.orientation import SeenChest, flipped_findings
from lungshift.ct.case import Case, CaseSlice, CaseSource, InMemory
from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import AnyMask
from lungshift.errors import GeometryError, InputError
from lungshift.prepare.peaks import Peaks, find_peaks

LUNG_HU, TISSUE_HU = (-960.0, -650.0), (-80.0, 250.0)
"""Where the middle of the lung and of the soft tissue between the lungs may lie: -923 to -690 and -18 to 139 HU on 19 real scans; contrast
medium makes the heart denser."""
SLICE_MM, PICTURE_MM = (0.4, 10.0), (200.0, 550.0)
"""Distance of slices, and the longer side of a slice, where the checkpoint does not say what it was trained on."""
_ROOM = 1.5
"""So many times beyond the range of the training data is still no flag."""
_LUNG_ML = (1000.0, 10_000.0)
_SAMPLE = 16


@dataclass(frozen=True)
class Flag:
    """Something about a scan for which its result should be looked at.

    Attributes:
        code: What it is, a stable word.
        evidence: In words with numbers, why we think so.
        remedy: What to do.
        numbers: What was measured.
    """

    code: str
    evidence: str
    remedy: str
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.code}: {self.evidence.rstrip('.')}. {self.remedy}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"numbers": dict(self.numbers)}


@dataclass(frozen=True)
class TrainingRange:
    """What a checkpoint has seen, as far as it says so.

    Attributes:
        slice_mm: Lowest and highest distance of slices.
        picture_mm: The same of the longer side of a slice.
        stated: Whether the checkpoint says it; else these are the numbers above.
    """

    slice_mm: tuple[float, float] = SLICE_MM
    picture_mm: tuple[float, float] = PICTURE_MM
    stated: bool = False

    @classmethod
    def of(cls, trained_on: Sequence[Mapping[str, Any]]) -> TrainingRange:
        """The range of all parts of the training data that state one, with room on both sides."""
        seen = [part["seen"] for part in trained_on if part.get("seen")]
        if not seen:
            return cls()
        low_high = {
            name: (min(one[name][0] for one in seen) / _ROOM, max(one[name][1] for one in seen) * _ROOM)
            for name in ("slice_mm", "picture_mm")
        }
        return cls(**low_high, stated=True)


def judge_scan(case: Case, seen: TrainingRange) -> tuple[Flag, ...]:
    """Everything about a scan with its lungs for which its prediction should be looked at.

    Raises:
        GeometryError: The lung mask is empty (``E_NO_LUNG``).
    """
    source, lung = InMemory.of(case), require_lung(case.lung)
    first = FirstLook.at(source)
    for _ in first.watch(source.slices()):
        pass
    second = SecondLook(first, lung)
    for _ in second.watch(source.slices()):
        pass
    return second.flags(seen)


def require_lung(lung: AnyMask | None) -> AnyMask:
    """A lung mask that is not empty.

    Raises:
        GeometryError: There is none, or it is empty (``E_NO_LUNG``): nothing would be looked at, and nothing found.
    """
    if lung is None or not lung.areas.any():
        raise GeometryError(
            "The lung mask is empty, so no slice would be looked at. Is it the mask of this scan? Leave --lung out to have one made.",
            code="E_NO_LUNG",
        )
    return lung


class FirstLook:
    """What is kept of a scan's slices while they pass for the first time, before its lungs are known.

    Args:
        geometry: The scan's grid.
        limits: Its lowest and highest value if they are floating point; ``audit.intensity.range_of`` tells.
    """

    def __init__(self, geometry: Geometry, limits: tuple[float, float] | None) -> None:
        self.slices, self.values = SeenSlices(geometry), SeenValues(geometry.shape[0], limits)

    @classmethod
    def at(cls, source: CaseSource) -> FirstLook:
        """For a scan that is read slice by slice; one of floating point is read once for its range."""
        return cls(source.geometry, range_of(piece.hu for piece in source.slices()))

    def watch(self, slices: Iterable[CaseSlice]) -> Iterator[CaseSlice]:
        """The same slices; each is looked at as it passes."""
        for piece in slices:
            self.slices.see(piece.index, piece.hu)
            self.values.count(piece.hu)
            yield piece


class SecondLook:
    """What is kept of some slices when they pass again, with their lungs; in the end all flags of the scan.

    Args:
        first: The first look, at every slice.
        lung: The lungs.
    """

    def __init__(self, first: FirstLook, lung: AnyMask) -> None:
        self._first, self._lung = first, lung
        self._chest, self._values = SeenChest(lung), first.values.looks()
        with_lung = np.flatnonzero(lung.areas)
        chosen = np.unique(np.linspace(0, len(with_lung) - 1, _SAMPLE).round().astype(int))
        self._for_peaks = frozenset(with_lung[chosen].tolist())
        self._peaks: list[tuple[np.ndarray, np.ndarray]] = []

    def watch(self, slices: Iterable[CaseSlice]) -> Iterator[CaseSlice]:
        """The same slices; some are looked at as they pass."""
        for piece in slices:
            lung = self._lung.slice(piece.index) if piece.lung is None else piece.lung
            self._values.see(piece.index, piece.hu)
            self._chest.see(piece.index, piece.hu, lung)
            if piece.index in self._for_peaks:
                self._peaks.append((piece.hu, lung))
            yield piece

    def flags(self, seen: TrainingRange) -> tuple[Flag, ...]:
        """Everything for which the prediction should be looked at, once all slices have passed."""
        return (
            *self._audited(),
            *_amount(self._lung),
            *_scale(find_peaks(self._peaks)),
            *_voxels(self._first.slices.geometry, seen),
        )

    def _audited(self) -> Iterator[Flag]:
        """What the audit of a cohort would say of the scan, less what is only good to know."""
        orientation = flipped_findings(self._chest.judge())
        scale, _ = landmark_findings(self._values.landmarks())
        for finding in (*orientation, *self._first.slices.findings(self._lung), *scale):
            if finding.severity != "note":
                yield Flag(finding.code, finding.evidence, finding.remedy, dict(finding.numbers))


def require_like(flags: Sequence[Flag]) -> None:
    """Refuse a scan that has any flag.

    Raises:
        InputError: It has (``E_UNLIKE``).
    """
    if flags:
        told = " ".join(map(str, flags))
        raise InputError(
            f"The scan is unlike what the model was made for. {told} Without --strict it is predicted and flagged.",
            code="E_UNLIKE",
        )


def _amount(lung: AnyMask) -> Iterator[Flag]:
    low, high = _LUNG_ML
    if not low <= lung.volume_ml <= high:
        yield Flag(
            "lung-volume",
            f"{lung.volume_ml:.0f} ml of lung, {low:.0f} to {high:.0f} are usual in an adult",
            "Look at lung.nii.gz: dense lung may be missing from it, or air be in it that is none",
            {"lung_ml": lung.volume_ml},
        )


def _scale(peaks: Peaks) -> Iterator[Flag]:
    """Lung or soft tissue that is not where HU have it."""
    odd = []
    for name, value, (low, high) in (("lung", peaks.lung, LUNG_HU), ("soft tissue", peaks.tissue, TISSUE_HU)):
        if not np.isnan(value) and not low <= value <= high:
            odd.append(f"{name} lies near {value:.0f} HU, {low:.0f} to {high:.0f} is usual")
    if odd:
        yield Flag(
            "contrast",
            " and ".join(odd),
            "Check the rescaling of the scan, or whether there is much contrast medium or little air in the lungs",
            {"lung_hu": peaks.lung, "tissue_hu": peaks.tissue},
        )


def _voxels(geometry: Geometry, seen: TrainingRange) -> Iterator[Flag]:
    slice_mm, row_mm, column_mm = geometry.spacing_mm
    _, rows, columns = geometry.shape
    picture_mm = max(rows * row_mm, columns * column_mm)
    whose = "the model was trained on" if seen.stated else "usual are"
    odd = [
        f"{what} {value:.3g} mm, {whose} {low:.3g} to {high:.3g}"
        for what, value, (low, high) in (
            ("slices are apart by", slice_mm, seen.slice_mm),
            ("a slice is as wide as", picture_mm, seen.picture_mm),
        )
        if not low <= value <= high
    ]
    if odd:
        yield Flag(
            "spacing-unseen",
            "; ".join(odd),
            "Compare with a reader on a few scans like this one before you trust it",
            {"slice_mm": slice_mm, "picture_mm": picture_mm},
        )
