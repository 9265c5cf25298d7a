"""Contestants of the scene's benchmark: tables of points and surfaces, ours and the usual ways.

Inputs are ``.npy`` files, so that a contestant can live in another environment; what each writes goes into a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Work


def lungshift_csv(folder: str, affine: list[list[float]]) -> Work:
    """Our table: made, written, flushed to the disk, read back and compared, renamed."""
    from lungshift.ct.geometry import Geometry
    from lungshift.show.points import write_points

    hu, mask = _load(folder)
    geometry = Geometry(mask.shape, np.array(affine))

    def slices() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        return ((index, hu[index], mask[index]) for index in range(len(hu)))

    return lambda: write_points(Path(folder) / "ours.csv", geometry, slices())


def csv_module(folder: str, affine: list[list[float]], decimals: int | None) -> Work:
    """Python's csv at its fastest: ``writerows`` of ready numbers, formatted where our bytes are wanted; checks nothing."""
    import csv

    hu, mask = _load(folder)
    matrix = np.array(affine)
    world = np.argwhere(mask) @ matrix[:3, :3].T + matrix[:3, 3]
    x, y, z = (np.rint(column * 100).tolist() for column in world.T)
    x, y, z = ([value / 100 for value in column] for column in (x, y, z))
    values = hu[mask].tolist()

    def work() -> int:
        rows: Any = zip(x, y, z, values, strict=True)
        if decimals is not None:
            rows = ((f"{a:z.2f}", f"{b:z.2f}", f"{c:z.2f}", value) for a, b, c, value in rows)
        with open(Path(folder) / f"csv-{decimals}.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["x", "y", "z", "value"])
            writer.writerows(rows)
        return len(values)

    return work


def raw_write(folder: str, file: str) -> Work:
    """The bytes of a file that is there, written from memory in one call; flushes and checks nothing."""
    data = (Path(folder) / file).read_bytes()

    def work() -> int:
        with open(Path(folder) / "raw.csv", "wb", buffering=0) as stream:
            return stream.write(data)

    return work


def lungshift_surface(folder: str, smooth: bool) -> Work:
    """Our surface in millimetres, cropping and turning included."""
    from lungshift.ct.geometry import Geometry
    from lungshift.ct.volume import Mask
    from lungshift.show.surfaces import surface_of

    _, voxels = _load(folder)
    mask = Mask(np.array(voxels), Geometry.regular(voxels.shape, (1.0, 0.7, 0.7)))
    return lambda: len(surface_of(mask, smooth=smooth).triangles)


def flying_edges(folder: str) -> Work:
    """VTK's part of our surface alone: no cropping, no millimetres."""
    from lungshift.show.surfaces import _contour, _counts

    counts, _ = _counts(_load(folder)[1], (1, 1, 1))
    return lambda: _contour(counts, 0.5).GetNumberOfPolys()


def skimage_surface(folder: str) -> Work:
    """scikit-image's marching cubes of the mask, cropped and padded beforehand, with spacing only."""
    from skimage.measure import marching_cubes

    _, voxels = _load(folder)
    used = [np.flatnonzero(voxels.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    inside = np.pad(voxels[tuple(slice(one[0], one[-1] + 1) for one in used)], 1).astype(np.float32)
    return lambda: len(marching_cubes(inside, 0.5, spacing=(1.0, 0.7, 0.7))[1])


def _load(folder: str) -> tuple[np.ndarray, np.ndarray]:
    return np.load(Path(folder) / "hu.npy"), np.load(Path(folder) / "mask.npy")
