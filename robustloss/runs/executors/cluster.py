"""Cells as tasks of a Ray cluster: placed by what they ask for, begun again when a node dies.

A worker that sees the run folder works in it, so a cell that is begun again goes on from its
checkpoint. One that does not gets what the folder has of the cell, and sends back what is new.
"""

import importlib.util
import re
import secrets
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure, Part, cell_name, remove_marks
from robustloss.data.files import DataError
from robustloss.progress import ENDS, Event
from robustloss.runs.executors.workers import THREAD_LIMITS, dataset_of, lost
from robustloss.runs.folder import MARK
from robustloss.storage import write_bytes, write_text

Report = Callable[[Event], None]
Files = dict[str, bytes]  # path within the cell's folder -> content
Changes = dict[str, bytes | None]  # likewise; None: the file is gone
_TICK = 0.5  # seconds between two looks, so that Ctrl-C is heard and the display moves
_PATIENCE = 3.0  # seconds for an address to answer


class ClusterError(ValueError):
    """The cluster cannot be used; the text is one line with the remedy."""


def check_address(executor: str) -> str | None:
    """Returns the address in "ray:ADDRESS", or None for "ray": a cluster for this run only.

    Raises:
        ValueError: Ray is not installed, or nothing answers at the address.
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
    """Computes the jobs on the cluster; each is None or why it failed, in the order of the jobs.

    Args:
        jobs: What to compute, one at least; spec.resources says what each asks for.
        executor: "ray" or "ray:ADDRESS".
        report: Called with the events of all the jobs.

    Raises:
        ClusterError: The cluster cannot be used.
    """
    import ray

    address = check_address(executor)
    found: list[Failure | None] = [None] * len(jobs)
    with _connected(address, executor), _marked(jobs[0].folder) as mark:
        events, parcels = _mailbox(ray), _Parcels(ray, jobs)
        pending = {
            _submit(ray, job, _nothing_yet(job), mark, events): number
            for number, job in enumerate(jobs)
        }
        try:
            while pending:
                done, _ = ray.wait(list(pending), timeout=_TICK)
                _deliver(ray, events, report)
                for task in done:
                    number = pending.pop(task)
                    job = jobs[number]
                    ended = _result(ray, task, job, report)
                    if isinstance(ended, _FilesWanted):
                        files = parcels.of(job)
                        pending[_submit(ray, job, files, mark, events)] = number
                    else:
                        found[number] = ended
                        parcels.done(job)
        except BaseException:
            for task in pending:
                with suppress(Exception):
                    ray.cancel(task, force=True)
            raise
        finally:
            with suppress(Exception):
                ray.kill(events)
    return found


@contextmanager
def _connected(address: str | None, executor: str) -> Iterator[None]:
    """Joins the cluster while the block runs, unless the caller has joined one already."""
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


@contextmanager
def _marked(folder: Path) -> Iterator[str]:
    """Puts a text into the run folder by which a worker knows that it sees the same folder."""
    mark = secrets.token_hex(16)
    write_text(folder / MARK, mark)
    try:
        yield mark
    finally:
        (folder / MARK).unlink(missing_ok=True)


def _mailbox(ray: Any) -> Any:
    """Returns the actor that holds the events, on this node, which lives as long as the run."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()


class _Mailbox:
    """Keeps events until they are fetched."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def put(self, event: Event) -> None:
        self.events.append(event)

    def take(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken


def _deliver(ray: Any, events: Any, report: Report) -> None:
    for event in ray.get(events.take.remote()):
        report(event)


class _Parcels:
    """Files of cells as Ray objects: one for all jobs that read the same, as parts of a cell."""

    def __init__(self, ray: Any, jobs: Sequence[CellJob]) -> None:
        self._ray = ray
        self._left = Counter(map(self._contents, jobs))
        self._sent: dict[tuple[Path, tuple[str, ...]], Any] = {}

    def of(self, job: CellJob) -> Any:
        """Returns the object with the files that the job may read."""
        contents = self._contents(job)
        if contents not in self._sent:
            self._sent[contents] = self._ray.put(_files(*contents))
        return self._sent[contents]

    def done(self, job: CellJob) -> None:
        """Lets Ray forget the object after the last job that reads it."""
        contents = self._contents(job)
        self._left[contents] -= 1
        if not self._left[contents]:
            self._sent.pop(contents, None)

    def _contents(self, job: CellJob) -> tuple[Path, tuple[str, ...]]:
        return job.folder / job.cell.folder, _needed(job)


def _nothing_yet(job: CellJob) -> Files | None:
    """Returns no files for a cell that has none; None for one whose files a worker may ask for."""
    return {} if next((job.folder / job.cell.folder).rglob("*"), None) is None else None


def _submit(ray: Any, job: CellJob, files: Files | None, mark: str, events: Any) -> Any:
    asked = job.spec.resources
    threads = {name: str(asked.cpus) for name in THREAD_LIMITS}
    task = ray.remote(_work).options(
        num_cpus=asked.cpus,
        num_gpus=asked.gpus if job.device == "cuda" else 0,
        max_retries=asked.retries,  # a dead node or process; what the cell throws is a result
        retry_exceptions=False,
        runtime_env={"env_vars": threads},
        name=cell_name(job.cell),
    )
    job = replace(job, folder=job.folder.resolve())
    return task.remote(job, files, mark, events)


class _FilesWanted:
    """A cell that its worker did not begin: it does not see the run folder and wants its files."""


def _result(ray: Any, task: Any, job: CellJob, report: Report) -> Failure | _FilesWanted | None:
    """Returns how the cell ended, after writing what came back of it."""
    try:
        failure, files = ray.get(task)
    except ray.exceptions.RayError as error:
        reason = (
            f"its worker was lost {job.spec.resources.retries + 1} times "
            f"({type(error).__name__}); run the command again to go on."
        )
        return lost(job, "worker", reason, report)
    if files is None:
        return _FilesWanted()
    folder = job.folder / job.cell.folder
    if failure is not None:
        remove_marks(folder)
    for name in sorted(files, key=lambda name: (name == "cell.json", name)):  # done mark last
        if (content := files[name]) is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_bytes(folder / name, content)
    return failure


def _needed(job: CellJob) -> tuple[str, ...]:
    """Returns how the names of the files begin that a job may read."""
    if job.task == "cell":
        return ("",)
    without_clean = isinstance(job.task, Part) and 0 not in job.task.eps
    clean = () if without_clean else ("none-0-",)
    return ("checkpoint-", "model-", "reference-", *clean)


def _files(folder: Path, begins: tuple[str, ...] = ("",)) -> Files:
    """Returns files of a cell by their path in its folder; none where there is no folder.

    Args:
        folder: The cell's.
        begins: How their names may begin.
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".tmp-" not in path.name and path.name.startswith(begins)
    }


def _changes(before: Files, after: Files) -> Changes:
    """Returns what a job made, changed and took away."""
    gone: Changes = dict.fromkeys(before.keys() - after.keys())
    return gone | {name: data for name, data in after.items() if before.get(name) != data}


def _work(
    job: CellJob, files: Files | None, mark: str, events: Any
) -> tuple[Failure | None, Changes | None]:  # pragma: no cover - runs in a worker
    """Computes one cell, or what the job asks of it, on a node.

    Args:
        job: The cell.
        files: What the run folder has of it, None where they were not sent: a folder that is seen
            from here needs none sent, and with many finished cells they are many bytes.
        mark: Of the run folder.
        events: Where events go.

    Returns:
        Its failure, and what changed where the folder is not shared; None if files must be sent.
    """
    import ray

    def report(event: Event) -> None:
        with suppress(Exception):  # the coordinator is gone: nobody to tell
            sent = events.put.remote(event)
            if event.stage in ENDS:
                ray.get(sent)

    shared = _shared(job.folder, mark)
    if files is None and not shared:
        return None, None
    torch.set_num_threads(job.spec.resources.cpus)
    try:
        dataset = dataset_of(job)
    except DataError as error:
        reason = f"node {socket.gethostname()}: {' '.join(str(error).split())}"
        return lost(job, "data", reason, report), {}
    if shared:
        return run_cell(job, dataset, report), {}
    assert files is not None
    with tempfile.TemporaryDirectory(prefix="robustloss-") as name:
        folder = Path(name)
        for path, content in files.items():
            write_bytes(folder / job.cell.folder / path, content)
        failure = run_cell(replace(job, folder=folder), dataset, report)
        made = _files(folder / job.cell.folder)
    return failure, _changes(files, made)


def _shared(folder: Path, mark: str) -> bool:
    try:
        return (folder / MARK).read_text() == mark
    except OSError:
        return False
