"""A cohort written down anew: a manifest that names its files where they lie, but for those that a corrected copy replaces."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import CohortError
from lungshift.io.dicom import DicomSource
from lungshift.io.nifti import NiftiSource

FileSource = NiftiSource | DicomSource
"""A case in files."""


def files_of(record: CaseRecord) -> FileSource:
    """The files of a case.

    Raises:
        CohortError: It is in memory.
    """
    if not isinstance(record.source, NiftiSource | DicomSource):
        raise CohortError(f"Case {record.case_id} is not in files, so there is nothing to write a corrected copy of.")
    return record.source


def like_of(source: FileSource) -> Path | None:
    """The file whose grid a copy keeps, if it is one that can be kept."""
    plain = isinstance(source, NiftiSource) and source.intake.oblique == "refuse" and not source.intake.assume_spacing
    return source.volume if isinstance(source, NiftiSource) and plain else None


def manifest_entry(
    record: CaseRecord, source: FileSource, folder: Path, *, volume: Path | None = None, lesion: Path | None = None
) -> dict[str, str]:
    """The entry of a case in the manifest of ``folder``.

    Args:
        record: The case.
        source: Its files.
        folder: Where the manifest will lie.
        volume: The scan instead of the case's own; a bare name lies in ``folder``.
        lesion: The lesion mask instead of the case's own, likewise.
    """
    own = source.volume if isinstance(source, NiftiSource) else Path(source.folder)
    paths = {"volume": volume or own, "lung": source.lung, "lesion": lesion or source.lesion}
    words = {name: _from(path, folder) for name, path in paths.items() if path is not None}
    more = {"patient_id": record.patient_id, "site": record.site, "date": record.date}
    if source.lung is not None:
        more["lung_source"] = record.lung_source
    if isinstance(source, DicomSource) and source.series_uid and paths["volume"] == own:
        more["series_uid"] = source.series_uid
    return {"case_id": record.case_id} | words | {name: value for name, value in more.items() if value}


def manifest_text(
    cohort: Cohort, entries: Sequence[dict[str, str]], suffix: str, *, lesion_labels: Sequence[int] | None = None
) -> str:
    """A manifest in TOML, for ``io.manifest`` to read.

    Args:
        cohort: Whose labels, licence and source it has; of files.
        entries: From ``manifest_entry``.
        suffix: Added to the cohort's name, as it is another one now.
        lesion_labels: Values that are lesion, where they are no longer the cohort's.
    """
    source = files_of(cohort.cases[0])
    lung, lesion = source.lung_labels, source.lesion_labels
    chosen = sorted(lesion.chosen if lesion_labels is None else lesion_labels)
    declared = sorted((lung.declared | lesion.declared | set(chosen)) - {0})
    head = {"name": f"{cohort.name}-{suffix}", "licence": cohort.licence, "source": cohort.source}
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in head.items() if value]
    lines += [f"lung_labels = {sorted(lung.chosen)}", f"lesion_labels = {chosen}", f"declared_labels = {declared}"]
    for entry in entries:
        values = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in entry.items())
        lines += ["", "[[case]]", *values]
    return "\n".join(lines) + "\n"


def _from(path: Path, folder: Path) -> str:
    """The way to a file from the manifest's folder; what was written there is named as it is."""
    return path.name if len(path.parts) == 1 else os.path.relpath(path.resolve(), folder.resolve())
