"""How soon the command line answers, and what it imports before it must."""

from __future__ import annotations

from benchmarks.result import Result
from benchmarks.setup import Setup
from benchmarks.turns import Contestant

_M = "benchmarks.contest_machine:"


def measure_starting(setup: Setup) -> list[Result]:
    """Seconds to ``--help``, and heavy imports of commands that do not need them."""
    cohort = str(setup.phantom)
    commands = {
        "--help": ["--help"],
        "prepare --dry-run": ["prepare", cohort, "--dry-run"],
        "transfer --dry-run": ["transfer", "quick", "--source", cohort, "--target", cohort, "--dry-run"],
    }
    with Contestant(_M + "command", arguments=["--help"]) as contestant:
        seconds = min(contestant.turn().answer for _ in range(5))
    help_time = Result("lungshift --help", seconds, "s", 0.5, note="best of 5, by the clock on the wall")
    return [help_time, *(_imports(name, words) for name, words in commands.items())]


def _imports(name: str, words: list[str]) -> Result:
    with Contestant(_M + "imports", arguments=words) as contestant:
        found = contestant.turn().answer
    return Result(f"heavy imports of {name}", len(found), "of 3", 0, note=", ".join(found) or "torch, lightning, monai")
