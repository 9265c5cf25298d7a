"""Who does the work of a study: this process, several on this machine, or a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from lungshift.errors import MissingError, ProtocolError, ResourceError
from lungshift.learn.machine import use_threads
from lungshift.transfer.plan import Plan, Training
from lungshift.transfer.watcher import Watcher
from lungshift.transfer.work import Bench, do_task

_ANSWER_S = 20


@dataclass(frozen=True)
class Workers:
    """How many networks are trained at a time, and by whom.

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


def carry_out(bench: Bench, plan: Plan, workers: Workers, watcher: Watcher) -> None:
    """Do every training and test of a plan; what an earlier run has left is kept.

    Raises:
        LungshiftError: Whatever a part of the work refuses; what was done until then is kept.
        MissingError: A scheduler was named and ``dask.distributed`` is not installed, or nobody answers.
    """
    if workers.jobs == 1 and not workers.scheduler:
        for training in plan.trainings:
            do_task(bench, training, plan.trials_of(training), watcher)
        return
    with _executor(workers) as executor:
        _side_by_side(bench, plan, executor, watcher)


def _side_by_side(bench: Bench, plan: Plan, executor: Executor, watcher: Watcher) -> None:
    """Hand out each training as soon as the one it starts from is done."""
    todo, done, running = list(plan.trainings), {""}, dict[Future, Training]()
    watcher.stage(f"Training and testing {len(todo)} networks side by side")
    try:
        while todo or running:
            for training in [one for one in todo if one.start in done]:
                running[executor.submit(do_task, bench, training, plan.trials_of(training))] = training
                todo.remove(training)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                training = running.pop(future)
                future.result()
                done.add(training.name)
                watcher.networks(len(done) - 1, len(plan.trainings))
    except BrokenExecutor as error:
        raise ResourceError(
            "A process that trained or tested has died, mostly for want of memory. What is finished is kept: the same command goes on; "
            'use fewer --jobs. (From a script: call it below `if __name__ == "__main__":`.)',
            code="E_MEMORY",
        ) from error
    finally:
        for future in running:
            future.cancel()


@contextmanager
def _executor(workers: Workers) -> Iterator[Executor]:
    if workers.scheduler:
        with _cluster(workers.scheduler) as executor:
            yield executor
        return
    threads = max(1, (os.cpu_count() or 1) // workers.jobs)
    pool = ProcessPoolExecutor(
        workers.jobs, mp_context=get_context("spawn"), initializer=use_threads, initargs=(threads,)
    )
    with pool:
        yield pool


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
        yield client.get_executor(pure=False)
