"""What the machine can do at most, one function each; see ``benchmarks.turns``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], Any]


def memcpy(mib: int = 256) -> Work:
    """Copy memory that is too large for any cache."""
    import numpy as np

    source, target = np.ones(mib << 20, np.uint8), np.zeros(mib << 20, np.uint8)
    return lambda: np.copyto(target, source)


def disk_write(output: str, mib: int = 128) -> Work:
    """Write and fsync a file; answers with seconds on the wall."""
    import os
    import time

    data = os.urandom(1 << 20)

    def work() -> float:
        started = time.perf_counter()
        with tempfile.NamedTemporaryFile(dir=output, buffering=0) as file:
            for _ in range(mib):
                file.write(data)
            os.fsync(file.fileno())
            return time.perf_counter() - started

    return work


def command(arguments: list[str]) -> Work:
    """Run ``lungshift`` with these words in a process of its own; answers with seconds on the wall."""
    import subprocess
    import sys
    import time

    lungshift = str(Path(sys.executable).with_name("lungshift"))

    def work() -> float:
        started = time.perf_counter()
        subprocess.run([lungshift, *arguments], check=True, capture_output=True)
        return time.perf_counter() - started

    return work


def imports(arguments: list[str]) -> Work:
    """Run the command line in a process of its own; answers with the heavy libraries that it had imported in the end."""
    import json
    import subprocess
    import sys

    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted({'torch', 'lightning', 'monai'} & set(sys.modules)))))\n"
        "from lungshift.cli.main import main\n"
        "main()\n"
    )

    def work() -> list[str]:
        ran = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
        found: list[str] = json.loads(ran.stdout.splitlines()[-1])
        return found

    return work
