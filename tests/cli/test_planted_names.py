"""More than sixty planted words, in forty tags, in sequences and private elements, in NIfTI headers and in file names: none leaves by any command."""

from __future__ import annotations

import gzip
import logging
import sys
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import nibabel as nib
import pytest
from pydicom.dataset import Dataset

from chests import threshold_model
from lungshift.cli import main as cli
from lungshift.io.writing import write_mask
from lungshift.learn.checkpoint import save_checkpoint
from lungshift.patient import registration
from lungshift.prepare.phantom_dates import phantom_dates
from lungshift.prepare.phantom_site import Site
from patient_worlds import as_series, lung_file, whole_chest
from series import write_ct

CASE = whole_chest()
NAMES = """
PatientName OtherPatientNames PatientBirthName PatientMotherBirthName ReferringPhysicianName PerformingPhysicianName OperatorsName
NameOfPhysiciansReadingStudy RequestingPhysician ResponsiblePerson
""".split()  # noqa: SIM905
TEXTS = """
PatientID OtherPatientIDs IssuerOfPatientID AccessionNumber StudyID InstitutionName InstitutionalDepartmentName StationName StudyDescription
SeriesDescription ProtocolName DeviceSerialNumber MedicalRecordLocator Occupation RequestedProcedureID AdmissionID CurrentPatientLocation
PatientTelephoneNumbers BranchOfService EthnicGroup MilitaryRank RegionOfResidence
""".split()  # noqa: SIM905
LONG = ["PatientComments", "ImageComments", "AdditionalPatientHistory", "InstitutionAddress", "PatientAddress"]
PLANTED = {keyword: f"Quux{n:02d}Zorb" for n, keyword in enumerate([*NAMES, *TEXTS, *LONG])}
DATES = {"PatientBirthDate": "19110919", "StudyDate": "20190817", "SeriesDate": "20190818", "ContentDate": "20190819"}
UIDS = {"study": "1.2.826.0.1.77.11", "series": "1.2.826.0.1.77.12", "frame": "1.2.826.0.1.77.13"}
NESTED = [f"Nested{n}Zorb" for n in range(6)]
PRIVATE = [f"Private{n}Zorb" for n in range(4)]
FILES = ["FolderZorb", "FileZorb"]
NIFTI = ["DescripZorb", "AuxZorb", "DbnameZorb", "IntentZorb", "CommentZorb", "EcodeZorb"]
IN_HEADERS = [*PLANTED.values(), *DATES.values(), *UIDS.values(), *NESTED, *PRIVATE, *NIFTI]


def plant(ds: Dataset, k: int) -> None:
    for keyword, value in (PLANTED | DATES).items():
        setattr(ds, keyword, value)
    ds.FrameOfReferenceUID = UIDS["frame"]
    outer, inner = Dataset(), Dataset()
    inner.PatientName, inner.PatientID, inner.InstitutionName = NESTED[:3]
    outer.RequestedProcedureDescription, outer.ReferringPhysicianName = NESTED[3:5]
    outer.RequestedProcedureCodeSequence = [inner]
    other = Dataset()
    other.PatientID = NESTED[5]
    ds.RequestAttributesSequence, ds.OtherPatientIDsSequence = [outer], [other]
    block = ds.private_block(0x0029, PRIVATE[0], create=True)
    for n, value in enumerate(PRIVATE[1:]):
        block.add_new(n, "LO", value)


def not_hu(ds: Dataset, k: int) -> None:
    plant(ds, k)
    ds.RescaleIntercept = 0


def planted_nifti(path: Path, source: Path) -> Path:
    image = nib.load(source)
    for name, token in zip(("descrip", "aux_file", "db_name", "intent_name"), NIFTI, strict=False):
        image.header[name] = token.encode()
    inner = Dataset()
    inner.PatientName = NIFTI[5]
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NIFTI[4].encode()))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("ignore", NIFTI[5].encode()))
    image.header.extensions.append(nib.nifti1.Nifti1DicomExtension(2, inner))
    image.to_filename(path)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound series, one that is not in HU, masks full of names, and a model."""
    place = tmp_path_factory.mktemp("given")
    how = {"series": UIDS["series"], "study": UIDS["study"], "prefix": FILES[1]}
    as_series(place / FILES[0], CASE, change=plant, **how)
    as_series(place / "bad" / FILES[0], CASE, change=not_hu, **how)
    assert CASE.lesion is not None
    write_mask(CASE.lesion, place / "plain.nii.gz")
    planted_nifti(place / "lesion.nii.gz", place / "plain.nii.gz")
    planted_nifti(place / "lung.nii.gz", lung_file(place / "plain-lung.nii.gz", CASE))
    save_checkpoint(threshold_model(), place / "model")
    for date in phantom_dates(5, 3, Site(slice_mm=10.0, pixel_mm=4.0, size=90), [["new", "gone", "stable"]]):
        volume = date.case.volume
        write_ct(place / f"{FILES[0]}{date.day}", volume.hu, volume.geometry.affine, change=plant, **how)
        for kind, mask in (("lung", date.case.lung), ("lesion", date.case.lesion)):
            write_mask(mask, place / "plain-date.nii.gz")
            planted_nifti(place / f"{date.day}-{kind}.nii.gz", place / "plain-date.nii.gz")
    return place


def words_of(world: Path, command: str, scan: Path) -> list[object]:
    masks = ["--lung", world / "lung.nii.gz", "--lesion", world / "lesion.nii.gz"]
    if command == "predict":
        return [world / "model", scan, "--device", "cpu"]
    if command == "follow-up":
        other = [
            word
            for kind in ("lung", "lesion")
            for day in (0, 7)
            for word in (f"--{kind}", world / f"{day}-{kind}.nii.gz")
        ]
        days = ["--day", "0", "--day", "7", "--no-viewer"]
        return [world / f"{FILES[0]}0", scan if "bad" in scan.parts else world / f"{FILES[0]}7", *other, *days]
    if command == "scene":
        pytest.importorskip("vtkmodules", reason="the extra viz3d is not installed")
    return [scan, *masks] if command in ("quantify", "scene") else [scan]


def texts_of(folder: Path) -> dict[str, bytes]:
    """Everything that was written, by name, and once more as it is inside its compression."""
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        data = path.read_bytes() if path.is_file() else b""
        found[name] = name.encode() + b"\n" + data
        if data.startswith(b"\x1f\x8b"):
            found[f"{name} inflated"] = gzip.decompress(data)
        if path.is_file() and is_zipfile(path):
            with ZipFile(path) as archive:
                found |= {f"{name}/{one}": one.encode() + archive.read(one) for one in archive.namelist()}
    return found


def hits(tokens: list[str], data: bytes) -> list[str]:
    return [
        token for token in tokens if any(token.encode(code) in data for code in ("utf-8", "utf-16-le", "utf-16-be"))
    ]


@pytest.mark.parametrize("scan", ["sound", "not in HU"])
@pytest.mark.parametrize("command", ["predict", "quantify", "follow-up", "scene", "audit"])
def test_f61_no_planted_word_is_in_any_output_log_or_error(
    world: Path,
    tmp_path: Path,
    command: str,
    scan: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len({*IN_HEADERS, *FILES}) > 60
    assert len(PLANTED) + len(DATES) >= 40
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(registration, "GRID_MM", 6.0)
    given = world / ("bad" if scan != "sound" else "") / FILES[0]
    words = [*words_of(world, command, given), "--output", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["lungshift", command, *map(str, words)])

    with pytest.raises(SystemExit) as end:
        cli.main()

    said = "".join(capfd.readouterr())
    assert (end.value.code or 0) == (0 if scan == "sound" or command == "audit" else 1), said
    # a message may name the files that it was called with, and a cohort's cases are called by their folders
    kept = [*IN_HEADERS, *(FILES if command != "audit" else FILES[1:])]
    assert hits(IN_HEADERS, (said + caplog.text).encode()) == []
    written = texts_of(tmp_path)
    assert (scan != "sound") or len(written) > 2
    assert {name: found for name, data in written.items() if (found := hits(kept, data))} == {}
