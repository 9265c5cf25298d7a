"""Readers of mesh files that are not ours: VTK's own, and the bytes as the formats define them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np


def corners(path: Path) -> np.ndarray:
    """Corners of all triangles of a file (triangle, corner, xyz): VTP and PLY by VTK's readers, STL and GLB by their bytes."""
    readers = {".stl": read_stl, ".glb": lambda path: read_glb(path)[1], ".ply": read_ply, ".vtp": read_vtp}
    return readers[path.suffix](path)


def read_stl(path: Path) -> np.ndarray:
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 80)
    assert len(data) == 84 + 50 * count
    return np.array([struct.unpack_from("<9f", data, 84 + 50 * one + 12) for one in range(count)]).reshape(-1, 3, 3)


def chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk of a GLB."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    found, at = {}, 12
    while at < length:
        size, kind = struct.unpack_from("<I4s", data, at)
        assert size % 4 == 0
        found[kind] = data[at + 8 : at + 8 + size]
        at += 8 + size
    return json.loads(found[b"JSON"]), found.get(b"BIN\0", b"")


def read_glb(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    described, buffer = chunks(path)

    def array(number: int) -> np.ndarray:
        accessor = described["accessors"][number]
        view = described["bufferViews"][accessor["bufferView"]]
        kind, width = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]], {"VEC3": 3, "SCALAR": 1}[accessor["type"]]
        return np.frombuffer(buffer, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)

    assert not any("matrix" in node or "rotation" in node or "scale" in node for node in described.get("nodes", ()))
    found = []
    for mesh in described.get("meshes", ()):
        (part,) = mesh["primitives"]
        found.append(array(part["attributes"]["POSITION"])[array(part["indices"]).reshape(-1, 3)])
    return described, np.concatenate(found) if found else np.zeros((0, 3, 3))


def read_ply(path: Path) -> np.ndarray:
    from vtkmodules.vtkIOPLY import vtkPLYReader

    return triangles_of(vtkPLYReader(), path)


def read_vtp(path: Path) -> np.ndarray:
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    return triangles_of(vtkXMLPolyDataReader(), path)


def triangles_of(reader: Any, path: Path) -> np.ndarray:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    reader.SetFileName(str(path))
    reader.Update()
    poly = reader.GetOutput()
    if not poly.GetNumberOfPoints():
        return np.zeros((0, 3, 3))
    points = vtk_to_numpy(poly.GetPoints().GetData())
    return points[vtk_to_numpy(poly.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
