"""A cohort becomes pictures on disk, once, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lungshift import files
from lungshift.ct.case import Case, CaseRecord, Cohort, InMemory
from lungshift.errors import CohortError, ResourceError
from lungshift.prepare.lungmask import threshold_lungs
from lungshift.prepare.phantom import phantom_case
from lungshift.prepare.phantom_site import Site
from lungshift.prepare.prepared import open_prepared, prepare_cohort, slices_away
from worlds import cohort_of, tiny_case


def test_pictures_of_the_same_size_keep_every_hu_and_every_mask(tmp_path: Path) -> None:
    cases = tiny_case(0), tiny_case(1, slices=3)

    prepared = prepare_cohort(cohort_of(*cases), tmp_path, size=32)

    assert len(prepared.table) == 8
    for row, (case, index) in enumerate((case, n) for case in cases for n in range(case.volume.geometry.shape[0])):
        np.testing.assert_array_equal(prepared.hu(row), case.volume.hu[index])
        np.testing.assert_array_equal(prepared.lung(row), case.lung.voxels[index])  # type: ignore[union-attr]
        np.testing.assert_array_equal(prepared.lesion(row), case.lesion.voxels[index])  # type: ignore[union-attr]
    assert prepared.table["lesion"].tolist() == [0, 16, 16, 0, 0, 0, 16, 16]
    assert prepared.table["box"][1].tolist() == [8, 24, 4, 28]
    assert set(prepared.case_ids[:5]) == {"case0"}


def test_a_case_without_masks_gets_its_lungs_by_threshold_and_no_lesion(tmp_path: Path) -> None:
    volume = phantom_case(3, 0, Site(slice_mm=10, pixel_mm=3.6, size=96)).volume

    prepared = prepare_cohort(cohort_of(Case(volume, None, None, "bare")), tmp_path, size=96)

    lungs = threshold_lungs(volume).voxels
    for row, index in enumerate(prepared.table["index"]):
        np.testing.assert_array_equal(prepared.hu(row), volume.hu[index])
        np.testing.assert_array_equal(prepared.lung(row), lungs[index])
        assert not prepared.lesion(row).any()
    assert len(prepared.table) == len(volume.hu)


def test_slices_that_come_from_head_to_foot_land_in_their_places(tmp_path: Path) -> None:
    case = tiny_case()

    class Backwards(InMemory):
        def slices(self):  # type: ignore[no-untyped-def]
            yield from reversed(list(super().slices()))

    record = CaseRecord("case0", "p", Backwards.of(case))

    prepared = prepare_cohort(Cohort("tiny", (record,)), tmp_path, size=32)

    np.testing.assert_array_equal(np.stack([prepared.hu(row) for row in range(5)]), case.volume.hu)


def test_the_same_cohort_is_opened_and_not_made_again(tmp_path: Path) -> None:
    first = prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16)
    stamp = (first.folder / "hu.npy").stat().st_mtime_ns

    again = prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16)

    assert again.key == first.key
    assert (again.folder / "hu.npy").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("change", ["voxels", "size", "interpolation"])
def test_other_input_or_settings_make_another_cohort(tmp_path: Path, change: str) -> None:
    first = prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16)

    other = prepare_cohort(
        cohort_of(tiny_case(1 if change == "voxels" else 0)),
        tmp_path,
        size=32 if change == "size" else 16,
        interpolation="nearest" if change == "interpolation" else "linear",
    )

    assert other.key != first.key


def test_a_cohort_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    case = tiny_case()

    class Broken(InMemory):
        def slices(self):  # type: ignore[no-untyped-def]
            yield next(iter(super().slices()))
            raise ResourceError("the disk is gone")

    with pytest.raises(ResourceError):
        prepare_cohort(Cohort("tiny", (CaseRecord("case0", "p", Broken.of(case)),)), tmp_path, size=16)

    assert list(tmp_path.iterdir()) == []


def test_f75_a_cohort_that_does_not_fit_on_the_disk_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny_case()

    class Unread(InMemory):
        def slices(self):  # type: ignore[no-untyped-def]
            pytest.fail("it was read")

    takes = 5 * (3 * 16 * 16 + 32 * 32 // 8)
    monkeypatch.setattr(files, "_free", lambda _: takes - 1)
    with pytest.raises(ResourceError, match=rf"takes {takes:,} bytes, and {takes - 1:,} are free there"):
        prepare_cohort(Cohort("tiny", (CaseRecord("case0", "p", Unread.of(case)),)), tmp_path, size=16)

    assert list(tmp_path.iterdir()) == []


def test_f75_the_room_on_the_disk_is_taken_before_the_slices_come(tmp_path: Path) -> None:
    prepared = prepare_cohort(cohort_of(tiny_case(slices=40)), tmp_path, size=32)

    for name in ("hu.npy", "native.bin"):
        there = (prepared.folder / name).stat()
        assert there.st_blocks * 512 >= there.st_size, f"{name} has holes, which a full disk cannot fill later"


def test_f70_what_a_killed_process_left_is_swept_though_everything_is_prepared(tmp_path: Path) -> None:
    prepared = prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16)
    (tmp_path / f".part-x-{files._HOST}-4194301-77-abcd_123").mkdir()

    prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16)

    assert list(tmp_path.iterdir()) == [prepared.folder]


def test_padding_far_below_air_becomes_air(tmp_path: Path) -> None:
    case = tiny_case()
    case.volume.hu[0, 0, 0] = -3024

    assert prepare_cohort(cohort_of(case), tmp_path, size=32).hu(0)[0, 0] == -1024


def test_neighbours_are_chosen_by_millimetres_and_end_with_the_scan(tmp_path: Path) -> None:
    prepared = prepare_cohort(cohort_of(tiny_case(0), tiny_case(1)), tmp_path, size=16)

    assert prepared.neighbour(2, 10.0) == 4
    assert prepared.neighbour(2, -5.0) == 1
    assert prepared.neighbour(4, 10.0) == 4, "not the next patient's first slice"
    assert prepared.neighbour(5, -10.0) == 5
    assert slices_away(1.0, 6.0) == 1, "at least the next slice"


def test_a_folder_without_a_prepared_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="run lungshift prepare"):
        open_prepared(tmp_path)


def test_a_cohort_of_another_format_is_refused(tmp_path: Path) -> None:
    prepared = prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16)
    text = json.loads((prepared.folder / "cohort.json").read_text())
    (prepared.folder / "cohort.json").write_text(json.dumps(text | {"format": 0}))

    with pytest.raises(CohortError, match="format 0"):
        open_prepared(prepared.folder)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize("name", ["table", "hu", "masks"])
def test_f64_arrays_of_objects_are_refused_and_run_nothing(tmp_path: Path, name: str) -> None:
    folder, canary = prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16).folder, tmp_path / "canary"
    np.save(folder / f"{name}.npy", np.array([Bomb(canary)], dtype=object), allow_pickle=True)

    with pytest.raises(CohortError, match=rf"{name}\.npy"):
        prepared = open_prepared(folder)
        prepared.hu(0)
        prepared.lesion(0)

    assert not canary.exists()


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 2}', "null", "[" * 100_000], ids=lambda text: text[:14])
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    folder = prepare_cohort(cohort_of(tiny_case()), tmp_path, size=16).folder
    (folder / "cohort.json").write_text(text)

    with pytest.raises(CohortError):
        open_prepared(folder)


@pytest.mark.real
def test_the_real_cohorts_hold_the_slices_that_the_paper_counts(real_data: Path, tmp_path: Path) -> None:
    """One of the 713 slices with lung of medseg9 lost its few lung pixels when the copies were resized to 320."""
    from lungshift.io.cohort import read_cohort

    table = prepare_cohort(read_cohort(real_data / "medseg9"), tmp_path, size=320).table

    assert len(table) == 829
    assert (table["lung"] > 0).sum() == 712
    assert (table["lesion"] > 0).sum() == 373
    assert ((table["lung"] > 0) | (table["lesion"] > 0)).sum() == 713
