"""The doctor names what is missing, in words and with what to do; and a command without it ends with a message."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lungshift import doctor
from lungshift.cli import main as cli
from lungshift.doctor import Check, examine, require_healthy
from lungshift.errors import MissingError


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child loads anything: all that is installed loads."""
    monkeypatch.setattr(doctor, "_broken", lambda names: {})
    monkeypatch.setattr(doctor, "_try", lambda code: (["1"], ""))
    monkeypatch.setattr("lungshift.show.pictures.can_draw", lambda: True)


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let packages have other versions than they have; None is not installed."""
    real = metadata.version

    def version(name: str) -> str:
        if name not in versions:
            return real(name)
        if versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return str(versions[name])

    monkeypatch.setattr(metadata, "version", version)


def found(what: str) -> Check:
    (check,) = [check for check in examine(Path()) if check.what == what]
    return check


def test_in_this_environment_nothing_needed_is_missing(quick: None) -> None:
    checks = examine(Path())

    require_healthy(checks)
    assert {check.what for check in checks} >= {"Python", "packages", "VTK", "drawing", "device", "disk", "memory"}


@pytest.mark.parametrize(
    ("packages", "what", "state", "says"),
    [
        pytest.param({"torch": "2.4.1"}, "torch", "wrong", "2.4.1; >=2.10 is needed", id="wrong torch"),
        pytest.param({"torch": None}, "torch", "wrong", "not installed", id="no torch"),
        pytest.param({"lightning": "2.6.2"}, "lightning", "wrong", "2.6.2; ", id="a release that was malicious"),
        pytest.param({"openvino": None}, "openvino", "without", "torch does it instead", id="no OpenVINO"),
        pytest.param({"highdicom": None}, "highdicom", "without", "NIfTI masks do without", id="no highdicom"),
        pytest.param({"pyjpegls": None}, "pyjpegls", "without", "JPEG-LS", id="no decoder"),
        pytest.param({"vtk": None}, "VTK", "without", "not installed: surfaces", id="no VTK"),
        pytest.param({"distributed": None}, "dask.distributed", "without", "--scheduler", id="no dask"),
        pytest.param({"torchvision": "0.24"}, "torchvision", "look", "it breaks lightning", id="torchvision"),
    ],
)
def test_f88_a_package_that_is_missing_or_wrong_is_named_with_what_it_is_for(
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    packages: dict[str, str | None],
    what: str,
    state: str,
    says: str,
) -> None:
    installed(monkeypatch, **packages)

    check = found(what)

    assert check.state == state
    assert says in check.found
    assert check.remedy


def test_f88_what_is_needed_ends_with_5_and_what_is_optional_does_not() -> None:
    require_healthy([Check("VTK", "without", "not installed"), Check("disk", "look", "0.1 GiB free")])

    with pytest.raises(MissingError, match="torch, numpy: needed") as error:
        require_healthy([Check("torch", "wrong", "2.4"), Check("numpy", "wrong", "none"), Check("VTK", "without", "")])
    assert error.value.exit_code == 5


def test_f88_a_torchvision_that_breaks_lightning_is_wrong(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torchvision="0.24")
    monkeypatch.setattr(doctor, "_try", lambda code: ([], "operator torchvision::nms does not exist"))

    assert found("torchvision").state == "wrong"


def test_f88_without_egl_and_osmesa_pictures_are_left_out(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungshift.show.pictures.can_draw", lambda: False)

    assert (found("drawing").state, found("VTK").state) == ("without", "fine")
    assert "neither EGL nor OSMesa" in found("drawing").found


def test_f88_a_library_that_kills_its_process_is_named_and_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    native = {"good": "pass", "bad": "import os; os.abort()", "worse": "import nowhere", "last": "pass"}
    monkeypatch.setattr(doctor, "_NATIVE", native)

    assert doctor._broken(list(native)) == {
        "bad": "its process was killed by signal 6",
        "worse": "ModuleNotFoundError: No module named 'nowhere'",
    }


def test_threads_beyond_the_cores_and_little_room_are_worth_a_word(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    monkeypatch.setattr("lungshift.memory.available_bytes", lambda: 1 << 30)

    assert found("threads").found.startswith("OMP_NUM_THREADS is 4096 on ")
    assert (found("memory").state, found("memory").found) == ("look", "1.0 GiB free")


def test_f88_a_command_without_a_package_ends_with_5_and_a_message(tmp_path: Path) -> None:
    (tmp_path / "nibabel.py").write_text("raise ImportError('libz.so.1: cannot open', name='nibabel')")
    call = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['lungshift', 'audit', {str(tmp_path)!r}, '--dry-run'];"
        "from lungshift.cli.main import main; main()"
    )

    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False)

    assert done.returncode == 5
    assert done.stderr.startswith(
        "E_MISSING: the package nibabel is not installed, or does not load. Run lungshift doctor"
    )
    assert "Traceback" not in done.stderr


def test_a_misspelled_import_of_our_own_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise ImportError("cannot import name 'x'", name="lungshift.ct")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(ImportError):
        cli.main()


def test_f88_the_command_says_it_all(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed(monkeypatch, torch="2.4.1", vtk=None)
    monkeypatch.setattr(sys, "argv", ["lungshift", "doctor"])

    with pytest.raises(SystemExit) as end:
        cli.main()

    out, err = capsys.readouterr()
    assert end.value.code == 5
    assert "\nWRONG    torch: 2.4.1; >=2.10 is needed. Install again: make install" in out
    assert "\nwithout  VTK: not installed: surfaces" in out
    assert err == "E_MISSING: torch: needed, and missing or wrong; see above what to do.\n"
