"""What is missing or wrong in the environment, in plain words: packages, decoders, what draws in 3-D, the machine.

Native libraries can end a process where they do not fit, so each is tried by a child. Nothing here may need what it looks for: only the
standard library is imported at once.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage
from typing import Literal

from lungshift.errors import MissingError

State = Literal["fine", "look", "without", "wrong"]
"""``fine``; ``look``, works but may surprise; ``without``, an optional thing that is missing; ``wrong``, something needed is missing."""

LITTLE_MEMORY, LITTLE_DISK = 2 << 30, 2 << 30
"""Bytes below which it is worth a word: a scan takes less, a study of a cohort more."""

_PACKAGE = "lungshift"
_PATIENCE_S = 120
_REINSTALL = "Install again: make install, or pip install --force-reinstall {0}"
_NATIVE = {
    "numpy": "import numpy",
    "scipy": "import scipy.ndimage",
    "isal": "import isal.isal_zlib",
    "pillow": "import PIL.Image",
    "simpleitk": "import SimpleITK",
    "matplotlib": "import matplotlib.figure",
    "torch": "import torch; torch.zeros(1) + 1",
    "lightning": "import lightning.fabric",
    "openvino": "from lungshift.learn.engine_openvino import import_openvino; import_openvino()",
    "highdicom": "import highdicom",
    "pyjpegls": "import jpeg_ls",
    "pylibjpeg-openjpeg": "import openjpeg",
    "python-gdcm": "import gdcm",
}
"""Packages with native code, and what a child does to see that they load."""
_TOLD = ("torch", "lightning", "openvino", "numpy", "highdicom")
_WHAT_FOR = {
    "openvino": "prediction on a CPU; torch does it instead, some 4 times slower",
    "highdicom": "DICOM segmentations; NIfTI masks do without",
    "pyjpegls": "DICOM scans in JPEG-LS",
    "pylibjpeg": "DICOM scans in JPEG 2000",
    "pylibjpeg-openjpeg": "DICOM scans in JPEG 2000",
    "python-gdcm": "DICOM scans in JPEG Lossless",
}
"""Packages that come with lungshift and that most of it works without."""
_VTK_FOR = "surfaces, the viewer, files and pictures in 3-D"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        state: How it is.
        found: What was found, in words.
        remedy: What to do, where something is to be done.
    """

    what: str
    state: State
    found: str
    remedy: str = ""


def examine(folder: Path) -> tuple[Check, ...]:
    """Look at everything; takes some seconds, as native libraries are loaded by child processes.

    Args:
        folder: Where results would be written.
    """
    return (*_python(), *_packages(), *_beside_torch(), *_vtk(), *_cluster(), *_ffmpeg(), *_machine(folder))


def require_healthy(checks: Sequence[Check]) -> None:
    """Refuse an environment in which something needed is missing or wrong.

    Raises:
        MissingError: It is; the message names what.
    """
    if wrong := [check.what for check in checks if check.state == "wrong"]:
        raise MissingError(f"{', '.join(wrong)}: needed, and missing or wrong; see above what to do.")


def _python() -> Iterator[Check]:
    yield Check(_PACKAGE, "fine", metadata.version(_PACKAGE))
    here = platform.python_version()
    wanted = metadata.metadata(_PACKAGE)["Requires-Python"] or ""
    fits = _fits(here, wanted)
    yield Check(
        "Python",
        "fine" if fits else "wrong",
        f"{here}; {wanted} is needed",
        "" if fits else "Make the environment with a newer Python.",
    )


def _packages() -> Iterator[Check]:
    """Every package that lungshift names as needed: there, of a fitting version, and loading."""
    needed = dict(_needed())
    found = {name: _version(name) for name in needed}
    broken = _broken([name for name in _NATIVE if found.get(name)])
    fine = []
    for name, wanted in needed.items():
        here = found[name]
        if here is None:
            yield _lacking(name, "not installed", _REINSTALL.format(_PACKAGE))
        elif not _fits(here, wanted):
            yield Check(name, "wrong", f"{here}; {wanted} is needed", _REINSTALL.format(_PACKAGE))
        elif name in broken:
            yield _lacking(name, f"{here} does not load: {broken[name]}", _REINSTALL.format(name))
        else:
            fine.append(name)
    told = ", ".join(f"{name} {found[name]}" for name in _TOLD if name in fine)
    yield Check("packages", "fine", f"{len(fine)} of the {len(needed)} that are needed are as they should be ({told})")


def _lacking(name: str, found: str, remedy: str) -> Check:
    if name in _WHAT_FOR:
        return Check(name, "without", f"{found}: {_WHAT_FOR[name]}", remedy)
    return Check(name, "wrong", found, remedy)


def _needed() -> Iterator[tuple[str, str]]:
    """Names and versions that lungshift's own metadata asks for, less those of extras."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    for line in metadata.requires(_PACKAGE) or ():
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield canonicalize_name(one.name), str(one.specifier)


def _fits(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _broken(names: Sequence[str]) -> dict[str, str]:
    """Those of the packages that do not load, and why; a child that dies is followed by one for the rest."""
    broken, left = {}, list(names)
    while left:
        code = "\n".join(f"{_NATIVE[name]}\nprint({name!r}, flush=True)" for name in left)
        loaded, why = _try(code)
        left = left[len(loaded) :]
        if left:
            broken[left.pop(0)] = why
    return broken


def _try(code: str) -> tuple[list[str], str]:
    """The lines that a child printed, and how it ended if not well."""
    command = [sys.executable, "-c", f"import faulthandler; faulthandler.disable()\n{code}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        return (said.decode() if isinstance(said, bytes) else said).splitlines(), f"no end after {_PATIENCE_S} s"
    if done.returncode < 0:
        return done.stdout.splitlines(), f"its process was killed by signal {-done.returncode}"
    return done.stdout.splitlines(), (done.stderr.strip().splitlines() or ["no word"])[-1]


def _beside_torch() -> Iterator[Check]:
    """A torchvision is not needed, and one that was built for another torch breaks lightning, which imports it where it is found."""
    if (here := _version("torchvision")) is None:
        return
    fix = "pip uninstall torchvision; nothing here needs it."
    if _try("import torchvision, lightning.fabric, torchmetrics\nprint(1)")[0]:
        yield Check(
            "torchvision", "look", f"{here} is installed; beside another build of torch it breaks lightning", fix
        )
    else:
        yield Check("torchvision", "wrong", f"{here} does not fit this torch, and breaks lightning", fix)


def _vtk() -> Iterator[Check]:
    here = _version("vtk")
    if here is None or find_spec("vtkmodules") is None:
        yield Check("VTK", "without", f"not installed: {_VTK_FOR}", f"pip install '{_PACKAGE}[viz3d]'")
        return
    loaded, why = _try("import vtkmodules.vtkFiltersCore\nprint(1)")
    if not loaded:
        yield Check("VTK", "without", f"{here} does not load ({why}): {_VTK_FOR}", _REINSTALL.format("vtk"))
        return
    yield Check("VTK", "fine", here)
    try:
        from lungshift.show.pictures import can_draw
    except ImportError:
        return  # one of the packages above; it was named
    if can_draw():
        yield Check("drawing", "fine", "VTK can draw without a screen")
    else:
        yield Check(
            "drawing",
            "without",
            "VTK finds neither EGL nor OSMesa: pictures in 3-D (png, gif, mp4) are left out; surfaces and the viewer do without",
            "Install one of them (Debian: libegl1 or libosmesa6).",
        )


def _cluster() -> Iterator[Check]:
    if here := _version("distributed"):
        yield Check("dask.distributed", "fine", here)
    else:
        yield Check("dask.distributed", "without", "not installed: --scheduler", f"pip install '{_PACKAGE}[cluster]'")


def _ffmpeg() -> Iterator[Check]:
    try:
        from lungshift.show.pictures import find_ffmpeg
    except ImportError:
        return
    if here := find_ffmpeg():
        yield Check("ffmpeg", "fine", Path(here).name)
    else:
        yield Check(
            "ffmpeg",
            "without",
            "not found: mp4 films; the gif does without",
            "Install it, or pip install imageio-ffmpeg.",
        )


def _machine(folder: Path) -> Iterator[Check]:
    """What computes, and how much room there is."""
    yield from _card()
    yield from _threads()
    free = disk_usage(_existing(folder)).free
    word = partial(_room, of="disk", where=" in this folder's file system", little=LITTLE_DISK)
    yield (
        word(free)
        if os.access(_existing(folder), os.W_OK)
        else Check("disk", "look", "this folder cannot be written", "Name another with --output.")
    )
    try:
        from lungshift.memory import available_bytes

        yield _room(available_bytes(), of="memory", where="", little=LITTLE_MEMORY)
    except ImportError:
        return


def _room(free: int, *, of: str, where: str, little: int) -> Check:
    said = f"{free / 2**30:.1f} GiB free{where}"
    if free >= little:
        return Check(of, "fine", said)
    return Check(of, "look", said, "Enough for a single scan perhaps; what does not fit is refused before it is begun.")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(one for one in (folder.resolve(), *folder.resolve().parents) if one.exists())


def _card() -> Iterator[Check]:
    lines, why = _try("from lungshift.learn.machine import name_device\nprint(name_device('auto'))")
    yield (
        Check("device", "fine", f"auto is {lines[-1]}") if lines else Check("device", "wrong", why, "See torch above.")
    )


def _threads() -> Iterator[Check]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > cores:
        yield Check(
            "threads",
            "look",
            f"OMP_NUM_THREADS is {said} on {cores} cores",
            "Set it to the cores or less: more is slower.",
        )
        return
    wait = os.environ.get("OMP_WAIT_POLICY", "").upper()
    if wait == "ACTIVE":
        yield Check(
            "threads",
            "look",
            "OMP_WAIT_POLICY is ACTIVE: where others compute too, work takes many times longer",
            "Unset it.",
        )
        return
    yield Check("threads", "fine", f"{said or 'as many as cores'}, on {cores} cores")
