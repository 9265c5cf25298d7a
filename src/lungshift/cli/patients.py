"""Commands about one patient's scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungshift.cli.words import CheckpointPath, Device, DryRun, Overwrite, say


def predict(
    checkpoint: CheckpointPath,
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
        say(
            f"{scan}: {case.volume.geometry.shape} (slices, rows, columns), {case.volume.geometry.spacing_mm} mm. Nothing was written."
        )
        return
    case = with_lungs(case)
    mask = predict_case(Predictor.of(model, device), case)
    write_mask(mask, output, like=scan if scan.is_file() else None)
    share = 100 * mask.volume_ml / case.lung.volume_ml if case.lung and case.lung.volume_ml else float("nan")
    say(
        f"{output}: {mask.volume_ml:.1f} ml of lesion, {share:.1f} % of the lung (lung mask: {case.lung_source}). Research use only."
    )
