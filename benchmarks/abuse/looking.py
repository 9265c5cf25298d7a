"""What can be seen of a run's output, whether each file can be read, and what of it is a time or says that the run was taken up."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import struct
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

TIMES = {"seconds"}
"""Keys of JSON that hold how long something took."""


@dataclass(frozen=True)
class Seen:
    """The files of a run.

    Attributes:
        files: SHA-256 of each file that can be seen, by its name, without what is a time.
        hidden: Names of hidden files and folders, but for the lock, which stays, and the run's own log.
    """

    files: dict[str, str]
    hidden: tuple[str, ...]


def look(folder: Path) -> Seen:
    """Take down what is there now."""
    files, hidden = {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            hidden += [str(name)] if name.name not in (".lock", ".log") else []
        elif path.is_file():
            files[name.as_posix()] = digest_of(path)
    return Seen(files, tuple(hidden))


def digest_of(path: Path) -> str:
    """SHA-256 of a file without what is a time, or says that a study was kept from an earlier run."""
    data = path.read_bytes()
    if path.name.endswith(".json"):
        try:
            data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
        except ValueError:
            return "cannot be read"
    elif path.name == "predictions.csv":
        data = re.sub(rb"^([^,]*),kept,", rb"\1,done,", data, flags=re.M)
    return hashlib.sha256(data).hexdigest()


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        if value.keys() == {"done", "kept", "failed"}:
            return {"done": value["done"] + value["kept"], "failed": value["failed"]}
        return {
            key: "done" if (key, item) == ("status", "kept") else _timeless(item)
            for key, item in value.items()
            if key not in TIMES
        }
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def wrong_with(folder: Path, seen: Seen, whole: Seen | None, whole_folders: Sequence[str]) -> list[str]:
    """Faults among what can be seen: files that cannot be read, folders that appear whole or not at all and are not whole.

    A file with the bytes of the run that was left alone, ``whole``, needs no reading again.
    """
    faults = []
    for name, digest in seen.files.items():
        if whole is None or whole.files.get(name) != digest:
            faults += [f"{name}: {fault}" for fault in [_fault_of(folder / name)] if fault]
            if whole is not None and not _may_differ(name):
                faults.append(f"{name} is not as it is in the end")
    for pattern in whole_folders if whole else ():
        faults += _parted(seen, whole, pattern)
    return faults


def _may_differ(name: str) -> bool:
    """Files that change while a run goes on."""
    return name.endswith(("run.json", ".state.safetensors"))


def _parted(seen: Seen, whole: Seen, pattern: str) -> list[str]:
    """Folders that can be seen without all their files."""

    def by_folder(files: Sequence[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for name in files:
            for parent in PurePosixPath(name).parents:
                if parent.match(pattern) and len(parent.parts) == len(PurePosixPath(pattern).parts):
                    found.setdefault(str(parent), set()).add(name)
        return found

    there, wanted = by_folder(tuple(seen.files)), by_folder(tuple(whole.files))
    return [f"{folder} is half there" for folder, names in there.items() if names != wanted.get(folder)]


def _fault_of(path: Path) -> str:
    """Why a file cannot be read to its end; empty if it can."""
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix
    if suffix not in READERS:
        return f"nothing here reads {suffix or 'a file without suffix'}"
    try:
        READERS[suffix](path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _csv(path: Path) -> None:
    text = path.read_text()
    rows = list(csv.reader(text.splitlines()))
    _require(text.endswith("\n") and len({len(row) for row in rows}) == 1, "rows of several lengths")


def _npz(path: Path) -> None:
    with np.load(path) as arrays:
        for name in arrays.files:
            arrays[name]


def _nifti(path: Path) -> None:
    import nibabel as nib

    np.asanyarray(nib.load(path).dataobj)


def _safetensors(path: Path) -> None:
    from safetensors.numpy import load_file

    _require(all(np.isfinite(one).all() for one in load_file(path).values()), "weights that are not finite")


def _picture(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _page(path: Path) -> None:
    _require(path.read_text().rstrip().endswith("</html>"), "the page has no end")


def _dicom(path: Path) -> None:
    import pydicom

    _require(pydicom.dcmread(path).pixel_array.size > 0, "no pixels")


def _stl(path: Path) -> None:
    data = path.read_bytes()
    _require(len(data) == 84 + 50 * struct.unpack("<I", data[80:84])[0], "facets are missing")


def _ply(path: Path) -> None:
    head, _, body = path.read_bytes().partition(b"end_header\n")
    counts = [int(one) for one in re.findall(rb"element \w+ (\d+)", head)]
    _require(len(counts) == 2 and len(body) >= 12 * counts[0] + 13 * counts[1], "points are missing")


def _glb(path: Path) -> None:
    data = path.read_bytes()
    _require(data[:4] == b"glTF" and struct.unpack("<I", data[8:12])[0] == len(data), "cut off")


def _vtk(path: Path) -> None:
    _require(path.read_bytes().rstrip().endswith(b"</VTKFile>"), "no end")


def _pictures_of_a_cohort(path: Path) -> None:
    from lungshift.prepare.prepared import open_prepared

    cohort = open_prepared(path.parent)
    sizes = [case.slices * case.packed_bytes for case in cohort.cases]
    _require(path.stat().st_size == sum(sizes), "slices are missing")


def _require(right: bool, words: str) -> None:
    if not right:
        raise ValueError(words)


READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": _csv,
    ".npy": np.load,
    ".npz": _npz,
    ".nii.gz": _nifti,
    ".safetensors": _safetensors,
    ".png": _picture,
    ".webp": _picture,
    ".svg": ElementTree.parse,
    ".html": _page,
    ".dcm": _dicom,
    ".stl": _stl,
    ".ply": _ply,
    ".glb": _glb,
    ".vti": _vtk,
    ".vtp": _vtk,
    ".bin": _pictures_of_a_cohort,
    ".toml": lambda path: tomllib.loads(path.read_text()),
    ".py": lambda path: compile(path.read_text(), path.name, "exec"),
    ".txt": lambda path: _require(bool(path.read_text()), "empty"),
}
