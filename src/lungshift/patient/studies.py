"""Which studies a command is given: NIfTI files, DICOM series, or folders with many of either; and what each is called.

A study's name goes into folder names and tables, so it says nothing of a person: a DICOM series is called by a hash of its UID, a
NIfTI file by its own name after what cannot be a file name was taken out of it. With ``keep_identity`` a series is called by its folder.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lungshift.errors import InputError
from lungshift.files import sha256
from lungshift.io.dicom import DicomSource
from lungshift.io.dicom_series import (
    Choices,
    describe_series,
    scan_folder,
    without_file_names,
    without_uids,
)
from lungshift.io.header import Intake
from lungshift.io.layouts import EITHER_LUNG
from lungshift.io.nifti import NiftiSource
from lungshift.io.orientation import Oblique

NIFTI = (".nii", ".nii.gz")
_LONGEST = 64


@dataclass(frozen=True)
class Study:
    """One scan to predict, not read yet.

    Attributes:
        name: What it is called in everything that is written.
        path: The NIfTI file, or the folder (or multi-frame file) of the series.
        series_uid: Which series of the folder; None for the only one.
        deep: Whether the series is looked for in sub-folders too.
        lung: NIfTI file of its lung mask, if one was given.
        also_in: How many other folders hold a series of the same UID.
        oblique: What to do with a grid that is turned or sheared against the patient.
    """

    name: str
    path: Path
    series_uid: str | None = None
    deep: bool = True
    lung: Path | None = None
    also_in: int = 0
    oblique: Oblique = "refuse"

    @property
    def is_nifti(self) -> bool:
        """Whether it is a NIfTI file; else it is DICOM."""
        return self.path.name.endswith(NIFTI)

    def source(self) -> NiftiSource | DicomSource:
        """What reads it."""
        if self.is_nifti:
            return NiftiSource(self.path, self.lung, lung_labels=EITHER_LUNG, intake=Intake(oblique=self.oblique))
        choices = Choices(oblique=self.oblique)
        return DicomSource(
            self.path, self.series_uid, self.lung, lung_labels=EITHER_LUNG, choices=choices, deep=self.deep
        )

    def scrub(self, text: str) -> str:
        """A message about this study without its path, the names of its files and UIDs."""
        text = without_file_names(text, self.path)
        for name in sorted({str(self.path), self.path.name}, key=len, reverse=True):
            text = text.replace(name, self.name)
        return without_uids(text)


@dataclass(frozen=True)
class Found:
    """The studies of a command.

    Attributes:
        studies: One or more, each with a name of its own.
        single: Whether one scan was given, and not a place where there may be many.
        given: What was given.
    """

    studies: tuple[Study, ...]
    single: bool
    given: tuple[Path, ...]


def find_studies(
    paths: Sequence[Path],
    *,
    series_uid: str | None = None,
    lung: Path | None = None,
    keep_identity: bool = False,
    oblique: Oblique = "refuse",
) -> Found:
    """Look at what was given; headers are read, voxels are not.

    One file, or one folder in which the images lie as in a single series' folder, is one scan: of several series in it one must be
    chosen, as ``io.dicom`` says. Several paths, NIfTI files in a folder, or series in more than one sub-folder are many: each series with
    enough CT images becomes a study of its own, and a folder without any becomes one that fails and says why.

    Args:
        paths: NIfTI files, folders of a DICOM series, or folders of these.
        series_uid: Which series, where one folder is given that holds several.
        lung: Lung mask of the one scan.
        keep_identity: Call series by their folders.
        oblique: Grids that are turned or sheared against the patient: ``refuse`` them, or ``resample`` to the patient's axes.

    Raises:
        InputError: Nothing there (``E_NO_FILE``, ``E_NO_STUDY``), or a choice for one scan where there are many (``E_MANY``).
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"There is no scan {path}.", code="E_NO_FILE")
    if len(paths) == 1 and (series_uid is not None or paths[0].is_file()):
        found = [Study("", paths[0].resolve(), series_uid)]
    else:
        found = [study for path in paths for study in _look(path.resolve())]
    if not found:
        raise InputError(
            f"{', '.join(map(str, paths))}: no NIfTI file and no DICOM image in there. Give a scan, or a folder of scans.",
            code="E_NO_STUDY",
        )
    single = len(paths) == 1 and len(found) == 1
    if not single and (lung or series_uid):
        raise InputError(
            f"{len(found)} studies were found, and one {'lung mask' if lung else 'series'} was given. Give the scan that it belongs to.",
            code="E_MANY",
        )
    named = _with_names([replace(study, lung=lung, oblique=oblique) for study in found], keep_identity=keep_identity)
    return Found(tuple(named), single, tuple(paths))


def _look(path: Path) -> list[Study]:
    if path.is_file():
        return [Study("", path)]
    scans = [Study("", file) for file in sorted(path.rglob("*")) if file.name.endswith(NIFTI) and file.is_file()]
    below = [one for folder in sorted(path.iterdir()) if folder.is_dir() for one in _series(folder, deep=True)]
    here = _series(path, deep=False)
    if len(here) > 1 and not scans and not below:
        return [Study("", path)]  # one folder of images: which series it is must be said
    if len(below) == 1 and not scans and not here:
        return [Study("", path, below[0].series_uid)]
    return [*scans, *here, *below]


def _series(folder: Path, *, deep: bool) -> list[Study]:
    """The CT series of a folder; one study that will say why if it has images and none that can be read as CT."""
    inventory = scan_folder(folder, deep=deep)
    fit = [info for info in describe_series(inventory, Choices()) if info.slices >= Choices().min_slices]
    if fit:
        return [Study("", folder, info.uid, deep) for info in fit]
    passed = [reason for reason, names in inventory.passed_over.items() if not all(map(_is_nifti, names))]
    lost = any(reason not in {"not a DICOM file", "not a regular file"} for reason in passed)
    return [Study("", folder, None, deep)] if inventory.series or lost else []


def _is_nifti(name: str) -> bool:
    return name.endswith(NIFTI)


def _with_names(studies: Sequence[Study], *, keep_identity: bool) -> list[Study]:
    """The studies with names that are names of folders too, each once; what would be called alike is told apart by content."""
    first = [_plain_name(study, keep_identity=keep_identity) for study in studies]
    names = [
        f"{name}-{_content(study)[:6]}" if first.count(name) > 1 else name
        for name, study in zip(first, studies, strict=True)
    ]
    seen, named = Counter[str](), []
    uids = Counter(study.series_uid for study in studies if study.series_uid)
    for name, study in zip(names, studies, strict=True):
        seen[name] += 1
        other = uids[study.series_uid] - 1 if study.series_uid else 0
        named.append(replace(study, name=name if seen[name] == 1 else f"{name}-{seen[name]}", also_in=other))
    return named


def _plain_name(study: Study, *, keep_identity: bool) -> str:
    if study.is_nifti or keep_identity:
        return sanitise(study.path.name.removesuffix(".gz").removesuffix(".nii"))
    return f"ct-{hashlib.sha256((study.series_uid or _content(study)).encode()).hexdigest()[:12]}"


def sanitise(name: str) -> str:
    """A name as a folder on any system may have it: letters, digits, ``_``, ``-`` and ``.``, at most 64, none of it leading out."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:_LONGEST].rstrip("._-")
    return plain or "scan"


def _content(study: Study) -> str:
    """SHA-256 of the study's first file: two copies of one scan are alike, two scans are not."""
    files: Iterable[Path] = [study.path] if study.path.is_file() else sorted(study.path.rglob("*"))
    return next((sha256(file) for file in files if file.is_file()), "nothing")
