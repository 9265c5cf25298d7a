"""The header of a NIfTI file, judged by arithmetic before anything is allocated or inflated.

Field definitions and the quaternion are nibabel's; what is accepted is decided here, for nibabel repairs silently.
Source of the rules: the NIfTI-1 and NIfTI-2 headers, https://nifti.nimh.nih.gov/.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float64
from nibabel.spatialimages import HeaderDataError

from lungshift.errors import FileFormatError, GeometryError
from lungshift.io.gzip import ByteStream, describe_bytes, require_room

_LOG = logging.getLogger("lungshift")
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_OFFSET = 16 << 20
_MOST_MM = 1e9
"""More than any step from voxel to voxel, in whatever unit."""
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT = {1: "metres", 3: "micrometres"}
"""Units that are worth a word; files that state none mean millimetres."""
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOUR, _COMPLEX = (128, 2304), (32, 1792, 2048)


@dataclass(frozen=True)
class Intake:
    """How strictly scans are taken in.

    Attributes:
        oblique: A grid that is turned or sheared against the patient: ``refuse`` it, or ``resample`` to the patient's axes.
        nan: Voxels that are NaN or infinite: ``refuse`` them, or the HU to put in their place.
        require_hu: Refuse scans whose range of values is not that of Hounsfield units.
        max_voxels: Largest scan that is read.
        strict: Refuse what otherwise is only warned about: bytes after the gzip stream.
        assume_spacing: Read a file that says nothing of orientation by its voxel size alone; left and right are then a guess.
        allow_mirrored: Keep masks that would fit much better when mirrored (a single, airless lung can look like that).
    """

    oblique: Literal["refuse", "resample"] = "refuse"
    nan: Literal["refuse"] | float = "refuse"
    require_hu: bool = True
    max_voxels: int = 2**30
    strict: bool = False
    assume_spacing: bool = False
    allow_mirrored: bool = False


DEFAULT_INTAKE = Intake()


@dataclass(frozen=True, eq=False)
class Header:
    """What a NIfTI file says of itself.

    Attributes:
        path: The file.
        shape: Voxels along the file's axes i, j, k; i changes fastest.
        dtype: Of the stored values, with their byte order.
        offset: Bytes before the first voxel.
        slope: HU per stored unit; 1 where the file says none (0 or NaN).
        inter: HU of the stored 0.
        affine: (i, j, k, 1) to LPS millimetres.
        block: The header's bytes.
        notes: What was taken with a warning.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    affine: Float64[np.ndarray, "4 4"]
    block: bytes
    notes: tuple[str, ...] = ()

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane of constant k."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def scaled(self) -> bool:
        """Whether stored values are not yet the true ones."""
        return (self.slope, self.inter) != (1.0, 0.0)


def read_header(path: Path, intake: Intake = DEFAULT_INTAKE) -> Header:
    """Read and judge a file's header; nothing past it is inflated.

    Raises:
        FileFormatError: Not a NIfTI file, or one whose size, type or shape is not a scan's.
        GeometryError: ``E_AFFINE`` or ``E_NO_ORIENTATION``.
    """
    with ByteStream(path) as stream:
        block = stream.take_up_to(348)
        if block[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
            block += stream.take_up_to(540 - 348)
    raw = _parse(path, block)
    dtype = _dtype(path, raw)
    shape = _shape(path, raw, intake.max_voxels)
    offset = _offset(path, raw, len(block) + 4)
    require_room(path, offset + math.prod(shape) * dtype.itemsize)
    affine, notes = _affine(path, raw, shape, intake)
    for note in notes:
        _LOG.warning("%s: %s", path, note)
    slope, inter = _scale(path, raw)
    return Header(path, shape, dtype, offset, slope, inter, affine, block, tuple(notes))


def _parse(path: Path, block: bytes) -> Any:
    """As a header object of nibabel's, of the right version and byte order, unrepaired."""
    kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    for order, endianness in (("little", "<"), ("big", ">")):
        size = int.from_bytes(block[:4], order)  # type: ignore[arg-type]
        if size in kinds and len(block) == size:
            magic = block[4:8] if size == 540 else block[344:348]
            _require_magic(path, magic)
            return kinds[size](block, endianness, check=False)
    raise FileFormatError(
        f"{path} is not a NIfTI file: it is {describe_bytes(block)}. Convert the scan, or download it again.",
        code="E_NOT_NIFTI",
    )


def _require_magic(path: Path, magic: bytes) -> None:
    if magic[:3] in (b"n+1", b"n+2"):
        return
    if magic[:3] in (b"ni1", b"ni2"):
        raise FileFormatError(
            f"{path} is the header of a .hdr/.img pair; convert the pair to one .nii.gz file.", code="E_NOT_NIFTI"
        )
    raise FileFormatError(
        f"{path} is an Analyze 7.5 file, which does not say left from right; convert the original DICOM series instead.",
        code="E_ANALYZE",
    )


def _dtype(path: Path, raw: Any) -> np.dtype:
    code = int(raw["datatype"])
    if code in _TYPES:
        return np.dtype(_TYPES[code]).newbyteorder(raw.endianness)
    hints = {
        **dict.fromkeys(_COLOUR, ("E_RGB", "colours, so it is a picture of a scan, not a scan")),
        **dict.fromkeys(_COMPLEX, ("E_COMPLEX", "complex numbers, which no CT has")),
    }
    reason, words = hints.get(code, ("E_DTYPE", f"values of the unsupported NIfTI type {code}"))
    raise FileFormatError(
        f"{path} holds {words}. A CT scan has one whole or floating-point number per voxel.", code=reason
    )


def _shape(path: Path, raw: Any, max_voxels: int) -> tuple[int, int, int]:
    dim = [int(n) for n in raw["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise FileFormatError(f"{path} declares impossible dimensions {dim}.", code="E_DIM")
    if dim[0] < 3:
        raise FileFormatError(
            f"{path} is a flat picture of {dim[1 : dim[0] + 1]} voxels; a scan has slices, rows and columns.",
            code="E_2D",
        )
    if max(dim[4 : dim[0] + 1], default=1) > 1:
        raise FileFormatError(
            f"{path} has {math.prod(dim[4 : dim[0] + 1])} frames ({dim[1 : dim[0] + 1]}); extract the one to use.",
            code="E_4D",
        )
    voxels = math.prod(dim[1:4])
    if voxels > max_voxels:
        raise FileFormatError(
            f"{path} declares {voxels} voxels ({dim[1:4]}), more than the limit of {max_voxels}; raise max_voxels if that is right.",
            code="E_TOO_LARGE",
        )
    return dim[1], dim[2], dim[3]


def _offset(path: Path, raw: Any, least: int) -> int:
    stored = float(raw["vox_offset"])
    offset = stored or float(least)
    if not least <= offset <= _MAX_OFFSET or offset != int(offset):
        raise FileFormatError(
            f"{path} says that its voxels start at byte {stored}; {least} to {_MAX_OFFSET} is possible.",
            code="E_OFFSET",
        )
    return int(offset)


def _scale(path: Path, raw: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means unscaled, as the standard has it."""
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(inter):
        raise FileFormatError(f"{path} has slope {slope} but intercept {inter}.", code="E_SCALE")
    return slope, inter


def _affine(path: Path, raw: Any, shape: tuple[int, ...], intake: Intake) -> tuple[np.ndarray, list[str]]:
    """The LPS affine in mm, and what was wrong with it but could be settled."""
    unit = int(raw["xyzt_units"]) & 7
    notes = _notes_on_units(raw, unit)
    if min(int(raw["sform_code"]), int(raw["qform_code"])) < 0:
        raise GeometryError(
            f"{path} says that its sform and qform are of the kinds {int(raw['sform_code'])} and {int(raw['qform_code'])}, "
            "which no file has: its header is damaged. Convert the scan again.",
            code="E_AFFINE",
        )
    sform = _sform(raw)
    qform, qform_note = _qform(raw)
    if qform_note and sform is None:
        raise GeometryError(f"{path}: {qform_note}, and there is no sform to go by.", code="E_AFFINE")
    notes += [qform_note + "; the sform was used"] if qform_note else []
    chosen = sform if sform is not None else qform
    if chosen is None:
        chosen = _by_spacing(path, raw, intake)
        notes.append("orientation is not stored: left and right were guessed from the voxel order")
    _require_invertible(path, chosen)
    if sform is not None and qform is not None and (off := _apart_mm(sform, qform, shape)) > 1e-3:
        notes.append(f"sform and qform are up to {off:.3g} mm apart; the sform was used")
    affine = _LPS_FROM_RAS @ chosen
    affine[:3] *= _MM.get(unit, 1.0)
    return affine, notes


def _notes_on_units(raw: Any, unit: int) -> list[str]:
    """What is odd about the unit of length and the bits of a voxel; both are read by what says more."""
    notes = [f"sizes are given in {_UNIT[unit]}"] if unit in _UNIT else []
    if unit not in _MM:
        notes.append(f"sizes are given in an unknown unit ({unit}), and were taken for millimetres")
    bits = 8 * np.dtype(_TYPES[int(raw["datatype"])]).itemsize
    if int(raw["bitpix"]) not in (0, bits):
        notes.append(f"a voxel is said to have {int(raw['bitpix'])} bits, and its type has {bits}; the type was used")
    return notes


def _sform(raw: Any) -> np.ndarray | None:
    matrix: np.ndarray | None = raw.get_sform(coded=True)[0]
    return matrix


def _qform(raw: Any) -> tuple[np.ndarray | None, str]:
    """The matrix of the quaternion, or in words why there is none though the header claims one."""
    sizes = raw["pixdim"][1:4]
    bad = not (np.isfinite(sizes).all() and (sizes > 0).all())
    if int(raw["qform_code"]) <= 0:
        return None, f"voxel sizes {sizes.tolist()} are impossible" if bad else ""
    if bad:
        return None, f"voxel sizes {sizes.tolist()} are impossible"
    copy = raw.copy()
    copy["pixdim"][0] = -1.0 if raw["pixdim"][0] < 0 else 1.0
    try:
        qform = copy.get_qform(coded=True)[0]
    except (ValueError, HeaderDataError):
        return None, "the qform quaternion is impossible"
    return (qform, "") if np.isfinite(qform).all() else (None, "the qform is not finite")


def _by_spacing(path: Path, raw: Any, intake: Intake) -> np.ndarray:
    if not intake.assume_spacing:
        raise GeometryError(
            f"{path} stores neither sform nor qform, so left and right are unknown. "
            "Convert the original DICOM series, or say assume_spacing to guess.",
            code="E_NO_ORIENTATION",
        )
    return np.diag([*(float(size) for size in raw["pixdim"][1:4]), 1.0])


def _require_invertible(path: Path, affine: np.ndarray) -> None:
    if not np.isfinite(affine).all():
        raise GeometryError(f"{path} has an affine that is not finite: {affine[:3].tolist()}.", code="E_AFFINE")
    if np.abs(affine[:3, :3]).max() > _MOST_MM:
        raise GeometryError(
            f"{path} has an affine whose voxels are kilometres apart: {affine[:3].tolist()}.", code="E_AFFINE"
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (lengths > 0).all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise GeometryError(f"{path} has a singular affine: {affine[:3].tolist()}.", code="E_AFFINE")


def _apart_mm(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    return float(np.abs((one - other) @ corners).max())
