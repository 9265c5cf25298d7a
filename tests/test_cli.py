"""The command line: one message and an exit code for every expected end, never a traceback."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lungshift import __version__
from lungshift.cli import main as cli
from lungshift.io.nifti import read_mask, read_volume
from lungshift.io.writing import write_mask, write_volume
from worlds import tiny_case

COMMANDS = (
    "demo",
    "download",
    "prepare",
    "train",
    "fine-tune",
    "evaluate",
    "predict",
    "quantify",
    "scene",
    "follow-up",
    "transfer",
    "chain",
    "leave-one-out",
    "forensics",
    "forecast",
    "audit",
    "doctor",
)
QUICK = [
    *(
        "--set",
        "prepare.size=16",
        "--set",
        "network.levels=2",
        "--set",
        "network.width=2",
        "--set",
        "training.epochs=1",
    ),
    *("--set", "fine_tuning.epochs=1", "--device", "cpu"),
]


def write_cohort(folder: Path, first: int) -> Path:
    """Five tiny cases as NIfTI with a manifest."""
    folder.mkdir()
    lines = ["case_id,volume,lung,lesion"]
    for seed in range(first, first + 5):
        case = tiny_case(seed)
        assert case.lung is not None
        assert case.lesion is not None
        write_volume(case.volume, folder / f"{seed}.nii.gz")
        write_mask(case.lung, folder / f"{seed}-lung.nii.gz")
        write_mask(case.lesion, folder / f"{seed}-lesion.nii.gz")
        lines.append(f"c{seed},{seed}.nii.gz,{seed}-lung.nii.gz,{seed}-lesion.nii.gz")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("cohorts")
    return str(write_cohort(folder / "home", 0)), str(write_cohort(folder / "away", 10))


@pytest.fixture
def lungshift(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run a command in this process; its exit code, output and error output."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lungshift", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return int(end.value.code or 0), out, err

    return call


def test_the_version_is_told(lungshift) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = lungshift("--version")

    assert (code, out.strip()) == (0, f"lungshift {__version__}")


def test_help_names_every_command(lungshift) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = lungshift("--help")

    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(lungshift, command: str) -> None:  # type: ignore[no-untyped-def]
    assert lungshift(command, "--help")[0] == 0


def test_a_dry_run_refuses_what_the_run_would_refuse(cohorts: tuple[str, str], lungshift) -> None:  # type: ignore[no-untyped-def]
    study = ("transfer", "paper", "--source", cohorts[0], "--dry-run", "--target")

    assert lungshift(*study, cohorts[1], "--jobs", "0")[2].startswith(
        "E_PROTOCOL: Work is done by at least one process"
    )
    assert lungshift(*study, cohorts[0])[2].startswith("E_COHORT: A study needs different cohorts")
    assert lungshift("chain", "paper", cohorts[0], "--dry-run")[2].startswith("E_PROTOCOL: A study needs at least two")


def test_help_and_dry_run_load_nothing_heavy(cohorts: tuple[str, str]) -> None:
    heavy = "{'torch', 'lightning', 'monai', 'matplotlib', 'SimpleITK'} & set(sys.modules)"
    for words in (
        ["--help"],
        ["prepare", cohorts[0], "--dry-run"],
        ["transfer", "paper", "--source", cohorts[0], "--target", cohorts[1], "--dry-run"],
        ["chain", "paper", *cohorts, "--dry-run"],
    ):
        code = f"import sys; sys.argv = ['lungshift', *{words!r}]; import lungshift.cli.main as c, atexit; atexit.register(lambda: sys.stderr.write(str({heavy}))); c.main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "set()", words


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["frobnicate"], id="unknown command"),
        pytest.param(["prepare"], id="missing argument"),
        pytest.param(["transfer", "paper", "--sorce", "x"], id="unknown option"),
    ],
)
def test_wrong_usage_ends_with_2(lungshift, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    code, _, err = lungshift(*words)

    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["prepare", "/nowhere"], "E_NO_FILE", id="no cohort"),
        pytest.param(["transfer", "papre", "--source", "a", "--target", "b"], "E_PROTOCOL", id="no protocol"),
        pytest.param(["predict", "/nowhere", "scan.nii.gz"], "E_CHECKPOINT", id="no checkpoint"),
    ],
)
def test_refused_input_ends_with_1_and_one_message(lungshift, words: list[str], says: str) -> None:  # type: ignore[no-untyped-def]
    code, _, err = lungshift(*words)

    assert code == 1
    assert err.startswith(says)
    assert "Traceback" not in err


def test_a_device_that_is_missing_ends_with_5(lungshift, cohorts: tuple[str, str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = lungshift("train", cohorts[0], *QUICK[:-1], "cuda:99", "--output", str(tmp_path / "run"))

    assert code == 5
    assert "E_MISSING" in err


def test_a_full_disk_ends_with_6_and_leaves_nothing(  # type: ignore[no-untyped-def]
    lungshift, cohorts: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)

    code, _, err = lungshift("prepare", cohorts[0], "--size", "16", "--output", str(tmp_path / "cache"))

    assert code == 6
    assert "No space left on device" in err
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError(), id="Python"),
        pytest.param(RuntimeError("Exception from plugin.cpp:54: std::bad_alloc"), id="OpenVINO"),
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory"), id="torch"),
        pytest.param(ImportError("libx.so: failed to map segment from shared object", name="x"), id="a library"),
    ],
)
def test_f78_memory_that_ends_in_the_middle_is_a_message_and_6(lungshift, monkeypatch, error: Exception) -> None:  # type: ignore[no-untyped-def]
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    code, _, err = lungshift("predict")

    assert code == 6
    assert err.startswith("E_MEMORY: there is not enough memory.")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(
            ImportError("x", name="vtk.core"), "the package vtk.core is not installed, or does not load", id="named"
        ),
        pytest.param(
            ImportError("libGL.so.1: cannot open\n  shared object file"),
            "something that is needed does not load (libGL.so.1: cannot open shared object file)",
            id="without a name",
        ),
        pytest.param(ImportError(), "something that is needed does not load", id="without a word"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_5(lungshift, monkeypatch, error: ImportError, said: str) -> None:  # type: ignore[no-untyped-def]
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    code, _, err = lungshift("predict")

    assert code == 5
    assert err.startswith(f"E_MISSING: {said}. Run lungshift doctor")
    assert len(err.splitlines()) == 1


def test_an_output_below_a_file_is_refused(lungshift, cohorts: tuple[str, str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("mine")

    code, _, err = lungshift("prepare", cohorts[0], "--output", str(tmp_path / "file"))

    assert code == 1
    assert "Cannot write" in err


def test_preparing_says_what_was_found(lungshift, cohorts: tuple[str, str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = lungshift("prepare", cohorts[0], "--size", "16", "--output", str(tmp_path))

    assert code == 0
    assert "5 cases, 25 slices, 20 with lung, 10 with lesion" in out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("main") / "run"


class TestTheMainJob:
    def test_transfer_writes_page_tables_and_checkpoints(
        self, lungshift, cohorts: tuple[str, str], folder: Path
    ) -> None:  # type: ignore[no-untyped-def]
        code, out, _ = lungshift(
            "transfer", "quick", "--source", cohorts[0], "--target", cohorts[1], *QUICK, "--output", str(folder)
        )

        assert code == 0
        assert "report.html" in out
        assert "Content-Security-Policy" in (folder / "report.html").read_text()
        with open(folder / "counts.csv") as stream:
            assert len(list(csv.DictReader(stream))) == 4 * 2 * 4, (
                "four runs (the retrained one also at home), two tested patients, four slices with lung"
            )
        assert json.loads((folder / "run.json").read_text())["status"] == "done"

    def test_the_finished_run_is_kept(self, lungshift, cohorts: tuple[str, str], folder: Path) -> None:  # type: ignore[no-untyped-def]
        code, _, err = lungshift(
            "transfer", "quick", "--source", cohorts[0], "--target", cohorts[1], *QUICK, "--output", str(folder)
        )

        assert code == 1
        assert "E_EXISTS" in err
        assert "--overwrite" in err

    def test_a_model_that_predicts_nothing_is_not_forecast_from(
        self, lungshift, cohorts: tuple[str, str], folder: Path, tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        model, elsewhere = str(folder / "checkpoints" / "source-seed0"), write_cohort(tmp_path / "elsewhere", 20)
        words = ("forecast", model, str(elsewhere), "--calibrate", cohorts[1], "--device", "cpu")

        code, _, err = lungshift(*words, "--output", str(tmp_path / "run"))

        assert code == 1
        assert "5 cases were left out: nothing is predicted" in err

    def test_a_forecast_has_one_calibration(self, lungshift, cohorts: tuple[str, str], folder: Path) -> None:  # type: ignore[no-untyped-def]
        model = str(folder / "checkpoints" / "source-seed0")

        code, _, err = lungshift("forecast", model, cohorts[1], "--output", str(folder.parent / "forecast"))

        assert code == 1
        assert "give one of the two" in err

    @pytest.mark.parametrize("command", ["chain", "leave-one-out"])
    def test_several_cohorts_are_trained_on_in_turn(
        self, lungshift, cohorts: tuple[str, str], tmp_path: Path, command: str
    ) -> None:  # type: ignore[no-untyped-def]
        code, out, _ = lungshift(command, "quick", *cohorts, *QUICK, "--output", str(tmp_path / "run"))

        assert code == 0
        assert "report.html" in out
        assert "away" in (tmp_path / "run" / "matrix.csv").read_text()

    def test_its_checkpoint_predicts_a_scan_on_its_own_grid(
        self, lungshift, cohorts: tuple[str, str], folder: Path, tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        scan, lung = f"{cohorts[1]}/10.nii.gz", f"{cohorts[1]}/10-lung.nii.gz"
        words = [
            "predict",
            str(folder / "checkpoints" / "source-seed0"),
            scan,
            "--lung",
            lung,
            "--output",
            str(tmp_path / "mask.nii.gz"),
        ]

        code, out, _ = lungshift(*words)

        assert code == 0
        assert "Research use only" in out
        mask = read_mask(tmp_path / "mask.nii.gz", read_volume(scan).geometry)
        assert mask.voxels.dtype == np.bool_
        assert lungshift(*words)[0] == 1, "an existing mask is kept"

    def test_its_checkpoint_predicts_one_scan_into_a_folder_and_many_into_one_each(
        self, lungshift, cohorts: tuple[str, str], folder: Path, tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        model, home = str(folder / "checkpoints" / "source-seed0"), Path(cohorts[1])
        scans = [str(home / f"{seed}.nii.gz") for seed in (10, 11)]

        one = lungshift(
            *("predict", model, scans[0], "--lung", str(home / "10-lung.nii.gz"), "--output", str(tmp_path / "one"))
        )
        again = lungshift(
            *("predict", model, scans[0], "--lung", str(home / "10-lung.nii.gz"), "--output", str(tmp_path / "one"))
        )
        many = lungshift("predict", model, *scans, "--output", str(tmp_path / "many"), "--workers", "2")

        assert one[0] == 0
        assert "lesion" in one[1]
        assert "Look at it: lung-volume: " in one[1]
        assert (tmp_path / "one" / "prediction.json").is_file()
        assert "It was there already and was kept." in again[1]
        assert many[0] == 4, "noise has no lungs that a threshold could find"
        assert many[2].splitlines()[-3].startswith("E_PART: 2 of 2 studies failed")
        assert "E_NO_LUNG" in many[2]
        with open(tmp_path / "many" / "predictions.csv") as stream:
            assert [row["code"] for row in csv.DictReader(stream)] == ["E_NO_LUNG", "E_NO_LUNG"]

    def test_many_scans_are_not_written_into_one_mask(
        self, lungshift, cohorts: tuple[str, str], folder: Path, tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        model, scans = (
            str(folder / "checkpoints" / "source-seed0"),
            [f"{cohorts[1]}/{seed}.nii.gz" for seed in (10, 11)],
        )

        code, _, err = lungshift("predict", model, *scans, "--output", str(tmp_path / "mask.nii.gz"))

        assert code == 1
        assert err.startswith("E_MANY: 2 studies were found")

    def test_a_dry_run_says_what_would_be_predicted(
        self, lungshift, cohorts: tuple[str, str], folder: Path, tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        model = str(folder / "checkpoints" / "source-seed0")

        code, out, _ = lungshift("predict", model, cohorts[1], "--output", str(tmp_path / "out"), "--dry-run")

        assert code == 0
        assert "10: (5, 32, 32) (slices, rows, columns)" in out
        assert not (tmp_path / "out").exists()

    def test_its_checkpoint_is_judged_where_it_was_not_trained_and_refused_where_it_was(
        self, lungshift, cohorts: tuple[str, str], folder: Path, tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        model = str(folder / "checkpoints" / "source-seed0")

        code, out, _ = lungshift("evaluate", model, cohorts[1], "--output", str(tmp_path / "away"), "--device", "cpu")
        refused, _, err = lungshift(
            "evaluate", model, cohorts[0], "--output", str(tmp_path / "home"), "--device", "cpu"
        )

        assert code == 0
        assert "lesion_slices" in out
        assert refused == 1
        assert "E_LEAK" in err

    def test_it_is_fine_tuned_with_one_patient(
        self, lungshift, cohorts: tuple[str, str], folder: Path, tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        model = str(folder / "checkpoints" / "source-seed0")

        code, out, _ = lungshift(
            "fine-tune", model, cohorts[1], "--budget", "1", *QUICK, "--output", str(tmp_path / "tuned")
        )

        assert code == 0
        assert "Checkpoint" in out
        assert (tmp_path / "tuned" / "scores.csv").is_file()


def _training_that_goes_on(words: list[str]) -> subprocess.Popen[str]:
    """A training without end, seen to have come to its second epoch."""
    command = [sys.executable, "-m", "lungshift", *words, "--set", "training.epochs=100000"]
    # a shell without job control starts its background commands deaf to Ctrl-C, and with them these tests
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    assert process.stderr is not None
    assert any("epoch 2/" in line for line in process.stderr)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_f79_a_signal_ends_with_130_and_the_run_can_be_taken_up_again(
    cohorts: tuple[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with _training_that_goes_on(["train", cohorts[0], *QUICK, "--output", str(tmp_path / "run")]) as process:
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "takes the run up again" in rest
    assert "Traceback" not in rest
    assert list((tmp_path / "run" / "checkpoints").glob("*.state.safetensors"))


def test_f79_the_second_signal_ends_at_once_and_leaves_nothing_half_written(
    cohorts: tuple[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with _training_that_goes_on(["train", cohorts[0], *QUICK, "--output", str(run)]) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

    assert process.returncode == 130
    assert json.loads((run / "run.json").read_text())["status"] == "running"


def test_a_published_row_is_examined_in_words(lungshift) -> None:  # type: ignore[no-untyped-def]
    row = (
        "--precision",
        "0.751451",
        "--recall",
        "0.833533",
        "--f1",
        "0.783245",
        "--slices",
        "214",
        "--lesion-slices",
        "123",
    )
    code, out, _ = lungshift("forensics", *row)

    assert code == 0
    assert out.startswith("Possible: lesion_slices, empty_is_one")
    assert "Impossible: empty_is_zero, pooled." in out


def test_several_processes_and_a_cluster_at_once_are_refused(
    lungshift, cohorts: tuple[str, str], tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    both = ("--jobs", "2", "--scheduler", "tcp://host:1", "--output", str(tmp_path / "run"))
    code, _, err = lungshift("chain", "quick", *cohorts, *both)

    assert code == 1
    assert "here or on a cluster, not both" in err


class TestLungs:
    def test_a_network_of_lungs_is_trained_and_judged_and_finds_no_lesion(
        self, lungshift, cohorts: tuple[str, str], tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        words = ["--target", "lung", *QUICK, "--set", "training.epoch_slices=8"]
        model = str(tmp_path / "lung" / "checkpoints" / "source-seed0")

        trained, _, _ = lungshift("train", cohorts[0], *words, "--output", str(tmp_path / "lung"))
        judged, out, _ = lungshift("evaluate", model, cohorts[1], "--output", str(tmp_path / "away"), "--device", "cpu")
        tuned, _, _ = lungshift("fine-tune", model, cohorts[1], *words[2:], "--output", str(tmp_path / "tuned"))
        wrong, _, err = lungshift(
            "fine-tune", model, cohorts[1], "--protocol", "quick", *QUICK, "--output", str(tmp_path / "wrong")
        )

        assert (trained, judged, tuned, wrong) == (0, 0, 0, 1)
        assert "The target is lung" in out
        assert err.startswith("E_TARGET")

    def test_a_protocol_of_lesions_says_what_to_change_for_lungs(
        self, lungshift, cohorts: tuple[str, str], tmp_path: Path
    ) -> None:  # type: ignore[no-untyped-def]
        code, _, err = lungshift(
            "train", cohorts[0], "--target", "lung", "--protocol", "quick", "--output", str(tmp_path / "run")
        )

        assert code == 1
        assert err.startswith("E_TARGET")
        assert "network.lung_channel and network.crop to false" in err


def test_an_audit_names_what_is_wrong_and_repairs_what_is_not_hu(lungshift, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from lungshift.ct.volume import Volume
    from lungshift.prepare.phantom import phantom_case
    from lungshift.prepare.phantom_site import SITE_A

    scan = phantom_case(5, 0, replace(SITE_A, size=96, pixel_mm=3.6)).volume
    eight = np.rint(np.clip((scan.hu + 1350) / 1500, 0, 1) * 255).astype(np.int16)
    write_volume(Volume(eight, scan.geometry), tmp_path / "scans" / "eight.nii.gz")
    words = ("audit", str(tmp_path / "scans"), "--output", str(tmp_path / "out"), "--repair")

    assert lungshift(*words, "--dry-run")[:2] == (0, "1 cases in scans. Nothing was written.\n")
    code, out, _ = lungshift(*words)

    assert code == 0
    assert "not-hu-window" in out
    assert "eight: corrected: HU = value * 5.88235 - 1350" in out
    (finding, *_) = json.loads((tmp_path / "out" / "findings.json").read_text())["findings"]
    assert (finding["code"], finding["case"], finding["error"]) == ("not-hu-window", "eight", "E_NOT_HU")
    again = read_volume(tmp_path / "out" / "repaired" / "scans" / "eight.nii.gz")
    assert np.abs(again.hu - scan.hu)[(scan.hu > -1350) & (scan.hu < 150)].max() <= 4
    code, _, error = lungshift(*words)
    assert (code, "E_EXISTS" in error) == (1, True)
