"""One annotated scan, and the cohort it belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CohortError

LungSource = Literal["reader", "model", "threshold", "none"]
"""Who drew the lung mask: a reader, a model, a threshold; an oracle at test time should be known as one."""


@dataclass(frozen=True)
class Case:
    """A scan with what was drawn on it, in memory; ``lung_model`` is the fingerprint of the checkpoint, where a model drew the lungs.

    Raises:
        GeometryError: A mask is not on the grid of the scan.
    """

    volume: Volume
    lung: Mask | None = None
    lesion: Mask | None = None
    case_id: str = "case"
    patient_id: str = ""
    lung_source: LungSource = "reader"
    lung_model: str = ""

    def __post_init__(self) -> None:
        if not self.patient_id:
            object.__setattr__(self, "patient_id", self.case_id)
        if self.lung is None:
            object.__setattr__(self, "lung_source", "none")
        for name, mask in (("lung", self.lung), ("lesion", self.lesion)):
            if mask is not None:
                self.volume.geometry.require_same(mask.geometry, f"{self.case_id}: scan and {name} mask")


@dataclass(frozen=True, eq=False)
class CaseSlice:
    """One slice of a case on its way through: HU as int16 or float32, and the masks that exist."""

    index: int
    hu: np.ndarray
    lung: Bool[np.ndarray, "row column"] | None
    lesion: Bool[np.ndarray, "row column"] | None


@runtime_checkable
class CaseSource(Protocol):
    """Where a case comes from; nothing is read before it is asked for."""

    @property
    def geometry(self) -> Geometry:
        """The scan's grid, known from the header."""

    @property
    def has_lung(self) -> bool:
        """Whether a lung mask exists."""

    @property
    def has_lesion(self) -> bool:
        """Whether a lesion mask exists."""

    def read(self) -> tuple[Volume, Mask | None, Mask | None]:
        """The whole scan with its lung and lesion masks."""

    def slices(self) -> Iterator[CaseSlice]:
        """Every slice once, in the order of the file, in constant memory."""

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file that the case is read from, by what it is (scan, lung, lesion) and its name."""


@dataclass(frozen=True)
class CaseRecord:
    """A case of a cohort that has not been read yet: who it is, and where it comes from.

    Attributes:
        case_id: Unique in its cohort.
        patient_id: Cases of one patient share it; what a split must not tear apart.
        source: Reads the case on demand.
        site: Hospital or scanner, where known.
        date: Date of the scan as YYYY-MM-DD, where known.
        lung_source: Who drew the lung mask.
    """

    case_id: str
    patient_id: str
    source: CaseSource
    site: str = ""
    date: str = ""
    lung_source: LungSource = "reader"

    @cached_property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file that the case is read from, by what it is (scan, lung, lesion) and its name."""
        return self.source.checksums()

    @property
    def scan_checksums(self) -> frozenset[str]:
        """SHA-256 of the scan's own files; cases that share one are one scan. Two empty masks may well be alike."""
        return frozenset(digest for name, digest in self.checksums.items() if name.startswith("scan "))

    def read(self) -> Case:
        """Read the scan and its masks into memory."""
        volume, lung, lesion = self.source.read()
        return Case(volume, lung, lesion, self.case_id, self.patient_id, self.lung_source)


@dataclass(frozen=True)
class Cohort:
    """Annotated scans of one origin.

    Raises:
        CohortError: No case at all, two cases of one id, or a name that cannot be a folder's.
    """

    name: str
    cases: tuple[CaseRecord, ...]
    licence: str = ""
    source: str = ""
    patients_known: bool = field(default=True)

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or set(self.name) & set("/\\\0"):
            raise CohortError(
                f"A cohort's name is a folder's too: not empty, no slash, no dot in front; got {self.name!r}."
            )
        if not self.cases:
            raise CohortError(
                f"Cohort {self.name!r} has no case. Point lungshift at a folder that holds scans.",
                code="E_EMPTY_COHORT",
            )
        double = [case_id for case_id, n in Counter(case.case_id for case in self.cases).items() if n > 1]
        if double:
            raise CohortError(
                f"Cohort {self.name!r} has more than one case called {', '.join(double)}; ids must be unique."
            )

    @property
    def patients(self) -> tuple[str, ...]:
        """The patients, in the order of their first case."""
        return tuple(dict.fromkeys(case.patient_id for case in self.cases))

    def read(self) -> Iterator[Case]:
        """The cases one after another, each read when its turn comes."""
        return (case.read() for case in self.cases)


@dataclass(frozen=True, eq=False)
class InMemory:
    """A ``CaseSource`` of a case that is already in memory, or that a function makes on demand."""

    make: Callable[[], Case]
    geometry: Geometry
    has_lung: bool = True
    has_lesion: bool = True
    digest: str = ""

    @classmethod
    def of(cls, case: Case) -> InMemory:
        """The source of a case in memory."""
        return cls(lambda: case, case.volume.geometry, case.lung is not None, case.lesion is not None)

    def read(self) -> tuple[Volume, Mask | None, Mask | None]:
        """The case's volume, lung and lesion."""
        case = self.make()
        return case.volume, case.lung, case.lesion

    def slices(self) -> Iterator[CaseSlice]:
        """The case's slices from foot to head."""
        volume, lung, lesion = self.read()
        for index, hu in enumerate(volume.hu):
            yield CaseSlice(
                index,
                hu,
                None if lung is None else lung.voxels[index],
                None if lesion is None else lesion.voxels[index],
            )

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the arrays, or the digest that stands for what makes them."""
        import hashlib

        if self.digest:
            return {"scan generated": self.digest}
        volume, lung, lesion = self.read()
        grid = (volume.geometry.shape, volume.geometry.affine.tolist())
        arrays = {"scan": volume.hu} | {n: m.voxels for n, m in (("lung", lung), ("lesion", lesion)) if m is not None}
        return {
            f"{name} voxels": hashlib.sha256(
                f"{array.dtype}{grid}".encode() + np.ascontiguousarray(array).tobytes()
            ).hexdigest()
            for name, array in arrays.items()
        }
