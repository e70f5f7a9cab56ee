"""A run against its gates: is each number within its bound?

What a gate names must exist in the run, else it is a mistake. What exists and has no number does
not pass, whether its cell failed or is still to come: silence is no proof.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robustloss.analysis.gates.metrics import Metric
from robustloss.analysis.gates.names import Asked, Known, resolve
from robustloss.analysis.gates.verdict import Verdict, Verdicts
from robustloss.analysis.tables.summary import BEST, name_ends, over_seeds
from robustloss.notation import one_line
from robustloss.results.columns import Row
from robustloss.results.numbers import group_rows, number
from robustloss.results.run import Run
from robustloss.results.schema import TABLES
from robustloss.spec.attack_kinds import attack_kind
from robustloss.spec.errors import SpecError
from robustloss.spec.gates.files import load_gates
from robustloss.spec.gates.table import GateSpec
from robustloss.spec.text import literal

MOST_VALUES = 8  # that a message lists of one column
_ROUNDING = 1e-12  # by which the mean of seeds may miss a bound that it equals


def own_gates(run: Run) -> list[dict[str, Any]]:
    """Return the gates of a run's spec as plain tables; older specs have none."""
    return list((run.provenance.get("spec") or {}).get("gates") or ())


def describe_gates(run: Run) -> tuple[str, bool]:
    """Return in one line whether a run keeps the gates of its spec, and whether it does.

    Args:
        run: Of a spec without gates the line is empty.
    """
    own = own_gates(run)
    try:
        verdicts = judge(run, load_gates(own)) if own else None
    except SpecError as error:  # a gate of an earlier state of the spec
        return one_line(f"They cannot be judged: {error}"), False
    return (verdicts.describe(), bool(verdicts)) if verdicts is not None else ("", True)


def check_gates(spec: Mapping[str, Any]) -> None:
    """Refuse gates of a spec that name what its run will not have.

    Args:
        spec: As plain tables.

    Raises:
        SpecError: A line for each problem.
    """
    if own := spec.get("gates"):
        resolve(Known({"provenance": {"spec": spec}, "rows": []}), load_gates(own))


def judge(run: Run, gates: Sequence[GateSpec]) -> Verdicts:
    """Return the verdicts of some gates on a run.

    Args:
        run: Finished or not.
        gates: As `load_gates` gives them.

    Raises:
        SpecError: A gate names what the run does not have; a line for each problem.
    """
    known, mistakes = Known(run.results), dict[str, None]()
    found = list(_judge_files(run))
    for asked in resolve(known, gates):
        for label in asked.labels:
            try:
                found.append(_judge_one(run, known, asked, label))
            except SpecError as error:
                mistakes[str(error)] = None
    if mistakes:
        raise SpecError("\n".join(mistakes))
    return Verdicts(run.name, tuple(found))


def _judge_files(run: Run) -> Iterator[Verdict]:
    """Yield a failure where the numbers of a run are not those that it came to."""
    problems = [*run.doubts]
    if run.unfinished and run.read is None:  # results.json is there, of an earlier state
        problems.append(" ".join(run.unfinished))
    if problems:
        yield Verdict("results.json", "", "fail", "n/a", "as the run wrote it", " ".join(problems))


def _judge_one(run: Run, known: Known, asked: Asked, label: str) -> Verdict:
    """Return the verdict of one gate on one loss."""
    gate, metric = asked.gate, asked.metric
    rows = _find_rows(known, asked, label)
    own = {row["seed"] for row in (*run.rows, *run.failures) if row.get("label") == label}
    seeds = sorted(own | {seed for each, seed in run.asked_for() if each == label})
    lacking = [s for s in seeds if number(rows.get(s, {}).get(metric.column.name)) is None]
    whole = bool(seeds) and not lacking
    over = over_seeds([rows[s] for s in seeds if s not in lacking], metric.column)
    mean, low, high = over["mean"], over["low"], over["high"]
    judged = {"upper": high, "lower": low, None: mean}[gate.interval] if whole else None
    if whole and judged is None and name_ends(metric.column.name)[0] not in metric.columns:
        raise SpecError(
            f"{asked.key}.interval (={literal(gate.interval)}) needs two seeds or more: "
            f"{gate.metric} has no interval over images, and {label} has one seed. Take it out."
        )
    bound, sign = (gate.max, 1) if gate.max is not None else (gate.min, -1)
    assert bound is not None  # a gate has one of the two
    end = f"{gate.interval} end " if gate.interval else ""
    texts = []
    if judged is None:
        texts.append(_say_why_missing(run, metric, label, lacking))
    broken = judged is None or sign * (judged - bound) > _ROUNDING
    if broken and judged is not None and metric.short(judged, 3) == metric.short(bound, 3):
        than = "more" if sign > 0 else "less"  # the rounded number would seem to keep the bound
        texts.append(f"Not rounded, it is {judged!r}, {than} than {bound!r}.")
    checks = _find_checks(known, asked, label)
    if checks:
        named = ", ".join(check.replace("_", " ") for check in checks)
        texts.append(f"In doubt: {named}. See the checks in the report.")
    place = asked.where
    return Verdict(
        asked.name,
        label,
        gate.severity if broken else "pass",
        metric.text(mean, low, high) if whole else "n/a",
        f"{end}{'at most' if sign > 0 else 'at least'} {metric.short(bound)}",
        " ".join(texts),
        {
            "metric": gate.metric,
            "column": f"{metric.table}.{metric.column.name}",
            "attack": asked.attack.label if asked.attack else None,
            **{key: place.get(key) for key in ("norm", "eps", "score", "population")},
            "where": dict(gate.where),
            **{key: over[key] if whole else None for key in ("mean", "low", "high", "interval")},
            "n_seeds": over["n_seeds"],
            "judged": judged,
            "max": gate.max,
            "min": gate.min,
            "end": gate.interval,
            "severity": gate.severity,
            "checks": checks,
        },
    )


def _find_rows(known: Known, asked: Asked, label: str) -> dict[int, Row]:
    """Return the one row of each seed that a gate means, by seed.

    Raises:
        SpecError: Several rows of a seed fit, or none has what `where` asks for.
    """
    table, own = asked.metric.table, asked.gate.where
    column = "target" if table == "transfer" else "label"
    place = {key: value for key, value in asked.where.items() if key not in own}
    every = [
        row for row in known.results.get(table, ())
        if row[column] == label and all(row.get(key) == value for key, value in place.items())
    ]  # fmt: skip
    rows = [row for row in every if all(row.get(key) == value for key, value in own.items())]
    by_seed = group_rows(rows, lambda row: row["seed"])
    if (every and own and not rows) or any(len(found) > 1 for found in by_seed.values()):
        wanted = rows or every
        free = [key for key in TABLES[table].sorted_by if key not in {*place, column, "seed"}]
        values = {key: sorted({row[key] for row in wanted}, key=str) for key in free}
        several = {key: known for key, known in values.items() if len(known) > 1 or not rows}
        listed = "; ".join(
            f"{key} is {', '.join(map(literal, known[:MOST_VALUES]))}"
            + (" and so on" if len(known) > MOST_VALUES else "")
            for key, known in several.items()
        )
        one = {key: known[0] for key, known in several.items()}
        given = (
            f"where (={literal(own)}) must fit one row of {table} for each seed."
            if own
            else f"where: missing. {table} has several rows for each seed. Write for example "
            f"where = {literal(one)}."
        )
        raise SpecError(f"{asked.key}.{given} There, {listed}.")
    return {seed: found[0] for seed, found in by_seed.items()}


def _say_why_missing(run: Run, metric: Metric, label: str, seeds: Sequence[int]) -> str:
    """Return why a number is missing: a failed cell, one still to come, or a null."""
    reasons = {
        row["seed"]: f"{row['stage']} failed: {row['reason']}"
        for row in run.failures
        if row.get("label") == label
    }
    by_reason: dict[str, list[str]] = {}
    for seed in seeds:
        reason = reasons.get(seed, f"the table {metric.table} has none")
        if f"{label} seed {seed}" in run.missing:
            reason = "its cell is not finished"
        by_reason.setdefault(reason.rstrip("."), []).append(str(seed))
    if not by_reason:
        return f"No value: the table {metric.table} has no interval."
    return " ".join(
        f"No value for seed{'s' if own[1:] else ''} {', '.join(own)}: {reason}."
        for reason, own in by_reason.items()
    )


def _find_checks(known: Known, asked: Asked, label: str) -> list[str]:
    """Return the names of the checks that doubt a number."""
    attack = asked.attack
    if attack is None:
        return []
    if attack.name == "none":
        flags = known.flag_index.of_attack(label, "none", 0.0)
    elif attack.name == BEST:
        knowing = [a for a in known.of_norm(attack.norm) if attack_kind(a.name) == "adaptive"]
        flags = [flag for each in knowing for flag in known.flags_of(label, each, asked.eps)]
    else:
        flags = known.flags_of(label, attack, asked.eps)
    return sorted({str(flag["check"]) for flag in flags})
