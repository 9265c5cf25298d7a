"""``lungshift predict --resample``: what lies obliquely is segmented on request, and what does not is left as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from chests import threshold_model
from lungshift.cli import main as cli
from lungshift.learn.checkpoint import save_checkpoint
from patient_worlds import as_nifti, as_series, as_turned_nifti, turned_by, whole_chest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "threshold"
    save_checkpoint(threshold_model(), folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and everything that was said."""
    with pytest.raises(SystemExit) as end, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lungshift", *map(str, words)])
        cli.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out + said.err


def predict(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    return run(capsys, "predict", *words, "--device", "cpu")


def test_of_many_scans_the_oblique_one_is_refused_until_it_may_be_resampled_and_the_others_are_kept(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_nifti(tmp_path / "in", "a.nii.gz", whole_chest())
    scan = as_turned_nifti(tmp_path / "in" / "b.nii.gz", whole_chest(), turned_by(9, 2))
    words = (model, tmp_path / "in", "--output", tmp_path / "out")

    code, said = predict(capsys, *words)
    assert code == 4
    assert "b: E_OBLIQUE: b lies obliquely" in said
    assert "lungshift predict (--resample)" in said

    code, said = predict(capsys, *words, "--resample")
    assert code == 0, said
    lines = dict(line.split(": ", 1) for line in said.splitlines() if line.startswith(("a: ", "b: ")))
    assert lines["a"].endswith("(kept)")
    assert "; oblique scan, resampled to the patient’s axes" in lines["b"]
    mask = nib.load(tmp_path / "out" / "b" / "lesion.nii.gz")
    np.testing.assert_array_equal(mask.affine, nib.load(scan).affine)


def test_one_mask_alone_of_an_oblique_scan_lies_on_its_grid(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = as_turned_nifti(tmp_path / "scan.nii.gz", whole_chest(), turned_by(9, 2))

    refused, why = predict(capsys, model, scan, "--output", tmp_path / "mask.nii.gz")
    looked, told = predict(capsys, model, scan, "--resample", "--dry-run")
    done, said = predict(capsys, model, scan, "--output", tmp_path / "mask.nii.gz", "--resample")

    assert (refused, looked, done) == (1, 0, 0), said
    assert "lungshift predict (--resample)" in why
    assert "mm, resampled to the patient's axes" in told
    mask = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, nib.load(scan).affine)
    assert np.asarray(mask.dataobj).any()


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_what_was_resampled_can_be_measured_followed_and_shown_from_its_folder(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    scans = []
    for seed in (0, 1):
        case, turn = whole_chest(seed), turned_by(9, 2)
        if kind == "nifti":
            scans.append(as_turned_nifti(tmp_path / f"{seed}.nii.gz", case, turn))
        else:
            scans.append(as_series(tmp_path / f"series{seed}", case, turn=turn, series=f"1.2.826.0.1.{seed}"))
        code, said = predict(capsys, model, scans[-1], "--output", tmp_path / f"done{seed}", "--resample")
        assert code == 0, said
    done = ("--prediction", tmp_path / "done0")
    both = (*done, "--prediction", tmp_path / "done1", "--day", 0, "--day", 7)

    measured, said = run(capsys, "quantify", scans[0], *done, "--output", tmp_path / "quantified")
    shown, told = run(capsys, "scene", scans[0], *done, "--formats", "csv", "--output", tmp_path / "scene")
    followed, dates = run(capsys, "follow-up", *scans, *both, "--dry-run")

    assert (measured, shown, followed) == (0, 0, 0), said + told + dates
    predicted = json.loads((tmp_path / "done0" / "prediction.json").read_text())["lesion"]["ml"]
    quantities = json.loads((tmp_path / "quantified" / "quantities.json").read_text())["quantities"]
    numbers = {one["quantity"]: one["value"] for one in quantities}
    assert numbers["lesion_ml"] + numbers["outside_ml"] == pytest.approx(predicted, rel=0.05)
    refused, why = run(capsys, "quantify", scans[0], "--output", tmp_path / "alone")
    assert refused == 1
    assert "E_OBLIQUE" in why
