"""What an audit says: one finding for each thing that is wrong, with where it is, why we think so and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from lungshift.errors import ProtocolError

Severity = Literal["error", "warning", "note"]
"""``error``: not to be used as it is; ``warning``: to be looked at; ``note``: true, and good to know."""
Kind = Literal["file", "intensity", "orientation", "completeness", "geometry", "duplicate", "label"]

CODES: Mapping[str, tuple[Kind, str]] = {
    "unreadable": ("file", "The case cannot be read"),
    "not-hu": ("intensity", "Not Hounsfield units, and no way back is known"),
    "not-hu-window": ("intensity", "A picture through a window instead of HU"),
    "not-hu-offset": ("intensity", "HU with an offset, or stored values without their intercept"),
    "few-levels": ("intensity", "Few grey levels: HU in coarse steps"),
    "saturated": ("intensity", "Bright tissue is cut off at one value"),
    "floor": ("intensity", "Lung and air are cut off at one value"),
    "no-lung": ("orientation", "No lung was found"),
    "flipped-left-right": ("orientation", "Left and right are swapped"),
    "flipped-front-back": ("orientation", "Front and back are swapped"),
    "flipped-head-foot": ("orientation", "Head and foot are swapped"),
    "spacing": ("geometry", "A voxel size that cannot be"),
    "mask-missing": ("file", "A mask is missing"),
    "mask-grid": ("geometry", "A mask lies on another grid than its scan"),
    "mask-flipped": ("geometry", "A mask is mirrored against its scan"),
    "slice-doubled": ("completeness", "A slice is there twice"),
    "slice-missing": ("completeness", "Slices are missing"),
    "slice-spacing": ("completeness", "Slices are not equally far apart"),
    "slice-odd": ("completeness", "A slice unlike both its neighbours"),
    "slice-empty": ("completeness", "A slice without a picture"),
    "cut-off": ("completeness", "The lungs go on where the scan ends"),
    "burnt-in": ("completeness", "Text or marks are burnt into the picture"),
    "same-scan": ("duplicate", "Two cases are one scan"),
    "same-patient": ("duplicate", "Two cases look like one patient"),
    "undeclared-label": ("label", "Label values that nobody declared"),
    "lesion-outside-lung": ("label", "Lesion where there is no lung"),
    "lesion-without-lung": ("label", "Lesion on slices without any lung"),
    "lesion-in-air": ("label", "Lesion as thin as air or healthy lung"),
    "too-wide": ("label", "Outlines drawn wider than the lesion"),
    "lesion-in-vessel": ("label", "Lesion that lies along a vessel"),
    "lesion-in-bone": ("label", "Lesion as dense as bone"),
    "orphan": ("label", "A lesion on one slice only"),
    "gap": ("label", "A lesion that stops and goes on"),
    "slice-wise": ("label", "Outlines that follow the slice and not the lesion"),
    "blocky": ("label", "Masks copied from a coarser grid"),
    "lung-hole": ("label", "A hole in the lung mask where there is lesion or dense lung"),
    "speck": ("label", "Specks of a few voxels"),
    "empty-lesion": ("label", "No lesion is marked"),
    "missing-lesion": ("label", "Networks see lesion that nobody marked"),
    "spurious-lesion": ("label", "Lesion is marked where networks see none"),
    "boundary-drift": ("label", "The outline is far from what networks see"),
}
"""Every code a finding can have: its kind, and in words what is wrong."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a case, or with two.

    Attributes:
        code: One of ``CODES``.
        case: Id of the case.
        severity: ``error``, ``warning`` or ``note``.
        evidence: In words with numbers, why we think so.
        remedy: What to do.
        cohort: Name of the cohort.
        slices: Slices concerned, counted from 0 at the foot; empty for the whole scan.
        voxels: How many voxels are concerned; 0 where that means nothing.
        seat: The voxel (slice, row, column) to look at.
        numbers: What was measured, by name.
        other: Cohort and case id of the second case of a pair.
        error: Code of the error with which reading the case would end, such as ``E_NOT_HU``.

    Raises:
        ProtocolError: A code or severity that does not exist.
    """

    code: str
    case: str
    severity: Severity
    evidence: str
    remedy: str
    cohort: str = ""
    slices: tuple[int, ...] = ()
    voxels: int = 0
    seat: tuple[int, int, int] | None = None
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)
    other: tuple[str, str] | None = None
    error: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES or self.severity not in get_args(Severity):
            raise ProtocolError(
                f"No finding is called {self.code!r} ({self.severity}); codes are {', '.join(CODES)}, "
                f"severities {', '.join(get_args(Severity))}."
            )

    def __str__(self) -> str:
        where = f"{self.cohort}/{self.case}" if self.cohort else self.case
        return f"{self.severity} {self.code} {where}{_slices_text(self.slices)}: {self.evidence}"

    @property
    def kind(self) -> Kind:
        """What part of a case the finding is about."""
        return CODES[self.code][0]

    @property
    def title(self) -> str:
        """What is wrong, in a few words."""
        return CODES[self.code][1]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"kind": self.kind, "title": self.title, "numbers": dict(self.numbers)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """A finding as ``as_dict`` wrote it."""
        plain = {name: value for name, value in values.items() if name not in ("kind", "title")}
        for name in ("slices", "seat", "other"):
            plain[name] = None if plain[name] is None else tuple(plain[name])
        return cls(**plain)


def rank(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings, then notes; within each the scans in their order, and the larger findings first."""
    severities, kinds = get_args(Severity), get_args(Kind)
    return tuple(sorted(findings, key=lambda one: (severities.index(one.severity), kinds.index(one.kind), -one.voxels)))


def runs(slices: Iterable[int]) -> str:
    """Slice numbers as a person writes them: ``3-7, 12``."""
    text: list[list[int]] = []
    for one in sorted(set(slices)):
        if text and one == text[-1][1] + 1:
            text[-1][1] = one
        else:
            text.append([one, one])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in text)


def many(count: int, thing: str) -> str:
    """A number with its noun: ``1 slice``, ``2 slices``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _slices_text(slices: tuple[int, ...]) -> str:
    return f" slice {runs(slices)}" if slices else ""
