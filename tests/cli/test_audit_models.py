"""``lungshift audit --models``: networks are trained, a page is written, decisions made on it become new labels."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lungshift.cli import main as cli
from lungshift.files import sha256
from lungshift.io.cohort import read_cohort
from lungshift.io.writing import write_mask, write_volume
from worlds import tiny_case

PROTOCOL = """
name = "tiny"
seeds = [0]

[prepare]
size = 16

[network]
width = 2
levels = 2

[training]
epochs = 1
patience = 0
batch = 8
micro_batch = 8
learning_rate = 1e-2
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients in files, a protocol, and the audit of them."""
    home = tmp_path_factory.mktemp("home")
    lines = ["case_id,volume,lung,lesion"]
    for number in range(4):
        case = tiny_case(number)
        assert case.lung is not None
        assert case.lesion is not None
        name = f"case{number}"
        write_volume(case.volume, home / "scans" / f"{name}.nii.gz")
        write_mask(case.lung, home / "scans" / f"{name}-lung.nii.gz")
        write_mask(case.lesion, home / "scans" / f"{name}-lesion.nii.gz")
        lines.append(f"{name},{name}.nii.gz,{name}-lung.nii.gz,{name}-lesion.nii.gz")
    (home / "scans" / "manifest.csv").write_text("\n".join(lines) + "\n")
    (home / "tiny.toml").write_text(PROTOCOL)
    code = end_of("audit", home / "scans", "--models", home / "tiny.toml", "--folds", 2, "--device", "cpu",
                  "--output", home / "audit")  # fmt: skip
    assert code == 0
    return home


def end_of(*words: object) -> int:
    with pytest.raises(SystemExit) as end, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lungshift", *map(str, words)])
        cli.main()
    return int(end.value.code or 0)


def suspects_of(home: Path) -> list[dict[str, object]]:
    return list(json.loads((home / "audit" / "suspects.json").read_text())["suspects"])


def test_a_page_and_the_places_of_its_findings_are_written(home: Path) -> None:
    page = (home / "audit" / "audit.html").read_text()
    suspects = suspects_of(home)

    assert suspects
    assert all(str(one["id"]) in page for one in suspects)
    assert "Research use only" in page
    assert {one["kind"] for one in suspects} & {"missing-lesion", "spurious-lesion", "boundary-drift"}


def test_an_accepted_suspect_changes_that_label_alone_and_no_original(home: Path, tmp_path: Path) -> None:
    chosen = next(one for one in suspects_of(home) if "file" in one)
    before = {path: sha256(path) for path in (home / "scans").iterdir()}
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({"format": 1, "decisions": {chosen["id"]: "accept"}}))

    code = end_of("audit", home / "scans", "--apply", decisions, "--audited", home / "audit", "--output", tmp_path / "new")  # fmt: skip

    assert code == 0
    assert {path: sha256(path) for path in (home / "scans").iterdir()} == before
    old, new = read_cohort(home / "scans"), read_cohort(tmp_path / "new" / "scans" / "manifest.toml")
    changed = []
    for was, now in zip(old.cases, new.cases, strict=True):
        first, second = was.read().lesion, now.read().lesion
        assert first is not None
        assert second is not None
        if not np.array_equal(first.voxels, second.voxels):
            changed.append(was.case_id)
    assert changed == [chosen["case"]]


def test_decisions_about_another_audit_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({"format": 1, "decisions": {"0123456789abcdef": "accept"}}))

    code = end_of("audit", home / "scans", "--apply", decisions, "--audited", home / "audit", "--output", tmp_path / "new")  # fmt: skip

    assert code != 0
    assert "E_DECISIONS" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_applying_decisions_without_their_audit_is_a_wrong_use(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_of("audit", home / "scans", "--apply", tmp_path / "decisions.json", "--output", tmp_path / "new") == 2
    assert "--audited" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
