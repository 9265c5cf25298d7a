"""Commands of a study: train here, test there, repair, test again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lungshift.cli.words import (
    Cache,
    Changes,
    CohortPaths,
    Device,
    DryRun,
    Jobs,
    Output,
    Overwrite,
    ProtocolArgument,
    Scheduler,
    Seed,
    identify,
    open_cohort,
    read_protocol_words,
    say,
    say_cohorts,
)

if TYPE_CHECKING:
    from lungshift.ct.case import Cohort
    from lungshift.transfer.protocol import Protocol


def demo(output: Output = Path("runs/demo"), device: Device = "auto", overwrite: Overwrite = False) -> None:
    """The main job on two synthetic hospitals: train at one, test at the other, repair, test again."""
    from lungshift.transfer.demo import demo_cohorts

    _study(_Study("transfer", read_protocol_words("demo", None, None), demo_cohorts(), output, device, overwrite))


def transfer(
    protocol: ProtocolArgument,
    source: Annotated[Path, typer.Option(help="Cohort on which the model is trained.")],
    target: Annotated[Path, typer.Option(help="Cohort on which it is to work.")],
    output: Output = Path("runs/transfer"),
    changes: Changes = None,
    device: Device = "auto",
    seed: Seed = None,
    cache: Cache = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = "",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train on one cohort, test on another, repair with a little of it, test again on the same held-out slices."""
    chosen, cohorts = read_protocol_words(protocol, changes, seed), (open_cohort(source), open_cohort(target))
    _study(_Study("transfer", chosen, cohorts, output, device, overwrite, cache, jobs, scheduler, dry_run))


def chain(
    protocol: ProtocolArgument,
    cohorts: CohortPaths,
    output: Output = Path("runs/chain"),
    changes: Changes = None,
    device: Device = "auto",
    seed: Seed = None,
    cache: Cache = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = "",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train one network on the cohorts one after another and test it on all of them after each."""
    chosen, found = read_protocol_words(protocol, changes, seed), tuple(map(open_cohort, cohorts))
    _study(_Study("chain", chosen, found, output, device, overwrite, cache, jobs, scheduler, dry_run))


def leave_one_out(
    protocol: ProtocolArgument,
    cohorts: CohortPaths,
    output: Output = Path("runs/leave-one-out"),
    changes: Changes = None,
    device: Device = "auto",
    seed: Seed = None,
    cache: Cache = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = "",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Test each cohort with a network trained on all others, and with one trained there."""
    chosen, found = read_protocol_words(protocol, changes, seed), tuple(map(open_cohort, cohorts))
    _study(_Study("leave_one_out", chosen, found, output, device, overwrite, cache, jobs, scheduler, dry_run))


@dataclass(frozen=True)
class _Study:
    """What the words of a study's command say."""

    kind: str
    protocol: Protocol
    cohorts: tuple[Cohort, ...]
    output: Path
    device: str
    overwrite: bool
    cache: Path | None = None
    jobs: int = 1
    scheduler: str = ""
    dry_run: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What a run in an existing folder must agree with."""
        asked = {"study": self.kind, "protocol": self.protocol.as_dict()}
        return asked | {f"cohort {number}": identify(cohort) for number, cohort in enumerate(self.cohorts, 1)}


def _study(wanted: _Study) -> None:
    from lungshift.transfer.sides import require_study
    from lungshift.workers import Workers

    workers = Workers(wanted.jobs, wanted.scheduler)
    require_study(wanted.protocol, wanted.cohorts)
    if wanted.dry_run:
        say_cohorts(*wanted.cohorts)
        say(json.dumps(wanted.protocol.as_dict(), indent=2))
        return
    from lungshift.files import run_folder
    from lungshift.progress import bars
    from lungshift.show.report import write_report
    from lungshift.show.terminal import summary
    from lungshift.transfer.study import run, run_chain, run_leave_one_out

    options: dict[str, Any] = {"device": wanted.device, "cache": wanted.cache}
    options["workers"] = workers
    with run_folder(wanted.output, wanted.identity, overwrite=wanted.overwrite) as folder, bars() as watcher:
        if wanted.kind == "transfer":
            source, target = wanted.cohorts
            outcome = run(wanted.protocol, source, target, folder, **options, watcher=watcher)
        else:
            several = {"chain": run_chain, "leave_one_out": run_leave_one_out}[wanted.kind]
            outcome = several(wanted.protocol, wanted.cohorts, folder, **options, watcher=watcher)
        watcher.stage("Writing the report")
        write_report(outcome, folder)
    say(summary(outcome, wanted.output))
