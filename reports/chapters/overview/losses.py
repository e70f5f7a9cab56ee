"""Every loss at a glance in one row, and every row of results.json."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.facts import eps_words, images, interval_words
from robustloss.reports.reading.marks import Marks, flags_of, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate, estimate_fields

FEW = 5  # losses up to which the tables of the attacks are short enough
CLEAN = AttackInfo("none", "none", None, (0.0,), "none")


@dataclass(frozen=True)
class Glance:
    """One number of every loss.

    Attributes:
        attack, eps: Under which it was measured.
        column: How it is written; the key is its metric.
        best: ``min`` or ``max``.
    """

    attack: AttackInfo
    eps: float
    column: Column
    best: Callable[..., Any] = min

    def of(self, numbers: Numbers, label: str) -> Estimate | None:
        """Return the number of one loss over seeds."""
        return numbers.get(label, self.attack.label, self.eps, self.column.key)

    def find_best(self, numbers: Numbers) -> float | None:
        """Return the best mean; what may be an artefact of the attack is no best."""
        sound = [
            value.mean
            for label in numbers.labels
            if (value := self.of(numbers, label))
            and not flags_of(numbers, label, self.attack, self.eps)
        ]
        return self.best(sound, default=None)


def glance_table(numbers: Numbers) -> Table | None:
    """Return one row a loss, when there are many: what the other tables say at length."""
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    if len(numbers.labels) <= FEW or not attacks:
        return None
    glances = _glances(numbers, attacks[0])
    marks = Marks(numbers)
    bests = [glance.find_best(numbers) for glance in glances]
    rows = []
    for label in numbers.labels:
        row = [Entry(label)]
        for glance, best in zip(glances, bests, strict=True):
            value = glance.of(numbers, label)
            mark = marks.on(label, glance.attack, glance.eps) if value else ""
            top = value is not None and value.mean == best and not mark
            kind = "gap" if value is None else "top" if top else ""
            row.append(glance.column.entry(value, mark, kind))
        rows.append(row)
    return Table(
        "losses",
        "All losses at a glance",
        f"Errors in percent on {images(numbers)} test images, eps in "
        f"{eps_words(attacks[0].norm)}; AUROC of the likelihood over all attacked images, a "
        "fraction; fooled and unnoticed: of the initially correct images, in percent, with 5 % "
        "of clean images rejected. Bold: the best mean without a mark, told apart from the others "
        f"only where its interval does not overlap theirs. {interval_words(numbers)}",
        ["loss", *(glance.column.head for glance in glances)],
        rows,
        [
            {"label": label, "attack_label": glance.attack.label, "norm": glance.attack.norm,
             "eps": glance.eps, "metric": glance.column.key,
             **estimate_fields(glance.of(numbers, label), "mean"),
             "marks": names(flags_of(numbers, label, glance.attack, glance.eps))}
            for label in numbers.labels
            for glance in glances
        ],
        marks.notes(),
        of_errors=True,
    )  # fmt: skip


def _glances(numbers: Numbers, attack: AttackInfo) -> list[Glance]:
    """Return the columns: errors from clean to the worst case, then what the detector makes."""

    def error(head: str, attack: AttackInfo, eps: float) -> Glance:
        return Glance(attack, eps, Column(head, "error", 100.0, 2))

    first, last = attack.strengths[0], attack.strengths[-1]
    places = [(attack, eps) for eps in dict.fromkeys((first, last))]
    places += [(case, case.strengths[0]) for case in numbers.worst_cases]
    where = f"{attack.label} eps {eps_text(last)}"
    missed = "undetected_success_at_5fpr"
    return [
        error("clean error", CLEAN, 0.0),
        *(error(f"error, {each.label} eps {eps_text(eps)}", each, eps) for each, eps in places),
        Glance(attack, last, Column(f"AUROC, {where}", "auroc_all", 1.0, 3), max),
        Glance(attack, last, Column(f"fooled and unnoticed, {where}", missed, 100.0, 2)),
    ]


SEED_COLUMNS = [
    Column("loss", "label"),
    Column("attack", "attack_label", words=lambda label: "clean" if label == "none" else label),
    Column("seed", "seed", words=str),
    Column("eps", "eps", words=eps_text),
    Column("n", "n"),
    Column("error", "error", 100.0, 2),
    Column("AUROC, all", "auroc_all", 1.0, 3),
    Column("AUROC, successful", "auroc_successful", 1.0, 3),
    Column("n successful", "n_successful"),
    Column("fooled and unnoticed", "undetected_success_at_5fpr", 100.0, 2, checks=()),
]


def seed_table(numbers: Numbers) -> Table:
    """Return every row of results.json, as it stands there."""
    place = {label: i for i, label in enumerate(numbers.labels)}
    found = sorted(
        numbers.run.rows,
        key=lambda r: (place[r["label"]], r["seed"], r["attack_label"] != "none",
                       r["attack_label"], r["eps"]),
    )  # fmt: skip

    def of_seed(mean: float, *ends: float | None) -> Estimate:
        low, high = ends or (None, None)
        return Estimate(mean, low, high, 1, (mean,), None)

    rows = []
    for r in found:
        flags = numbers.flags(r["label"], r["attack_label"], r["eps"])
        one = ("auroc_all", "auroc_successful", "undetected_success_at_5fpr")
        rows.append(
            {
                **r,
                "error": of_seed(r["error"], r["error_low"], r["error_high"]),
                **{name: None if r[name] is None else of_seed(r[name]) for name in one},
                "flags": [flag for flag in flags if flag.get("seed") in (None, r["seed"])],
            }
        )
    marks = Marks(numbers)
    header, entries, _ = lay_out(SEED_COLUMNS, rows, marks)  # the CSV has every column of a row
    return Table(
        "seeds",
        "Every seed",
        "Error in percent with a 95 % Wilson interval over images. The CSV holds every column of "
        "results.json.",
        header,
        entries,
        found,
        marks.notes(),
        left=2,
        fold="always",
        of_errors=True,
    )
