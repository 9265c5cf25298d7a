"""Decisions of a reader carried out: corrected labels as new files, and a manifest of the cohort with them; no original is ever touched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from lungshift.audit.judged import KeptSuspect, read_suspects
from lungshift.ct.case import Case, CaseRecord, Cohort
from lungshift.ct.volume import Mask
from lungshift.errors import InputError
from lungshift.files import new_folder, write_json, write_text
from lungshift.io.copies import files_of, like_of, manifest_entry, manifest_text
from lungshift.io.writing import write_mask
from lungshift.measure.lesions import label_lesions

Decision = Literal["accept", "reject", "unsure"]
"""``accept``: the label is wrong here, change it; ``reject``: it is right; ``unsure``: leave it, ask somebody else."""

FORMAT: Final = 1
ERASED: Final = ("lesion-outside-lung", "lesion-without-lung", "speck")
"""Findings that no network made and whose voxels are known all the same: the piece of lesion at their seat, or all on their slices."""


@dataclass(frozen=True)
class Corrected:
    """What was done to the label of one case.

    Attributes:
        case: Its id.
        added, erased: Voxels.
        accepted: How many findings were accepted.
        by_hand: Accepted findings that say nothing of which voxels are wrong, by their codes: to be corrected by a person.
        file: Name of the new label in the manifest's folder; empty where the label stays as it is.
    """

    case: str
    added: int = 0
    erased: int = 0
    accepted: int = 0
    by_hand: tuple[str, ...] = ()
    file: str = ""


def read_decisions(path: Path) -> dict[str, Decision]:
    """What a reader decided, by the identity of each suspect.

    Raises:
        InputError: Not a file of decisions as ``audit.html`` saves it (code ``E_DECISIONS``).
    """
    try:
        text = json.loads(path.read_text())
        decided = dict(text["decisions"])
        good = text["format"] == FORMAT and all(value in get_args(Decision) for value in decided.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        good, decided, why = False, {}, f" ({type(error).__name__}: {error})"
    else:
        why = ""
    if not good:
        raise InputError(
            f"{path} is no file of decisions{why}; expected what audit.html saves: format {FORMAT}, and for each finding "
            f"{', '.join(get_args(Decision))}.",
            code="E_DECISIONS",
        )
    return decided


def correct_labels(
    cohort: Cohort, audit: Path, decisions: Mapping[str, Decision], target: Path
) -> tuple[Corrected, ...]:
    """Write the labels with all accepted suspects turned over, and a ``manifest.toml`` of the cohort with them.

    Within an accepted suspect lesion becomes none and none becomes lesion. Labels without an accepted suspect stay where they are; the manifest
    names them there.

    Args:
        cohort: Of files, as it was audited.
        audit: Folder of the audit with networks.
        decisions: By the identity of each suspect.
        target: A new folder.

    Raises:
        InputError: A decision is about no suspect of this audit (``E_DECISIONS``), or the folder holds none (``E_AUDIT``).
        CohortError: A case is not in files.
        OutputError: ``target`` exists.
    """
    suspects = read_suspects(audit)
    if unknown := sorted(set(decisions) - set(suspects)):
        raise InputError(
            f"{len(unknown)} of {len(decisions)} decisions are about findings that {audit} does not hold (first: {unknown[0]}); they "
            "belong to another audit. Give the folder whose audit.html they were made in.",
            code="E_DECISIONS",
        )
    accepted: dict[tuple[str, str], list[KeptSuspect]] = {}
    for identity, decision in decisions.items():
        if decision == "accept":
            accepted.setdefault(suspects[identity].case, []).append(suspects[identity])
    # New labels hold 0 and 1; beside labels where 1 is no lesion all are written anew, so that one rule reads them all.
    mixed = any(1 not in files_of(record).lesion_labels.chosen for record in cohort.cases)
    with new_folder(target) as part:
        told, entries = [], []
        for record in cohort.cases:
            one = _correct(record, accepted.get((cohort.name, record.case_id), []), part, anew=mixed)
            lesion = Path(one.file) if one.file else None
            told.append(one)
            entries.append(manifest_entry(record, files_of(record), target, lesion=lesion))
        labels = [1] if mixed else None
        write_text(part / "manifest.toml", manifest_text(cohort, entries, "corrected", lesion_labels=labels))
        write_json(part / "corrections.json", [vars(one) for one in told])
    return tuple(told)


def _correct(record: CaseRecord, accepted: Sequence[KeptSuspect], part: Path, *, anew: bool) -> Corrected:
    by_hand = tuple(
        sorted(str(one.entry["kind"]) for one in accepted if not one.has_voxels and one.entry["kind"] not in ERASED)
    )
    if len(by_hand) == len(accepted) and not anew:
        return Corrected(record.case_id, accepted=len(accepted), by_hand=by_hand)
    source = files_of(record)
    case = record.read()
    if case.lesion is None:
        raise InputError(f"{record.case_id} has no lesion mask to correct.", code="E_NO_LESION")
    voxels = case.lesion.voxels.copy()
    for suspect in accepted:
        if suspect.has_voxels:
            for at, inside in suspect.slices().items():
                voxels[at] ^= inside
        elif suspect.entry["kind"] in ERASED:
            voxels &= ~_pointed_at(case, suspect.entry)
    added = int((voxels & ~case.lesion.voxels).sum())
    erased = int((case.lesion.voxels & ~voxels).sum())
    name = f"{record.case_id}-lesion.nii.gz"
    write_mask(Mask(voxels, case.lesion.geometry), part / name, like=like_of(source))
    return Corrected(record.case_id, added, erased, len(accepted), by_hand, name)


def _pointed_at(case: Case, entry: Mapping[str, Any]) -> np.ndarray:
    """The lesion that a finding speaks of."""
    lesion = case.lesion.voxels if case.lesion is not None else np.zeros(case.volume.geometry.shape, bool)
    if entry["kind"] == "lesion-without-lung":
        chosen = np.zeros(lesion.shape, bool)
        chosen[list(entry["slices"])] = True
        return np.asarray(lesion & chosen)
    if entry["kind"] == "lesion-outside-lung" and case.lung is not None:
        lesion = lesion & ~case.lung.voxels
    labels = label_lesions(Mask(lesion, case.volume.geometry))
    number = int(labels[tuple(entry["seat"])])
    return np.asarray(labels == number) & lesion if number else np.zeros(lesion.shape, bool)
