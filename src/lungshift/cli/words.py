"""What the commands share: their options, and how their words become cohorts and protocols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lungshift.ct.case import Cohort
    from lungshift.transfer.protocol import Protocol

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; another than asked for is never taken.")]
Seed = Annotated[int | None, typer.Option(help="Draws split, weights and batches; the protocol's seeds if not given.")]
Output = Annotated[Path, typer.Option(help="Where everything is written.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run of lungshift left there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the input and say what would be done; write nothing.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a setting of the protocol: network.width=16")]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="A shipped protocol (demo, quick, paper, …) or a TOML file; quick if not given, and lung where lungs are found.",
    ),
]
ProtocolArgument = Annotated[str, typer.Argument(help="A shipped protocol (quick, paper, …) or a TOML file.")]
Cache = Annotated[
    Path | None, typer.Option(help="Where prepared pictures are kept between runs; in --output if not given.")
]
Jobs = Annotated[int, typer.Option(help="Networks that are trained at a time, each by a process of its own.")]
Scheduler = Annotated[str, typer.Option(help="Address of a dask scheduler that does the work instead: tcp://host:8786")]
CohortPaths = Annotated[
    list[Path], typer.Argument(help="Two cohorts or more: folders of a known layout, or manifests.")
]
CohortPath = Annotated[Path, typer.Argument(help="A cohort: a folder of a known layout, or a manifest.")]
CheckpointPath = Annotated[Path, typer.Argument(help="Folder of the checkpoint.")]


def read_protocol_words(name: str, changes: list[str] | None, seed: int | None) -> Protocol:
    """The protocol of that name or file, with the changes of ``--set`` and ``--seed``."""
    from lungshift.transfer.protocol import read_protocol

    return read_protocol(name, (*(changes or ()), *([f"seeds=[{seed}]"] if seed is not None else [])))


def standing_protocol(target: str | None) -> str:
    """The protocol that is used for a target where none is named."""
    return "lung" if target == "lung" else "quick"


def open_cohort(path: Path) -> Cohort:
    """The cohort of a folder or manifest."""
    from lungshift.io.cohort import read_cohort

    return read_cohort(path)


def identify(cohort: Cohort) -> dict[str, Any]:
    """What tells a cohort from another: its name and the checksums of its files."""
    return {"name": cohort.name, "files": {case.case_id: case.checksums for case in cohort.cases}}


def say_cohorts(*cohorts: Cohort) -> None:
    """Say what was found, for ``--dry-run``."""
    for cohort in cohorts:
        slices = sum(case.source.geometry.shape[0] for case in cohort.cases)
        say(
            f"{cohort.name}: {len(cohort.cases)} cases of {len(cohort.patients)} patients, {slices} slices. Nothing was written."
        )


def say(text: str) -> None:
    """Print what came of a command."""
    typer.echo(text)
