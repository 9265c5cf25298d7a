"""Labels with a known error, judged by networks whose opinion is written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chests import SIZE, chest, chests
from lungshift.ct.volume import Mask
from lungshift.files import write_arrays
from lungshift.transfer.auditing import judge_labels, opinion_of, worth_of
from lungshift.transfer.out_of_fold import OutOfFold


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> OutOfFold:
    """Eight chests with two lesions each; networks see all of them, and the reader of the first forgot one."""
    folder = tmp_path_factory.mktemp("audit")
    cases = [chest(seed) for seed in range(8)]
    seen = [case.lesion.voxels for case in cases if case.lesion is not None]
    forgotten = seen[0].copy()
    forgotten[:, :, : SIZE // 2] = False
    cases[0] = replace(cases[0], lesion=Mask(forgotten, cases[0].volume.geometry))
    prepared = chests(folder, "chests", *cases)
    for number, lesion in enumerate(seen):
        rows = np.flatnonzero(prepared.table["case"] == number)
        sure = np.where(lesion, 240, 3).astype(np.uint8)
        path = folder / "oof" / "seed0" / f"case{number}.npz"
        write_arrays(path, {"key": np.array("x"), "rows": rows, "probability": sure, "mask": np.packbits(lesion)})
    return OutOfFold(prepared, Path(folder / "oof"), (0,), {})


def test_the_forgotten_lesion_stands_first_and_is_believed(found: OutOfFold) -> None:
    judged = judge_labels(found)

    first = judged[0]
    assert (first.case.case_id, first.suspect.kind) == ("case0", "missing-lesion")
    assert first.belief > 0.7
    assert first.finding().seat is not None
    assert first.finding().seat[2] < SIZE // 2  # type: ignore[index]


def test_slices_of_a_suspect_are_counted_from_the_foot_of_the_scan(found: OutOfFold) -> None:
    opinion, begins = opinion_of(found, 0)
    judged = judge_labels(found)

    inside = judged[0].suspect.moved(-begins)
    assert not opinion.reference[inside.box][inside.inside].any()
    assert opinion.predicted[inside.box][inside.inside].all()


def test_the_score_is_bounded_by_what_it_would_be_were_the_list_right(found: OutOfFold) -> None:
    worth = worth_of(found, judge_labels(found), top=(1, 50))

    assert worth.now.value < 1
    assert worth.top[max(worth.top)].value == pytest.approx(1)
