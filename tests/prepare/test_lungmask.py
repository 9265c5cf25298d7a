"""The threshold lung mask: right on phantoms, close to readers on real scans, refused where there is no lung."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.case import CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Volume
from lungshift.errors import GeometryError, IntensityError
from lungshift.prepare.lungmask import find_threshold_lungs, threshold_lungs
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_lesions import Lesions
from lungshift.prepare.phantom_site import SITE_B, Site

SMALL = Site(slice_mm=10, pixel_mm=3.6, size=96)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def box(inside: float, outside: float = 40, *, half: int = 6, size: int = 32) -> Volume:
    """A block of tissue in air, with a block of ``inside`` in it; voxels of 4 mm."""
    hu = np.full((size, size, size), -1000, np.int16)
    hu[:, 3:-3, 3:-3] = outside
    middle = slice(size // 2 - half, size // 2 + half)
    hu[middle, middle, middle] = inside
    return Volume(hu, Geometry.regular(hu.shape, (4.0, 4.0, 4.0)))


def tube() -> Volume:
    """As ``box``, of 1180 ml on all slices, within walls of one voxel: more of the body than lungs take."""
    volume = box(-850)
    volume.hu[:, 4:-4, 4:-4] = -850
    return volume


@pytest.mark.parametrize(
    ("site", "patient"), [(SMALL, 0), (SMALL, 2), (SMALL, 4), (SITE_B, 1)], ids=["coarse", "coarse", "coarse", "B"]
)
def test_lungs_of_a_phantom_are_found(site: Site, patient: int) -> None:
    case = phantom_case(5, patient, site, lesions=Lesions(effusion=0))
    assert dice(threshold_lungs(case.volume).voxels, case.lung.voxels) > 0.95


def test_an_offset_of_the_scale_does_not_move_the_lungs_much() -> None:
    case = phantom_case(5, 1, replace(SMALL, hu_offset=60))
    assert dice(threshold_lungs(case.volume).voxels, case.lung.voxels) > 0.95


def test_vessels_and_lesions_inside_belong_to_the_lung() -> None:
    case = phantom_case(5, 3, SMALL, lesions=Lesions(mild=0, moderate=0, severe=1, effusion=0))
    found = threshold_lungs(case.volume).voxels & case.lesion.voxels
    assert np.count_nonzero(found) > 0.9 * np.count_nonzero(case.lesion.voxels)


def test_the_trachea_is_left_out() -> None:
    case = phantom_case(5, 0, SMALL)
    hu, lungs = case.volume.hu, threshold_lungs(case.volume).voxels
    top = int(len(hu) * 0.8)
    middle = slice(43, 53)
    assert (hu[top, middle, middle] < -800).any()
    assert not lungs[top, middle, middle].any()


def test_the_mask_lies_on_the_grid_of_the_scan_and_the_scan_is_untouched() -> None:
    volume = box(-850)
    before = volume.hu.copy()
    mask = threshold_lungs(volume)
    volume.geometry.require_same(mask.geometry)
    np.testing.assert_array_equal(volume.hu, before)


def test_a_block_of_lung_is_found_to_the_voxel() -> None:
    volume = box(-850)
    np.testing.assert_array_equal(threshold_lungs(volume).voxels, (volume.hu == -850))


def test_an_enclosed_organ_larger_than_any_vessel_stays_out() -> None:
    volume = box(-850, half=11)
    volume.hu[10:22, 11:21, 11:21] = 40
    lungs = threshold_lungs(volume).voxels
    assert not lungs[16, 14:18, 14:18].any()


def test_a_small_enclosed_vessel_is_filled() -> None:
    volume = box(-850)
    volume.hu[16, 15:17, 15:17] = 40
    assert threshold_lungs(volume).voxels[16, 15:17, 15:17].all()


@pytest.mark.parametrize(
    ("volume", "error", "code"),
    [
        pytest.param(box(60), GeometryError, "E_NO_LUNG", id="tissue without air in it"),
        pytest.param(box(-850, half=2), GeometryError, "E_NO_LUNG", id="a bubble of gas"),
        pytest.param(box(-850, half=13), GeometryError, "E_NO_LUNG", id="an empty box"),
        pytest.param(tube(), GeometryError, "E_NO_LUNG", id="a tube with thin walls"),
        pytest.param(Volume(np.maximum(box(-850).hu, 0), box(-850).geometry), IntensityError, "E_NOT_HU", id="no air"),
        pytest.param(box(-850, outside=-400), IntensityError, "E_NOT_HU", id="no tissue"),
    ],
)
def test_a_scan_without_lungs_is_refused(volume: Volume, error: type[Exception], code: str) -> None:
    with pytest.raises(error) as caught:
        threshold_lungs(volume)
    assert caught.value.code == code


def test_eight_bit_values_are_refused() -> None:
    case = phantom_case(5, 0, replace(SMALL, eight_bit=True))
    with pytest.raises(IntensityError, match="in HU"):
        threshold_lungs(case.volume)


@pytest.mark.real
@pytest.mark.parametrize("case", [1, 8])
def test_a_real_scan_agrees_with_its_reader(real_data: Path, case: int) -> None:
    import nibabel

    scan, reader = (
        nibabel.load(real_data / "medseg9" / folder / f"{case}.nii.gz") for folder in ("rp_im", "rp_lung_msk")
    )
    hu = np.asarray(scan.dataobj, dtype=np.float32).transpose(2, 1, 0)
    column_mm, row_mm, slice_mm = map(float, scan.header.get_zooms())
    volume = Volume(np.ascontiguousarray(hu), Geometry.regular(hu.shape, (slice_mm, row_mm, column_mm)))
    lung = np.asarray(reader.dataobj).transpose(2, 1, 0) > 0
    assert dice(threshold_lungs(volume).voxels, lung) > 0.97


def drawn() -> Volume:
    """Two lungs with a trachea, a vessel and a notch at the pleura, and gas in the bowel; whole numbers only."""
    z, y, x = np.ogrid[:40, :96, :96]
    hu = np.full((40, 96, 96), -1000)
    hu[((y - 48) / 40.0) ** 2 + ((x - 48) / 46.0) ** 2 + 0 * z < 1] = 40
    for middle in (28, 68):
        hu[((z - 18) / 17.0) ** 2 + ((y - 48) / 28.0) ** 2 + ((x - middle) / 15.0) ** 2 < 1] = -850
    hu[(z > 22) & ((y - 44) ** 2 + (x - 48) ** 2 < 12)] = -950
    hu[(z > 8) & (z < 30) & ((y - 60) ** 2 + (x - 30) ** 2 < 9)] = 60
    hu[(z > 10) & (z < 20) & (abs(y - 50) < 3) & (x < 20)] = 50
    hu[(z < 4) & ((y - 70) ** 2 + (x - 48) ** 2 < 30)] = -900
    return Volume(hu.astype(np.int16), Geometry.regular(hu.shape, (4.0, 3.0, 3.0)))


def test_the_mask_is_to_the_bit_the_one_that_whole_arrays_gave() -> None:
    mask = threshold_lungs(drawn()).voxels

    assert np.count_nonzero(mask) == 59568
    digest = hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()
    assert (
        digest == "7dcedd54abdefffe1aa70a31e97a7f647142bbf12cdb6ef783a48f61b30a4a80"
    )  # of the code before slices came one by one


def test_thin_slices_of_the_same_chest_have_the_same_lungs() -> None:
    thick = drawn()
    thin = Volume(np.repeat(thick.hu, 4, axis=0), Geometry.regular((160, 96, 96), (1.0, 3.0, 3.0)))

    np.testing.assert_array_equal(threshold_lungs(thin).voxels[1::4], threshold_lungs(thick).voxels)


def test_slices_may_come_in_any_order() -> None:
    volume = drawn()
    order = np.random.default_rng(0).permutation(len(volume.hu)).tolist()

    found = find_threshold_lungs((CaseSlice(at, volume.hu[at], None, None) for at in order), volume.geometry)

    np.testing.assert_array_equal(found.mask().voxels, threshold_lungs(volume).voxels)


def test_a_scan_with_missing_slices_has_no_lungs_found() -> None:
    volume = drawn()

    with pytest.raises(GeometryError, match="40 slices and 39 came"):
        find_threshold_lungs(
            (CaseSlice(at, hu, None, None) for at, hu in enumerate(volume.hu) if at != 7), volume.geometry
        )
