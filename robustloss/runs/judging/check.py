"""A run against its gates and against a baseline, in one call."""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustloss.analysis.gates.judge import judge, own_gates
from robustloss.analysis.gates.verdict import Verdict, Verdicts
from robustloss.analysis.unfinished import open_run
from robustloss.results.run import Run
from robustloss.runs.judging.against import compare_with_baseline, open_baseline
from robustloss.runs.judging.words import as_verdicts
from robustloss.spec.errors import SpecError
from robustloss.spec.gates.files import GatesLike, load_gate_file, load_gates
from robustloss.spec.gates.table import BaselineSpec


def check(
    run: Any,
    gates: GatesLike | None = None,
    *,
    baseline: str | Path | None = None,
    tolerance: Mapping[str, float] | None = None,
    metrics: Collection[str] = (),
) -> Verdicts:
    """Hold a run against its gates, and against an earlier run.

    A gate names a number of the run and a bound. What it names must exist; a number that a failed
    or missing cell leaves open does not pass. Of several seeds the mean and its interval count.
    Against a baseline, paired tests decide whether a loss is shown worse than it was: error under
    every attack and eps, worst case, AUROC, undetected success and median radius, adjusted
    together. What is not shown worse passes, and says which change would have been shown.

    Args:
        run: A run folder, a Run as `load_run` and `evaluate` return it, or what `run` returns.
        gates: A TOML file with tables [[gates]] or [baseline], or these tables as a list of dicts;
            by default those of the run's spec.
        baseline: A run folder, or a file that `robustloss baseline` wrote; by default that of the
            file of gates.
        tolerance: By how much a number may be worse, by metric: {"error": 0.01}. A metric is error,
            worst_case_error, auroc, undetected_success or median_radius.
        metrics: Those that are compared with the baseline; all by default.

    Returns:
        The verdicts: true where none failed, and shown as a table. ``as_junit()`` and
        ``as_json()`` give them to other programs.

    Raises:
        ValueError: No run folder, neither gates nor a baseline, a gate that names what the run does
            not have, a damaged baseline, or one of other data, images or attacks.

    Example:
        >>> assert robustloss.check("runs/mnist", [{"metric": "clean_error", "max": 0.02}])
        >>> assert robustloss.check("runs/mnist", baseline="mnist-baseline.npz")
    """
    opened = run if isinstance(run, Run) else open_run(getattr(run, "path", run))
    asked = None if gates is None else load_gate_file(gates)
    table: BaselineSpec | None = asked.baseline if asked else None
    bounds = asked.gates if asked else load_gates(own) if (own := own_gates(opened)) else ()
    against = baseline if baseline is not None else table.file if table else None
    if not bounds and against is None:
        raise SpecError(
            f"run (={opened.name}) has no gates. Name a file of gates or a baseline, or add tables "
            "[[gates]] to its spec and run it again, which recomputes nothing."
        )
    if against is None and (tolerance or metrics):
        raise ValueError("tolerance and metrics go with a baseline. Name one, or leave them out.")
    parts = [judge(opened, bounds)] if bounds else []
    if against is not None:
        limits = dict(table.tolerance if table and tolerance is None else tolerance or {})
        names = metrics or (table.metrics if table else ())
        found = as_verdicts(compare_with_baseline(opened, open_baseline(against), limits, names))
        if opened.unfinished and not bounds:  # a gate would say so itself
            text = " ".join(opened.unfinished)
            missing = Verdict("cells", "", "fail", "n/a", "a finished run", text)
            found = replace(found, verdicts=(missing, *found.verdicts))
        parts.append(found)
    verdicts = parts[-1]
    if len(parts) > 1:
        both = tuple(verdict for part in parts for verdict in part.verdicts)
        verdicts = replace(verdicts, verdicts=both, what="gates and comparisons")
    if not verdicts and "PYTEST_CURRENT_TEST" in os.environ:
        print(verdicts)  # pytest cuts the object to one line, and shows this as a whole
    return verdicts
