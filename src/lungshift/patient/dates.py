"""The dates of one patient that are to be compared: given one by one, or as a list in TOML or CSV.

TOML::

    lesion_labels = [1]                # values that are lesion; default [1]
    lung_labels = [1, 2]               # values that are lung; default [1, 2]

    [[date]]
    date = "2020-03-01"                # or day = 0; a DICOM series knows its own
    scan = "first.nii.gz"              # or a folder with one DICOM series
    lung = "first-lung.nii.gz"         # made by threshold if not given
    lesion = "first-lesion.nii.gz"
    prediction = "runs/first"          # a folder of lungshift predict, in place of lung and lesion
    checkpoint = "runs/train/checkpoints/source-seed0"   # whose repeatability counts as noise
    patient_id = "P7"                  # all dates must agree
    series_uid = "1.2.3"               # only for folders that hold several

CSV has the same names as columns, without the two of labels. Paths are relative to the list.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args

from lungshift.ct.case import Case, CaseSource, LungSource
from lungshift.errors import CohortError, FileFormatError, InputError
from lungshift.io.dicom import DicomSource
from lungshift.io.dicom_header import read_identity
from lungshift.io.dicom_series import Choices
from lungshift.io.header import Intake
from lungshift.io.layouts import EITHER_LUNG
from lungshift.io.nifti import NiftiSource
from lungshift.io.voxels import ONE_LABEL, Labels
from lungshift.patient.predicting import LESION, LUNGS, read_as, read_description

LISTS = (".toml", ".csv")
"""How the name of a list of dates ends."""

_ENTRIES = ("date", "day", "scan", "lung", "lesion", "prediction", "checkpoint", "patient_id", "series_uid")


@dataclass(frozen=True, eq=False)
class DatedScan:
    """A scan of one date, not read yet.

    Attributes:
        label: What it is called in everything that is written: ``day 7``, or its date where that may be told.
        day: Days since the first date.
        source: Reads the scan with its masks.
        patient_id: Whose it is, where known; it is compared and never written.
        lung_source: Who drew the lung mask; ``none`` where there is none yet.
        checkpoint: The model whose repeatability counts as noise, if any.
        predicted: Whether a model drew the lesions.
        flags: What ``lungshift predict`` found odd about the scan, in words.
        checksums: SHA-256 of the files, by what they are.
    """

    label: str
    day: int
    source: CaseSource
    patient_id: str = ""
    lung_source: LungSource = "reader"
    checkpoint: Path | None = None
    predicted: bool = False
    flags: tuple[str, ...] = ()
    checksums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def read(self) -> Case:
        """The scan, its masks and its label."""
        volume, lung, lesion = self.source.read()
        return Case(volume, lung, lesion, self.label, lung_source=self.lung_source)


@dataclass(frozen=True)
class Entry:
    """What was said of one date.

    Attributes:
        scan: A NIfTI file, or a folder with one DICOM series.
        date: YYYY-MM-DD; empty where only the scan knows it.
        day: Days since any day, in place of a date.
        lung, lesion: NIfTI files.
        prediction: Folder of ``lungshift predict``, in place of the two.
        checkpoint: A model.
        patient_id: Whose it is.
        series_uid: Which series of the folder.
    """

    scan: Path
    date: str = ""
    day: int | None = None
    lung: Path | None = None
    lesion: Path | None = None
    prediction: Path | None = None
    checkpoint: Path | None = None
    patient_id: str = ""
    series_uid: str | None = None


@dataclass(frozen=True, eq=False)
class _Found:
    """A date with what its files say of it."""

    entry: Entry
    source: CaseSource
    lung_source: LungSource
    patient_id: str
    when: date | int
    told: Mapping[str, Any]

    @property
    def predicted(self) -> bool:
        """Whether a model drew the lesions, as far as is known."""
        return bool(self.told) or self.entry.lesion is None

    @property
    def flags(self) -> tuple[str, ...]:
        """What its prediction was flagged for."""
        return tuple(f"{flag['evidence']}. {flag['remedy']}." for flag in self.told.get("flags", ()))


def find_dates(
    entries: Sequence[Entry],
    *,
    labels: tuple[Labels, Labels] = (EITHER_LUNG, ONE_LABEL),
    keep_identity: bool = False,
) -> tuple[DatedScan, ...]:
    """Look at the dates of one patient, in the order given; headers are read, voxels are not.

    Args:
        entries: What was said of each date, the oldest first.
        labels: What the values of lung and lesion masks mean.
        keep_identity: Call dates by their date, not by days since the first.

    Raises:
        CohortError: Fewer than two (``E_DATES``), a date that nobody knows (``E_NO_DATE``), a wrong order or a date twice (``E_DATES``), one
            scan twice (``E_SAME_SCAN``), or two patients by their ids (``E_TWO_PATIENTS``).
        InputError: A file is missing (``E_NO_FILE``), or there is no lesion mask (``E_NO_LESION``).
    """
    if len(entries) < 2:
        raise CohortError(f"A follow-up compares two dates or more; got {len(entries)}.", code="E_DATES")
    found = [_find(entry, labels, number) for number, entry in enumerate(entries, 1)]
    days = _days([one.when for one in found])
    _require_one_patient([one.patient_id for one in found])
    checksums = [_by_role(one.source.checksums()) for one in found]
    _require_other_scans(checksums)
    for number, (one, sums) in enumerate(zip(found, checksums, strict=True), 1):
        _require_own_prediction(number, one, sums)
    named = [
        one.when.isoformat() if keep_identity and isinstance(one.when, date) else f"day {day}"
        for one, day in zip(found, days, strict=True)
    ]
    return tuple(
        DatedScan(
            label,
            day,
            one.source,
            one.patient_id,
            one.lung_source,
            one.entry.checkpoint,
            one.predicted,
            one.flags,
            sums,
        )
        for label, day, one, sums in zip(named, days, found, checksums, strict=True)
    )


def read_list(path: Path) -> tuple[tuple[Entry, ...], tuple[Labels, Labels]]:
    """The dates of a TOML or CSV list, and what the values of its masks mean.

    Raises:
        CohortError: It is no such list (``E_MANIFEST``).
    """
    head, rows = _parse(path)
    labels = _labels(path, head)
    return tuple(_entry(path, number, row) for number, row in enumerate(rows, 1)), labels


def _parse(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return {}, list(csv.DictReader(text.splitlines(), strict=True))
        head = tomllib.loads(text)
    except FileNotFoundError:
        raise CohortError(f"There is no list of dates {path}.", code="E_NO_FILE") from None
    except (ValueError, csv.Error) as error:
        raise CohortError(f"{path} cannot be read as a list of dates: {error}.", code="E_MANIFEST") from error
    rows = head.pop("date", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CohortError(f"{path}: dates are written as [[date]] tables.", code="E_MANIFEST")
    return head, rows


def _labels(path: Path, head: Mapping[str, Any]) -> tuple[Labels, Labels]:
    if unknown := sorted(set(head) - {"lung_labels", "lesion_labels"}):
        raise CohortError(
            f"{path}: unknown {', '.join(unknown)}. Beside [[date]] there are lung_labels and lesion_labels.",
            code="E_MANIFEST",
        )
    try:
        lung, lesion = (
            None if name not in head else frozenset(int(one) for one in head[name])
            for name in ("lung_labels", "lesion_labels")
        )
    except (TypeError, ValueError) as error:
        raise CohortError(f"{path}: labels are whole numbers such as [1, 2]: {error}.", code="E_MANIFEST") from error
    return (
        EITHER_LUNG if lung is None else Labels(lung, lung | {0}),
        ONE_LABEL if lesion is None else Labels(lesion, lesion | {0}),
    )


def _entry(path: Path, number: int, row: Mapping[str, Any]) -> Entry:
    where = f"{path}, date {number}"
    if unknown := sorted(set(map(str, row)) - set(_ENTRIES)):
        raise CohortError(
            f"{where}: unknown {', '.join(unknown)}. Entries are {', '.join(_ENTRIES)}.", code="E_MANIFEST"
        )
    said = {key: str(value).strip() for key, value in row.items() if value not in (None, "")}
    if "scan" not in said:
        raise CohortError(f"{where} has no scan.", code="E_MANIFEST")
    files = {
        key: path.parent / said[key] for key in ("scan", "lung", "lesion", "prediction", "checkpoint") if key in said
    }
    try:
        day = int(said["day"]) if "day" in said else None
    except ValueError:
        raise CohortError(f"{where}: a day is a whole number; got {said['day']!r}.", code="E_MANIFEST") from None
    return Entry(
        **files,
        date=said.get("date", ""),
        day=day,
        patient_id=said.get("patient_id", ""),
        series_uid=said.get("series_uid"),
    )


def _find(entry: Entry, labels: tuple[Labels, Labels], number: int) -> _Found:
    entry, lung_source, told = _with_prediction(entry)
    for what, path in (("scan", entry.scan), ("lung mask", entry.lung), ("lesion mask", entry.lesion)):
        if path is not None and not path.exists():
            raise InputError(f"Date {number}: there is no {what} {path}.", code="E_NO_FILE")
    if entry.lesion is None and entry.checkpoint is None:
        raise InputError(
            f"Date {number}: {entry.scan.name} has no lesion mask. Give --lesion or --prediction for each date, or a --checkpoint that "
            "predicts them.",
            code="E_NO_LESION",
        )
    if entry.scan.is_dir():
        choices = Choices(oblique=read_as(told))
        series = DicomSource(entry.scan, entry.series_uid, entry.lung, entry.lesion, *labels, choices)
        patient, when = _told_by_dicom(series)
        source = cast(CaseSource, series)
    else:
        source, patient, when = (
            NiftiSource(entry.scan, entry.lung, entry.lesion, *labels, Intake(oblique=read_as(told))),
            "",
            "",
        )
    return _Found(entry, source, lung_source, entry.patient_id or patient, _when(entry, when, number), told)


def _with_prediction(entry: Entry) -> tuple[Entry, LungSource, Mapping[str, Any]]:
    """The masks of a prediction's folder in place, who drew the lungs, and what the folder says."""
    folder = entry.prediction
    if folder is None:
        return entry, "reader" if entry.lung else "none", {}
    if entry.lung or entry.lesion:
        raise InputError(
            f"{entry.scan.name}: a prediction's folder stands in place of lung and lesion; give one or the other."
        )
    told = read_description(folder)
    source = told.get("lung", {}).get("source")
    known: LungSource = source if source in get_args(LungSource) else "model"
    return replace(entry, lesion=folder / LESION, lung=folder / LUNGS), known, told


def _told_by_dicom(source: DicomSource) -> tuple[str, str]:
    """Patient id and date of a series, empty where its header does not say."""
    try:
        header = read_identity(source.stack.frames[0].path)
    except FileFormatError:
        return "", ""
    issuer = str(header.get("IssuerOfPatientID", "") or "").strip()
    patient = str(header.get("PatientID", "") or "").strip()
    return f"{issuer}:{patient}" if issuer and patient else patient, str(header.get("StudyDate", "") or "").strip()


def _when(entry: Entry, told: str, number: int) -> date | int:
    if entry.day is not None and entry.date:
        raise CohortError(f"Date {number}: a date or a day, not both.", code="E_DATES")
    if entry.day is not None:
        return entry.day
    said = entry.date or told
    if not said:
        raise CohortError(
            f"Date {number}: nobody says when {entry.scan.name} was taken. Give each scan a --date (2020-03-01) or a --day (7).",
            code="E_NO_DATE",
        )
    try:
        return date.fromisoformat(said)
    except ValueError:
        raise CohortError(f"Date {number}: a date is written 2020-03-01; got {said!r}.", code="E_DATES") from None


def _days(when: Sequence[date | int]) -> list[int]:
    """Days since the first, which must come first."""
    if len({isinstance(one, int) for one in when}) > 1:
        raise CohortError("Some scans have a day and others a date; give all of them one or the other.", code="E_DATES")
    numbers = [one if isinstance(one, int) else one.toordinal() for one in when]
    days = [number - numbers[0] for number in numbers]
    for number, (one, other) in enumerate(pairwise(days), 2):
        if one == other:
            raise CohortError(
                f"Scans {number - 1} and {number} are of the same date. Each date is given once; of two scans of a day take the better.",
                code="E_DATES",
            )
        if other < one:
            raise CohortError(
                f"Scan {number} is {one - other} days older than scan {number - 1}. Give the oldest first, or correct the dates.",
                code="E_DATES",
            )
    return days


def _require_one_patient(patients: Sequence[str]) -> None:
    known = {patient for patient in patients if patient}
    if len(known) > 1:
        raise CohortError(
            f"The scans are of {len(known)} patients by their patient ids. A follow-up is of one; check which scans were given, or the ids "
            "in the list.",
            code="E_TWO_PATIENTS",
        )


def _require_other_scans(checksums: Sequence[Mapping[str, tuple[str, ...]]]) -> None:
    seen: dict[str, int] = {}
    for number, sums in enumerate(checksums, 1):
        for checksum in sums.get("scan", ()):
            if (first := seen.setdefault(checksum, number)) != number:
                raise CohortError(
                    f"Scans {first} and {number} are one and the same file under two dates. Give each date its own scan.",
                    code="E_SAME_SCAN",
                )


def _require_own_prediction(number: int, found: _Found, checksums: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a prediction of another scan: on one scanner two dates may well have one grid."""
    predicted = found.told.get("input", {}).get("sha256", {}).get("scan")
    if predicted is not None and set(predicted) != set(checksums.get("scan", ())):
        raise InputError(
            f"Date {number}: the prediction in {found.entry.prediction} is of another scan than {found.entry.scan.name}. Give the predictions in "
            "the order of the scans.",
            code="E_PREDICTION",
        )


def _by_role(checksums: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Checksums by what the files are; the names of the files may name a patient."""
    roles: dict[str, tuple[str, ...]] = {}
    for name, one in checksums.items():
        if name.startswith(("scan ", "lung ", "lesion ")):
            role = name.split(" ")[0]
            roles[role] = (*roles.get(role, ()), one)
    return roles
