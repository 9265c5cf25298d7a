"""Commands about the environment: doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lungshift.cli.words import say

if TYPE_CHECKING:
    from lungshift.doctor import Check

_WORDS = {"fine": "ok", "look": "look", "without": "without", "wrong": "WRONG"}


def doctor(
    output: Annotated[
        Path, typer.Option(help="A folder that results would be written to; its disk is looked at.")
    ] = Path(),
) -> None:
    """Say what is missing or wrong here, what it is for, and what to do; exit code 5 if it is needed."""
    from lungshift.doctor import examine, require_healthy

    checks = examine(output)
    say("\n".join(map(_line, checks)))
    require_healthy(checks)


def _line(check: Check) -> str:
    line = f"{_WORDS[check.state]:8} {check.what}: {check.found}."
    return f"{line} {check.remedy}".rstrip()
