"""One patient's lungs of two dates laid on each other: affine on the lung masks, then diffeomorphic demons inside the lungs.

Demons with the symmetric forces and the exponential update of Vercauteren, Pennec, Perchant and Ayache (Diffeomorphic demons: efficient
non-parametric image registration, NeuroImage 45, 2009), as SimpleITK has them, on one cubic grid in the patient. What they see is how
dense the lungs are against their own median, one value everywhere outside the lungs, and the median wherever either date has lesion:
so vessels and the pleura pull, and a lesion that grows or goes does not. Every result is checked before it is handed out: overlap of the lungs,
distance of their surfaces, folds, and whether the vessels inside agree. One that fails is an error, never a result.

SimpleITK stays in this module, in memory: it reads and writes no file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import CohortError, GeometryError, RegistrationError

GRID_MM = 3.0
"""Distance of the points of the cubic grid that registration works on."""
LEAST_DICE, MOST_SURFACE_MM = 0.90, 5.0
"""A registration is used if the lungs overlap by this after it, and their surfaces lie no farther apart on average."""
SAME_LUNGS = 0.20
"""From this likeness of the insides of the lungs on they are one patient's; see ``docs/follow-up.md`` for what was measured."""
LEAST_TEXTURE_ML = 300.0
"""With less lung free of lesion on both dates, whose lungs they are is not told by content."""

_MARGIN_MM = 24.0
_AFFINE_BLUR_MM, _AFFINE_STEPS, _AFFINE_SHARE = 5.0, 150, 0.2
_LEVELS = ((4, 60), (2, 40), (1, 20))
_STIFFNESS = 2.0
_DARKEST, _BRIGHTEST, _OUTSIDE = -0.2, 0.6, 1.0
_AROUND_LESION_MM = 6.0
_TEXTURE_EDGE_MM, _TEXTURE_NEAR_MM = 6.0, 9.0
_CUT = 0.3


@dataclass(frozen=True)
class Quality:
    """How well two dates lie on each other; lengths in mm.

    Attributes:
        dice_before: Dice of the two lung masks as the scanner placed them.
        dice_affine: After the affine part.
        dice: After everything.
        surface_mm: Mean distance between the lungs' surfaces after registration, both ways.
        surface_95_mm: 95 % of the surface is nearer than this.
        jacobian_low, jacobian_high: Smallest and largest local change of volume anywhere on the grid; at most 0 would be a fold.
        expansion: Volume of the lungs on the later date over the earlier, by the deformation.
        volume_ratio: The same by the lung masks.
        moved_mm: Median way of the lungs' voxels.
        likeness: Correlation of vessels inside the lungs, away from lesions; NaN where too little lung is free of them.
    """

    dice_before: float
    dice_affine: float
    dice: float
    surface_mm: float
    surface_95_mm: float
    jacobian_low: float
    jacobian_high: float
    expansion: float
    volume_ratio: float
    moved_mm: float
    likeness: float


@dataclass(frozen=True, eq=False)
class Registration:
    """A smooth map from every place of the earlier scan to the place of the same tissue in the later one.

    Attributes:
        earlier, later: Grids of the two scans.
        grid: The cubic grid on which the map is known.
        map_mm: LPS millimetres in the later scan of each point of ``grid``.
        expansion: Local volume on the later date over the earlier (the Jacobian's determinant), on ``grid``.
        quality: What was checked.
        notes: What a reader should know, in words.
    """

    earlier: Geometry
    later: Geometry
    grid: Geometry
    map_mm: Float32[np.ndarray, "slice row column 3"]
    expansion: Float32[np.ndarray, "slice row column"]
    quality: Quality
    notes: tuple[str, ...] = ()

    def later_mm(self, points_mm: np.ndarray) -> Float64[np.ndarray, "*n 3"]:
        """Where the tissue at (…, 3) LPS points of the earlier scan lies in the later; beyond the grid it moves as its edge."""
        points = np.asarray(points_mm, dtype=np.float64)
        flat = points.reshape(-1, 3)
        inside = np.clip(_indices(flat, self.grid), 0, np.array(self.grid.shape) - 1)
        moved = np.stack(
            [ndimage.map_coordinates(self.map_mm[..., k], inside.T, order=1, output=np.float64) for k in range(3)],
            axis=-1,
        )
        return np.asarray((moved + flat - self.grid.world_mm(inside)).reshape(points.shape))

    def expansion_at(self, points_mm: np.ndarray) -> Float64[np.ndarray, "*n"]:
        """Local volume on the later date over the earlier at points of the earlier scan."""
        places = np.moveaxis(_indices(np.asarray(points_mm, dtype=np.float64), self.grid), -1, 0)
        return np.asarray(ndimage.map_coordinates(self.expansion, places, order=1, mode="nearest", output=np.float64))

    def onto_earlier(self, values: np.ndarray, *, outside: float, linear: bool = True) -> np.ndarray:
        """An array of the later scan on the grid of the earlier.

        Args:
            values: On the grid of the later scan.
            outside: Where the later scan has nothing.
            linear: Between the voxels; labels and masks take the nearest.
        """
        import SimpleITK

        kind = values.dtype
        image = _image(values.astype(np.uint8) if kind == np.bool_ else values, self.later)
        moved = SimpleITK.Resample(
            image,
            _blank(self.earlier),
            _as_transform(self.map_mm, self.grid),
            SimpleITK.sitkLinear if linear else SimpleITK.sitkNearestNeighbor,
            float(outside),
            image.GetPixelID(),
        )
        return np.asarray(SimpleITK.GetArrayFromImage(moved).astype(kind))


def register_lungs(earlier: Case, later: Case, progress: Callable[[str], None] = lambda _: None) -> Registration:
    """Lay the lungs of a later scan on those of an earlier one.

    Args:
        earlier: With a lung mask; lesions are kept from pulling where they are known.
        later: The same.
        progress: Told what is being done.

    Raises:
        GeometryError: A scan has no lung mask, or an empty one (``E_NO_LUNG``).
        RegistrationError: The lungs do not lie on each other (``E_REGISTRATION``), or the map folds (``E_FOLDED``).
        CohortError: They do, but the vessels inside do not agree: these are two patients' lungs (``E_TWO_PATIENTS``).
    """
    for case in (earlier, later):
        _require_lung(case)
    notes = tuple(note for case in (earlier, later) for note in _cut_off(case))
    grid = _cubic(earlier)
    progress("aligning the lungs")
    affine = _align(earlier, later)
    progress("laying the lungs on each other")
    map_mm = _deform(earlier, later, grid, affine)
    expansion = _determinant(map_mm, grid)
    quality = _check(earlier, later, grid, affine, map_mm, expansion)
    _require_good(earlier, later, quality)
    return Registration(earlier.volume.geometry, later.volume.geometry, grid, map_mm, expansion, quality, notes)


def _require_lung(case: Case) -> Mask:
    if case.lung is None or not case.lung.voxels.any():
        raise GeometryError(
            f"{case.case_id} has {'no' if case.lung is None else 'an empty'} lung mask; lungs are laid on lungs. Give one with --lung.",
            code="E_NO_LUNG",
        )
    return case.lung


def _cut_off(case: Case) -> list[str]:
    """Whether the scan ends in the middle of the lungs, above or below."""
    area = _require_lung(case).voxels.sum(axis=(1, 2))
    ends = [name for name, at in (("bottom", 0), ("top", -1)) if area[at] > _CUT * area.max()]
    if not ends:
        return []
    return [
        f"{case.case_id} cuts through the lungs at the {' and the '.join(ends)}: what lies beyond cannot be compared."
    ]


def _cubic(case: Case) -> Geometry:
    """A grid along the patient's axes around the lungs of a case."""
    low, high = lung_box_mm(_require_lung(case))
    low, high = low - _MARGIN_MM, high + _MARGIN_MM
    columns, rows, slices = (int(n) for n in np.ceil((high - low) / GRID_MM) + 1)
    x, y, z = (float(one) for one in low)
    return Geometry.regular((slices, rows, columns), (GRID_MM, GRID_MM, GRID_MM), (x, y, z))


def lung_box_mm(lung: Mask) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x, y, z of a lung mask's voxels, LPS mm."""
    corners = [
        np.flatnonzero(lung.voxels.any(axis=tuple(o for o in range(3) if o != axis)))[[0, -1]] for axis in range(3)
    ]
    world = lung.geometry.world_mm(np.array(np.meshgrid(*corners)).reshape(3, -1).T)
    return world.min(axis=0), world.max(axis=0)


def _align(earlier: Case, later: Case) -> Float64[np.ndarray, "4 4"]:
    """The affine map, earlier mm to later mm, that lays blurred lung masks on each other."""
    import SimpleITK

    fixed, moving = (_blurred_lung(case) for case in (earlier, later))
    start = SimpleITK.CenteredTransformInitializer(
        fixed, moving, SimpleITK.AffineTransform(3), SimpleITK.CenteredTransformInitializerFilter.MOMENTS
    )
    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums of several threads differ from run to run
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_AFFINE_SHARE, seed=1)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, _AFFINE_STEPS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    origin = np.array(start.TransformPoint((0.0, 0.0, 0.0)))
    axes = [np.array(start.TransformPoint(tuple(float(one) for one in unit))) - origin for unit in np.eye(3)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.stack(axes, axis=1), origin
    return affine


def _blurred_lung(case: Case) -> Any:
    """The lung mask on a coarse cubic grid, blurred."""
    import SimpleITK

    grid = _cubic(case)
    lung = _require_lung(case)
    share = _resample(lung.voxels.astype(np.float32), lung.geometry, grid, np.eye(4), 0.0)
    return SimpleITK.SmoothingRecursiveGaussian(SimpleITK.Shrink(_image(share, grid), [2, 2, 2]), _AFFINE_BLUR_MM)


def _deform(
    earlier: Case, later: Case, grid: Geometry, affine: np.ndarray
) -> Float32[np.ndarray, "slice row column 3"]:
    """The whole map on the grid: demons from coarse to fine after the affine part."""
    import SimpleITK

    fixed = _image(_density(earlier, grid, np.eye(4)), grid)
    moving = _image(_density(later, grid, affine), grid)
    field = None
    for shrink, steps in _LEVELS:
        one, other = (_coarser(image, shrink) for image in (fixed, moving))
        if field is None:
            start = SimpleITK.Image(one.GetSize(), SimpleITK.sitkVectorFloat64)
            start.CopyInformation(one)
        else:
            start = SimpleITK.Resample(field, one, SimpleITK.Transform(), SimpleITK.sitkLinear, 0.0)
        demons = SimpleITK.DiffeomorphicDemonsRegistrationFilter()
        demons.SetUseGradientType(demons.Symmetric)
        demons.SetStandardDeviations(_STIFFNESS)
        demons.SetNumberOfIterations(steps)
        field = demons.Execute(one, other, start)
    moved = _world(grid) + SimpleITK.GetArrayFromImage(field)
    return (moved @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


def _density(case: Case, grid: Geometry, affine: np.ndarray) -> Float32[np.ndarray, "slice row column"]:
    """0 where the lung is as dense as its median, 1 as dense as water, outside all one; lesions are filled with 0."""
    geometry, lung, lesion = case.volume.geometry, *_masks(case)
    median = float(np.median(case.volume.hu[lung & ~lesion])) if (lung & ~lesion).any() else -850.0
    level = ((case.volume.hu.astype(np.float32) - median) / (0 - median)).clip(_DARKEST, _BRIGHTEST)
    level[_around(lesion, geometry, _AROUND_LESION_MM)] = 0
    level[~lung] = _OUTSIDE
    blur = [0.5 * GRID_MM / mm / 1.2 for mm in geometry.spacing_mm]
    return _resample(ndimage.gaussian_filter(level, blur), geometry, grid, affine, _OUTSIDE)


def _masks(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Lung, and lesion or nothing."""
    lung = _require_lung(case).voxels
    return lung, np.zeros_like(lung) if case.lesion is None else case.lesion.voxels


def _around(mask: np.ndarray, geometry: Geometry, reach_mm: float) -> Bool[np.ndarray, "slice row column"]:
    """A mask widened by so many millimetres; computed in its box."""
    found = ndimage.find_objects(mask.view(np.uint8))
    wide = mask.copy()
    if found and found[0]:
        margin = [int(np.ceil(reach_mm / mm)) for mm in geometry.spacing_mm]
        box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(found[0], margin, strict=True))
        wide[box] = ndimage.distance_transform_edt(~mask[box], sampling=geometry.spacing_mm) <= reach_mm
    return wide


def _coarser(image: Any, shrink: int) -> Any:
    import SimpleITK

    if shrink == 1:
        return image
    return SimpleITK.Shrink(SimpleITK.SmoothingRecursiveGaussian(image, 0.5 * shrink * GRID_MM), [shrink] * 3)


def _determinant(map_mm: np.ndarray, grid: Geometry) -> Float32[np.ndarray, "slice row column"]:
    """Determinant of the map's derivative, by central differences."""
    by_axis = [
        np.stack(tuple(np.gradient(map_mm[..., k].astype(np.float64), *grid.spacing_mm)), axis=-1) for k in range(3)
    ]
    jacobian = np.stack(by_axis, axis=-2)[..., ::-1]  # derivatives by slice, row, column are those by z, y, x
    return np.linalg.det(jacobian).astype(np.float32)


def _check(
    earlier: Case, later: Case, grid: Geometry, affine: np.ndarray, map_mm: np.ndarray, expansion: np.ndarray
) -> Quality:
    one = _on_grid(earlier, _world(grid))
    placed, aligned, laid = (
        _on_grid(later, at) for at in (_world(grid), _world(grid) @ affine[:3, :3].T + affine[:3, 3], map_mm)
    )
    mean_mm, far_mm = _surface_distance(one, laid, grid)
    moved = np.linalg.norm(map_mm - _world(grid), axis=-1)[one]
    ml = [_require_lung(case).volume_ml for case in (earlier, later)]
    return Quality(
        dice_before=_dice(one, placed),
        dice_affine=_dice(one, aligned),
        dice=_dice(one, laid),
        surface_mm=mean_mm,
        surface_95_mm=far_mm,
        jacobian_low=float(expansion.min()),
        jacobian_high=float(expansion.max()),
        expansion=float(expansion[one].mean(dtype=np.float64)),
        volume_ratio=ml[1] / ml[0],
        moved_mm=float(np.median(moved)),
        likeness=_likeness(earlier, later, grid, map_mm),
    )


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else float("nan")


def _on_grid(case: Case, at_mm: np.ndarray) -> Bool[np.ndarray, "slice row column"]:
    lung, _ = _masks(case)
    return np.asarray(_sample(lung.astype(np.float32), case.volume.geometry, at_mm, 0.0) >= 0.5)


def _surface_distance(one: np.ndarray, other: np.ndarray, grid: Geometry) -> tuple[float, float]:
    """Mean and 95th percentile of the distance of each surface's voxels from the other surface, mm; infinite if one is empty."""
    if not one.any() or not other.any():
        return float("inf"), float("inf")
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (one, other)]
    away = [ndimage.distance_transform_edt(~edge, sampling=grid.spacing_mm) for edge in edges]
    both = np.concatenate([away[1][edges[0]], away[0][edges[1]]])
    return float(both.mean()), float(np.percentile(both, 95))


def _likeness(earlier: Case, later: Case, grid: Geometry, map_mm: np.ndarray) -> float:
    """Correlation of what stands out from its surroundings inside both lungs, away from lesions of either date."""
    first, first_core = _texture(earlier, _world(grid), grid)
    second, second_core = _texture(later, map_mm, grid)
    core = first_core & second_core
    if core.sum() * grid.voxel_ml < LEAST_TEXTURE_ML:
        return float("nan")
    one, other = first[core], second[core]
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 0 and other.std() > 0 else float("nan")


def _texture(case: Case, at_mm: np.ndarray, grid: Geometry) -> tuple[np.ndarray, np.ndarray]:
    geometry, lung, lesion = case.volume.geometry, *_masks(case)
    median = float(np.median(case.volume.hu[lung])) if lung.any() else -850.0
    level = ((case.volume.hu.astype(np.float32) - median) / (0 - median)).clip(_DARKEST, 0.4)
    level = _sample(level, geometry, at_mm, 0.0)
    free = _sample((lung & ~_around(lesion, geometry, 3.0)).astype(np.float32), geometry, at_mm, 0.0) > 0.95
    core = ndimage.distance_transform_edt(free, sampling=grid.spacing_mm) > _TEXTURE_EDGE_MM
    near = _TEXTURE_NEAR_MM / GRID_MM
    inside = free.astype(np.float32)
    mean = ndimage.gaussian_filter(level * inside, near) / np.maximum(ndimage.gaussian_filter(inside, near), 1e-3)
    return level - mean, core


def _require_good(earlier: Case, later: Case, quality: Quality) -> None:
    who = f"{earlier.case_id} and {later.case_id}"
    if quality.jacobian_low <= 0:
        raise RegistrationError(
            f"{who}: the deformation between the two dates folds (local volume down to {quality.jacobian_low:.2f}), so nothing can be "
            "followed through it. Check both lung masks; they should cover the same lungs.",
            code="E_FOLDED",
        )
    if not (quality.dice >= LEAST_DICE and quality.surface_mm <= MOST_SURFACE_MM):
        raise RegistrationError(
            f"{who}: the lungs do not lie on each other after registration: Dice {quality.dice:.2f} (at least {LEAST_DICE:.2f} is needed), "
            f"surfaces {quality.surface_mm:.1f} mm apart (at most {MOST_SURFACE_MM:.0f} mm). Are both of one patient, do both scans hold the "
            "whole lungs, and are the lung masks right? Give better masks with --lung, or compare the two without registration: lungshift quantify."
        )
    if quality.likeness < SAME_LUNGS:
        raise CohortError(
            f"{who}: the lungs have been laid on each other, but the vessels inside do not agree (correlation {quality.likeness:.2f}; of one "
            f"patient at least {SAME_LUNGS:.2f} is expected): these look like two patients. Check which scans were given.",
            code="E_TWO_PATIENTS",
        )


def _world(grid: Geometry) -> Float64[np.ndarray, "slice row column 3"]:
    return grid.world_mm(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))


def _indices(points_mm: np.ndarray, geometry: Geometry) -> Float64[np.ndarray, "*n 3"]:
    back = np.linalg.inv(geometry.affine)
    return np.asarray(points_mm @ back[:3, :3].T + back[:3, 3])


def _sample(values: np.ndarray, geometry: Geometry, at_mm: np.ndarray, outside: float) -> np.ndarray:
    """Values between the voxels of a grid at LPS points."""
    places = np.moveaxis(_indices(at_mm, geometry), -1, 0)
    return np.asarray(ndimage.map_coordinates(values, places, order=1, mode="constant", cval=outside))


def _resample(
    values: np.ndarray, geometry: Geometry, grid: Geometry, affine: np.ndarray, outside: float
) -> Float32[np.ndarray, "slice row column"]:
    """Values on another grid, each of whose points is first taken through an affine map."""
    at_mm = _world(grid) @ affine[:3, :3].T + affine[:3, 3]
    return _sample(values, geometry, at_mm, outside).astype(np.float32)


def _image(values: np.ndarray, geometry: Geometry) -> Any:
    """An array on its grid as SimpleITK has it: x, y, z are column, row, slice."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values))
    _place(image, geometry)
    return image


def _blank(geometry: Geometry) -> Any:
    import SimpleITK

    image = SimpleITK.Image([int(n) for n in geometry.shape[::-1]], SimpleITK.sitkUInt8)
    _place(image, geometry)
    return image


def _place(image: Any, geometry: Geometry) -> None:
    spacing = geometry.spacing_mm[::-1]
    image.SetSpacing(tuple(float(mm) for mm in spacing))
    image.SetOrigin(tuple(float(mm) for mm in geometry.affine[:3, 3]))
    image.SetDirection(tuple(float(one) for one in (geometry.affine[:3, [2, 1, 0]] / spacing).ravel()))


def _as_transform(map_mm: np.ndarray, grid: Geometry) -> Any:
    import SimpleITK

    shift = SimpleITK.GetImageFromArray((map_mm - _world(grid)).astype(np.float64), isVector=True)
    _place(shift, grid)
    return SimpleITK.DisplacementFieldTransform(shift)
