"""Volumes and masks to NIfTI files: on exactly the grid of another file, without its words, read back before they count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import isal_zlib
from jaxtyping import Bool

from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import AnyMask, pack, unpack
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError, GeometryError, InputError
from lungshift.files import crc32, new_file, resource_errors, write_file
from lungshift.io.gzip import ByteStream
from lungshift.io.header import Header, Intake, read_header
from lungshift.io.nifti import read_volume
from lungshift.io.orientation import Layout, Oblique, layout_of, resample_back

_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MILLIMETRES, _SCANNER = 2, 1
_PLACE = (
    *("xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_ANY = Intake(require_hu=False, assume_spacing=True)
_GZIP, _PIECE = 31, 1 << 18
_LEVEL = 2
"""Of isal's levels the one with the smallest files; for a mask it takes a tenth of the time of level 3."""


def write_mask(mask: AnyMask, path: Path | str, like: Path | str | None = None, *, oblique: Oblique = "refuse") -> None:
    """Write a mask as 0 and 1 (uint8) to a ``.nii.gz`` or ``.nii`` file.

    Args:
        mask: What to write, in memory or packed.
        path: Where; an existing file is replaced only once the new one is whole.
        like: A NIfTI file, as a rule the scan, whose axis order, flips, qform and sform are taken; its description and
            extensions are not, for they may name the patient. Without it the canonical grid is written.
        oblique: Where ``like`` is oblique or sheared: ``refuse`` it; or, for a mask on the grid that ``oblique="resample"`` read
            it on, ``resample`` it back, so that each voxel of ``like`` has the value of the mask's voxel that is nearest to it.

    Raises:
        GeometryError: The mask is not on the grid of ``like``.
        ResourceError: The disk is full or the folder cannot be written; ``path`` is as it was.
    """
    with new_mask(path, mask.geometry, like, oblique=oblique) as writer:
        for index in writer.order:
            writer.write(index, mask.slice(index))


@contextmanager
def new_mask(
    path: Path | str, geometry: Geometry, like: Path | str | None = None, *, oblique: Oblique = "refuse"
) -> Iterator[MaskWriter]:
    """Write a mask slice by slice in constant memory; the file appears when the block ends without an error, and not before.

    It is read back and compared first. ``write_mask`` says what the file holds.

    Args:
        path: Where; an existing file is replaced only once the new one is whole.
        geometry: The mask's grid.
        like: As for ``write_mask``. Slices that come in another order than that of the file wait in memory, a bit a voxel.
        oblique: As for ``write_mask``.

    Raises:
        GeometryError: The mask is not on the grid of ``like``, or slices are missing in the end (``E_MASK_SLICES``).
        ResourceError: The disk is full or the folder cannot be written; ``path`` is as it was.
    """
    path = Path(path)
    model = None if like is None else read_header(Path(like), _ANY)
    header, layout = _header_and_layout(geometry, path, model, np.dtype(np.uint8), oblique)
    begin = header.binaryblock + bytes(4)
    writer = MaskWriter(path, layout, model)

    def same(temporary: Path) -> bool:
        return _checksum(temporary, len(begin)) == (begin, writer.checksum)

    with new_file(path, same) as temporary:
        with resource_errors(path):
            stream = _Stream(temporary)
        with stream:
            writer.begin(stream, begin)
            yield writer
            writer.finish()


class MaskWriter:
    """Takes the slices of one mask, each once; made by ``new_mask``."""

    def __init__(self, path: Path, layout: Layout, model: Header | None) -> None:
        self._path, self._layout, self._model = path, layout, model
        self._count = layout.geometry.shape[0]
        self._waiting: dict[int, bytes] = {}
        self._next = 0
        self.checksum = 0

    @property
    def order(self) -> range:
        """The slices in the order of the file, which need not wait for each other."""
        return range(self._count)[:: -1 if self._layout.flipped[0] else 1]

    def write(self, index: int, mask: Bool[np.ndarray, "row column"]) -> None:
        """Take one slice, counted from the foot.

        Raises:
            GeometryError: There is no such slice, it was written before, or it has another shape.
            AnnotationError: The array is not bool.
            ResourceError: The disk is full.
        """
        self._require(index, mask)
        place = self.order[index]
        if not self._layout.streams or place != self._next:
            self._waiting[place] = pack(mask)
            return
        self._put(self._layout.turn_plane_back(mask))
        self._next += 1
        while self._next in self._waiting:
            self._put(
                self._layout.turn_plane_back(unpack(self._waiting.pop(self._next), self._layout.geometry.shape[1:]))
            )
            self._next += 1

    def begin(self, stream: _Stream, header: bytes) -> None:
        """Start the file with its header."""
        self._stream = stream
        with resource_errors(self._path, stream.path):
            stream.write(header)

    def finish(self) -> None:
        """Write what waits, and refuse a mask with slices missing."""
        if missing := self._count - self._next - len(self._waiting):
            raise GeometryError(
                f"Cannot write {self._path}: {missing} of {self._count} slices of the mask never came.",
                code="E_MASK_SLICES",
            )
        if self._waiting:
            whole = np.empty(self._layout.geometry.shape, np.bool_)
            for place, index in enumerate(self.order):
                whole[index] = unpack(self._waiting.pop(place), whole.shape[1:])
            for plane in self._stored(whole):
                self._put(plane)
        with resource_errors(self._path, self._stream.path):
            self._stream.finish()

    def _stored(self, whole: np.ndarray) -> Iterable[np.ndarray]:
        """The planes of the file."""
        if self._model is not None and self._layout.resample:
            return resample_back(Mask(whole, self._layout.geometry), self._model)
        return self._layout.turn_back(whole)

    def _put(self, plane: np.ndarray) -> None:
        data = np.ascontiguousarray(plane).view(np.uint8).data.cast("B")
        self.checksum = crc32(data, self.checksum)
        with resource_errors(self._path, self._stream.path):
            self._stream.write(data)

    def _require(self, index: int, mask: np.ndarray) -> None:
        shape = self._layout.geometry.shape
        there = index in range(self._count)
        if not there or self.order[index] < self._next or self.order[index] in self._waiting:
            why = "was written before" if there else "is none of its slices"
            raise GeometryError(f"Slice {index} of {self._path}, which has {self._count}, {why}.", code="E_MASK_SLICES")
        if mask.shape != shape[1:]:
            raise GeometryError(
                f"Slice {index} of {self._path} should have {shape[1:]} rows and columns and has {mask.shape}.",
                code="E_MASK_SHAPE",
            )
        if mask.dtype != np.bool_:
            raise AnnotationError(f"A mask is bool; got {mask.dtype}. Say which labels belong to it.")


class _Stream:
    """A file that is written from front to back, deflated where its name ends in ``.gz``, without a time: equal masks give equal files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._deflate = isal_zlib.compressobj(_LEVEL, wbits=_GZIP) if path.name.endswith(".gz") else None

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the bytes are safe after ``finish``; without it they are thrown away
            self._file.close()

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        self._file.write(self._deflate.compress(data) if self._deflate else data)

    def finish(self) -> None:
        """Nothing follows."""
        if self._deflate:
            self._file.write(self._deflate.flush())
        self._file.flush()


def _checksum(path: Path, begin: int) -> tuple[bytes, int]:
    """The first bytes of a file and the CRC-32 of the others, inflated and checked to the end."""
    with ByteStream(path, strict=True) as stream:
        first, checksum = stream.take(begin), 0
        while piece := stream.take_up_to(_PIECE):
            checksum = crc32(piece, checksum)
        stream.finish()
    return first, checksum


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
    model = None if like is None else read_header(Path(like), _ANY)
    header, layout = _header_and_layout(geometry, path, model, array.dtype)
    stored = np.ascontiguousarray(layout.turn_back(array), array.dtype.newbyteorder("<"))

    def write(temporary: Path) -> None:
        with _Stream(temporary) as stream:
            stream.write(header.binaryblock + bytes(4))
            for plane in stored:
                stream.write(plane.data.cast("B"))
            stream.finish()

    write_file(path, write, same)


def _header_and_layout(
    geometry: Geometry, path: Path, model: Header | None, dtype: np.dtype, oblique: Oblique = "refuse"
) -> tuple[Any, Layout]:
    """The header of the file to write, and how its voxels lie."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"A NIfTI file is named .nii or .nii.gz; got {path}.", code="E_SUFFIX")
    if model is None:
        header, layout = _canonical_header(geometry), Layout((2, 1, 0), (False, False, False), geometry)
    else:
        layout = layout_of(model, oblique)
        _require_on(layout, geometry, path, model)
        header = _header_like(model)
    header.set_data_dtype(dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = len(header.binaryblock) + 4
    return header, layout


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
