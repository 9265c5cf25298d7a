"""Cohorts are found by the layout of their folder, and what does not pair is named."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CohortError, GeometryError, IntensityError
from lungshift.io.cohort import read_cohort
from lungshift.io.header import Intake
from lungshift.io.nifti import NiftiSource
from lungshift.io.voxels import Labels
from lungshift.io.writing import write_mask, write_volume

GRID = Geometry.regular((3, 4, 5), (5, 0.7, 0.7))
HU = np.linspace(-1000, 300, 60).astype(np.int16).reshape(GRID.shape)
MEDSEG9 = ("rp_im", "rp_lung_msk", "rp_msk")
CORONACASES10 = ("COVID-19-CT-Seg_20cases", "Lung_Mask", "Infection_Mask")


def scan(path: Path, hu: np.ndarray = HU) -> None:
    write_volume(Volume(hu, GRID), path)


def labels(path: Path, top: int = 1) -> None:
    """A mask file with the labels 0 to ``top``, one after another."""
    write_volume(Volume((np.arange(60) % (top + 1)).reshape(GRID.shape).astype(np.int16), GRID), path)


def layout(folder: Path, folders: tuple[str, str, str], names: list[str], lung: int = 1, lesion: int = 1) -> Path:
    for name in names:
        scan(folder / folders[0] / f"{name}.nii.gz")
        labels(folder / folders[1] / f"{name}.nii.gz", lung)
        labels(folder / folders[2] / f"{name}.nii.gz", lesion)
    return folder


def reason(folder: Path, **keywords: object) -> str:
    with pytest.raises(CohortError) as caught:
        read_cohort(folder, **keywords)
    return caught.value.code


def test_medseg9_is_recognised_with_both_lungs_and_three_kinds_of_lesion(tmp_path: Path) -> None:
    cohort = read_cohort(layout(tmp_path, MEDSEG9, ["1", "2", "3", "10"], lung=2, lesion=3))
    assert cohort.name == "medseg9"
    assert [case.case_id for case in cohort.cases] == ["1", "2", "3", "10"]
    assert cohort.patients == ("1", "2+3", "10")
    case = cohort.cases[0].read()
    assert case.lung is not None
    assert case.lesion is not None
    assert np.count_nonzero(case.lung.voxels) == 40
    assert np.count_nonzero(case.lesion.voxels) == 45


def test_coronacases10_leaves_the_0_255_scans_out_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    folder = layout(tmp_path, CORONACASES10, ["coronacases_002", "coronacases_001", "radiopaedia_4_85506_1"])
    cohort = read_cohort(folder)
    assert cohort.name == "coronacases10"
    assert cohort.patients == ("coronacases_001", "coronacases_002")
    assert "1 radiopaedia_* scans were left out" in caplog.text
    more = read_cohort(folder, include_radiopaedia=True)
    assert len(more.cases) == 3
    assert more.cases[-1].site == "Radiopaedia"


def test_a_cohort_takes_the_name_it_is_given(tmp_path: Path) -> None:
    assert read_cohort(layout(tmp_path, MEDSEG9, ["1"]), name="source").name == "source"


@pytest.mark.parametrize(
    ("missing", "code", "words"),
    [
        ("rp_im/2.nii.gz", "E_NO_SCAN", "lesion mask|lung mask"),
        ("rp_msk/2.nii.gz", "E_NO_MASK", "lesion mask in rp_msk for 2"),
        ("rp_lung_msk/2.nii.gz", "E_NO_MASK", "lung mask in rp_lung_msk for 2"),
    ],
)
def test_what_does_not_pair_is_named(tmp_path: Path, missing: str, code: str, words: str) -> None:
    (layout(tmp_path, MEDSEG9, ["1", "2"]) / missing).unlink()
    with pytest.raises(CohortError, match=words) as caught:
        read_cohort(tmp_path)
    assert caught.value.code == code


def test_one_scan_in_two_files_is_refused(tmp_path: Path) -> None:
    scan(layout(tmp_path, MEDSEG9, ["1"]) / "rp_im" / "1.nii")
    with pytest.raises(CohortError, match="both"):
        read_cohort(tmp_path)


def test_a_mask_on_another_grid_is_refused_when_its_case_is_read(tmp_path: Path) -> None:
    layout(tmp_path, MEDSEG9, ["1"])
    other = Geometry.regular((3, 4, 6), (5, 0.7, 0.7))
    write_mask(Mask(np.ones(other.shape, bool), other), tmp_path / "rp_msk" / "1.nii.gz")
    case = read_cohort(tmp_path).cases[0]
    with pytest.raises(GeometryError, match=r"shape \(3, 4, 5\) against \(3, 4, 6\)"):
        case.read()


def test_how_strictly_scans_are_taken_in_reaches_the_cases(tmp_path: Path) -> None:
    layout(tmp_path, MEDSEG9, ["1"])
    scan(tmp_path / "rp_im" / "1.nii.gz", np.linspace(0, 255, 60).astype(np.int16).reshape(GRID.shape))
    with pytest.raises(IntensityError):
        read_cohort(tmp_path).cases[0].read()
    assert read_cohort(tmp_path, intake=Intake(require_hu=False)).cases[0].read().volume.hu.max() == 255


def test_an_empty_cohort_is_refused(tmp_path: Path) -> None:
    assert reason(tmp_path) == "E_EMPTY_COHORT"
    for name in MEDSEG9:
        (tmp_path / name).mkdir()
    assert reason(tmp_path) == "E_EMPTY_COHORT"


def test_an_unknown_layout_says_what_was_found_and_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    with pytest.raises(CohortError, match=r"holds scans\. Known are: medseg9.*manifest\.toml") as caught:
        read_cohort(tmp_path)
    assert caught.value.code == "E_LAYOUT"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert reason(tmp_path / "no") == "E_NO_FILE"


def nnunet(folder: Path, names: dict, top: int = 2) -> Path:
    (folder / "dataset.json").write_text(json.dumps({"labels": names}))
    for name in ("lung_001", "lung_002"):
        scan(folder / "imagesTr" / f"{name}_0000.nii.gz")
        labels(folder / "labelsTr" / f"{name}.nii.gz", top)
    return folder


@pytest.mark.parametrize(
    ("names", "lung", "lesion"),
    [
        pytest.param({"background": 0, "lung": 1, "COVID infection": 2}, 40, 20, id="second form"),
        pytest.param({"0": "background", "1": "lung", "2": "infection"}, 40, 20, id="first form"),
        pytest.param({"background": 0, "GGO": 1, "consolidation": 2}, None, 40, id="two lesions"),
        pytest.param({"background": 0, "lung": [1, 2], "lesion": 2}, 40, 20, id="region"),
    ],
)
def test_nnunet_labels_are_taken_by_their_names(tmp_path: Path, names: dict, lung: int | None, lesion: int) -> None:
    cohort = read_cohort(nnunet(tmp_path, names))
    assert not cohort.patients_known
    case = cohort.cases[0].read()
    assert (case.case_id, case.lung_source) == ("lung_001", "none" if lung is None else "reader")
    assert (case.lung and np.count_nonzero(case.lung.voxels)) == lung
    assert case.lesion is not None
    assert np.count_nonzero(case.lesion.voxels) == lesion


def test_nnunet_labels_that_tell_nothing_are_asked_for(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, {"background": 0, "a": 1, "b": 2})
    with pytest.raises(CohortError, match=r"a = \[1\], b = \[2\]\. Say lesion_labels") as caught:
        read_cohort(folder)
    assert caught.value.code == "E_LESION_LABEL"
    case = read_cohort(folder, lesion_labels=frozenset({2})).cases[0].read()
    assert case.lesion is not None
    assert np.count_nonzero(case.lesion.voxels) == 20
    assert reason(folder, lesion_labels=frozenset({7})) == "E_LESION_LABEL"


def test_nnunet_with_two_channels_or_a_broken_json_is_refused(tmp_path: Path) -> None:
    folder = nnunet(tmp_path, {"background": 0, "lesion": 1}, top=1)
    scan(folder / "imagesTr" / "lung_001_0001.nii.gz")
    assert reason(folder) == "E_CHANNELS"
    for text in ("{", "[]", '{"labels": []}', '{"labels": {"a": "b"}}'):
        (folder / "dataset.json").write_text(text)
        assert reason(folder) == "E_MANIFEST"


def test_other_labels_make_other_checksums_so_that_no_cache_keeps_the_old_masks(tmp_path: Path) -> None:
    one, other = (
        NiftiSource(tmp_path / "ct.nii.gz", None, None, lesion_labels=Labels(frozenset(chosen), frozenset({0, 1, 2})))
        for chosen in ({1}, {1, 2})
    )
    (tmp_path / "ct.nii.gz").write_bytes(b"the same file")

    assert one.checksums() != other.checksums()


def test_checksums_are_by_folder_and_name(tmp_path: Path) -> None:
    sums = read_cohort(layout(tmp_path, MEDSEG9, ["1"])).cases[0].source.checksums()
    assert sorted(sums) == [
        "how it is read",
        "lesion rp_msk/1.nii.gz",
        "lung rp_lung_msk/1.nii.gz",
        "scan rp_im/1.nii.gz",
    ]
    assert all(len(value) == 64 for value in sums.values())


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "counts"), [("medseg9", (829, 712, 373, 713)), ("coronacases10", (2581, 2170, 1351, 2170))]
)
def test_the_published_cohorts_have_their_known_counts(
    real_data: Path, name: str, counts: tuple[int, int, int, int]
) -> None:
    """Slices, with lung, with lesion, with either.

    The copies of ``medseg9`` were made smaller: of the 713 slices with lung one lost its few pixels (case 9), and one slice
    (the last of case 1) has lesion but no lung.
    """
    found = np.zeros(4, int)
    for record in read_cohort(real_data / name).cases:
        for part in record.source.slices():
            lung, lesion = part.lung is not None and part.lung.any(), part.lesion is not None and part.lesion.any()
            found += [1, lung, lesion, lung or lesion]
    assert tuple(found) == counts


@pytest.mark.real
def test_a_real_case_stands_upright_with_the_heart_on_the_patients_left(real_data: Path) -> None:
    """Lungs are wider at the foot, the spine's bone is behind them, and the heart takes room from the left one."""
    case = read_cohort(real_data / "coronacases10").cases[3].read()
    assert case.lung is not None
    hu, lung = case.volume.hu, case.lung.voxels
    (bottom, front, right), (top, back, left) = np.argwhere(lung).min(0), np.argwhere(lung).max(0)
    third, middle = (top - bottom) // 3, (right + left) // 2
    assert lung[bottom : bottom + third].sum() > lung[top - third : top].sum()
    bone = hu[:, :, middle - 40 : middle + 40] > 390
    assert bone[:, back - 20 :].mean() > 5 * bone[:, : front + 20].mean()
    heart = slice(bottom + third // 2, bottom + 3 * third // 2)
    assert lung[heart, :, right:middle].sum() > lung[heart, :, middle:left].sum()
    assert hu[lung].mean() < -700
