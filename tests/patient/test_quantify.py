"""From files or a model to numbers with error bars, and everything that can be wrong with what was given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chests import chest, threshold_model
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import (
    AnnotationError,
    CheckpointError,
    GeometryError,
    InputError,
    IntensityError,
    ProtocolError,
    ResourceError,
)
from lungshift.io.nifti import NiftiSource
from lungshift.io.writing import write_mask, write_volume
from lungshift.patient.quantify import Patient, find_lungs, flags_of, quantify, read_patient
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import Site

TWO = {"retakes": 2, "device": "cpu"}


def empty(mask: Mask) -> Mask:
    return Mask(np.zeros_like(mask.voxels), mask.geometry)


def covered(case: Case, slices: slice) -> Case:
    """The case with lung in some slices only."""
    lung = np.zeros_like(case.lung.voxels)
    lung[slices] = case.lung.voxels[slices]
    return replace(case, lung=Mask(lung, case.lung.geometry))


def files(folder: Path, case: Case) -> dict[str, Path]:
    paths = {name: folder / f"{name}.nii.gz" for name in ("scan", "lung", "lesion")}
    write_volume(case.volume, paths["scan"])
    write_mask(case.lung, paths["lung"])
    write_mask(case.lesion, paths["lesion"])
    return paths


def prediction(folder: Path, case: Case, **told: object) -> Path:
    write_mask(case.lung, folder / "lung.nii.gz")
    write_mask(case.lesion, folder / "lesion.nii.gz")
    flag = {"code": "spacing", "evidence": "slices are far apart", "remedy": "Compare with a reader"}
    said = {"format": 1, "lung": {"source": "threshold"}, "flags": [flag], **told}
    (folder / "prediction.json").write_text(json.dumps(said))
    return folder


def test_masks_from_elsewhere_have_numbers_and_no_error_bar_and_it_says_why() -> None:
    case = chest()
    found = quantify(case, case.lesion)

    assert found.burden.whole.lesion_ml == pytest.approx(case.lesion.volume_ml)
    assert found.spreads == {}
    assert np.isnan(found.limits("lesion_ml")).all()
    assert found.bar.startswith("No error bars: no model was given.")
    assert found.drawn_by == "given as a mask"


def test_a_checkpoint_alone_predicts_the_lesion_and_its_error_bar() -> None:
    found = quantify(chest(), None, [threshold_model()], **TWO)
    low, high = found.limits("lesion_ml")

    assert low < found.burden.whole.lesion_ml < high
    assert low >= 0
    assert (found.retakes, found.drawn_by) == (2, "predicted by the first checkpoint")
    assert found.bar.startswith("95 % limits from the scan and 2 predictions of it")
    assert np.isnan(found.limits("lung_ml")).all()


def test_a_mask_that_the_model_did_not_draw_is_told_from_its_own() -> None:
    case = chest()
    own = quantify(case, None, [threshold_model()], **TWO).lesion
    other = Mask(np.roll(own.voxels, 4, axis=1) & case.lung.voxels, own.geometry)

    assert "not this model's own" not in quantify(case, own, [threshold_model()], **TWO).bar
    assert "not this model's own (Dice 0." in quantify(case, other, [threshold_model()], **TWO).bar


def test_several_models_are_named_in_the_bar() -> None:
    found = quantify(chest(), None, [threshold_model(), threshold_model(min_pixels=70)], **TWO)

    assert "by 2 models, whose differences count too" in found.bar
    assert found.spread("lesion_ml").models == 2


def test_lungs_are_found_by_threshold_if_the_lesion_is_predicted_as_well_and_that_is_said() -> None:
    case = phantom_case(3, 0, Site(size=64, pixel_mm=5.4, slice_mm=12), lesions=Lesions(mild=0, moderate=1, severe=0))
    found = quantify(replace(case, lung=None), None, [threshold_model()], **TWO)

    assert found.case.lung_source == "threshold"
    assert any("from thresholds" in flag for flag in found.flags)


def test_lesion_outside_the_lung_is_flagged() -> None:
    case = chest()
    around = case.lesion.voxels.copy()
    around[:, 54:58, 20:40] = True

    assert any("outside the lung mask" in flag for flag in quantify(case, Mask(around, case.lesion.geometry)).flags)


def test_the_scan_is_judged_unless_somebody_has_done_so() -> None:
    case = chest()
    judged = quantify(case, case.lesion).flags

    assert any("towards the foot" in flag for flag in judged)  # it ends within the lungs
    assert all(flag.endswith(".") and ".." not in flag for flag in judged)
    assert quantify(case, case.lesion, flags=("Known.",), judge=False).flags == ("Known.",)


def test_a_scan_that_the_model_was_trained_on_is_flagged() -> None:
    known = replace(threshold_model(), trained_on=({"cohort": "a", "scans": ["abc"], "patients": []},))
    patient = Patient(chest(), ("Odd.",), {"scan": ("abc",)})

    assert flags_of(patient, [threshold_model()]) == ("Odd.",)
    assert "trained on this scan" in flags_of(patient, [known])[1]


def test_a_lesion_model_is_not_asked_for_lungs() -> None:
    with pytest.raises(CheckpointError) as caught:
        find_lungs(Patient(replace(chest(), lung=None)), threshold_model(), "cpu")
    assert caught.value.code == "E_TARGET"


def test_a_lung_mask_of_one_lung_is_flagged() -> None:
    case = chest()
    right = Mask(case.lung.voxels & (np.arange(64) < 32), case.lung.geometry)

    assert any("one lung only" in flag for flag in quantify(replace(case, lung=right), case.lesion).flags)


def test_a_healthy_scan_is_measured_too() -> None:
    case = chest()

    assert quantify(case, empty(case.lesion)).burden.whole.percent == 0


def test_an_empty_lung_mask_is_refused() -> None:
    case = chest()

    with pytest.raises(AnnotationError, match="lung mask is empty") as caught:
        quantify(replace(case, lung=empty(case.lung)), case.lesion)
    assert caught.value.code == "E_NO_LUNG"


def test_a_lesion_on_another_grid_is_refused() -> None:
    case = chest()
    thin = Mask(case.lesion.voxels[:4].copy(), Geometry.regular((4, 64, 64), (5.0, 2.0, 2.0)))

    with pytest.raises(GeometryError, match="Scan and lesion mask do not fit"):
        quantify(case, thin)


def test_a_lesion_without_a_lung_mask_is_refused() -> None:
    case = chest()

    with pytest.raises(AnnotationError, match="Give the lung mask") as caught:
        quantify(replace(case, lung=None), case.lesion)
    assert caught.value.code == "E_NO_LUNG"


def test_a_scan_that_is_not_in_hu_is_refused() -> None:
    case = chest()
    shifted = Volume((case.volume.hu + np.int16(1024)).clip(0), case.volume.geometry)

    with pytest.raises(IntensityError, match="chest CT in HU"):
        quantify(replace(case, volume=shifted), case.lesion)


def test_neither_lesion_nor_model_is_refused() -> None:
    with pytest.raises(AnnotationError, match="nothing to measure"):
        quantify(chest())


def test_one_retake_is_refused_before_anything_is_predicted() -> None:
    with pytest.raises(ProtocolError, match="two retakes"):
        quantify(chest(), None, [threshold_model()], retakes=1)


def test_a_patient_is_read_from_files_without_a_name(tmp_path: Path) -> None:
    case = chest()
    paths = files(tmp_path, case)
    patient = read_patient(paths["scan"], lung=paths["lung"], lesion=paths["lesion"])

    assert (patient.case.lesion.voxels == case.lesion.voxels).all()
    assert (patient.case.case_id, patient.identity) == ("scan", {})
    assert set(patient.checksums) == {"scan", "lung", "lesion"}


def test_the_file_is_named_only_if_the_identity_is_kept(tmp_path: Path) -> None:
    paths = files(tmp_path, chest())

    assert read_patient(paths["scan"], lung=paths["lung"], keep_identity=True).identity == {"file": "scan.nii.gz"}


def test_a_prediction_folder_brings_masks_flags_and_where_the_lungs_are_from(tmp_path: Path) -> None:
    case = chest()
    paths = files(tmp_path, case)
    (tmp_path / "done").mkdir()
    patient = read_patient(paths["scan"], prediction=prediction(tmp_path / "done", case))

    assert patient.case.lung_source == "threshold"
    assert (patient.flags, patient.judged) == (("Slices are far apart. Compare with a reader.",), True)
    assert patient.case.lesion.volume_ml == case.lesion.volume_ml


def test_the_prediction_of_another_scan_is_refused(tmp_path: Path) -> None:
    case = chest()
    paths = files(tmp_path, case)
    folder = prediction(tmp_path, case, input={"sha256": {"scan": ["of another"]}})

    with pytest.raises(InputError, match="another scan") as caught:
        read_patient(paths["scan"], prediction=folder)
    assert caught.value.code == "E_PREDICTION"


def test_a_folder_without_a_finished_prediction_is_refused(tmp_path: Path) -> None:
    paths = files(tmp_path, chest())

    with pytest.raises(InputError, match="no finished prediction") as caught:
        read_patient(paths["scan"], prediction=tmp_path)
    assert caught.value.code == "E_PREDICTION"


def test_a_prediction_folder_and_a_mask_contradict_each_other(tmp_path: Path) -> None:
    case = chest()
    paths = files(tmp_path, case)

    with pytest.raises(InputError, match="--prediction, or --lesion"):
        read_patient(paths["scan"], prediction=prediction(tmp_path, case), lesion=paths["lesion"])


def test_a_lesion_file_on_another_grid_is_refused(tmp_path: Path) -> None:
    paths = files(tmp_path, chest())
    other = chest(slices=6)
    write_mask(other.lesion, tmp_path / "other.nii.gz")

    with pytest.raises(GeometryError, match="not on the grid of its scan") as caught:
        read_patient(paths["scan"], lung=paths["lung"], lesion=tmp_path / "other.nii.gz")
    assert caught.value.code == "E_MASK_SHAPE"


def test_f78_a_scan_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(tmp_path, chest())
    monkeypatch.setattr("lungshift.memory.available_bytes", lambda: 1000)
    monkeypatch.setattr(NiftiSource, "read", lambda _: pytest.fail("the scan was read"))

    with pytest.raises(ResourceError, match="Measuring a scan of 8 x 64 x 64 voxels takes about"):
        read_patient(paths["scan"], lung=paths["lung"], lesion=paths["lesion"])
