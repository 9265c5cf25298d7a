"""Commands about one patient's scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lungshift.cli.words import CheckpointPath, Device, DryRun, Output, Overwrite, Scheduler, say

if TYPE_CHECKING:
    from lungshift.patient.batch import Ended
    from lungshift.patient.dates import DatedScan, Entry
    from lungshift.patient.followup import FollowUp
    from lungshift.patient.noise import Models
    from lungshift.patient.predicting import Options
    from lungshift.patient.studies import Found


def predict(
    checkpoint: CheckpointPath,
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN...", help="A NIfTI file, a folder with one DICOM series, or folders with many of either."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="The folder to write; or, for one scan, the lesion mask alone as .nii.gz.")
    ] = Path("runs/predict"),
    lung: Annotated[
        Path | None, typer.Option(help="Lung mask of the one scan, as NIfTI; one is made if not given.")
    ] = None,
    lung_model: Annotated[
        Path | None, typer.Option(help="Folder of a model that finds the lungs; a threshold does if not given.")
    ] = None,
    series: Annotated[str | None, typer.Option(help="UID of the DICOM series, where a folder holds several.")] = None,
    workers: Annotated[int, typer.Option(help="Studies at a time, each by a process of its own.")] = 1,
    scheduler: Scheduler = "",
    keep_identity: Annotated[
        bool,
        typer.Option(
            "--keep-identity", help="Let names, dates and UIDs go along, so that a SEG refers to the real series."
        ),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a scan that otherwise is flagged.")] = False,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample",
            help="Bring an oblique or sheared scan (gantry tilt) to the patient's axes, and its masks back; it is refused else.",
        ),
    ] = False,
    device: Device = "auto",
    precision: Annotated[
        str, typer.Option(help="bf16, where the processor has it, or fp32, which takes twice as long.")
    ] = "bf16",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Segment one scan or many; masks lie on each scan's own grid."""
    from lungshift.errors import PartError
    from lungshift.patient.batch import predict_many, predict_one
    from lungshift.patient.predicting import Options, load_checkpoints
    from lungshift.patient.studies import find_studies
    from lungshift.progress import bars
    from lungshift.workers import Workers

    crew = Workers(workers, scheduler)
    models = checkpoint.resolve(), lung_model and lung_model.resolve()
    options = Options(*models, keep_identity, strict, device, precision)
    load_checkpoints(options)
    found = find_studies(
        scans,
        series_uid=series,
        lung=lung and lung.resolve(),
        keep_identity=keep_identity,
        oblique="resample" if resample else "refuse",
    )
    if dry_run:
        _say_found(found)
        return
    if output.name.endswith((".nii", ".nii.gz")):
        _mask_alone(found, options, output, overwrite)
        return
    if found.single:
        _say_one(predict_one(found, options, output, overwrite=overwrite), output)
        return
    with bars() as watcher:
        ended = predict_many(found, options, output, workers=crew, watcher=watcher, overwrite=overwrite)
    _say_many(ended, output)
    if failed := [one for one in ended if one.status == "failed"]:
        listed = "\n".join(f"  {one.name}: {one.code}: {one.message}" for one in failed)
        raise PartError(
            f"{len(failed)} of {len(ended)} studies failed; the others are done, and the same command tries the rest again.\n{listed}"
        )


def _mask_alone(found: Found, options: Options, output: Path, overwrite: bool) -> None:
    from lungshift.errors import InputError
    from lungshift.files import require_free
    from lungshift.patient.predicting import predict_study

    if not found.single:
        raise InputError(
            f"{len(found.studies)} studies were found, and {output} is one mask. Give a folder as --output.",
            code="E_MANY",
        )
    require_free(output, overwrite=overwrite)
    (study,) = found.studies
    prediction = predict_study(study, options)
    prediction.write(prediction.lesion, output)
    say(_sentence(str(output), prediction.words(), [str(flag) for flag in prediction.flags]))


def _say_one(ended: Ended, output: Path) -> None:
    from lungshift.patient.gate import Flag
    from lungshift.patient.predicting import read_description

    told = read_description(output)
    kept = " It was there already and was kept." if ended.status == "kept" else ""
    flags = [str(Flag(**flag)) for flag in told["flags"]]
    say(_sentence(str(output), told["said"], flags, kept))


def _sentence(where: str, said: str, flags: Sequence[str], kept: str = "") -> str:
    lines = [f"{where}: {said}.{kept} Research use only.", *(f"  Look at it: {flag}" for flag in flags)]
    return "\n".join(lines)


def _say_many(ended: Sequence[Ended], output: Path) -> None:
    from lungshift.patient.batch import TABLE
    from lungshift.patient.predicting import read_description

    for one in ended:
        if one.status == "failed":
            say(f"{one.name}: {one.code}")
            continue
        told = read_description(output / one.name)
        flags = f" [{', '.join(dict.fromkeys(flag['code'] for flag in told['flags']))}]" if told["flags"] else ""
        say(f"{one.name}: {told['said']}{flags}{' (kept)' if one.status == 'kept' else ''}")
    say(f"{output / TABLE} lists all {len(ended)}. Research use only.")


def _say_found(found: Found) -> None:
    from lungshift.errors import LungshiftError

    for study in found.studies:
        try:
            source = study.source()
            geometry, how = source.geometry, ", resampled to the patient's axes" if source.resampled else ""
            told = f"{geometry.shape} (slices, rows, columns), {geometry.spacing_mm} mm{how}"
        except LungshiftError as error:
            told = f"{error.code}: {error}"
        say(f"{study.name}: {told}")
    say("Nothing was written.")


def quantify(
    scan: Annotated[Path, typer.Argument(help="A NIfTI file, or a folder with one DICOM series.")],
    lesion: Annotated[
        Path | None, typer.Option(help="Lesion mask as NIfTI; --checkpoint predicts one if not given.")
    ] = None,
    lung: Annotated[
        Path | None,
        typer.Option(help="Lung mask as NIfTI; made by threshold if not given and the lesion is predicted."),
    ] = None,
    prediction: Annotated[
        Path | None, typer.Option(help="Folder of lungshift predict, in place of --lesion and --lung.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="The model that drew the lesion, for error bars; repeat it to count what models differ by."),
    ] = None,
    output: Output = Path("runs/quantify"),
    retakes: Annotated[int, typer.Option(help="How often each model predicts the scan again.")] = 6,
    lung_model: Annotated[
        Path | None,
        typer.Option(help="A checkpoint that finds lungs, for a scan without --lung; else a threshold does."),
    ] = None,
    series: Annotated[str | None, typer.Option(help="UID of the DICOM series, where a folder holds several.")] = None,
    keep_identity: Annotated[
        bool, typer.Option("--keep-identity", help="Write name, id and date of the patient, and the scan's file name.")
    ] = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Measure the lesion of one scan, with error bars, on a page of one sheet."""
    from lungshift.files import run_folder
    from lungshift.io.writing import write_mask
    from lungshift.learn.checkpoint import load_checkpoint
    from lungshift.patient.quantify import find_lungs, flags_of, read_patient
    from lungshift.patient.quantify import quantify as quantify_case
    from lungshift.progress import bars
    from lungshift.show.patient import write_patient

    models = [load_checkpoint(one) for one in checkpoint or []]
    patient = read_patient(
        scan, lung=lung, lesion=lesion, prediction=prediction, series_uid=series, keep_identity=keep_identity
    )
    case = patient.case
    if dry_run:
        given = " and ".join(name for name, mask in (("lung", case.lung), ("lesion", case.lesion)) if mask) or "no"
        say(
            f"{case.volume.geometry.shape} (slices, rows, columns), {given} mask, {len(models)} models. Nothing was written."
        )
        return
    identity = {"quantify": patient.checksums, "models": [model.fingerprint for model in models], "retakes": retakes}
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        if lung_model:
            patient = find_lungs(patient, load_checkpoint(lung_model), device)
        found = quantify_case(
            patient.case,
            case.lesion,
            models,
            retakes=retakes,
            device=device,
            flags=flags_of(patient, models),
            judge=not patient.judged,
            tell=watcher.stage,
        )
        like = scan if scan.is_file() else None
        for name, mask in (("lesion", found.lesion), ("lung", found.case.lung)):
            if mask is not None and getattr(case, name) is None:
                write_mask(mask, folder / f"{name}.nii.gz", like=like)
        text = write_patient(found, patient, folder)
    say(text)


def follow_up(
    studies: Annotated[
        list[Path],
        typer.Argument(
            metavar="STUDY STUDY...",
            help="The scans, oldest first: NIfTI files or folders with one DICOM series; or one list of dates (.toml, .csv).",
        ),
    ],
    output: Output = Path("runs/follow-up"),
    lesion: Annotated[list[Path] | None, typer.Option(help="Lesion mask, once for each scan, in their order.")] = None,
    lung: Annotated[
        list[Path] | None, typer.Option(help="Lung mask, once for each scan; made by threshold if none is given.")
    ] = None,
    prediction: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of lungshift predict, once for each scan, in place of --lesion and --lung."),
    ] = None,
    date: Annotated[
        list[str] | None, typer.Option(help="Date of each scan (2020-03-01); a DICOM series knows its own.")
    ] = None,
    day: Annotated[list[int] | None, typer.Option(help="Day of each scan, in place of dates: 0, 7, ...")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="The model that drew the lesions: its repeatability is the noise. Predicts lesions not given."
        ),
    ] = None,
    retakes: Annotated[int, typer.Option(help="How often the model predicts each scan again.")] = 6,
    tolerance_mm: Annotated[float, typer.Option(help="Lesions that do not overlap are one within this.")] = 4.0,
    viewer: Annotated[bool, typer.Option(help="Write viewer.html: all dates side by side in 3-D.")] = True,
    keep_identity: Annotated[
        bool, typer.Option("--keep-identity", help="Write real dates instead of days since the first.")
    ] = False,
    device: Device = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Compare two dates or more of one patient: what is new, grown, gone, beyond noise."""
    from lungshift.patient.dates import find_dates, read_list

    options = {"lung": lung, "lesion": lesion, "prediction": prediction, "date": date, "day": day}
    if len(studies) == 1 and studies[0].suffix in (".toml", ".csv"):
        entries, labels = read_list(studies[0])
        dates = find_dates(_listed(entries, options, checkpoint), labels=labels, keep_identity=keep_identity)
    else:
        dates = find_dates(_entries(studies, options, checkpoint), keep_identity=keep_identity)
    if dry_run:
        for one in dates:
            geometry = one.source.geometry
            say(
                f"{one.label}: {geometry.shape} (slices, rows, columns), {geometry.spacing_mm} mm, lungs: {one.lung_source}"
            )
        say("One patient as far as ids tell; the lungs are compared when it is run. Nothing was written.")
        return
    say(_follow(dates, output, retakes, tolerance_mm, device, viewer=viewer, overwrite=overwrite))


def _listed(entries: Sequence[Entry], options: Mapping[str, Any], checkpoint: Path | None) -> list[Entry]:
    """The dates of a list, which says everything but the model."""
    from dataclasses import replace

    from lungshift.errors import InputError

    if said := [f"--{name}" for name, values in options.items() if values]:
        raise InputError(f"A list of dates says where everything is; leave out {' and '.join(said)}.")
    return [one if one.checkpoint else replace(one, checkpoint=checkpoint) for one in entries]


def _entries(scans: Sequence[Path], options: Mapping[str, Any], checkpoint: Path | None) -> list[Entry]:
    """The dates as options say them: each of them once for each scan, or not at all."""
    from lungshift.errors import InputError
    from lungshift.patient.dates import Entry

    for name, values in options.items():
        if values and len(values) != len(scans):
            raise InputError(
                f"There are {len(scans)} scans and {len(values)} --{name}. Give it once for each scan, in their order, or not at all."
            )
    given = [{name: values[n] for name, values in options.items() if values} for n in range(len(scans))]
    return [Entry(scan, checkpoint=checkpoint, **one) for scan, one in zip(scans, given, strict=True)]


def _follow(
    dates: Sequence[DatedScan],
    output: Path,
    retakes: int,
    tolerance_mm: float,
    device: str,
    *,
    viewer: bool,
    overwrite: bool,
) -> str:
    """Do the work and write it; the text for the terminal."""
    from lungshift import __version__
    from lungshift.files import run_folder
    from lungshift.patient.followup import follow_up as compare_dates
    from lungshift.patient.noise import Models
    from lungshift.progress import bars
    from lungshift.show.followup import Told, write_follow_up

    identity = {
        "follow-up": [(one.label, one.checksums, str(one.checkpoint)) for one in dates],
        "settings": (retakes, tolerance_mm, viewer),
    }
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        models = Models(device, retakes, watcher.stage)
        follow = compare_dates(
            dates,
            noise_of=models.noise_of,
            complete=models.complete,
            tolerance_mm=tolerance_mm,
            progress=watcher.stage,
        )
        written, why_not = _view(dates, follow, models, folder) if viewer else (False, "it was not asked for.")
        told = Told(
            version=__version__,
            inputs=tuple((one.label, one.checksums) for one in dates),
            models=models.fingerprints,
            viewer=written,
            viewer_note=why_not,
            flags=tuple(f"{one.label}: {flag}" for one in dates for flag in one.flags),
        )
        return write_follow_up(follow, folder, told)


def _view(dates: Sequence[DatedScan], follow: FollowUp, models: Models, folder: Path) -> tuple[bool, str]:
    """Write the viewer; whether it is there, and why not."""
    from lungshift.errors import MissingError
    from lungshift.prepare.lungmask import with_lungs
    from lungshift.show.followup import write_dates_viewer

    models.progress("drawing all dates in 3-D")
    cases = [(models.complete(one, with_lungs(one.read())), one.predicted) for one in dates]
    try:
        write_dates_viewer(follow, cases, folder / "viewer.html")
    except MissingError as error:
        return False, str(error)
    return True, ""
