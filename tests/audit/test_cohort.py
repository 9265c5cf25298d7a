"""A cohort is audited case by case: what other commands refuse is a finding, a stopped audit goes on, and clean cohorts are left in peace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from lungshift.audit import cohort as audits
from lungshift.audit.cohort import Audited, audit_case, audit_cohort, audit_cohorts
from lungshift.audit.finding import Finding
from lungshift.ct.case import Case, CaseRecord, Cohort
from lungshift.ct.volume import Mask, Volume
from lungshift.io.bare import read_bare_cohort
from lungshift.io.cohort import read_cohort
from lungshift.io.writing import write_mask, write_volume
from lungshift.prepare.phantom import phantom_case, phantom_cohort
from lungshift.prepare.phantom_site import SITE_A
from series import write_ct
from worlds import cohort_of

SMALL = replace(SITE_A, size=96, pixel_mm=3.6)
Change = Callable[[Case], Case]


@pytest.fixture(scope="module")
def phantom() -> Case:
    return phantom_case(5, 0, SMALL)


def masks(case: Case) -> tuple[np.ndarray, np.ndarray]:
    assert case.lung is not None
    assert case.lesion is not None
    return case.lung.voxels, case.lesion.voxels


def on_disk(folder: Path, case: Case, name: str = "a") -> Path:
    """The case as files with a manifest."""
    folder.mkdir(exist_ok=True)
    lung, lesion = masks(case)
    write_volume(case.volume, folder / f"{name}.nii.gz")
    write_mask(Mask(lung, case.volume.geometry), folder / f"{name}-lung.nii.gz")
    write_mask(Mask(lesion, case.volume.geometry), folder / f"{name}-lesion.nii.gz")
    manifest = folder / "manifest.csv"
    lines = manifest.read_text().splitlines() if manifest.exists() else ["case_id,volume,lung,lesion"]
    lines.append(f"{name},{name}.nii.gz,{name}-lung.nii.gz,{name}-lesion.nii.gz")
    manifest.write_text("\n".join(lines) + "\n")
    return folder


def grave(findings: list[Finding]) -> list[str]:
    return [one.code for one in findings if one.severity != "note"]


def audit(folder: Path) -> list[Finding]:
    return list(audit_cohort(read_cohort(folder), folder / "audit"))


def test_a_clean_case_on_disk_has_nothing_to_worry_about(phantom: Case, tmp_path: Path) -> None:
    assert grave(audit(on_disk(tmp_path, phantom))) == []


def test_clean_phantoms_give_at_most_one_false_alarm_in_ten_cases() -> None:
    cohort = phantom_cohort("clean", patients=5, site=SMALL, seed=41)

    assert grave(list(audit_cohort(cohort))) == []


def test_a_picture_of_0_to_255_is_a_finding_and_is_looked_at_all_the_same(phantom: Case, tmp_path: Path) -> None:
    eight = np.rint(np.clip((phantom.volume.hu + 1250) / 1500, 0, 1) * 255).astype(np.int16)[:, :, ::-1]
    lung, lesion = (np.ascontiguousarray(one[:, :, ::-1]) for one in masks(phantom))
    grid = phantom.volume.geometry
    case = Case(Volume(np.ascontiguousarray(eight), grid), Mask(lung, grid), Mask(lesion, grid))

    found = audit(on_disk(tmp_path, case))

    assert grave(found) == ["not-hu-window", "flipped-left-right"]
    assert found[0].error == "E_NOT_HU"


@pytest.mark.parametrize(("which", "words"), [("lung", "lung and lesion masks"), ("lesion", "lesion mask")])
def test_a_mirrored_mask_is_named(phantom: Case, tmp_path: Path, which: str, words: str) -> None:
    lung, lesion = masks(phantom)
    grid = phantom.volume.geometry
    flipped = [np.ascontiguousarray(one[::-1]) for one in (lung, lesion)]
    case = replace(
        phantom, lesion=Mask(flipped[1], grid), lung=Mask(flipped[0], grid) if which == "lung" else phantom.lung
    )

    (finding,) = (one for one in audit(on_disk(tmp_path, case)) if one.severity == "error")

    assert (finding.code, finding.error) == ("mask-flipped", "E_MASK_FLIPPED")
    assert finding.evidence.startswith(f"{words}: mirrored head to foot")


def spoil_labels(path: Path) -> None:
    image = nib.load(path)
    values = np.asarray(image.dataobj).astype(np.uint8)
    values[values > 0] = 7
    nib.save(nib.Nifti1Image(values, image.affine), path)


def spoil_grid(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, 1:], image.affine), path)


def spoil_place(path: Path) -> None:
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 10
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)


@pytest.mark.parametrize(
    ("file", "spoil", "code", "error"),
    [
        pytest.param("a-lesion.nii.gz", spoil_labels, "undeclared-label", "E_LABELS", id="labels that nobody declared"),
        pytest.param("a-lesion.nii.gz", spoil_grid, "mask-grid", "E_MASK_SHAPE", id="a lesion mask with a slice less"),
        pytest.param("a-lung.nii.gz", spoil_place, "mask-grid", "E_MASK_AFFINE", id="a lung mask elsewhere"),
    ],
)
def test_a_mask_that_is_refused_is_a_finding_and_the_scan_is_looked_at(
    phantom: Case, tmp_path: Path, file: str, spoil: Callable[[Path], None], code: str, error: str
) -> None:
    mirrored = Volume(np.ascontiguousarray(phantom.volume.hu[:, ::-1]), phantom.volume.geometry)
    lung, lesion = (Mask(np.ascontiguousarray(one[:, ::-1]), mirrored.geometry) for one in masks(phantom))
    on_disk(tmp_path, Case(mirrored, lung, lesion))
    spoil(tmp_path / file)

    found = audit(tmp_path)

    assert grave(found)[:1] == [code]
    assert "flipped-front-back" in grave(found)
    assert found[0].error == error
    assert file in found[0].evidence
    assert str(tmp_path) not in found[0].evidence


def test_a_damaged_file_is_a_finding_and_the_other_cases_go_on(phantom: Case, tmp_path: Path) -> None:
    on_disk(tmp_path, phantom)
    on_disk(tmp_path, phantom, "b")
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[: len(whole) // 2])

    found = audit(tmp_path)

    assert [(one.case, one.code, one.error) for one in found if one.severity == "error"] == [
        ("a", "unreadable", "E_TRUNCATED")
    ]


def test_a_file_without_orientation_is_told_and_looked_at_as_if_its_axes_were_the_usual(
    phantom: Case, tmp_path: Path
) -> None:
    image = nib.Nifti1Image(phantom.volume.hu.transpose(2, 1, 0)[::-1, ::-1], np.eye(4))
    image.header.set_zooms((3.6, 3.6, 7.0))
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "x.nii.gz")

    found = list(audit_cohort(read_bare_cohort(tmp_path)))

    assert grave(found) == ["unreadable"]
    assert found[0].error == "E_NO_ORIENTATION"


def test_a_doubled_case_is_one_scan_and_another_visit_one_patient(tmp_path: Path) -> None:
    case = phantom_case(5, 0, replace(SITE_A, size=128, pixel_mm=2.8))
    shifted = replace(case, volume=Volume((case.volume.hu + 1).astype(np.int16), case.volume.geometry))
    on_disk(tmp_path / "home", case)
    on_disk(tmp_path / "away", shifted, "b")

    found = list(audit_cohorts([read_cohort(tmp_path / "home"), read_cohort(tmp_path / "away")]))

    (pair,) = (one for one in found if one.kind == "duplicate")
    assert (pair.code, pair.severity, pair.case, pair.cohort, pair.other) == (
        "same-scan",
        "error",
        "a",
        "home",
        ("away", "b"),
    )
    assert pair.numbers["likeness"] > 0.95


def test_a_copy_without_masks_is_the_same_scan() -> None:
    case = phantom_case(5, 0, replace(SITE_A, size=128, pixel_mm=2.8))
    assert case.lung is not None
    generous = Mask(ndimage.binary_dilation(case.lung.voxels, iterations=2), case.volume.geometry)
    one, copy = replace(case, lung=generous, case_id="one"), replace(case, lung=None, lesion=None, case_id="copy")

    (pair,) = (found for found in audit_cohort(cohort_of(one, copy)) if found.kind == "duplicate")

    assert (pair.code, pair.case, pair.other) == ("same-scan", "one", ("tiny", "copy"))


def test_visits_of_one_patient_whose_ids_agree_are_no_error() -> None:
    cohort = phantom_cohort("home", patients=2, site=replace(SITE_A, size=128, pixel_mm=2.8), seed=5, visits=2)

    pairs = [one for one in audit_cohort(cohort) if one.kind == "duplicate"]

    assert all(one.severity == ("note" if one.code == "same-patient" else "warning") for one in pairs)
    assert {(one.case, one.other) for one in pairs} == {
        ("home-000-v0", ("home", "home-000-v1")),
        ("home-001-v0", ("home", "home-001-v1")),
    }


def test_a_stopped_audit_goes_on_and_says_the_same(
    phantom: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk(tmp_path, phantom)
    on_disk(tmp_path, replace(phantom, lesion=Mask(np.zeros_like(masks(phantom)[1]), phantom.volume.geometry)), "b")
    cohort, looked = read_cohort(tmp_path), []
    read = audits.read_loosely
    monkeypatch.setattr(
        audits, "read_loosely", lambda record, name: looked.append(record.case_id) or read(record, name)
    )
    stopped = audit_cohort(cohort, tmp_path / "audit")
    audit_case(cohort.cases[0], cohort.name, tmp_path / "audit")
    stopped.close()
    assert looked == ["a"]

    once = list(audit_cohort(cohort, tmp_path / "audit"))
    again = list(audit_cohort(cohort, tmp_path / "audit"))

    assert looked == ["a", "b"]
    assert once == again == list(audit_cohort(cohort))
    assert {"empty-lesion", "same-scan"} <= {one.code for one in once}


def test_a_changed_file_and_damaged_results_are_looked_at_again(phantom: Case, tmp_path: Path) -> None:
    on_disk(tmp_path, phantom)
    audit(tmp_path)
    (kept,) = (tmp_path / "audit" / "cases").glob("*.json")
    kept.write_text("{")
    assert grave(audit(tmp_path)) == []

    spoil_labels(tmp_path / "a-lesion.nii.gz")
    assert grave(audit(tmp_path)) == ["undeclared-label"]


def test_only_one_case_is_in_memory_at_a_time(phantom: Case, tmp_path: Path) -> None:
    on_disk(tmp_path, phantom)
    told = audit_cohort(read_cohort(tmp_path))

    assert iter(told) is told


def ct(folder: Path, case: Case, change: Callable | None = None, order: list[int] | None = None) -> Path:
    return write_ct(folder, case.volume.hu, case.volume.geometry.affine, change=change, order=order)


def test_a_dicom_series_that_is_whole_has_no_finding(phantom: Case, tmp_path: Path) -> None:
    assert grave(list(audit_cohort(read_bare_cohort(ct(tmp_path / "s", phantom))))) == []


def test_a_dicom_series_with_a_gap_is_told_and_looked_at(phantom: Case, tmp_path: Path) -> None:
    order = [k for k in range(len(phantom.volume.hu)) if k not in (20, 21)]

    found = list(audit_cohort(read_bare_cohort(ct(tmp_path / "s", phantom, order=order))))

    assert grave(found) == ["slice-missing"]
    assert (found[0].error, "2 slices" in found[0].evidence) == ("E_GAP", True)


def test_a_dicom_series_that_is_not_in_hu_is_told_what_its_values_are(phantom: Case, tmp_path: Path) -> None:
    def spoil(ds, k):  # type: ignore[no-untyped-def]
        del ds.RescaleSlope, ds.RescaleIntercept
        window = np.clip((phantom.volume.hu[k] + 1350) / 1500, 0, 1) * 4095
        ds.PixelData = np.rint(window).astype(np.uint16).tobytes()

    found = list(audit_cohort(read_bare_cohort(ct(tmp_path / "s", phantom, change=spoil))))

    assert (found[0].code, found[0].error) == ("not-hu-window", "E_NOT_HU")
    assert "width 1500 and level -600" in found[0].evidence
    assert "no RescaleSlope" in found[0].evidence
    assert "Export the original" in found[0].remedy


@pytest.mark.real
def test_the_real_series_that_is_not_in_hu_is_named_for_what_it_is(real_data: Path) -> None:
    found = list(audit_cohort(read_bare_cohort(real_data / "dicom" / "not_hu")))

    assert (found[0].code, found[0].error) == ("not-hu-window", "E_NOT_HU")
    assert "0 to 4095" in found[0].evidence
    assert "Modality is NM" in found[0].evidence


@pytest.mark.parametrize("which", ["lung", "lesion"])
def test_a_mask_that_other_cases_have_is_missed_and_the_scan_is_looked_at(
    phantom: Case, tmp_path: Path, which: str
) -> None:
    folders = {"scan": "rp_im", "lung": "rp_lung_msk", "lesion": "rp_msk"}
    lung, lesion = masks(phantom)
    grid = phantom.volume.geometry
    for folder in folders.values():
        (tmp_path / folder).mkdir()
    for name in ("1", "4"):
        write_volume(phantom.volume, tmp_path / "rp_im" / f"{name}.nii.gz")
        write_mask(Mask(lung, grid), tmp_path / "rp_lung_msk" / f"{name}.nii.gz")
        write_mask(Mask(lesion, grid), tmp_path / "rp_msk" / f"{name}.nii.gz")
    (tmp_path / folders[which] / "4.nii.gz").unlink()

    found = list(audit_cohort(read_cohort(tmp_path, allow_no_mask=True), tmp_path / "audit"))

    (missing,) = (one for one in found if one.code == "mask-missing")
    assert (missing.case, missing.severity, missing.error) == ("4", "error", "E_NO_MASK")
    assert missing.evidence == f"no {which} mask, which 1 of 2 cases have"
    assert "same-scan" in [one.code for one in found]


def test_the_masks_of_a_cohort_are_counted_once_and_not_for_each_case(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    @dataclass(frozen=True)
    class Asked:
        name: str
        has_lesion: bool = True

        @property
        def has_lung(self) -> bool:
            asked.append(self.name)
            return self.name != "case-3"

    monkeypatch.setattr("lungshift.audit.cohort.audit_case", lambda *_: Audited((), None, None))
    records = [CaseRecord(f"case-{n}", f"p{n}", Asked(f"case-{n}")) for n in range(20)]

    found = list(audit_cohort(Cohort("home", tuple(records)), Path()))

    assert [(one.case, one.evidence) for one in found] == [("case-3", "no lung mask, which 19 of 20 cases have")]
    assert max(Counter(asked).values()) <= 2, "once for the cohort, once for itself"
