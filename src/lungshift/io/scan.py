"""One scan to predict: a NIfTI file or a folder with a DICOM series."""

from __future__ import annotations

from pathlib import Path

from lungshift.ct.case import Case
from lungshift.io.dicom import read_series
from lungshift.io.nifti import read_mask, read_volume


def read_scan(path: Path, *, lung: Path | None = None, series_uid: str | None = None) -> Case:
    """Read a scan with its lung mask, if there is one.

    Args:
        path: A NIfTI file, or a folder with DICOM files.
        lung: Lung mask as NIfTI (labels 1, or 1 and 2 for the two lungs), on the scan's grid.
        series_uid: Which series, where the folder holds several.

    Raises:
        InputError: It cannot be read as a CT scan; the message says why.
    """
    volume = read_series(path, series_uid=series_uid) if path.is_dir() else read_volume(path)
    mask = read_mask(lung, volume.geometry, labels=frozenset({1, 2})) if lung else None
    return Case(volume, mask, case_id=path.name)
