"""Volumes and masks to NIfTI files: on exactly the grid of another file, without its words, read back before they count."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError, InputError
from lungshift.files import write_file
from lungshift.io.header import Header, Intake, read_header
from lungshift.io.nifti import read_mask, read_volume
from lungshift.io.orientation import Layout, layout_of

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MILLIMETRES, _SCANNER = 2, 1
_PLACE = (
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_ANY = Intake(require_hu=False, assume_spacing=True)


def write_mask(mask: Mask, path: Path | str, like: Path | str | None = None) -> None:
    """Write a mask as 0 and 1 (uint8) to a ``.nii.gz`` or ``.nii`` file.

    Args:
        mask: What to write.
        path: Where; an existing file is replaced only once the new one is whole.
        like: A NIfTI file, as a rule the scan, whose axis order, flips, qform and sform are taken; its description and
            extensions are not, for they may name the patient. Without it the canonical grid is written.

    Raises:
        GeometryError: The mask is not on the grid of ``like``.
        ResourceError: The disk is full or the folder cannot be written; ``path`` is as it was.
    """

    def same(written: Path) -> bool:
        return np.array_equal(read_mask(written, mask.geometry).voxels, mask.voxels)

    _write(mask.voxels.astype(np.uint8), mask.geometry, Path(path), like, same)


def write_volume(volume: Volume, path: Path | str, like: Path | str | None = None) -> None:
    """Write a scan in HU (int16 or float32, unscaled) to a ``.nii.gz`` or ``.nii`` file; the rest as ``write_mask``.

    Raises:
        GeometryError: The scan is not on the grid of ``like``.
        ResourceError: The disk is full or the folder cannot be written; ``path`` is as it was.
    """

    def same(written: Path) -> bool:
        again = read_volume(written, require_hu=False)
        return volume.geometry.difference(again.geometry) is None and np.array_equal(again.hu, volume.hu)

    _write(volume.hu, volume.geometry, Path(path), like, same)


def _write(array: np.ndarray, geometry: Geometry, path: Path, like: Path | str | None, same: Any) -> None:
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"A NIfTI file is named .nii or .nii.gz; got {path}.", code="E_SUFFIX")
    if like is None:
        header, stored = _canonical_header(geometry), array
    else:
        model = read_header(Path(like), _ANY)
        layout = layout_of(model)
        _require_on(layout, geometry, path, model)
        header, stored = _header_like(model), layout.turn_back(array)
    header.set_data_dtype(array.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = len(header.binaryblock) + 4
    data = header.binaryblock + bytes(4) + np.ascontiguousarray(stored, array.dtype.newbyteorder("<")).tobytes()

    def write(temporary: Path) -> None:
        temporary.write_bytes(_packed(data, path))
        if not same(temporary):
            raise OSError(errno.EIO, "what was read back is not what was written")

    write_file(path, write)


def _packed(data: bytes, path: Path) -> bytes:
    """The bytes for this file name; compressed ones carry no time, so equal masks give equal files."""
    from isal import igzip

    return igzip.compress(data, compresslevel=3, mtime=0) if path.name.endswith(".gz") else data


def _require_on(layout: Layout, geometry: Geometry, path: Path, model: Header) -> None:
    if difference := layout.geometry.difference(geometry):
        raise GeometryError(
            f"Cannot write {path} on the grid of {model.path}: {difference}.",
            code="E_MASK_SHAPE" if layout.geometry.shape != geometry.shape else "E_MASK_AFFINE",
        )


def _canonical_header(geometry: Geometry) -> Any:
    """A header whose axes i, j, k are column, row, slice."""
    header = nib.Nifti1Header(endianness="<")
    affine = _RAS_FROM_LPS @ geometry.affine[:, [2, 1, 0, 3]]
    header.set_data_shape(geometry.shape[::-1])
    header.set_qform(affine, code=_SCANNER)
    header.set_sform(affine, code=_SCANNER)
    header["xyzt_units"] = _MILLIMETRES
    return header


def _header_like(model: Header) -> Any:
    """A fresh header with nothing of the model's but its shape and its place in space."""
    kind = nib.Nifti1Header if len(model.block) == 348 else nib.Nifti2Header
    order = "<" if model.block[:1] != b"\0" else ">"
    old = kind(model.block, order, check=False)
    header = kind(endianness="<")
    header.set_data_shape(model.shape)
    for name in _PLACE:
        header[name] = old[name]
    header["pixdim"][:4] = old["pixdim"][:4]
    return header
