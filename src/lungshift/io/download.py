"""The two published cohorts, fetched by DOI.

Checksums are not written down here: pooch asks the repository behind the DOI for the files it holds and their MD5, and
compares every archive with them.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lungshift.errors import FileFormatError, InputError, MissingError
from lungshift.files import new_folder
from lungshift.io.cohort import read_cohort

_MAX_BYTES = 64 << 30


@dataclass(frozen=True)
class Published:
    """A published cohort.

    Attributes:
        doi: Of the record that holds it.
        archives: The zip files to fetch; each becomes a folder of its own name.
    """

    doi: str
    archives: tuple[str, ...]


PUBLISHED: Mapping[str, Published] = {
    "medseg9": Published("10.6084/m9.figshare.13521509.v2", ("rp_im.zip", "rp_lung_msk.zip", "rp_msk.zip")),
    "coronacases10": Published(
        "10.5281/zenodo.3757476", ("COVID-19-CT-Seg_20cases.zip", "Lung_Mask.zip", "Infection_Mask.zip")
    ),
}
"""The cohorts that can be fetched: "MedSeg Covid Dataset 2" (figshare) and Ma et al.'s twenty scans (Zenodo)."""


def download(
    cohort: str,
    folder: Path | str,
    *,
    base_url: str | None = None,
    checksums: Mapping[str, str] | None = None,
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """Fetch a published cohort into a new folder, which appears only once everything is there, checked and unpacked.

    Args:
        cohort: A name in ``PUBLISHED``.
        folder: Where it goes.
        base_url: A mirror to fetch the archives from instead of the DOI's own repository.
        checksums: By archive name, as ``sha256:...`` or ``md5:...``; by default those that the DOI's repository states.
        progress: Show a progress bar for every archive.
        overwrite: Replace an existing folder.

    Returns:
        The folder, of a layout that ``read_cohort`` knows.

    Raises:
        InputError: No such cohort.
        FileFormatError: ``E_CHECKSUM`` or ``E_ARCHIVE``: not what was published, or not safe to unpack.
        MissingError: ``E_NETWORK``: the server or the file cannot be reached.
        OutputError: The folder exists.
        ResourceError: The disk is full.
    """
    if cohort not in PUBLISHED:
        raise InputError(f"There is no published cohort {cohort!r}; there are {', '.join(PUBLISHED)}.", code="E_COHORT")
    published = PUBLISHED[cohort]
    with new_folder(Path(folder), overwrite=overwrite) as temporary:
        archives = temporary / ".archives"
        for archive in _fetch(published, archives, base_url, checksums, progress):
            unpack(archive, temporary / archive.stem)
        shutil.rmtree(archives)
        read_cohort(temporary)
    return Path(folder)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the NIfTI files of a zip archive into one folder, without the archive's own folders.

    Raises:
        FileFormatError: ``E_ARCHIVE``: damaged, names that lead out of the folder, two files of one name, or no NIfTI file.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = _members(archive, bundle)
            folder.mkdir(parents=True)
            for name, member in members.items():
                with bundle.open(member) as source, open(folder / name, "xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise FileFormatError(f"{archive.name} is not a sound zip archive: {error}.", code="E_ARCHIVE") from error


def _members(archive: Path, bundle: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The NIfTI files to unpack by their name, once every name in the archive is known to be harmless."""
    found: dict[str, zipfile.ZipInfo] = {}
    for member in bundle.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise _unsafe(archive, f"holds {member.filename!r}, which leads out of the folder")
        if not path.name.endswith((".nii", ".nii.gz")) or path.name.startswith(".") or "__MACOSX" in path.parts:
            continue
        if path.name in found:
            raise _unsafe(archive, f"holds two files named {path.name}")
        found[path.name] = member
    if not found:
        raise _unsafe(archive, "holds no NIfTI file")
    if sum(member.file_size for member in found.values()) > _MAX_BYTES:
        raise _unsafe(archive, f"would unpack to more than {_MAX_BYTES >> 30} GiB")
    return found


def _unsafe(archive: Path, what: str) -> FileFormatError:
    return FileFormatError(f"{archive.name} {what}; nothing was unpacked.", code="E_ARCHIVE")


def _fetch(
    published: Published, folder: Path, base_url: str | None, checksums: Mapping[str, str] | None, progress: bool
) -> Iterator[Path]:
    """The archives, one after another, each compared with its checksum."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    doi_url = f"doi:{published.doi}/"
    with _network_errors(base_url or doi_url):
        registry = dict(checksums) if checksums is not None else _registry_of(pooch, doi_url, folder)
    _require_listed(published, registry)
    store = pooch.create(folder, base_url or doi_url, registry=registry)
    for archive in published.archives:
        with _network_errors(f"{base_url or doi_url}{archive}"):
            path = Path(store.fetch(archive, progressbar=progress))
        yield path


def _registry_of(pooch: Any, doi_url: str, folder: Path) -> dict[str, str]:
    store = pooch.create(folder, doi_url, registry=None)
    store.load_registry_from_doi()
    return dict(store.registry)


def _require_listed(published: Published, registry: Mapping[str, str]) -> None:
    if missing := [archive for archive in published.archives if not registry.get(archive)]:
        raise FileFormatError(
            f"There is no checksum for {', '.join(missing)} of doi:{published.doi}; it has {', '.join(registry) or 'none'}. "
            "Without one nothing is fetched.",
            code="E_CHECKSUM",
        )


@contextmanager
def _network_errors(what: str) -> Iterator[None]:
    """Turn what pooch and requests raise into one error that says what to do."""
    from requests import RequestException

    try:
        yield
    except RequestException as error:
        raise MissingError(
            f"Cannot fetch {what}: {type(error).__name__}: {error}. Is there a network? Fetch the archives by hand if not, "
            "and unpack each into a folder of its own name.",
            code="E_NETWORK",
        ) from error
    except ValueError as error:
        if "hash of downloaded file" not in str(error):
            raise MissingError(f"Cannot fetch {what}: {error}.", code="E_NETWORK") from error
        raise FileFormatError(
            f"What came from {what} is not what was published: {error} Nothing was kept; try again.", code="E_CHECKSUM"
        ) from error
