"""Cells as tasks of a Ray cluster: placed by what they ask for, begun again when a node dies.

A worker that sees the run folder works in it, so a cell that is begun again goes on from its
checkpoint. A worker that does not see it gets the cell's files and sends back what is new.

On this machine: `run_on_ray` and the `_Coordinator`, which submits tasks and takes their results.
On a node: `_work`. The files that travel between the two: `_readable`, `_read_files`, `_changes`.
"""

import importlib.util
import re
import secrets
import socket
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure, Part, cell_name, remove_marks
from robustloss.data.files import DataError
from robustloss.models.weight_files import MOST_BYTES
from robustloss.progress import ENDS, Event
from robustloss.run_files import is_file, read_file
from robustloss.runs.errors import RunError
from robustloss.runs.executors.alone import needs_own_process
from robustloss.runs.executors.queue import JobQueue
from robustloss.runs.executors.workers import THREAD_LIMITS, Report, dataset_of, give_up
from robustloss.runs.folder import MARK
from robustloss.storage import write_bytes, write_text

Files = dict[str, bytes]  # path within the cell's folder -> content
Changes = dict[str, bytes | None]  # likewise; None: the file is gone
_TICK = 0.5  # seconds between two looks, so that Ctrl-C is heard and the display moves
_PATIENCE = 3.0  # seconds for an address to answer


class ClusterError(RunError):
    """The cluster cannot be used; the text is one line with the remedy."""


def check_address(executor: str) -> str | None:
    """Return the address in "ray:ADDRESS", or None for "ray": a cluster for this run only.

    Raises:
        ClusterError: Ray is not installed, or nothing answers at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise ClusterError(
            f"executor (={executor!r}) needs Ray, which is not installed; "
            "pip install 'robustloss[ray]', or use processes:N."
        )
    _, colon, address = executor.partition(":")
    if not colon:
        return None
    if address == "auto":
        return address
    found = re.fullmatch(r"([^\s:/]+):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ClusterError(
            f"executor (={executor!r}) must be ray, ray:auto or ray:HOST:PORT, "
            "as ray:10.0.0.1:6379; 'ray start --head' prints HOST:PORT."
        )
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_PATIENCE).close()
    except OSError as error:
        raise ClusterError(
            f"executor (={executor!r}): nothing answers at {address} "
            f"({error.strerror or error}). Start the cluster there with 'ray start --head "
            f"--port={found[2]}', or use ray for one of this machine alone."
        ) from None
    return address


def run_on_ray(jobs: Sequence[CellJob], executor: str, report: Report) -> list[Failure | None]:
    """Compute the jobs on the cluster.

    Args:
        jobs: What to compute, one at least; spec.resources says what each asks for.
        executor: "ray" or "ray:ADDRESS".
        report: Receives the events of all jobs.

    Returns:
        None or why it failed, for each job in their order.

    Raises:
        ClusterError: The cluster cannot be used.
    """
    with _joining(executor):
        # By this text in the run folder a worker knows that it sees the same folder.
        place, mark = jobs[0].folder / MARK, secrets.token_hex(16)
        write_text(place, mark)
        try:
            return _Coordinator(jobs, mark, report).run()
        finally:
            place.unlink(missing_ok=True)


@contextmanager
def _joining(executor: str) -> Iterator[None]:
    """Join the cluster while the block runs, unless the caller has joined one already."""
    address = check_address(executor)
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None
                 else None, logging_level="ERROR")  # fmt: skip
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ClusterError(
            f"executor (={executor!r}) cannot join the cluster: {reason}. Look with 'ray status' "
            "whether it runs with the same versions of Ray and Python."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


class _Coordinator:
    """Submits the jobs as tasks, passes their events on and takes what comes back.

    Files of a cell are sent once for all jobs that read the same, as the parts of a cell do, and
    only to a worker that asks for them: most see the run folder.
    """

    def __init__(self, jobs: Sequence[CellJob], mark: str, report: Report) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.ray: Any = ray
        self.jobs, self.mark, self.report = jobs, mark, report
        # An actor on this node, which dies with the run and needs no core, holds the events.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox: Any = (
            ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        )
        self.readers = Counter(map(_readable, jobs))  # jobs that have not ended, by what they read
        self.parcels: dict[tuple[Path, tuple[str, ...]], Any] = {}

    def run(self) -> list[Failure | None]:
        """Return how each job ended, when all have."""
        ray = self.ray
        queue = JobQueue(self.jobs)
        pending: dict[Any, int] = {}
        for number in queue.order:
            job = self.jobs[number]
            folder = job.folder / job.cell.folder
            # A cell without files is sent as such; the files of any other are sent when asked for.
            nothing: Files | None = {} if next(folder.rglob("*"), None) is None else None
            pending[self._submit(job, nothing)] = number
        try:
            while pending:
                done, _ = ray.wait(list(pending), timeout=_TICK)
                for event in ray.get(self.mailbox.take.remote()):
                    self.report(event)
                for task in done:
                    number = pending.pop(task)
                    job = self.jobs[number]
                    result = self._take(task, job)
                    if isinstance(result, _FilesWanted):
                        pending[self._submit(job, self._parcel(job))] = number
                        continue
                    queue.end(number, result)
                    self.readers[_readable(job)] -= 1
                    if not self.readers[_readable(job)]:
                        self.parcels.pop(_readable(job), None)  # Ray may forget it
                if queue.leave_out(pending.values()):
                    self._cancel(pending)
                    break
        except BaseException:
            self._cancel(pending)
            raise
        finally:
            with suppress(Exception):
                ray.kill(self.mailbox)
        return queue.ends()

    def _cancel(self, tasks: Iterable[Any]) -> None:
        """End tasks, those that compute too."""
        for task in tasks:
            with suppress(Exception):
                self.ray.cancel(task, force=True)

    def _submit(self, job: CellJob, files: Any) -> Any:
        """Return the task that computes a job.

        Args:
            job: What to compute.
            files: What the run folder has of the cell, as Files or an object of Ray; None if the
                worker has to ask for them.
        """
        asked = job.spec.resources
        # A worker that others' code was in computes nothing else.
        remote = self.ray.remote(max_calls=1) if needs_own_process(job) else self.ray.remote
        task = remote(_work).options(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus if job.device == "cuda" else 0,
            max_retries=asked.retries,  # a dead node or process; what the cell throws is a result
            retry_exceptions=False,
            runtime_env={"env_vars": {name: str(asked.cpus) for name in THREAD_LIMITS}},
            name=cell_name(job.cell),
        )
        return task.remote(
            replace(job, folder=job.folder.resolve()), files, self.mark, self.mailbox
        )

    def _parcel(self, job: CellJob) -> Any:
        """Return the object of Ray with the files that a job may read."""
        contents = _readable(job)
        if contents not in self.parcels:
            self.parcels[contents] = self.ray.put(_read_files(*contents))
        return self.parcels[contents]

    def _take(self, task: Any, job: CellJob) -> "Failure | _FilesWanted | None":
        """Return how a job ended, after writing what came back of it into the run folder."""
        try:
            failure, changes = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            reason = (
                f"its worker was lost {job.spec.resources.retries + 1} times "
                f"({type(error).__name__}); run the command again to go on."
            )
            return give_up(job, "worker", reason, self.report)
        if changes is None:
            return _FilesWanted()
        folder = job.folder / job.cell.folder
        if failure is not None:
            remove_marks(folder)
        for name in sorted(changes, key=lambda name: (name == "cell.json", name)):  # done mark last
            if (content := changes[name]) is None:
                (folder / name).unlink(missing_ok=True)
            else:
                write_bytes(folder / name, content)
        return failure


class _FilesWanted:
    """A job that its worker did not begin: it does not see the run folder and wants its files."""


class _Mailbox:
    """Keeps events until they are fetched."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    def take(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken


def _work(
    job: CellJob, files: Files | None, mark: str, mailbox: Any
) -> tuple[Failure | None, Changes | None]:  # pragma: no cover - runs in a worker
    """Compute one cell, or what the job asks of it, on a node.

    Args:
        job: What to compute.
        files: What the run folder has of the cell; None where they were not sent, because most
            nodes see the folder, and with many finished cells they are many bytes.
        mark: The text in the run folder.
        mailbox: Where events go.

    Returns:
        Its failure, and what changed where the folder is not shared; None if files must be sent.
    """
    import ray

    def report(event: Event) -> None:
        with suppress(Exception):  # the coordinator is gone: nobody is left to hear it
            sent = mailbox.put.remote(event)
            if event.stage in ENDS:
                ray.get(sent)

    try:
        shared = read_file(job.folder / MARK, len(mark)) == mark.encode()
    except OSError:
        shared = False
    if files is None and not shared:
        return None, None
    torch.set_num_threads(job.spec.resources.cpus)
    try:
        dataset = dataset_of(job)
    except DataError as error:
        reason = f"node {socket.gethostname()}: {' '.join(str(error).split())}"
        return give_up(job, "data", reason, report), {}
    if shared:
        return run_cell(job, dataset, report), {}
    assert files is not None
    with tempfile.TemporaryDirectory(prefix="robustloss-") as name:
        folder = Path(name)
        for path, content in files.items():
            write_bytes(folder / job.cell.folder / path, content)
        failure = run_cell(replace(job, folder=folder), dataset, report)
        after = _read_files(folder / job.cell.folder)
    return failure, _changes(files, after)


def _readable(job: CellJob) -> tuple[Path, tuple[str, ...]]:
    """Return the folder of a cell, and how the names of the files begin that a job may read."""
    folder = job.folder / job.cell.folder
    if job.task == "cell":
        return folder, ("",)
    needs_clean = not isinstance(job.task, Part) or 0 in job.task.eps
    clean = ("none-0-",) if needs_clean else ()
    return folder, ("checkpoint-", "model-", "reference-", *clean)


def _read_files(folder: Path, begins: tuple[str, ...] = ("",)) -> Files:
    """Return files of a cell by their path in its folder; none where there is no folder.

    Args:
        folder: The cell's.
        begins: How their names may begin.
    """
    return {
        path.relative_to(folder).as_posix(): read_file(path, MOST_BYTES)
        for path in sorted(folder.rglob("*"))
        if is_file(path) and ".tmp-" not in path.name and path.name.startswith(begins)
    }


def _changes(before: Files, after: Files) -> Changes:
    """Return what a job made, changed and took away."""
    gone: Changes = dict.fromkeys(before.keys() - after.keys())
    return gone | {name: data for name, data in after.items() if before.get(name) != data}
