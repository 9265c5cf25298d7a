"""Suspects as findings, with their belief, and as masks on the scan's own pixels; kept on disk so that decisions can be carried out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Bool

from lungshift.audit.finding import Finding, Severity
from lungshift.audit.suspects import Suspect
from lungshift.errors import InputError
from lungshift.files import digest, write_arrays, write_json
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.prepared import PreparedCase

ERROR_BELIEF, WARNING_BELIEF = 0.8, 0.4
"""From these beliefs on a suspect is an error, or a warning; else a note."""

_LIST = "suspects.json"
_WORDS = {
    "missing-lesion": ("networks that never saw the patient see {ml:.2f} ml of lesion that nobody marked", "Mark it, or reject."),
    "spurious-lesion": ("{ml:.2f} ml are marked where networks that never saw the patient see none", "Erase it, or reject."),
    "boundary-drift": (
        "the outline differs by {ml:.2f} ml from what networks that never saw the patient see",
        "Redraw the outline, or reject.",
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Judged:
    """A suspect of one case with how likely it is an error of the label.

    Attributes:
        cohort: Name of the cohort.
        case: The prepared case.
        suspect: On the case's prepared pictures; its slices are counted from the foot of the scan.
        belief: Probability that it is an error; NaN where nothing could be learned.
        size: Rows and columns of the pictures.
    """

    cohort: str
    case: PreparedCase
    suspect: Suspect
    belief: float
    size: int

    @property
    def identity(self) -> str:
        """What a decision calls it: the same for the same voxels of the same case."""
        where = [(one.start, one.stop) for one in self.suspect.box]
        voxels = np.packbits(self.suspect.inside).tobytes().hex()
        return digest((self.cohort, self.case.case_id, self.suspect.kind, where, self.size, voxels))[:16]

    @property
    def expected_ml(self) -> float:
        """Volume that is expected to be wrong in the label: how much is doubtful, by how likely it is an error."""
        return self.suspect.ml * (self.belief if np.isfinite(self.belief) else 1.0)

    @property
    def grid(self) -> SliceGrid:
        """Between pictures and the scan's own slices."""
        return SliceGrid(self.case.rows, self.case.columns, self.size)

    def finding(self) -> Finding:
        """The suspect in words, with its seat on the scan's own pixels."""
        suspect = self.suspect
        words, remedy = _WORDS[suspect.kind]
        sure = "" if np.isnan(self.belief) else f"; believed to be an error of the label with {100 * self.belief:.0f} %"
        evidence = f"{words.format(ml=suspect.ml)}, mean probability of lesion {suspect.probability:.2f}{sure}"
        row, column = self.grid.own_pixel(suspect.seat[1], suspect.seat[2])
        return Finding(
            suspect.kind,
            self.case.case_id,
            severity_of(self.belief),
            evidence,
            remedy,
            self.cohort,
            slices=suspect.slices,
            voxels=sum(int(np.count_nonzero(mask)) for mask in self.own_slices().values()),
            seat=(suspect.seat[0], row, column),
            numbers={
                "belief": self.belief,
                "expected_ml": self.expected_ml,
                "ml": suspect.ml,
                "probability": suspect.probability,
                "votes": suspect.votes,
                "contrast_hu": suspect.contrast_hu,
            },
        )

    def own_slices(self) -> dict[int, Bool[np.ndarray, "row column"]]:
        """The suspect on the scan's own pixels, by slice."""
        found = {}
        for offset, inside in enumerate(self.suspect.inside):
            if inside.any():
                picture = np.zeros((self.size, self.size), np.float32)
                picture[self.suspect.box[1:]] = inside
                found[self.suspect.box[0].start + offset] = np.asarray(self.grid.back(picture) >= 0.5)
        return found


def rank_judged(found: Iterable[Judged]) -> tuple[Judged, ...]:
    """The order of a worklist: errors, warnings, notes, and among each the largest expected error first."""
    return tuple(sorted(found, key=lambda one: (*place_in_list(one.belief, one.expected_ml), one.identity)))


def place_in_list(belief: float, expected_ml: float) -> tuple[int, float]:
    """What a worklist is sorted by: how grave a suspect of this belief is, then how much is expected to be wrong.

    By millilitres alone a large lesion that networks doubt a little would stand before a small one of which they are sure, and a reader who
    rejects the first ten does not come to the eleventh.
    """
    return get_args(Severity).index(severity_of(belief)), -expected_ml


def identity_of(finding: Finding) -> str:
    """What a decision calls a finding that no network made: the same for the same words about the same place."""
    return digest((finding.cohort, finding.case, finding.code, finding.slices, finding.seat, finding.voxels))[:16]


def write_suspects(found: Sequence[Judged], folder: Path, others: Sequence[Finding] = ()) -> None:
    """Keep where suspects are, for ``correct_labels``: ``suspects.json``, and a file of masks for each case.

    Args:
        found: What networks doubt.
        folder: Of the audit.
        others: Findings of the worklist that no network made; their places are found again in the label.
    """
    cases: dict[str, list[Judged]] = {}
    for one in found:
        cases.setdefault(f"{one.cohort}/{one.case.case_id}", []).append(one)
    entries = []
    for number, mine in enumerate(cases.values()):
        name = f"suspects-{number}.npz"
        masks: dict[str, np.ndarray] = {}
        for one in mine:
            slices = one.own_slices()
            masks[f"{one.identity}.slices"] = np.array(sorted(slices), np.int32)
            masks[f"{one.identity}.bits"] = np.packbits([slices[at] for at in sorted(slices)])
            entries.append({"id": one.identity, "cohort": one.cohort, "case": one.case.case_id, "kind": one.suspect.kind}
                           | {"rows": one.case.rows, "columns": one.case.columns, "file": name, "belief": one.belief}
                           | {"expected_ml": one.expected_ml})  # fmt: skip
        write_arrays(folder / name, masks)
    for finding in others:
        entries.append({"id": identity_of(finding), "cohort": finding.cohort, "case": finding.case, "kind": finding.code}
                       | {"slices": finding.slices, "seat": finding.seat})  # fmt: skip
    write_json(folder / _LIST, {"format": 1, "suspects": entries})


def read_suspects(folder: Path) -> dict[str, KeptSuspect]:
    """Suspects of an audit by their identity.

    Raises:
        InputError: The folder holds no audit with networks (code ``E_AUDIT``).
    """
    try:
        entries = json.loads((folder / _LIST).read_text())["suspects"]
        return {entry["id"]: KeptSuspect(folder / entry.get("file", ""), entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no audit whose suspects could be corrected ({type(error).__name__}); expected {_LIST}, as lungshift "
            "audit --models writes it.",
            code="E_AUDIT",
        ) from error


@dataclass(frozen=True, eq=False)
class KeptSuspect:
    """A suspect on disk."""

    file: Path
    entry: dict[str, object]

    @property
    def case(self) -> tuple[str, str]:
        """Cohort and case id."""
        return str(self.entry["cohort"]), str(self.entry["case"])

    @property
    def has_voxels(self) -> bool:
        """Whether its voxels are kept; else its place is found again in the label."""
        return "file" in self.entry

    def slices(self) -> dict[int, Bool[np.ndarray, "row column"]]:
        """Its voxels on the scan's own pixels, by slice."""
        name, shape = self.entry["id"], (int(str(self.entry["rows"])), int(str(self.entry["columns"])))
        with np.load(self.file) as kept:
            numbers, bits = kept[f"{name}.slices"], kept[f"{name}.bits"]
        masks = np.unpackbits(bits, count=len(numbers) * shape[0] * shape[1]).view(bool).reshape(len(numbers), *shape)
        return dict(zip(numbers.tolist(), masks, strict=True))


def severity_of(belief: float) -> Severity:
    """How grave a suspect is that is an error of the label with this probability."""
    if belief >= ERROR_BELIEF:
        return "error"
    return "warning" if belief >= WARNING_BELIEF else "note"
