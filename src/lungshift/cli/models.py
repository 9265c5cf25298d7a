"""Commands about one network: prepare, train, fine-tune, evaluate, forecast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lungshift.cli.words import (
    Changes,
    CheckpointPath,
    CohortPath,
    Device,
    DryRun,
    Output,
    Overwrite,
    ProtocolName,
    Seed,
    identify,
    open_cohort,
    read_protocol_words,
    say,
    say_cohorts,
    standing_protocol,
)

if TYPE_CHECKING:
    from lungshift.learn.checkpoint import Checkpoint
    from lungshift.transfer.protocol import Protocol


def prepare(
    cohort: CohortPath,
    output: Output = Path("runs/prepared"),
    size: Annotated[int, typer.Option(help="Rows and columns of the pictures.")] = 320,
    interpolation: Annotated[str, typer.Option(help="nearest or linear.")] = "linear",
    dry_run: DryRun = False,
) -> None:
    """Bring a cohort to pictures on disk, once; later runs with --cache open them at once."""
    from lungshift.prepare.prepared import prepare_cohort, require_interpolation
    from lungshift.progress import bars

    found = open_cohort(cohort)
    if dry_run:
        say_cohorts(found)
        return
    with bars() as watcher:
        watcher.stage(f"Preparing {found.name}")
        prepared = prepare_cohort(
            found, output, size=size, interpolation=require_interpolation(interpolation), progress=watcher.slices
        )
    table = prepared.table
    say(
        f"{prepared.name}: {len(prepared.cases)} cases, {len(table)} slices, {(table['lung'] > 0).sum()} with lung, "
        f"{(table['lesion'] > 0).sum()} with lesion\nin {prepared.folder}"
    )


def train(
    cohort: CohortPath,
    protocol: ProtocolName = None,
    target: Annotated[
        str | None, typer.Option(help="What the network finds: lesion, or lung; the protocol's if not given.")
    ] = None,
    output: Output = Path("runs/train"),
    changes: Changes = None,
    device: Device = "auto",
    seed: Seed = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a network on one cohort and score the patients that were held back."""
    aimed = [*(changes or ()), *([f"network.target={target}"] if target else [])]
    settings = read_protocol_words(protocol or standing_protocol(target), aimed, seed)
    _train(settings, cohort, output, device, overwrite, dry_run)


def fine_tune(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint to start from.")],
    cohort: CohortPath,
    protocol: ProtocolName = None,
    output: Output = Path("runs/fine-tune"),
    budget: Annotated[
        int | None, typer.Option(help="Patients to train on; all that are not held back if not given.")
    ] = None,
    changes: Changes = None,
    device: Device = "auto",
    seed: Seed = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Go on training a checkpoint on another cohort and score the patients that were held back."""
    from lungshift.learn.checkpoint import load_checkpoint

    start = load_checkpoint(checkpoint)
    settings = read_protocol_words(protocol or standing_protocol(start.network.target), changes, seed)
    _train(settings, cohort, output, device, overwrite, dry_run, start, budget)


def evaluate(
    checkpoint: CheckpointPath,
    cohort: CohortPath,
    output: Output = Path("runs/evaluate"),
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Also score patients that the checkpoint was trained on.")
    ] = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Score a checkpoint on every annotated case of a cohort, under every convention."""
    from lungshift.files import run_folder
    from lungshift.learn.checkpoint import load_checkpoint
    from lungshift.progress import bars
    from lungshift.show.scores import write_scores
    from lungshift.transfer.single import evaluate_cohort

    model, found = load_checkpoint(checkpoint), open_cohort(cohort)
    if dry_run:
        say_cohorts(found)
        return
    identity = {"evaluate": model.fingerprint, "cohort": found.name, "allow_leak": allow_leak}
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        found_scores = evaluate_cohort(
            model, found, folder / "prepared", allow_leak=allow_leak, device=device, watcher=watcher
        )
        text = write_scores(found_scores.scores, model, found.name, folder, known=found_scores.known)
    say(text)


def forecast(
    checkpoint: CheckpointPath,
    cohort: CohortPath,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            help="A cohort with lesion masks to learn from how far agreement goes with Dice; may be repeated."
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="The calibration.json of an earlier run, instead of --calibrate.")
    ] = None,
    output: Output = Path("runs/forecast"),
    device: Device = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Say what Dice to expect on a cohort without labels, how sure that is, and on which scans nothing can be said."""
    from lungshift.files import run_folder, sha256
    from lungshift.learn.checkpoint import load_checkpoint
    from lungshift.learn.signs import identify_model
    from lungshift.progress import bars
    from lungshift.show.forecast import write_forecast
    from lungshift.transfer.forecast import forecast_cohort

    model, found, labelled = (
        load_checkpoint(checkpoint),
        open_cohort(cohort),
        [open_cohort(path) for path in calibrate or []],
    )
    if dry_run:
        say_cohorts(found, *labelled)
        return
    learned = [identify(one) for one in labelled] or (calibration and sha256(calibration))
    identity = {"forecast": identify_model(model), "cohort": identify(found), "calibration": learned}
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        told = forecast_cohort(
            model,
            found,
            folder / "prepared",
            labelled=labelled,
            calibration=calibration,
            device=device,
            watcher=watcher,
        )
        text = write_forecast(told, folder)
    say(text)


def _train(
    protocol: Protocol,
    cohort: Path,
    output: Path,
    device: str,
    overwrite: bool,
    dry_run: bool,
    start: Checkpoint | None = None,
    budget: int | None = None,
) -> None:
    from lungshift.files import run_folder
    from lungshift.progress import bars
    from lungshift.show.scores import write_scores
    from lungshift.transfer.single import train_cohort

    found = open_cohort(cohort)
    if dry_run:
        say_cohorts(found)
        return
    identity = {
        "protocol": protocol.as_dict(),
        "cohort": identify(found),
        "start": start and start.fingerprint,
        "budget": budget,
    }
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        trained = train_cohort(protocol, found, folder, start=start, budget=budget, device=device, watcher=watcher)
        text = write_scores(trained.scores, trained.checkpoint, found.name, folder, split=trained.split)
    say(f"{text}\nCheckpoint {trained.folder}")
