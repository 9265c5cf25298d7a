"""Files are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from killing import every_kill
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
    with pytest.raises(ResourceError, match=r"Cannot write .*scan.bin: .* bytes free there.*--output") as refusal:
        files.write_file(tmp_path / "scan.bin", lambda _: fail(number))

    assert refusal.value.exit_code == 6
    assert names(tmp_path) == []


def test_f75_the_bytes_that_are_wanted_and_those_that_are_free_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", lambda *_: fail(errno.ENOSPC))

    with pytest.raises(
        ResourceError, match=r"scan.bin: No space left on device; it takes 1,234 bytes, [\d,]+ bytes free"
    ):
        files.write_bytes(tmp_path / "scan.bin", bytes(1234))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EMFILE])
def test_f76_a_disk_that_fails_amid_a_folder_is_named_with_what_was_written(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(ResourceError, match=rf"{tmp_path}/run: .*; 5 bytes of it were written, [\d,]+ bytes free"),
        files.new_folder(tmp_path / "run") as folder,
    ):
        (folder / "a.txt").write_bytes(b"12345")
        fail(number)

    assert names(tmp_path) == []


def test_a_full_disk_that_a_library_tells_in_words_of_its_own_is_known_all_the_same(tmp_path: Path) -> None:
    def write(_: Path) -> None:
        try:
            fail(errno.ENOSPC)
        except OSError as error:  # as pydicom does
            raise OSError(f"With tag (7FE0,0010) got exception: {error}") from error

    with pytest.raises(ResourceError, match=r"Cannot write .*/lesion.dcm: No space left on device; 0 bytes of it"):
        files.write_file(tmp_path / "lesion.dcm", write)


def test_what_is_told_of_a_file_in_a_new_folder_has_the_name_that_the_folder_will_have(tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match=rf"Cannot write {tmp_path}/scene/a.csv: "),
        files.new_folder(tmp_path / "scene") as room,
    ):
        files.write_file(room / "a.csv", lambda _: fail(errno.ENOSPC))


def test_an_input_that_cannot_be_read_amid_a_folder_is_not_taken_for_the_output(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), files.new_folder(tmp_path / "run"):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/scan.nii.gz")


def test_f75_room_that_is_not_there_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.require_room(tmp_path / "run", 1000)
    monkeypatch.setattr(files, "_free", lambda _: 999)

    with pytest.raises(ResourceError, match=r"run takes 1,000 bytes, and 999 are free there. Nothing was written"):
        files.require_room(tmp_path / "run", 1000)


def test_where_a_file_system_takes_no_room_ahead_a_file_has_its_length_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", lambda *_: fail(errno.EOPNOTSUPP))

    with (tmp_path / "hu.npy").open("wb") as stream:
        files.reserve(stream.fileno(), 1000)

    assert (tmp_path / "hu.npy").stat().st_size == 1000


def test_f77_temporary_files_lie_beside_what_they_become_whatever_tmpdir_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "elsewhere"))
    seen: list[Path] = []

    files.write_file(tmp_path / "out" / "a.csv", lambda path: (seen.append(path), path.write_text("1")))
    with files.new_folder(tmp_path / "run") as folder:
        seen.append(folder)

    assert [path.parent for path in seen] == [tmp_path / "out", tmp_path]


def test_f81_names_of_temporary_files_hold_no_time_and_never_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 0.0)

    with (
        files.new_folder(tmp_path / "run") as one,
        files.new_folder(tmp_path / "run") as other,
        files.new_file(tmp_path / "a.csv") as third,
        files.new_file(tmp_path / "a.csv") as fourth,
    ):
        assert len({one, other, third, fourth}) == 4
        (one / "who").write_text("one")
        other.rmdir()
        other.mkdir()


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

    monkeypatch.setattr(files, "_exchange", lambda *_: False)

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


@pytest.mark.parametrize("there", [(), ("old.txt",)], ids=["empty", "not empty"])
@pytest.mark.parametrize("exchanges", [True, False], ids=["exchanged", "in two steps"])
def test_a_new_folder_through_a_link_is_made_where_the_link_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    (tmp_path / "disk" / "scene").mkdir(parents=True)
    for name in there:
        (tmp_path / "disk" / "scene" / name).write_text("old")
    (tmp_path / "link").symlink_to("disk/scene")

    with files.new_folder(tmp_path / "link", overwrite=bool(there)) as part:
        assert part.parent == tmp_path / "disk", "beside the folder, on its own disk"
        (part / "new.txt").write_text("new")

    assert (tmp_path / "link").readlink() == Path("disk/scene")
    assert names(tmp_path / "disk" / "scene") == ["new.txt"]
    assert (names(tmp_path), names(tmp_path / "disk")) == (["disk", "link"], ["scene"])


def test_a_run_through_a_link_is_kept_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    for text in ("first", "second"):
        with files.run_folder(tmp_path / "link", {"run": text}, overwrite=True) as folder:
            files.write_text(folder / f"{text}.txt", text)

    assert (tmp_path / "link").readlink() == Path("disk")
    assert names(tmp_path / "disk") == [".lock", "run.json", "second.txt"]


@pytest.mark.parametrize("leads", ["gone", "link"], ids=["nowhere", "to itself"])
@pytest.mark.parametrize("room", ["new_folder", "run_folder"])
def test_a_link_that_leads_nowhere_is_refused_and_kept(tmp_path: Path, room: str, leads: str) -> None:
    (tmp_path / "link").symlink_to(leads)
    made = (
        files.new_folder(tmp_path / "link", overwrite=True)
        if room == "new_folder"
        else files.run_folder(tmp_path / "link", {}, overwrite=True)
    )

    with pytest.raises(OutputError, match=r"is a link to .*, where nothing is") as caught, made:
        raise AssertionError("there is no such folder")

    assert caught.value.code == "E_OUTPUT"
    assert names(tmp_path) == ["link"]


def test_a_folder_never_takes_the_place_of_a_file(tmp_path: Path) -> None:
    target = tmp_path / "run"
    target.write_text("mine")

    with pytest.raises(OutputError, match="run"), files.new_folder(target, overwrite=True):
        pytest.fail("the block must not run")

    assert target.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


HOST, DEAD, RANDOM = files._HOST, "4194301-77", "abcd_123"


def test_leftovers_of_a_dead_process_are_swept_and_what_it_moved_aside_comes_back(tmp_path: Path) -> None:
    (tmp_path / f".part-table.csv-{HOST}-{DEAD}-{RANDOM}").write_text("half")
    (tmp_path / f".part-odd.1-2.csv-{HOST}-{DEAD}-{RANDOM}.1-2.csv").write_text("half")
    moved = tmp_path / f".old-run-{HOST}-{DEAD}-{RANDOM}"
    moved.mkdir()
    (moved / "old.txt").write_text("old")
    mine = tmp_path / f"{files._temporary(tmp_path / 'other')}{RANDOM}"
    mine.write_text("still being written")
    elsewhere = tmp_path / f".part-third-other_host-{DEAD}-{RANDOM}"
    elsewhere.write_text("by a process of another machine")
    foreign = tmp_path / ".part-of-something-else"
    foreign.write_text("not ours")

    files.write_text(tmp_path / "new.csv", "1")

    kept = [mine.name, elsewhere.name, foreign.name, "new.csv", "run"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)
    assert (tmp_path / "run" / "old.txt").read_text() == "old"


def test_leftovers_are_swept_though_another_process_has_the_number_of_the_dead_one_by_now(tmp_path: Path) -> None:
    (tmp_path / f".part-table.csv-{HOST}-{os.getpid()}-77-{RANDOM}").write_text("half")

    files.write_text(tmp_path / "new.csv", "1")

    assert names(tmp_path) == ["new.csv"]


def test_leftovers_of_a_killed_process_that_nobody_has_asked_after_are_swept(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    while files._started(child.pid) is not None:  # until it is a zombie
        pass
    (tmp_path / f".part-table.csv-{HOST}-{child.pid}-77-{RANDOM}").write_text("half")

    files.write_text(tmp_path / "new.csv", "1")
    child.wait()

    assert names(tmp_path) == ["new.csv"]


class TestProcessesOfOthersAreHidden:
    """``/proc`` mounted with ``hidepid``: what another person's process is doing cannot be read (1), or not even seen (2)."""

    OTHERS, GONE = 4100001, 4100002

    @pytest.fixture(params=[PermissionError, FileNotFoundError], ids=["hidepid=1", "hidepid=2"])
    def hidden(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        read, kill = Path.read_text, os.kill

        def read_text(path: Path, *words: str) -> str:
            if str(self.OTHERS) in str(path):
                raise request.param(errno.EPERM, "hidden", str(path))
            return read(path, *words)

        def ask(process: int, number: int) -> None:
            if process == self.OTHERS:
                raise PermissionError(errno.EPERM, "of another person")
            kill(process, number)

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(os, "kill", ask)

    @pytest.mark.usefixtures("hidden")
    def test_what_another_person_is_writing_is_left_alone_and_what_is_over_is_swept(self, tmp_path: Path) -> None:
        (tmp_path / f".part-a.csv-{HOST}-{self.OTHERS}-77-{RANDOM}").write_text("being written")
        (tmp_path / f".part-b.csv-{HOST}-{self.GONE}-77-{RANDOM}").write_text("half")
        mine = tmp_path / f"{files._temporary(tmp_path / 'c')}{RANDOM}"
        mine.write_text("being written")

        files.write_text(tmp_path / "new.csv", "1")

        assert names(tmp_path) == sorted([f".part-a.csv-{HOST}-{self.OTHERS}-77-{RANDOM}", mine.name, "new.csv"])


def test_a_name_with_a_number_that_no_process_can_have_is_swept(tmp_path: Path) -> None:
    (tmp_path / f".part-a.csv-{HOST}-{10**30}-77-{RANDOM}").write_text("half")

    files.write_text(tmp_path / "new.csv", "1")

    assert names(tmp_path) == ["new.csv"]


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Makes one new folder after another."""
    numbers = itertools.count()

    def make() -> Path:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return folder

    return make


class TestKilledBeforeEveryChange:
    """F70 to F74: SIGKILL right before each change to the folder, one after another; what can be seen is old or new, and whole."""

    def test_a_file_is_the_old_or_the_new_one(self, fresh: Callable[[], Path]) -> None:
        def begin() -> Path:
            folder = fresh()
            (folder / "a.csv").write_text("old")
            return folder

        for folder in every_kill(begin, lambda folder: files.write_text(folder / "a.csv", "new")):
            assert (folder / "a.csv").read_text() in ("old", "new")
            files.write_text(folder / "b.csv", "next")
            assert names(folder) == ["a.csv", "b.csv"]

    def test_a_folder_that_is_replaced_is_never_missing(self, fresh: Callable[[], Path]) -> None:
        def begin() -> Path:
            folder = fresh()
            (folder / "run").mkdir()
            (folder / "run" / "a.csv").write_text("old")
            (folder / "run" / "b.csv").write_text("old")
            return folder

        def replace(folder: Path) -> None:
            with files.new_folder(folder / "run", overwrite=True) as part:
                files.write_text(part / "a.csv", "new")
                (part / "b.csv").write_text("new")

        for folder in every_kill(begin, replace):
            assert {(folder / "run" / name).read_text() for name in ("a.csv", "b.csv")} in ({"old"}, {"new"})
            files.write_text(folder / "next", "1")
            assert names(folder) == ["next", "run"]

    def test_where_folders_cannot_be_exchanged_the_old_one_comes_back(
        self, fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)

        def begin() -> Path:
            folder = fresh()
            (folder / "run").mkdir()
            (folder / "run" / "a.csv").write_text("old")
            return folder

        def replace(folder: Path) -> None:
            with files.new_folder(folder / "run", overwrite=True) as part:
                (part / "a.csv").write_text("new")

        for folder in every_kill(begin, replace):
            files.write_text(folder / "next", "1")
            assert (folder / "run" / "a.csv").read_text() in ("old", "new")
            assert names(folder) == ["next", "run"]

    def test_a_run_is_taken_up_by_the_same_call_and_leaves_nothing_behind(self, fresh: Callable[[], Path]) -> None:
        def run(folder: Path) -> None:
            with files.run_folder(folder / "out", {"seed": 1}) as out:
                for name in ("tests/a.csv", "tests/b.csv", "report.html"):
                    if not (out / name).exists():
                        files.write_text(out / name, name)

        for folder in every_kill(fresh, run):
            if (
                json.loads(
                    (folder / "out" / "run.json").read_text() if (folder / "out" / "run.json").exists() else "{}"
                ).get("status")
                != "done"
            ):
                run(folder)
            assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
                "out/.lock", "out/report.html", "out/run.json", "out/tests/a.csv", "out/tests/b.csv",
            ]  # fmt: skip

    def test_a_finished_run_that_is_being_overwritten_is_never_shown_with_parts_missing(
        self, fresh: Callable[[], Path]
    ) -> None:
        def run(folder: Path, seed: int, *, overwrite: bool = False) -> None:
            with files.run_folder(folder, {"seed": seed}, overwrite=overwrite) as out:
                files.write_text(out / "a.csv", str(seed))
                files.write_text(out / "b.csv", str(seed))

        def begin() -> Path:
            folder = fresh()
            run(folder, 1)
            return folder

        for folder in every_kill(begin, lambda folder: run(folder, 2, overwrite=True)):
            told = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
            if told.get("status") == "done":
                assert (folder / "a.csv").read_text() == (folder / "b.csv").read_text()
            else:
                run(folder, 2)
            assert names(folder) == [".lock", "a.csv", "b.csv", "run.json"]


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

    def test_f80_two_processes_never_share_a_folder_and_the_second_is_told_who_the_first_is(
        self, tmp_path: Path
    ) -> None:
        for _ in range(2):  # who is refused does not wipe out who is there
            with (
                files.run_folder(tmp_path / "run", self.IDENTITY, again=True),
                pytest.raises(OutputError, match=rf"Another lungshift process \({os.getpid()} on {HOST}\)") as refusal,
                files.run_folder(tmp_path / "run", self.IDENTITY),
            ):
                pytest.fail("the block must not run")
            assert refusal.value.code == "E_LOCKED"

    def test_f80_the_lock_of_a_process_that_was_killed_is_taken_over(self, tmp_path: Path) -> None:
        hold = (
            "import sys, time; from pathlib import Path; from lungshift.files import run_folder\n"
            "with run_folder(Path(sys.argv[1]), {}): print('held', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(OutputError, match=rf"\({holder.pid} on "), files.run_folder(tmp_path, {}):
                pytest.fail("the block must not run")
            holder.kill()

        with files.run_folder(tmp_path, {}):
            assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} on ")


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


def test_a_file_that_somebody_has_open_is_replaced_and_they_read_the_old_one_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    files.write_text(path, "old")
    with open(path) as reader:
        files.write_text(path, "new")

        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_where_a_system_forbids_that_it_is_said_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    files.write_text(path, "old")

    def locked(*_: object) -> None:
        raise PermissionError(errno.EACCES, "it is open in another program")

    monkeypatch.setattr(Path, "replace", locked)

    with pytest.raises(ResourceError, match=r"table\.csv.*open in another program"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


def test_room_for_a_file_that_grows_is_taken_from_its_end_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda handle, start, length: asked.append((start, length)))
    with open(tmp_path / "native.bin", "wb") as stream:
        stream.truncate(100)
        files.reserve(stream.fileno(), 250)

    assert asked == [(100, 150)]


def test_a_leftover_that_may_not_be_removed_does_not_keep_others_from_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / f".part-a-{files._HOST}-999999999-1-x"
    left.write_text("half")
    monkeypatch.setattr(files, "_is_left", lambda file: file == left)
    unlink = Path.unlink

    def forbidden(path: Path, **how: bool) -> None:
        if path == left:
            raise PermissionError(errno.EPERM, "it is another person's")
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", forbidden)
    files.write_text(tmp_path / "b.txt", "whole")

    assert (tmp_path / "b.txt").read_text() == "whole"
