"""Fetching the published cohorts, from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import FileFormatError, InputError, MissingError, OutputError
from lungshift.io.cohort import read_cohort
from lungshift.io.download import PUBLISHED, download, unpack
from lungshift.io.writing import write_mask, write_volume

GRID = Geometry.regular((3, 4, 5), (5, 0.7, 0.7))
NAMES = ("coronacases_001", "radiopaedia_4_85506_1")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


class Server:
    """A web server of one folder, with the checksums of what it serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), lambda *arguments: Quiet(*arguments, directory=str(folder))
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def checksums(self) -> dict[str, str]:
        return {path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in self.folder.iterdir()}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder, files = tmp_path / "www", tmp_path / "files"
    folder.mkdir()
    hu = np.linspace(-1000, 300, 60).astype(np.int16).reshape(GRID.shape)
    write_volume(Volume(hu, GRID), files / "scan.nii.gz")
    write_mask(Mask(hu > 0, GRID), files / "mask.nii.gz")
    for archive in PUBLISHED["coronacases10"].archives:
        content = (files / ("scan.nii.gz" if "20cases" in archive else "mask.nii.gz")).read_bytes()
        (folder / archive).write_bytes(zipped({f"{name}.nii.gz": content for name in NAMES}))
    running = Server(folder)
    yield running
    running.close()


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return data.getvalue()


def test_a_cohort_is_fetched_checked_unpacked_and_read(tmp_path: Path, server: Server) -> None:
    folder = download(
        "coronacases10", tmp_path / "out", base_url=server.url, checksums=server.checksums, progress=False
    )
    assert sorted(path.name for path in folder.iterdir()) == ["COVID-19-CT-Seg_20cases", "Infection_Mask", "Lung_Mask"]
    cohort = read_cohort(folder)
    assert [case.case_id for case in cohort.cases] == ["coronacases_001"]
    assert cohort.cases[0].read().volume.geometry.shape == GRID.shape


def test_another_checksum_is_refused_and_nothing_is_left(tmp_path: Path, server: Server) -> None:
    checksums = server.checksums | {"Lung_Mask.zip": "md5:" + "0" * 32}
    with pytest.raises(FileFormatError, match=r"Lung_Mask.zip is not what was published") as caught:
        download("coronacases10", tmp_path / "out", base_url=server.url, checksums=checksums, progress=False)
    assert caught.value.code == "E_CHECKSUM"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "www"]


def test_nothing_is_fetched_without_a_checksum(tmp_path: Path, server: Server) -> None:
    with pytest.raises(FileFormatError, match=r"no checksum for rp_im\.zip"):
        download("medseg9", tmp_path / "out", base_url=server.url, checksums=server.checksums, progress=False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", None], ids=["no server", "no such file"])
def test_what_cannot_be_reached_is_said_with_exit_code_5(tmp_path: Path, server: Server, url: str | None) -> None:
    checksums = server.checksums
    if url is None:
        (server.folder / "Lung_Mask.zip").unlink()
    with pytest.raises(MissingError, match="Cannot fetch") as caught:
        download("coronacases10", tmp_path / "out", base_url=url or server.url, checksums=checksums, progress=False)
    assert (caught.value.code, caught.value.exit_code) == ("E_NETWORK", 5)
    assert not (tmp_path / "out").exists()


def test_checksums_come_from_the_repository_behind_the_doi(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    asked = []

    def repository(store: pooch.Pooch) -> None:
        asked.append(store.base_url)
        store.registry.update(server.checksums)

    monkeypatch.setattr(pooch.Pooch, "load_registry_from_doi", repository)
    download("coronacases10", tmp_path / "out", base_url=server.url, progress=False)
    assert asked == ["doi:10.5281/zenodo.3757476/"]


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError):
        download("medseg9", tmp_path, checksums={})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unknown_cohort_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="medseg9, coronacases10"):
        download("mosmed", tmp_path / "out")


def test_the_archives_own_folders_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    archive = tmp_path / "rp_im.zip"
    archive.write_bytes(zipped({"rp_im/1.nii.gz": b"one", "__MACOSX/rp_im/._1.nii.gz": b"no", "readme.txt": b"no"}))
    unpack(archive, tmp_path / "rp_im")
    assert [path.name for path in (tmp_path / "rp_im").iterdir()] == ["1.nii.gz"]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"../../evil.nii.gz": b"x"}, id="zip slip"),
        pytest.param({"/tmp/evil.nii.gz": b"x"}, id="absolute"),
        pytest.param({"..\\evil.nii.gz": b"x"}, id="backslash"),
        pytest.param({"C:/evil.nii.gz": b"x"}, id="drive"),
        pytest.param({"a/1.nii.gz": b"x", "b/1.nii.gz": b"y"}, id="two of one name"),
        pytest.param({"readme.txt": b"x"}, id="nothing to unpack"),
    ],
)
def test_an_archive_that_is_not_safe_is_refused_before_anything_is_unpacked(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped(files))
    with pytest.raises(FileFormatError) as caught:
        unpack(archive, tmp_path / "in" / "out")
    assert caught.value.code == "E_ARCHIVE"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"not a zip")
    with pytest.raises(FileFormatError, match="not a sound zip archive"):
        unpack(archive, tmp_path / "out")
