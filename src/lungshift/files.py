"""Files that are either whole or absent: atomic verified writes, checksums, claimed output folders."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from isal import isal_zlib

from lungshift.errors import LungshiftError, OutputError, ResourceError

_CHUNK = 1 << 20
_RUN, _EMPTYING = "run.json", ".emptying.json"
_HOST = platform.node().replace("-", "_") or "here"
_HIDDEN = re.compile(r"\.(?:part|old)-(.*)-([^-]*)-(\d+)-(\d+)-[a-z0-9_]{8}(?:\..*)?", re.DOTALL)
"""A hidden name: what it becomes, host, process, when that was started, letters of chance, suffix."""
_NAME_LETTERS = 80
_UNKNOWN = 0
"""When a process was started of which nobody says it."""
_HERE, _RENAME_EXCHANGE = -100, 2
"""``AT_FDCWD`` and the flag of Linux's ``renameat2``."""
_NO_HANDLES = {errno.EMFILE, errno.ENFILE}
_OUTPUT_ERRNOS = _NO_HANDLES | {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""No input can be to blame for these."""
_CANNOT_RESERVE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
_RESOURCE_ERRNOS = _OUTPUT_ERRNOS | {errno.EACCES, errno.EPERM, errno.EIO}


def sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def crc32(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """CRC-32 of data that follows data of the checksum ``before``: isal's, many times as fast as zlib's."""
    return isal_zlib.crc32(data, before)


def digest(value: object) -> str:
    """SHA-256 of a value's text, for values whose text says everything: frozen settings, numbers, words."""
    return hashlib.sha256(_text(value).encode()).hexdigest()


def _text(value: object) -> str:
    """The text of a value; sets in order, for theirs differs from process to process."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_text, value)))}}}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))})"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}{_text([getattr(value, one.name) for one in fields(value)])}"
    return repr(value)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that ``path`` holds either its old content or all of ``data``, whatever happens.

    Raises:
        ResourceError: The disk is full or the folder cannot be written; ``path`` is as it was.
    """
    with (
        new_file(path, lambda temporary: temporary.read_bytes() == data) as temporary,
        resource_errors(path, takes=len(data)),
    ):
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """``write_bytes`` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """``write_text`` of indented JSON; NaN is written as null, for it is not JSON."""
    write_text(path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_file(path: Path, write: Callable[[Path], object], verify: Callable[[Path], bool] | None = None) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, check it, then rename it into place.

    Args:
        path: The file's final name; an existing file is replaced only once the new one is whole.
        write: Fills the file whose path it is given: a hidden name with the suffix of ``path``, as some writers go by it.
        verify: Reads the file again and says whether it holds what was meant.

    Raises:
        ResourceError: The disk is full, the folder cannot be written or the file reads back wrong; ``path`` is as it was.
    """
    with new_file(path, verify) as temporary, resource_errors(path, temporary):
        write(temporary)


@contextmanager
def new_file(path: Path, verify: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield an empty file beside ``path`` that takes its name only when the block ends without an error; as ``write_file``.

    Within the block an error that may be that of another file, which the block reads, passes unchanged.
    """
    with resource_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        handle, name = tempfile.mkstemp(prefix=_temporary(path), suffix="".join(path.suffixes[-2:]), dir=path.parent)
        os.close(handle)
        temporary = Path(name)
    try:
        with resource_errors(path, temporary, reads=True):
            yield temporary
        with resource_errors(path, temporary):
            _flush(temporary)
            if verify and not verify(temporary):
                raise OSError(errno.EIO, "what was read back is not what was written")
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Remove what dead processes left half-written in a folder, and put back what they had moved aside; with ``deep`` below it too."""
    find = folder.rglob if deep else folder.glob
    for file in list(find(".part-*")):
        if _is_left(file):
            with suppress(OSError):  # in a folder that is shared it may be another person's
                shutil.rmtree(file, ignore_errors=True) if file.is_dir() else file.unlink(missing_ok=True)
    for old in list(find(".old-*")):
        name = _HIDDEN.fullmatch(old.name)
        if not name or not _is_left(old):
            continue
        target = old.with_name(name[1])
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with suppress(OSError):
                old.replace(target)


def _temporary(path: Path, kind: str = "part") -> str:
    """Beginning of a hidden name beside ``path`` that says which process it belongs to."""
    name = path.name if kind == "old" else path.name[:_NAME_LETTERS]
    return f".{kind}-{name}-{_HOST}-{os.getpid()}-{_started(os.getpid()) or _UNKNOWN}-"


def _is_left(temporary: Path) -> bool:
    """Whether the process that a hidden name belongs to is gone; one that cannot be seen or is another machine's counts as running, as do names of others."""
    name = _HIDDEN.fullmatch(temporary.name)
    return name is not None and name[2] == _HOST and _started(int(name[3])) not in (_UNKNOWN, int(name[4]))


def _started(process: int) -> int | None:
    """When a running process was started, in ticks of the kernel, as its number alone may be that of another by now; None if there is none.

    ``_UNKNOWN`` where there is a process of that number and nobody says more: another person's (``/proc`` with ``hidepid``), or without ``/proc``.
    """
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except PermissionError:
        return _UNKNOWN
    except (FileNotFoundError, ProcessLookupError):
        return _UNKNOWN if _is_there(process) else None
    return None if state in ("Z", "X") else int(fields[18])


def _is_there(process: int) -> bool:
    """Whether there is a process of that number, whoever's it is."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextmanager
def resource_errors(
    path: Path, part: Path | None = None, *, takes: int | None = None, reads: bool = False
) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into a ``ResourceError`` that names ``path`` and the bytes.

    Args:
        path: What is to be written.
        part: The file or folder that is being filled, to say how much of it was written.
        takes: How many bytes it takes, where that is known.
        reads: The block reads other files too: an error that may be of one of them passes unchanged.
    """
    try:
        yield
    except OSError as error:
        number, shown = _number(error), _shown(path)
        if reads and number not in _OUTPUT_ERRNOS and not _is_of(error, part):
            raise
        if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
            raise OutputError(
                f"Cannot write {shown}: {error.strerror}. Choose another --output.", code="E_EXISTS"
            ) from error
        if number not in _RESOURCE_ERRNOS:
            raise
        size = f"it takes {takes:,} bytes" if takes is not None else f"{_size(part):,} bytes of it were written"
        raise ResourceError(
            f"Cannot write {shown}: {error.strerror or os.strerror(number)}; {size}, {_free(path):,} bytes free there. Nothing was left half-written; "
            "free some space or choose another --output."
        ) from error


def _number(error: BaseException | None) -> int:
    """The system's number of an error, which a library may have told again in words of its own; 0 if there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return 0


def _shown(path: Path) -> Path:
    """A path as it will be called once the folders that it is made in have their names."""
    return Path(*(name[1] if (name := _HIDDEN.fullmatch(part)) else part for part in path.parts))


def _is_of(error: OSError, part: Path | None) -> bool:
    """Whether an error is that of the file or folder being filled; a failed write names no file."""
    name = error.filename
    if name is None:
        return _number(error) == errno.EIO
    return part is not None and isinstance(name, (str, os.PathLike)) and Path(name).is_relative_to(part)


def blame_machine(error: OSError) -> None:
    """Raise what is no fault of the file that could not be opened; other errors are left to whoever asks.

    Raises:
        ResourceError: The system gives no more open files: the next file would fail as well.
    """
    if error.errno in _NO_HANDLES:
        raise ResourceError(
            f"{error.filename or 'A file'} cannot be opened: {error.strerror}. Close other programs, or raise the limit (ulimit -n)."
        ) from error


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder in ``beside`` for what is thrown away at the end of the block; that of a killed process is swept like its other files."""
    with resource_errors(beside):
        beside.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_temporary(beside / "scratch"), dir=beside))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def reserve(handle: int, length: int) -> None:
    """Set a file's length and take the room for it at once: a disk that is too small says so before the work.

    What is not written later reads as zeros. Nothing is left to be taken when it is read, which would kill the reader on some disks.
    """
    try:
        # From the end on: where a disk cannot reserve, the C library reads and writes every block that is named.
        size = os.fstat(handle).st_size
        if length > size and sys.platform == "linux":
            os.posix_fallocate(handle, size, length - size)
            return
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
    os.truncate(handle, length)


def require_room(path: Path, takes: int) -> None:
    """Refuse what does not fit on the disk before it is begun.

    Raises:
        ResourceError: Fewer than ``takes`` bytes are free where ``path`` is to lie.
    """
    if takes > (free := _free(path)):
        raise ResourceError(
            f"{path} takes {takes:,} bytes, and {free:,} are free there. Nothing was written; free some space or choose another --output."
        )


@contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its name only when the block ends without an error.

    A target that is a link to a folder stays one: the new folder is made where the link leads.

    Raises:
        OutputError: ``target`` exists and ``overwrite`` is not set, or is a link that leads nowhere.
    """
    require_free(target, overwrite=overwrite)
    target = target.resolve() if target.is_symlink() else target
    with resource_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file has that name", str(target))
        temporary = Path(tempfile.mkdtemp(prefix=_temporary(target), dir=target.parent))
    try:
        with resource_errors(target, temporary, reads=True):
            yield temporary
        with resource_errors(target, temporary):
            for file in temporary.rglob("*"):
                _flush(file)
                file.chmod(
                    (0o777 if file.is_dir() else 0o666) & ~_umask()
                )  # some writers leave their files to the owner alone
            temporary.chmod(0o777 & ~_umask())
            if target.exists():
                _swap(temporary, target)
            else:
                temporary.replace(target)
            _flush(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require_free(target: Path, *, overwrite: bool = False) -> None:
    """Refuse a target that already holds something.

    Raises:
        OutputError: ``target`` exists (an empty folder counts as free) and ``overwrite`` is not set, or is a link that leads nowhere.
    """
    _require_end(target)
    if overwrite or not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    raise OutputError(
        f"{target} already exists and was kept. Choose another --output, or say --overwrite to replace it.",
        code="E_EXISTS",
    )


def _require_end(target: Path) -> None:
    """Refuse a link that leads nowhere: what is meant to lie there may be a disk that is not mounted now."""
    if target.is_symlink() and not target.exists():
        raise OutputError(
            f"{target} is a link to {target.readlink()}, where nothing is. Make that folder or mount its disk, or choose another --output."
        )


@contextmanager
def run_folder(
    folder: Path,
    identity: Mapping[str, Any],
    *,
    overwrite: bool = False,
    results: str = "checkpoints",
    again: bool = False,
) -> Iterator[Path]:
    """Hold an output folder for a long run, which may be taken up again after a kill.

    ``run.json`` in the folder says whose it is and whether it is done. A folder with the same identity that is not done is
    taken up again, and what a killed process left half-written in it is swept; the lock is the operating system's, so that a crash
    cannot leave it behind.

    Args:
        folder: The output folder.
        identity: What makes two runs the same: settings and inputs, as JSON takes them.
        overwrite: Empty a folder of another or a finished run of lungshift first.
        results: What is found there once something was computed, as a pattern: such a folder is kept when the run fails.
        again: Take up a finished run too: its parts are known to whoever calls, and kept.

    Raises:
        OutputError: Another process writes there, it holds something else that is to be kept, or it is a link that leads nowhere.
        ResourceError: The folder cannot be written.
    """
    name = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    _require_end(folder)
    with resource_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        fresh = _make_room(folder, name, overwrite=overwrite, again=again)
        write_json(folder / _RUN, {"identity": name, "status": "running"})
        try:
            yield folder
        except LungshiftError:
            if fresh and not any(folder.glob(results)):
                _empty(folder)  # refused before anything was computed: nothing to go on from, and nothing in the way
            raise
        write_json(folder / _RUN, {"identity": name, "status": "done"})


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with resource_errors(path):
        stream = open(path, "a+")  # noqa: SIM115 — closed below
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            raise OutputError(
                f"Another lungshift process ({stream.read().strip() or 'just begun'}) is writing to {path.parent}; wait for it or "
                "choose another --output.",
                code="E_LOCKED",
            ) from error
        with suppress(OSError):  # it says who holds the lock; the lock holds without
            stream.truncate(0)
            stream.write(f"{os.getpid()} on {_HOST}\n")
            stream.flush()
        yield


def _make_room(folder: Path, identity: str, *, overwrite: bool, again: bool) -> bool:
    """Leave a folder that may be written, and say whether it is empty and not that of the same run which was stopped."""
    run, emptying = _read_run(folder / _RUN), _read_run(folder / _EMPTYING)
    sweep(folder, deep=bool(run or emptying))  # a folder that is no run's may be large, and is nobody's to tidy
    if emptying:
        _empty(folder)  # an --overwrite that was killed
        run = None
    there = [file for file in folder.iterdir() if file.name != ".lock"]
    if not there:
        return True
    if run and run["identity"] == identity and (again or run["status"] == "running") and not overwrite:
        return False
    if not overwrite:
        state = f"a {'finished' if run['status'] == 'done' else 'stopped'} run" if run else "files"
        raise OutputError(
            f"{folder} already holds {state} and was kept. Choose another --output, or say --overwrite.",
            code="E_EXISTS",
        )
    if run is None:
        raise OutputError(
            f"{folder} holds files that lungshift did not make; they are never overwritten. Choose another --output.",
            code="E_EXISTS",
        )
    _empty(folder)
    return True


def _read_run(file: Path) -> dict[str, str] | None:
    """What a ``run.json`` says, if it is lungshift's."""
    try:
        run = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(run, dict) and run.keys() == {"identity", "status"}
    return run if known else None


def _empty(folder: Path) -> None:
    """Remove all but the lock. First it is no run any more, so that none is ever seen with parts missing."""
    if (folder / _RUN).exists():
        (folder / _RUN).replace(folder / _EMPTYING)
    for file in folder.iterdir():
        if file.name not in (".lock", _EMPTYING):
            shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
    (folder / _EMPTYING).unlink(missing_ok=True)


def _swap(new: Path, target: Path) -> None:
    """Put ``new`` where ``target`` is, at once where the system can; else the old one goes only once the new one stands."""
    if _exchange(new, target):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = Path(tempfile.mkdtemp(prefix=_temporary(target, "old"), dir=target.parent))
    target.replace(old)
    try:
        new.replace(target)
    except OSError:
        old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places, so that there is never neither; False where kernel or file system cannot."""
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _umask() -> int:
    """What new files are kept from others; asked for by setting it, as there is no other way."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(part: Path | None) -> int:
    """Bytes in a file, or in all files of a folder."""
    if part is None:
        return 0
    files = part.rglob("*") if part.is_dir() else [part]
    return sum(file.stat().st_size for file in files if file.is_file())


def _free(path: Path) -> int:
    """Bytes that are free where a path lies, or will lie."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


def read_key(path: Path) -> str:
    """The ``key`` in an ``.npz`` of ``write_arrays``; empty where there is no such file, or a damaged one."""
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile), np.load(path) as kept:
        return str(kept["key"])
    return ""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an ``.npz``, whole or not at all; nothing in it is pickled."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    write_bytes(path, stream.getvalue())
