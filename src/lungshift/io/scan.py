"""One scan to predict: a NIfTI file or a folder with a DICOM series."""

from __future__ import annotations

from pathlib import Path

from lungshift.ct.case import Case, CaseSource
from lungshift.io.header import Intake
from lungshift.io.layouts import EITHER_LUNG
from lungshift.io.nifti import NiftiSource
from lungshift.io.orientation import Oblique
from lungshift.memory import require_memory_for_scan


def open_scan(
    path: Path, *, lung: Path | None = None, series_uid: str | None = None, oblique: Oblique = "refuse"
) -> CaseSource:
    """A scan, with its lung mask if there is one, that can be read whole or slice by slice; nothing is read yet.

    Args:
        path: A NIfTI file, or a folder with DICOM files.
        lung: Lung mask as NIfTI (labels 1, or 1 and 2 for the two lungs), on the scan's grid.
        series_uid: Which series, where the folder holds several.
        oblique: A grid that is turned or sheared against the patient: ``refuse`` it, or ``resample`` it to the patient's axes.
    """
    if path.is_dir():
        from lungshift.io.dicom import DicomSource
        from lungshift.io.dicom_series import Choices

        return DicomSource(path, series_uid, lung, lung_labels=EITHER_LUNG, choices=Choices(oblique=oblique))
    return NiftiSource(path, lung, lung_labels=EITHER_LUNG, intake=Intake(oblique=oblique))


def read_scan(
    path: Path,
    *,
    lung: Path | None = None,
    series_uid: str | None = None,
    oblique: Oblique = "refuse",
    bytes_a_voxel: int = 0,
    doing: str = "Reading",
) -> Case:
    """Read a scan whole with its lung mask, if there is one; as ``open_scan``.

    Args:
        path: As for ``open_scan``.
        lung: As for ``open_scan``.
        series_uid: As for ``open_scan``.
        oblique: As for ``open_scan``.
        bytes_a_voxel: What the work on it takes at its highest for each voxel; by its header a scan is refused that is too large for it.
        doing: What that work is, such as ``Showing``.

    Raises:
        InputError: It cannot be read as a CT scan, or the mask does not fit; the message says why.
        ResourceError: It needs more memory than there is (``E_MEMORY``).
    """
    source = open_scan(path, lung=lung, series_uid=series_uid, oblique=oblique)
    require_memory_for_scan(source.geometry.shape, bytes_a_voxel, doing)
    volume, mask, _ = source.read()
    return Case(volume, mask, case_id=path.name)
