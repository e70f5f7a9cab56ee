"""Somebody else's code in a process of its own: whatever it leaves there reaches nothing else.

`needs_own_process` says which jobs run such code; the executors give each cell of theirs a process
that no other cell uses. `call_alone` does the same for work that is no cell.
"""

from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from robustloss.cells.cell import explain_error
from robustloss.cells.jobs import CellJob, Failure
from robustloss.cells.transfer import run_transfers
from robustloss.losses.contract.check import Check, check_loss
from robustloss.progress import Event
from robustloss.results.transfers import Transfer
from robustloss.runs.errors import RunError
from robustloss.runs.executors.workers import (
    Report,
    begin_worker,
    dataset_of,
    describe_end,
    limiting_threads,
    start_process,
    stop_process,
)
from robustloss.spec.errors import SpecError
from robustloss.spec.plugins import plugins_of, plugins_of_cell
from robustloss.spec.spec import Spec
from robustloss.training import processes


def needs_own_process(job: CellJob) -> bool:
    """Return whether a job runs somebody else's code and can be computed in another process.

    A model in memory cannot be sent there. What torchrun started must stay together.
    """
    foreign = plugins_of_cell(job.spec, job.cell)
    return bool(foreign) and job.module is None and not processes.is_launched()


def spec_needs_own_process(spec: Spec) -> bool:
    """Return whether the work on a whole spec runs somebody else's code, as for a job."""
    return bool(plugins_of(spec)) and not processes.is_launched()


def call_alone(
    function: Callable[..., Any],
    *arguments: object,
    foreign: Mapping[str, str],
    report: Report = lambda event: None,
) -> Any:
    """Return function(*arguments, report), called in a process that ends with it.

    Args:
        function: Of a module of ours.
        *arguments: Plain values.
        foreign: The code of others that it runs, by key of the spec; for messages.
        report: Receives the events.

    Raises:
        SpecError: The function raised one.
        RunError: It raised something else, or the process ended before it was done.
    """
    with limiting_threads(threads := torch.get_num_threads()):
        process, pipe = start_process(_answer, threads)
    try:
        pipe.send((function, arguments))
        while True:
            if not wait([pipe], timeout=0.5):  # a short wait, so that Ctrl-C is heard
                continue
            try:
                kind, value = pipe.recv()
            except (EOFError, OSError):
                process.join(5)
                raise RunError(describe_end(process.exitcode, foreign)) from None
            if kind == "event":
                report(value)
            elif kind == "value":
                return value
            else:
                raise SpecError(value) if kind == "refused" else RunError(value)
    finally:
        stop_process(process)
        pipe.close()


def _answer(pipe: Connection, threads: int) -> None:  # pragma: no cover - runs in a worker
    """Do what `call_alone` asks for, in the other process."""
    begin_worker(threads)
    function, arguments = pipe.recv()

    def report(event: Event) -> None:
        pipe.send(("event", event))

    try:
        value = function(*arguments, report)
    except SpecError as error:
        pipe.send(("refused", str(error)))
    except BaseException as error:  # of others' code, which may raise anything
        pipe.send(("failed", explain_error(error)))
    else:
        pipe.send(("value", value))


def check_loss_alone(name: str, params: Mapping[str, Any], report: Report) -> list[Check]:
    """Check the contract of a loss of somebody else's as `check_loss`.

    Args:
        name: As `build_loss` takes it.
        params: The loss's own parameters.
        report: Receives nothing.
    """
    return check_loss(name, **params)


def transfer_alone(
    spec: Spec, jobs: Sequence[CellJob], failures: Sequence[Failure], report: Report
) -> tuple[list[Transfer], list[Failure]]:
    """Compute transfers as `run_transfers`, with the data that the jobs name."""
    return run_transfers(spec, jobs, failures, dataset_of(jobs[0]), report)
