"""Workers end with whoever started them, and what kills them is told in words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, CancelledError, Future
from pathlib import Path

import pytest

from lungshift.errors import InputError, LungshiftError, ResourceError
from lungshift.workers import WorkerDied, result_of

STARTS_ONE = """
import os, time
from lungshift.workers import Workers, start_executor

if __name__ == "__main__":
    with start_executor(Workers(1), abs) as executor:
        print(executor.submit(os.getpid).result(), flush=True)
        executor.submit(time.sleep, 60).result()
"""


def test_f82_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(STARTS_ONE)
    with subprocess.Popen([sys.executable, str(tmp_path / "script.py")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()

    until = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_running(worker), "it would wait for work for ever"


def is_running(process: int) -> bool:
    """Whether there is such a process, and not only its exit code."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def failed(error: BaseException) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(error)
    return future


class KilledWorker(Exception):
    """Named as that of dask.distributed."""


@pytest.mark.parametrize("error", [BrokenExecutor(), KilledWorker()], ids=["process", "cluster"])
def test_f82_a_worker_that_died_is_told_apart_from_an_error_in_it(error: Exception) -> None:
    with pytest.raises(WorkerDied):
        result_of(failed(error))


def test_f83_a_scheduler_that_has_gone_is_told_with_how_to_go_on() -> None:
    with pytest.raises(ResourceError, match="What is finished is kept: the same command goes on") as caught:
        result_of(failed(CancelledError()))

    assert (caught.value.code, caught.value.exit_code) == ("E_WORKER", 6)


def test_an_error_of_the_work_passes_as_it_is() -> None:
    with pytest.raises(LungshiftError, match="no lungs"):
        result_of(failed(InputError("no lungs")))
