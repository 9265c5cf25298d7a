"""Scans that are not HU are written anew as HU, originals stay untouched, and the manifest beside them is a cohort again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungshift.audit.cohort import audit_cohort
from lungshift.audit.repair import repair_cohort
from lungshift.ct.case import Case, Cohort
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CohortError, IntensityError, OutputError
from lungshift.files import sha256
from lungshift.io.bare import read_bare_cohort
from lungshift.io.cohort import read_cohort
from lungshift.io.writing import write_mask, write_volume
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import SITE_A
from worlds import cohort_of, tiny_case


@pytest.fixture(scope="module")
def phantom() -> Case:
    return phantom_case(5, 0, replace(SITE_A, size=96, pixel_mm=3.6))


@pytest.fixture
def folder(phantom: Case, tmp_path: Path) -> Path:
    """A case in HU, one of 0 to 255 and one that is a web page."""
    home = tmp_path / "home"
    home.mkdir()
    grid = phantom.volume.geometry
    eight = np.rint(np.clip((phantom.volume.hu + 1250) / 1500, 0, 1) * 255).astype(np.int16)
    write_volume(phantom.volume, home / "good.nii.gz")
    write_volume(Volume(eight, grid), home / "eight.nii.gz")
    (home / "page.nii.gz").write_bytes(b"<html>")
    assert phantom.lung is not None
    assert phantom.lesion is not None
    write_mask(Mask(phantom.lung.voxels, grid), home / "lung.nii.gz")
    write_mask(Mask(phantom.lesion.voxels, grid), home / "lesion.nii.gz")
    rows = [f"{name},{name}.nii.gz,lung.nii.gz,lesion.nii.gz,P{name},B" for name in ("good", "eight", "page")]
    (home / "manifest.csv").write_text("\n".join(["case_id,volume,lung,lesion,patient_id,site", *rows]) + "\n")
    return home


def repaired(folder: Path, target: str = "repaired") -> tuple[Cohort, Path]:
    cohort, out = read_cohort(folder), folder.parent / target
    list(audit_cohort(cohort, folder.parent / "audit"))
    repair_cohort(cohort, folder.parent / "audit", out)
    return read_cohort(out), out


def test_the_corrected_scan_is_in_hu_again(phantom: Case, folder: Path) -> None:
    with pytest.raises(IntensityError):
        read_cohort(folder).cases[1].read()

    cohort, _ = repaired(folder)
    case = next(case for case in cohort.cases if case.case_id == "eight").read()

    inside = (phantom.volume.hu > -1250) & (phantom.volume.hu < 250)
    assert np.abs(case.volume.hu - phantom.volume.hu)[inside].max() <= 4
    assert case.volume.geometry.difference(phantom.volume.geometry) is None
    assert phantom.lesion is not None
    assert case.lesion is not None
    assert np.array_equal(case.lesion.voxels, phantom.lesion.voxels)


def test_the_manifest_keeps_what_was_known_and_leaves_out_what_cannot_be_read(folder: Path) -> None:
    cohort, out = repaired(folder)

    assert cohort.name == "home-repaired"
    assert [(case.case_id, case.patient_id, case.site) for case in cohort.cases] == [
        ("good", "Pgood", "B"),
        ("eight", "Peight", "B"),
    ]
    assert "page" in (out / "repair.json").read_text()
    assert not (out / "good.nii.gz").exists()


def test_originals_are_never_touched(folder: Path) -> None:
    before = {file.name: sha256(file) for file in folder.iterdir()}

    repaired(folder)

    assert {file.name: sha256(file) for file in folder.iterdir()} == before


def test_what_was_written_before_is_kept(folder: Path) -> None:
    repaired(folder)

    with pytest.raises(OutputError, match="already exists"):
        repair_cohort(read_cohort(folder), folder.parent / "audit", folder.parent / "repaired")


def test_a_cohort_in_hu_needs_no_copy(phantom: Case, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    write_volume(phantom.volume, home / "good.nii.gz")

    told = repair_cohort(read_bare_cohort(home), tmp_path / "audit", tmp_path / "repaired")

    assert [one.done for one in told] == ["kept"]
    assert not (tmp_path / "repaired").exists()


def test_a_cohort_without_any_scan_to_correct_is_told_why_and_leaves_no_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "page.nii.gz").write_bytes(b"<html>")

    with pytest.raises(CohortError, match="is a web page"):
        repair_cohort(read_bare_cohort(home), tmp_path / "audit", tmp_path / "repaired")
    assert not (tmp_path / "repaired").exists()


def test_cases_that_are_in_no_file_cannot_be_copied(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="not in files"):
        repair_cohort(cohort_of(tiny_case()), tmp_path / "audit", tmp_path / "repaired")
