"""Commands about what is wrong with a cohort: audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lungshift.cli.words import DryRun, Output, Overwrite, say

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
    cache: Annotated[
        Path | None, typer.Option(help="Where results of single cases are kept between runs; in --output if not given.")
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Say which scans and which labels are wrong, where, why, and what to do; no model is needed."""
    from lungshift.audit.cohort import audit_cohorts, case_key
    from lungshift.files import run_folder
    from lungshift.progress import bars
    from lungshift.show.audits import summary, write_findings

    found = _named_apart([_open(path) for path in cohorts])
    cases = sum(len(cohort.cases) for cohort in found)
    if dry_run:
        say(f"{cases} cases in {', '.join(cohort.name for cohort in found)}. Nothing was written.")
        return
    keys = [case_key(case, cohort.name) for cohort in found for case in cohort.cases]
    with run_folder(output, {"audit": keys, "repair": repair}, overwrite=overwrite) as folder, bars() as watcher:
        kept = cache or folder / "audited"
        findings = tuple(audit_cohorts(found, kept, watcher=watcher))
        write_findings(findings, folder)
        words = [summary(findings, cases, folder)]
        words += [_repair(cohort, kept, folder) for cohort in found] if repair else []
    say("\n\n".join(words))


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
        return read_cohort(path, include_radiopaedia=True)
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
