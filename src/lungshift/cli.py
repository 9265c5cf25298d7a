"""The command line: each command reads its words, calls one function and shows what came of it."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lungshift.errors import LungshiftError

if TYPE_CHECKING:
    from lungshift.ct.case import Cohort
    from lungshift.transfer.protocol import Protocol

app = typer.Typer(
    name="lungshift",
    help="Does this lesion model work on our chest CT, and what does it cost to repair it? Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; another than asked for is never taken.")]
Seed = Annotated[int | None, typer.Option(help="Draws split, weights and batches; the protocol's seeds if not given.")]
Output = Annotated[Path, typer.Option(help="Where everything is written.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run of lungshift left there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the input and say what would be done; write nothing.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a setting of the protocol: network.width=16")]
ProtocolName = Annotated[
    str, typer.Option("--protocol", help="A shipped protocol (demo, quick, paper, …) or a TOML file.")
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


@app.command()
def demo(output: Output = Path("runs/demo"), device: Device = "auto", overwrite: Overwrite = False) -> None:
    """The main job on two synthetic hospitals: train at one, test at the other, repair, test again."""
    from lungshift.transfer.demo import demo_cohorts

    _study(_Study("transfer", _protocol("demo", None, None), demo_cohorts(), output, device, overwrite))


@app.command()
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
    chosen, cohorts = _protocol(protocol, changes, seed), (_cohort(source), _cohort(target))
    _study(_Study("transfer", chosen, cohorts, output, device, overwrite, cache, jobs, scheduler, dry_run))


@app.command()
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
    chosen, found = _protocol(protocol, changes, seed), tuple(map(_cohort, cohorts))
    _study(_Study("chain", chosen, found, output, device, overwrite, cache, jobs, scheduler, dry_run))


@app.command("leave-one-out")
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
    chosen, found = _protocol(protocol, changes, seed), tuple(map(_cohort, cohorts))
    _study(_Study("leave_one_out", chosen, found, output, device, overwrite, cache, jobs, scheduler, dry_run))


@app.command()
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

    found = _cohort(cohort)
    if dry_run:
        _say_cohorts(found)
        return
    with bars() as watcher:
        watcher.stage(f"Preparing {found.name}")
        prepared = prepare_cohort(
            found, output, size=size, interpolation=require_interpolation(interpolation), progress=watcher.slices
        )
    table = prepared.table
    _say(
        f"{prepared.name}: {len(prepared.cases)} cases, {len(table)} slices, {(table['lung'] > 0).sum()} with lung, "
        f"{(table['lesion'] > 0).sum()} with lesion\nin {prepared.folder}"
    )


@app.command()
def train(
    cohort: CohortPath,
    protocol: ProtocolName = "quick",
    output: Output = Path("runs/train"),
    changes: Changes = None,
    device: Device = "auto",
    seed: Seed = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Train a network on one cohort and score the patients that were held back."""
    _train(_protocol(protocol, changes, seed), cohort, output, device, overwrite, dry_run)


@app.command("fine-tune")
def fine_tune(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint to start from.")],
    cohort: CohortPath,
    protocol: ProtocolName = "quick",
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
    _train(_protocol(protocol, changes, seed), cohort, output, device, overwrite, dry_run, checkpoint, budget)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
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

    model, found = load_checkpoint(checkpoint), _cohort(cohort)
    if dry_run:
        _say_cohorts(found)
        return
    identity = {"evaluate": model.fingerprint, "cohort": found.name, "allow_leak": allow_leak}
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        found_scores = evaluate_cohort(
            model, found, folder / "prepared", allow_leak=allow_leak, device=device, watcher=watcher
        )
        text = write_scores(found_scores.scores, model, found.name, folder, known=found_scores.known)
    _say(text)


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
    scan: Annotated[Path, typer.Argument(help="A NIfTI file, or a folder with one DICOM series.")],
    output: Annotated[Path, typer.Option(help="The mask to write, .nii.gz, on the scan's own grid.")] = Path(
        "lesion.nii.gz"
    ),
    lung: Annotated[
        Path | None, typer.Option(help="Lung mask as NIfTI; one is made by threshold if not given.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="UID of the DICOM series, where a folder holds several.")] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Segment one scan; the mask lies on the scan's own grid."""
    from lungshift.files import require_free
    from lungshift.io.scan import read_scan
    from lungshift.io.writing import write_mask
    from lungshift.learn.checkpoint import load_checkpoint
    from lungshift.learn.prediction import Predictor
    from lungshift.learn.prediction import predict as predict_case
    from lungshift.prepare.lungmask import with_lungs

    require_free(output, overwrite=overwrite)
    model, case = load_checkpoint(checkpoint), read_scan(scan, lung=lung, series_uid=series)
    if dry_run:
        _say(
            f"{scan}: {case.volume.geometry.shape} (slices, rows, columns), {case.volume.geometry.spacing_mm} mm. Nothing was written."
        )
        return
    case = with_lungs(case)
    mask = predict_case(Predictor.of(model, device), case)
    write_mask(mask, output, like=scan if scan.is_file() else None)
    share = 100 * mask.volume_ml / case.lung.volume_ml if case.lung and case.lung.volume_ml else float("nan")
    _say(
        f"{output}: {mask.volume_ml:.1f} ml of lesion, {share:.1f} % of the lung (lung mask: {case.lung_source}). Research use only."
    )


@app.command()
def forecast(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of the checkpoint.")],
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

    model, found, labelled = load_checkpoint(checkpoint), _cohort(cohort), [_cohort(path) for path in calibrate or []]
    if dry_run:
        _say_cohorts(found, *labelled)
        return
    learned = [_identity(one) for one in labelled] or (calibration and sha256(calibration))
    identity = {"forecast": identify_model(model), "cohort": _identity(found), "calibration": learned}
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
    _say(text)


@app.command()
def forensics(
    precision: Annotated[str | None, typer.Option(help="As printed, with all its digits: 0.751451")] = None,
    recall: Annotated[str | None, typer.Option(help="As printed.")] = None,
    f1: Annotated[str | None, typer.Option(help="As printed; Dice is the same.")] = None,
    accuracy: Annotated[str | None, typer.Option(help="As printed.")] = None,
    slices: Annotated[int | None, typer.Option(help="Slices the row is about, with and without lesion.")] = None,
    lesion_slices: Annotated[int | None, typer.Option(help="How many of them have lesion in the reference.")] = None,
    cases: Annotated[int | None, typer.Option(help="Scans the row is about.")] = None,
    background_accuracy: Annotated[
        str | None, typer.Option(help="Accuracy of predicting nothing, all slices pooled.")
    ] = None,
) -> None:
    """Which ways of averaging can have given a published row, by arithmetic alone."""
    from lungshift.measure.forensics import Published, examine
    from lungshift.show.forensics import describe

    row = Published(precision, recall, f1, accuracy, slices, lesion_slices, cases, background_accuracy)
    _say(describe(examine(row)))


@app.command()
def download(
    cohort: Annotated[str, typer.Argument(help="medseg9 or coronacases10.")],
    output: Output = Path("data"),
    dry_run: DryRun = False,
) -> None:
    """Fetch a published cohort by its DOI, checked against its checksums."""
    from lungshift.io.download import PUBLISHED
    from lungshift.io.download import download as fetch

    if dry_run and cohort in PUBLISHED:
        published = PUBLISHED[cohort]
        _say(f"{cohort}: {', '.join(published.archives)} of doi:{published.doi}. Nothing was fetched.")
        return
    _say(f"{cohort} is in {fetch(cohort, output / cohort)}")


def main() -> None:
    """Run the command line; every expected error is one message and an exit code, never a traceback."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _fail("E_USAGE: a command is one process; to train with several, call lungshift.fit under torchrun.", 2)
    try:
        app()
    except SystemExit as end:
        if end.code == 130:
            _fail("Stopped. The same command takes the run up again from its last epoch.", 130)
        raise
    except LungshiftError as error:
        _fail(f"{error.code}: {error}", error.exit_code)
    except OSError as error:
        _fail(f"E_FILE: {error.filename or 'a file'} cannot be read or written: {error.strerror or error}.", 6)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        _fail(
            "E_MEMORY: there is not enough memory. Use smaller pictures, a narrower network or a smaller micro_batch.",
            6,
        )


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
        return asked | {f"cohort {number}": _identity(cohort) for number, cohort in enumerate(self.cohorts, 1)}


def _study(wanted: _Study) -> None:
    if wanted.dry_run:
        _say_cohorts(*wanted.cohorts)
        _say(json.dumps(wanted.protocol.as_dict(), indent=2))
        return
    from lungshift.files import run_folder
    from lungshift.progress import bars
    from lungshift.show.report import write_report
    from lungshift.show.terminal import summary
    from lungshift.transfer.engine import Workers
    from lungshift.transfer.study import run, run_chain, run_leave_one_out

    options: dict[str, Any] = {"device": wanted.device, "cache": wanted.cache}
    options["workers"] = Workers(wanted.jobs, wanted.scheduler)
    with run_folder(wanted.output, wanted.identity, overwrite=wanted.overwrite) as folder, bars() as watcher:
        if wanted.kind == "transfer":
            source, target = wanted.cohorts
            outcome = run(wanted.protocol, source, target, folder, **options, watcher=watcher)
        else:
            several = {"chain": run_chain, "leave_one_out": run_leave_one_out}[wanted.kind]
            outcome = several(wanted.protocol, wanted.cohorts, folder, **options, watcher=watcher)
        watcher.stage("Writing the report")
        write_report(outcome, folder)
    _say(summary(outcome, wanted.output))


def _train(
    protocol: Protocol,
    cohort: Path,
    output: Path,
    device: str,
    overwrite: bool,
    dry_run: bool,
    checkpoint: Path | None = None,
    budget: int | None = None,
) -> None:
    from lungshift.files import run_folder
    from lungshift.learn.checkpoint import load_checkpoint
    from lungshift.progress import bars
    from lungshift.show.scores import write_scores
    from lungshift.transfer.single import train_cohort

    start, found = load_checkpoint(checkpoint) if checkpoint else None, _cohort(cohort)
    if dry_run:
        _say_cohorts(found)
        return
    identity = {
        "protocol": protocol.as_dict(),
        "cohort": _identity(found),
        "start": start and start.fingerprint,
        "budget": budget,
    }
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        trained = train_cohort(protocol, found, folder, start=start, budget=budget, device=device, watcher=watcher)
        text = write_scores(trained.scores, trained.checkpoint, found.name, folder, split=trained.split)
    _say(f"{text}\nCheckpoint {trained.folder}")


def _protocol(name: str, changes: list[str] | None, seed: int | None) -> Protocol:
    from lungshift.transfer.protocol import read_protocol

    return read_protocol(name, (*(changes or ()), *([f"seeds=[{seed}]"] if seed is not None else [])))


def _cohort(path: Path) -> Cohort:
    from lungshift.io.cohort import read_cohort

    return read_cohort(path)


def _identity(cohort: Cohort) -> dict[str, Any]:
    return {"name": cohort.name, "files": {case.case_id: case.checksums for case in cohort.cases}}


def _say_cohorts(*cohorts: Cohort) -> None:
    for cohort in cohorts:
        slices = sum(case.source.geometry.shape[0] for case in cohort.cases)
        _say(
            f"{cohort.name}: {len(cohort.cases)} cases of {len(cohort.patients)} patients, {slices} slices. Nothing was written."
        )


def _say(text: str) -> None:
    typer.echo(text)


def _fail(message: str, code: int) -> None:
    typer.echo(message, err=True)
    sys.exit(code)
