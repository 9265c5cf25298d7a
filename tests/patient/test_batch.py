"""Many studies at a time: who fails is listed, who is done stays done, whatever dies in between."""

from __future__ import annotations

import csv
import errno
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lungshift.errors import MissingError, OutputError, ResourceError
from lungshift.patient import batch
from lungshift.patient.batch import Ended, predict_many
from lungshift.patient.predicting import Options
from lungshift.patient.studies import Found, find_studies
from lungshift.workers import Workers
from patient_worlds import as_nifti, as_series, whole_chest
from poison import Poison
from series import TOKENS


@dataclass
class Listening:
    """Keeps what it is told."""

    told: list[tuple[int, int]] = field(default_factory=list)

    def stage(self, text: str) -> None:
        """A stage."""

    def studies(self, done: int, total: int) -> None:
        self.told.append((done, total))


def many(found: Found, options: Options, folder: Path, workers: Workers | None = None, **how) -> list[Ended]:
    return predict_many(found, options, folder, workers=workers or Workers(), watcher=Listening(), **how)


def poisoned(found: Found, name: str) -> Found:
    """The studies, one of which kills whoever reads it."""
    changed = [Poison(**vars(study)) if study.name == name else study for study in found.studies]
    return Found(tuple(changed), found.single, found.given)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, a series whose folder names its patient, and another with a hole in it."""
    place = tmp_path_factory.mktemp("inbox")
    for seed, name in enumerate(("a", "b")):
        as_nifti(place, f"{name}.nii.gz", whole_chest(seed))
    as_series(place / "Mueller_Hannelore", whole_chest(2), series="1.2.826.0.1.11")
    (as_series(place / "Mueller_Jakob_PID-4711", whole_chest(3), series="1.2.826.0.1.12") / "im007.dcm").unlink()
    return place


@pytest.fixture(scope="module")
def ran(place: Path, options: Options, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    folder = tmp_path_factory.mktemp("many") / "out"
    return folder, many(find_studies([place]), options, folder, Workers(2))


def test_who_fails_is_listed_with_code_and_message_and_the_others_are_done(ran: tuple[Path, list[Ended]]) -> None:
    folder, ended = ran

    assert [one.status for one in ended] == ["done", "done", "done", "failed"]
    assert (ended[3].code, ended[3].message.endswith('uneven="interpolate".')) == ("E_GAP", True)
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert [row["study"] for row in rows] == [one.name for one in ended]
    assert float(rows[0]["lesion_ml"]) > 0
    assert (rows[3]["status"], rows[3]["lesion_ml"]) == ("failed", ""), "a failed study has no number, and no 0"
    told = json.loads((folder / "predictions.json").read_text())
    assert told["counts"] == {"done": 3, "kept": 0, "failed": 1}
    assert told["studies"][3]["lesion_ml"] is None


def test_every_study_that_is_done_has_a_whole_folder_and_no_other_has_one(ran: tuple[Path, list[Ended]]) -> None:
    folder, ended = ran

    for one in ended:
        assert (folder / one.name / "prediction.json").is_file() == (one.status == "done")
        assert (folder / one.name).exists() == (one.status == "done")
    assert (folder / ended[2].name / "lesion.dcm").is_file()
    assert not list(folder.rglob(".part-*"))


def test_no_name_number_date_or_uid_of_a_patient_is_in_any_file_or_file_name(ran: tuple[Path, list[Ended]]) -> None:
    folder, _ = ran
    planted = [*TOKENS.values(), "Mueller", "Jakob", "1.2.826.0.1.1", "im006", str(folder.parent.parent)]

    for path in folder.rglob("*"):
        data = str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"")
        assert not [token for token in planted if token.encode() in data], path.name


def test_the_same_again_keeps_what_is_done_and_tries_what_is_new_or_has_failed(
    ran: tuple[Path, list[Ended]], place: Path, options: Options
) -> None:
    folder, _ = ran
    as_nifti(place, "c.nii.gz", whole_chest(4))
    before = (folder / "a" / "prediction.json").stat().st_mtime_ns

    ended = many(find_studies([place]), options, folder)

    assert [one.status for one in ended] == ["kept", "kept", "done", "kept", "failed"]
    assert (folder / "a" / "prediction.json").stat().st_mtime_ns == before


def test_a_folder_of_other_options_is_kept(ran: tuple[Path, list[Ended]], place: Path, checkpoint: Path) -> None:
    folder, _ = ran

    with pytest.raises(OutputError) as caught:
        many(find_studies([place]), Options(checkpoint, strict=True, device="cpu"), folder)

    assert caught.value.code == "E_EXISTS"
    assert (folder / "a" / "prediction.json").is_file()


@pytest.fixture
def three(tmp_path: Path) -> Found:
    for seed, name in enumerate(("a", "b", "c")):
        as_nifti(tmp_path / "in", f"{name}.nii.gz", whole_chest(seed))
    return find_studies([tmp_path / "in"])


def test_a_study_that_kills_its_process_is_listed_and_takes_no_other_with_it(
    three: Found, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "TRIES", 2)

    ended = many(poisoned(three, "a"), options, tmp_path / "out")

    assert [(one.name, one.status, one.code) for one in ended] == [
        ("a", "failed", "E_WORKER"),
        ("b", "done", ""),
        ("c", "done", ""),
    ]


def test_a_cluster_does_the_same(three: Found, options: Options, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        ended = many(poisoned(three, "b"), options, tmp_path / "out", Workers(scheduler=cluster.scheduler_address))

    assert [one.name for one in ended if one.status == "failed"] == ["b"]
    assert ended[1].code == "E_WORKER"
    assert all((tmp_path / "out" / name / "prediction.json").is_file() for name in "ac")


def test_a_scheduler_that_does_not_answer_is_named(
    three: Found, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("lungshift.workers._ANSWER_S", 1)

    with pytest.raises(MissingError, match="No dask scheduler answers"):
        many(three, options, tmp_path / "out", Workers(scheduler="tcp://127.0.0.1:9"))


def test_killed_again_and_again_it_leaves_no_half_study_and_the_same_command_goes_on(
    three: Found, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["predict", str(checkpoint), str(three.given[0]), "--output", str(out), "--device", "cpu"]
    command = [sys.executable, "-m", "lungshift", *words]
    for wanted in (0, 1):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(out.glob("*/prediction.json"))) <= wanted:
                time.sleep(0.01)
            process.kill()
        for folder in out.glob("[!.]*/"):
            assert (folder / "prediction.json").is_file(), "a folder that can be seen is whole"

    last = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "(kept)" in last.stdout
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["a", "b", "c"]
    assert json.loads((out / "predictions.json").read_text())["counts"]["failed"] == 0


class TestOneStudyAtTheWorker:
    """What a worker makes of an error, without a process of its own."""

    def failing(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(batch, "predict_study", fail)

    def test_a_full_disk_stops_everything_and_is_not_listed_study_by_study(
        self, three: Found, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.failing(monkeypatch, ResourceError("No space left"))

        with pytest.raises(ResourceError):
            batch._do(three.studies[0], options, tmp_path)

    def test_f76_a_machine_without_free_handles_stops_everything_too(
        self, three: Found, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.failing(monkeypatch, OSError(errno.EMFILE, "Too many open files", "s.nii.gz"))

        with pytest.raises(ResourceError, match=r"s.nii.gz cannot be opened: Too many open files"):
            batch._do(three.studies[0], options, tmp_path)

    @pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC], ids=["EIO", "read-only", "full"])
    def test_f76_a_disk_that_cannot_be_written_stops_everything_too(
        self, three: Found, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(number, "as the system says it")

        monkeypatch.setattr(batch, "write_prediction", fail)
        with pytest.raises(ResourceError, match=r"Cannot write .*/a: as the system says it"):
            batch._do(three.studies[0], options, tmp_path / "out")

        assert list((tmp_path / "out").iterdir()) == []

    @pytest.mark.parametrize(
        "error", [MemoryError(), ResourceError("16 GiB wanted", code="E_MEMORY")], ids=["met", "foreseen"]
    )
    def test_a_scan_that_is_too_large_is_listed(
        self, three: Found, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        self.failing(monkeypatch, error)

        ended = batch._do(three.studies[0], options, tmp_path)

        assert (ended.status, ended.code) == ("failed", "E_MEMORY")
        assert ended.message

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            pytest.param(ImportError("x", name="pylibjpeg"), "the package pylibjpeg is not installed", id="named"),
            pytest.param(
                ImportError("libz.so.1"), "something that is needed does not load (libz.so.1)", id="not named"
            ),
        ],
    )
    def test_what_cannot_be_imported_is_listed_with_what_it_is(
        self,
        three: Found,
        options: Options,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        error: ImportError,
        said: str,
    ) -> None:
        self.failing(monkeypatch, error)

        ended = batch._do(three.studies[0], options, tmp_path)

        assert ended.code == "E_MISSING"
        assert ended.message.startswith(said)

    def test_what_nobody_foresaw_is_listed_without_its_words(
        self, three: Found, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.failing(monkeypatch, KeyError("Mueller^Hannelore"))

        ended = batch._do(three.studies[0], options, tmp_path)

        assert ended.code == "E_UNFORESEEN"
        assert "KeyError" in ended.message
        assert "Mueller" not in ended.message
