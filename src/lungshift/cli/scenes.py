"""Commands that show a scan in 3-D."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lungshift.cli.words import DryRun, Overwrite, say

if TYPE_CHECKING:
    from lungshift.ct.case import Case
    from lungshift.ct.volume import Mask
    from lungshift.io.orientation import Oblique

_VOXEL_BYTES = 12
"""What a scene takes for each voxel of its scan at its highest, by ``benchmarks.abuse.load``."""
_FILES = "csv,vti,vtp,stl,ply,glb,paraview,viewer"


def scene(
    scan: Annotated[Path, typer.Argument(help="A NIfTI file, or a folder with one DICOM series.")],
    lung: Annotated[Path | None, typer.Option(help="Lung mask as NIfTI, on the scan's grid.")] = None,
    lesion: Annotated[Path | None, typer.Option(help="Lesions that a model found, NIfTI, on the scan's grid.")] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Lesions that a reader drew, NIfTI, on the scan's grid.")
    ] = None,
    prediction: Annotated[
        Path | None, typer.Option(help="A folder written by predict, instead of --lung and --lesion.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The new folder for all files.")] = Path("scene"),
    formats: Annotated[
        str, typer.Option(help="Some of csv, vti, vtp, stl, ply, glb, paraview, viewer, png, gif and mp4, with commas.")
    ] = _FILES,
    png: Annotated[
        bool, typer.Option("--png", help="Pictures too: standard views, a turntable as GIF and MP4.")
    ] = False,
    z_step: Annotated[
        float | None, typer.Option(help="In the CSV tables, z is the number of the slice times so many mm.")
    ] = None,
    downsample: Annotated[
        int, typer.Option(help="Write every 2nd, 3rd or 4th voxel of scan and lungs; lesions stay in full.")
    ] = 1,
    series: Annotated[str | None, typer.Option(help="UID of the DICOM series, where a folder holds several.")] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """Write a scan with its lungs and lesions for 3-D: tables of points, surfaces, a ParaView script, a page to look at, pictures."""
    from lungshift.files import require_free
    from lungshift.show.scene import PICTURES, build_scene, write_scene

    lung, lesion, oblique = _masks(lung, lesion, prediction)
    require_free(output, overwrite=overwrite)
    case, found = _read(scan, lung, lesion, reference, series, oblique)
    made = build_scene(case, found)
    said = [f"{part.look.name} {part.mask.volume_ml:,.1f} ml" for part in made.parts]
    if dry_run:
        say(f"{', '.join(said)}. Nothing was written.")
        return
    asked = [word.strip() for word in formats.split(",") if word.strip()]
    written = write_scene(
        made,
        output,
        [*asked, *(PICTURES if png else ())],
        z_step_mm=z_step,
        downsample=downsample,
        overwrite=overwrite,
        inputs=dict(_checksums(scan=scan, lung=lung, lesion=lesion, reference=reference)),
    )
    say("\n".join([*written.notes, f"{output}: {', '.join(said)}; {len(written.files)} files. Research use only."]))


def _masks(lung: Path | None, lesion: Path | None, prediction: Path | None) -> tuple[Path, Path | None, Oblique]:
    """The files of the lung and of the predicted lesions, from either way to name them, and how their scan is read."""
    if prediction is None and lung is None:
        raise typer.BadParameter("name the lung mask with --lung, or a folder written by predict with --prediction.")
    if prediction is not None and lesion is not None:
        raise typer.BadParameter("--prediction holds the lesions already; leave out --lesion.")
    if prediction is None:
        return lung, lesion, "refuse"  # type: ignore[return-value]
    from lungshift.patient.predicting import DESCRIPTION, LESION, LUNGS, read_as, read_description

    told = read_description(prediction) if (prediction / DESCRIPTION).is_file() else {}
    return lung or prediction / LUNGS, prediction / LESION, read_as(told)


def _read(
    scan: Path, lung: Path, lesion: Path | None, reference: Path | None, series: str | None, oblique: Oblique
) -> tuple[Case, Mask | None]:
    from dataclasses import replace

    from lungshift.io.nifti import read_mask
    from lungshift.io.scan import read_scan

    case = read_scan(scan, lung=lung, series_uid=series, oblique=oblique, bytes_a_voxel=_VOXEL_BYTES, doing="Showing")
    grid = case.volume.geometry
    found, drawn = (None if path is None else read_mask(path, grid, oblique=oblique) for path in (lesion, reference))
    return replace(case, lesion=drawn), found


def _checksums(**files: Path | None) -> Iterator[tuple[str, str]]:
    """SHA-256 of what was read, by role; a folder's is that of its files' in order."""
    from lungshift.files import digest, sha256

    for role, path in files.items():
        if path is not None and path.is_dir():
            yield role, digest(sorted(sha256(file) for file in path.iterdir() if file.is_file()))
        elif path is not None:
            yield role, sha256(path)
