"""Scans without masks, as they lie in a folder: NIfTI files, and folders of DICOM files. For an audit, which needs no masks."""

from __future__ import annotations

from pathlib import Path

from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import CohortError
from lungshift.io.dicom import DicomSource
from lungshift.io.header import DEFAULT_INTAKE, Intake
from lungshift.io.nifti import NiftiSource

_SUFFIXES = (".nii.gz", ".nii")


def read_bare_cohort(path: Path, intake: Intake = DEFAULT_INTAKE) -> Cohort:
    """Every scan in a folder as a case of its own, named by its file or folder; no voxel is read yet.

    NIfTI files of the folder are scans. So is a folder that holds files of other kinds directly, taken for one DICOM series; where the folder
    itself holds none, its subfolders are looked at.

    Raises:
        CohortError: Nothing there.
    """
    if path.is_file():
        scans = {_name(path): path}
    elif path.is_dir():
        scans = _scans(path)
    else:
        raise CohortError(f"There is no file or folder {path}.", code="E_NO_FILE")
    if not scans:
        raise CohortError(f"{path} holds no NIfTI file and no folder with DICOM files.", code="E_EMPTY_COHORT")
    cases = tuple(CaseRecord(name, name, _source(scan, intake), lung_source="none") for name, scan in scans.items())
    return Cohort(_name(path.resolve()), cases, patients_known=False)


def _scans(folder: Path) -> dict[str, Path]:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    if nifti := [file for file in files if file.name.endswith(_SUFFIXES)]:
        return {_name(file): file for file in nifti}
    if files:
        return {folder.resolve().name: folder}
    inner = (part for part in sorted(folder.iterdir()) if part.is_dir() and not part.name.startswith("."))
    return {part.name: part for part in inner if any(part.iterdir())}


def _source(scan: Path, intake: Intake) -> NiftiSource | DicomSource:
    return NiftiSource(scan, intake=intake) if scan.name.endswith(_SUFFIXES) else DicomSource(scan)


def _name(path: Path) -> str:
    return next((path.name.removesuffix(suffix) for suffix in _SUFFIXES if path.name.endswith(suffix)), path.name)
