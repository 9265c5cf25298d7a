"""One door to a cohort: a published layout, nnU-Net's, or a manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lungshift.ct.case import Cohort
from lungshift.errors import CohortError
from lungshift.io.header import DEFAULT_INTAKE, Intake
from lungshift.io.layouts import LAYOUTS, coronacases10, nnunet
from lungshift.io.manifest import MANIFESTS, read_manifest


def read_cohort(
    path: Path | str,
    *,
    name: str | None = None,
    intake: Intake = DEFAULT_INTAKE,
    include_radiopaedia: bool = False,
    lesion_labels: frozenset[int] | None = None,
    allow_no_mask: bool = False,
) -> Cohort:
    """Find the cases of a cohort; no voxel is read yet.

    Args:
        path: A folder of a known layout or with a ``manifest.toml`` or ``manifest.csv`` in it, or a manifest itself.
        name: What to call the cohort, if not as its layout or manifest does.
        intake: How strictly its scans are taken in.
        include_radiopaedia: Keep the 0-255 scans of the ``coronacases10`` layout (see ``lungshift.io.layouts``).
        lesion_labels: Which labels are the lesion, for nnU-Net's layout where their names do not tell.
        allow_no_mask: Keep scans whose mask is not there, without it.

    Raises:
        CohortError: Nothing there, an unknown layout, no case, or scans and masks that do not pair.
    """
    path = Path(path)
    cohort = _read(path, intake, include_radiopaedia, lesion_labels, allow_no_mask)
    return replace(cohort, name=name) if name else cohort


def _read(
    path: Path, intake: Intake, include_radiopaedia: bool, lesion_labels: frozenset[int] | None, allow_no_mask: bool
) -> Cohort:
    if path.is_file():
        return read_manifest(path, intake)
    if not path.is_dir():
        raise CohortError(f"There is no folder or manifest {path}.", code="E_NO_FILE")
    for manifest in MANIFESTS:
        if (path / manifest).is_file():
            return read_manifest(path / manifest, intake)
    options: dict[Any, dict[str, Any]] = {
        coronacases10: {"include_radiopaedia": include_radiopaedia},
        nnunet: {"lesion_labels": lesion_labels},
    }
    for layout in LAYOUTS.values():
        if cohort := layout(path, intake, allow_no_mask=allow_no_mask, **options.get(layout, {})):
            return cohort
    raise _unknown(path)


def _unknown(path: Path) -> CohortError:
    inside = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    found = ", ".join(inside[:8]) + (f" and {len(inside) - 8} more" if len(inside) > 8 else "") or "nothing"
    return CohortError(
        f"{path} has no known layout; it holds {found}. Known are: {'; '.join(LAYOUTS)}. "
        f"For anything else write a {MANIFESTS[0]} or {MANIFESTS[1]} (see lungshift.io.manifest).",
        code="E_LAYOUT" if inside else "E_EMPTY_COHORT",
    )
