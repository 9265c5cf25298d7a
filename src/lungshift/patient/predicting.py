"""One study from its files to a folder with its masks and what must be known of them; the folder is whole once ``prediction.json`` is there."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lungshift.ct.case import Case, CaseSource, InMemory, LungSource
from lungshift.ct.packed import PackedMask, pack
from lungshift.errors import CheckpointError, InputError, LungshiftError, SeriesError, what_is_missing
from lungshift.files import digest, sha256, write_json
from lungshift.io.dicom import DicomSource
from lungshift.io.dicom_seg import CONSOLIDATION, GROUND_GLASS, LUNG, Drawn, write_seg
from lungshift.io.nifti import NiftiSource
from lungshift.io.orientation import Oblique
from lungshift.io.writing import write_mask
from lungshift.learn.checkpoint import Checkpoint, load_checkpoint, require_target, weight_checksums
from lungshift.learn.lungs import find_lungs
from lungshift.learn.prediction import Predictor, predict_source
from lungshift.measure.density import CONSOLIDATION_HU, is_dense
from lungshift.memory import require_memory
from lungshift.patient.gate import FirstLook, Flag, SecondLook, TrainingRange, require_like, require_lung
from lungshift.patient.studies import Study
from lungshift.prepare.lungmask import find_threshold_lungs

FORMAT = 1
LESION, LUNGS, SEG, DESCRIPTION = "lesion.nii.gz", "lung.nii.gz", "lesion.dcm", "prediction.json"
RESEARCH = "Research use only: not a medical device, not for diagnosis."
_PACKAGES = ("lungshift", "numpy", "scipy", "nibabel", "pydicom", "highdicom")
_WHERE = {
    "nifti": "masks were brought back to the scan's own grid, each voxel by its nearest neighbour; numbers were counted on the patient's axes",
    "dicom": "the SEG lies on the series' own slices, each voxel by its nearest neighbour; NIfTI masks and numbers are on the patient's axes",
}
"""Where the masks of a scan lie that was resampled."""
_NO_SLICES = "the slices that were looked at are made by interpolation: whether any of the scan's own is missing, doubled or empty was not judged"
_BASE_BYTES, _PIXEL_BYTES, _VOXEL_BYTES = 400 << 20, 300, 10
"""What a prediction takes: in any case, for each pixel of a slice, and for each voxel of a scan that cannot be read slice by slice. The first two
are address space, which ``ulimit -v`` counts; about half of it is touched."""
_LOG = logging.getLogger("lungshift")


@dataclass(frozen=True)
class Options:
    """How studies are predicted.

    Attributes:
        checkpoint: Folder of the lesion model.
        lung_model: Folder of a model that finds lungs, for scans that come without a lung mask.
        keep_identity: Let names and UIDs of the originals go along.
        strict: Refuse what otherwise is flagged.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``bf16`` (where the processor has it) or ``fp32``, which takes twice as long.
    """

    checkpoint: Path
    lung_model: Path | None = None
    keep_identity: bool = False
    strict: bool = False
    device: str = "auto"
    precision: str = "bf16"

    def identity(self) -> dict[str, Any]:
        """What makes two predictions of one scan the same: the models and the options, not where they lie or what computes.

        Raises:
            CheckpointError: A folder holds no checkpoint, or one of another target.
        """
        checkpoints = load_checkpoints(self)
        return {
            "format": FORMAT,
            "model": checkpoints.identity,
            "lung_model": checkpoints.lung_identity,
            "keep_identity": self.keep_identity,
            "strict": self.strict,
            "precision": self.precision,
        }


@dataclass(frozen=True, eq=False)
class Checkpoints:
    """The checkpoints of a run, and what tells them from others."""

    lesion: Checkpoint
    identity: str
    lung: Checkpoint | None = None
    lung_identity: str = ""


@lru_cache(maxsize=1)
def load_checkpoints(options: Options) -> Checkpoints:
    """The checkpoints that the options name; kept in the process, so that the next study finds them ready.

    Raises:
        CheckpointError: A folder holds no checkpoint, or one of another target.
    """
    lesion = load_checkpoint(options.checkpoint)
    require_target(lesion, "lesion")
    if options.lung_model is None:
        return Checkpoints(lesion, _identify(lesion))
    lung = load_checkpoint(options.lung_model)
    require_target(lung, "lung")
    return Checkpoints(lesion, _identify(lesion), lung, _identify(lung))


def _identify(checkpoint: Checkpoint) -> str:
    """SHA-256 of all that a prediction depends on: weights, network, pictures and the rule for masks."""
    rule = (checkpoint.network, checkpoint.size, checkpoint.interpolation, checkpoint.decision)
    return digest((rule, sorted(weight_checksums(checkpoint.weights).items())))


@lru_cache(maxsize=2)
def load_predictor(options: Options, target: Literal["lesion", "lung"] = "lesion") -> Predictor:
    """A model on its device, kept in the process.

    Raises:
        CheckpointError: No lung model was named, and one is asked for.
        MissingError: The device is not there.
    """
    checkpoints = load_checkpoints(options)
    checkpoint = checkpoints.lesion if target == "lesion" else checkpoints.lung
    if checkpoint is None:
        raise CheckpointError("No lung model was named. Give its folder, or leave the lungs to the threshold.")
    return Predictor.of(checkpoint, options.device, options.precision)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says of a study.

    Attributes:
        study: The study.
        lung: The lung mask that it went by, on the scan's own grid.
        lung_source: Who drew it: ``reader`` (a file that was given), ``model`` or ``threshold``.
        lung_model: Fingerprint of the model that drew it, if one did.
        lesion: The predicted lesion, on the same grid.
        consolidation: The dense part of it; the rest is ground glass.
        inside: How many voxels of the lesion are inside the lung mask.
        flags: What is odd about the scan.
        notes: What was taken with a warning when it was read.
        identity: Of inputs, models and options.
        checksums: SHA-256 of the files that were read, by what they are.
        resampled: Whether the scan is oblique, and the masks lie on the patient's axes until they are written.
    """

    study: Study
    lung: PackedMask
    lung_source: LungSource
    lung_model: str
    lesion: PackedMask
    consolidation: PackedMask
    inside: int
    flags: tuple[Flag, ...]
    notes: tuple[str, ...]
    identity: str
    checksums: Mapping[str, str]
    resampled: bool = False

    @property
    def percent_of_lung(self) -> float:
        """How much of the lung is lesion; lesion outside of the lung mask is not counted here."""
        return 100 * self.inside / int(self.lung.areas.sum())

    def words(self) -> str:
        """The result in a sentence; that nothing was found is said, and how much was looked at."""
        slices, looked = _slices_of(self.lesion), _slices_of(self.lung)
        how = f"(lung mask: {self.lung_source}{'; oblique scan, resampled to the patient’s axes' if self.resampled else ''})"
        if not slices:
            return f"no lesion found; {looked} slices with lung were looked at {how}"
        return (
            f"{self.lesion.volume_ml:.1f} ml of lesion, {self.percent_of_lung:.1f} % of the lung, on {slices} of {looked} slices with lung "
            f"{how}"
        )

    def write(self, mask: PackedMask, path: Path) -> None:
        """Write one of its masks on the grid of the NIfTI file that was read, an oblique one too; of a series, on the canonical grid.

        Raises:
            ResourceError: The disk is full or the folder cannot be written.
        """
        like = self.study.path if self.study.is_nifti else None
        write_mask(mask, path, like=like, oblique="resample" if self.resampled else "refuse")


def predict_study(study: Study, options: Options) -> Prediction:
    """Read a study, find or take its lungs, judge whether it is one to be asked about, and predict its lesions.

    The scan passes slice by slice: once to be looked at and for its lungs, and once more, with its lungs, to be predicted.

    Raises:
        InputError: Whatever keeps it from being read or used; ``E_UNLIKE`` if it is odd and the options are strict.
        ResourceError: It needs more memory than there is (``E_MEMORY``).
    """
    checkpoints, files = load_checkpoints(options), study.source()
    _require_memory(files)
    checksums = files.checksums()
    source = _in_passes(files)
    first = FirstLook.at(source)
    lung, lung_source, lung_model = _find_lungs(source, first, options)
    second, lesion, dense, inside = SecondLook(first, require_lung(lung)), {}, {}, 0
    for found in predict_source(load_predictor(options), source, lambda slices: second.watch(lung.lay(slices))):
        lesion[found.index], dense[found.index] = pack(found.lesion), pack(found.lesion & is_dense(found.hu))
        inside += int(np.count_nonzero(found.lesion & found.lung))
    flags = (
        *_fit_to_say(second.flags(TrainingRange.of(checkpoints.lesion.trained_on)), files),
        *_of_files(study, checksums, checkpoints.lesion),
    )
    if options.strict:
        require_like(flags)
    return Prediction(
        study,
        lung,
        lung_source,
        lung_model,
        PackedMask(source.geometry, lesion),
        PackedMask(source.geometry, dense),
        inside,
        flags,
        (*files.notes, *((_WHERE["nifti" if study.is_nifti else "dicom"], _NO_SLICES) if files.resampled else ())),
        identify_study(checksums, options),
        checksums,
        files.resampled,
    )


def _fit_to_say(flags: Sequence[Flag], files: NiftiSource | DicomSource) -> list[Flag]:
    """The flags; of a scan that was resampled those about single slices are left out, as a turned scan has empty corners."""
    return [flag for flag in flags if not (files.resampled and flag.code.startswith("slice-"))]


def _in_passes(source: NiftiSource | DicomSource) -> CaseSource:
    """What gives the slices as often as they are asked for: the file itself, or memory where reading it again would be dear."""
    if isinstance(source, NiftiSource) and source.streams:
        return source
    volume, lung, _ = source.read()
    return InMemory.of(Case(volume, lung))


def _find_lungs(source: CaseSource, first: FirstLook, options: Options) -> tuple[PackedMask, LungSource, str]:
    """The lungs as given, by the lung model, or else by threshold; who drew them, and the fingerprint of the model that did."""
    slices = first.watch(source.slices())
    if source.has_lung:
        given = {piece.index: pack(piece.lung) for piece in slices if piece.lung is not None}
        return PackedMask(source.geometry, given), "reader", ""
    if options.lung_model is None:
        return find_threshold_lungs(slices, source.geometry), "threshold", ""
    predictor = load_predictor(options, "lung")
    return find_lungs(predictor, slices, source.geometry), "model", predictor.checkpoint.fingerprint


def _require_memory(source: NiftiSource | DicomSource) -> None:
    """The memory plan, from the header alone."""
    n, rows, columns = source.geometry.shape
    whole = 0 if isinstance(source, NiftiSource) and source.streams else _VOXEL_BYTES * n
    needed = _BASE_BYTES + rows * columns * (_PIXEL_BYTES + whole)
    require_memory(needed, f"A scan of {n} x {rows} x {columns} voxels")


def identify_study(checksums: Mapping[str, str], options: Options) -> str:
    """What makes two predictions the same: the content of the files, whatever their names, the models and the options."""
    files = sorted((name.split(" ")[0], one) for name, one in checksums.items())
    return digest((files, sorted(options.identity().items())))


def _of_files(study: Study, checksums: Mapping[str, str], checkpoint: Checkpoint) -> list[Flag]:
    """What the files alone say."""
    flags = []
    scans = {one for name, one in checksums.items() if name.startswith("scan ")}
    if scans & scans_trained_on(checkpoint):
        flags.append(
            Flag(
                "trained-on",
                "the model was trained on this scan, or chosen by it",
                "It shows what the model remembers, not what it can do elsewhere",
            )
        )
    if study.also_in:
        flags.append(
            Flag(
                "series-twice",
                f"a series of the same UID lies in {study.also_in} more of the folders",
                "If its images are spread over folders, put them into one: each part was predicted alone",
            )
        )
    return flags


def scans_trained_on(checkpoint: Checkpoint) -> set[str]:
    """SHA-256 of the scans that a checkpoint and those it started from have seen."""
    parts, ancestor = list(checkpoint.trained_on), checkpoint.parent
    while ancestor:
        parts += ancestor["trained_on"]
        ancestor = ancestor.get("parent")
    return {scan for part in parts for scan in part.get("scans", ())}


def write_prediction(prediction: Prediction, folder: Path, options: Options) -> None:
    """Write the masks, and last of all ``prediction.json``: a folder without it is not finished.

    Raises:
        ResourceError: The disk is full or the folder cannot be written.
    """
    study = prediction.study
    (folder / DESCRIPTION).unlink(missing_ok=True)
    prediction.write(prediction.lesion, folder / LESION)
    prediction.write(prediction.lung, folder / LUNGS)
    flags = [*prediction.flags, *([] if study.is_nifti else _write_seg(prediction, folder / SEG, options))]
    told = _describe(replace(prediction, flags=tuple(flags)), folder, options)
    write_json(folder / DESCRIPTION, told)


def _write_seg(prediction: Prediction, path: Path, options: Options) -> list[Flag]:
    """Write the SEG; a series that cannot be referred to gets none, and a flag that says so."""
    source, checkpoint = prediction.study.source(), load_checkpoints(options).lesion
    lesion, consolidation = prediction.lesion, prediction.consolidation
    thin = {index: pack(lesion.slice(index) & ~consolidation.slice(index)) for index in lesion.packed}
    given = prediction.lung_source == "reader"
    model = f"lungshift U-Net, split at {CONSOLIDATION_HU:g} HU"
    drawn = [
        Drawn(GROUND_GLASS, PackedMask(lesion.geometry, thin), model),
        Drawn(CONSOLIDATION, consolidation, model),
        Drawn(
            LUNG, prediction.lung, f"lung mask by {prediction.lung_source}", "SEMIAUTOMATIC" if given else "AUTOMATIC"
        ),
    ]
    if not isinstance(source, DicomSource):
        return []
    try:
        write_seg(
            drawn,
            source,
            path,
            keep_identity=options.keep_identity,
            version=metadata.version("lungshift"),
            serial=checkpoint.fingerprint or "none",
        )
    except SeriesError as error:
        if error.code != "E_SEG":
            raise
        path.unlink(missing_ok=True)
        _LOG.warning("%s: %s", prediction.study.name, error)
        said = str(error) if options.keep_identity else prediction.study.scrub(str(error))
        return [Flag("no-seg", f"no DICOM segmentation was written: {said}", "The NIfTI masks are complete")]
    return []


def _describe(prediction: Prediction, folder: Path, options: Options) -> dict[str, Any]:
    study, lesion, consolidation = prediction.study, prediction.lesion, prediction.consolidation
    geometry, checkpoints = lesion.geometry, load_checkpoints(options)
    voxels = int(lesion.areas.sum())
    checkpoint = checkpoints.lesion
    notes = prediction.notes if options.keep_identity else tuple(map(study.scrub, prediction.notes))
    names = (LESION, LUNGS, *(() if study.is_nifti else (SEG,)))
    return {
        "format": FORMAT,
        "study": study.name,
        "use": RESEARCH,
        "said": prediction.words(),
        "identity": prediction.identity,
        "geometry": {
            "shape": list(geometry.shape),
            "spacing_mm": list(geometry.spacing_mm),
            "affine_lps_mm": geometry.affine.tolist(),
            "axes": "slice (foot to head), row (front to back), column (patient's right to left)",
            "resampled": prediction.resampled,
        },
        "lesion": {
            "ml": lesion.volume_ml,
            "percent_of_lung": prediction.percent_of_lung,
            "slices": _slices_of(lesion),
            "ground_glass_ml": (voxels - int(consolidation.areas.sum())) * geometry.voxel_ml,
            "consolidation_ml": consolidation.volume_ml,
            "consolidation_from_hu": CONSOLIDATION_HU,
            "outside_lung_ml": (voxels - prediction.inside) * geometry.voxel_ml,
        },
        "lung": {
            "ml": prediction.lung.volume_ml,
            "slices": _slices_of(prediction.lung),
            "source": prediction.lung_source,
            "model": prediction.lung_model or None,
        },
        "checkpoint": {
            "fingerprint": checkpoint.fingerprint,
            "identity": checkpoints.identity,
            "decision": asdict(checkpoint.decision),
            "trained_on": sorted({part["cohort"] for part in checkpoint.trained_on if "cohort" in part}),
        },
        "engine": load_predictor(options).describe(),
        "flags": [flag.as_dict() for flag in prediction.flags],
        "notes": list(notes),
        "versions": {name: metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "input": {
            "kind": "nifti" if study.is_nifti else "dicom",
            "sha256": _by_role(prediction.checksums),
            **({"path": str(study.path), "series_uid": study.series_uid} if options.keep_identity else {}),
        },
        "files": {name: sha256(folder / name) for name in names if (folder / name).is_file()},
    }


def _slices_of(mask: PackedMask) -> int:
    return int(np.count_nonzero(mask.areas))


def _by_role(checksums: Mapping[str, str]) -> dict[str, list[str]]:
    """Checksums by what the files are, without the files' names."""
    roles: dict[str, list[str]] = {}
    for name, one in checksums.items():
        if name.startswith(("scan ", "lung ")):
            roles.setdefault(name.split(" ")[0], []).append(one)
    return roles


def read_description(folder: Path) -> dict[str, Any]:
    """What ``prediction.json`` of a folder says.

    Raises:
        InputError: There is none, or it is of another format (``E_PREDICTION``).
    """
    try:
        told: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
        if told["format"] != FORMAT:
            raise InputError(
                f"{folder} is of format {told['format']}; this version reads {FORMAT}.", code="E_PREDICTION"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no finished prediction (no readable {DESCRIPTION}); run lungshift predict.",
            code="E_PREDICTION",
        ) from error
    return told


def read_as(told: Mapping[str, Any]) -> Oblique:
    """How the scan of a prediction is read again: an oblique one was resampled on request, and its masks fit it so only."""
    return "resample" if told.get("geometry", {}).get("resampled") else "refuse"


def is_done(study: Study, folder: Path, options: Options) -> bool:
    """Whether a folder holds this very prediction: of the same files, models and options, with its masks as they were written."""
    try:
        told = read_description(folder)
        if told["identity"] != identify_study(study.source().checksums(), options):
            return False
        return all(sha256(folder / name) == one for name, one in told["files"].items())
    except (InputError, OSError, KeyError, AttributeError):
        return False


def refusal_of(error: Exception, study: Study, options: Options) -> tuple[str, str]:
    """Code and message of a study that failed, fit to be written down."""
    if isinstance(error, MemoryError):
        return "E_MEMORY", "it needs more memory than there is; predict it alone, or on a larger machine"
    if isinstance(error, ImportError):
        return "E_MISSING", f"{what_is_missing(error)}; lungshift doctor says more"
    if not isinstance(error, LungshiftError):
        return "E_UNFORESEEN", f"{type(error).__name__}; predict this study alone to see more"
    return error.code, str(error) if options.keep_identity else study.scrub(str(error))
