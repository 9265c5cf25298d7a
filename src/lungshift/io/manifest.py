"""A cohort written down: one TOML or CSV file that says where each scan and mask is and whom it shows.

TOML::

    name = "site-b"
    licence = "CC BY 4.0"
    source = "doi:10.5281/zenodo.0000000"
    lesion_labels = [1, 2]          # values that are lesion; default [1]
    lung_labels = [1]               # values that are lung; default [1]
    declared_labels = [1, 2, 3]     # every value that may occur; default those two

    [[case]]
    case_id = "001"
    volume = "scans/001.nii.gz"     # or a folder with one DICOM series
    lung = "lungs/001.nii.gz"
    lesion = "lesions/001.nii.gz"
    patient_id = "P7"               # without it every case counts as one patient
    site = "B"
    date = "2020-04-02"
    series_uid = "1.2.3"            # only for DICOM folders that hold several
    volume_sha256 = "9f86d0..."     # also lung_sha256, lesion_sha256; checked when given
    lung_source = "reader"          # reader, model, threshold

CSV has the same names as columns, with ``name``, ``licence``, ``source`` and the label columns repeated in every row (labels
separated by spaces). Paths are relative to the manifest; absolute ones and ``..`` are allowed, as scans often lie elsewhere.
A manifest only names files to read, so it can reach nothing that its reader could not.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from lungshift.ct.case import CaseRecord, CaseSource, Cohort, LungSource
from lungshift.errors import CohortError
from lungshift.files import sha256
from lungshift.io.header import DEFAULT_INTAKE, Intake
from lungshift.io.nifti import NiftiSource
from lungshift.io.voxels import Labels

MANIFESTS = ("manifest.toml", "manifest.csv")
"""Names under which a manifest is found in a folder."""
_COHORT = ("name", "licence", "source", "lung_labels", "lesion_labels", "declared_labels")
_FILES = ("volume", "lung", "lesion")
_CASE = (
    "case_id",
    *_FILES,
    "patient_id",
    "site",
    "date",
    "series_uid",
    "lung_source",
    *(f"{f}_sha256" for f in _FILES),
)


def read_manifest(path: Path, intake: Intake = DEFAULT_INTAKE) -> Cohort:
    """Read a cohort from its manifest, checking that its files exist and have the checksums it states.

    Raises:
        CohortError: ``E_MANIFEST`` (not a manifest, unknown or missing entries), ``E_NO_FILE``, ``E_CHECKSUM``, or no case.
    """
    head, rows = _parse(path)
    _require_known(path, head, _COHORT, "the cohort")
    labels = _labels(path, head)
    cases = tuple(_case(path, number, row, labels, intake) for number, row in enumerate(rows, 1))
    return Cohort(
        str(head.get("name") or path.resolve().parent.name),
        cases,
        str(head.get("licence", "")),
        str(head.get("source", "")),
        patients_known=bool(rows) and all(row.get("patient_id") for row in rows),
    )


def _parse(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The cohort's entries and those of its cases."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".toml":
            head = tomllib.loads(text)
            rows = head.pop("case", [])
        elif path.suffix == ".csv":
            rows = list(csv.DictReader(text.splitlines(), strict=True))
            head = _common(path, rows)
        else:
            raise CohortError(f"{path} is not a manifest: it should end in .toml or .csv.", code="E_MANIFEST")
    except (ValueError, csv.Error) as error:
        raise CohortError(f"{path} cannot be read as a manifest: {error}.", code="E_MANIFEST") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CohortError(f"{path}: cases are written as [[case]] tables.", code="E_MANIFEST")
    return head, rows


def _common(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Take the cohort's columns out of the rows, where they must all agree."""
    head: dict[str, Any] = {}
    for column in _COHORT:
        values = {row.pop(column) for row in rows if column in row} - {"", None}
        if len(values) > 1:
            raise CohortError(f"{path}: column {column} differs between rows: {sorted(values)}.", code="E_MANIFEST")
        if values:
            head[column] = values.pop()
    return head


def _labels(path: Path, head: Mapping[str, Any]) -> tuple[Labels, Labels]:
    try:
        lung, lesion, declared = (
            frozenset(int(one) for one in (value.split() if isinstance(value, str) else value))
            for value in (head.get("lung_labels", [1]), head.get("lesion_labels", [1]), head.get("declared_labels", []))
        )
    except (TypeError, ValueError) as error:
        raise CohortError(f"{path}: labels are whole numbers such as [1, 2]: {error}.", code="E_MANIFEST") from error
    return Labels(lung, declared or lung), Labels(lesion, declared or lesion)


def _case(path: Path, number: int, row: Mapping[str, Any], labels: tuple[Labels, Labels], intake: Intake) -> CaseRecord:
    where = f"{path}, case {number}"
    _require_known(Path(where), row, _CASE, "a case")
    entry = {key: str(value).strip() for key, value in row.items() if value not in (None, "")}
    if missing := [key for key in ("case_id", "volume") if key not in entry]:
        raise CohortError(f"{where} has no {' and no '.join(missing)}.", code="E_MANIFEST")
    lung_source = entry.get("lung_source", "reader" if "lung" in entry else "none")
    if lung_source not in get_args(LungSource):
        raise CohortError(
            f"{where}: lung_source is one of {get_args(LungSource)}; got {lung_source}.", code="E_MANIFEST"
        )
    return CaseRecord(
        entry["case_id"],
        entry.get("patient_id", entry["case_id"]),
        _source(_files(path, where, entry), entry.get("series_uid"), labels, intake),
        entry.get("site", ""),
        entry.get("date", ""),
        cast(LungSource, lung_source),
    )


@dataclass(frozen=True)
class _Files:
    volume: Path
    lung: Path | None
    lesion: Path | None


def _files(manifest: Path, where: str, entry: Mapping[str, str]) -> _Files:
    found = {kind: manifest.parent / entry[kind] for kind in _FILES if kind in entry}
    for kind, path in found.items():
        if not path.exists():
            raise CohortError(f"{where}: the {kind} {path} does not exist.", code="E_NO_FILE")
        if kind != "volume" and path.is_dir():
            raise CohortError(f"{where}: the {kind} {path} is a folder; a mask is a NIfTI file.", code="E_MANIFEST")
        expected = entry.get(f"{kind}_sha256", "").lower()
        if expected and (actual := _digest(where, kind, path)) != expected:
            raise CohortError(
                f"{where}: {path} is not the file that was written down: its SHA-256 is {actual}, the manifest says {expected}.",
                code="E_CHECKSUM",
            )
    return _Files(found["volume"], found.get("lung"), found.get("lesion"))


def _digest(where: str, kind: str, path: Path) -> str:
    if path.is_dir():
        raise CohortError(f"{where}: {kind}_sha256 is for one file, but {path} is a folder.", code="E_MANIFEST")
    return sha256(path)


def _source(files: _Files, series_uid: str | None, labels: tuple[Labels, Labels], intake: Intake) -> CaseSource:
    if files.volume.is_dir():
        from lungshift.io.dicom import DicomSource

        lung_labels, lesion_labels = labels
        source = DicomSource(
            files.volume,
            series_uid=series_uid,
            lung=files.lung,
            lesion=files.lesion,
            lung_labels=lung_labels,
            lesion_labels=lesion_labels,
        )
        return cast(CaseSource, source)
    return NiftiSource(files.volume, files.lung, files.lesion, *labels, intake)


def _require_known(where: Path, entries: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    if unknown := sorted(set(map(str, entries)) - set(known)):
        raise CohortError(
            f"{where}: unknown {', '.join(unknown)}. Entries of {what} are {', '.join(known)}.", code="E_MANIFEST"
        )
