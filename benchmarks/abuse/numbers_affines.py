"""Scans at random places and turns in the world, predicted, and read back by others; see ``benchmarks.abuse.numbers``.

A patient lies in the world once: a body with two lungs, the left one smaller, and one dense patch in the left lung, which is the landmark. A case is the
array of that patient as a scanner or converter might have stored it: any of the 48 orders and directions of axes, any voxel sizes, any
origin. What the model must say is known from the patient in the canonical order; what it said is read from its files by nibabel, SimpleITK and highdicom.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.abuse.numbers_metrics import ask_rival
from benchmarks.result import Result
from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import LungshiftError
from lungshift.io.dicom import DicomSource
from lungshift.io.dicom_series import Choices
from lungshift.io.header import Intake
from lungshift.io.nifti import NiftiSource
from lungshift.learn.checkpoint import Checkpoint, Decision, build_network, save_checkpoint
from lungshift.learn.prediction import Predictor, predict
from lungshift.learn.settings import NetworkSettings
from lungshift.patient.predicting import Options, predict_study, write_prediction
from lungshift.patient.studies import Study
from lungshift.prepare.windows import PAPER_WINDOW

CASES, SEED = 200, 7
_SIZE, _THRESHOLD_HU = 64, -600
_AIR, _LUNG, _TISSUE, _LESION = -1000, -850, 40, -400
_WAYS = tuple(product(permutations(range(3)), product((False, True), repeat=3)))
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Stored:
    """A patient, and how an array of him lies in a file.

    Attributes:
        patient: In the canonical order.
        order: Which canonical axis each stored axis is, the slowest first.
        flips: Which stored axes run backwards.
    """

    patient: Case
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def array(self, canonical: np.ndarray) -> np.ndarray:
        """The canonical array as it is stored."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)
        return np.ascontiguousarray(canonical.transpose(self.order)[steps])

    @property
    def affine(self) -> np.ndarray:
        """Stored index to LPS mm."""
        canonical, affine = self.patient.volume.geometry, np.eye(4)
        affine[:3, 3] = canonical.affine[:3, 3]
        for stored, (axis, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            step = canonical.affine[:3, axis]
            affine[:3, stored] = -step if flip else step
            affine[:3, 3] += flip * step * (canonical.shape[axis] - 1)
        return affine


def random_stored(rng: np.random.Generator, number: int, *, specks: bool = True) -> Stored:
    """The next of all 48 ways to store a patient, with random sizes and a random place; specks do not outlive resampling."""
    order, flips = _WAYS[number % len(_WAYS)]
    return Stored(_patient(rng, specks), order, flips)  # type: ignore[arg-type]


def _patient(rng: np.random.Generator, specks: bool) -> Case:
    slices, rows, columns = (int(n) for n in rng.integers((12, 40, 44), (18, 60, 64)))
    spacing = (float(rng.uniform(1, 8)), *(float(mm) for mm in rng.uniform(0.6, 4, 2)))
    origin = tuple(float(mm) for mm in rng.uniform(-500, 500, 3))
    grid = Geometry.regular((slices, rows, columns), spacing, origin)  # type: ignore[arg-type]
    hu, lung, lesion = np.full(grid.shape, _AIR), *np.zeros((2, *grid.shape), bool)
    hu[:, 3:-3, 2:-2] = _TISSUE
    middle = columns // 2
    lung[2:-2, 7:-9, 6 : middle - 5] = True  # the patient's right
    lung[3:-2, 9:-11, middle + 6 : -7] = True
    lesion[4:-4, 13 : 13 + int(rng.integers(6, 12)), middle + 7 : middle + 7 + int(rng.integers(4, 8))] = True
    speckled = lung & (rng.random(grid.shape) < 0.02 * specks)
    speckled[..., :middle] = False
    lesion = lung & (lesion | speckled)
    hu[_widened(lung)], hu[lesion] = (
        _LUNG,
        _LESION,
    )  # air beyond the mask, so that no wall of the chest is mixed into it
    hu = hu + rng.normal(0, 8, hu.shape)
    return Case(Volume(np.rint(hu).astype(np.int16), grid), Mask(lung, grid), Mask(lesion, grid))


def _widened(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, iterations=2))


def threshold_model() -> Checkpoint:
    """A U-Net whose weights call lesion what is denser than -600 HU inside the lungs: no training, no chance."""
    import torch

    settings = NetworkSettings(width=1, levels=1)
    network = build_network(settings)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    for block in (network.down[0], network.up[0]):
        for number in (0, 3):
            block[number].weight.data[0, 0, 1, 1] = 1.0
    at = (_THRESHOLD_HU - PAPER_WINDOW.low_hu) / (PAPER_WINDOW.high_hu - PAPER_WINDOW.low_hu)
    network.last.weight.data[:] = 1000.0
    network.last.bias.data[:] = -1000.0 * at
    return Checkpoint(network.state_dict(), settings, _SIZE, decision=Decision(inside_lung=True))


def measure_affines(python: Path, folder: Path, count: int = CASES) -> list[Result]:
    """Every goal about places: NIfTI to NIfTI, DICOM to SEG and NIfTI, oblique and sheared grids."""
    logging.getLogger("lungshift").setLevel(logging.ERROR)
    save_checkpoint(threshold_model(), folder / "model")
    options = Options(folder / "model", device="cpu")
    goals = []
    for kind, write in (("NIfTI", _write_nifti), ("DICOM", _write_dicom)):
        place = folder / kind
        for number in range(count):
            _predict_one(place / f"{number:03d}", number, write, options)
        goals += _judge(kind, ask_rival(python, "grids", place))
    return goals + _oblique(folder / "oblique", options, count)


def _predict_one(case: Path, number: int, write: Any, options: Options) -> None:
    """Store a patient, predict it as the command does, and put the truth beside."""
    rng = np.random.default_rng((SEED, number))
    stored = random_stored(rng, number)
    (case / "out").mkdir(parents=True)
    study = write(case, stored, rng)
    patient = stored.patient
    truth = predict(Predictor.of(threshold_model(), "cpu"), patient)
    geometry = patient.volume.geometry
    midline = float(geometry.world_mm(np.array([0, 0, geometry.shape[2] // 2]))[0])
    assert patient.lung is not None
    np.savez(
        case / "truth.npz",
        affine=geometry.affine,
        lesion=truth.voxels,
        lung=patient.lung.voxels,
        midline_mm=midline,
    )
    write_prediction(predict_study(study, options), case / "out", options)


def _write_nifti(case: Path, stored: Stored, rng: np.random.Generator) -> Study:
    """The scan with sform, qform or both, and its lung mask in another order of axes."""
    forms = int(rng.integers(3))
    _save_nifti(case / "scan.nii.gz", stored, stored.patient.volume.hu, sform=forms != 1, qform=forms != 0)
    other = random_stored(rng, int(rng.integers(len(_WAYS))))
    lung = Stored(stored.patient, other.order, other.flips)
    assert stored.patient.lung is not None
    _save_nifti(case / "given.nii.gz", lung, stored.patient.lung.voxels.astype(np.uint8))
    return Study(case.name, case / "scan.nii.gz", lung=case / "given.nii.gz")


def _save_nifti(path: Path, stored: Stored, canonical: np.ndarray, *, sform: bool = True, qform: bool = False) -> None:
    import nibabel as nib

    # NIfTI's first axis is the fastest
    array = stored.array(canonical).transpose(2, 1, 0)
    affine = _RAS_FROM_LPS @ stored.affine[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, int(sform))
    image.set_qform(affine, int(qform))
    nib.save(image, path)


def _write_dicom(case: Path, stored: Stored, rng: np.random.Generator) -> Study:
    """The scan as a series whose files are in random order, and its lung mask as NIfTI."""
    _save_series(case / "series", stored.array(stored.patient.volume.hu), stored.affine, rng)
    assert stored.patient.lung is not None
    plain = Stored(stored.patient, (0, 1, 2), (False, False, False))
    _save_nifti(case / "given.nii.gz", plain, stored.patient.lung.voxels.astype(np.uint8))
    return Study(case.name, case / "series", lung=case / "given.nii.gz")


def _save_series(folder: Path, hu: np.ndarray, affine: np.ndarray, rng: np.random.Generator) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing
    series = f"1.2.826.0.1.{int(rng.integers(1, 2**31))}"
    for number, k in enumerate(rng.permutation(len(hu)).tolist()):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, f"{series}.3.{k + 1}", "CT"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{series}.1", f"{series}.2", f"{series}.4"
        ds.SeriesNumber, ds.InstanceNumber, ds.PatientID, ds.PatientName = 1, number + 1, "phantom", "phantom"
        ds.ImagePositionPatient = [_decimal(mm) for mm in affine[:3, 3] + k * affine[:3, 0]]
        ds.ImageOrientationPatient = [_decimal(one) for one in (*cosines[:, 2], *cosines[:, 1])]
        ds.PixelSpacing, ds.SliceThickness = [_decimal(mm) for mm in spacing[1:]], _decimal(spacing[0])
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *hu.shape[1:], 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.PixelData = np.clip(hu[k].astype(np.int32) + 1024, 0, 65535).astype(np.uint16).tobytes()
        ds["PixelData"].VR = "OW"
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
            ds.SOPClassUID,
            ds.SOPInstanceUID,
        )
        pydicom.dcmwrite(folder / f"{number:03d}.dcm", ds, enforce_file_format=True)


def _decimal(number: float) -> str:
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(number))


def _judge(kind: str, answers: list[dict[str, Any]]) -> Iterator[Result]:
    """What the independent readers found in all cases."""
    readers = {"nibabel": "nibabel", "sitk": "SimpleITK", "seg": "highdicom, SEG"}
    n = len(answers)
    for reader, title in readers.items():
        if f"lesion_{reader}_wrong" not in answers[0]:
            continue
        wrong = [answer[f"{mask}_{reader}_wrong"] for answer in answers for mask in ("lesion", "lung")]
        off = max(answer[f"{mask}_{reader}_off_mm"] for answer in answers for mask in ("lesion", "lung"))
        lesions = [answer[f"lesion_{reader}_wrong"] for answer in answers]
        yield Result(f"{kind}, {n} scans, read by {title}: masks off the planted grid, mm", off, "", 1e-4)
        yield Result(
            f"{kind}, read by {title}: voxels that differ, of {sum(w['voxels'] for w in wrong)}",
            sum(w["different"] for w in wrong),
            "",
            0,
        )
        yield Result(
            f"{kind}, read by {title}: lesion voxels right of the midline; all are planted left",
            sum(w["right_of_midline"] for w in lesions),
            "",
            0,
        )
        yield Result(
            f"{kind}, read by {title}: smallest lesion, voxels", min(w["voxels"] for w in lesions), "", 1, "at least"
        )
    if kind == "NIfTI":
        yield Result(
            f"{kind}: grid of the mask's file against the scan's file, mm",
            max(a[f"{m}_scan_off_mm"] for a in answers for m in ("lesion", "lung")),
            "",
            1e-4,
        )


@dataclass
class _Oblique:
    """What became of turned and sheared scans."""

    refused: int = 0
    codes: set[str] = field(default_factory=set)
    resampled: int = 0
    off_voxels: float = 0.0
    right: int = 0
    asked: int = 0


def _oblique(folder: Path, options: Options, count: int) -> list[Result]:
    """Turned scans and sheared ones: refused as they come; resampled where it is asked for, with the landmark where it was."""
    told = {kind: _Oblique() for kind in ("NIfTI, oblique", "NIfTI, sheared", "DICOM, oblique", "DICOM, tilted")}
    predictor = Predictor.of(threshold_model(), "cpu")
    for number in range(count):
        kind = list(told)[number % len(told)]
        _one_oblique(folder / f"{number:03d}", number, kind, told[kind], options, predictor)
    return [goal for kind, result in told.items() for goal in _judge_oblique(kind, result)]


def _one_oblique(case: Path, number: int, kind: str, told: _Oblique, options: Options, predictor: Predictor) -> None:
    case.mkdir(parents=True)
    rng = np.random.default_rng((SEED, 1, number))
    stored = random_stored(rng, number // 4 if kind.startswith("NIfTI") else 0, specks=False)
    turn = _turn(rng) if "oblique" in kind else _shear(rng)
    affine = turn @ stored.affine
    array = stored.array(stored.patient.volume.hu)
    source = _turned_source(case, kind, stored, array, affine, rng)
    told.asked += 1
    try:
        predict_study(Study(case.name, case / ("scan.nii.gz" if kind.startswith("NIfTI") else "series")), options)
    except LungshiftError as error:
        told.refused += error.code in ("E_OBLIQUE", "E_SHEARED", "E_TILT")
        told.codes.add(error.code)
    volume, lungs, _ = source.read()
    found = predict(predictor, Case(volume, lungs))
    told.resampled += bool(found.voxels.any())
    truth = predict(predictor, stored.patient)
    places = turn[:3, :3] @ stored.patient.volume.geometry.world_mm(np.argwhere(truth.voxels)).T + turn[:3, 3:]
    here = volume.geometry.world_mm(np.argwhere(found.voxels)).T
    off_mm = np.linalg.norm(places.mean(axis=1) - here.mean(axis=1))
    told.off_voxels = max(told.off_voxels, float(off_mm / np.linalg.norm(volume.geometry.spacing_mm)))
    told.right += _right_of(stored, turn, volume, here)


def _right_of(stored: Stored, turn: np.ndarray, volume: Volume, here: np.ndarray) -> int:
    """Predicted voxels that lie more than a voxel right of the patient's midline, which is turned with the patient."""
    geometry = stored.patient.volume.geometry
    back = np.linalg.inv(turn @ geometry.affine)
    columns = (back[:3, :3] @ here + back[:3, 3:])[2]
    slack = max(volume.geometry.spacing_mm) / geometry.spacing_mm[2]
    return int(np.count_nonzero(columns < geometry.shape[2] // 2 - slack))


def _turned_source(
    case: Path, kind: str, stored: Stored, array: np.ndarray, affine: np.ndarray, rng: np.random.Generator
) -> Any:
    """The turned scan on disk, and a source that may resample it, with its lung mask turned alike."""
    import nibabel as nib

    assert stored.patient.lung is not None
    place = _RAS_FROM_LPS @ affine[:, [2, 1, 0, 3]]
    lung = stored.array(stored.patient.lung.voxels.astype(np.uint8)).transpose(2, 1, 0)
    for name, values in (("scan.nii.gz", array.transpose(2, 1, 0)), ("given.nii.gz", lung)):
        image = nib.Nifti1Image(values, place)
        image.set_sform(place, 1)
        image.set_qform(None, 0)
        nib.save(image, case / name)
    if kind.startswith("NIfTI"):
        intake = Intake(oblique="resample")
        return NiftiSource(case / "scan.nii.gz", case / "given.nii.gz", intake=intake)
    _save_series(case / "series", array, affine, rng)
    return DicomSource(case / "series", lung=case / "given.nii.gz", choices=Choices(oblique="resample"))


def _judge_oblique(kind: str, told: _Oblique) -> Iterator[Result]:
    codes = ", ".join(sorted(told.codes))
    yield Result(f"{kind}, {told.asked} scans: not refused by `predict` ({codes})", told.asked - told.refused, "", 0)
    yield Result(f"{kind}, resampled on request: without a lesion", told.asked - told.resampled, "", 0)
    yield Result(
        f"{kind}, resampled on request: centre of the lesion off, in diagonals of a voxel", told.off_voxels, "", 1.0
    )
    yield Result(f"{kind}, resampled on request: lesion voxels right of the midline", told.right, "", 0)


def _turn(rng: np.random.Generator) -> np.ndarray:
    """A turn by 1 to 25 degrees about a random axis."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.radians(rng.uniform(1, 25))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(4)
    turn[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn


def _shear(rng: np.random.Generator) -> np.ndarray:
    """A gantry tilted by 2 to 20 degrees: each slice lies further back than the one below."""
    shear = np.eye(4)
    shear[1, 2] = np.tan(np.radians(rng.uniform(2, 20))) * rng.choice((-1, 1))
    return shear
