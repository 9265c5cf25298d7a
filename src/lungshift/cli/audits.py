"""Commands about what is wrong with a cohort: audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lungshift.cli.words import Device, DryRun, Output, Overwrite, read_protocol_words, say

if TYPE_CHECKING:
    from lungshift.ct.case import Cohort


def audit(
    cohorts: Annotated[
        list[Path], typer.Argument(help="Cohorts, or folders of bare scans: NIfTI files or DICOM series without masks.")
    ],
    output: Output = Path("runs/audit"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Write corrected copies of scans that are not HU, with a manifest.")
    ] = False,
    models: Annotated[
        str, typer.Option(help="Also judge labels by networks that never saw the patient: a protocol, such as audit.")
    ] = "",
    folds: Annotated[int, typer.Option(help="Groups of patients; each is held out once.")] = 4,
    top: Annotated[int, typer.Option(help="Findings with pictures on the page.")] = 60,
    apply: Annotated[
        Path | None, typer.Option(help="Carry out the decisions of audit.html: a decisions.json; needs --audited.")
    ] = None,
    audited: Annotated[Path | None, typer.Option(help="The folder of the audit that --apply is about.")] = None,
    device: Device = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Where results of single cases are kept between runs; in --output if not given.")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Say which scans and which labels are wrong, where, why, and what to do; no model is needed, but one finds more."""
    from lungshift.audit.cohort import audit_cohorts, case_key
    from lungshift.files import run_folder
    from lungshift.progress import bars
    from lungshift.show.audits import summary, write_findings
    from lungshift.show.worklist import write_audit_page
    from lungshift.transfer.auditing import judge_cohorts

    if apply is not None and audited is None:
        raise typer.BadParameter(
            "also say --audited, the folder of the audit whose page the decisions were made on.", param_hint="--apply"
        )
    found = _named_apart([_open(path) for path in cohorts])
    cases = sum(len(cohort.cases) for cohort in found)
    if dry_run:
        say(f"{cases} cases in {', '.join(cohort.name for cohort in found)}. Nothing was written.")
        return
    if apply is not None and audited is not None:
        say(_apply(found, apply, audited, output))
        return
    protocol = read_protocol_words(models, None, None) if models else None
    keys = [case_key(case, cohort.name) for cohort in found for case in cohort.cases]
    identity = {"audit": keys, "repair": repair, "models": protocol and protocol.as_dict(), "folds": folds, "top": top}
    with run_folder(output, identity, overwrite=overwrite) as folder, bars() as watcher:
        kept = cache or folder / "audited"
        findings = tuple(audit_cohorts(found, kept, watcher=watcher))
        judged = judge_cohorts(protocol, found, folder, folds=folds, device=device, watcher=watcher) if protocol else ()
        everything = (*findings, *(one.finding() for some in judged for one in some.suspects))
        write_findings(everything, folder)
        watcher.stage("Drawing the worklist")
        page = write_audit_page(found, findings, judged, folder, top=top)
        words = [summary(everything, cases, folder)]
        words += [_repair(cohort, kept, folder) for cohort in found] if repair else []
        words.append(f"Worklist   {page}")
    say("\n\n".join(words))


def _apply(cohorts: list[Cohort], decisions: Path, audited: Path, output: Path) -> str:
    from lungshift.audit.correct import correct_labels, read_decisions

    decided = read_decisions(decisions)
    lines = []
    for cohort in cohorts:
        target = output / cohort.name
        told = correct_labels(cohort, audited, decided, target)
        changed = [one for one in told if one.file]
        lines.append(
            f"{cohort.name}: {len(changed)} of {len(told)} labels written anew, {sum(one.added for one in told)} voxels added and "
            f"{sum(one.erased for one in told)} erased; the originals stay as they are.\nCohort with them: {target / 'manifest.toml'}"
        )
        by_hand = [f"{one.case} ({', '.join(one.by_hand)})" for one in told if one.by_hand]
        lines += [f"To be corrected by hand: {'; '.join(by_hand)}"] if by_hand else []
    return "\n".join(lines)


def _repair(cohort: Cohort, kept: Path, folder: Path) -> str:
    from lungshift.audit.repair import repair_cohort
    from lungshift.errors import CohortError

    target = folder / "repaired" / cohort.name
    if target.exists():
        return f"{cohort.name} was repaired before: {target}"
    try:
        told = repair_cohort(cohort, kept, target)
    except CohortError as error:
        return str(error)
    lines = [f"  {one.case}: {one.done}: {one.words}" for one in told if one.done != "kept"]
    if not lines:
        return f"All {len(told)} scans of {cohort.name} are in HU: there is nothing to correct."
    same = sum(one.done == "kept" for one in told)
    head = f"Repaired {cohort.name}: {target / 'manifest.toml'} ({same} of {len(told)} scans are in HU and stay where they are)"
    return "\n".join([head, *lines])


def _open(path: Path) -> Cohort:
    """A cohort, with the scans that other commands leave out; or, of a folder with no known layout, its scans alone."""
    from lungshift.errors import CohortError
    from lungshift.io.bare import read_bare_cohort
    from lungshift.io.cohort import read_cohort

    if path.is_file() and path.suffix not in (".toml", ".csv"):
        return read_bare_cohort(path)
    try:
        return read_cohort(path, include_radiopaedia=True, allow_no_mask=True)
    except CohortError as error:
        if error.code != "E_LAYOUT":
            raise
        return read_bare_cohort(path)


def _named_apart(cohorts: list[Cohort]) -> list[Cohort]:
    """Cohorts of one name get a number, so that findings say which is meant."""
    from dataclasses import replace

    names: list[str] = []
    for cohort in cohorts:
        name, number = cohort.name, 2
        while name in names:
            name, number = f"{cohort.name}-{number}", number + 1
        names.append(name)
    return [replace(cohort, name=name) for cohort, name in zip(cohorts, names, strict=True)]
