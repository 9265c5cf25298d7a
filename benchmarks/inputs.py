"""What is measured on: real cohorts where they are beside the project, and phantom scans of any length at 512 x 512."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MANIFEST = """name = "phantom512"

[[case]]
case_id = "P1"
patient_id = "P1"
volume = "volume.nii.gz"
lung = "lung.nii.gz"
lesion = "lesion.nii.gz"
"""


def write_phantom(folder: Path, slices: int, size: int = 512) -> None:
    """Write one phantom scan with its masks and a manifest: int16 HU, uint8 masks, gzip.

    The same twenty or so slices, 15 mm apart, come again and again, each time as a gzip member of their own: a thousand slices cost no more to
    write than twenty, and deflate, which looks back 32 KiB, cannot tell. No reader needs to know.
    """
    from lungshift.prepare.phantom import phantom_case
    from lungshift.prepare.phantom_site import Site

    case = phantom_case(0, 0, Site(size=size, pixel_mm=380 / size, slice_mm=15))
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST)
    spacing = case.volume.geometry.spacing_mm
    hu = case.volume.hu if case.volume.hu.dtype == np.int16 else np.rint(case.volume.hu).astype(np.int16)
    _write_repeated(folder / "volume.nii.gz", hu, slices, spacing)
    for name, mask in (("lung", case.lung), ("lesion", case.lesion)):
        if mask is not None:
            _write_repeated(folder / f"{name}.nii.gz", mask.voxels.view(np.uint8), slices, spacing)


def _write_repeated(path: Path, array: np.ndarray, slices: int, spacing_mm: tuple[float, float, float]) -> None:
    """A NIfTI file whose slices are those of ``array`` (slice, row, column), over and over."""
    import nibabel as nib
    from isal import igzip

    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape((array.shape[2], array.shape[1], slices))
    header.set_data_dtype(array.dtype)
    affine = np.diag([-spacing_mm[2], -spacing_mm[1], 1.0, 1.0])
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header["xyzt_units"], header["vox_offset"] = 2, 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    whole, rest = divmod(slices, len(array))
    member = igzip.compress(array.tobytes(), compresslevel=3, mtime=0)
    with open(path, "wb") as file:
        file.write(igzip.compress(header.binaryblock + bytes(4), mtime=0))
        for _ in range(whole):
            file.write(member)
        if rest:
            file.write(igzip.compress(array[:rest].tobytes(), compresslevel=3, mtime=0))


def case_files(cohort: Path) -> list[dict[str, str]]:
    """Paths of scan, lung and lesion mask of every case of a cohort of NIfTI files."""
    from lungshift.io.cohort import read_cohort

    sources = [case.source for case in read_cohort(cohort).cases]
    return [{name: str(getattr(source, name)) for name in ("volume", "lung", "lesion")} for source in sources]


def count_slices(cohort: Path) -> int:
    """Slices of a cohort, from its headers."""
    from lungshift.io.cohort import read_cohort

    return sum(case.source.geometry.shape[0] for case in read_cohort(cohort).cases)
