"""What lungshift makes of one damaged NIfTI file, judged by what the file's bytes declare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.abuse.nifti_files import DamagedFile
from benchmarks.abuse.oracle import Declared, NothingDeclaredError, Stream, declared_volume, inflated
from lungshift.ct.geometry import Geometry
from lungshift.errors import LungshiftError
from lungshift.io.header import Intake
from lungshift.io.nifti import NiftiSource, read_mask, read_volume

MASK_GRID = Geometry.regular((5, 6, 7), (2.5, 0.8, 0.7))
"""Where the sound masks lie."""
_MOST = 8 << 20
_MM = 1e-3


def try_header(file: DamagedFile, path: Path, number: int) -> tuple[str, str]:
    """The verdict on a file with a damaged header, and words."""
    if file.mask:
        return _judged(lambda: _same_mask(read_mask(path, MASK_GRID).voxels, file.truth or b""))
    intake = Intake(require_hu=number % 2 == 0)
    return _both_ways(path, intake, file.truth or b"")


def try_stream(file: DamagedFile, path: Path, number: int) -> tuple[str, str]:
    """The verdict on a damaged gzip stream, and words."""
    strict = number % 5 == 0
    stream = _what_it_holds(file)
    verdict, words = _both_ways(path, Intake(strict=strict), stream.data)
    if verdict == "accepted" and not stream.sound:
        return "wrong", "accepted though a member is damaged"
    if verdict == "accepted" and strict and stream.trailing:
        return "wrong", "strict, and accepted with bytes after the stream"
    if verdict == "refused" and words != "E_TRAILING" and stream.sound and _fits(stream.data):
        return "refused though sound", words
    return verdict, words


def _what_it_holds(file: DamagedFile) -> Stream:
    if file.truth == b"":
        return Stream(b"", sound=False, trailing=b"")
    return inflated(file.data, _MOST) if file.truth is None else Stream(file.truth, sound=True, trailing=b"")


def _fits(data: bytes) -> bool:
    """Whether the bytes are one whole volume and nothing else."""
    try:
        declared = declared_volume(data)
    except NothingDeclaredError:
        return False
    return len(data) == 352 + declared.values.size * 2


def _judged(read: Callable[[], str]) -> tuple[str, str]:
    try:
        difference = read()
    except LungshiftError as error:
        return ("refused", error.code) if error.exit_code == 1 else ("resources", error.code)
    except MemoryError:
        return "untyped", "MemoryError"
    except Exception as error:  # that is what is looked for
        return "untyped", f"{type(error).__name__}: {error}"[:200]
    return ("wrong", difference) if difference else ("accepted", "")


def _both_ways(path: Path, intake: Intake, truth: bytes) -> tuple[str, str]:
    """Read it whole and slice by slice: both must give the declared volume, or one reason."""
    whole = _judged(lambda: _same_volume(path, intake, truth))
    streamed = _judged(lambda: _same_slices(path, intake, truth))
    if "untyped" in (whole[0], streamed[0]) or "wrong" in (whole[0], streamed[0]):
        return max(whole, streamed, key=lambda one: one[0] in ("untyped", "wrong"))
    if whole != streamed:
        return "two answers", f"whole {' '.join(whole)}, streamed {' '.join(streamed)}"
    if whole[1] in ("E_OBLIQUE", "E_SHEARED"):
        resampled = _judged(lambda: _same_resampled(path, intake, truth))
        return resampled if resampled[0] != "accepted" else ("resampled", whole[1])
    return whole


def _same_volume(path: Path, intake: Intake, truth: bytes) -> str:
    volume = read_volume(path, require_hu=intake.require_hu, strict=intake.strict)
    return difference(volume.hu, volume.geometry, truth)


def _same_slices(path: Path, intake: Intake, truth: bytes) -> str:
    source = NiftiSource(path, intake=intake)
    hu = np.empty(source.geometry.shape)
    seen = []
    for part in source.slices():
        hu[part.index] = part.hu
        seen.append(part.index)
    if sorted(seen) != list(range(len(hu))):
        return "slices missing or doubled"
    return difference(hu, source.geometry, truth)


def difference(hu: np.ndarray, geometry: Geometry, truth: bytes) -> str:
    """In words, where a volume that was accepted is not the declared one; nothing if it is."""
    try:
        declared = declared_volume(truth)
    except NothingDeclaredError:
        return "accepted, and nothing is declared"
    if hu.size != declared.values.size:
        return f"{hu.size} voxels for {declared.values.size}"
    indices = np.indices(geometry.shape).reshape(3, -1).T
    values, off_mm = _values_at(geometry.world_mm(indices), declared)
    if not off_mm <= _MM:
        return f"voxels {off_mm:.3g} mm from where they are declared"
    off = np.abs(hu.reshape(-1) - values) - _rounding(declared, values)
    return "" if off.max() <= 0 else f"HU off by {off.max():.3g}"


def _values_at(world_mm: np.ndarray, declared: Declared) -> tuple[np.ndarray, float]:
    """The declared values at the voxels nearest to some points, and how far the points are from these."""
    inverse = np.linalg.inv(declared.affine)
    last = np.array(declared.values.shape[::-1]) - 1
    index = np.rint(world_mm @ inverse[:3, :3].T + inverse[:3, 3]).clip(0, last).astype(int)
    there = index @ declared.affine[:3, :3].T + declared.affine[:3, 3]
    k, j, i = index.T[::-1]
    return declared.values[k, j, i], float(np.abs(there - world_mm).max() / max(1.0, np.abs(there).max() * 1e-7))


def _rounding(declared: Declared, values: np.ndarray) -> np.ndarray | float:
    return 0.5 + 1e-3 if declared.whole else 1e-5 + np.abs(values) * 1e-6


def _same_mask(voxels: np.ndarray, truth: bytes) -> str:
    declared = declared_volume(truth)
    indices = np.indices(MASK_GRID.shape).reshape(3, -1).T
    values, off_mm = _values_at(MASK_GRID.world_mm(indices), declared)
    if off_mm > 2 * _MM:
        return f"mask voxels {off_mm:.3g} mm from where they are declared"
    if not set(np.unique(declared.values).tolist()) <= {0, 1}:
        return "labels that were not declared"
    return "" if np.array_equal(voxels.reshape(-1), values == 1) else "another mask"


def _same_resampled(path: Path, intake: Intake, truth: bytes) -> str:
    """Inside the declared grid a resampled volume has the values that lie between the declared ones."""
    from scipy.ndimage import map_coordinates

    volume = read_volume(path, require_hu=intake.require_hu, oblique="resample")
    declared = declared_volume(truth)
    inverse = np.linalg.inv(declared.affine)
    world = volume.geometry.world_mm(np.indices(volume.geometry.shape).reshape(3, -1).T)
    index = (world @ inverse[:3, :3].T + inverse[:3, 3]).T[::-1]
    inside = ((index >= 0) & (index <= np.array(declared.values.shape)[:, None] - 1)).all(axis=0)
    if not inside.any():
        return ""
    expected = map_coordinates(declared.values.astype(float), index[:, inside], order=1)
    off = np.abs(volume.hu.reshape(-1)[inside] - expected) - np.abs(expected) * 1e-5
    steep = float(np.ptp(declared.values.astype(float))) * 1e-3
    return "" if off.max() <= 1 + steep else f"resampled HU off by {off.max():.3g}"
