"""``lungshift scene``: from files to files, and every expected end with one message and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lungshift.cli import main as cli
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.files import sha256
from lungshift.io.nifti import NiftiSource
from lungshift.io.writing import write_mask, write_volume
from series import TOKENS, write_ct
from worlds import tiny_case

pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")

CASE = tiny_case()
TOKEN = "Xanthippe_Q"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A scan, its lungs, and a lesion, as NIfTI."""
    assert CASE.lung is not None
    assert CASE.lesion is not None
    folder = tmp_path / "in"
    folder.mkdir()
    write_volume(CASE.volume, folder / "scan.nii.gz")
    write_mask(CASE.lung, folder / "lung.nii.gz")
    write_mask(CASE.lesion, folder / "lesion.nii.gz")
    return folder


def end_of(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """Exit code and everything that was said."""
    with pytest.raises(SystemExit) as end, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lungshift", "scene", *map(str, words)])
        cli.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out + said.err


def given(files: Path) -> list[object]:
    return [files / "scan.nii.gz", "--lung", files / "lung.nii.gz", "--lesion", files / "lesion.nii.gz"]


def test_a_scan_with_its_masks_becomes_a_folder(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = end_of(capsys, *given(files), "--reference", files / "lesion.nii.gz", "--output", tmp_path / "out")

    assert code == 0, said
    assert "lesion (predicted) 0.6 ml, lesion (reference) 0.6 ml; 18 files. Research use only." in said
    manifest = json.loads((tmp_path / "out" / "scene.json").read_text())
    assert manifest["inputs"]["scan"] == sha256(files / "scan.nii.gz")
    assert set(manifest["inputs"]) == {"scan", "lung", "lesion", "reference"}


def test_a_folder_of_predict_stands_for_lung_and_lesion(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [files / "scan.nii.gz", "--prediction", files, "--formats", "csv, stl", "--output", tmp_path / "out"]

    code, said = end_of(capsys, *words)

    assert code == 0, said
    assert {"lung.csv", "prediction.csv", "lung.stl", "prediction.stl"} < {
        one.name for one in (tmp_path / "out").iterdir()
    }


def test_a_dry_run_writes_nothing(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = end_of(capsys, *given(files), "--output", tmp_path / "out", "--dry-run")

    assert code == 0
    assert "Nothing was written" in said
    assert not (tmp_path / "out").exists()


def test_a_lesion_on_another_grid_is_refused(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mask(Mask(np.ones((4, 8, 8), bool), Geometry.regular((4, 8, 8), (5, 2, 2))), files / "other.nii.gz")

    code, said = end_of(capsys, *given(files)[:3], "--lesion", files / "other.nii.gz", "--output", tmp_path / "out")

    assert code == 1
    assert "E_MASK_SHAPE" in said
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_kept(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")

    code, said = end_of(capsys, *given(files), "--output", tmp_path / "out")

    assert code == 1
    assert "E_EXISTS" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param([], "name the lung mask with --lung", id="no lungs"),
        pytest.param(["--prediction", ".", "--lesion", "a.nii.gz"], "leave out --lesion", id="lesions twice"),
    ],
)
def test_words_that_do_not_go_together_are_a_usage_error(
    words: list[str], reason: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = end_of(capsys, files / "scan.nii.gz", *words)

    assert code == 2
    assert reason in " ".join(said.replace("│", " ").split())


def test_only_pictures_without_gl_exit_with_5(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lungshift.show import pictures

    monkeypatch.setattr(pictures, "can_draw", lambda: False)

    code, said = end_of(capsys, *given(files), "--formats", "png", "--output", tmp_path / "out")

    assert code == 5
    assert "E_MISSING" in said
    code, said = end_of(capsys, *given(files), "--formats", "csv", "--png", "--output", tmp_path / "out")
    assert code == 0
    assert "Without png, gif and mp4" in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no limits on the size of files")
def test_f78_a_scan_that_does_not_fit_is_refused_before_it_is_read(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slices, rows, columns = CASE.volume.geometry.shape
    monkeypatch.setattr("lungshift.memory.available_bytes", lambda: slices * rows * columns * 11)
    monkeypatch.setattr(NiftiSource, "read", lambda _: pytest.fail("the scan was read"))

    code, said = end_of(capsys, *given(files), "--output", tmp_path / "out")

    assert code == 6
    assert said.startswith(f"E_MEMORY: Showing a scan of {slices} x {rows} x {columns} voxels takes about ")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_ends_with_6_and_leaves_nothing(files: Path, tmp_path: Path) -> None:
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    fail = "import errno, lungshift.files as f; f._RESOURCE_ERRNOS.add(errno.EFBIG)"
    program = f"{limited}; {fail}; from lungshift.cli.main import main; main()"
    words = [str(word) for word in (*given(files), "--formats", "csv", "--output", tmp_path / "out")]

    done = subprocess.run([sys.executable, "-c", program, "scene", *words], capture_output=True, text=True, check=False)

    assert done.returncode == 6, done.stderr
    assert "E_RESOURCE" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["in"]


def test_nobody_is_named_in_any_file(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = tmp_path / TOKEN
    named.mkdir()
    for name in ("scan", "lung", "lesion"):
        image = nib.load(files / f"{name}.nii.gz")
        image.header["descrip"] = TOKEN.encode()
        image.header["db_name"] = TOKEN.encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", TOKEN.encode()))
        nib.save(image, named / f"{TOKEN}-{name}.nii.gz")
    words = [named / f"{TOKEN}-scan.nii.gz", "--lung", named / f"{TOKEN}-lung.nii.gz"]
    words += ["--lesion", named / f"{TOKEN}-lesion.nii.gz", "--reference", named / f"{TOKEN}-lesion.nii.gz"]
    with pytest.MonkeyPatch.context() as patch:
        from lungshift.show import pictures

        patch.setattr(pictures, "_SIZE", 60)
        patch.setattr(pictures, "_FILM_SIZE", 60)
        code, said = end_of(capsys, *words, "--png", "--output", tmp_path / "out")

    assert code == 0, said
    written = list((tmp_path / "out").iterdir())
    assert {"scene.vti", "lung.vtp", "scene.glb"} <= {file.name for file in written}
    for file in written:
        data = file.name.encode() + file.read_bytes()
        assert TOKEN.encode() not in data, file.name
        assert os.fsencode(tmp_path) not in data, file.name


def test_a_dicom_series_names_nobody_either(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    geometry = Geometry.regular((12, 32, 32), (5, 2, 2), (-30, -40, -60))
    masks = {"lung": np.ones(geometry.shape, bool), "lesion": rng.random(geometry.shape) > 0.9}
    write_ct(tmp_path / "series", rng.integers(-1000, 100, geometry.shape), geometry.affine)
    for name, voxels in masks.items():
        write_mask(Mask(voxels, geometry), tmp_path / f"{name}.nii.gz")

    words = [tmp_path / "series", "--lung", tmp_path / "lung.nii.gz", "--lesion", tmp_path / "lesion.nii.gz"]
    code, said = end_of(capsys, *words, "--output", tmp_path / "out")

    assert code == 0, said
    for file in (tmp_path / "out").iterdir():
        data = file.read_bytes()
        assert not [token for token in (*TOKENS.values(), "1.2.826.0.1.1") if token.encode() in data], file.name
