"""A chest that ends inside its scan, on disk in every form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from chests import AIR, LUNG, TISSUE, chest
from lungshift.ct.case import Case
from lungshift.ct.volume import Mask, Volume
from lungshift.io.writing import write_mask, write_volume
from series import turned, write_ct

SLICES = 16


def whole_chest(seed: int = 0, *, lesion: bool = True) -> Case:
    """``chests.chest`` with a tissue slice at both ends and wider air around, so that the lungs end inside; with or without lesion."""
    case = chest(seed, slices=SLICES, slice_mm=10.0)
    assert case.lung is not None
    assert case.lesion is not None
    hu, lung, marked = case.volume.hu.copy(), case.lung.voxels.copy(), case.lesion.voxels.copy()
    if not lesion:
        hu[marked] = LUNG
        marked[:] = False
    for end in (0, 1, -2, -1):
        hu[end][lung[end]] = TISSUE
        lung[end] = marked[end] = False
    hu[:, :, :2] = hu[:, :2] = AIR
    geometry = case.volume.geometry
    return Case(Volume(hu, geometry), Mask(lung, geometry), Mask(marked, geometry), case.case_id)


def as_nifti(folder: Path, name: str, case: Case) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(case.volume, folder / name)
    return folder / name


def turned_by(degrees: float, axis: int) -> np.ndarray:
    """A turn about one of the patient's axes (L, P, S), 4 x 4."""
    one, other = (a for a in range(3) if a != axis)
    angle, turn = np.radians(degrees), np.eye(4)
    turn[[one, other], [one, other]] = np.cos(angle)
    turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
    return turn


def as_turned_nifti(path: Path, case: Case, turn: np.ndarray, *, array: np.ndarray | None = None) -> Path:
    """The voxels of a case, or an array on its grid, stored as they are, with an affine by which the patient is turned or sheared."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ turn @ case.volume.geometry.affine[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image((case.volume.hu if array is None else array).transpose(2, 1, 0), affine)
    image.set_sform(affine, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def as_series(folder: Path, case: Case, *, turn: np.ndarray | None = None, **how) -> Path:
    affine = turned(case.volume.geometry)
    return write_ct(folder, case.volume.hu, affine if turn is None else turn @ affine, **how)


def lung_file(path: Path, case: Case) -> Path:
    assert case.lung is not None
    write_mask(case.lung, path)
    return path


def shifted(case: Case, mm: float) -> Case:
    """The same voxels elsewhere in the patient."""
    affine = case.volume.geometry.affine.copy()
    affine[0, 3] += mm
    geometry = replace(case.volume.geometry, affine=affine)
    assert case.lung is not None
    return Case(Volume(case.volume.hu, geometry), Mask(case.lung.voxels, geometry))
