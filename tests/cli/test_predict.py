"""``lungshift predict --resample``: what lies obliquely is segmented on request, and what does not is left as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from chests import threshold_model
from lungshift.cli import main as cli
from lungshift.learn.checkpoint import save_checkpoint
from patient_worlds import as_nifti, as_turned_nifti, turned_by, whole_chest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "threshold"
    save_checkpoint(threshold_model(), folder)
    return folder


def predict(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and everything that was said."""
    with pytest.raises(SystemExit) as end, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lungshift", "predict", *map(str, words), "--device", "cpu"])
        cli.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out + said.err


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
