"""Files that other programs open, each read back by somebody else's reader: the same places, in millimetres."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grids import ball, geometries, oblique
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import ResourceError
from lungshift.show.meshes import Look, normals_of, write_glb, write_ply, write_stl, write_vti, write_vtp
from lungshift.show.surfaces import Surface, surface_of
from meshfiles import corners, read_glb

pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")

SHAPE = (5, 6, 7)
LOOK = Look("lesion, predicted", (133, 96, 255), 0.5)
GRID = oblique((20, 22, 24), (1.6, 0.9, 0.8), (0.2, -0.1, 0.3), (-120, 30, -500))
CENTRE = GRID.world_mm(np.array([9.6, 10.3, 11.9]))
BALL = surface_of(Mask(ball(GRID, CENTRE, 6.5), GRID))
EMPTY = Surface(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
SUFFIXES = ("stl", "ply", "glb", "vtp")


def write(surface: Surface, path: Path) -> Path:
    writers = {
        ".stl": lambda: write_stl(surface, path),
        ".ply": lambda: write_ply(surface, LOOK, path),
        ".glb": lambda: write_glb([(surface, LOOK)], path),
        ".vtp": lambda: write_vtp(surface, LOOK, path),
    }
    writers[path.suffix]()
    return path


def volume_ml(triangles: np.ndarray) -> float:
    a, b, c = (triangles - triangles.mean(axis=(0, 1))).transpose(1, 0, 2)
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6000


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries(SHAPE), place=st.tuples(*[st.integers(0, n - 1) for n in SHAPE]))
def test_a_voxel_is_found_where_the_affine_has_it(
    suffix: str, tmp_path: Path, geometry: Geometry, place: tuple[int, int, int]
) -> None:
    voxels = np.zeros(SHAPE, bool)
    voxels[place] = True

    found = corners(write(surface_of(Mask(voxels, geometry), smooth=False), tmp_path / f"one.{suffix}"))

    off = (found.reshape(-1, 3) - geometry.world_mm(np.array(place))) @ np.linalg.inv(geometry.affine[:3, :3]).T
    assert np.abs(off).max() <= 0.5 + 2e-3
    np.testing.assert_allclose(found.mean(axis=(0, 1)), geometry.world_mm(np.array(place)), atol=1e-3)
    assert volume_ml(found) > 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_ball_is_where_it_was_and_as_large(suffix: str, tmp_path: Path) -> None:
    found = corners(write(BALL, tmp_path / f"ball.{suffix}"))

    assert volume_ml(found) == pytest.approx(BALL.volume_ml, rel=1e-4)
    off_mm = np.abs(np.linalg.norm(found - CENTRE, axis=-1) - 6.5)
    assert off_mm.max() <= 0.65 * max(GRID.spacing_mm)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_surface_is_a_file_without_triangles(suffix: str, tmp_path: Path) -> None:
    assert corners(write(EMPTY, tmp_path / f"empty.{suffix}")).shape == (0, 3, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_surface_gives_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    first, second = (write(BALL, tmp_path / f"{name}.{suffix}").read_bytes() for name in ("first", "second"))

    assert first == second


def test_normals_point_away_from_the_middle() -> None:
    outward = (BALL.points_mm - CENTRE) / np.linalg.norm(BALL.points_mm - CENTRE, axis=1, keepdims=True)

    assert (np.einsum("ij,ij->i", normals_of(BALL), outward) > 0.8).all()


def test_stl_and_ply_say_which_world_they_are_in(tmp_path: Path) -> None:
    assert b"SPACE=LPS" in write(BALL, tmp_path / "ball.stl").read_bytes()[:80]
    assert b"comment SPACE=LPS\n" in write(BALL, tmp_path / "ball.ply").read_bytes()


def test_ply_has_the_colour_at_every_corner(tmp_path: Path) -> None:
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOPLY import vtkPLYReader

    reader = vtkPLYReader()
    reader.SetFileName(str(write(BALL, tmp_path / "ball.ply")))
    reader.Update()

    colours = vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars())
    assert set(map(tuple, colours.tolist())) == {(133, 96, 255, 128)}


def test_glb_names_colours_and_bounds_every_mesh(tmp_path: Path) -> None:
    write_glb(
        [(BALL, LOOK), (EMPTY, Look("nothing", (0, 0, 0))), (BALL, Look("lung", (255, 255, 255)))], tmp_path / "b.glb"
    )

    described, _ = read_glb(tmp_path / "b.glb")

    assert [node["name"] for node in described["nodes"]] == ["lesion, predicted", "lung"]
    factor = described["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"]
    assert factor == pytest.approx([0.2346, 0.1170, 1.0, 0.5], abs=1e-4)
    assert [material.get("alphaMode") for material in described["materials"]] == ["BLEND", None]
    positions = described["accessors"][described["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert positions["min"] == pytest.approx(BALL.points_mm.min(axis=0).tolist())
    assert positions["max"] == pytest.approx(BALL.points_mm.max(axis=0).tolist())
    assert described["asset"]["extras"] == {"space": "LPS", "unit": "mm"}


def test_vtp_carries_normals_colour_and_opacity(tmp_path: Path) -> None:
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(write(BALL, tmp_path / "ball.vtp")))
    reader.Update()
    poly = reader.GetOutput()

    np.testing.assert_array_equal(vtk_to_numpy(poly.GetPointData().GetNormals()), normals_of(BALL))
    assert vtk_to_numpy(poly.GetFieldData().GetArray("colour_rgb")).tolist() == [133, 96, 255]
    assert vtk_to_numpy(poly.GetFieldData().GetArray("opacity")).tolist() == [0.5]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries(SHAPE), place=st.tuples(*[st.integers(0, n - 1) for n in SHAPE]))
def test_vti_holds_origin_spacing_and_direction(
    tmp_path: Path, geometry: Geometry, place: tuple[int, int, int]
) -> None:
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader

    hu = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    write_vti({"HU": hu, "lesion": (hu > 100).astype(np.uint8)}, geometry, tmp_path / "scene.vti")
    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(tmp_path / "scene.vti"))
    reader.Update()
    image = reader.GetOutput()

    number = image.ComputePointId(place[::-1])
    np.testing.assert_allclose(image.GetPoint(number), geometry.world_mm(np.array(place)), atol=1e-6)
    assert vtk_to_numpy(image.GetPointData().GetArray("HU"))[number] == hu[place]
    assert vtk_to_numpy(image.GetPointData().GetArray("lesion"))[number] == (hu[place] > 100)


@pytest.mark.parametrize("name", ["ball.vtp", "scene.vti"])
def test_a_full_disk_is_said_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no device that is always full")
    from vtkmodules.vtkIOXML import vtkXMLImageDataWriter, vtkXMLPolyDataWriter

    from lungshift.show import meshes

    writer = vtkXMLPolyDataWriter() if name.endswith("vtp") else vtkXMLImageDataWriter()
    data = meshes._image(GRID) if name.endswith("vti") else meshes.poly_data(BALL.points_mm, BALL.triangles)
    path = tmp_path / name
    path.symlink_to(full)

    with pytest.raises(OSError, match="could not write all"):
        meshes._write(writer, data, path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Exception, match="Cannot write") as refusal:
        write(BALL, tmp_path / "file" / "ball.vtp")
    assert refusal.value.code in ("E_EXISTS", ResourceError.default_code)  # type: ignore[attr-defined]
