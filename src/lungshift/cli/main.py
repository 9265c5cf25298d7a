"""Every command by name, and how an error ends: one message and an exit code, never a traceback."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from lungshift import __version__
from lungshift.cli import audits, environment, models, patients, published, scenes, studies
from lungshift.errors import LungshiftError, what_is_missing

app = typer.Typer(
    name="lungshift",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": studies.demo,
    "download": published.download,
    "prepare": models.prepare,
    "transfer": studies.transfer,
    "chain": studies.chain,
    "leave-one-out": studies.leave_one_out,
    "train": models.train,
    "fine-tune": models.fine_tune,
    "evaluate": models.evaluate,
    "forecast": models.forecast,
    "predict": patients.predict,
    "quantify": patients.quantify,
    "scene": scenes.scene,
    "audit": audits.audit,
    "follow-up": patients.follow_up,
    "forensics": published.forensics,
    "doctor": environment.doctor,
}
"""The commands in the order in which ``--help`` lists them."""

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lungshift {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Does this lesion model work on our chest CT, and what does it cost to repair it? Research use only."""


_PACKAGE = "lungshift"
_LIBRARY = re.compile(r"\.(so|dll|dylib)\b")
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "failed to map segment",
)


def main() -> None:
    """Run the command line; every expected error is one message and an exit code, never a traceback."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _fail("E_USAGE: a command is one process; to train with several, call lungshift.fit under torchrun.", 2)
    _listen()
    try:
        app()
    except SystemExit as end:
        if end.code == 130:
            _fail("Stopped. The same command takes the run up again where it was.", 130)
        raise
    except LungshiftError as error:
        _fail(f"{error.code}: {error}", error.exit_code)
    except ImportError as error:
        _without_package(error)
    except OSError as error:
        _without_file(error)
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error):
            raise
        _out_of_memory()


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _out_of_memory() -> None:
    _fail(
        "E_MEMORY: there is not enough memory. Close other programs or raise the limit; to train, use smaller pictures, a narrower network or a "
        "smaller micro_batch.",
        6,
    )


def _listen() -> None:
    """The first Ctrl-C or SIGTERM ends the work in order: what is being written is taken away, what is written stays; the second at once."""

    def at_once(_number: int, _frame: object) -> None:
        os._exit(130)

    def in_order(_number: int, _frame: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, at_once)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell may have made a background command deaf on purpose
            signal.signal(number, in_order)


def _without_package(error: ImportError) -> None:
    if _is_of_memory(error):
        _out_of_memory()
    if (error.name or "").split(".")[0] == _PACKAGE:
        raise error  # a mistake of our own
    _missing(what_is_missing(error))


def _without_file(error: OSError) -> None:
    if error.errno is None and _LIBRARY.search(str(error)):
        _missing(f"a library does not load: {error}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        _fail(
            "E_RESOURCE: the system gives no more open files. Close other programs, or raise the limit (ulimit -n).", 6
        )
    _fail(f"E_FILE: {error.filename or 'a file'} cannot be read or written: {error.strerror or error}.", 6)


def _missing(what: str) -> None:
    _fail(f"E_MISSING: {what}. Run lungshift doctor: it says what is missing, what it is for, and how to get it.", 5)


def _fail(message: str, code: int) -> None:
    typer.echo(message, err=True)
    sys.exit(code)
