"""CT series written by hand: any array anywhere in the patient, with names and UIDs planted in every header."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from lungshift.ct.geometry import Geometry

TOKENS = {
    "PatientName": "Mueller^Hannelore",
    "PatientID": "PID-4711",
    "PatientBirthDate": "19610203",
    "StudyDate": "20200417",
    "StudyTime": "101112",
    "AccessionNumber": "ACC-0815",
    "StudyID": "SID-77",
    "ReferringPhysicianName": "Doktor^Schmidt",
    "InstitutionName": "Klinikum Musterstadt",
    "StationName": "CT-ROOM-9",
    "StudyDescription": "Thorax Mueller",
    "SeriesDescription": "Lunge Mueller",
    "OtherPatientIDs": "OTHER-1234",
}
"""What must not be found in anything that leaves without identity."""
_SHARED = {
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""Where a multi-frame file keeps what its frames share."""
Change = Callable[[Dataset, int], None]


def write_ct(
    folder: Path,
    hu: np.ndarray,
    affine: np.ndarray,
    *,
    series: str = "1.2.826.0.1.11",
    study: str = "1.2.826.0.1.10",
    order: list[int] | None = None,
    change: Change | None = None,
    prefix: str = "im",
) -> Path:
    """A series of the (slice, row, column) voxels that ``affine`` takes to LPS mm; names and numbers go by ``order``."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for number, k in enumerate(order or range(len(hu))):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, f"{series}.{k + 1}", "CT"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, f"{study}.5"
        ds.SeriesNumber, ds.InstanceNumber = 3, number + 1
        for keyword, value in TOKENS.items():
            setattr(ds, keyword, value)
        ds.PatientSex = "F"
        ds.ImagePositionPatient = [f"{x:.6f}" for x in affine[:3, 3] + k * affine[:3, 0]]
        ds.ImageOrientationPatient = [f"{x:.9f}" for x in (*steps[:, 2], *steps[:, 1])]
        ds.PixelSpacing, ds.SliceThickness = [f"{x:.6f}" for x in spacing[1:]], f"{spacing[0]:.6f}"
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *hu.shape[1:], 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.PixelData = (hu[k].astype(np.int32) + 1024).astype(np.uint16).tobytes()
        if change:
            change(ds, k)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2.3"
        ds["PixelData"].VR = "OW"
        pydicom.dcmwrite(folder / f"{prefix}{number:03d}.dcm", ds, enforce_file_format=True)
    return folder


def turned(geometry: Geometry, flips: tuple[bool, bool, bool] = (False, False, False)) -> np.ndarray:
    """The affine of an array that is ``flips``-ed along slice, row and column, so that it shows the same patient."""
    affine = geometry.affine.copy()
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (geometry.shape[axis] - 1)
            affine[:3, axis] *= -1
    return affine


def tilted(affine: np.ndarray, degrees: float) -> np.ndarray:
    """The affine turned about the left-right axis, as when the patient lies on a wedge."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine


def write_enhanced(path: Path, hu: np.ndarray, affine: np.ndarray, *, order: list[int] | None = None) -> Path:
    """The same as one multi-frame file (Enhanced CT Image Storage), its frames in the order given."""
    single = write_ct(path.with_suffix(""), hu, affine)
    frames = [pydicom.dcmread(single / f"im{k:03d}.dcm") for k in order or range(len(hu))]
    ds = deepcopy(frames[0])
    ds.SOPClassUID, ds.SOPInstanceUID, ds.NumberOfFrames = EnhancedCTImageStorage, "1.2.826.0.1.12", len(frames)
    ds.PixelData = b"".join(frame.PixelData for frame in frames)
    per_frame = []
    for frame in frames:
        place, groups = Dataset(), Dataset()
        place.ImagePositionPatient = frame.ImagePositionPatient
        groups.PlanePositionSequence = [place]
        per_frame.append(groups)
    shared = Dataset()
    for sequence, keywords in _SHARED.items():
        item = Dataset()
        for keyword in keywords:
            setattr(item, keyword, ds.get(keyword))
        setattr(shared, sequence, [item])
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], per_frame
    for keyword in ("ImagePositionPatient", *(keyword for keywords in _SHARED.values() for keyword in keywords)):
        delattr(ds, keyword)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path
