"""Tables of points: the bytes of Python's csv, the places of the affine, whole or absent."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from grids import geometries, oblique
from lungshift.ct.geometry import Geometry
from lungshift.errors import GeometryError, IntensityError, ResourceError
from lungshift.show import points
from lungshift.show.points import write_points

SHAPE = (3, 4, 5)
GRID = Geometry.regular(SHAPE, (5.0, 0.625, 0.7), (-1.4, -1.25, -1000))


def written(path: Path, geometry: Geometry, hu: np.ndarray | None, mask: np.ndarray, **options: float) -> bytes:
    count = write_points(
        path, geometry, ((i, None if hu is None else hu[i], mask[i]) for i in range(len(mask))), **options
    )
    data = path.read_bytes()
    assert data.count(b"\r\n") == count + 1
    return data


def by_csv(geometry: Geometry, hu: np.ndarray | None, mask: np.ndarray) -> bytes:
    """The same rows through Python's csv, from the world coordinates of each voxel."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["x", "y", "z", "value"])
    for place in np.argwhere(mask):
        value = 1 if hu is None else round(float(hu[tuple(place)]))
        writer.writerow([*(f"{one:z.2f}" for one in geometry.world_mm(place)), value])
    return text.getvalue().encode()


def places(data: bytes) -> np.ndarray:
    return np.array([row[:3] for row in csv.reader(io.StringIO(data.decode()))][1:], float)


def test_a_row_is_where_the_voxel_is_in_hundredths_of_a_millimetre_and_its_hu(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0] = mask[2, 3, 4] = True
    hu = np.full(SHAPE, -850, np.int16)
    hu[2, 3, 4] = 40

    data = written(tmp_path / "lung.csv", GRID, hu, mask)

    assert data == b"x,y,z,value\r\n-1.40,-1.25,-1000.00,-850\r\n1.40,0.62,-990.00,40\r\n"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries(SHAPE), seed=st.integers(0, 99))
def test_the_bytes_are_those_of_csv_on_every_grid(tmp_path: Path, geometry: Geometry, seed: int) -> None:
    # Half-way between two hundredths, as 0.975 mm is, either is right.
    hundredths = geometry.world_mm(np.argwhere(np.ones(SHAPE, bool))) * 100
    assume(np.abs(hundredths % 1 - 0.5).min() > 1e-6)
    rng = np.random.default_rng(seed)
    hu, mask = rng.integers(-(2**15), 2**15, SHAPE).astype(np.int16), rng.random(SHAPE) < 0.6

    assert written(tmp_path / "lung.csv", geometry, hu, mask) == by_csv(geometry, hu, mask)
    assert written(tmp_path / "lesion.csv", geometry, None, mask) == by_csv(geometry, None, mask)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries(SHAPE))
def test_every_point_is_within_a_hundredth_of_a_millimetre_of_its_voxel(tmp_path: Path, geometry: Geometry) -> None:
    mask = np.ones(SHAPE, bool)

    found = places(written(tmp_path / "lung.csv", geometry, None, mask))

    np.testing.assert_allclose(found, geometry.world_mm(np.argwhere(mask)), atol=0.0051)


@pytest.mark.parametrize(
    "geometry", [GRID, oblique(SHAPE, (5, 0.7, 0.7), (0.1, 0.2, -0.1))], ids=["straight", "oblique"]
)
def test_more_rows_than_are_made_at_a_time_come_in_order(
    tmp_path: Path, geometry: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "_ROWS", 7)
    monkeypatch.setattr(points, "_TOGETHER", 2)
    hu = np.arange(60, dtype=np.int16).reshape(SHAPE) - 30

    assert written(tmp_path / "lung.csv", geometry, hu, hu > -29) == by_csv(geometry, hu, hu > -29)


def test_coordinates_beyond_a_metre_are_written_in_full(tmp_path: Path) -> None:
    far = Geometry.regular(SHAPE, (500.0, 0.7, 0.7), (-9999.99, 0, -123456))
    mask = np.ones(SHAPE, bool)

    assert written(tmp_path / "lung.csv", far, None, mask) == by_csv(far, None, mask)


def test_a_constant_step_replaces_z_only(tmp_path: Path) -> None:
    mask = np.ones(SHAPE, bool)

    found = places(written(tmp_path / "lung.csv", GRID, None, mask, z_step_mm=2.5))

    indices = np.argwhere(mask)
    np.testing.assert_allclose(found[:, 2], 2.5 * indices[:, 0])
    np.testing.assert_allclose(found[:, :2], GRID.world_mm(indices)[:, :2], atol=0.0051)


def test_hu_that_are_not_whole_are_rounded(tmp_path: Path) -> None:
    hu = np.full(SHAPE, -849.6, np.float32)

    assert b",-850\r\n" in written(tmp_path / "lung.csv", GRID, hu, np.ones(SHAPE, bool))


def test_hu_beyond_sixteen_bits_are_refused(tmp_path: Path) -> None:
    hu = np.full(SHAPE, 40000, np.float32)

    with pytest.raises(IntensityError, match="-32768 to 32767"):
        written(tmp_path / "lung.csv", GRID, hu, np.ones(SHAPE, bool))
    assert not list(tmp_path.iterdir())


def test_slices_that_reach_into_orbit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="10 km"):
        write_points(tmp_path / "lung.csv", GRID, [], z_step_mm=2e7)


def test_an_empty_mask_leaves_the_header(tmp_path: Path) -> None:
    assert written(tmp_path / "lesion.csv", GRID, None, np.zeros(SHAPE, bool)) == b"x,y,z,value\r\n"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)

    with pytest.raises(ResourceError, match="No space left"):
        written(tmp_path / "lung.csv", GRID, None, np.ones(SHAPE, bool))
    assert not list(tmp_path.iterdir())


def test_a_call_that_writes_only_a_part_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.ones(SHAPE, bool)
    monkeypatch.setattr(os, "writev", lambda handle, pieces: os.write(handle, pieces[0][:5]))

    assert written(tmp_path / "lung.csv", GRID, None, mask) == by_csv(GRID, None, mask)


def test_what_reads_back_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev

    def flipping(handle: int, pieces: list[bytes]) -> int:
        return real(handle, [bytes(piece).replace(b"-850", b"-950") for piece in pieces])

    monkeypatch.setattr(os, "writev", flipping)

    with pytest.raises(ResourceError, match="not what was written"):
        written(tmp_path / "lung.csv", GRID, np.full(SHAPE, -850, np.int16), np.ones(SHAPE, bool))
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_number_of_slices(tmp_path: Path) -> None:
    import tracemalloc

    def peak(slices: int) -> int:
        grid = Geometry.regular((slices, 64, 64), (1, 1, 1))
        plane = np.ones((64, 64), bool)
        tracemalloc.start()
        write_points(tmp_path / "lung.csv", grid, ((index, None, plane) for index in range(slices)))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few, many = peak(40), peak(400)

    assert many <= 1.05 * few
