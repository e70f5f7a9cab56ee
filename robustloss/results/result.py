"""Which numbers of a run stand in its result table, and which checks doubt them."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from robustloss.notation import NORM_NAMES, eps_text
from robustloss.results.columns import Row
from robustloss.results.numbers import (
    BEST,
    Attack,
    ResultNumbers,
    combined_label,
    ordered,
    place_of,
)
from robustloss.results.result_table import ResultCell, ResultColumn, ResultRow, ResultTable
from robustloss.results.schema import ANY_ATTACK, WORST_CASE

SCORE = "class_log_likelihood"  # the paper's score
UNNOTICED = "undetected_success_at_5fpr"


def build_result_table(results: Mapping[str, Any]) -> ResultTable:
    """Return the result of a run.

    Errors are the worst case of the first attack's norm where several attacks of that norm ran,
    else that attack's own. Detection is by `class_log_likelihood` over all images, at the largest
    eps that the first attack and the attacks that know the detector share. Who is fooled and
    unnoticed is told of any attack of that norm.

    Args:
        results: The content of results.json.
    """
    found = _Numbers(results)
    columns = (*_error_columns(found), *_detection_columns(found))
    rows = tuple(
        ResultRow(label, tuple(found.cell(label, column) for column in columns))
        for label in ordered(filter(None, [found.baseline]), found.labels)
    )
    baseline = found.baseline or None
    name, kind = str(results["name"]), found.kind
    return ResultTable(name, baseline, columns, rows, found.notes(rows), kind, found.draws)


class _Numbers(ResultNumbers):
    """Look-up of what the table needs of results.json, with the marks on it.

    Attributes:
        adaptive: Rows of the table `adaptive` about the score that the table shows.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        super().__init__(results)
        self.adaptive = [row for row in results.get("adaptive", ()) if row["score"] == SCORE]
        self._knowing = {row["attack_label"] for row in self.adaptive if row["kind"] == "adaptive"}
        self._fired: dict[str, dict[str, Row]] = {}  # check, place, flag

    def is_adaptive(self, attack: Attack) -> bool:
        return attack.label in self._knowing or attack.name.startswith("adaptive_")

    def knows(self, case: Attack, eps: float, metric: str) -> bool:
        """Return whether a run has a number of a worst case of several attacks at one eps."""
        rows = [row for label in self.labels for row in self.rows(label, case.label, eps)]
        several = any(len(row["attacks"]) > 1 for row in rows)
        return several and any(self.find(label, case.label, eps, metric) for label in self.labels)

    def cell(self, label: str, column: ResultColumn) -> ResultCell:
        """Return the number of one loss in one column, with the checks that doubt it."""
        best = column.attack == BEST["attack"]
        of_score = {"score": SCORE} if best else {}
        place = place_of(vars(column))
        row = self.find(label, place, column.eps, column.metric, **of_score)
        if row is None and best:
            # A run of an older version does not summarise the table `adaptive`.
            values = [
                row[column.metric] for row in self.adaptive
                if (row["kind"], row["label"], row["norm"], row["eps"])
                == (BEST["attack"], label, column.norm, column.eps)
                and row[column.metric] is not None
            ]  # fmt: skip
            row = {"mean": fmean(values), "n_seeds": len(values)} if values else None
        if row is None:
            return ResultCell()
        checks: dict[str, None] = {}
        for flag in self._flags_on(label, column, place):
            where = ", ".join(
                [label]
                + ([str(flag["attack_label"])] if flag.get("attack_label") else [])
                + ([f"eps {eps_text(flag['eps'])}"] if flag.get("eps") is not None else [])
            )
            self._fired.setdefault(flag["check"], {}).setdefault(where, flag)
            checks[str(flag["check"])] = None
        ends = row.get("low"), row.get("high")
        return ResultCell(row["mean"], *ends, row["n_seeds"], row.get("interval"), tuple(checks))

    def _flags_on(self, label: str, column: ResultColumn, place: str) -> list[Row]:
        if column.attack == BEST["attack"]:
            known = [attack for attack in self.of_norm(column.norm) if self.is_adaptive(attack)]
            return [flag for each in known for flag in self.flags_of(label, each, column.eps)]
        found = self.flags_of(label, Attack(place, column.attack, column.norm, ()), column.eps)
        if column.key == "unnoticed" and column.attack == WORST_CASE["attack"]:
            any_attack = combined_label(ANY_ATTACK["attack_label"], column.norm)
            own = self.flag_index.of_attack(label, any_attack, column.eps)
            found += [flag for flag in own if flag not in found]
        return found

    def notes(self, rows: tuple[ResultRow, ...]) -> dict[str, str]:
        """Return what each check that doubts a number found: its first place, in one line."""
        checks = dict.fromkeys(check for row in rows for cell in row.cells for check in cell.checks)
        notes = {}
        for check in checks:
            (where, flag), *rest = self._fired[check].items()
            more = f" and {len(rest)} more" if rest else ""
            what = str(flag["message"]).split(". ")[0].rstrip(".")
            notes[check] = f"{check.replace('_', ' ')} ({where}{more}): {what}."
        return notes


def _error_columns(found: _Numbers) -> list[ResultColumn]:
    columns = [ResultColumn("clean", "clean", "error", "error", "none", "none", None, 0.0)]
    if not found.attacking:
        return columns
    first = found.attacking[0]
    place, group, budgets = _place(first), f"error, {first.label}", first.strengths
    for case in found.worst_cases:
        if case.norm == first.norm:
            worst = [row for eps in case.eps for label in found.labels
                     for row in found.rows(label, case.label, eps)]  # fmt: skip
            counts = {len(row["attacks"]) for row in worst}
            many = f"up to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
            norm = NORM_NAMES.get(first.norm or "", first.norm)
            group = f"error, worst case of {many} attacks, {norm}"
            place = WORST_CASE["attack"], WORST_CASE["attack_label"], first.norm
            budgets = case.eps
    return columns + [
        ResultColumn(f"error-{eps_text(eps)}", eps_text(eps), group, "error", *place, eps)
        for eps in budgets
    ]


def _place(attack: Attack) -> tuple[str, str, str | None]:
    return attack.name, attack.label, attack.norm


def _detection_columns(found: _Numbers) -> list[ResultColumn]:
    """Return AUROC without and with knowledge of the detector, and who is fooled unnoticed."""
    naive = next((attack for attack in found.attacking if not found.is_adaptive(attack)), None)
    norm = naive.norm if naive else next((attack.norm for attack in found.attacking), None)
    knowing = [attack for attack in found.of_norm(norm) if found.is_adaptive(attack)]
    budgets = {eps for attack in knowing for eps in attack.strengths}
    shared = budgets & {*naive.strengths} if naive else budgets
    eps = max(shared or (naive.strengths if naive else ()), default=0.0)
    sources = [("auroc-naive", naive.label, _place(naive))] if naive else []
    knowing = [attack for attack in knowing if eps in attack.strengths]
    if any(
        (row["kind"], row["norm"], row["eps"]) == (BEST["attack"], norm, eps) and row["adapted"]
        for row in found.adaptive
    ):
        place = BEST["attack"], BEST["attack_label"], norm
        sources.append(("auroc-adaptive", "best adaptive", place))
    elif len(knowing) == 1 and not found.adaptive:
        sources.append(("auroc-adaptive", knowing[0].label, _place(knowing[0])))
    at, knows = f"at eps {eps_text(eps)}", any(key == "auroc-adaptive" for key, _, _ in sources)
    group = f"AUROC, all images, eps {eps_text(eps)}{'' if knows else '; detector not attacked'}"
    columns = [
        ResultColumn(key, head, group, "auroc_all", *place, eps, False, False)
        for key, head, place in sources
    ]
    for case in found.worst_cases:
        if case.norm == norm and found.knows(case, eps, UNNOTICED):
            place = WORST_CASE["attack"], WORST_CASE["attack_label"], norm
            sources.append(("unnoticed", ANY_ATTACK["attack_label"], place))
    for _, head, place in sources[-1:]:
        group = f"fooled and unnoticed {at}"
        columns.append(ResultColumn("unnoticed", head, group, UNNOTICED, *place, eps))
    return columns
