"""Those who prepare a cohort, one function each; see ``benchmarks.turns``. Imports stay inside: each may live in its own environment."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Work = Callable[[], None]
Case = dict[str, str]


def lungshift(cohort: str, output: str, size: int, first: int | None = None) -> Work:
    """``prepare_cohort(read_cohort(folder))``, or its first cases, into an empty folder; checksums, checks and fsync included."""
    from dataclasses import replace

    from lungshift.io.cohort import read_cohort
    from lungshift.prepare.prepared import prepare_cohort

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=output) as folder:
            found = read_cohort(Path(cohort))
            prepare_cohort(replace(found, cases=found.cases[:first]), Path(folder), size=size)

    return work


def isal(cases: list[Case]) -> Work:
    """Inflate every file and drop the bytes: what no reader of the cohort can go below."""
    from isal import igzip_lib

    def inflate(path: str) -> None:
        with open(path, "rb", buffering=0) as file:
            rest = file.read(1 << 17)
            while rest:
                member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                member.decompress(rest, 1 << 17)
                while not member.eof:
                    member.decompress(file.read(1 << 17) if member.needs_input else b"", 1 << 17)
                rest = member.unused_data or file.read(1 << 17)

    def work() -> None:
        for case in cases:
            for path in case.values():
                inflate(path)

    return work


def simpleitk(cases: list[Case], output: str, size: int) -> Work:
    """SimpleITK and numpy: read, orient, resample in the plane, round, count, save. No checksums, no checks, no fsync."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def picture(path: str, method: int, fill: float) -> np.ndarray:
        image = sitk.DICOMOrient(sitk.ReadImage(path), "LPS")
        columns, rows, _ = image.GetSize()
        if (columns, rows) != (size, size):
            reference = sitk.Image(size, size, image.GetSize()[2], image.GetPixelID())
            reference.CopyInformation(_shrunk(image, size))
            image = sitk.Resample(image, reference, sitk.Transform(), method, fill)
        array: np.ndarray = sitk.GetArrayFromImage(image)
        return array

    def _shrunk(image: Any, size: int) -> Any:
        columns, rows, slices = image.GetSize()
        x, y, z = image.GetSpacing()
        frame = sitk.Image(size, size, slices, sitk.sitkUInt8)
        frame.SetSpacing((x * columns / size, y * rows / size, z))
        frame.SetDirection(image.GetDirection())
        corner = [(columns / size - 1) / 2, (rows / size - 1) / 2, 0]
        frame.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(corner))
        return frame

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=output) as folder:
            for number, case in enumerate(cases):
                hu = picture(case["volume"], sitk.sitkLinear, -1024)
                lung, lesion = (picture(case[name], sitk.sitkNearestNeighbor, 0) != 0 for name in ("lung", "lesion"))
                _keep(Path(folder) / str(number), hu, lung, lesion)

    return work


def nibabel(cases: list[Case], output: str, size: int) -> Work:
    """``get_fdata`` and scikit-image's ``resize`` of every slice, as in the source paper's field: always, even to its own size."""
    import nibabel as nib
    import numpy as np
    from skimage.transform import resize

    def picture(path: str, order: int) -> np.ndarray:
        slices = nib.load(path).get_fdata().transpose(2, 1, 0)
        smooth = order == 1
        return np.stack(
            [resize(one, (size, size), order=order, preserve_range=True, anti_aliasing=smooth) for one in slices]
        )

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=output) as folder:
            for number, case in enumerate(cases):
                hu = picture(case["volume"], 1)
                lung, lesion = (picture(case[name], 0) != 0 for name in ("lung", "lesion"))
                _keep(Path(folder) / str(number), hu, lung, lesion)

    return work


def plain_write(output: str, slices: int, size: int) -> Work:
    """Write as many bytes as the prepared pictures and masks have, in one piece a slice, without fsync."""
    import numpy as np

    hu, masks = np.ones((size, size), np.int16), np.ones((size, size), np.uint8)

    def work() -> None:
        folder = Path(tempfile.mkdtemp(dir=output))
        for name, array in (("hu", hu), ("masks", masks)):
            with open(folder / name, "wb", buffering=0) as file:
                for _ in range(slices):
                    file.write(array.data)
        shutil.rmtree(folder)

    return work


def _keep(stem: Path, hu: np.ndarray, lung: np.ndarray, lesion: np.ndarray) -> None:
    """What the others also make: int16 pictures, one byte of masks a pixel, counts of each slice."""
    import numpy as np

    np.save(f"{stem}-hu.npy", np.clip(np.rint(hu), -1024, 3071).astype(np.int16))
    np.save(f"{stem}-masks.npy", lung | lesion.astype(np.uint8) << 1)
    np.save(f"{stem}-table.npy", np.stack([lung.sum(axis=(1, 2)), lesion.sum(axis=(1, 2))]))
