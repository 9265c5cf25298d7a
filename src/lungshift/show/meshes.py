"""Volumes and surfaces as files that other programs open: ``.vti``, ``.vtp``, STL, PLY and GLB.

All are in LPS millimetres, the world of DICOM and ITK, so that they lie on each other: left, posterior and superior are
positive. None holds a name, a date or a path.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32

from lungshift.ct.geometry import Geometry
from lungshift.files import write_bytes, write_file
from lungshift.show.surfaces import Surface, arrays_of, poly_data, require_vtk

SPACE: Final = "SPACE=LPS"
"""How 3D Slicer marks a mesh whose coordinates are LPS; stands in the header of STL and PLY."""
_GLTF_FLOAT, _GLTF_UINT = 5126, 5125
_GLTF_VERTICES, _GLTF_INDICES = 34962, 34963


@dataclass(frozen=True)
class Look:
    """How a surface is to be drawn.

    Attributes:
        name: What it is called in a viewer.
        colour: Red, green, blue of sRGB, 0 to 255.
        opacity: 0 to 1.
    """

    name: str
    colour: tuple[int, int, int]
    opacity: float = 1.0


def normals_of(surface: Surface) -> Float32[np.ndarray, "point 3"]:
    """Unit vectors that point outward at each corner: the mean of its triangles by their area."""
    across = _across(surface)
    corners = surface.triangles.reshape(-1)
    weights = np.repeat(across, 3, axis=0)
    sums = [np.bincount(corners, weights[:, axis], len(surface.points_mm)) for axis in range(3)]
    return _unit(np.stack(sums, axis=1)).astype(np.float32)


def write_stl(surface: Surface, path: Path) -> None:
    """Write binary STL; little-endian, 50 bytes a triangle.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("zero", "<u2")])
    facets = np.zeros(len(surface.triangles), record)
    facets["normal"] = _unit(_across(surface))
    facets["corners"] = surface.points_mm[surface.triangles]
    header = f"lungshift mm {SPACE}".encode().ljust(80, b" ")
    write_bytes(path, header + struct.pack("<I", len(facets)) + facets.tobytes())


def write_ply(surface: Surface, look: Look, path: Path) -> None:
    """Write binary PLY, the colour at every corner.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    corner = np.dtype([("place", "<f4", 3), ("colour", "u1", 4)])
    corners = np.zeros(len(surface.points_mm), corner)
    corners["place"] = surface.points_mm
    corners["colour"] = (*look.colour, round(255 * look.opacity))
    faces = np.zeros(len(surface.triangles), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, surface.triangles
    lines = ["ply", "format binary_little_endian 1.0", f"comment {SPACE}", f"comment unit mm, {look.name}"]
    lines += [f"element vertex {len(corners)}", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"property uchar {part}" for part in ("red", "green", "blue", "alpha")]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    write_bytes(path, "\n".join(lines).encode() + corners.tobytes() + faces.tobytes())


def write_glb(surfaces: Sequence[tuple[Surface, Look]], path: Path) -> None:
    """Write all surfaces as one binary glTF 2.0, each a node with its name and its material.

    The coordinates are LPS millimetres like those of all other files, with no node transform, so that whatever reads them has
    them in the same place; ``asset.extras`` says so. glTF's own convention is metres with y up: a viewer that goes by it shows
    the patient lying on the back. Surfaces without triangles are left out, as glTF has none.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.

    Source: Khronos glTF 2.0 specification.
    """
    buffer, views, accessors = bytearray(), [], []

    def add(array: np.ndarray, target: int, **described: Any) -> int:
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": array.nbytes, "target": target})
        accessors.append({"bufferView": len(views) - 1, "count": len(array), **described})
        buffer.extend(array.tobytes())
        return len(accessors) - 1

    shown = [(surface, look) for surface, look in surfaces if len(surface.triangles)]
    meshes = [_gltf_mesh(add, surface, look, number) for number, (surface, look) in enumerate(shown)]
    described: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "lungshift", "extras": {"space": "LPS", "unit": "mm"}},
        "scene": 0,
        "scenes": [{"name": "lungshift", **({"nodes": list(range(len(shown)))} if shown else {})}],
    }
    if shown:
        described |= {
            "nodes": [{"mesh": number, "name": look.name} for number, (_, look) in enumerate(shown)],
            "meshes": meshes,
            "materials": [_gltf_material(look) for _, look in shown],
            "buffers": [{"byteLength": len(buffer)}],
            "bufferViews": views,
            "accessors": accessors,
        }
    write_bytes(path, _glb(described, bytes(buffer)))


def write_vtp(surface: Surface, look: Look, path: Path) -> None:
    """Write a surface as VTK's PolyData, with its normals, its colour and its opacity.

    Raises:
        MissingError: VTK is not installed.
        ResourceError: The disk is full or the folder cannot be written.
    """
    require_vtk()
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLPolyDataWriter

    poly = poly_data(surface.points_mm, surface.triangles)
    normals = numpy_to_vtk(normals_of(surface), deep=True)
    normals.SetName("Normals")
    poly.GetPointData().SetNormals(normals)
    _describe(poly, {"colour_rgb": look.colour, "opacity": (look.opacity,)})

    def verify(temporary: Path) -> bool:
        points, triangles = arrays_of(_read(vtkXMLPolyDataReader(), temporary))
        return np.array_equal(points, surface.points_mm) and np.array_equal(triangles, surface.triangles)

    write_file(path, lambda temporary: _write(vtkXMLPolyDataWriter(), poly, temporary), verify)


def write_vti(arrays: Mapping[str, np.ndarray], geometry: Geometry, path: Path) -> None:
    """Write arrays on one grid as VTK's ImageData with origin, spacing and direction, point data, losslessly compressed.

    Args:
        arrays: By name, each of the grid's shape (slice, row, column); x runs along the columns in the file, as VTK has it.
        geometry: The grid.
        path: The file.

    Raises:
        MissingError: VTK is not installed.
        ResourceError: The disk is full or the folder cannot be written.
    """
    require_vtk()
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader, vtkXMLImageDataWriter

    image = _image(geometry)
    flat = {name: np.ascontiguousarray(array).reshape(-1) for name, array in arrays.items()}
    for name, values in flat.items():
        made = numpy_to_vtk(values)
        made.SetName(name)
        image.GetPointData().AddArray(made)
    image.GetPointData().SetActiveScalars(next(iter(flat)))

    def verify(temporary: Path) -> bool:
        back = _read(vtkXMLImageDataReader(), temporary)
        data = back.GetPointData()
        same = (np.array_equal(vtk_to_numpy(data.GetArray(name)), values) for name, values in flat.items())
        return all(same) and np.allclose(_affine_of(back), _affine_of(image))

    write_file(path, lambda temporary: _write(vtkXMLImageDataWriter(), image, temporary), verify)


def _image(geometry: Geometry) -> Any:
    """An empty ``vtkImageData`` on a grid; its axes are column, row, slice."""
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(*geometry.shape[::-1])
    image.SetOrigin(*geometry.affine[:3, 3])
    image.SetSpacing(*geometry.spacing_mm[::-1])
    direction = geometry.affine[:3, 2::-1] / geometry.spacing_mm[::-1]
    image.SetDirectionMatrix(*direction.reshape(-1))
    return image


def _affine_of(image: Any) -> np.ndarray:
    matrix = image.GetIndexToPhysicalMatrix()
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _describe(data: Any, facts: Mapping[str, Sequence[float]]) -> None:
    from vtkmodules.util.numpy_support import numpy_to_vtk

    for name, values in facts.items():
        array = numpy_to_vtk(np.array(values, np.float32), deep=True)
        array.SetName(name)
        data.GetFieldData().AddArray(array)


def _write(writer: Any, data: Any, path: Path) -> None:
    """Let one of VTK's writers write, compressed and binary.

    Raises:
        OSError: It did not; VTK says so by a number only, and most often the disk is full.
    """
    writer.SetFileName(str(path))
    writer.SetInputData(data)
    writer.SetDataModeToAppended()
    writer.EncodeAppendedDataOff()
    writer.SetCompressorTypeToZLib()
    writer.SetCompressionLevel(1)
    with _quiet():
        written = writer.Write() == 1 and not writer.GetErrorCode()
    if not written:
        raise OSError(errno.ENOSPC, "VTK could not write all of it", str(path))


def _read(reader: Any, path: Path) -> Any:
    reader.SetFileName(str(path))
    with _quiet():
        reader.Update()
    return reader.GetOutput()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep VTK from printing on the terminal what is raised as an error."""
    from vtkmodules.vtkCommonCore import vtkObject

    before = vtkObject.GetGlobalWarningDisplay()
    vtkObject.SetGlobalWarningDisplay(0)
    try:
        yield
    finally:
        vtkObject.SetGlobalWarningDisplay(before)


def _across(surface: Surface) -> np.ndarray:
    """For each triangle the vector across it, as long as twice its area."""
    a, b, c = surface.points_mm.astype(np.float64)[surface.triangles].transpose(1, 0, 2)
    return np.cross(b - a, c - a)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros(vectors.shape), where=length > 0)


def _gltf_mesh(add: Any, surface: Surface, look: Look, material: int) -> dict[str, Any]:
    points, vector = surface.points_mm.astype("<f4"), {"componentType": _GLTF_FLOAT, "type": "VEC3"}
    ends = {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
    attributes = {
        "POSITION": add(points, _GLTF_VERTICES, **vector, **ends),
        "NORMAL": add(_gltf_normals(surface), _GLTF_VERTICES, **vector),
    }
    corners = surface.triangles.astype("<u4").reshape(-1)
    indices = add(corners, _GLTF_INDICES, componentType=_GLTF_UINT, type="SCALAR")
    return {
        "name": look.name,
        "primitives": [{"attributes": attributes, "indices": indices, "material": material}],
    }


def _gltf_normals(surface: Surface) -> np.ndarray:
    """Normals as glTF wants them: every one of length one, that of a corner with no area too."""
    normals = normals_of(surface).astype("<f4")
    normals[~normals.any(axis=1)] = (0, 0, 1)
    return normals


def _gltf_material(look: Look) -> dict[str, Any]:
    linear = [_linear(part / 255) for part in look.colour]
    surface = {"baseColorFactor": [*linear, look.opacity], "metallicFactor": 0.0, "roughnessFactor": 0.6}
    mode = {"alphaMode": "BLEND"} if look.opacity < 1 else {}
    return {"name": look.name, "pbrMetallicRoughness": surface, "doubleSided": True, **mode}


def _linear(part: float) -> float:
    """Linear light of a part of sRGB, which is what glTF's factors are."""
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def _glb(described: dict[str, Any], buffer: bytes) -> bytes:
    text = json.dumps(described, separators=(",", ":")).encode()
    chunks = [(b"JSON", text + b" " * (-len(text) % 4))]
    if buffer:
        chunks.append((b"BIN\0", buffer + b"\0" * (-len(buffer) % 4)))
    body = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in chunks)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body
