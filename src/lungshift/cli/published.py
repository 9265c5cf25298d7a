"""Commands about what others published: their rows and their cohorts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungshift.cli.words import DryRun, Output, say


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
    say(describe(examine(row)))


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
        say(f"{cohort}: {', '.join(published.archives)} of doi:{published.doi}. Nothing was fetched.")
        return
    say(f"{cohort} is in {fetch(cohort, output / cohort)}")
