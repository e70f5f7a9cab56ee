"""Many losses at a glance: clean error, error under attack and detection, a row for each."""

from dataclasses import dataclass

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import eps_words, images, interval_words
from robustloss.reports.reading.marks import Marks, flags_of, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NOTHING, Estimate, estimate, number

FEW = 5  # losses up to which the tables of the attacks are short enough
CLEAN = AttackInfo("none", "none", None, (0.0,), "none")


@dataclass(frozen=True)
class Column:
    """One number of every loss; `unit` and `digits` say how it is written."""

    head: str
    attack: AttackInfo
    eps: float
    metric: str
    lower_is_better: bool = True
    unit: float = 100.0
    digits: int = 2

    def of(self, numbers: Numbers, label: str) -> Estimate | None:
        """The number of one loss over seeds."""
        return numbers.get(label, self.attack.label, self.eps, self.metric)


def glance_table(numbers: Numbers) -> Table | None:
    """One row a loss, when there are many: what the other tables say at length."""
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    if len(numbers.labels) <= FEW or not attacks:
        return None
    columns = _columns(numbers, attacks[0])
    marks = Marks(numbers)
    best = {column: _best(numbers, column) for column in columns}
    rows = [
        [Entry(k), *(_entry(numbers, marks, k, c, best[c]) for c in columns)]
        for k in numbers.labels
    ]
    return Table(
        "losses",
        "All losses at a glance",
        f"Errors in percent on {images(numbers)} test images, eps in "
        f"{eps_words(attacks[0].norm)}; AUROC of the likelihood over all attacked images, a "
        "fraction; fooled and not noticed: of the initially correct images, in percent, with 5 % "
        "of clean images rejected. Bold: the best mean without a mark, told apart from the others "
        f"only where its interval does not overlap theirs. {interval_words(numbers)}",
        ["loss", *(column.head for column in columns)],
        rows,
        [_data(numbers, label, column) for label in numbers.labels for column in columns],
        marks.notes(),
        of_errors=True,
    )


def _columns(numbers: Numbers, attack: AttackInfo) -> list[Column]:
    first, last = attack.strengths[0], attack.strengths[-1]
    found = [Column("clean error", CLEAN, 0.0, "error")]
    found += [
        Column(f"error, {attack.label} eps {eps:.4g}", attack, eps, "error")
        for eps in dict.fromkeys((first, last))
    ]
    for case in numbers.worst_cases:
        eps = case.strengths[0]
        found.append(Column(f"error, {case.label} eps {eps:.4g}", case, eps, "error"))
    where = f"{attack.label} eps {last:.4g}"
    auroc = Column(f"AUROC, {where}", attack, last, "auroc_all", False, 1.0, 3)
    missed = Column(f"fooled and not noticed, {where}", attack, last, "undetected_success_at_5fpr")
    return [*found, auroc, missed]


def _best(numbers: Numbers, column: Column) -> float | None:
    """The best mean of those that carry no mark: what may be an artefact is no best."""
    means = [
        value.mean
        for k in numbers.labels
        if (value := column.of(numbers, k)) and not flags_of(numbers, k, column.attack, column.eps)
    ]
    return (min if column.lower_is_better else max)(means, default=None)


def _entry(numbers: Numbers, marks: Marks, label: str, column: Column, best: float | None) -> Entry:
    found = column.of(numbers, label)
    if found is None:
        return Entry(estimate(None), kind="gap")
    mark = marks.on(label, column.attack, column.eps)
    text = estimate(found, unit=column.unit, digits=column.digits)
    return Entry(text, mark, "top" if found.mean == best and not mark else "")


def _data(numbers: Numbers, label: str, column: Column) -> dict[str, object]:
    found = column.of(numbers, label)
    return {
        "label": label, "attack_label": column.attack.label, "norm": column.attack.norm,
        "eps": column.eps, "metric": column.metric, "n_seeds": found.n_seeds if found else 0,
        "mean": found.mean if found else None, "low": found.low if found else None,
        "high": found.high if found else None, "interval": found.interval if found else None,
        "marks": names(flags_of(numbers, label, column.attack, column.eps)),
    }  # fmt: skip


def seed_table(numbers: Numbers) -> Table:
    """Every row of results.json, as it stands there."""
    place = {label: i for i, label in enumerate(numbers.labels)}
    found = sorted(
        numbers.run.rows,
        key=lambda r: (place[r["label"]], r["seed"], r["attack_label"] != "none",
                       r["attack_label"], r["eps"]),
    )  # fmt: skip
    rows = []
    marks = Marks(numbers)
    for r in found:
        flags = numbers.flags(r["label"], r["attack_label"], r["eps"])
        mark = marks.of(f for f in flags if f.get("seed") in (None, r["seed"]))
        low, high = r["error_low"], r["error_high"]
        wilson = "" if low is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
        rows.append(
            [
                Entry(r["label"]),
                Entry("clean" if r["attack_label"] == "none" else r["attack_label"]),
                Entry(str(r["seed"])),
                Entry(f"{r['eps']:.4g}"),
                Entry(f"{r['n']:,}"),
                Entry(f"{100 * r['error']:.2f}{wilson}", mark),
                *(
                    Entry(number(r[k]), "" if r[k] is None else mark)
                    for k in ("auroc_all", "auroc_successful")
                ),
                Entry(NOTHING if r["n_successful"] is None else f"{r['n_successful']:,}"),
                Entry(_in_percent(r["undetected_success_at_5fpr"])),
            ]
        )
    return Table(
        "seeds",
        "Every seed",
        "Error in percent with a 95 % Wilson interval over images. The CSV holds every column of "
        "results.json.",
        ["loss", "attack", "seed", "eps", "n", "error", "AUROC, all", "AUROC, successful",
         "n successful", "fooled and not noticed"],
        rows,
        found,
        marks.notes(),
        left=2,
        fold="always",
        of_errors=True,
    )  # fmt: skip


def _in_percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.2f}"
