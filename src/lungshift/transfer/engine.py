"""Who does the work of a study: this process, several on this machine, or a cluster."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait

from lungshift.errors import ResourceError
from lungshift.learn.machine import use_threads
from lungshift.transfer.plan import Plan, Training
from lungshift.transfer.watcher import Watcher
from lungshift.transfer.work import Bench, do_task
from lungshift.workers import WorkerDied, Workers, result_of, start_executor


def carry_out(bench: Bench, plan: Plan, workers: Workers, watcher: Watcher) -> None:
    """Do every training and test of a plan; what an earlier run has left is kept.

    Raises:
        LungshiftError: Whatever a part of the work refuses; what was done until then is kept.
        MissingError: A scheduler was named and ``dask.distributed`` is not installed, or nobody answers.
        ResourceError: A process has died (``E_MEMORY``), or the scheduler has gone (``E_WORKER``).
    """
    if workers.alone:
        for training in plan.trainings:
            do_task(bench, training, plan.trials_of(training), watcher)
        return
    with start_executor(workers, use_threads) as executor:
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
                result_of(future)
                done.add(training.name)
                watcher.networks(len(done) - 1, len(plan.trainings))
    except WorkerDied as error:
        raise ResourceError(
            "A process that trained or tested has died, mostly for want of memory. What is finished is kept: the same command goes on; "
            'use fewer --jobs. (From a script: call it below `if __name__ == "__main__":`.)',
            code="E_MEMORY",
        ) from error
    finally:
        for future in running:
            future.cancel()
