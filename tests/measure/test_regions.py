"""Sides and thirds of lungs on grids small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError, GeometryError
from lungshift.measure.regions import REGIONS, THIRDS, ZONES, find_regions, split_sides
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import Site

RIGHT, LEFT = 1, 2


def lungs(
    shape: tuple[int, int, int] = (9, 12, 24), spacing: tuple[float, float, float] = (10.0, 5.0, 5.0), gap: int = 4
) -> Mask:
    """Two boxes beside each other, ``gap`` columns apart."""
    voxels = np.zeros(shape, bool)
    middle = shape[2] // 2
    voxels[:, 2:-2, 2 : middle - gap // 2] = voxels[:, 2:-2, middle + gap // 2 : -2] = True
    return Mask(voxels, Geometry.regular(shape, spacing))


def with_bridge(mask: Mask, rows: slice) -> Mask:
    """The same lungs, with what is between them filled in some rows."""
    voxels = mask.voxels.copy()
    voxels[:, rows, 2:-2] = True
    return Mask(voxels, mask.geometry)


def names(mask: Mask) -> np.ndarray:
    return find_regions(mask).zones


def test_the_patients_right_is_at_low_columns() -> None:
    sides = split_sides(lungs())

    assert (sides[4, 6, 4], sides[4, 6, 20], sides[4, 6, 12]) == (RIGHT, LEFT, 0)


def test_every_lung_has_thirds_of_its_own_height() -> None:
    voxels = lungs().voxels.copy()
    voxels[:3, :, 12:] = False  # the left lung is as high as it is wide: six slices
    zones = names(Mask(voxels, lungs().geometry))

    assert [ZONES[z - 1] for z in zones[:, 6, 4]] == [f"right_{third}" for third in reversed(THIRDS) for _ in range(3)]
    assert [ZONES[z - 1] for z in zones[3:, 6, 20]] == [f"left_{third}" for third in reversed(THIRDS) for _ in range(2)]


@pytest.mark.parametrize(
    ("slices", "lower_middle_upper"),
    [(1, (0, 1, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (1, 2, 1)), (5, (2, 1, 2)), (7, (2, 3, 2)), (8, (3, 2, 3))],
)
def test_a_slice_belongs_to_the_third_that_its_middle_lies_in(slices: int, lower_middle_upper: tuple) -> None:
    zones = names(lungs((slices, 12, 24)))

    counts = tuple(int((zones[:, 6, 4] == ZONES.index(f"right_{third}") + 1).sum()) for third in reversed(THIRDS))
    assert counts == lower_middle_upper


def test_a_stray_voxel_far_above_the_lung_does_not_make_it_taller() -> None:
    mask = lungs((30, 12, 24))
    voxels = mask.voxels.copy()
    voxels[9:] = False
    voxels[25, 5, 5] = True
    zones = names(Mask(voxels, mask.geometry))

    assert [ZONES[z - 1] for z in zones[:9, 6, 4]] == [f"right_{third}" for third in reversed(THIRDS) for _ in range(3)]
    assert ZONES[zones[25, 5, 5] - 1] == "right_upper"


def test_a_stray_voxel_far_below_the_lung_is_in_its_lower_third() -> None:
    mask = lungs((30, 12, 24))
    voxels = mask.voxels.copy()
    voxels[:21] = False
    voxels[3, 5, 5] = True
    zones = names(Mask(voxels, mask.geometry))

    assert [ZONES[z - 1] for z in zones[21:, 6, 4]] == [
        f"right_{third}" for third in reversed(THIRDS) for _ in range(3)
    ]
    assert ZONES[zones[3, 5, 5] - 1] == "right_lower"


@pytest.mark.parametrize("rows", [slice(2, 4), slice(8, 10)], ids=["anterior junction", "posterior junction"])
def test_lungs_that_touch_are_cut_where_they_touch(rows: slice) -> None:
    joined = with_bridge(lungs((9, 30, 40), (5.0, 3.0, 3.0), gap=8), rows)
    regions = find_regions(joined)
    sides = split_sides(joined)

    assert regions.touching
    assert (sides[:, 14, 2:16] == RIGHT).all()
    assert (sides[:, 14, 24:38] == LEFT).all()
    assert ((sides > 0) == joined.voxels).all()
    bridge = sides[4, rows.start, 16:24]
    assert list(bridge) == [RIGHT] * 4 + [LEFT] * 4


def test_the_cut_follows_the_bright_line_of_the_pleurae() -> None:
    joined = with_bridge(lungs((9, 30, 40), (5.0, 3.0, 3.0), gap=8), slice(2, 4))
    hu = np.full(joined.voxels.shape, -850, np.int16)
    hu[:, 2:4, 21] = -300
    sides = split_sides(joined, Volume(hu, joined.geometry))

    assert list(sides[4, 2, 16:21]) == [RIGHT] * 5
    assert list(sides[4, 2, 22:24]) == [LEFT] * 2


def test_a_small_piece_belongs_to_the_lung_that_is_nearer() -> None:
    mask = lungs((9, 40, 40), (5.0, 3.0, 3.0), gap=12)
    voxels = mask.voxels.copy()
    voxels[:, 30:, :] = False
    voxels[4, 32, 13] = voxels[4, 32, 26] = True
    sides = split_sides(Mask(voxels, mask.geometry))

    assert (sides[4, 32, 13], sides[4, 32, 26]) == (RIGHT, LEFT)


@pytest.mark.parametrize(("columns", "side"), [(slice(2, 10), RIGHT), (slice(14, 22), LEFT)])
def test_a_single_lung_is_on_the_side_of_the_body_where_it_lies(columns: slice, side: int) -> None:
    voxels = np.zeros((9, 12, 24), bool)
    voxels[:, 2:-2, columns] = True

    assert set(np.unique(split_sides(Mask(voxels, lungs().geometry)))) == {0, side}


def test_the_middle_of_the_body_is_told_by_the_scan() -> None:
    voxels, hu = np.zeros((9, 12, 24), bool), np.full((9, 12, 24), -1000, np.int16)
    voxels[:, 2:-2, 7:11] = True  # right of the middle of the grid, left of that of the body
    hu[:, 1:-1, 1:13] = 40
    mask = Mask(voxels, lungs().geometry)

    assert split_sides(mask).max() == RIGHT
    assert split_sides(mask, Volume(hu, mask.geometry)).max() == LEFT


def test_an_empty_lung_mask_is_refused() -> None:
    mask = lungs()

    with pytest.raises(AnnotationError, match="lung mask is empty") as caught:
        find_regions(Mask(np.zeros_like(mask.voxels), mask.geometry))
    assert caught.value.code == "E_NO_LUNG"


def test_a_scan_on_another_grid_is_refused() -> None:
    mask = lungs()
    other = Volume(
        np.arange(mask.voxels.size, dtype=np.int16).reshape(mask.voxels.shape),
        Geometry.regular(mask.voxels.shape, (1.0, 1.0, 1.0)),
    )

    with pytest.raises(GeometryError, match="Scan and lung mask"):
        find_regions(mask, other)


@st.composite
def odd_lungs(draw: st.DrawFn) -> Mask:
    """Two boxes with noise at their edges, touching or not, on any spacing."""
    shape = (draw(st.integers(3, 12)), draw(st.integers(14, 24)), draw(st.integers(28, 40)))
    spacing = (draw(st.floats(0.7, 8)), draw(st.floats(1.5, 4)), draw(st.floats(1.5, 4)))
    mask = lungs(shape, spacing, gap=draw(st.sampled_from((6, 8))))
    if draw(st.booleans()):
        mask = with_bridge(mask, slice(2, 3))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    voxels = mask.voxels & (rng.random(shape) > 0.02)
    return Mask(voxels, mask.geometry)


@settings(max_examples=40, deadline=None)
@given(odd_lungs())
def test_the_zones_are_the_lung_and_every_region_the_sum_of_its_zones(mask: Mask) -> None:
    regions = find_regions(mask)

    assert ((regions.zones > 0) == mask.voxels).all()
    counts = np.bincount(regions.zones.ravel(), minlength=7)
    for name, numbers in REGIONS.items():
        assert regions.flat(counts)[name] == sum(counts[number] for number in numbers)
        assert np.count_nonzero(regions.mask(name).voxels) == regions.flat(counts)[name]


@settings(max_examples=40, deadline=None)
@given(odd_lungs())
def test_in_the_mirror_right_is_left_and_thirds_stay(mask: Mask) -> None:
    zones = find_regions(mask).zones
    there = find_regions(Mask(np.ascontiguousarray(mask.voxels[..., ::-1]), mask.geometry)).zones[..., ::-1]

    swapped = np.where(zones > 3, zones - 3, np.where(zones > 0, zones + 3, 0))
    apart = swapped != there
    assert apart.mean() < 0.004  # a cut that could go either side of one voxel
    assert not apart[:, 4:].any()


@settings(max_examples=20, deadline=None)
@given(odd_lungs())
def test_upside_down_the_upper_third_is_the_lower(mask: Mask) -> None:
    zones = find_regions(mask).zones
    there = find_regions(Mask(np.ascontiguousarray(mask.voxels[::-1]), mask.geometry)).zones[::-1]

    turned = np.array([0, 3, 2, 1, 6, 5, 4])[zones]
    assert (turned == there)[:, 4:].all()


@pytest.mark.parametrize("patient", range(3))
def test_sides_and_thirds_of_phantoms_are_exact(patient: int) -> None:
    case = phantom_case(7, patient, Site())
    regions, geometry = find_regions(case.lung, case.volume), case.volume.geometry
    x, z = geometry.affine[0, 3] + np.arange(geometry.shape[2]) * geometry.spacing_mm[2], np.arange(geometry.shape[0])
    truth = np.zeros(geometry.shape, np.uint8)
    for side, where in enumerate((x < 0, x > 0)):
        lung = case.lung.voxels & where
        used = np.flatnonzero(lung.any(axis=(1, 2)))
        third = 3 - np.clip((z - used[0] + 0.5) * 3 // (used[-1] - used[0] + 1), 0, 2)
        truth += (lung * (3 * side + third)[:, None, None]).astype(np.uint8)

    assert (regions.zones == truth).all()
    assert not regions.touching
