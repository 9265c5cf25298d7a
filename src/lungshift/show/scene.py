"""One chest in 3-D: the lungs, the predicted lesions and the reader's, written for the programs that people have.

Everything lies in one place, LPS millimetres, except the tables when a constant step between slices was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from pprint import pformat
from typing import Any, Final

import numpy as np

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import InputError, MissingError
from lungshift.files import new_folder, require_free, sha256, write_bytes, write_json, write_text
from lungshift.show import meshes, pictures
from lungshift.show.cameras import cameras_of
from lungshift.show.drawing import rgb
from lungshift.show.figures import PREDICTION, REFERENCE
from lungshift.show.meshes import Look
from lungshift.show.points import Slice, write_points
from lungshift.show.surfaces import Surface, require_vtk, surface_of
from lungshift.show.viewer import ViewerDate, write_viewer
from lungshift.show.words import RESEARCH_ONLY, listed

FORMATS: Final = ("csv", "vti", "vtp", "stl", "ply", "glb", "paraview", "viewer", "png", "gif", "mp4")
FILES: Final = FORMATS[:8]
"""What is written when nothing is said; pictures are asked for."""
PICTURES: Final = FORMATS[8:]
_DRAWN_MM = 2.0
"""Blocks of about this size make the lungs of pictures: a screen shows no more."""
_THROUGH, _FAINTEST = 0.45, 0.005
"""Opacity of all points of a translucent table behind each other, and the least of one that a screen can show."""
_COARSEST = 4
"""Every fifth voxel of a scan of 5 mm would be further apart than many a lesion is large."""


def _colour(code: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in rgb(code))
    return red, green, blue


_LOOKS: Final = {
    "lung": Look("lung", (186, 182, 178), 0.22),
    "prediction": Look("lesion (predicted)", _colour(PREDICTION), 1.0),
    "reference": Look("lesion (reference)", _colour(REFERENCE), 0.5),
}
_NO_VTK = frozenset({"csv"})


@dataclass(frozen=True, eq=False)
class Part:
    """One structure of a scene.

    Attributes:
        name: ``lung``, ``prediction`` or ``reference``; its files are called so.
        mask: Its voxels.
        look: How it is drawn.
    """

    name: str
    mask: Mask
    look: Look

    @cached_property
    def surface(self) -> Surface:
        """Its surface in full."""
        return surface_of(self.mask)

    @property
    def empty(self) -> bool:
        """Whether there is nothing of it."""
        return not self.mask.voxels.any()


@dataclass(frozen=True, eq=False)
class Scene:
    """A chest ready to be written: the scan, and the structures on it, the lungs first."""

    volume: Volume
    parts: tuple[Part, ...]

    @property
    def lung(self) -> Part:
        """The lungs."""
        return self.parts[0]


@dataclass(frozen=True)
class Written:
    """What came of writing a scene.

    Attributes:
        folder: Where it is.
        files: Names of all files.
        notes: What a user should know: nothing predicted, pictures that could not be drawn.
    """

    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def build_scene(case: Case, prediction: Mask | None = None) -> Scene:
    """Put a scan, its lungs and its lesions together.

    Args:
        case: The scan with its lung mask; its lesion mask, if it has one, is the reference.
        prediction: What a model found.

    Raises:
        GeometryError: The prediction is not on the scan's grid.
        InputError: There is no lung mask, or it is empty.
    """
    if case.lung is None or not case.lung.voxels.any():
        raise InputError("A scene needs the lungs: the lung mask is missing or empty.", code="E_NO_LUNG")
    masks = {"lung": case.lung, "prediction": prediction, "reference": case.lesion}
    for name, mask in masks.items():
        if mask is not None:
            case.volume.geometry.require_same(mask.geometry, f"Scan and {name} mask")
    return Scene(case.volume, tuple(Part(name, mask, _LOOKS[name]) for name, mask in masks.items() if mask))


def write_scene(
    scene: Scene,
    folder: Path,
    formats: Collection[str] = FILES,
    *,
    z_step_mm: float | None = None,
    downsample: int = 1,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
) -> Written:
    """Write a scene into a folder that appears when all of it is there.

    Args:
        scene: What to write.
        folder: A new folder.
        formats: Some of ``FORMATS``.
        z_step_mm: Replaces z in the tables of points by the number of the slice times this, as the source paper has it.
        downsample: Every so-manieth voxel along each axis goes into the ``.vti`` and the table of the lungs, and blocks of
            as many make the surface of the lungs. Lesions stay in full in their tables and surfaces.
        overwrite: Replace an existing folder.
        inputs: Checksums of what the scene was read from, by role, for ``scene.json``; no names.

    Returns:
        The files, and what should be said about them. Pictures that cannot be drawn here are left out and named, unless
        nothing else was asked for.

    Raises:
        InputError: A format that does not exist, or a step or factor that cannot be.
        MissingError: VTK is not installed, or only pictures were asked for and none can be drawn.
        OutputError: The folder exists.
        ResourceError: The disk is full or the folder cannot be written.
    """
    _require_sensible(formats, z_step_mm, downsample)
    wanted, notes = _plan(formats)
    require_free(folder, overwrite=overwrite)
    notes += [f"The {part.look.name} is empty: its files hold no point." for part in scene.parts if part.empty]
    job = _Job(scene, wanted, z_step_mm, downsample)
    with new_folder(folder, overwrite=overwrite) as room:
        for write in job.writers():
            write(room)
        write_text(room / "README.txt", job.readme(notes))
        names = sorted(file.name for file in room.iterdir())
        write_json(room / "scene.json", job.manifest(room, names, notes, inputs or {}))
    return Written(folder, (*names, "scene.json"), tuple(notes))


def _require_sensible(formats: Collection[str], z_step_mm: float | None, downsample: int) -> None:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown or not formats:
        raise InputError(f"A scene has the formats {listed(FORMATS)}; got {listed(unknown) or 'none'}.")
    if not 1 <= downsample <= _COARSEST or (z_step_mm is not None and not 0 < z_step_mm < math.inf):
        raise InputError(f"downsample is 1 to {_COARSEST} and a z step above 0 mm; got {downsample} and {z_step_mm}.")


def _plan(formats: Collection[str]) -> tuple[tuple[str, ...], list[str]]:
    """The formats that can be written here, and what to say about the others."""
    wanted, notes = [one for one in FORMATS if one in formats], []
    if set(wanted) - _NO_VTK:
        require_vtk()
    missing = _missing(wanted)
    left = [one for one in wanted if one not in missing]
    if not left:
        raise MissingError(next(iter(missing.values())))
    for reason in dict.fromkeys(missing.values()):
        gone = [one for one in missing if missing[one] == reason]
        notes.append(f"Without {listed(gone)}: {reason}")
    return tuple(left), notes


def _missing(wanted: Collection[str]) -> dict[str, str]:
    """Formats that cannot be written here, with the reason."""
    drawn = [one for one in wanted if one in PICTURES]
    if not drawn:
        return {}
    try:
        pictures.require_drawing()
    except MissingError as error:
        return dict.fromkeys(drawn, str(error))
    if "mp4" in drawn and pictures.find_ffmpeg() is None:
        return {"mp4": pictures.NO_FFMPEG}
    return {}


@dataclass(frozen=True, eq=False)
class _Job:
    """One scene on its way to disk."""

    scene: Scene
    formats: tuple[str, ...]
    z_step_mm: float | None
    downsample: int

    def writers(self) -> Iterator[Callable[[Path], None]]:
        """What writes the formats, in order."""
        writers: dict[str, Callable[[Path], None]] = {
            "csv": self._tables,
            "vti": self._volume,
            "vtp": partial(self._surfaces, suffix="vtp"),
            "stl": partial(self._surfaces, suffix="stl"),
            "ply": partial(self._surfaces, suffix="ply"),
            "glb": lambda room: meshes.write_glb([*self.surfaces.values()], room / "scene.glb"),
            "paraview": lambda room: write_text(room / "open_in_paraview.py", self._script()),
            "viewer": self._viewer,
        }
        yield from (write for one, write in writers.items() if one in self.formats)
        if any(one in PICTURES for one in self.formats):
            yield self._pictures

    @cached_property
    def surfaces(self) -> dict[str, tuple[Surface, Look]]:
        """Every part's surface and look by its name; the lungs' by blocks where that was asked for."""
        made = {part.name: part.surface for part in self.scene.parts if part is not self.scene.lung}
        lung = self.scene.lung
        surface = lung.surface if self.downsample == 1 else surface_of(lung.mask, step=self.downsample)
        return {part.name: (({"lung": surface} | made)[part.name], part.look) for part in self.scene.parts}

    def _viewer(self, room: Path) -> None:
        masks = {part.name: part.mask for part in self.scene.parts}
        case = Case(self.scene.volume, masks["lung"], masks.get("reference"))
        write_viewer(room / "viewer.html", [ViewerDate("Scan", case, masks.get("prediction"))])

    def _tables(self, room: Path) -> None:
        for part in self.scene.parts:
            thin = self.downsample if part is self.scene.lung else 1
            geometry = thinned(part.mask.geometry, thin)
            hu = self.scene.volume.hu if part is self.scene.lung else None
            write_points(room / f"{part.name}.csv", geometry, _slices(hu, part.mask, thin), z_step_mm=self._step(thin))

    def _step(self, thin: int) -> float | None:
        return None if self.z_step_mm is None else self.z_step_mm * thin

    def _volume(self, room: Path) -> None:
        pick = (slice(None, None, self.downsample),) * 3
        arrays = {"HU": self.scene.volume.hu[pick]}
        arrays |= {part.name: part.mask.voxels[pick].view(np.uint8) for part in self.scene.parts}
        meshes.write_vti(arrays, thinned(self.scene.volume.geometry, self.downsample), room / "scene.vti")

    def _surfaces(self, room: Path, suffix: str) -> None:
        for name, (surface, look) in self.surfaces.items():
            path = room / f"{name}.{suffix}"
            if suffix == "stl":
                meshes.write_stl(surface, path)
            else:
                (meshes.write_vtp if suffix == "vtp" else meshes.write_ply)(surface, look, path)

    def _pictures(self, room: Path) -> None:
        spacing = self.scene.volume.geometry.spacing_mm
        coarse = tuple(max(1, round(_DRAWN_MM / one)) for one in spacing)
        lung = self.scene.lung
        shapes = [(surface_of(lung.mask, step=coarse), lung.look)]  # type: ignore[arg-type]
        shapes += [(part.surface, part.look) for part in self.scene.parts[1:] if not part.empty]
        words = {part.look.name: f"{part.look.name}, {part.mask.volume_ml:,.1f} ml" for part in self.scene.parts}
        if "png" in self.formats:
            for name, png in pictures.draw_views(shapes, words).items():
                write_bytes(room / f"{name}.png", png)
        if {"gif", "mp4"} & set(self.formats):
            frames = pictures.draw_turntable(shapes, words)
            if "gif" in self.formats:
                write_bytes(room / "turntable.gif", pictures.to_gif(frames))
            if "mp4" in self.formats:
                pictures.write_mp4(frames, room / "turntable.mp4")

    def _script(self) -> str:
        """ParaView's script with what this scene has."""
        values = {
            "PARTS": [self._script_part(part) for part in self.scene.parts if not part.empty],
            "CAMERAS": {name: asdict(one) for name, one in cameras_of(self._shown()).items()},
            "BACKGROUND": list(pictures.BACKGROUND),
            "VOLUME": "scene.vti" if "vti" in self.formats else None,
            "POINT_MM": round(self._point_mm, 3),
            "TABLES_ARE_IN_PLACE": self.z_step_mm is None,
        }
        text = (files("lungshift.show") / "templates" / "open_in_paraview.py.txt").read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f'"@{name}@"', pformat(value, width=110, sort_dicts=False))
        return text

    @property
    def _point_mm(self) -> float:
        """Across a point of a table, so that neighbours touch."""
        return max(self.scene.volume.geometry.spacing_mm) * self.downsample

    def _script_part(self, part: Part) -> dict[str, Any]:
        return {
            "name": part.look.name,
            "surface": f"{part.name}.vtp" if "vtp" in self.formats else None,
            "table": f"{part.name}.csv" if "csv" in self.formats else None,
            "colour": list(part.look.colour),
            "opacity": part.look.opacity,
            "point_opacity": round(_point_opacity(part, self._point_mm), 4),
        }

    def _shown(self) -> list[Surface]:
        return [surface for surface, _ in self.surfaces.values() if len(surface.triangles)]

    def readme(self, notes: Iterable[str]) -> str:
        """What the files are, where their points are, and what they may be used for."""
        z = (
            f"In the CSV tables z is the number of the slice times {self.z_step_mm:g} mm, as was asked for: the tables do not "
            "lie on the other files."
            if self.z_step_mm is not None
            else "All files lie in one place."
        )
        thin = f" Only every {self.downsample}th voxel of scan and lungs is written." if self.downsample > 1 else ""
        return "\n".join([*_README, z + thin, "", *notes, *([""] if notes else []), f"{RESEARCH_ONLY}.", ""])

    def manifest(
        self, room: Path, names: Iterable[str], notes: Iterable[str], inputs: Mapping[str, str]
    ) -> dict[str, Any]:
        """The run as data; nothing in it says whose scan it is."""
        geometry = self.scene.volume.geometry
        return {
            "made_by": {"lungshift": version("lungshift"), "numpy": version("numpy"), "vtk": _version("vtk")},
            "space": "LPS",
            "unit": "mm",
            "grid": {"shape": geometry.shape, "affine": geometry.affine.tolist()},
            "parts": [_facts(part) for part in self.scene.parts],
            "settings": {"formats": self.formats, "z_step_mm": self.z_step_mm, "downsample": self.downsample},
            "inputs": dict(inputs),
            "files": {name: sha256(room / name) for name in names},
            "notes": list(notes),
            "use": RESEARCH_ONLY,
        }


_README = (
    "A chest in 3-D, written by lungshift.",
    "",
    "Coordinates are millimetres in the patient's LPS space, the world of DICOM: x grows to the patient's left, y to the",
    "back, z to the head. The origin is the scanner's. For RAS turn the signs of x and y round.",
    "",
    "lung, prediction, reference   the lungs, what the model found, what the reader drew",
    "*.csv     a row x,y,z,value for every voxel: HU for the lungs, 1 for lesions; coordinates to 0.01 mm",
    "*.vtp     surfaces for VTK and ParaView; *.stl, *.ply and scene.glb hold the same triangles",
    "scene.vti the scan and the masks on its grid, with origin, spacing and direction",
    "scene.glb is in LPS millimetres too, not in metres with y up as glTF has it: turn it in a viewer that expects that",
    "open_in_paraview.py   opens the folder in ParaView; in this folder: paraview --script=open_in_paraview.py",
    "viewer.html   opens in a browser by double click, without a network: slices, surfaces, list of lesions; a coarser copy",
    "scene.json   what was written with which settings, with checksums",
    "",
)


def thinned(geometry: Geometry, every: int) -> Geometry:
    """The grid of every so-manieth voxel along each axis, from the first on."""
    affine = np.array(geometry.affine)
    affine[:3, :3] *= every
    slices, rows, columns = (-(-n // every) for n in geometry.shape)
    return geometry if every == 1 else Geometry((slices, rows, columns), affine)


def _slices(hu: np.ndarray | None, mask: Mask, every: int) -> Iterator[Slice]:
    """The slices of a table, one at a time."""
    for number, index in enumerate(range(0, mask.geometry.shape[0], every)):
        voxels = mask.voxels[index, ::every, ::every]
        yield number, None if hu is None else hu[index, ::every, ::every], voxels


def _facts(part: Part) -> dict[str, Any]:
    voxels = int(np.count_nonzero(part.mask.voxels))
    return {"name": part.name, "voxels": voxels, "volume_ml": round(part.mask.volume_ml, 3)}


def _point_opacity(part: Part, point_mm: float) -> float:
    """How opaque a point is to be, for many lie behind each other; together they let through what is inside."""
    if part.look.opacity == 1:
        return 1.0
    slice_mm, _, column_mm = part.mask.geometry.spacing_mm
    seen_mm2 = np.count_nonzero(part.mask.voxels.any(axis=1)) * slice_mm * column_mm
    layers = np.count_nonzero(part.mask.voxels) * math.pi * (point_mm / 2) ** 2 / seen_mm2
    return float(np.clip(1 - (1 - _THROUGH) ** (1 / layers), _FAINTEST, 1))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
