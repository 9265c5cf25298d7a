"""``lungshift follow-up`` from files to a page, and how its refusals end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lungshift.cli import main as cli
from lungshift.io.writing import write_mask, write_volume
from lungshift.patient import registration
from lungshift.prepare.phantom_dates import phantom_dates
from lungshift.prepare.phantom_site import Site

SITE = Site(slice_mm=7.0, pixel_mm=3.0, size=120)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patient on two dates, as files that name nobody but lie in a folder that does."""
    folder = tmp_path_factory.mktemp("Miller-Anna")
    for date in phantom_dates(5, 3, SITE, [["new", "gone", "stable"]]):
        write_volume(date.case.volume, folder / f"{date.day}.nii.gz")
        write_mask(date.case.lung, folder / f"{date.day}-lung.nii.gz")
        write_mask(date.case.lesion, folder / f"{date.day}-lesion.nii.gz")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "GRID_MM", 6.0)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["lungshift", "follow-up", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def words_of(folder: Path, *more: object) -> list[object]:
    masks = [
        word for kind in ("lung", "lesion") for day in (0, 7) for word in (f"--{kind}", folder / f"{day}-{kind}.nii.gz")
    ]
    return [folder / "0.nii.gz", folder / "7.nii.gz", *masks, *more]


def test_two_dates_become_a_page_that_names_nobody(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    dates = ("--date", "2020-03-01", "--date", "2020-03-08", "--no-viewer")

    assert call(monkeypatch, *words_of(scans, *dates, "--output", output)) == 0

    told = json.loads((output / "followup.json").read_text())
    assert sorted(event["event"] for event in told["steps"][0]["events"]) == ["gone", "new", "stable"]
    assert "From day 0 to day 7" in capsys.readouterr().out
    written = b"".join(file.read_bytes() for file in output.rglob("*") if file.is_file() and file.suffix != ".png")
    assert b"Miller" not in written
    assert b"2020-03" not in written


def test_a_list_does_the_same_as_options_and_a_dry_run_writes_nothing(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{day},{day}.nii.gz,{day}-lung.nii.gz,{day}-lesion.nii.gz" for day in (0, 7)]
    (scans / "dates.csv").write_text("\n".join(["day,scan,lung,lesion", *rows]) + "\n")
    output = tmp_path / "out"

    assert call(monkeypatch, scans / "dates.csv", "--output", output, "--dry-run") == 0
    assert "day 7: " in capsys.readouterr().out
    assert not output.exists()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--day", 7, "--day", 0), "E_DATES"),
        (("--day", 7, "--day", 7), "E_DATES"),
        (("--day", 0), "E_INPUT"),
        ((), "E_NO_DATE"),
    ],
    ids=["wrong order", "one date twice", "a day missing", "no days"],
)
def test_dates_that_cannot_be_are_one_message(
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple,
    code: str,
) -> None:
    output = tmp_path / "out"

    assert call(monkeypatch, *words_of(scans, *more, "--output", output)) == 1
    assert capsys.readouterr().err.startswith(f"{code}: ")
    assert not output.exists()


def test_a_list_beside_options_is_refused(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (scans / "list.csv").write_text("day,scan\n")

    assert call(monkeypatch, scans / "list.csv", "--day", 0, "--output", tmp_path / "out") == 1
    assert "leave out --day" in capsys.readouterr().err


def test_two_patients_end_without_a_page(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (other, _) = phantom_dates(6, 4, SITE, [["stable"]])
    write_volume(other.case.volume, tmp_path / "other.nii.gz")
    write_mask(other.case.lung, tmp_path / "other-lung.nii.gz")
    write_mask(other.case.lesion, tmp_path / "other-lesion.nii.gz")
    words = [scans / "0.nii.gz", tmp_path / "other.nii.gz", "--day", 0, "--day", 7]
    for kind in ("lung", "lesion"):
        words += [f"--{kind}", scans / f"0-{kind}.nii.gz", f"--{kind}", tmp_path / f"other-{kind}.nii.gz"]

    assert call(monkeypatch, *words, "--output", tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("E_TWO_PATIENTS: ")
    assert not (tmp_path / "out" / "followup.html").exists()
