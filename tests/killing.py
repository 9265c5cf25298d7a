"""Processes that are killed right before a chosen change to a folder, and disks that take no more than a few bytes."""

from __future__ import annotations

import mmap
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def shared_counter() -> memoryview:
    """A number that forks of this process share."""
    return memoryview(mmap.mmap(-1, 8)).cast("Q")


def kill_before(number: int, folder: Path, counter: memoryview | None = None) -> None:
    """From now on, SIGKILL whoever of this process and its forks opens for writing, renames, makes or removes the ``number``-th thing below ``folder``.

    It happens right before the change. ``counter`` holds how many changes were tried.
    """
    seen, inside = shared_counter() if counter is None else counter, f"{folder}{os.sep}"

    def watch(event: str, values: tuple) -> None:
        if not (event in _CHANGES or (event == "open" and values[2] & _WRITES)):
            return
        if isinstance(values[0], (str, os.PathLike)) and os.fspath(values[0]).startswith(inside):
            seen[0] += 1
            if seen[0] == number + 1:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def run_killed_before(number: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do ``work`` in a fork that is killed before its ``number``-th change; whether it was, and not done before."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            kill_before(number, folder)
            work()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), "it failed"
    return code != 0


def every_kill(fresh: Callable[[], Path], work: Callable[[Path], object]) -> Iterator[Path]:
    """The folder after ``work`` was killed before each of its changes in turn; ``fresh`` makes a new one each time."""
    number = 0
    while run_killed_before(number, (folder := fresh()), lambda: work(folder)):
        yield folder
        number += 1
    assert number > 3, "hardly anything was changed: the watch looks at the wrong folder"


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Within the block no file can be written beyond so many bytes: a real refusal of the kernel, for whoever writes, Python or not."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
