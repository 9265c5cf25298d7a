"""Files are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from pathlib import Path

import pytest

from lungshift import files
from lungshift.errors import InputError, OutputError, ResourceError


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def fail(number: int) -> None:
    """Raise the operating system's error of this number."""
    raise OSError(number, os.strerror(number))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "new" / "deep" / "scan.bin", b"\x00\xff")
    files.write_text(tmp_path / "note.txt", "ölüm")

    assert (tmp_path / "new" / "deep" / "scan.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "note.txt").read_text(encoding="utf-8") == "ölüm"
    assert names(tmp_path) == ["new", "note.txt"]


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    files.write_text(tmp_path / "note.txt", "x")

    assert (tmp_path / "note.txt").stat().st_mode & 0o777 == 0o644


def test_a_writer_sees_the_suffix_but_not_the_name(tmp_path: Path) -> None:
    seen: list[Path] = []

    files.write_file(tmp_path / "scan.nii.gz", lambda path: (seen.append(path), path.write_bytes(b"1")))

    assert seen[0].name.startswith(".part-")
    assert seen[0].name.endswith(".nii.gz")
    assert seen[0].parent == tmp_path
    assert names(tmp_path) == ["scan.nii.gz"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")], ids=repr)
def test_a_writer_that_fails_halfway_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "scan.bin"
    target.write_bytes(b"old")

    def write(path: Path) -> None:
        path.write_bytes(b"ne")
        raise error

    with pytest.raises((ValueError, KeyboardInterrupt, ResourceError)):
        files.write_file(target, write)

    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["scan.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_full_or_locked_disk_is_named_with_what_to_do(tmp_path: Path, number: int) -> None:
    with pytest.raises(ResourceError, match=r"Cannot write .*scan.bin: .*MiB free.*--output") as refusal:
        files.write_file(tmp_path / "scan.bin", lambda _: fail(number))

    assert refusal.value.exit_code == 6
    assert names(tmp_path) == []


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write_file(tmp_path / "scan.bin", lambda _: fail(errno.ENOENT))


def test_a_disk_that_reads_back_something_else_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"rot")

    with pytest.raises(ResourceError, match="not what was written"):
        files.write_bytes(tmp_path / "scan.bin", b"right")

    assert names(tmp_path) == []


def test_json_has_no_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"dice": math.nan, "list": [1, (math.nan, 2.5)], 3: "ø"})

    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"dice": None, "list": [1, [None, 2.5]], "3": "ø"}
    assert "ø" in text
    assert text.endswith("\n")


def test_json_that_cannot_be_said_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", math.inf)

    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 1])
def test_a_checksum_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(data[:size])

    assert files.sha256(tmp_path / "a") == hashlib.sha256(data[:size]).hexdigest()


def test_a_new_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with files.new_folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("1")
        (folder / "sub" / "a.txt").chmod(0o600)
        assert not target.exists()

    assert (target / "sub" / "a.txt").read_text() == "1"
    assert names(tmp_path) == ["run"]
    assert target.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in target.rglob("*") if file.is_file()} == {0o644}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_fails_leaves_nothing_new(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "run"
    if overwrite:
        target.mkdir()
        (target / "old.txt").write_text("old")

    with pytest.raises(OSError, match="No such device"), files.new_folder(target, overwrite=overwrite) as folder:
        fail(errno.ENODEV if (folder / "a.txt").write_text("1") else 0)

    assert names(tmp_path) == (["run"] if overwrite else [])
    assert not overwrite or names(target) == ["old.txt"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_exists_is_kept_unless_told_otherwise(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "run"
    if kind == "folder":
        target.mkdir()
        (target / "old.txt").write_text("old")
    else:
        target.write_text("old")

    with pytest.raises(OutputError, match="already exists and was kept") as refusal, files.new_folder(target):
        pytest.fail("the block must not run")

    assert refusal.value.code == "E_EXISTS"
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize(
    "kind",
    [
        "folder",
        "empty folder",
    ],
)
def test_overwrite_replaces_the_whole_of_what_was_there(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "run"
    target.mkdir()
    if kind == "folder":
        (target / "old.txt").write_text("old")

    with files.new_folder(target, overwrite=kind != "empty folder") as folder:
        (folder / "new.txt").write_text("new")

    assert names(target) == ["new.txt"]
    assert names(tmp_path) == ["run"]


def test_an_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "run", Path.replace
    target.mkdir()
    (target / "old.txt").write_text("old")

    def refuse_new(path: Path, to: Path) -> Path:
        return fail(errno.EIO) if path.name.startswith(".part-") else rename(path, to)  # type: ignore[return-value,func-returns-value]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse_new)
        with pytest.raises(ResourceError), files.new_folder(target, overwrite=True) as folder:
            (folder / "new.txt").write_text("new")

    assert names(tmp_path) == ["run"]
    assert names(target) == ["old.txt"]


def test_an_output_below_a_file_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("a file")

    with pytest.raises((OutputError, ResourceError), match="report"):
        files.write_text(tmp_path / "report" / "table.csv", "1")


def test_a_folder_that_cannot_be_made_is_a_resource_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "mkdtemp", lambda **_: fail(errno.EACCES))

    with pytest.raises(ResourceError, match=r"Cannot write .*run"), files.new_folder(tmp_path / "run"):
        pytest.fail("the block must not run")


def test_a_folder_never_takes_the_place_of_a_file(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.write_text("mine")

    with pytest.raises(OutputError, match="run"), files.new_folder(target, overwrite=True):
        pytest.fail("the block must not run")

    assert target.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_leftovers_of_a_dead_process_are_swept_and_what_it_moved_aside_comes_back(tmp_path: Path) -> None:
    dead = 2**22 - 3
    (tmp_path / f".part-table.csv-{HOST}-{dead}-abc").write_text("half")
    moved = tmp_path / f".old-run-{HOST}-{dead}-xyz"
    moved.mkdir()
    (moved / "old.txt").write_text("old")
    mine = tmp_path / f".part-other-{HOST}-{os.getpid()}-abc"
    mine.write_text("still being written")
    elsewhere = tmp_path / f".part-third-other_host-{dead}-abc"
    elsewhere.write_text("by a process of another machine")

    files.write_text(tmp_path / "new.csv", "1")

    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([mine.name, elsewhere.name, "new.csv", "run"])
    assert (tmp_path / "run" / "old.txt").read_text() == "old"


HOST = files._HOST


class TestRunFolder:
    IDENTITY = {"protocol": "demo"}

    def test_a_stopped_run_is_taken_up_again_and_keeps_its_files(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), files.run_folder(tmp_path / "run", self.IDENTITY) as folder:
            (folder / "state").write_text("epoch 3")
            raise RuntimeError

        with files.run_folder(tmp_path / "run", self.IDENTITY) as folder:
            assert (folder / "state").read_text() == "epoch 3"

    def test_a_finished_run_is_kept_unless_it_may_be_overwritten(self, tmp_path: Path) -> None:
        with files.run_folder(tmp_path / "run", self.IDENTITY) as folder:
            (folder / "report.html").write_text("result")

        with pytest.raises(OutputError, match="finished run"), files.run_folder(tmp_path / "run", self.IDENTITY):
            pytest.fail("the block must not run")
        with files.run_folder(tmp_path / "run", self.IDENTITY, overwrite=True) as folder:
            assert not (folder / "report.html").exists()

    def test_another_run_is_refused_and_so_are_files_that_lungshift_did_not_make(self, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").write_text("mine")
        with pytest.raises(RuntimeError), files.run_folder(tmp_path / "run", self.IDENTITY):
            raise RuntimeError

        with pytest.raises(OutputError, match="stopped run"), files.run_folder(tmp_path / "run", {"protocol": "paper"}):
            pytest.fail("the block must not run")
        with (
            pytest.raises(OutputError, match="did not make"),
            files.run_folder(tmp_path / "thesis", self.IDENTITY, overwrite=True),
        ):
            pytest.fail("the block must not run")
        assert (tmp_path / "thesis" / "chapter.tex").read_text() == "mine"

    def test_a_run_that_was_refused_at_once_leaves_its_folder_free(self, tmp_path: Path) -> None:
        with pytest.raises(InputError), files.run_folder(tmp_path / "run", self.IDENTITY) as folder:
            (folder / "prepared").mkdir()
            raise InputError("say --allow-leak")

        with files.run_folder(tmp_path / "run", {"allow_leak": True}) as folder:
            assert [file.name for file in folder.iterdir() if file.name not in (".lock", "run.json")] == []

    @pytest.mark.parametrize("text", ["{}", "[]", '{"id": 3}', "no json"])
    def test_a_run_json_of_somebody_else_protects_its_folder(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.json").write_text(text)

        with (
            pytest.raises(OutputError, match="did not make"),
            files.run_folder(tmp_path, self.IDENTITY, overwrite=True),
        ):
            pytest.fail("the block must not run")

    def test_an_error_of_an_input_is_not_taken_for_one_of_the_output(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), files.run_folder(tmp_path / "run", self.IDENTITY):
            (tmp_path / "scan.nii.gz").read_bytes()

    def test_two_processes_never_share_a_folder(self, tmp_path: Path) -> None:
        with (
            files.run_folder(tmp_path / "run", self.IDENTITY),
            pytest.raises(OutputError, match="Another lungshift process"),
            files.run_folder(tmp_path / "run", self.IDENTITY),
        ):
            pytest.fail("the block must not run")


def test_new_files_keep_to_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_text(tmp_path / "mask", "private")
        with files.new_folder(tmp_path / "run"):
            pass
    finally:
        os.umask(before)

    assert (tmp_path / "mask").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_a_digest_tells_values_apart_and_does_not_depend_on_the_order_of_sets() -> None:
    assert files.digest(frozenset({"b", "a", "c"})) == files.digest(frozenset({"c", "b", "a"}))
    assert files.digest((1, 2)) != files.digest((1, 3))
