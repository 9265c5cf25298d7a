"""What is said of a patient's dates: as options or as a list; and what is refused before a voxel is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lungshift.errors import CohortError, InputError
from lungshift.io.writing import write_mask, write_volume
from lungshift.patient import dates as dates_module
from lungshift.patient.dates import Entry, find_dates, read_list
from lungshift.patient.predicting import FORMAT
from worlds import tiny_case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scans with masks, and one more copy of the first."""
    home = tmp_path_factory.mktemp("dates")
    for seed in range(3):
        case = tiny_case(seed)
        write_volume(case.volume, home / f"{seed}.nii.gz")
        write_mask(case.lung, home / f"{seed}-lung.nii.gz")
        write_mask(case.lesion, home / f"{seed}-lesion.nii.gz")
    (home / "copy.nii.gz").write_bytes((home / "0.nii.gz").read_bytes())
    return home


def entry(folder: Path, seed: int | str, date: str = "", **more: object) -> Entry:
    own = 0 if seed == "copy" else seed
    masks = {"lung": folder / f"{own}-lung.nii.gz", "lesion": folder / f"{own}-lesion.nii.gz"}
    return Entry(folder / f"{seed}.nii.gz", date, **(masks | more))  # type: ignore[arg-type]


def code_of(*entries: Entry) -> str:
    with pytest.raises(InputError) as error:
        find_dates(entries)
    return error.value.code


def test_dates_become_days_since_the_first(folder: Path) -> None:
    found = find_dates([entry(folder, 0, "2020-02-27"), entry(folder, 1, "2020-03-05"), entry(folder, 2, "2021-03-05")])

    assert [(one.label, one.day) for one in found] == [("day 0", 0), ("day 7", 7), ("day 372", 372)]


def test_real_dates_are_told_only_on_request(folder: Path) -> None:
    found = find_dates([entry(folder, 0, "2020-02-27"), entry(folder, 1, "2020-03-05")], keep_identity=True)

    assert [one.label for one in found] == ["2020-02-27", "2020-03-05"]


def test_days_do_in_place_of_dates(folder: Path) -> None:
    found = find_dates([entry(folder, 0, day=3), entry(folder, 1, day=10)], keep_identity=True)

    assert [one.label for one in found] == ["day 0", "day 7"]


def test_a_date_is_read_with_its_masks_under_its_label(folder: Path) -> None:
    case = find_dates([entry(folder, 0, day=0), entry(folder, 1, day=5)])[1].read()

    assert (case.case_id, case.lung_source) == ("day 5", "reader")
    np.testing.assert_array_equal(case.lesion.voxels, tiny_case(1).lesion.voxels)


@pytest.mark.parametrize(
    ("days", "code"),
    [((7, 0), "E_DATES"), ((4, 4), "E_DATES"), ((None, None), "E_NO_DATE"), ((None, 3), "E_NO_DATE")],
    ids=["wrong order", "one date twice", "no date", "one without a date"],
)
def test_dates_that_do_not_follow_each_other_are_refused(folder: Path, days: tuple, code: str) -> None:
    assert code_of(*(entry(folder, seed, day=day) for seed, day in enumerate(days))) == code


def test_a_single_date_is_refused(folder: Path) -> None:
    assert code_of(entry(folder, 0, day=0)) == "E_DATES"


def test_a_date_and_a_day_at_once_are_refused(folder: Path) -> None:
    assert code_of(entry(folder, 0, "2020-01-01", day=0), entry(folder, 1, day=1)) == "E_DATES"


def test_days_for_some_and_dates_for_others_are_refused(folder: Path) -> None:
    assert code_of(entry(folder, 0, "2020-01-01"), entry(folder, 1, day=1)) == "E_DATES"


def test_a_date_in_other_words_is_refused(folder: Path) -> None:
    assert code_of(entry(folder, 0, "01.02.2020"), entry(folder, 1, "2020-03-01")) == "E_DATES"


def test_two_patients_by_their_ids_are_refused_without_telling_the_ids(folder: Path) -> None:
    both = [entry(folder, 0, day=0, patient_id="Miller"), entry(folder, 1, day=1, patient_id="Smith")]

    with pytest.raises(CohortError, match="2 patients") as error:
        find_dates(both)
    assert error.value.code == "E_TWO_PATIENTS"
    assert "Miller" not in str(error.value)


def test_one_scan_under_two_dates_is_refused_by_its_checksum(folder: Path) -> None:
    assert code_of(entry(folder, 0, day=0), entry(folder, "copy", day=7)) == "E_SAME_SCAN"


def test_two_dates_may_share_an_empty_lesion_mask(folder: Path) -> None:
    same = {"lesion": folder / "0-lesion.nii.gz"}

    assert len(find_dates([entry(folder, 0, day=0, **same), entry(folder, 1, day=1, **same)])) == 2


def test_a_date_without_lesion_mask_needs_a_model(folder: Path, tmp_path: Path) -> None:
    bare = entry(folder, 1, day=1, lesion=None)

    assert code_of(entry(folder, 0, day=0), bare) == "E_NO_LESION"
    assert len(find_dates([entry(folder, 0, day=0), entry(folder, 1, day=1, lesion=None, checkpoint=tmp_path)])) == 2


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    assert code_of(entry(folder, 0, day=0), entry(folder, 1, day=1, lung=folder / "none.nii.gz")) == "E_NO_FILE"


def predicted(home: Path, seed: int, scan_sha: str) -> Path:
    """A folder as lungshift predict leaves it."""
    case = tiny_case(seed)
    write_mask(case.lung, home / "lung.nii.gz")
    write_mask(case.lesion, home / "lesion.nii.gz")
    flag = {"code": "cut-off", "evidence": "the lungs go on", "remedy": "Look"}
    told = {
        "format": FORMAT,
        "lung": {"source": "threshold"},
        "flags": [flag],
        "input": {"sha256": {"scan": [scan_sha]}},
    }
    (home / "prediction.json").write_text(json.dumps(told))
    return home


def test_a_prediction_stands_in_place_of_both_masks_and_its_flags_go_along(folder: Path, tmp_path: Path) -> None:
    from lungshift.files import sha256

    own = predicted(tmp_path, 1, sha256(folder / "1.nii.gz"))
    found = find_dates([entry(folder, 0, day=0), Entry(folder / "1.nii.gz", day=1, prediction=own)])[1]

    assert (found.lung_source, found.flags) == ("threshold", ("the lungs go on. Look.",))
    np.testing.assert_array_equal(found.read().lesion.voxels, tiny_case(1).lesion.voxels)


def test_the_prediction_of_another_scan_is_refused(folder: Path, tmp_path: Path) -> None:
    other = predicted(tmp_path, 1, "0" * 64)

    assert code_of(entry(folder, 0, day=0), Entry(folder / "1.nii.gz", day=1, prediction=other)) == "E_PREDICTION"


def test_a_prediction_beside_a_mask_is_refused(folder: Path, tmp_path: Path) -> None:
    assert code_of(entry(folder, 0, day=0), entry(folder, 1, day=1, prediction=tmp_path)) == "E_INPUT"


TOML = """
lesion_labels = [1, 2]

[[date]]
day = 0
scan = "0.nii.gz"
lung = "0-lung.nii.gz"
lesion = "0-lesion.nii.gz"
checkpoint = "model"
patient_id = "P7"

[[date]]
day = 9
scan = "1.nii.gz"
lesion = "1-lesion.nii.gz"
"""
CSV = """date,scan,lung,lesion
2020-03-01,0.nii.gz,0-lung.nii.gz,0-lesion.nii.gz
2020-03-10,1.nii.gz,,1-lesion.nii.gz
"""


def test_a_list_in_toml_says_everything(folder: Path) -> None:
    (folder / "list.toml").write_text(TOML)
    entries, labels = read_list(folder / "list.toml")

    assert [one.day for one in entries] == [0, 9]
    assert (entries[0].checkpoint, entries[0].patient_id) == (folder / "model", "P7")
    assert labels[1].chosen == {1, 2}
    assert [one.label for one in find_dates(entries, labels=labels)] == ["day 0", "day 9"]


def test_a_list_in_csv_does_too(folder: Path) -> None:
    (folder / "list.csv").write_text(CSV)
    entries, labels = read_list(folder / "list.csv")

    assert [one.lung is None for one in entries] == [False, True]
    assert [(one.day, one.lung_source) for one in find_dates(entries, labels=labels)] == [(0, "reader"), (9, "none")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[date]]\nday = 0\nscam = 'x'", "unknown scam"),
        ("[[date]]\nday = 0", "has no scan"),
        ("[[date]]\nday = 'x'\nscan = 'x'", "whole number"),
        ("dates = 3", "unknown dates"),
        ("date = 3", r"\[\[date\]\]"),
        ("lesion_labels = ['x']", "whole numbers"),
        ("[[", "cannot be read"),
    ],
)
def test_a_list_that_is_wrong_is_refused_and_says_where(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.toml").write_text(text)

    with pytest.raises(CohortError, match=words) as error:
        read_list(tmp_path / "list.toml")
    assert error.value.code == "E_MANIFEST"


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no list of dates"):
        read_list(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({"PatientID": "7", "IssuerOfPatientID": "A", "StudyDate": "20200301"}, ("A:7", "20200301")),
        ({"PatientID": " 7 "}, ("7", "")),
        ({}, ("", "")),
    ],
)
def test_a_series_says_whose_it_is_and_when(
    monkeypatch: pytest.MonkeyPatch, header: dict, told: tuple[str, str]
) -> None:
    class Series:
        class stack:
            frames = [type("Frame", (), {"path": Path("x")})]

    monkeypatch.setattr(dates_module, "read_identity", lambda _path: header)

    assert dates_module._told_by_dicom(Series) == told  # type: ignore[arg-type]
