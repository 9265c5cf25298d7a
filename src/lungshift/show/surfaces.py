"""Surfaces of masks: closed triangle meshes in millimetres, where the mask is.

The surface runs half-way between the centres of voxels inside and outside (VTK's flying edges), so no point of it is more
than half a voxel from where the true border crosses that edge of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import InputError, MissingError

_ITERATIONS, _PASS_BAND = 20, 0.1
_LARGEST_MOVE = 0.15
"""In voxels along each axis: smoothing takes the steps off, and leaves even a lesion of one voxel a body."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh; closed, each triangle counter-clockwise seen from outside.

    Attributes:
        points_mm: Corners, LPS.
        triangles: Rows of ``points_mm``, three to a triangle.
    """

    points_mm: Float32[np.ndarray, "point 3"]
    triangles: Int32[np.ndarray, "triangle 3"]

    @property
    def volume_ml(self) -> float:
        """Volume inside; positive when the triangles face outward (divergence theorem)."""
        if not len(self.triangles):
            return 0.0
        points = self.points_mm.astype(np.float64)
        a, b, c = (points - points.mean(axis=0))[self.triangles].transpose(1, 0, 2)
        return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6000


def surface_of(
    mask: Mask, *, smooth: bool = True, reduce: float = 0.0, step: int | tuple[int, int, int] = 1
) -> Surface:
    """The surface of a mask.

    A mask that touches the border of its grid is closed half a voxel outside its outermost voxels. An empty mask has an
    empty surface.

    Args:
        mask: What to enclose, on any grid, oblique and anisotropic ones too.
        smooth: Take the steps of the voxels off; no point moves by more than 0.15 voxels along an axis.
        reduce: Share of the triangles to do without, 0 to below 1; the volume is kept.
        step: Voxels that are averaged to one along (slice, row, column), or one number for all; the surface is then where
            half of such a block is inside. Structures thinner than half a block vanish: use it for lungs.

    Raises:
        InputError: ``reduce`` or ``step`` is out of its range.
        MissingError: VTK is not installed.

    Source: Schroeder, Maynard, Geveci, Flying Edges, LDAV 2015; Taubin, Zhang, Golub, Optimal surface smoothing as
    filter design, ECCV 1996 (windowed sinc).
    """
    require_vtk()
    steps = (step, step, step) if isinstance(step, int) else step
    if not 0 <= reduce < 1 or min(steps) < 1:
        raise InputError(f"reduce is 0 to below 1 and step 1 or more; got reduce={reduce}, step={step}.")
    if not mask.voxels.any():
        return Surface(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    counts, start = _counts(mask.voxels, steps)
    found = _contour(counts, np.prod(steps) / 2)
    points, triangles = _smooth(found) if smooth else arrays_of(found)
    if reduce:
        points, triangles = _reduce(points, triangles, reduce)
    return _place(points, triangles, mask.geometry, start, steps)


def surface_of_shares(
    shares: Float32[np.ndarray, "slice row column"], geometry: Geometry, *, triangles: int | None = None
) -> Surface:
    """The surface where voxels are half inside, for coarse voxels that know which share of them is.

    Args:
        shares: 0 to 1 in each voxel.
        geometry: Their grid.
        triangles: About how many to have at most.

    Raises:
        MissingError: VTK is not installed.
    """
    require_vtk()
    inside = np.argwhere(shares >= 0.5)
    if not len(inside):
        return Surface(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    box = tuple(
        slice(max(0, int(a) - 1), int(b) + 2) for a, b in zip(inside.min(axis=0), inside.max(axis=0), strict=True)
    )
    start = np.array([one.start - 1 for one in box])
    points, corners = _smooth(_contour(np.pad(shares[box], 1).astype(np.float32), 0.5))
    if triangles and len(corners) > triangles:
        points, corners = _reduce(points, corners, 1 - triangles / len(corners))
    return _place(points, corners, geometry, start, (1, 1, 1))


def require_vtk() -> None:
    """Say what to install where VTK is not.

    Raises:
        MissingError: VTK is not installed.
    """
    try:
        import vtkmodules.vtkCommonCore  # noqa: F401
    except ImportError as error:
        raise MissingError("Surfaces and 3-D pictures need VTK: pip install 'lungshift[viz3d]'.") from error


def _counts(voxels: np.ndarray, steps: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """How many voxels of each block are inside, one block of nothing all round, and the first block's first voxel."""
    used = [np.flatnonzero(voxels.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in used)
    inside = voxels[box]
    filled = [(step, step + -n % step) for n, step in zip(inside.shape, steps, strict=True)]
    blocks = np.pad(inside, filled)
    shape = [part for n, step in zip(blocks.shape, steps, strict=True) for part in (n // step, step)]
    start = np.array([one.start for one in box]) - steps
    if max(steps) == 1:
        return blocks.view(np.uint8), start
    return blocks.reshape(shape).sum(axis=(1, 3, 5), dtype=np.uint16), start


def _contour(counts: np.ndarray, level: float) -> Any:
    """Flying edges over an array, in its own indices; x runs along the last axis."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    image = vtkImageData()
    image.SetDimensions(*counts.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(counts).reshape(-1)))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, level)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    return edges.GetOutput()


def _smooth(found: Any) -> tuple[np.ndarray, np.ndarray]:
    from vtkmodules.vtkFiltersCore import vtkWindowedSincPolyDataFilter

    smoother = vtkWindowedSincPolyDataFilter()
    smoother.SetInputData(found)
    smoother.SetNumberOfIterations(_ITERATIONS)
    smoother.SetPassBand(_PASS_BAND)
    smoother.FeatureEdgeSmoothingOff()
    smoother.NonManifoldSmoothingOn()
    smoother.NormalizeCoordinatesOn()
    smoother.Update()
    before, triangles = arrays_of(found)
    after, _ = arrays_of(smoother.GetOutput())
    return before + np.clip(after - before, -_LARGEST_MOVE, _LARGEST_MOVE), triangles


def _reduce(points: np.ndarray, triangles: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    from vtkmodules.vtkFiltersCore import vtkQuadricDecimation

    decimation = vtkQuadricDecimation()
    decimation.SetInputData(poly_data(points, triangles))
    decimation.SetTargetReduction(share)
    decimation.VolumePreservationOn()
    decimation.Update()
    return arrays_of(decimation.GetOutput())


def arrays_of(poly: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and triangles (m, 3) of ``vtkPolyData``."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    if not poly.GetNumberOfPoints():
        return np.zeros((0, 3)), np.zeros((0, 3), np.int32)
    points = vtk_to_numpy(poly.GetPoints().GetData()).astype(np.float64)
    return points, vtk_to_numpy(poly.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int32)


def poly_data(points: np.ndarray, triangles: np.ndarray) -> Any:
    """Points (n, 3) and triangles (m, 3) as ``vtkPolyData`` of its own memory."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    corners = vtkPoints()
    corners.SetData(numpy_to_vtk(np.ascontiguousarray(points, np.float32), deep=True))
    cells = vtkCellArray()
    offsets = np.arange(0, triangles.size + 1, 3, dtype=np.int64)
    connectivity = np.ascontiguousarray(triangles.reshape(-1), np.int64)
    cells.SetData(numpy_to_vtkIdTypeArray(offsets, deep=True), numpy_to_vtkIdTypeArray(connectivity, deep=True))
    poly = vtkPolyData()
    poly.SetPoints(corners)
    poly.SetPolys(cells)
    return poly


def _place(
    points: np.ndarray, triangles: np.ndarray, geometry: Geometry, start: np.ndarray, steps: tuple[int, int, int]
) -> Surface:
    """From indices of blocks (column, row, slice) to millimetres; the middle of a block is not its first voxel.

    By (column, row, slice) every canonical grid is right-handed, however oblique, so triangles stay outward.
    """
    indices = points[:, ::-1] * steps + start + (np.array(steps) - 1) / 2
    world = geometry.world_mm(indices).astype(np.float32)
    return Surface(world, np.ascontiguousarray(triangles))
