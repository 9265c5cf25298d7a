"""Commands on small phantoms, each run by a fork of this process, so that a run costs its work and not the imports.

Used by the suites that kill runs and fill disks: ``places`` makes the inputs, ``Run`` is a command and where it writes, ``start`` begins it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HEAVY = (
    *(
        "torch",
        "lightning.fabric",
        "matplotlib.pyplot",
        "nibabel",
        "pydicom",
        "highdicom",
        "scipy.ndimage",
        "scipy.stats",
    ),
    *("scipy.spatial", "PIL.Image", "safetensors.torch", "vtkmodules.all", "vtkmodules.util.numpy_support"),
)
"""Imported once, before the first fork."""


def get_ready() -> None:
    """Import what every command needs; nothing is computed, so that no thread stands in the way of a fork."""
    for name in (*HEAVY, *_own_modules()):
        importlib.import_module(name)
    importlib.import_module("lungshift.learn.engine_openvino").import_openvino()
    if threading.active_count() > 1:
        raise SystemExit(
            f"{threading.active_count()} threads run after the imports; forks would not be those of one thread."
        )


def _own_modules() -> list[str]:
    import lungshift

    root = Path(lungshift.__file__).parent
    files = (file.relative_to(root.parent).with_suffix("") for file in sorted(root.rglob("*.py")))
    return [".".join(file.parts) for file in files if file.name not in ("__main__", "__init__")]


@dataclass(frozen=True)
class Command:
    """One command line and the output that it writes.

    Attributes:
        name: What it is called on the page.
        words: The command line without ``--output``.
        output: Name of its output, in the folder of a run.
        whole: Patterns of folders of a run that appear with all their files or not at all.
    """

    name: str
    words: tuple[str, ...]
    output: str = "out"
    whole: tuple[str, ...] = ()

    def line(self, folder: Path, *more: str) -> list[str]:
        """The whole command line for a run in ``folder``."""
        return [*self.words, *more, "--output", str(folder / self.output)]


@dataclass
class Child:
    """A command at work in a fork of this process."""

    pid: int
    began: float
    code: int | None = None

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, that of a signal below 0; None if it is still at work after so long."""
        until = None if seconds is None else self.began + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, 0 if until is None else os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif until is not None and time.monotonic() >= until:
                return None
            else:
                time.sleep(0.001)
        return self.code

    def kill(self) -> None:
        """SIGKILL, to itself alone: whoever it started has to notice."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def kill_all(self) -> None:
        """SIGKILL, to itself and whoever it started."""
        for process in {self.pid, *self.session()} if self.code is None else self.session():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.wait()

    def session(self) -> list[int]:
        """Processes that it started and that still run, itself not."""
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.pid and state not in "ZX" and file.parent.name != str(self.pid):
                    found.append(int(file.parent.name))
        return found


def start(line: Sequence[str], log: Path, before: Callable[[], object] | None = None) -> Child:
    """Run a command line as ``lungshift`` does, in a fork; what it says goes into ``log``."""
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(line, log, before)
    return Child(pid, began)


def _become(line: Sequence[str], log: Path, before: Callable[[], object] | None) -> None:
    """Never comes back."""
    code = 70
    try:
        os.setsid()
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(said, number)
        sys.argv = ["lungshift", *line]
        if before:
            before()
        code = _main()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main() -> int:
    from lungshift.cli.main import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0
