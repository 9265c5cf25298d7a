"""Who is told how a study goes on."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from lungshift.learn.history import EpochRecord


@runtime_checkable
class Watcher(Protocol):
    """Is told how a study goes on; the command line shows it as bars."""

    def stage(self, text: str) -> None:
        """A new part of the work begins."""

    def slices(self, done: int, total: int) -> None:
        """Slices of the present part that are done."""

    def networks(self, done: int, total: int) -> None:
        """Networks that are trained and tested, where several are at a time."""

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch has ended."""


class Silent:
    """A ``Watcher`` that says nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def slices(self, done: int, total: int) -> None:
        """Say nothing."""

    def networks(self, done: int, total: int) -> None:
        """Say nothing."""

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """Say nothing."""
