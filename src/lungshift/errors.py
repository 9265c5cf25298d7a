"""Every error that lungshift raises on purpose, as one tree.

::

    LungshiftError                 exit 1
    ├── InputError                 what was given cannot be used
    │   ├── FileFormatError        the file is not what it should be: damaged, truncated, another format
    │   ├── GeometryError          grids that do not fit, affines that cannot be
    │   ├── IntensityError         voxels that are not Hounsfield units
    │   ├── AnnotationError        masks whose labels or place are not what was declared
    │   ├── SeriesError            DICOM files that do not make one regular series
    │   ├── CohortError            a folder or manifest that does not describe a usable cohort
    │   ├── RegistrationError      two dates of a patient that do not lie on each other
    │   ├── LeakageError           one patient on both sides of a split
    │   ├── CheckpointError        a checkpoint that does not fit what is asked of it
    │   └── ProtocolError          settings that cannot be carried out
    ├── OutputError                an output folder that may not be written as asked
    ├── TrainingError              a training run that cannot go on (a loss that is not a number)
    ├── PartError           exit 4 part of many has failed; the others are done
    ├── MissingError        exit 5 something of the environment is missing
    └── ResourceError       exit 6 disk or memory is full, or a folder cannot be written

A message says what came, what was expected and what to do; ``code`` is a stable reason such as ``E_TRUNCATED``.
"""

from __future__ import annotations

from typing import ClassVar


class LungshiftError(Exception):
    """Root of the tree; ``code`` names the reason, ``exit_code`` is what the command line returns."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "E_LUNGSHIFT"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.default_code


class InputError(LungshiftError):
    """Something that was given cannot be used."""

    default_code = "E_INPUT"


class FileFormatError(InputError):
    """A file is damaged, truncated, or of another format than expected."""

    default_code = "E_FORMAT"


class GeometryError(InputError):
    """Grids do not fit each other, or an affine cannot be a scanner's."""

    default_code = "E_GEOMETRY"


class IntensityError(InputError):
    """Voxels are not Hounsfield units."""

    default_code = "E_NOT_HU"


class AnnotationError(InputError):
    """A mask's labels or its place are not what was declared."""

    default_code = "E_LABELS"


class SeriesError(InputError):
    """DICOM files do not make one regular series of a chest CT."""

    default_code = "E_SERIES"


class CohortError(InputError):
    """A folder or manifest does not describe a usable cohort."""

    default_code = "E_COHORT"


class RegistrationError(InputError):
    """Two dates of a patient could not be laid on each other well enough to be compared."""

    default_code = "E_REGISTRATION"


class LeakageError(InputError):
    """One patient, or one scan, would stand on both sides of a split."""

    default_code = "E_LEAK"


class CheckpointError(InputError):
    """A checkpoint is damaged, or does not fit what is asked of it."""

    default_code = "E_CHECKPOINT"


class ProtocolError(InputError):
    """Settings that cannot be read or carried out."""

    default_code = "E_PROTOCOL"


class OutputError(LungshiftError):
    """An output folder may not be written as asked."""

    default_code = "E_OUTPUT"


class TrainingError(LungshiftError):
    """A training run cannot go on."""

    default_code = "E_TRAINING"


class PartError(LungshiftError):
    """Part of many has failed and is listed; the others are done."""

    exit_code = 4
    default_code = "E_PART"


class MissingError(LungshiftError):
    """Something of the environment is missing."""

    exit_code = 5
    default_code = "E_MISSING"


class ResourceError(LungshiftError):
    """Disk or memory is full, or a folder cannot be written."""

    exit_code = 6
    default_code = "E_RESOURCE"


def what_is_missing(error: ImportError) -> str:
    """What could not be imported, on one line: a package by its name; where the error has none, what it says."""
    if error.name:
        return f"the package {error.name} is not installed, or does not load"
    said = " ".join(str(error).split())
    return f"something that is needed does not load{f' ({said})' if said else ''}"
