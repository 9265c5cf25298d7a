"""How long work goes on: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lungshift.learn.history import EpochRecord

_EVERY_S = 30.0


def bars() -> Bars | Lines:
    """The watcher that suits where the output goes."""
    return Bars() if sys.stderr.isatty() else Lines()


class Lines:
    """One line for each part and epoch, on standard error."""

    def __init__(self) -> None:
        self._started = self._said = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""
        self._say(text)

    def slices(self, done: int, total: int) -> None:
        """Slices that are done, told now and then."""
        if time.monotonic() - self._said > _EVERY_S:
            self._say(f"  {done} of {total} slices")

    def networks(self, done: int, total: int) -> None:
        """Networks that are trained and tested, where several are at a time."""
        self._say(f"  {done} of {total} networks")

    def studies(self, done: int, total: int) -> None:
        """Studies of a command that have ended."""
        self._say(f"  {done} of {total} studies")

    def cases(self, done: int, total: int) -> None:
        """Cases that are done, told now and then."""
        if time.monotonic() - self._said > _EVERY_S:
            self._say(f"  {done} of {total} cases")

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch has ended."""
        self._say(f"  {_epoch_text(record, epochs)}, {record.seconds:.1f} s")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        sys.stderr.write(f"[{self._said - self._started:6.0f} s] {text}\n")
        sys.stderr.flush()


class Bars:
    """A bar with loss, score and time left, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("Starting", total=None)
        self._text = ""

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        """A new part of the work begins, with a bar of its own."""
        self._finish()
        self._text = text
        self._task = self._progress.add_task(text, total=None)

    def slices(self, done: int, total: int) -> None:
        """Slices that are done."""
        self._progress.update(self._task, completed=done, total=total)

    def networks(self, done: int, total: int) -> None:
        """Networks that are trained and tested, where several are at a time."""
        self._progress.update(self._task, completed=done, total=total)

    def studies(self, done: int, total: int) -> None:
        """Studies of a command that have ended."""
        self._progress.update(self._task, completed=done, total=total)

    def cases(self, done: int, total: int) -> None:
        """Cases that are done."""
        self._progress.update(self._task, completed=done, total=total)

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch has ended."""
        text = f"{self._text}: {_epoch_text(record, epochs)}"
        self._progress.update(self._task, completed=record.epoch, total=epochs, description=text)

    def _finish(self) -> None:
        for task in self._progress.tasks:
            if task.total is None or not task.finished:
                self._progress.update(task.id, total=max(1, task.completed), completed=max(1, task.completed))


def _epoch_text(record: EpochRecord, epochs: int) -> str:
    return f"epoch {record.epoch}/{epochs}, loss {record.loss:.3f}, validation {record.validation_loss:.3f}, score {record.score:.3f}"
