"""Reading a case that may not be readable: what reading refuses becomes a finding, and the rest of the case is looked at all the same.

An audit is the one place that takes scans in loosely. Each door that is opened wider is told as a finding, with the code of the error
with which any other command would end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lungshift.audit.finding import Finding, Severity
from lungshift.audit.intensity import AIR_HU, Scale, intensity_findings
from lungshift.ct.case import Case, CaseRecord, CaseSource
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError, InputError, IntensityError
from lungshift.io.dicom import DicomSource, peek_stored
from lungshift.io.dicom_series import without_file_names, without_uids
from lungshift.io.nifti import NiftiSource
from lungshift.io.pairs import FlipCheck
from lungshift.io.voxels import require_hu

_MOST_DOORS = 8
_FILL_HU = -1024.0

_NIFTI_DOORS: dict[str, dict[str, Any]] = {
    "E_NO_ORIENTATION": {"assume_spacing": True},
    "E_OBLIQUE": {"oblique": "resample"},
    "E_SHEARED": {"oblique": "resample"},
    "E_NAN": {"nan": _FILL_HU},
}
_DICOM_DOORS: dict[str, dict[str, Any]] = {
    "E_GAP": {"uneven": "interpolate"},
    "E_SPACING": {"uneven": "interpolate"},
    "E_OBLIQUE": {"oblique": "resample"},
    "E_TILT": {"oblique": "resample"},
    "E_FEW": {"min_slices": 2},
    "E_DERIVED": {"allow_derived": True},
}
_MASK_ERRORS = ("E_LABELS", "E_MASK_SHAPE", "E_MASK_AFFINE")

_CODES: dict[str, tuple[str, Severity]] = {
    "E_NO_ORIENTATION": ("unreadable", "error"),
    "E_OBLIQUE": ("unreadable", "warning"),
    "E_SHEARED": ("unreadable", "warning"),
    "E_TILT": ("unreadable", "warning"),
    "E_NAN": ("unreadable", "warning"),
    "E_DERIVED": ("unreadable", "warning"),
    "E_FEW": ("slice-missing", "error"),
    "E_GAP": ("slice-missing", "error"),
    "E_DUP": ("slice-doubled", "error"),
    "E_SPACING": ("slice-spacing", "error"),
    "E_LABELS": ("undeclared-label", "error"),
    "E_MASK_SHAPE": ("mask-grid", "error"),
    "E_MASK_AFFINE": ("mask-grid", "error"),
    "E_MASK_FLIPPED": ("mask-flipped", "error"),
    "E_AFFINE": ("spacing", "error"),
    "E_BURNED_IN": ("burnt-in", "error"),
}
"""The finding that an error becomes; any other is ``unreadable``."""

_REMEDIES = {
    "mask-grid": "Resample the mask to the scan with nearest neighbours, or find the mask that was made on it.",
    "mask-flipped": "Turn the mask round, or export it again with its affine.",
    "undeclared-label": "Declare what the values mean in the manifest, or clean the mask.",
    "unreadable": "See the message; convert the original series again.",
    "slice-missing": "Get the missing slices from the archive.",
    "slice-doubled": "Keep one acquisition in the folder.",
    "slice-spacing": "Get the whole series; interpolate only if you must.",
    "spacing": "Get the voxel size from the original series.",
    "burnt-in": "Get the scan without text: it may name the patient.",
}


@dataclass(frozen=True)
class Reading:
    """What could be read of a case.

    Attributes:
        case: The scan in HU with the masks that fit it; None where nothing could be read, or no way to HU is known.
        findings: What was wrong with it.
        scale: How its stored values were made; None where that is not known.
        stored: The scan as it is stored, with its grid; None where it has none.
    """

    case: Case | None
    findings: tuple[Finding, ...]
    scale: Scale | None = None
    stored: Volume | None = None


def read_loosely(record: CaseRecord, cohort: str = "") -> Reading:
    """Read a case, opening one door after another until it is read or none is left."""
    source = _loosened(record.source)
    found: list[Finding] = []
    for _ in range(_MOST_DOORS):
        try:
            volume, lung, lesion = source.read()
            break
        except InputError as error:
            wider = _wider(source, error)
            if wider is None:
                return _unread(record, cohort, error, found)
            found.append(_from_error(error, record, cohort))
            source = wider
    else:
        return Reading(None, tuple(found))
    intensity, scale = intensity_findings(volume, case=record.case_id, cohort=cohort, error=_hu_error(volume))
    found += intensity
    if scale is None:
        return Reading(None, tuple(found), None, volume)
    hu = volume if scale.kind == "hu" else Volume(scale.apply(volume.hu), volume.geometry)
    flips, lung, lesion = _without_flipped(hu, lung, lesion, record.case_id, cohort)
    case = Case(hu, lung, lesion, record.case_id, record.patient_id, record.lung_source)
    return Reading(case, (*found, *flips), scale, volume)


def _loosened(source: CaseSource) -> CaseSource:
    """The source that takes any values and mirrored masks: both are judged here."""
    if not isinstance(source, NiftiSource):
        return source
    return replace(source, intake=replace(source.intake, require_hu=False, allow_mirrored=True))


def _wider(source: CaseSource, error: InputError) -> CaseSource | None:
    """The source with one more door open for what it was refused for; None if there is none."""
    if isinstance(source, NiftiSource):
        if error.code in _NIFTI_DOORS:
            intake = replace(source.intake, **_NIFTI_DOORS[error.code])
            return None if intake == source.intake else replace(source, intake=intake)
        return _without_mask(source, error)
    if isinstance(source, DicomSource):
        if error.code in _DICOM_DOORS:
            choices = replace(source.choices, **_DICOM_DOORS[error.code])
            return None if choices == source.choices else replace(source, choices=choices)
        return _without_mask(source, error)
    return None


def _without_mask(source: NiftiSource | DicomSource, error: InputError) -> CaseSource | None:
    """The source without the mask that an error is about, known by its path in the message."""
    if error.code not in _MASK_ERRORS:
        return None
    if source.lesion is not None and str(source.lesion) in str(error):
        return replace(source, lesion=None)
    if source.lung is not None and str(source.lung) in str(error):
        return replace(source, lung=None)
    return None


def _from_error(error: InputError, record: CaseRecord, cohort: str) -> Finding:
    code, severity = _CODES.get(error.code, ("unreadable", "error"))
    evidence = _without_folders(str(error), record.source)
    return Finding(code, record.case_id, severity, evidence, _REMEDIES[code], cohort, error=error.code)


def _without_folders(message: str, source: CaseSource) -> str:
    """A message with the base names of the case's files, of a DICOM series without: folders may name people and machines, archives name files by patients."""
    if isinstance(source, DicomSource):
        message = without_uids(without_file_names(message, Path(source.folder)))
    for name in ("volume", "lung", "lesion", "folder"):
        path = getattr(source, name, None)
        if path is not None:
            message = message.replace(str(path), Path(path).name)
    return message


def _unread(record: CaseRecord, cohort: str, error: InputError, found: list[Finding]) -> Reading:
    """What can be said of a case that cannot be read: of a DICOM series at least what its values are."""
    refusal = _from_error(error, record, cohort)
    if not isinstance(record.source, DicomSource) or not isinstance(error, IntensityError):
        return Reading(None, (*found, refusal))
    try:
        planes = peek_stored(record.source.folder)
    except (InputError, OSError):
        return Reading(None, (*found, refusal))
    if not planes:
        return Reading(None, (*found, refusal))
    intensity, scale = intensity_findings(planes, case=record.case_id, cohort=cohort, error=error.code)
    words = [replace(one, evidence=f"{one.evidence}. {refusal.evidence}", remedy=_ORIGINAL) for one in intensity[:1]]
    rest = (*words, *intensity[1:]) if scale is not None and scale.kind != "hu" else (refusal, *intensity)
    return Reading(None, (*found, *rest), scale)


_ORIGINAL = "Export the original CT series again: without positions and rescaling there is no scan to correct."


def _hu_error(volume: Volume) -> str:
    """The code with which another command would refuse the values."""
    try:
        require_hu(float(volume.hu.min()), float(volume.hu.max()), "")
    except IntensityError as error:
        return error.code
    return ""


def _without_flipped(
    volume: Volume, lung: Mask | None, lesion: Mask | None, case: str, cohort: str
) -> tuple[list[Finding], Mask | None, Mask | None]:
    """Take away masks that are mirrored against the scan, and say so; a lesion mask that fits a mirrored lung mask goes with it."""
    if lung is None:
        return [], lung, lesion
    if words := _mirrored(volume, lung, None):
        together = lesion is not None and not _mirrored(volume, lung, lesion, of_lesion=True)
        which = "lung and lesion masks" if together else "lung mask"
        return [_flipped(which, words, case, cohort)], None, None if together else lesion
    if lesion is not None and (words := _mirrored(volume, lung, lesion)):
        return [_flipped("lesion mask", words, case, cohort)], lung, None
    return [], lung, lesion


def _flipped(which: str, words: str, case: str, cohort: str) -> Finding:
    return Finding(
        "mask-flipped", case, "error", f"{which}: {words}", _REMEDIES["mask-flipped"], cohort, error="E_MASK_FLIPPED"
    )


def _mirrored(volume: Volume, lung: Mask, lesion: Mask | None, *, of_lesion: bool = False) -> str:
    """In words how a mask is mirrored, or nothing; ``of_lesion`` asks for the lesion mask against the lung mask alone."""
    check = FlipCheck(volume.geometry.shape)
    for index, plane in enumerate(volume.hu):
        shown = np.where(lung.voxels[index], AIR_HU, 0.0) if of_lesion else plane
        check.see(index, shown, lung.voxels[index], None if lesion is None else lesion.voxels[index])
    try:
        check.finish(None, None)
    except AnnotationError as error:
        return str(error).removeprefix("None seems to be ")
    return ""
