"""The studies of ``benchmarks.abuse.load``: one of a thousand thin slices in three kinds of files, some small ones, and a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

THIN_MM, CHEST_MM, PICTURE_MM = 0.3, 300.0, 380.0
_COARSE_SLICES, _NOISE_HU = 20, 12.0


def write_model(folder: Path, width: int = 16) -> Path:
    """A U-Net that calls lesion what is dense inside the lungs, computed like any other; see ``benchmarks.predicting``."""
    from benchmarks.predicting import _weights
    from lungshift.learn.checkpoint import Checkpoint, save_checkpoint
    from lungshift.learn.settings import NetworkSettings

    network = NetworkSettings(width=width)
    save_checkpoint(Checkpoint(_weights(network), network, 320, "nearest"), folder)
    return folder


def write_large(folder: Path, slices: int, size: int) -> None:
    """One thin-slice phantom as ``volume.nii.gz`` and ``lung.nii.gz``, as ``across.nii`` (slices across the file), and as ``series``."""
    folder.mkdir(parents=True)
    (folder / "series").mkdir()
    spacing = (CHEST_MM / slices, PICTURE_MM / size, PICTURE_MM / size)
    across = np.memmap(folder / "across.voxels", np.int16, "w+", shape=(size, slices, size))
    with (
        _Nifti(folder / "volume.nii.gz", slices, size, spacing, np.int16) as scan,
        _Nifti(folder / "lung.nii.gz", slices, size, spacing, np.uint8) as masks,
    ):
        for number, (hu, lung) in enumerate(_thin_slices(slices, size)):
            scan.write(hu)
            masks.write(lung)
            across[:, number] = hu
            _write_ct(folder / "series" / f"{number:04d}.dcm", number, hu, spacing)
    _write_across(folder, across, spacing)


def write_small(folder: Path, patients: int, size: int = 256) -> list[Path]:
    """Chests of different people, some 25 slices each, as NIfTI without lung masks."""
    from lungshift.io.writing import write_volume
    from lungshift.prepare.phantom import phantom_case
    from lungshift.prepare.phantom_site import Site

    site = Site(size=size, pixel_mm=PICTURE_MM / size, slice_mm=12)
    paths = [folder / f"{number}.nii.gz" for number in range(patients)]
    for number, path in enumerate(paths):
        write_volume(phantom_case(0, number, site).volume, path)
    return paths


def _thin_slices(slices: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A chest in thin slices from foot to head: each between two of a coarse phantom, with noise of its own."""
    from lungshift.prepare.phantom import phantom_case
    from lungshift.prepare.phantom_site import Site

    case = phantom_case(0, 0, Site(size=size, pixel_mm=PICTURE_MM / size, slice_mm=CHEST_MM / _COARSE_SLICES))
    if case.lung is None:
        raise ValueError("The phantom has no lungs.")
    hu, lung, rng = case.volume.hu, case.lung.voxels, np.random.default_rng(0)
    for place in np.linspace(0, len(hu) - 1, slices):
        low = min(int(place), len(hu) - 2)
        share = np.float32(place - low)
        noise = rng.standard_normal((size, size), np.float32) * np.float32(_NOISE_HU)
        plane = hu[low] * (1 - share) + hu[low + 1] * share + noise
        yield np.rint(plane).clip(-1024, 3071).astype(np.int16), lung[round(place)].view(np.uint8)


class _Nifti:
    """A gzipped NIfTI file that is written slice by slice."""

    def __init__(self, path: Path, slices: int, size: int, spacing: tuple[float, ...], dtype: type) -> None:
        from isal import igzip

        self._file = igzip.open(path, "wb", compresslevel=1)
        self._file.write(_header((size, size, slices), np.diag([-spacing[2], -spacing[1], spacing[0], 1]), dtype))

    def __enter__(self) -> _Nifti:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, plane: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(plane).tobytes())


def _header(shape: tuple[int, int, int], affine: np.ndarray, dtype: type) -> bytes:
    import nibabel as nib

    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header["xyzt_units"], header["vox_offset"] = 2, 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    return bytes(header.binaryblock) + bytes(4)


def _write_across(folder: Path, across: np.memmap, spacing: tuple[float, ...]) -> None:
    """Columns fastest, then slices, then rows: no slice is in one piece."""
    rows, slices, columns = across.shape
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])[:, [0, 2, 1, 3]]
    with open(folder / "across.nii", "wb") as file:
        file.write(_header((columns, slices, rows), affine, np.int16))
        for plane in across:
            file.write(plane.tobytes())
    (folder / "across.voxels").unlink()


def _write_ct(path: Path, number: int, hu: np.ndarray, spacing: tuple[float, ...]) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    root, image = "1.2.826.0.1.3680043.10.999", Dataset()
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{root}.2.{number + 1}",
        "StudyInstanceUID": f"{root}.1",
        "SeriesInstanceUID": f"{root}.2",
        "FrameOfReferenceUID": f"{root}.3",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": number + 1,
        "ImagePositionPatient": ["0", "0", f"{number * spacing[0]:.6f}"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "PixelSpacing": [f"{mm:.6f}" for mm in spacing[1:]],
        "SliceThickness": f"{spacing[0]:.6f}",
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "Rows": hu.shape[0],
        "Columns": hu.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": (hu.astype(np.int32) + 1024).astype(np.uint16).tobytes(),
    }
    for keyword, value in values.items():
        setattr(image, keyword, value)
    image["PixelData"].VR = "OW"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    pydicom.dcmwrite(path, image, enforce_file_format=True)
