"""What a reader decides is done to new files, on the scan's own pixels, and to nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lungshift.audit.correct import correct_labels, read_decisions
from lungshift.audit.finding import Finding
from lungshift.audit.judged import Judged, identity_of, rank_judged, read_suspects, write_suspects
from lungshift.audit.suspects import Suspect
from lungshift.ct.case import Cohort
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import InputError, OutputError
from lungshift.files import sha256
from lungshift.io.cohort import read_cohort
from lungshift.io.writing import write_mask, write_volume
from lungshift.prepare.prepared import PreparedCase

GRID = Geometry.regular((6, 20, 20), (5.0, 1.0, 1.0))


def suspect(kind: str = "missing-lesion", ml: float = 1.0, at: int = 2) -> Suspect:
    """Two slices of 2 x 2 pixels of a picture of 10 x 10: 4 x 4 of the scan's own."""
    box = (slice(at, at + 2), slice(3, 5), slice(6, 8))
    return Suspect(kind, box, np.ones((2, 2, 2), bool), (at, 3, 6), ml, 0.9, 0.0, 1.0, 300.0, 9.0)  # type: ignore[arg-type]


def judged(case: str = "c0", belief: float = 0.5, **more: object) -> Judged:
    prepared = PreparedCase(case, case, 6, 20, 20, (5.0, 1.0, 1.0), "reader")
    return Judged("tiny", prepared, suspect(**more), belief, 10)  # type: ignore[arg-type]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    folder, lines = tmp_path / "tiny", ["name,case_id,patient_id,volume,lung,lesion"]
    lesion = np.zeros(GRID.shape, bool)
    lesion[2:4, 6:10, 12:14] = True  # the left half of the suspect's place
    for name in ("c0", "c1"):
        hu = np.random.default_rng(0).integers(-1000, 100, GRID.shape).astype(np.int16)
        write_volume(Volume(hu, GRID), folder / f"{name}.nii.gz")
        write_mask(Mask(np.ones(GRID.shape, bool), GRID), folder / f"{name}-lung.nii.gz")
        write_mask(Mask(lesion, GRID), folder / f"{name}-lesion.nii.gz")
        lines.append(f"tiny,{name},p{name},{name}.nii.gz,{name}-lung.nii.gz,{name}-lesion.nii.gz")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return read_cohort(folder)


def test_a_suspect_lies_on_the_scans_own_pixels() -> None:
    slices = judged().own_slices()

    assert sorted(slices) == [2, 3]
    assert np.argwhere(slices[2]).min(axis=0).tolist() == [6, 12]
    assert np.argwhere(slices[2]).max(axis=0).tolist() == [9, 15]
    assert judged().finding().seat == (2, 7, 13)


def test_a_finding_says_how_much_how_sure_and_what_to_do() -> None:
    found = judged(belief=0.85).finding()

    assert (found.code, found.severity, found.voxels) == ("missing-lesion", "error", 32)
    assert "1.00 ml of lesion that nobody marked" in found.evidence
    assert "85 %" in found.evidence
    assert found.numbers["expected_ml"] == pytest.approx(0.85)
    assert judged(belief=0.5).finding().severity == "warning"
    assert judged(belief=float("nan")).finding().severity == "note"


def test_a_worklist_begins_with_what_is_called_an_error_and_there_with_the_most_millilitres_in_doubt() -> None:
    small, sure, large = judged(belief=0.9, ml=0.1), judged(belief=0.9), judged(belief=0.2, ml=50.0, at=1)
    likely, unknown = judged(belief=0.5, ml=0.1), judged(belief=float("nan"), ml=100.0)

    assert rank_judged([small, unknown, likely, sure, large]) == (sure, small, likely, unknown, large)


def test_suspects_are_read_again_as_they_were_written(tmp_path: Path) -> None:
    one, other = judged(), judged("c1", kind="spurious-lesion")
    write_suspects([one, other], tmp_path)

    kept = read_suspects(tmp_path)

    assert set(kept) == {one.identity, other.identity}
    assert kept[other.identity].case == ("tiny", "c1")
    for at, mask in one.own_slices().items():
        np.testing.assert_array_equal(kept[one.identity].slices()[at], mask)


def test_accepted_suspects_are_turned_over_in_a_new_label_and_the_original_stays(
    cohort: Cohort, tmp_path: Path
) -> None:
    one = judged()
    write_suspects([one], tmp_path)
    before = {path: sha256(path) for path in (tmp_path / "tiny").iterdir()}

    told = correct_labels(cohort, tmp_path, {one.identity: "accept"}, tmp_path / "new")

    assert [(t.case, t.added, t.erased, t.accepted) for t in told] == [("c0", 16, 16, 1), ("c1", 0, 0, 0)]
    assert before == {path: sha256(path) for path in (tmp_path / "tiny").iterdir()}
    corrected = read_cohort(tmp_path / "new")
    assert (corrected.name, [case.patient_id for case in corrected.cases]) == ("tiny-corrected", ["pc0", "pc1"])
    lesion = corrected.cases[0].read().lesion
    assert lesion is not None
    expected = np.zeros(GRID.shape, bool)
    expected[2:4, 6:10, 14:16] = True
    np.testing.assert_array_equal(lesion.voxels, expected)
    assert (
        corrected.cases[1].checksums["lesion tiny/c1-lesion.nii.gz"] == before[tmp_path / "tiny" / "c1-lesion.nii.gz"]
    )


def finding(code: str, slices: tuple[int, ...] = (), seat: tuple[int, int, int] | None = None) -> Finding:
    return Finding(code, "c0", "warning", "seen", "look", "tiny", slices, 9, seat)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        pytest.param(
            finding("lesion-without-lung", slices=(2,)), (slice(3, 4), slice(6, 10), slice(12, 14)), id="slices"
        ),
        pytest.param(finding("speck", seat=(2, 7, 13)), (slice(0), slice(0), slice(0)), id="the piece at its seat"),
        pytest.param(finding("speck", seat=(0, 0, 0)), (slice(2, 4), slice(6, 10), slice(12, 14)), id="no piece there"),
        pytest.param(
            finding("lesion-outside-lung", seat=(2, 7, 13)),
            (slice(2, 4), slice(6, 10), slice(12, 13)),
            id="what lies outside the lung",
        ),
    ],
)
def test_an_accepted_finding_about_a_piece_of_lesion_erases_that_piece(
    cohort: Cohort, tmp_path: Path, found: Finding, kept: tuple[slice, slice, slice]
) -> None:
    lung = np.ones(GRID.shape, bool)
    lung[..., 13:] = False
    write_mask(Mask(lung, GRID), tmp_path / "tiny" / "c0-lung.nii.gz")
    write_suspects([], tmp_path, [found])

    told = correct_labels(cohort, tmp_path, {identity_of(found): "accept"}, tmp_path / "new")

    expected = np.zeros(GRID.shape, bool)
    expected[kept] = True
    lesion = read_cohort(tmp_path / "new").cases[0].read().lesion
    assert lesion is not None
    np.testing.assert_array_equal(lesion.voxels, expected)
    assert (told[0].added, told[0].erased, told[0].by_hand) == (0, 16 - int(expected.sum()), ())


def test_an_accepted_finding_that_names_no_voxels_is_left_to_a_person(cohort: Cohort, tmp_path: Path) -> None:
    found = finding("slice-missing")
    write_suspects([], tmp_path, [found])

    told = correct_labels(cohort, tmp_path, {identity_of(found): "accept"}, tmp_path / "new")

    assert (told[0].by_hand, told[0].accepted, told[0].file) == (("slice-missing",), 1, "")


@pytest.mark.parametrize("decision", ["reject", "unsure"])
def test_what_is_not_accepted_changes_nothing(cohort: Cohort, tmp_path: Path, decision: str) -> None:
    one = judged()
    write_suspects([one], tmp_path)

    told = correct_labels(cohort, tmp_path, {one.identity: decision}, tmp_path / "new")  # type: ignore[dict-item]

    assert not any(t.added or t.erased or t.file for t in told)


def test_decisions_of_another_audit_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    write_suspects([judged()], tmp_path)

    with pytest.raises(InputError, match="belong to another audit") as error:
        correct_labels(cohort, tmp_path, {"0123": "accept"}, tmp_path / "new")
    assert error.value.code == "E_DECISIONS"
    assert not (tmp_path / "new").exists()


def test_corrections_are_never_written_over_anything(cohort: Cohort, tmp_path: Path) -> None:
    one = judged()
    write_suspects([one], tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("kept")

    with pytest.raises(OutputError):
        correct_labels(cohort, tmp_path, {one.identity: "accept"}, tmp_path / "new")


def test_a_folder_without_suspects_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no audit"):
        read_suspects(tmp_path)


def test_decisions_are_read_as_the_page_saves_them(tmp_path: Path) -> None:
    path = tmp_path / "decisions.json"
    path.write_text(json.dumps({"format": 1, "decisions": {"a": "accept", "b": "unsure"}}))

    assert read_decisions(path) == {"a": "accept", "b": "unsure"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("not json", id="not json"),
        pytest.param("[]", id="a list"),
        pytest.param('{"format": 2, "decisions": {}}', id="another format"),
        pytest.param('{"format": 1, "decisions": {"a": "maybe"}}', id="another word"),
        pytest.param('{"format": 1}', id="no decisions"),
    ],
)
def test_what_is_no_file_of_decisions_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "decisions.json"
    path.write_text(text)

    with pytest.raises(InputError, match="no file of decisions"):
        read_decisions(path)
