"""Scans that lie in a folder without masks or manifest are cases, one a file or a series."""

from __future__ import annotations

from pathlib import Path

import pytest

from lungshift.errors import CohortError
from lungshift.io.bare import read_bare_cohort
from lungshift.io.dicom import DicomSource
from lungshift.io.nifti import NiftiSource
from lungshift.io.writing import write_volume
from series import write_ct
from worlds import tiny_case

CASE = tiny_case(slices=12)


def test_every_nifti_file_of_a_folder_is_a_case(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nii"):
        write_volume(CASE.volume, tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")

    cohort = read_bare_cohort(tmp_path)

    assert [(case.case_id, case.lung_source, type(case.source)) for case in cohort.cases] == [
        ("a", "none", NiftiSource),
        ("b", "none", NiftiSource),
    ]
    assert not cohort.patients_known
    assert cohort.cases[0].read().volume.hu.shape == CASE.volume.hu.shape


def test_one_file_is_a_cohort_of_one(tmp_path: Path) -> None:
    write_volume(CASE.volume, tmp_path / "a.nii.gz")

    assert [case.case_id for case in read_bare_cohort(tmp_path / "a.nii.gz").cases] == ["a"]


def test_a_folder_of_dicom_files_is_one_case_and_folders_in_a_folder_are_many(tmp_path: Path) -> None:
    for name in ("p2", "p1"):
        write_ct(tmp_path / name, CASE.volume.hu, CASE.volume.geometry.affine)

    assert [case.case_id for case in read_bare_cohort(tmp_path / "p1").cases] == ["p1"]
    cohort = read_bare_cohort(tmp_path)
    assert [(case.case_id, type(case.source)) for case in cohort.cases] == [("p1", DicomSource), ("p2", DicomSource)]
    assert cohort.cases[0].read().volume.hu.shape == CASE.volume.hu.shape


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="holds no NIfTI"):
        read_bare_cohort(tmp_path)
    with pytest.raises(CohortError, match="no file or folder"):
        read_bare_cohort(tmp_path / "x")
