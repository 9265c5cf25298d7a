#!/usr/bin/env python3
"""Run the examples of README.md and docs/ in an empty folder and write what they print below them; a few minutes.

    .venv/bin/python scripts/write_examples.py

A comment before a block says how it is run: ``<!-- run -->`` puts what the command after ``$`` prints; ``<!-- run progress -->`` what it says while
it works, shortened; ``<!-- run answer -->`` the paragraph with the answer; ``<!-- run head -->`` the first lines; ``<!-- run interrupt -->`` what it
prints when it is interrupted; ``<!-- run python -->`` runs a block of Python, whose output follows in the next block if that says so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    "docs/get-started.md",
    "README.md",
    "docs/how-to.md",
    "docs/lungs.md",
    "docs/predict.md",
    "docs/quantify.md",
    "docs/forensics.md",
    "docs/audit.md",
    "docs/follow-up.md",
)
PICTURES = {"example-07-good.png": "prediction.png", "cases.png": "cases.png"}
_BLOCK = re.compile(r"(<!-- run ?(\w*) -->\n\n?```\w*\n)(.*?)(\n```)", re.DOTALL)
_HEAD, _TAIL = 5, 4


@dataclass
class Runner:
    """Runs commands in one folder, each once, and remembers what they printed."""

    folder: Path
    done: dict[str, tuple[str, str]] = field(default_factory=dict)

    def run(self, command: str, *, interrupt: bool = False) -> tuple[str, str]:
        """What a command prints and what it says while it works."""
        if command not in self.done or interrupt:
            sys.stdout.write(f"$ {command}\n")
            sys.stdout.flush()
            words = command.split("#", maxsplit=1)[0].split()
            program = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
            self.done[command] = self._run(program, interrupt)
            if interrupt:
                return self.done.pop(command)
        return self.done[command]

    def python(self, code: str) -> str:
        """What a block of Python prints."""
        sys.stdout.write("a block of Python\n")
        return self._run([sys.executable, "-W", "ignore", "-c", code], interrupt=False, must=True)[0]

    def _run(self, program: list[str], interrupt: bool, *, must: bool = False) -> tuple[str, str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "COLUMNS": "100"}
        with (self.folder / ".out").open("w+") as out:
            process = subprocess.Popen(
                program, cwd=self.folder, env=environment, stdout=out, stderr=subprocess.PIPE, text=True
            )
            said = []
            for line in process.stderr or ():
                said.append(line)
                if interrupt and "epoch 3/" in line:
                    process.send_signal(signal.SIGINT)
            # a usage error (2) is never what an example is to show: the command has changed and the page has not
            if (ended := process.wait()) and (must or ended == 2):
                raise RuntimeError(f"{' '.join(program)}\n{''.join(said)}")
            out.seek(0)
            return out.read().rstrip(), "".join(said).rstrip()


def rewrite(page: str, runner: Runner) -> str:
    """The page with every example's output as it is now."""
    last = [""]

    def replace(match: re.Match[str]) -> str:
        before, how, block, after = match.groups()
        if how == "python":
            last[0] = runner.python(block)
            return match[0]
        if how == "output":
            return f"{before}{last[0]}{after}"
        return f"{before}{_console(how, block, runner)}{after}"

    return _BLOCK.sub(replace, page)


def _console(how: str, block: str, runner: Runner) -> str:
    command = next(line for line in block.splitlines() if line.startswith("$ "))
    out, said = runner.run(command[2:], interrupt=how == "interrupt")
    said_lines = said.splitlines()
    if how == "progress":
        shown = [*said_lines[:_HEAD], "…", *said_lines[-_TAIL:]]
    elif how == "answer":
        shown = next(part for part in out.split("\n\n") if part.startswith("By F1")).splitlines()
    elif how == "head":
        shown = [*out.splitlines()[:_HEAD], "…"]
    elif how == "interrupt":
        shown = said_lines
    else:
        shown = out.splitlines() or said_lines[-1:]
    return "\n".join([command, *shown])


def main() -> None:
    """Run everything; pages and pictures are replaced at the end, if all went well."""
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder))
        pages = {name: rewrite((ROOT / name).read_text(), runner) for name in PAGES}
        for name, text in pages.items():
            (ROOT / name).write_text(text)
        for figure, picture in PICTURES.items():
            shutil.copy(Path(folder) / "runs" / "demo" / "figures" / figure, ROOT / "docs" / "images" / picture)


if __name__ == "__main__":
    main()
