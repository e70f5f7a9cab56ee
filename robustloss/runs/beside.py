"""One loss beside those of a spec, a run or a reference: trained alone, then merged with them.

`plan_try` looks up what there is and computes nothing; `compute_try` computes what is missing. The
loss alone is an ordinary run in the folder `own` of the result, so a try that was stopped goes on,
and an edited loss is all that is trained again. A finished run that it stands beside is only read.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustloss.analysis.unfinished import open_run
from robustloss.attacks.plugins import PluginError, source_digest
from robustloss.results.provenance import find_searches
from robustloss.results.run import Run, load_run
from robustloss.runs.errors import RunError
from robustloss.runs.executors.automatic import AUTO
from robustloss.runs.merge import check_out, merge_runs
from robustloss.runs.references.find import (
    ENDING,
    Reference,
    is_reference,
    list_references,
    open_reference,
)
from robustloss.runs.references.match import check_seeds
from robustloss.runs.references.start import starting_spec
from robustloss.runs.runner import run
from robustloss.runs.watching.audience import Watcher
from robustloss.runs.watching.log import RunLog
from robustloss.spec.base import default_label
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec, shipped_specs
from robustloss.spec.losses import LOSS_LABELS
from robustloss.spec.plugins import plugins_of
from robustloss.spec.prefixes import canonical_name, own_code
from robustloss.spec.search import shared_search
from robustloss.spec.spec import Spec
from robustloss.spec.text import bound_text, slug

OWN = "own"


@dataclass(frozen=True)
class Plan:
    """What a try will do.

    Attributes:
        own: The spec of the loss alone: data, network, training and attacks as the others have.
        others: The spec of the losses that it stands beside.
        folder: Their run folder.
        finished: Their run; None where it must be computed first.
        out: The folder of the result.
        passed_over: Where there is none: a finished run in a folder above, of another state of
            their spec.
        reference: In place of a run: whose losses they are, in which case `folder` is its place.
    """

    own: Spec
    others: Spec
    folder: Path
    finished: Run | None
    out: Path
    passed_over: Path | None = None
    reference: Reference | None = None

    @property
    def label(self) -> str:
        """What tables and figures call the loss."""
        return self.own.losses[0].label


@dataclass(frozen=True)
class Tried:
    """What came of a try.

    Attributes:
        path: The folder of the merged run; None where no cell of the loss or of the others
            finished.
        failures: The cells without numbers, as `RunOutcome.failures`.
        notes: What a reader must know of runs that differ.
    """

    path: Path | None
    failures: list[dict]
    notes: tuple[str, ...] = ()


def plan_try(
    loss: str,
    against: str = "quickstart",
    *,
    label: str | None = None,
    params: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """Find the losses that a loss is to stand beside; compute and write nothing.

    Args:
        loss: As a spec names it; a file is looked for from the working folder.
        against: A reference, as NAME-reference or a file that `robustloss baseline` wrote; a
            finished run folder; or a spec. The run of a spec is looked for in runs/NAME,
            here first; then, if it is finished and of that very spec, in the folders above this
            one, beside the file of the loss, and above that.
        label: What tables call the loss; its class, parameters and keys of [train] by default.
        params: Its own parameters.
        train: Keys of [train] that it overrides.
        out: The folder of the result; runs/try-LABEL-RUN by default.
        seeds: Of its trainings; by default those of the others, beside a reference the first.

    Raises:
        NoReferenceError: A reference that is damaged.
        NotComparableError: It has none of the seeds.
        SpecError: No such spec, or a label, parameters or keys that a spec refuses.
        RunError: A run that is not finished, or of another state of the spec; a label that is
            taken.
        ValueError: A folder that is no run folder, an `out` in which something would be lost, or
            code that is not there.
    """
    loss = canonical_name(loss, LOSS_LABELS)
    code = Path(own_code(loss).rpartition(":")[0])
    reference, finished, passed_over = None, None, None
    if is_reference(against):
        reference = open_reference(against)
        others, folder = starting_spec(reference, against), reference.rows.path
        seeds = seeds or others.seeds[:1]
    else:
        others, folder, finished, passed_over = _find_others(against, code)
    if label is None:
        label = default_label(loss, LOSS_LABELS)
        changed = [*(params or {}).items(), *(train or {}).items()]
        if changed:
            each = ", ".join(f"{key} {_short(value)}" for key, value in changed)
            label = f"{label} ({each})"
    for other in () if reference else others.losses:
        if other.slug == slug(label):
            raise RunError(
                f"label (={label}) is taken: {folder} has a loss of that name. Choose another with "
                f"--label '{label} (mine)'."
            )
    tried = find_searches(finished.provenance if finished else {"spec": others.plain()})
    search, tuning = shared_search(tried.get(each.label) for each in others.losses if each.trains)
    if not search.keys().isdisjoint(train or {}):
        search, tuning = {}, {}  # the caller has chosen
    own = load_spec(
        others.plain()
        | {
            "name": slug(label)[:80].strip("-.") or "own",
            "losses": [{"name": _name_from_here(loss, others), "label": label,
                        "params": dict(params or {}), "train": dict(train or {}),
                        "search": search}],
            "tuning": tuning,
            "report": {},
            "reference": {},
            "gates": [],
            "seeds": seeds or others.seeds,
        },
        folder=others.folder,
    )  # fmt: skip
    if finished is not None:
        _check_code(own, folder)
    name = f"{reference.name}-reference" if reference else folder.resolve().name
    place = Path("runs") / f"try-{own.losses[0].slug}-{name}"
    out = place if out is None else Path(out)
    plan = Plan(own, others, folder, finished, out, passed_over, reference)
    if reference is not None:
        check_seeds(plan.out, own.seeds, reference.rows)
    check_out(plan.out, [plan.out / OWN, *([] if reference else [plan.folder])])
    return plan


def _check_code(own: Spec, folder: Path) -> None:
    """Refuse a run whose spec names code that does not lie where it is looked for.

    Args:
        own: The spec of the loss alone, which names the code of attacks, scores and network too.
        folder: Of the run.
    """
    for key, name in plugins_of(own).items():
        try:
            source_digest(own_code(name), (own.folder,))
        except PluginError as error:
            if key == "losses[0].name":
                raise
            raise RunError(
                f"{error} {folder} does not keep the code that its spec names. Write --against "
                "with the spec file that lies beside this code, or start from there."
            ) from error


def _short(value: object) -> str:
    return bound_text(value) if isinstance(value, int | float) else str(value)


def _find_others(against: str, code: Path) -> tuple[Spec, Path, Run | None, Path | None]:
    """Return what stands beside a loss, as the plan has it: others, folder, finished, passed_over.

    Args:
        against: A run folder or a spec.
        code: The file of the loss, if it is one.
    """
    path = Path(os.path.expanduser(against))
    if against in list_references() and against not in shipped_specs() and not path.exists():
        raise RunError(f"{against} is a reference: write --against {against}{ENDING}.")
    if against not in shipped_specs() and path.is_dir():
        found = _open_finished(path)
        return _spec_of(found, path), path, found, None
    spec = load_spec(against)
    folder = Path("runs") / spec.name
    if not os.path.lexists(folder / "results.json"):
        starts = [Path.cwd(), code.expanduser().resolve().parent]
        elsewhere, passed_over = _find_finished(spec, folder, starts)
        if elsewhere is None:
            return spec, folder, None, passed_over
        return _spec_of(elsewhere, spec.folder), elsewhere.path, elsewhere, None
    found = _open_finished(folder)
    if not _is_made_from(spec, folder):
        raise RunError(
            f"{folder} was made from another state of the spec {against}. To stand beside what is "
            f"there, write --against {folder}; to compute it anew, robustloss run {against}."
        )
    return _spec_of(found, spec.folder), folder, found, None


def _find_finished(
    spec: Spec, folder: Path, starts: Sequence[Path]
) -> tuple[Run | None, Path | None]:
    """Return a finished run of a spec from some folders or those above; else one of another state.

    What another user of the machine has put there is not looked at.

    Args:
        spec: Of the run.
        folder: Of the run, relative to each of those folders.
        starts: The folders, the nearest first.
    """
    mine, passed_over = Path.cwd().stat().st_uid, None
    places = (path / folder for start in starts for path in (start, *start.parents))
    for place in dict.fromkeys(places):
        try:
            if (place / "results.json").stat().st_uid != mine:
                continue
            found = _open_finished(place)
            if _is_made_from(spec, place):
                return found, None
        except (OSError, ValueError, RunError, SpecError):
            continue
        passed_over = passed_over or place
    return None, passed_over


def _is_made_from(spec: Spec, folder: Path) -> bool:
    """Tell whether a run was made from a spec as it is now, but for its gates."""
    made, asked = (each.plain() | {"gates": []} for each in (load_spec(folder / "spec.toml"), spec))
    return made == asked


def _open_finished(folder: Path) -> Run:
    found = open_run(folder)
    if found.unfinished:
        raise RunError(f"{folder} is not finished. {' '.join(found.unfinished)}")
    if not found.rows:
        raise RunError(f"{folder} has no numbers: each of its cells failed. Name another run.")
    return found


def _spec_of(found: Run, folder: Path) -> Spec:
    """Return the spec of a run, with its seeds and with the values that its searches chose.

    Args:
        found: The run.
        folder: Where relative paths in its spec begin.
    """
    plain = {**(found.provenance.get("spec") or {}), "seeds": found.provenance.get("seeds") or [0]}
    try:
        return load_spec(plain, folder=folder)
    except SpecError as error:
        raise RunError(
            f"{found.path} cannot be used: this version does not take its spec. {error}"
        ) from error


def _name_from_here(loss: str, others: Spec) -> str:
    """Return the name of a loss under which its spec finds the file that lies here.

    A relative path is looked for in the folder of the spec first, where another file may lie.
    """
    source = own_code(loss).rpartition(":")[0]
    here, there = Path(os.path.expanduser(source)), others.folder / source
    if source.endswith(".py") and here.is_file() and there.is_file() and not here.samefile(there):
        return loss.replace(source, str(here.resolve()))
    return loss


def compute_try(
    plan: Plan,
    *,
    device: str = "auto",
    data: str | Path | None = None,
    executor: str = AUTO,
    progress: Watcher | None = None,
    log: str | Path | None = None,
) -> Tried:
    """Compute what is missing, and put the loss into one run with the others.

    Args:
        plan: As `plan_try` returns it.
        device, data, executor, progress, log: As `robustloss.run` takes them; the log is that of
            the loss alone.

    Raises:
        SpecError, DataError, RunError: As `robustloss.run`.
        ValueError: The runs cannot be compared, as `merge_runs`. Other data than the others had are
            refused before anything is trained.
    """
    failures: list[dict] = []
    if log is not None:
        RunLog(log, plan.own.name).close()  # a file that cannot be used is told before the others
    if plan.finished is None and plan.reference is None:
        others = run(plan.others, out=plan.folder, device=device, data=data, executor=executor,
                     progress=progress)  # fmt: skip
        failures += others.failures
    # Reused for its number of threads too: the loss gets as many as those beside it. A merged run
    # has no weights under a spec of its own.
    reuse = plan.folder if (plan.folder / "spec.toml").is_file() else None
    own = run(plan.own, out=plan.out / OWN, device=device, data=data, executor=executor,
              reuse=reuse, progress=progress, log=log, report=False,
              like=plan.reference.rows.run if plan.reference else plan.finished)  # fmt: skip
    failures += own.failures
    runs = [own.path] if plan.reference else [plan.folder, own.path]
    if not all(load_run(path).rows for path in runs):
        return Tried(None, failures)
    merged = merge_runs(runs, plan.out, highlight=[plan.label], beside=plan.reference)
    if all(row["label"] != plan.label for row in load_run(merged.path).rows):
        raise RunError(
            f"{plan.label} has come to the same weights as a loss of {plan.folder} with the same "
            f"settings, so {plan.out} shows it under that loss's label. Try another loss, or other "
            "parameters."
        )
    return Tried(merged.path, failures, merged.notes)
