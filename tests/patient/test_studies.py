"""What a command is given becomes studies with names that are folders and that name nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from lungshift.errors import InputError, LungshiftError
from lungshift.patient.studies import Study, find_studies, sanitise
from patient_worlds import as_nifti, as_series, whole_chest

CASE = whole_chest()


def names(found) -> list[str]:
    return [study.name for study in found.studies]


def test_a_file_is_one_scan_and_so_is_a_folder_of_one_series(tmp_path: Path) -> None:
    file, folder = as_nifti(tmp_path, "a.nii.gz", CASE), as_series(tmp_path / "patient" / "series", CASE)

    assert find_studies([file]).single
    assert find_studies([folder]).single
    assert find_studies([folder.parent]).single, "a series in its only sub-folder"


def test_a_folder_of_files_and_series_is_many_studies(tmp_path: Path) -> None:
    as_nifti(tmp_path, "b.nii.gz", CASE)
    as_nifti(tmp_path / "deep" / "down", "c.nii", CASE)
    for number in (1, 2):
        as_series(tmp_path / f"patient{number}", CASE, series=f"1.2.3.4.{number}")
    (tmp_path / "readme.txt").write_text("not a scan")

    found = find_studies([tmp_path])

    assert not found.single
    assert [study.path.name for study in found.studies] == ["b.nii.gz", "c.nii", "patient1", "patient2"]


def test_two_series_of_one_folder_are_a_study_each_where_there_are_many(tmp_path: Path) -> None:
    as_nifti(tmp_path, "b.nii.gz", CASE)
    for number in (1, 2):
        as_series(tmp_path / "patient", CASE, series=f"1.2.3.4.{number}", prefix=f"s{number}-")

    found = find_studies([tmp_path])

    assert [study.series_uid for study in found.studies] == [None, "1.2.3.4.1", "1.2.3.4.2"]
    assert all(study.source().geometry.shape == (16, 64, 64) for study in found.studies)


def test_what_is_no_scan_in_a_series_folder_is_no_study(tmp_path: Path) -> None:
    def scout(ds: Dataset, k: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    as_nifti(tmp_path, "b.nii.gz", CASE)
    as_series(tmp_path / "patient", CASE)
    as_series(tmp_path / "patient", CASE, series="1.2.3.9", change=scout, prefix="scout")

    assert len(find_studies([tmp_path]).studies) == 2


def test_a_folder_whose_images_are_no_ct_is_a_study_that_says_why(tmp_path: Path) -> None:
    def other(ds: Dataset, k: int) -> None:
        ds.Modality = "MR"

    as_nifti(tmp_path, "b.nii.gz", CASE)
    as_series(tmp_path / "head", CASE, change=other)
    (tmp_path / "empty").mkdir()

    _, study = find_studies([tmp_path]).studies

    with pytest.raises(LungshiftError, match="Modality is MR"):
        study.source().read()


def test_a_series_is_called_by_a_hash_and_with_identity_by_its_folder(tmp_path: Path) -> None:
    folder = as_series(tmp_path / "Mueller, Hannelore", CASE)

    (plain,) = names(find_studies([folder]))
    (kept,) = names(find_studies([folder], keep_identity=True))

    assert plain.startswith("ct-")
    assert len(plain) == 15
    assert names(find_studies([tmp_path])) == [plain], "the same series, wherever it lies"
    assert kept == "Mueller_Hannelore"


def test_files_of_one_name_are_told_apart_by_their_content(tmp_path: Path) -> None:
    as_nifti(tmp_path / "one", "scan.nii.gz", CASE)
    as_nifti(tmp_path / "two", "scan.nii.gz", whole_chest(1))
    first = names(find_studies([tmp_path]))
    as_nifti(tmp_path / "a", "scan.nii.gz", whole_chest(2))

    again = names(find_studies([tmp_path]))

    assert len(set(again)) == 3
    assert set(first) < set(again), "who was there keeps its name when another comes"


def test_copies_of_a_series_are_predicted_each_and_said_to_be_copies(tmp_path: Path) -> None:
    for name in ("one", "two"):
        as_series(tmp_path / name, CASE)

    found = find_studies([tmp_path])

    assert len(set(names(found))) == 2
    assert [study.also_in for study in found.studies] == [1, 1]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("case 1", "case_1"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", "scan"),
        ("=cmd|' /C calc'!A0", "cmd_C_calc_A0"),
        ("Müller^Jörg", "M_ller_J_rg"),
        ("x" * 200, "x" * 64),
    ],
)
def test_a_name_leads_nowhere_and_does_nothing(name: str, plain: str) -> None:
    assert sanitise(name) == plain


def test_a_message_is_freed_of_paths_file_names_and_uids(tmp_path: Path) -> None:
    folder = as_series(tmp_path / "Mueller", CASE, prefix="MuellerH-")
    study = Study("ct-1", folder)
    said = f"{folder} holds 2 CT series: MuellerH-003.dcm and 4 more; UID 1.2.826.0.1.11, 4096 values of 0.75 mm"

    assert study.scrub(said) == "ct-1 holds 2 CT series: (a file) and 4 more; UID (a UID), 4096 values of 0.75 mm"


@pytest.mark.parametrize(
    ("given", "how", "code"),
    [
        pytest.param(["nowhere"], {}, "E_NO_FILE", id="not there"),
        pytest.param(["empty"], {}, "E_NO_STUDY", id="nothing in it"),
        pytest.param(["a.nii.gz", "b.nii.gz"], {"lung": Path("lung.nii.gz")}, "E_MANY", id="one lung mask for two"),
        pytest.param(["a.nii.gz", "b.nii.gz"], {"series_uid": "1.2"}, "E_MANY", id="one series for two"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, given: list[str], how: dict, code: str) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        as_nifti(tmp_path, name, CASE)

    with pytest.raises(InputError) as caught:
        find_studies([tmp_path / name for name in given], **how)

    assert caught.value.code == code
