"""Contestants that take turns: each is a process of its own, with one thread, that works when told to and answers with its cost.

A contestant is named ``module:function``. The function is called once with the settings and returns the work, a function
without arguments whose CPU seconds are what is measured. This file needs the standard library only, so that a contestant can
live in another environment.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
}
Work = Callable[[], Any]


@dataclass(frozen=True)
class Turn:
    """What one turn cost: CPU seconds of the process and its children, and the process's highest memory so far in MiB."""

    cpu_s: float
    peak_mib: float
    answer: Any = None


class Contestant:
    """A process that does one piece of work each time ``turn`` is called; use it in a ``with`` block.

    Attributes:
        start_mib: Its highest memory before the first turn: interpreter, imports and settings.
    """

    def __init__(self, name: str, python: str = sys.executable, **settings: Any) -> None:
        self._name = name
        command = [python, "-m", "benchmarks.turns", name, json.dumps(settings)]
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            command, cwd=root, env=os.environ | ONE_THREAD, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._commands = cast(TextIO, self._process.stdin)
        self._answers = cast(TextIO, self._process.stdout)
        self.start_mib = float(self._read()["peak_mib"])

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.close()
        self._process.wait()

    def turn(self) -> Turn:
        """Let it work once."""
        print(file=self._commands, flush=True)
        return Turn(**self._read())

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with exit code {self._process.wait()}; its message is above.")
        cost: dict[str, Any] = json.loads(line)
        return cost


def take_turns(contestants: dict[str, Contestant], rounds: int) -> dict[str, float]:
    """Best CPU seconds of each contestant over so many rounds in which each has its turn (A B C, A B C)."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, contestant in contestants.items():
            best[name] = min(best[name], contestant.turn().cpu_s)
    return best


@contextmanager
def all_of(*contestants: Contestant) -> Iterator[None]:
    """End all of them when the block ends."""
    try:
        yield
    finally:
        for contestant in contestants:
            contestant.__exit__()


def cpu_seconds() -> float:
    """CPU time of this process and its finished children, user and system."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def peak_mib() -> float:
    """Highest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _serve(name: str, settings: dict[str, Any]) -> None:
    module, _, function = name.partition(":")
    answers, sys.stdout = sys.stdout, sys.stderr
    work: Work = getattr(importlib.import_module(module), function)(**settings)
    print(json.dumps({"peak_mib": peak_mib()}), file=answers, flush=True)
    for _ in sys.stdin:
        before = cpu_seconds()
        answer = work()
        cost = {"cpu_s": cpu_seconds() - before, "peak_mib": peak_mib(), "answer": answer}
        print(json.dumps(cost), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], json.loads(sys.argv[2]))
