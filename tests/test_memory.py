"""Memory is counted before it is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lungshift import memory
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Volume
from lungshift.errors import ResourceError
from lungshift.io.nifti import read_volume
from lungshift.io.writing import write_volume

MIB = 1 << 20


def test_what_fits_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 10 * MIB)

    memory.require_memory(10 * MIB, "This")


def test_f78_what_does_not_fit_is_refused_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 10 * MIB)

    with pytest.raises(ResourceError, match="This takes about 11 MiB of memory, and 10 MiB are free") as error:
        memory.require_memory(11 * MIB, "This")
    assert (error.value.code, error.value.exit_code) == ("E_MEMORY", 6)


def test_the_least_of_all_limits_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    most, used = tmp_path / "max", tmp_path / "current"
    most.write_text(f"{50 * MIB}\n")
    used.write_text(f"{20 * MIB}\n")
    monkeypatch.setattr(memory, "_CGROUPS", ((most, used),))

    assert memory.available_bytes() == 30 * MIB


@pytest.mark.parametrize("text", ["max", ""], ids=["no limit", "unreadable"])
def test_a_group_without_limit_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    most, used = tmp_path / "max", tmp_path / "current"
    most.write_text(text)
    used.write_text("1")
    monkeypatch.setattr(memory, "_CGROUPS", ((most, used),))

    assert memory.available_bytes() > 100 * MIB


def test_f78_the_limit_of_the_shell_counts() -> None:
    code = (
        "import resource, psutil; from lungshift.memory import available_bytes; "
        "here = psutil.Process().memory_info().vms; resource.setrlimit(resource.RLIMIT_AS, (here + (256 << 20), -1)); "
        "print(available_bytes() >> 20)"
    )
    left = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    assert 200 <= left <= 256


def test_f78_a_scan_that_does_not_fit_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = Geometry.regular((4, 64, 64), (5.0, 1.0, 1.0))
    path = tmp_path / "scan.nii.gz"
    write_volume(Volume(np.linspace(-1000, 200, 4 * 64 * 64, dtype=np.float32).reshape(geometry.shape), geometry), path)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)

    with pytest.raises(ResourceError, match="4 x 64 x 64 voxels"):
        read_volume(path)
