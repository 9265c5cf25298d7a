"""Who does work that can be done side by side: processes on this machine, or a dask cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

from lungshift.errors import MissingError, ProtocolError, ResourceError

Result = TypeVar("Result")

_ANSWER_S = 20


@dataclass(frozen=True)
class Workers:
    """How many parts of the work are done at a time, and by whom.

    Attributes:
        jobs: Processes on this machine, which share its cores; 1 works in this process.
        scheduler: Address of a dask scheduler, ``tcp://host:8786``, whose workers see the same folders; empty for none.

    Raises:
        ProtocolError: Fewer than one, or both at once.
    """

    jobs: int = 1
    scheduler: str = ""

    def __post_init__(self) -> None:
        if self.jobs < 1 or (self.scheduler and self.jobs > 1):
            raise ProtocolError(
                f"Work is done by at least one process, here or on a cluster, not both; got {self.jobs} jobs"
                f"{f' and the scheduler {self.scheduler}' if self.scheduler else ''}."
            )

    @property
    def alone(self) -> bool:
        """Whether this process does the work itself."""
        return self.jobs == 1 and not self.scheduler


class WorkerDied(Exception):  # noqa: N818 — the work may be tried again
    """The process that did a part of the work has died."""


def result_of(future: Future[Result]) -> Result:
    """What a part of the work came to.

    Raises:
        WorkerDied: The process that did it has died; a scheduler says so once it has tried several times.
        ResourceError: The scheduler has gone (``E_WORKER``).
    """
    try:
        return future.result()
    except Exception as error:
        name = type(error).__name__  # dask.distributed has errors of its own, and need not be installed
        if isinstance(error, BrokenExecutor) or name == "KilledWorker":
            raise WorkerDied from error
        if isinstance(error, CancelledError) or name == "FutureCancelledError":
            raise ResourceError(
                "The scheduler of the cluster has gone. What is finished is kept: the same command goes on.",
                code="E_WORKER",
            ) from error
        raise


@contextmanager
def start_executor(workers: Workers, use_threads: Callable[[int], object]) -> Iterator[Executor]:
    """What takes functions with their arguments and does them side by side.

    Args:
        workers: Who does the work.
        use_threads: Called in each new process of this machine with its share of the cores.

    Raises:
        MissingError: A scheduler was named and ``dask.distributed`` is not installed, or nobody answers.
        ProtocolError: A worker of the cluster has several threads, which would share one random state.
    """
    if workers.scheduler:
        with _cluster(workers.scheduler) as executor:
            yield executor
        return
    threads = max(1, (os.cpu_count() or 1) // workers.jobs)
    pool = ProcessPoolExecutor(
        workers.jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(use_threads, threads)
    )
    with pool:
        try:
            yield pool
        except (KeyboardInterrupt, SystemExit):
            _end_at_once(pool)
            raise


def _begin(use_threads: Callable[[int], object], threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(threads)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, and write beside the run that is taken up again."""
    if (parent := parent_process()) is not None:
        wait([parent.sentinel])
        os._exit(1)


def _end_at_once(pool: ProcessPoolExecutor) -> None:
    """Stop what is under way: what is finished is on disk, and the rest is taken up by the next run."""
    pool.shutdown(wait=False, cancel_futures=True)
    for process in active_children():
        process.terminate()


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingError("A cluster needs dask.distributed: pip install 'lungshift[cluster]'.") from error
    try:
        client = Client(address, timeout=_ANSWER_S)
    except (OSError, ValueError) as error:
        raise MissingError(f"No dask scheduler answers at {address}: {error}.") from error
    with client:
        _require_one_thread(client.nthreads())
        yield client.get_executor(pure=False)


def _require_one_thread(threads: Mapping[str, int]) -> None:
    if several := sorted(worker for worker, count in threads.items() if count > 1):
        raise ProtocolError(
            f"{len(several)} of {len(threads)} dask workers have several threads ({several[0]} has {threads[several[0]]}); parts of the work "
            "would share one random state, and numbers would not repeat. Start them with --nthreads 1 and more of them with --nworkers."
        )
