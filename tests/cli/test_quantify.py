"""``lungshift quantify``: from files to a page, the whole chain after ``predict``, and nobody named on the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from chests import threshold_model
from lungshift.cli import main as cli
from lungshift.io.nifti import read_mask
from lungshift.io.writing import write_mask
from lungshift.learn.checkpoint import save_checkpoint
from patient_worlds import as_nifti, as_series, lung_file, whole_chest
from series import TOKENS

CASE = whole_chest()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "threshold"
    save_checkpoint(threshold_model(), folder)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    as_nifti(tmp_path, "scan.nii.gz", CASE)
    lung_file(tmp_path / "lung.nii.gz", CASE)
    write_mask(CASE.lesion, tmp_path / "lesion.nii.gz")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], command: str, *words: object) -> tuple[int, str]:
    """Exit code and everything that was said."""
    with pytest.raises(SystemExit) as end, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lungshift", command, *map(str, words)])
        cli.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out + said.err


def told(folder: Path) -> dict:
    return json.loads((folder / "quantities.json").read_text())


def test_masks_become_a_page_and_numbers(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = ("--lung", files / "lung.nii.gz", "--lesion", files / "lesion.nii.gz")
    code, said = run(capsys, "quantify", files / "scan.nii.gz", *masks, "--output", tmp_path / "out")

    assert code == 0, said
    assert "No error bars: no model was given." in said
    made = {file.name for file in (tmp_path / "out").iterdir() if not file.name.startswith(".")}
    assert made == {"patient.html", "quantities.json", "quantities.csv", "lesions.csv", "run.json"}


def test_a_checkpoint_alone_leaves_the_masks_it_made(
    files: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--checkpoint", model, "--retakes", 2, "--device", "cpu", "--output", tmp_path / "out")
    code, said = run(capsys, "quantify", files / "scan.nii.gz", "--lung", files / "lung.nii.gz", *words)

    assert code == 0, said
    lesion = read_mask(tmp_path / "out" / "lesion.nii.gz", CASE.volume.geometry)
    numbers = {one["quantity"]: one for one in told(tmp_path / "out")["quantities"]}
    assert lesion.volume_ml == pytest.approx(numbers["lesion_ml"]["value"] + numbers["outside_ml"]["value"])
    assert numbers["lesion_ml"]["low"] <= numbers["lesion_ml"]["value"] <= numbers["lesion_ml"]["high"]
    assert not (tmp_path / "out" / "lung.nii.gz").exists()


def test_what_predict_wrote_is_measured_with_its_flags(
    files: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lung = ("--lung", files / "lung.nii.gz", "--device", "cpu")
    code, said = run(capsys, "predict", model, files / "scan.nii.gz", *lung, "--output", tmp_path / "done")
    assert code == 0, said
    words = ("--prediction", tmp_path / "done", "--checkpoint", model, "--retakes", 2, "--device", "cpu")
    code, said = run(capsys, "quantify", files / "scan.nii.gz", *words, "--output", tmp_path / "out")

    assert code == 0, said
    flags = json.loads((tmp_path / "done" / "prediction.json").read_text())["flags"]
    assert len(flags) == len(told(tmp_path / "out")["flags"])
    assert "not this model's own" not in said


def test_of_a_series_nobody_is_named_unless_it_is_asked_for(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = as_series(tmp_path / "Mueller", CASE)
    words = (series, "--lung", lung_file(tmp_path / "lung.nii.gz", CASE), "--checkpoint", model, "--retakes", 2)
    for name, more in (("out", ()), ("kept", ("--keep-identity",))):
        code, said = run(capsys, "quantify", *words, "--device", "cpu", *more, "--output", tmp_path / name)
        assert code == 0, said
    secret = [*TOKENS.values(), "Mueller"]
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file())
    page = (tmp_path / "kept" / "patient.html").read_text()

    assert not [token for token in secret if token.encode() in written]
    assert all(TOKENS[name] in page for name in ("PatientName", "PatientID", "StudyDate"))


def test_a_dry_run_writes_nothing(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--lung", files / "lung.nii.gz", "--output", tmp_path / "out", "--dry-run")
    code, said = run(capsys, "quantify", files / "scan.nii.gz", *words)

    assert (code, (tmp_path / "out").exists()) == (0, False)
    assert "lung mask" in said


def test_a_lesion_without_lungs_ends_with_1_and_leaves_nothing(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--lesion", files / "lesion.nii.gz", "--output", tmp_path / "out")
    code, said = run(capsys, "quantify", files / "scan.nii.gz", *words)

    assert code == 1
    assert said.startswith("E_NO_LUNG: ")
    assert not [file for file in (tmp_path / "out").rglob("*") if not file.name.startswith(".")]


def test_a_scan_that_is_not_in_hu_ends_with_1(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--lung", files / "lung.nii.gz", "--lesion", files / "lesion.nii.gz", "--output", tmp_path / "out")
    code, said = run(capsys, "quantify", files / "lesion.nii.gz", *words)

    assert code == 1
    assert said.startswith("E_NOT_HU: ")
