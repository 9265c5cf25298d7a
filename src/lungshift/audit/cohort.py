"""The audit of whole cohorts: case by case, kept on disk as it goes, then the pairs.

Only one case is in memory at a time. What was found in a case is kept in a file named by the checksums of what the case is read from, so
that a stopped audit goes on where it was, and one with a new case looks at that case only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np

from lungshift import __version__
from lungshift.audit.completeness import completeness_findings
from lungshift.audit.duplicates import Fingerprint, Twins, find_twins_among, take_fingerprint
from lungshift.audit.finding import Finding, Severity
from lungshift.audit.intensity import Scale
from lungshift.audit.labels import label_findings
from lungshift.audit.orientation import orientation_findings
from lungshift.audit.reading import Reading, read_loosely
from lungshift.ct.case import Case, CaseRecord, Cohort, InMemory
from lungshift.ct.volume import Mask
from lungshift.errors import GeometryError, InputError, IntensityError
from lungshift.files import blame_machine, digest, scratch_folder, write_arrays, write_json
from lungshift.prepare.lungmask import threshold_lungs
from lungshift.prepare.prepared import prepare_cohort

AUDIT = 3
"""Number of the audit's rules; it changes whenever the same case could get other findings, and with it what is kept on disk."""

_PICTURE = 160


class Watcher(Protocol):
    """What is told how far the audit is."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def cases(self, done: int, total: int) -> None:
        """How many cases of the part are done."""


@dataclass(frozen=True)
class Audited:
    """What is kept of an audited case.

    Attributes:
        findings: What is wrong with it.
        scale: The way from its stored values to HU; None where that is not known.
        fingerprint: For the comparison with other cases; None where there is too little lung.
    """

    findings: tuple[Finding, ...]
    scale: Scale | None
    fingerprint: Fingerprint | None


def audit_cohort(cohort: Cohort, folder: Path | None = None, *, watcher: Watcher | None = None) -> Iterator[Finding]:
    """Say what is wrong with the scans and masks of a cohort, case by case, and then with pairs of them.

    Args:
        cohort: What to audit. Scans that other commands refuse are looked at too.
        folder: Where the results of single cases are kept, so that a stopped audit goes on; a temporary one if not given.
        watcher: Is told how far it is.
    """
    return audit_cohorts((cohort,), folder, watcher=watcher)


def audit_cohorts(
    cohorts: Sequence[Cohort], folder: Path | None = None, *, watcher: Watcher | None = None
) -> Iterator[Finding]:
    """As ``audit_cohort``, of several cohorts, with pairs across them.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    if folder is None:
        with TemporaryDirectory() as temporary:
            yield from audit_cohorts(cohorts, Path(temporary), watcher=watcher)
        return
    fingerprints = []
    for cohort in cohorts:
        if watcher:
            watcher.stage(f"Auditing {cohort.name}")
        having = {which: sum(_has(case, which) for case in cohort.cases) for which in ("lung", "lesion")}
        for number, record in enumerate(cohort.cases, 1):
            audited = audit_case(record, cohort.name, folder)
            yield from _without_mask(record, cohort, having)
            yield from audited.findings
            if audited.fingerprint is not None:
                fingerprints.append(audited.fingerprint)
            if watcher:
                watcher.cases(number, len(cohort.cases))
    if watcher:
        watcher.stage("Comparing cases with each other")
    known = {(cohort.name, case.case_id): case for cohort in cohorts for case in cohort.cases}
    yield from pair_findings(find_twins_among(fingerprints), known)


def audit_case(record: CaseRecord, cohort: str, folder: Path) -> Audited:
    """The audit of one case, from disk where it was done before."""
    key = case_key(record, cohort)
    kept = folder / "cases" / f"{key[:24]}.json"
    found = _read_kept(kept, key)
    if found is None:
        found = _look(record, cohort, folder)
        _keep(kept, key, found)
    return found


def _without_mask(record: CaseRecord, cohort: Cohort, having: Mapping[str, int]) -> Iterator[Finding]:
    """A mask that this case lacks and others have: so many of the cohort's cases, for each kind of mask."""
    for which, others in having.items():
        if others and not _has(record, which):
            yield Finding(
                "mask-missing",
                record.case_id,
                "error",
                f"no {which} mask, which {others} of {len(cohort.cases)} cases have",
                "Add the mask, or take the scan out of the cohort: other commands refuse it.",
                cohort.name,
                error="E_NO_MASK",
            )


def _has(record: CaseRecord, which: str) -> bool:
    return bool(getattr(record.source, f"has_{which}"))


def pair_findings(twins: Sequence[Twins], known: dict[tuple[str, str], CaseRecord]) -> Iterator[Finding]:
    """Findings of cases that are one scan or of one patient."""
    for pair in twins:
        first, second = (known[one] for one in (pair.first, pair.second))
        agreed = first.patient_id == second.patient_id and pair.first[0] == pair.second[0]
        code = "same-scan" if pair.kind == "same scan" else "same-patient"
        severity: Severity = "note" if agreed and code == "same-patient" else "warning" if agreed else "error"
        names = f"{pair.second[1]} of {pair.second[0]}"
        ids = (
            f"one patient id, {first.patient_id}"
            if agreed
            else f"patient ids {first.patient_id} and {second.patient_id}"
        )
        yield Finding(
            code,
            pair.first[1],
            severity,
            f"and {names}: {pair.reason} ({ids})",
            "The ids agree: a split by patient keeps them together."
            if severity == "note"
            else "Give both one patient id in the manifest, or leave one out: a split could train on one and test the other.",
            pair.first[0],
            numbers={"likeness": pair.likeness},
            other=pair.second,
        )


def case_key(record: CaseRecord, cohort: str) -> str:
    """What tells one case and one version of the audit from another."""
    try:
        sums: object = sorted(record.checksums.items())
    except (InputError, OSError):
        sums = _names_and_sizes(record)
    who = (record.case_id, record.patient_id, record.lung_source, cohort)
    return digest((AUDIT, __version__, who, sums))


def _names_and_sizes(record: CaseRecord) -> object:
    """Stands for the checksums of a DICOM folder that is not a series."""
    from lungshift.files import sha256

    folder = Path(getattr(record.source, "folder", ""))
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
    return [(str(file.relative_to(folder)), sha256(file)) for file in files]


def _look(record: CaseRecord, cohort: str, folder: Path) -> Audited:
    try:
        reading = read_loosely(record, cohort)
    except OSError as error:
        blame_machine(error)
        words = f"a file cannot be opened: {error.strerror or error}"
        refused = Finding(
            "unreadable", record.case_id, "error", words, "Check the file and its rights.", cohort, error="E_FILE"
        )
        return Audited((refused,), None, None)
    if reading.case is None:
        return Audited(reading.findings, reading.scale, None)
    findings, fingerprint = _look_inside(reading, cohort, folder)
    return Audited((*reading.findings, *findings), reading.scale, fingerprint)


def _look_inside(reading: Reading, cohort: str, folder: Path) -> tuple[tuple[Finding, ...], Fingerprint | None]:
    case = reading.case
    if case is None:
        return (), None
    where = {"case": case.case_id, "cohort": cohort}
    found = _threshold(case)
    lung = case.lung if case.lung is not None and case.lung.voxels.any() else found
    findings = (
        *orientation_findings(case.volume, lung, **where),
        *completeness_findings(case.volume, lung, **where),
        *label_findings(case, cohort=cohort),
    )
    alike = lung if found is None else found  # the same scan has the same lungs by threshold, whoever drew its mask
    return findings, None if alike is None else _fingerprint(case, alike, cohort, folder)


def _threshold(case: Case) -> Mask | None:
    try:
        return threshold_lungs(case.volume)
    except (GeometryError, IntensityError):
        return None


def _fingerprint(case: Case, lung: Mask, cohort: str, folder: Path) -> Fingerprint | None:
    """What the case is compared by, taken from pictures that are made for it and thrown away."""
    lean = Case(case.volume, lung, None, case.case_id, case.patient_id, case.lung_source)
    record = CaseRecord(
        case.case_id, case.patient_id, InMemory(lambda: lean, lean.volume.geometry, True, False, "audit")
    )
    with scratch_folder(folder) as pictures:
        return take_fingerprint(prepare_cohort(Cohort(cohort, (record,)), pictures, size=_PICTURE), 0)


def _keep(path: Path, key: str, audited: Audited) -> None:
    """Write the arrays first: the JSON says that the case is done."""
    mark = audited.fingerprint
    if mark is not None:
        ends = {f"end{number}": end for number, end in enumerate(mark.ends)}
        write_arrays(path.with_suffix(".npz"), {"inside": mark.inside} | ends)
    scale = audited.scale
    write_json(
        path,
        {
            "key": key,
            "findings": [finding.as_dict() for finding in audited.findings],
            "scale": None if scale is None else [scale.kind, scale.name, scale.slope, scale.intercept, scale.misfit],
            "fingerprint": None if mark is None else {"who": mark.who, "patient": mark.patient, "ends": len(mark.ends)},
        },
    )


def _read_kept(path: Path, key: str) -> Audited | None:
    """What was kept of a case; None where there is nothing, or it is damaged."""
    try:
        text = json.loads(path.read_text())
        if text["key"] != key:
            return None
        findings = tuple(Finding.from_dict(one) for one in text["findings"])
        scale = None if text["scale"] is None else Scale(*text["scale"])
        return Audited(findings, scale, _read_fingerprint(path, text["fingerprint"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_fingerprint(path: Path, about: dict | None) -> Fingerprint | None:
    if about is None:
        return None
    with np.load(path.with_suffix(".npz")) as arrays:
        ends = tuple(arrays[f"end{number}"] for number in range(about["ends"]))
        cohort, case = about["who"]
        return Fingerprint((cohort, case), about["patient"], arrays["inside"], ends)
