"""A cohort written down in TOML or CSV."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError, CohortError
from lungshift.io.cohort import read_cohort
from lungshift.io.voxels import ONE_LABEL
from lungshift.io.writing import write_mask, write_volume

GRID = Geometry.regular((3, 4, 5), (5, 0.7, 0.7))
HU = np.linspace(-1000, 300, 60).astype(np.int16).reshape(GRID.shape)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_volume(Volume(HU, GRID), tmp_path / "data" / "scan.nii.gz")
    write_mask(Mask(HU < -500, GRID), tmp_path / "data" / "lung.nii.gz")
    write_volume(
        Volume((np.arange(60) % 4).astype(np.int16).reshape(GRID.shape), GRID), tmp_path / "data" / "lesion.nii.gz"
    )
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


TOML = """
name = "site-b"
licence = "CC BY 4.0"
source = "doi:10.5281/zenodo.0"
lesion_labels = [1, 2]
declared_labels = [1, 2, 3]

[[case]]
case_id = "a"
volume = "../data/scan.nii.gz"
lung = "../data/lung.nii.gz"
lesion = "../data/lesion.nii.gz"
patient_id = "P7"
site = "B"
date = 2020-04-02
volume_sha256 = "{sha256}"
lung_source = "model"

[[case]]
case_id = "b"
volume = "../data/scan.nii.gz"
"""
CSV = """case_id,volume,lung,lesion,patient_id,name,lesion_labels,declared_labels
a,../data/scan.nii.gz,../data/lung.nii.gz,../data/lesion.nii.gz,P7,site-b,1 2,1 2 3
b,../data/scan.nii.gz,,,P8,site-b,1 2,1 2 3
"""


def write(folder: Path, text: str, name: str = "manifest.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(path: Path) -> CohortError:
    with pytest.raises(CohortError) as caught:
        read_cohort(path)
    return caught.value


def test_a_toml_manifest_says_everything(folder: Path) -> None:
    digest = hashlib.sha256((folder / "../data/scan.nii.gz").read_bytes()).hexdigest()
    cohort = read_cohort(write(folder, TOML.format(sha256=digest)))
    assert (cohort.name, cohort.licence, cohort.source) == ("site-b", "CC BY 4.0", "doi:10.5281/zenodo.0")
    one, two = cohort.cases
    assert (one.patient_id, one.site, one.date, one.lung_source) == ("P7", "B", "2020-04-02", "model")
    assert (two.patient_id, two.source.has_lung, two.source.has_lesion, two.lung_source) == ("b", False, False, "none")
    assert not cohort.patients_known
    case = one.read()
    assert case.lesion is not None
    assert np.count_nonzero(case.lesion.voxels) == 30


def test_a_csv_manifest_says_the_same_and_is_found_in_its_folder(folder: Path) -> None:
    write(folder, CSV, "manifest.csv")
    cohort = read_cohort(folder)
    assert (cohort.name, cohort.patients, cohort.patients_known) == ("site-b", ("P7", "P8"), True)
    case = cohort.cases[0].read()
    assert case.lung is not None
    assert case.lesion is not None
    assert np.count_nonzero(case.lesion.voxels) == 30


def test_a_file_that_is_not_the_one_written_down_is_refused(folder: Path) -> None:
    error = refused(write(folder, TOML.format(sha256="0" * 64)))
    assert error.code == "E_CHECKSUM"
    assert "scan.nii.gz is not the file that was written down" in str(error)


def test_labels_that_were_not_declared_are_refused_on_reading(folder: Path) -> None:
    cohort = read_cohort(write(folder, CSV.replace("1 2 3", "1 2"), "x.csv"))
    with pytest.raises(AnnotationError, match=r"3 \(15 voxels\)"):
        cohort.cases[0].read()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[[case]]\ncase_id = 'a'\nvolume = 'no.nii.gz'", "E_NO_FILE", "the volume .*no.nii.gz does not exist"),
        ("[[case]]\ncase_id = 'a'", "E_MANIFEST", "case 1 has no volume"),
        ("[[case]]\nvolume = '../data/scan.nii.gz'", "E_MANIFEST", "has no case_id"),
        ("[[case]]\ncase = 'a'", "E_MANIFEST", "unknown case. Entries of a case are case_id"),
        ("title = 'a'", "E_MANIFEST", "unknown title"),
        ("case = 3", "E_MANIFEST", r"\[\[case\]\]"),
        ("name = ", "E_MANIFEST", "cannot be read as a manifest"),
        ("lesion_labels = ['x']", "E_MANIFEST", "whole numbers"),
        ("lesion_labels = 3", "E_MANIFEST", "whole numbers"),
        ("name = 'x'", "E_EMPTY_COHORT", "no case"),
        (
            "[[case]]\ncase_id='a'\nvolume='../data/scan.nii.gz'\nlung_source='me'",
            "E_MANIFEST",
            "lung_source is one of",
        ),
        ("[[case]]\ncase_id='a'\nvolume='../data'\nvolume_sha256='00'", "E_MANIFEST", "is for one file"),
        (
            "[[case]]\ncase_id='a'\nvolume='../data/scan.nii.gz'\n[[case]]\ncase_id='a'\nvolume='../data/scan.nii.gz'",
            "E_COHORT",
            "more than one case called a",
        ),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(folder: Path, text: str, code: str, words: str) -> None:
    path = write(folder, text)
    with pytest.raises(CohortError, match=words) as caught:
        read_cohort(path)
    assert caught.value.code == code


def test_rows_that_disagree_about_the_cohort_are_refused(folder: Path) -> None:
    assert "column name differs" in str(refused(write(folder, CSV.replace("P8,site-b", "P8,site-c"), "x.csv")))


def test_a_row_that_is_too_long_is_refused(folder: Path) -> None:
    assert refused(write(folder, "case_id,volume\na,b,c\n", "x.csv")).code == "E_MANIFEST"


def test_another_kind_of_file_is_no_manifest(folder: Path) -> None:
    assert refused(write(folder, "x", "cohort.txt")).code == "E_MANIFEST"
    path = folder / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    assert refused(path).code == "E_MANIFEST"


def test_a_folder_as_volume_is_a_dicom_series(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    def source(path: Path, **keywords: Any) -> object:
        made.update(keywords, folder=path)
        return object()

    module = ModuleType("lungshift.io.dicom")
    module.DicomSource = source  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lungshift.io.dicom", module)
    read_cohort(write(folder, "[[case]]\ncase_id='a'\nvolume='../data'\nseries_uid='1.2'"))
    assert made.pop("lung_labels") == made.pop("lesion_labels") == ONE_LABEL
    assert made == {"folder": folder / "../data", "series_uid": "1.2", "lung": None, "lesion": None}
