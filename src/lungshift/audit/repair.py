"""Corrected copies of scans whose values are not HU, and a manifest of the cohort with them; no original is ever touched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lungshift.audit.cohort import Audited, audit_case
from lungshift.audit.intensity import Scale
from lungshift.audit.reading import read_loosely
from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import CohortError
from lungshift.files import new_folder, write_json, write_text
from lungshift.io.copies import FileSource, files_of, like_of, manifest_entry, manifest_text
from lungshift.io.nifti import NiftiSource
from lungshift.io.writing import write_volume


@dataclass(frozen=True)
class Repaired:
    """What was done to one case.

    Attributes:
        case: Its id.
        done: ``corrected``, ``kept`` as it is, or ``left out``.
        words: How it was corrected, or why it was left out.
    """

    case: str
    done: str
    words: str = ""


def repair_cohort(cohort: Cohort, audits: Path, target: Path) -> tuple[Repaired, ...]:
    """Write the scans that are not HU as HU, and a ``manifest.toml`` of the whole cohort beside them.

    Scans in HU, and all masks, stay where they are: the manifest names them by their way from its folder. Scans that cannot be read or have no
    way to HU are left out and named. Values that a window cut off stay cut off.

    Args:
        cohort: Of files.
        audits: The folder of ``audit_cohort``; a case that was not audited is audited now.
        target: A new folder.

    Returns:
        What was done to each case. Where all are kept nothing is written.

    Raises:
        CohortError: A case is not in files, or no case is left.
        OutputError: ``target`` exists.
    """
    if all(_in_hu(audit_case(record, cohort.name, audits)) for record in cohort.cases):
        return tuple(Repaired(record.case_id, "kept") for record in cohort.cases)
    with new_folder(target) as part:
        told, entries = [], []
        for record in cohort.cases:
            source = files_of(record)
            done, scan = _repair(record, source, cohort.name, audits, part)
            told.append(done)
            if scan is not None:
                entries.append(manifest_entry(record, source, target, volume=scan))
        if not entries:
            raise CohortError(f"No case of {cohort.name} can be corrected: {told[0].words}", code="E_EMPTY_COHORT")
        write_text(part / "manifest.toml", manifest_text(cohort, entries, "repaired"))
        write_json(part / "repair.json", [vars(one) for one in told])
    return tuple(told)


def _in_hu(audited: Audited) -> bool:
    return audited.scale is not None and audited.scale.kind == "hu"


def _repair(
    record: CaseRecord, source: FileSource, cohort: str, audits: Path, part: Path
) -> tuple[Repaired, Path | None]:
    """What was done, and the scan to name in the manifest: relative if it was written, None if there is none."""
    audited = audit_case(record, cohort, audits)
    original = source.volume if isinstance(source, NiftiSource) else Path(source.folder)
    if refusal := next((one for one in audited.findings if one.error and one.code == "unreadable"), None):
        return Repaired(record.case_id, "left out", refusal.evidence), None
    if _in_hu(audited):
        return Repaired(record.case_id, "kept"), original
    reading = read_loosely(record, cohort)
    if reading.case is None or reading.scale is None:
        words = "; ".join(one.evidence for one in audited.findings if one.severity == "error")
        return Repaired(record.case_id, "left out", words), None
    path = Path(f"{record.case_id}.nii.gz")
    write_volume(reading.case.volume, part / path, like=like_of(source))
    return Repaired(record.case_id, "corrected", _formula(reading.scale)), path


def _formula(scale: Scale) -> str:
    estimate = " (estimated)" if scale.kind == "estimate" else ""
    return f"{scale.formula}, from {scale.name}{estimate}"
