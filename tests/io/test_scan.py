"""One scan from its files: the whole of it, or a refusal by its header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lungshift.errors import GeometryError, ResourceError
from lungshift.io.nifti import NiftiSource
from lungshift.io.scan import read_scan
from patient_worlds import as_series, as_turned_nifti, turned_by, whole_chest


def test_a_scan_that_the_work_on_it_has_no_memory_for_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = as_turned_nifti(tmp_path / "scan.nii.gz", whole_chest(), np.eye(4))
    monkeypatch.setattr("lungshift.memory.available_bytes", lambda: 16 * 64 * 64 * 11)
    monkeypatch.setattr(NiftiSource, "read", lambda _: pytest.fail("the scan was read"))

    with pytest.raises(ResourceError, match=r"^Showing a scan of 16 x 64 x 64 voxels takes about ") as caught:
        read_scan(scan, bytes_a_voxel=12, doing="Showing")

    assert caught.value.code == "E_MEMORY"


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_an_oblique_scan_is_refused_unless_resampled(tmp_path: Path, kind: str) -> None:
    case, turn = whole_chest(), turned_by(9, 2)
    scan = (
        as_turned_nifti(tmp_path / "scan.nii.gz", case, turn)
        if kind == "nifti"
        else as_series(tmp_path / "ct", case, turn=turn)
    )
    lung = as_turned_nifti(tmp_path / "lung.nii.gz", case, turn, array=case.lung.voxels.astype(np.uint8))
    with pytest.raises(GeometryError):
        read_scan(scan)

    read = read_scan(scan, lung=lung, oblique="resample")

    assert read.volume.geometry.affine[0, 1] == 0, "rows lie along the patient"
    assert read.lung.volume_ml == pytest.approx(case.lung.volume_ml, rel=0.02)
