"""The folder layouts of published cohorts, recognised as they are on disk.

A layout is a function from a folder to its cohort, or to None where the folder has another layout. A scan without its mask is refused
by name, as forgetting one would go unseen, unless ``allow_no_mask``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lungshift.ct.case import CaseRecord, Cohort
from lungshift.errors import AnnotationError, CohortError
from lungshift.io.header import DEFAULT_INTAKE, Intake
from lungshift.io.nifti import NiftiSource
from lungshift.io.voxels import ONE_LABEL, Labels

_LOG = logging.getLogger("lungshift")
_SUFFIXES = (".nii.gz", ".nii")

MEDSEG9_PATIENTS: Mapping[str, str] = {"2": "2+3", "3": "2+3"}
"""Cases 2 and 3 of MedSeg's data set 2 look like one patient scanned once, at 6 mm and 1 mm; the others are one patient each.

Not stated by the publisher; seen by comparing the scans. A fact of that data set, used for its own layout only.
"""
MEDSEG9_LESION = Labels(frozenset({1, 2, 3}), frozenset({0, 1, 2, 3}))
"""1 ground-glass opacity, 2 consolidation, 3 pleural effusion; all three count as lesion, as in the source paper."""
EITHER_LUNG = Labels(frozenset({1, 2}), frozenset({0, 1, 2}))
"""A lung mask of one label, or of one for each side."""
_LESION_WORDS = ("lesion", "infection", "covid", "opacity", "ground", "consolidation", "pneumonia", "ggo", "effusion")


def medseg9(folder: Path, intake: Intake = DEFAULT_INTAKE, *, allow_no_mask: bool = False) -> Cohort | None:
    """MedSeg "COVID-19 CT segmentation dataset nr. 2": ``rp_im``, ``rp_lung_msk`` and ``rp_msk``, each with ``N.nii.gz``.

    Lesion masks hold 1, 2 and 3 (``MEDSEG9_LESION``) or, merged, 1. Patients are ``MEDSEG9_PATIENTS``.

    Raises:
        CohortError: A scan without a mask, or a mask without a scan.
    """
    if not (folder / "rp_im").is_dir() or not (folder / "rp_msk").is_dir():
        return None
    scans, lungs, lesions = (_files(folder / name) for name in ("rp_im", "rp_lung_msk", "rp_msk"))
    _require_pairs(scans, lungs, "lung mask in rp_lung_msk", allow_no_mask)
    _require_pairs(scans, lesions, "lesion mask in rp_msk", allow_no_mask)
    cases = tuple(
        CaseRecord(
            name,
            MEDSEG9_PATIENTS.get(name, name),
            NiftiSource(scans[name], lungs.get(name), lesions.get(name), EITHER_LUNG, MEDSEG9_LESION, intake),
            site="Radiopaedia",
        )
        for name in sorted(scans, key=_natural)
    )
    return Cohort("medseg9", cases, "treat as CC BY-NC-SA (sources disagree)", "doi:10.6084/m9.figshare.13521509")


def coronacases10(
    folder: Path, intake: Intake = DEFAULT_INTAKE, *, include_radiopaedia: bool = False, allow_no_mask: bool = False
) -> Cohort | None:
    """Zenodo record 3757476: ``COVID-19-CT-Seg_20cases``, ``Lung_Mask`` and ``Infection_Mask``.

    The record's ten Coronacases scans are in HU. Its ten Radiopaedia scans are 0-255 pictures and are left out, as in the
    source paper, unless ``include_radiopaedia``; reading them is then refused unless ``intake.require_hu`` is off.

    Raises:
        CohortError: A scan without a mask, or a mask without a scan.
    """
    if not (folder / "COVID-19-CT-Seg_20cases").is_dir() or not (folder / "Infection_Mask").is_dir():
        return None
    scans, lungs, lesions = (
        _files(folder / name) for name in ("COVID-19-CT-Seg_20cases", "Lung_Mask", "Infection_Mask")
    )
    _require_pairs(scans, lungs, "lung mask in Lung_Mask", allow_no_mask)
    _require_pairs(scans, lesions, "lesion mask in Infection_Mask", allow_no_mask)
    names = [name for name in sorted(scans, key=_natural) if include_radiopaedia or not name.startswith("radiopaedia")]
    if left := len(scans) - len(names):
        _LOG.warning("%s: %d radiopaedia_* scans were left out: they are 0-255 pictures, not HU.", folder, left)
    cases = tuple(
        CaseRecord(
            name,
            name,
            NiftiSource(scans[name], lungs.get(name), lesions.get(name), EITHER_LUNG, ONE_LABEL, intake),
            site="Coronacases" if name.startswith("coronacases") else "Radiopaedia",
        )
        for name in names
    )
    name = "coronacases20" if any(name.startswith("radiopaedia") for name in names) else "coronacases10"
    return Cohort(name, cases, "treat as CC BY-NC-SA (sources disagree)", "doi:10.5281/zenodo.3757476")


def nnunet(
    folder: Path,
    intake: Intake = DEFAULT_INTAKE,
    *,
    lesion_labels: Iterable[int] | None = None,
    allow_no_mask: bool = False,
) -> Cohort | None:
    """nnU-Net's raw layout: ``dataset.json``, ``imagesTr/NAME_0000.nii.gz``, ``labelsTr/NAME.nii.gz``.

    Labels are those of ``dataset.json``. The lesion is every label named like one (lesion, infection, ground-glass,
    consolidation, ...) unless ``lesion_labels`` says otherwise; labels named lung, or lesion and lung together, are the lung mask.
    ``dataset.json`` does not know patients, so every case counts as one (``patients_known`` is False).

    Raises:
        CohortError: An unreadable ``dataset.json``, several channels, no lesion label, or scans and masks that do not pair.
    """
    if not (folder / "dataset.json").is_file() or not (folder / "imagesTr").is_dir():
        return None
    labels = _nnunet_labels(folder / "dataset.json")
    lesion = _nnunet_lesion(folder, labels, lesion_labels)
    lung = _nnunet_lung(labels, lesion)
    scans = _nnunet_scans(folder / "imagesTr")
    masks = _files(folder / "labelsTr")
    _require_pairs(scans, masks, "mask in labelsTr", allow_no_mask)
    cases = tuple(
        CaseRecord(
            name,
            name,
            NiftiSource(
                scans[name], masks.get(name) if lung else None, masks.get(name), lung or ONE_LABEL, lesion, intake
            ),
            lung_source="reader" if lung and name in masks else "none",
        )
        for name in sorted(scans, key=_natural)
    )
    return Cohort(folder.resolve().name, cases, patients_known=False)


LAYOUTS: Mapping[str, Callable[..., Cohort | None]] = {
    "medseg9 (rp_im, rp_lung_msk, rp_msk)": medseg9,
    "coronacases10 (COVID-19-CT-Seg_20cases, Lung_Mask, Infection_Mask)": coronacases10,
    "nnU-Net raw (dataset.json, imagesTr, labelsTr)": nnunet,
}
"""The layouts that are recognised, by what they look like."""


def _files(folder: Path) -> dict[str, Path]:
    """NIfTI files by case name; hidden files are not scans."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        suffix = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), None)
        if suffix is None or path.name.startswith("."):
            continue
        name = path.name.removesuffix(suffix)
        if name in found:
            raise CohortError(f"{folder} has both {found[name].name} and {path.name}; keep one of them.")
        found[name] = path
    return found


def _require_pairs(scans: Mapping[str, Path], masks: Mapping[str, Path], what: str, allow_no_mask: bool) -> None:
    if not allow_no_mask and (missing := sorted(scans.keys() - masks.keys(), key=_natural)):
        raise CohortError(
            f"No {what} for {_some(missing)}. Add it, or take the scan out of the folder.", code="E_NO_MASK"
        )
    if orphans := sorted(masks.keys() - scans.keys(), key=_natural):
        raise CohortError(
            f"There is a {what} for {_some(orphans)}, but no scan of that name. Add the scan, or take the mask away.",
            code="E_NO_SCAN",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _natural(name: str) -> tuple[int, str]:
    """Sorts 2 before 10."""
    return (int(name), "") if name.isdecimal() else (0, name)


def _nnunet_labels(path: Path) -> dict[str, frozenset[int]]:
    """Label values by name, of nnU-Net's first and second form."""
    try:
        labels: Any = json.loads(path.read_text())["labels"]
        pairs = [(v, k) if isinstance(v, str) else (k, v) for k, v in labels.items()]
        return {
            str(name): frozenset(int(one) for one in (value if isinstance(value, list) else [value]))
            for name, value in pairs
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CohortError(f"{path} is not a dataset.json of nnU-Net: {error!r}.", code="E_MANIFEST") from error


def _nnunet_lesion(folder: Path, labels: dict[str, frozenset[int]], asked: Iterable[int] | None) -> Labels:
    declared = frozenset().union(*labels.values())
    named = [values for name, values in labels.items() if any(word in name.lower() for word in _LESION_WORDS)]
    chosen = frozenset(asked) if asked is not None else frozenset().union(*named)
    try:
        return Labels(chosen - {0} if asked is None else chosen, declared)
    except AnnotationError as error:
        names = ", ".join(f"{name} = {sorted(values)}" for name, values in labels.items())
        raise CohortError(
            f"Which labels of {folder} are the lesion? It has {names}. Say lesion_labels.", code="E_LESION_LABEL"
        ) from error


def _nnunet_lung(labels: dict[str, frozenset[int]], lesion: Labels) -> Labels | None:
    """Lung and lesion labels together, for the lesion lies in the lung; None if no label is named lung."""
    named = [values for name, values in labels.items() if "lung" in name.lower()]
    lung = frozenset().union(*named) - {0}
    return Labels(lung | lesion.chosen, lesion.declared) if lung - lesion.chosen else None


def _nnunet_scans(folder: Path) -> dict[str, Path]:
    files = _files(folder)
    if more := [name for name in files if not name.endswith("_0000")]:
        raise CohortError(
            f"{folder} has files that are not the one channel NAME_0000: {_some(sorted(more))}.", code="E_CHANNELS"
        )
    return {name.removesuffix("_0000"): path for name, path in files.items()}
