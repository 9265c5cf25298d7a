"""One scan in, a folder out that says what was found, by what, and what is odd about it; or one reason why not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy import ndimage

from chests import TISSUE
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import PackedMask
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import InputError, LungshiftError, OutputError
from lungshift.files import sha256
from lungshift.io.dicom_seg import read_seg
from lungshift.io.nifti import NiftiSource, read_mask, read_volume
from lungshift.learn.checkpoint import Checkpoint, build_network, load_checkpoint, save_checkpoint
from lungshift.learn.settings import NetworkSettings
from lungshift.measure.density import CONSOLIDATION_HU
from lungshift.patient import predicting
from lungshift.patient.batch import predict_one
from lungshift.patient.predicting import Options, is_done, predict_study, read_description
from lungshift.patient.studies import find_studies
from patient_worlds import as_nifti, as_series, as_turned_nifti, lung_file, shifted, turned_by, whole_chest
from series import TOKENS


def run(options: Options, scan: Path, folder: Path, **how) -> dict:
    overwrite = how.pop("overwrite", False)
    found = find_studies([scan], keep_identity=options.keep_identity, **how)
    predict_one(found, options, folder, overwrite=overwrite)
    return read_description(folder)


def refusal(options: Options, scan: Path, **how) -> LungshiftError:
    with pytest.raises(LungshiftError) as caught:
        predict_study(find_studies([scan], **how).studies[0], options)
    return caught.value


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return as_nifti(tmp_path / "in", "case one.nii.gz", whole_chest())


@pytest.fixture
def lung(tmp_path: Path) -> Path:
    return lung_file(tmp_path / "lung.nii.gz", whole_chest())


def test_a_nifti_scan_becomes_two_masks_on_its_own_grid_and_what_must_be_known_of_them(
    scan, lung, options, tmp_path
) -> None:
    told = run(options, scan, tmp_path / "out", lung=lung)

    case, volume = whole_chest(), read_volume(scan)
    lesion = read_mask(tmp_path / "out" / "lesion.nii.gz", volume.geometry)
    np.testing.assert_array_equal(lesion.voxels, case.lesion.voxels)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        ".lock",
        "lesion.nii.gz",
        "lung.nii.gz",
        "prediction.json",
        "run.json",
    ]
    assert told["study"] == "case_one"
    assert told["lesion"]["ml"] == pytest.approx(case.lesion.voxels.sum() * 10 * 2 * 2 / 1000)
    assert told["lesion"]["percent_of_lung"] == pytest.approx(100 * told["lesion"]["ml"] / told["lung"]["ml"])
    assert told["lesion"]["ground_glass_ml"] == pytest.approx(told["lesion"]["ml"])
    assert told["lesion"]["consolidation_from_hu"] == CONSOLIDATION_HU
    assert told["input"]["sha256"]["scan"] == [sha256(scan)]
    assert told["geometry"]["spacing_mm"] == [10.0, 2.0, 2.0]
    assert "Research use only" in told["use"]
    assert {"lungshift", "numpy", "highdicom", "python"} <= told["versions"].keys()
    assert {"engine", "precision", "threads"} <= told["engine"].keys()


def test_a_dicom_series_becomes_a_segmentation_too(lung, options, tmp_path) -> None:
    folder = as_series(tmp_path / "ct", whole_chest(), order=list(reversed(range(16))))

    told = run(options, folder, tmp_path / "out", lung=lung)

    case = whole_chest()
    masks = read_seg(tmp_path / "out" / "lesion.dcm", case.volume.geometry)
    both = masks["ground-glass opacity"].voxels | masks["consolidation"].voxels
    np.testing.assert_array_equal(both, case.lesion.voxels)
    np.testing.assert_array_equal(
        masks["lung"].voxels, read_mask(tmp_path / "out" / "lung.nii.gz", case.volume.geometry).voxels
    )
    assert told["study"].startswith("ct-")
    assert set(told["files"]) == {"lesion.nii.gz", "lung.nii.gz", "lesion.dcm"}


SHEAR = np.eye(4)
SHEAR[1, 2] = np.tan(np.radians(12))
"""As a tilted gantry leaves it: each slice a little further back than the one below."""
OBLIQUE = [
    pytest.param(turned_by(9, 2), "E_OBLIQUE", id="turned about the head-foot axis"),
    pytest.param(turned_by(-7, 1) @ turned_by(5, 2), "E_OBLIQUE", id="turned about two axes"),
    pytest.param(SHEAR, "E_SHEARED", id="sheared"),
]


def stored_mask(path: Path) -> np.ndarray:
    """What lies in a mask file, by (slice, row, column) as ``as_turned_nifti`` stores them."""
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0).astype(bool)


@pytest.mark.parametrize(("turn", "code"), OBLIQUE)
def test_an_oblique_scan_is_refused_with_the_option_that_resamples_it(turn, code, options, tmp_path) -> None:
    error = refusal(options, as_turned_nifti(tmp_path / "scan.nii.gz", whole_chest(), turn))

    assert error.code == code
    assert "lungshift predict (--resample)" in str(error)


@pytest.mark.parametrize(("turn", "code"), OBLIQUE)
def test_an_oblique_scan_that_is_resampled_on_request_gets_masks_on_its_own_grid(turn, code, options, tmp_path) -> None:
    case = whole_chest()
    scan = as_turned_nifti(tmp_path / "scan.nii.gz", case, turn)
    inner = ndimage.binary_erosion(
        case.lung.voxels, iterations=2
    )  # no voxel of it is mixed with what is around the lungs
    lung = as_turned_nifti(tmp_path / "lung.nii.gz", case, turn, array=inner.astype(np.uint8))

    told = run(options, scan, tmp_path / "out", lung=lung, oblique="resample")

    np.testing.assert_array_equal(nib.load(tmp_path / "out" / "lesion.nii.gz").affine, nib.load(scan).affine)
    found, truth = stored_mask(tmp_path / "out" / "lesion.nii.gz"), case.lesion.voxels & inner
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8
    halves = truth[..., :32].sum(), truth[..., 32:].sum()
    assert (found[..., :32].sum(), found[..., 32:].sum()) == pytest.approx(halves, rel=0.2), "left is left"
    assert told["geometry"]["resampled"] is True
    assert "resampled to the patient’s axes" in told["said"]
    assert any("nearest" in note for note in told["notes"])
    assert told["lesion"]["ml"] == pytest.approx(truth.sum() * case.volume.geometry.voxel_ml, rel=0.2)


def test_a_tilted_series_that_is_resampled_on_request_is_segmented_on_its_own_slices(lung, options, tmp_path) -> None:
    case = whole_chest()
    folder = as_series(tmp_path / "ct", case, turn=turned_by(6, 0))
    error = refusal(options, folder)
    assert error.code == "E_OBLIQUE"
    assert "lungshift predict (--resample)" in str(error)

    told = run(options, folder, tmp_path / "out", oblique="resample")

    own = Geometry(case.volume.geometry.shape, turned_by(6, 0) @ case.volume.geometry.affine)
    seg = read_seg(tmp_path / "out" / "lesion.dcm", own)
    found, truth = seg["ground-glass opacity"].voxels | seg["consolidation"].voxels, case.lesion.voxels
    assert (found & truth).sum() > 0.8 * truth.sum()
    grid = read_volume(tmp_path / "out" / "lesion.nii.gz", require_hu=False).geometry
    np.testing.assert_allclose(grid.affine, told["geometry"]["affine_lps_mm"], atol=1e-4)
    assert told["geometry"]["resampled"] is True


def test_of_a_scan_that_was_resampled_nothing_is_said_about_slices_that_no_scanner_made(options, tmp_path) -> None:
    scan = as_turned_nifti(tmp_path / "scan.nii.gz", whole_chest(), turned_by(12, 0))

    told = run(options, scan, tmp_path / "out", oblique="resample")

    assert [flag["code"] for flag in told["flags"] if flag["code"].startswith("slice-")] == []
    assert any("missing, doubled or empty was not judged" in note for note in told["notes"])


def test_a_series_of_a_tilted_gantry_is_segmented_where_its_slices_lie(options, tmp_path) -> None:
    folder = as_series(tmp_path / "ct", whole_chest(), turn=SHEAR)
    assert refusal(options, folder).code == "E_TILT"

    run(options, folder, tmp_path / "out", oblique="resample")

    seg = pydicom.dcmread(tmp_path / "out" / "lesion.dcm")
    frames = [group.PlanePositionSequence[0] for group in seg.PerFrameFunctionalGroupsSequence]
    stored = {tuple(map(float, pydicom.dcmread(file).ImagePositionPatient)) for file in folder.iterdir()}
    assert len(frames) > 16
    assert {tuple(map(float, frame.ImagePositionPatient)) for frame in frames} <= stored


def test_to_allow_resampling_changes_nothing_about_a_straight_scan(scan, lung, options, tmp_path) -> None:
    told = run(options, scan, tmp_path / "out", lung=lung)

    again = predict_one(find_studies([scan], lung=lung, oblique="resample"), options, tmp_path / "out")

    assert again.status == "kept"
    assert told["geometry"]["resampled"] is False


def test_lesion_outside_the_lung_counts_as_lesion_and_not_as_percent_of_the_lung(
    scan, checkpoint, options, tmp_path
) -> None:
    everywhere = load_checkpoint(checkpoint)
    everywhere = everywhere.with_decision(replace(everywhere.decision, inside_lung=False))
    save_checkpoint(everywhere, tmp_path / "everywhere")
    lung = whole_chest().lung
    right_only = Case(whole_chest().volume, Mask(lung.voxels & (np.arange(64) < 32), lung.geometry))

    told = run(
        replace(options, checkpoint=tmp_path / "everywhere"),
        scan,
        tmp_path / "out",
        lung=lung_file(tmp_path / "right.nii.gz", right_only),
    )

    inside = told["lesion"]["ml"] - told["lesion"]["outside_lung_ml"]
    assert told["lesion"]["outside_lung_ml"] > inside > 0
    assert told["lesion"]["percent_of_lung"] == pytest.approx(100 * inside / told["lung"]["ml"])


def test_dense_lesion_is_consolidation_in_the_segmentation_and_in_the_numbers(lung, options, tmp_path) -> None:
    case = whole_chest()
    hu = case.volume.hu.copy()
    hu[6][case.lesion.voxels[6]] = CONSOLIDATION_HU + 50
    folder = as_series(tmp_path / "ct", replace(case, volume=Volume(hu, case.volume.geometry)))

    told = run(options, folder, tmp_path / "out", lung=lung)

    dense = read_seg(tmp_path / "out" / "lesion.dcm", case.volume.geometry)["consolidation"].voxels
    assert np.flatnonzero(dense.any(axis=(1, 2))).tolist() == [6]
    assert told["lesion"]["consolidation_ml"] == pytest.approx(case.lesion.voxels[6].sum() * 0.04)


def test_that_nothing_was_found_is_said_in_words_with_how_much_was_looked_at(lung, options, tmp_path) -> None:
    scan = as_nifti(tmp_path, "clear.nii.gz", whole_chest(lesion=False))

    told = run(options, scan, tmp_path / "out", lung=lung)

    assert told["said"] == "no lesion found; 12 slices with lung were looked at (lung mask: reader)"
    assert told["lesion"]["ml"] == 0
    assert (tmp_path / "out" / "lesion.nii.gz").is_file()


# --- slice by slice


def permuted(scan: Path, path: Path) -> Path:
    """The same scan in a file that holds one column after another, which cannot be read slice by slice."""
    image = nib.load(scan)
    affine = image.affine[:, [1, 2, 0, 3]]
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj).transpose(1, 2, 0), affine), path)
    return path


@pytest.mark.parametrize("way", ["reader", "threshold"])
def test_a_scan_is_never_in_memory_whole_and_its_masks_are_to_the_bit_those_of_one_that_is(
    scan, lung, options, tmp_path, monkeypatch, way
) -> None:
    how = {"lung": lung} if way == "reader" else {}
    whole = run(options, permuted(scan, tmp_path / "case one.nii.gz"), tmp_path / "whole", **how)

    def refuse(*_: object) -> None:
        raise AssertionError("the scan was read whole")

    monkeypatch.setattr(NiftiSource, "read", refuse)
    monkeypatch.setattr("lungshift.io.nifti._whole_hu", refuse)
    sliced = run(options, scan, tmp_path / "sliced", **how)

    assert sliced["lung"]["source"] == way
    assert {name: sliced[name] for name in ("said", "lesion", "lung", "flags")} == {
        name: whole[name] for name in ("said", "lesion", "lung", "flags")
    }
    for name in ("lesion.nii.gz", "lung.nii.gz"):
        one, other = (read_mask(tmp_path / part / name, NiftiSource(scan).geometry) for part in ("sliced", "whole"))
        np.testing.assert_array_equal(one.voxels, other.voxels)


def test_a_scan_that_is_damaged_at_its_end_is_refused_although_its_slices_came_before(scan, options, tmp_path) -> None:
    data = scan.read_bytes()
    scan.write_bytes(data[:-8] + bytes(8))

    assert refusal(options, scan).code == "E_CRC"


def test_f78_what_cannot_be_read_slice_by_slice_needs_room_for_the_whole_and_is_refused_by_its_header(
    scan, options, tmp_path, monkeypatch
) -> None:
    across = permuted(scan, tmp_path / "across.nii.gz")
    series = as_series(tmp_path / "ct", whole_chest())
    monkeypatch.setattr("lungshift.memory.available_bytes", lambda: predicting._BASE_BYTES + 300 * 64 * 64 + 100_000)

    predict_study(find_studies([scan]).studies[0], options)
    for path in (across, series):
        error = refusal(options, path)
        assert error.code == "E_MEMORY"
        assert str(error).startswith("A scan of 16 x 64 x 64 voxels takes about 401 MiB of memory")


# --- the lung mask


def test_without_a_lung_mask_one_is_made_by_threshold_and_recorded_as_such(scan, options, tmp_path) -> None:
    told = run(options, scan, tmp_path / "out")

    assert told["lung"]["source"] == "threshold"
    assert told["lung"]["ml"] == pytest.approx(whole_chest().lung.volume_ml, rel=0.05)


def test_a_lung_mask_that_was_given_is_taken_and_recorded(scan, lung, options, tmp_path) -> None:
    told = run(options, scan, tmp_path / "out", lung=lung)

    assert told["lung"]["source"] == "reader"
    assert told["lung"]["ml"] == pytest.approx(whole_chest().lung.volume_ml)
    assert len(told["input"]["sha256"]["lung"]) == 1


@pytest.fixture
def lung_model(tmp_path: Path) -> Path:
    settings = NetworkSettings(width=1, levels=1, lung_channel=False, target="lung")
    weights = {name: weight.numpy() for name, weight in build_network(settings).state_dict().items()}
    save_checkpoint(Checkpoint(weights, settings, 64, fingerprint="f1"), tmp_path / "lung-model")
    return tmp_path / "lung-model"


def test_a_lung_model_draws_the_lungs_where_none_are_given_and_is_recorded(
    scan, lung, lung_model, options, tmp_path, monkeypatch
) -> None:
    def by_model(predictor, slices, geometry) -> PackedMask:
        assert predictor.checkpoint.network.target == "lung"
        assert len(list(slices)) == geometry.shape[0]
        return PackedMask.of(whole_chest().lung)

    monkeypatch.setattr("lungshift.patient.predicting.find_lungs", by_model)
    with_model = replace(options, lung_model=lung_model)

    found = run(with_model, scan, tmp_path / "found")
    given = run(with_model, scan, tmp_path / "given", lung=lung)

    assert (found["lung"]["source"], found["lung"]["model"]) == ("model", "f1")
    assert (given["lung"]["source"], given["lung"]["model"]) == ("reader", None)
    assert found["identity"] != given["identity"]


def test_a_lesion_model_is_no_lung_model_and_the_other_way_round(scan, lung_model, options) -> None:
    for wrong in (replace(options, lung_model=options.checkpoint), replace(options, checkpoint=lung_model)):
        assert refusal(wrong, scan).code == "E_TARGET"


def test_a_lung_mask_on_another_grid_is_refused(scan, options, tmp_path) -> None:
    error = refusal(options, scan, lung=lung_file(tmp_path / "lung.nii.gz", shifted(whole_chest(), 1.0)))

    assert error.code == "E_MASK_AFFINE"
    assert "Resample it to the scan first" in str(error)


def test_an_empty_lung_mask_is_refused_and_not_answered_with_no_lesion(scan, options, tmp_path) -> None:
    case = whole_chest()
    empty = Case(case.volume, Mask(np.zeros_like(case.lung.voxels), case.volume.geometry))

    error = refusal(options, scan, lung=lung_file(tmp_path / "lung.nii.gz", empty))

    assert error.code == "E_NO_LUNG"
    assert "The lung mask is empty" in str(error)


# --- what is refused


def test_a_scan_without_lungs_is_refused_and_not_answered_with_no_lesion(options, tmp_path) -> None:
    case = whole_chest(lesion=False)
    hu = case.volume.hu.copy()
    hu[case.lung.voxels] = TISSUE

    error = refusal(options, as_nifti(tmp_path, "head.nii.gz", replace(case, volume=Volume(hu, case.volume.geometry))))

    assert error.code == "E_NO_LUNG"


def test_a_scan_that_is_not_in_hu_is_refused(options, tmp_path) -> None:
    case = whole_chest()
    eight_bit = ((case.volume.hu.clip(-1000, 400) + 1000) / 1400 * 255).astype(np.int16)

    error = refusal(
        options, as_nifti(tmp_path, "rgb.nii.gz", replace(case, volume=Volume(eight_bit, case.volume.geometry)))
    )

    assert error.code == "E_NOT_HU"


def test_a_series_with_a_missing_slice_is_refused_with_its_place(options, tmp_path) -> None:
    folder = as_series(tmp_path / "ct", whole_chest())
    (folder / "im007.dcm").unlink()

    error = refusal(options, folder)

    assert error.code == "E_GAP"
    assert "z = 70 mm" in str(error)


def test_of_two_series_in_one_folder_one_must_be_chosen(options, tmp_path) -> None:
    folder = as_series(tmp_path / "ct", whole_chest(0), series="1.2.3.4.5.1", prefix="a")
    as_series(folder, whole_chest(1), series="1.2.3.4.5.2", prefix="b")

    error = refusal(options, folder)
    told = run(options, folder, tmp_path / "out", series_uid="1.2.3.4.5.2")
    alone = run(options, as_series(tmp_path / "alone", whole_chest(1)), tmp_path / "other")

    assert error.code == "E_SERIES"
    assert "1.2.3.4.5.1" in str(error)
    assert told["lesion"] == alone["lesion"]


def test_a_segmentation_given_as_the_scan_is_refused_by_name(options, tmp_path) -> None:
    folder = as_series(tmp_path / "ct", whole_chest())
    run(options, folder, tmp_path / "out")
    alone = tmp_path / "seg" / "lesion.dcm"
    alone.parent.mkdir()
    alone.write_bytes((tmp_path / "out" / "lesion.dcm").read_bytes())

    for given in (alone, alone.parent):
        error = refusal(options, given)
        assert error.code == "E_MODALITY"
        assert "a DICOM segmentation (SEG)" in str(error)


def test_single_precision_is_computed_where_it_is_asked_for_and_told(scan, lung, options, tmp_path) -> None:
    exact = replace(options, precision="fp32")

    told = run(exact, scan, tmp_path / "out", lung=lung)

    assert told["engine"]["precision"] == "fp32"
    assert exact.identity() != options.identity()


# --- flags


def test_a_scan_that_is_odd_is_flagged_and_with_strict_refused(options, tmp_path) -> None:
    case = whole_chest()
    part = slice(4, 14)
    geometry = replace(case.volume.geometry, shape=(10, 64, 64))
    scan = as_nifti(tmp_path, "part.nii.gz", Case(Volume(case.volume.hu[part], geometry)))

    told = run(options, scan, tmp_path / "out")
    error = refusal(replace(options, strict=True), scan)

    assert "cut-off" in [flag["code"] for flag in told["flags"]]
    assert error.code == "E_UNLIKE"
    assert "the last slice towards the foot still has" in str(error)


def test_a_scan_that_the_model_was_trained_on_is_flagged(scan, checkpoint, options, tmp_path) -> None:
    trained = replace(
        load_checkpoint(checkpoint), trained_on=({"role": "train", "cohort": "home", "scans": [sha256(scan)]},)
    )
    save_checkpoint(trained, tmp_path / "trained")

    told = run(replace(options, checkpoint=tmp_path / "trained"), scan, tmp_path / "out")

    assert "trained-on" in [flag["code"] for flag in told["flags"]]
    assert told["checkpoint"]["trained_on"] == ["home"]


# --- identity


def test_nothing_of_the_patient_leaves_unless_it_is_asked_for(options, tmp_path) -> None:
    folder = as_series(tmp_path / "Mueller_Hannelore_PID-4711", whole_chest(), series="1.2.826.0.1.11")
    planted = [*TOKENS.values(), "Mueller", "1.2.826.0.1.1", "im003"]

    run(options, folder, tmp_path / "out")
    run(replace(options, keep_identity=True), folder, tmp_path / "kept")

    for file in (tmp_path / "out").iterdir():
        data = file.read_bytes()
        assert not [token for token in planted if token.encode() in data], file.name
    seg = pydicom.dcmread(tmp_path / "kept" / "lesion.dcm")
    assert (seg.PatientID, seg.StudyInstanceUID) == (TOKENS["PatientID"], "1.2.826.0.1.10")
    assert read_description(tmp_path / "kept")["study"] == "Mueller_Hannelore_PID-4711"


@pytest.mark.parametrize("keep", [False, True], ids=["hashed", "kept"])
def test_f62_uids_that_are_paths_lead_nowhere(options, tmp_path, keep: bool) -> None:
    def traverse(ds: pydicom.Dataset, k: int) -> None:
        ds.SOPInstanceUID, ds.PatientID, ds.StudyID = f"../../../evil{k}", "../../evil", "/evil"
        ds.FrameOfReferenceUID, ds.PatientName = "../evil", "..\\..\\evil"

    place = tmp_path / "a" / "b" / "c"
    folder = as_series(place / "in", whole_chest(), series="../../evil", study="../../../evil", change=traverse)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}

    run(replace(options, keep_identity=keep), folder, place / "out")

    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert new
    assert {path for path in new if place / "out" not in path.parents and path.parent != place} == set()
    assert not [path for path in new if "evil" in path.name]


def test_a_series_that_cannot_be_referred_to_gets_no_segmentation_and_a_word(options, tmp_path) -> None:
    def without(ds: pydicom.Dataset, k: int) -> None:
        ds.SOPInstanceUID = ""

    folder = as_series(tmp_path / "ct", whole_chest(), change=without)

    told = run(replace(options, keep_identity=True), folder, tmp_path / "out")

    assert "no-seg" in [flag["code"] for flag in told["flags"]]
    assert not (tmp_path / "out" / "lesion.dcm").exists()
    assert "lesion.dcm" not in told["files"]


# --- the folder


def test_the_same_scan_again_is_kept_and_another_in_its_place_is_not(scan, options, tmp_path) -> None:
    first = run(options, scan, tmp_path / "out")
    found = find_studies([scan])
    made = (tmp_path / "out" / "prediction.json").stat().st_mtime_ns

    assert predict_one(found, options, tmp_path / "out").status == "kept"
    assert (tmp_path / "out" / "prediction.json").stat().st_mtime_ns == made
    as_nifti(scan.parent, scan.name, whole_chest(1))
    assert predict_one(found, options, tmp_path / "out").status == "done"
    assert read_description(tmp_path / "out")["identity"] != first["identity"]


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_a_mask_that_is_lost_or_damaged_is_made_again(scan, options, tmp_path, harm: str) -> None:
    run(options, scan, tmp_path / "out")
    mask = tmp_path / "out" / "lesion.nii.gz"
    mask.unlink() if harm == "lost" else mask.write_bytes(b"half")

    (study,) = find_studies([scan]).studies
    assert not is_done(study, tmp_path / "out", options)
    run(options, scan, tmp_path / "out")
    assert is_done(study, tmp_path / "out", options)


def test_equal_inputs_give_equal_files(scan, options, tmp_path) -> None:
    for name in ("one", "two"):
        run(options, scan, tmp_path / name)

    for file in ("lesion.nii.gz", "lung.nii.gz", "prediction.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_folder_with_anything_else_is_kept(scan, options, tmp_path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")

    for overwrite in (False, True):
        with pytest.raises(OutputError) as caught:
            run(options, scan, tmp_path / "thesis", overwrite=overwrite)
        assert caught.value.code == "E_EXISTS"
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "mine"


def test_a_refused_scan_leaves_an_empty_folder(options, tmp_path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b no gzip")

    with pytest.raises(InputError):
        run(options, tmp_path / "broken.nii.gz", tmp_path / "out")

    assert [file.name for file in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_mask_that_is_open_elsewhere_is_replaced_under_its_reader_without_harm(scan, options, tmp_path) -> None:
    run(options, scan, tmp_path / "out")
    old = (tmp_path / "out" / "lesion.nii.gz").read_bytes()

    with (tmp_path / "out" / "lesion.nii.gz").open("rb") as reader:
        reader.read(10)
        as_nifti(scan.parent, scan.name, whole_chest(1))
        run(options, scan, tmp_path / "out")
        assert reader.read() == old[10:], "who reads the old mask reads it to its end"
    read_mask(tmp_path / "out" / "lesion.nii.gz", read_volume(scan).geometry)


def test_a_folder_that_another_process_writes_to_is_refused(scan, options, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "out" / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match="Another lungshift process") as caught:
            run(options, scan, tmp_path / "out")
        other.communicate()

    assert caught.value.code == "E_LOCKED"


def test_a_prediction_of_another_format_is_not_read(scan, options, tmp_path) -> None:
    run(options, scan, tmp_path / "out")
    path = tmp_path / "out" / "prediction.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))

    with pytest.raises(InputError, match="is of format 99") as caught:
        read_description(tmp_path / "out")
    assert caught.value.code == "E_PREDICTION"
