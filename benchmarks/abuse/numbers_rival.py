"""Other people's answers, in an environment of its own with SimpleITK, surface-distance, nibabel and highdicom; nothing of lungshift.

RIVAL_PYTHON benchmarks/abuse/numbers_rival.py metrics PAIRS.npz ANSWERS.json
RIVAL_PYTHON benchmarks/abuse/numbers_rival.py grids FOLDER ANSWERS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def main() -> None:
    """Answer what is asked."""
    what, given, told = sys.argv[1:]
    answers = {"metrics": _metrics, "grids": _grids}[what](Path(given))
    Path(told).write_text(json.dumps(answers))


def _metrics(file: Path) -> list[dict[str, float]]:
    """Dice, surface Dice, HD95 and ASSD of every pair of masks; what a library does not define is NaN."""
    with np.load(file) as pairs:
        return [
            _SimpleItk(pairs[f"a{n}"], pairs[f"b{n}"], pairs["spacing_mm"][n]).answers()
            | _google(pairs[f"a{n}"], pairs[f"b{n}"], pairs["spacing_mm"][n], pairs["tolerance_mm"][n])
            for n in range(len(pairs["tolerance_mm"]))
        ]


class _SimpleItk:
    """Dice by its overlap filter; distances between the centres of surface voxels by its contour filter and distance map."""

    def __init__(self, a: np.ndarray, b: np.ndarray, spacing_mm: np.ndarray) -> None:
        import SimpleITK as sitk  # noqa: N813

        self._sitk, self._filled = sitk, bool(a.any() and b.any())
        self._images = []
        for mask in (a, b):
            image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))  # a surface at the edge of the scan is one
            image.SetSpacing([float(mm) for mm in spacing_mm[::-1]])
            self._images.append(image)

    def answers(self) -> dict[str, float]:
        return {"sitk_dice": self._dice(), "sitk_hd95": self._hd95()}

    def _dice(self) -> float:
        overlap = self._sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(*self._images)
        return float(overlap.GetDiceCoefficient())

    def _hd95(self) -> float:
        if not self._filled:
            return float("nan")
        contours = [self._sitk.LabelContour(image, False) for image in self._images]
        maps = [
            np.abs(
                self._sitk.GetArrayViewFromImage(
                    self._sitk.SignedMaurerDistanceMap(contour, squaredDistance=False, useImageSpacing=True)
                )
            )
            for contour in contours
        ]
        surfaces = [self._sitk.GetArrayViewFromImage(contour) > 0 for contour in contours]
        return float(max(np.percentile(maps[1][surfaces[0]], 95), np.percentile(maps[0][surfaces[1]], 95)))


def _google(a: np.ndarray, b: np.ndarray, spacing_mm: np.ndarray, tolerance_mm: float) -> dict[str, float]:
    import surface_distance

    if not a.any() and not b.any():
        return dict.fromkeys(("google_nsd", "google_hd95", "google_assd"), float("nan"))
    found = surface_distance.compute_surface_distances(a, b, [float(mm) for mm in spacing_mm])
    return {
        "google_nsd": float(surface_distance.compute_surface_dice_at_tolerance(found, float(tolerance_mm))),
        "google_hd95": float(surface_distance.compute_robust_hausdorff(found, 95)),
        "google_assd": float(np.mean(surface_distance.compute_average_surface_distance(found))),
    }


def _grids(folder: Path) -> list[dict[str, Any]]:
    """How every predicted mask lies, against the truth that was planted beside it."""
    return [_grid(case) for case in sorted(folder.iterdir()) if (case / "truth.npz").is_file()]


def _grid(case: Path) -> dict[str, Any]:
    with np.load(case / "truth.npz") as given:
        truth = dict(given)
    seg = case / "out" / "lesion.dcm"
    answers: dict[str, Any] = {"name": case.name}
    for name in ("lesion", "lung"):
        answers |= _nifti(case, name, truth)
        if seg.is_file():
            answers |= _highdicom(seg, name, truth)
    return answers


def _nifti(case: Path, name: str, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    import nibabel as nib
    import SimpleITK as sitk  # noqa: N813

    file = case / "out" / f"{name}.nii.gz"
    mask = nib.load(file)
    voxels = np.asarray(mask.dataobj)
    off_mm, wrong = _compare(voxels, _LPS_FROM_RAS @ mask.affine, truth, name)
    answers = {f"{name}_nibabel_off_mm": off_mm, f"{name}_nibabel_wrong": wrong}
    if (scan_file := case / "scan.nii.gz").is_file():
        scan = nib.load(scan_file)
        answers[f"{name}_scan_off_mm"] = (
            _apart_mm(scan.affine, mask.affine, mask.shape) if scan.shape == mask.shape else float("inf")
        )
    image = sitk.ReadImage(str(file))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    off_mm, wrong = _compare(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine, truth, name)
    return answers | {f"{name}_sitk_off_mm": off_mm, f"{name}_sitk_wrong": wrong}


def _highdicom(file: Path, name: str, truth: dict[str, np.ndarray]) -> dict[str, Any]:
    import highdicom as hd

    seg = hd.seg.segread(file)
    labels = {"lesion": ("ground-glass opacity", "consolidation"), "lung": ("lung",)}[name]
    numbers = [n for n in seg.segment_numbers if seg.get_segment_description(n).segment_label in labels]
    volume = seg.get_volume(segment_numbers=numbers, combine_segments=False)
    voxels = np.asarray(volume.array).any(axis=-1)
    off_mm, wrong = _compare(voxels, np.asarray(volume.affine), truth, name)
    return {f"{name}_seg_off_mm": off_mm, f"{name}_seg_wrong": wrong}


def _compare(
    voxels: np.ndarray, affine: np.ndarray, truth: dict[str, np.ndarray], name: str
) -> tuple[float, dict[str, int]]:
    """How far the grid lies off the planted one, and voxels that are not what the truth says at their place.

    A grid that shows a part of the scan is compared with that part; what it leaves out counts as background.
    """
    inside = np.linalg.inv(truth["affine"]) @ affine
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in voxels.shape], [1])).reshape(4, -1)
    places = inside @ corners
    off_mm = float(np.abs(truth["affine"][:3, :3] @ (places - np.rint(places))[:3]).max())
    on = np.argwhere(voxels > 0)
    here = np.rint(on @ inside[:3, :3].T + inside[:3, 3]).astype(int)
    expected = truth[name].astype(bool)
    found = np.zeros_like(expected)
    beyond = ~((here >= 0) & (here < expected.shape)).all(axis=1)
    found[tuple(here[~beyond].T)] = True
    world = here @ truth["affine"][:3, :3].T + truth["affine"][:3, 3]
    return off_mm, {
        "voxels": int(np.count_nonzero(expected)),
        "different": int(np.count_nonzero(found != expected) + np.count_nonzero(beyond)),
        "right_of_midline": int(np.count_nonzero(world[:, 0] < truth["midline_mm"])),
    }


def _apart_mm(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1])).reshape(4, -1)
    return float(np.abs((one - other) @ corners).max())


if __name__ == "__main__":
    main()
