"""Which numbers of a run stand in its result table, and which checks doubt them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from robustloss.notation import NORM_NAMES, eps_text
from robustloss.results.columns import Row
from robustloss.results.flags import FlagIndex
from robustloss.results.result_table import ResultCell, ResultColumn, ResultRow, ResultTable
from robustloss.results.schema import WORST_CASE

BEST = {"attack": "best_of_adaptive", "attack_label": "best of adaptive"}
SCORE = "class_log_likelihood"  # the paper's score, and the one that adaptive attacks raise
UNNOTICED = "undetected_success_at_5fpr"


def build_result_table(results: Mapping[str, Any]) -> ResultTable:
    """Return the result of a run.

    Errors are the worst case of the first attack's norm where several attacks of that norm ran,
    else that attack's own. Detection is by `class_log_likelihood` over all images, at the largest
    eps that the first attack and the attacks that know the detector share.

    Args:
        results: The content of results.json.
    """
    found = _Numbers(results)
    columns = (*_error_columns(found), *_detection_columns(found))
    rows = tuple(
        ResultRow(label, tuple(found.cell(label, column) for column in columns))
        for label in found.labels
    )
    baseline = found.labels[0] if found.labels else None
    return ResultTable(str(results["name"]), baseline, columns, rows, found.notes(rows))


@dataclass(frozen=True)
class _Attack:
    name: str
    label: str
    norm: str | None
    eps: tuple[float, ...]  # above 0, rising
    adaptive: bool

    @property
    def place(self) -> tuple[str, str, str | None]:
        return self.name, self.label, self.norm


class _Numbers:
    """Look-up of what the table needs of results.json.

    Attributes:
        labels: The baseline, then the other losses that have a row or a failure.
        attacks: Those that change anything, in the order of the spec.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        spec = results["provenance"].get("spec") or {}
        self.rows: list[Row] = results["rows"]
        self.worst_case: list[Row] = results.get("worst_case", [])
        self.adaptive = [row for row in results.get("adaptive", ()) if row["score"] == SCORE]
        known = {row["label"]: row for row in [*results.get("failures", ()), *self.rows]}
        baseline = (spec.get("report") or {}).get("baseline")
        order = [baseline, *(loss["label"] for loss in spec.get("losses", ())), *known]
        self.labels = [label for label in dict.fromkeys(order) if label and label in known]
        self.attacks = self._list_attacks([attack["label"] for attack in spec.get("attacks", ())])
        self._flags = FlagIndex(results.get("flags", ()))
        self._fired: dict[str, dict[str, Row]] = {}  # check, place, flag
        self._summary = {
            (row["label"], row["attack"], row["attack_label"], row["norm"], row["eps"],
             row["metric"]): row
            for row in results["summary"] if row.get("score") in (None, SCORE)
        }  # fmt: skip

    def _list_attacks(self, listed: list[str]) -> list[_Attack]:
        own: dict[str, list[Row]] = {label: [] for label in listed}
        for row in self.rows:
            if row["attack"] != "none":
                own.setdefault(row["attack_label"], []).append(row)
        adaptive = {row["attack_label"] for row in self.adaptive if row["kind"] == "adaptive"}
        attacks = []
        for label, rows in own.items():
            if eps := tuple(sorted({float(row["eps"]) for row in rows if row["eps"] > 0})):
                name = rows[0]["attack"]
                knowing = label in adaptive or name.startswith("adaptive_")
                attacks.append(_Attack(name, label, rows[0]["norm"], eps, knowing))
        return attacks

    def of_norm(self, norm: str | None) -> list[_Attack]:
        return [attack for attack in self.attacks if attack.norm == norm]

    def cell(self, label: str, column: ResultColumn) -> ResultCell:
        """Return the number of one loss in one column, with the checks that doubt it."""
        place = column.attack, column.attack_label, column.norm, column.eps, column.metric
        row = self._summary.get((label, *place))
        if row is None and column.attack == BEST["attack"]:
            # A run of an older version does not summarise the table `adaptive`.
            best = [row for row in self.adaptive if row["kind"] == BEST["attack"]]
            values = [
                row[column.metric] for row in best
                if (row["label"], row["norm"], row["eps"]) == (label, column.norm, column.eps)
                and row[column.metric] is not None
            ]  # fmt: skip
            row = {"mean": fmean(values), "n_seeds": len(values)} if values else None
        if row is None or row["mean"] is None or math.isnan(row["mean"]):  # NaN: an old version
            return ResultCell()
        checks: dict[str, None] = {}
        for flag in self._flags_of(label, column):
            where = ", ".join(
                [label]
                + ([str(flag["attack_label"])] if flag.get("attack_label") else [])
                + ([f"eps {eps_text(flag['eps'])}"] if flag.get("eps") is not None else [])
            )
            self._fired.setdefault(flag["check"], {}).setdefault(where, flag)
            checks[str(flag["check"])] = None
        ends = row.get("low"), row.get("high")
        return ResultCell(row["mean"], *ends, row["n_seeds"], row.get("interval"), tuple(checks))

    def _flags_of(self, label: str, column: ResultColumn) -> list[Row]:
        labels = [attack.label for attack in self.of_norm(column.norm)]
        if column.attack == WORST_CASE["attack"]:
            place = label, column.norm, column.eps
            strongest = {
                row["strongest"] for row in self.worst_case
                if (row["label"], row["norm"], row["eps"]) == place
            }  # fmt: skip
            return self._flags.of_worst_case(label, labels, strongest, column.eps)
        if column.attack == BEST["attack"]:
            labels = [attack.label for attack in self.of_norm(column.norm) if attack.adaptive]
        else:
            labels = [column.attack_label]
        return [f for each in labels for f in self._flags.of_attack(label, each, column.eps)]

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
    if not found.attacks:
        return columns
    first = found.attacks[0]
    place, group, budgets = first.place, f"error, {first.label}", first.eps
    worst = [row for row in found.worst_case if row["norm"] == first.norm]
    if len({label for row in worst for label in row["attacks"]}) > 1:
        counts = sorted({len(row["attacks"]) for row in worst})
        many = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        norm = NORM_NAMES.get(first.norm or "", first.norm)
        group = f"error, worst case over {many} attacks, {norm}"
        place = WORST_CASE["attack"], WORST_CASE["attack_label"], first.norm
        budgets = tuple(sorted({float(row["eps"]) for row in worst}))
    return columns + [
        ResultColumn(f"error-{eps_text(eps)}", eps_text(eps), group, "error", *place, eps)
        for eps in budgets
    ]


def _detection_columns(found: _Numbers) -> list[ResultColumn]:
    """Return AUROC without and with knowledge of the detector, and who is fooled unnoticed."""
    naive = next((attack for attack in found.attacks if not attack.adaptive), None)
    norm = naive.norm if naive else next((attack.norm for attack in found.attacks), None)
    knowing = [attack for attack in found.of_norm(norm) if attack.adaptive]
    budgets = {eps for attack in knowing for eps in attack.eps}
    shared = budgets & {*naive.eps} if naive else budgets
    eps = max(shared or (naive.eps if naive else ()), default=0.0)
    sources = [("auroc-naive", naive.label, naive.place)] if naive else []
    knowing = [attack for attack in knowing if eps in attack.eps]
    if any(
        (row["kind"], row["norm"], row["eps"]) == (BEST["attack"], norm, eps)
        for row in found.adaptive
    ):
        place = BEST["attack"], BEST["attack_label"], norm
        sources.append(("auroc-adaptive", "best adaptive", place))
    elif len(knowing) == 1:
        sources.append(("auroc-adaptive", knowing[0].label, knowing[0].place))
    at = f"at eps {eps_text(eps)}"
    columns = [
        ResultColumn(key, head, f"AUROC {at}", "auroc_all", *place, eps, False, False)
        for key, head, place in sources
    ]
    for _, head, place in sources[-1:]:
        group = f"fooled and unnoticed {at}"
        columns.append(ResultColumn("unnoticed", head, group, UNNOTICED, *place, eps))
    return columns
