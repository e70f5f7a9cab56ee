"""Detection and rejection under attacks that know the detector, over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.table import score_name
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of, lay_out
from robustloss.reports.reading.detected import LIKELIHOOD, sum_over
from robustloss.reports.reading.marks import Flag, Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_NAMES, NOTHING, Estimate, over_seeds
from robustloss.results.numbers import BEST as _BEST

BEST = _BEST["attack"]
SCORE = LIKELIHOOD  # what the adaptive attacks aim at
_ESTIMATES = [
    Column("AUROC, all", "auroc_all", 1.0),
    Column("", "n_seeds"),
    Column("AUROC, successful", "auroc_successful", 1.0),
    Column("", "undetected_success_at_1fpr", 100.0, 2),
    Column("fooled and unnoticed", "undetected_success_at_5fpr", 100.0, 2),
    Column("", "error", 100.0, 2),
    Column("", "error_with_rejection_at_1fpr", 100.0, 2),
    Column("", "error_with_rejection_at_5fpr", 100.0, 2),
]
_PLACE = [Column("", key) for key in ("norm", "eps", "attack_label", "kind")]
_EVERY = [
    Column("loss", "label"),
    *_PLACE,
    Column("attack", "name", in_csv=False),
    Column("score", "score_name", in_csv=False),
    Column("", "score"),
    Column("", "adapted"),
    Column("eps", "eps", words=eps_text, in_csv=False),
    Column("", "n_successful"),
    *_ESTIMATES,
]
_FALL = [Column("AUROC", "auroc_all", 1.0),
         Column("fooled and unnoticed", "undetected_success_at_5fpr", 100.0, 2)]  # fmt: skip
_BESIDE = [Column("loss", "label"), *_PLACE, _FALL[0], Column("", "n_seeds"), _FALL[1]]
_REJECTING = [
    Column("error", "error", 100.0, 2),
    Column("1 % rejected", "error_with_rejection_at_1fpr", 100.0, 2),
    Column("5 % rejected", "error_with_rejection_at_5fpr", 100.0, 2),
]


@dataclass(frozen=True)
class Rival:
    """One attack in the comparison: kind "naive", "adaptive" or "best_of_adaptive"."""

    label: str
    kind: str


class Guarded:
    """The table `adaptive` of one norm, by loss, attack, eps and score.

    Attributes:
        norm: Of every number in it.
        eps: Strengths that have an adaptive attack.
        rivals: Naive attacks in the order of the spec, then the adaptive ones, then their best.
        scores: The score that the attacks aim at, then the others.
    """

    def __init__(self, numbers: Numbers, norm: str) -> None:
        self.numbers, self.norm = numbers, norm
        rows = [row for row in numbers.run.adaptive if row["norm"] == norm]
        self._rows: dict[tuple, list[dict]] = {}
        for row in rows:
            key = (row["label"], row["attack_label"], row["kind"], float(row["eps"]), row["score"])
            self._rows.setdefault(key, []).append(row)
        self.eps = sorted({float(row["eps"]) for row in rows})
        self.scores = sorted({row["score"] for row in rows}, key=lambda s: (s != SCORE, s))
        place = {attack.label: i for i, attack in enumerate(numbers.attacks)}
        order = ("naive", "adaptive", BEST)
        found = {Rival(row["attack_label"], row["kind"]) for row in rows}
        self.rivals = sorted(
            found, key=lambda r: (order.index(r.kind), place.get(r.label, len(place)), r.label)
        )

    def of_kind(self, kind: str) -> list[Rival]:
        """Return the attacks of one kind."""
        return [rival for rival in self.rivals if rival.kind == kind]

    def get(
        self, label: str, rival: Rival, eps: float, metric: str, score: str = SCORE
    ) -> Estimate | None:
        """Return the estimate over seeds; seeds without the number are left out."""
        rows = self.rows(label, rival, eps, score)
        return over_seeds([float(r[metric]) for r in rows if r[metric] is not None])

    def rows(self, label: str, rival: Rival, eps: float, score: str = SCORE) -> list[dict]:
        """Return one row a seed."""
        return self._rows.get((label, rival.label, rival.kind, float(eps), score), [])

    @property
    def start(self) -> Rival | None:
        """The naive attack that the adaptive ones are set beside: the first with most eps."""

        def count(rival: Rival) -> int:
            return len({key[3] for key in self._rows if key[1:3] == (rival.label, rival.kind)})

        return max(self.of_kind("naive"), key=count, default=None)

    def flags(self, label: str, rival: Rival, eps: float) -> list[Flag]:
        """Return the flags of one attack; the best of adaptive carries those of each of them."""
        concerned = self.of_kind("adaptive") if rival.kind == BEST else [rival]
        known = {attack.label: attack for attack in self.numbers.attacks}
        found: list[Flag] = []
        for one in concerned:
            if one.label in known:
                some = self.numbers.flags_of(label, known[one.label], eps)
                found += [flag for flag in some if flag not in found]
        return found

    @property
    def norm_name(self) -> str:
        """The norm in words."""
        return NORM_NAMES.get(self.norm, self.norm)


def guarded(numbers: Numbers) -> list[Guarded]:
    """Return one comparison for each norm that has an adaptive attack."""
    found = [Guarded(numbers, norm) for norm in numbers.norms]
    return [one for one in found if one.eps and numbers.labels]


def auroc_table(found: Guarded) -> Table:
    """Return AUROC and who is fooled and unnoticed, under a naive and the best adaptive attack."""
    marks = Marks()
    rivals = [*([found.start] if found.start else []), *found.of_kind(BEST)]
    names = [rival.label if rival.kind == "naive" else "best adaptive" for rival in rivals]
    rows, data = [], []
    for label, eps in product(found.numbers.labels, found.eps):
        cells = [_entry(found, marks, label, rival, eps, c) for c in _FALL for rival in rivals]
        rows.append([Entry(label), Entry(eps_text(eps)), *cells])
        data += [
            fields_of(_BESIDE, _numbers(found, label, rival, eps, SCORE, _FALL))
            for rival in found.rivals
        ]
    return Table(
        f"adaptive-auroc-{found.norm}",
        f"What is noticed when the attack knows the detector, {found.norm_name}",
        "Detection of an attack that only wants a wrong class, beside adaptive attacks, which want "
        "one that also looks likely. Best adaptive: for each image, the adaptive attack that fools "
        "it and looks most likely. AUROC is over all attacked images; fooled and unnoticed is in "
        "percent, at 5 % FPR. The CSV has every attack.",
        ["loss", "eps", *(f"{column.head}, {name}" for column in _FALL for name in names)],
        rows,
        data,
        marks.notes(),
    )


def rejection_table(found: Guarded) -> Table:
    """Return who passes a model that may reject: naive attacks at worst, and the best adaptive."""
    marks = Marks()
    kinds = (("naive at worst", found.of_kind("naive")), ("best adaptive", found.of_kind(BEST)))
    rows, data = [], []
    for label, eps in product(found.numbers.labels, found.eps):
        for name, rivals in kinds:
            row = [Entry(label), Entry(name), Entry(eps_text(eps))]
            for column in _REJECTING:
                known = [(value.mean, rival) for rival in rivals
                         if (value := found.get(label, rival, eps, column.key))]  # fmt: skip
                worst = max(known, key=lambda pair: pair[0], default=(0.0, None))[1]
                row.append(_entry(found, marks, label, worst, eps, column))
            rows.append(row)
        data += [
            fields_of(_EVERY, _numbers(found, label, rival, eps, SCORE)) for rival in found.rivals
        ]
    return Table(
        f"adaptive-rejection-{found.norm}",
        f"Error with the option to reject, {found.norm_name}",
        "Error in percent, and what is left of it when the detector rejects 1 % or 5 % of clean "
        "validation images. What is left: images that are wrong and accepted, clean mistakes "
        "included. Naive at worst: in each column the highest over the attacks that ignore the "
        "detector.",
        ["loss", "attack", "eps", *(column.head for column in _REJECTING)],
        rows,
        data,
        marks.notes(),
        left=2,
    )


def _entry(
    found: Guarded, marks: Marks, label: str, rival: Rival | None, eps: float, column: Column
) -> Entry:
    """Return the cell of one attack, with its marks; "n/a" where there is no attack."""
    value = found.get(label, rival, eps, column.key) if rival else None
    if rival is None or value is None:
        return Entry(NOTHING)
    return column.entry(value, marks.of(found.flags(label, rival, eps)))


def every_adaptive_table(found: Guarded) -> Table:
    """Return every attack under every score: what the two tables above are taken from."""
    marks = Marks()
    rows = [
        _numbers(found, label, rival, eps, score)
        for label, eps, rival, score in product(
            found.numbers.labels, found.eps, found.rivals, found.scores
        )
        if found.rows(label, rival, eps, score)
    ]
    return Table(
        f"adaptive-every-{found.norm}",
        f"Every attack and every score beside the adaptive attacks, {found.norm_name}",
        "AUROC of every score under every attack, and the percentage fooled and unnoticed at 5 % "
        "FPR. “Not adapted”: the adaptive attacks aim at the log-likelihood only, so a "
        "high AUROC of another score is no evidence. The CSV also has 1 % FPR, errors and counts.",
        *lay_out(_EVERY, rows, marks),
        marks.notes(),
        left=3,
    )


def _name(rival: Rival) -> str:
    if rival.kind == BEST:
        return "best adaptive"
    return f"naive: {rival.label}" if rival.kind == "naive" else rival.label


def _numbers(
    found: Guarded, label: str, rival: Rival, eps: float, score: str,
    estimates: Sequence[Column] = _ESTIMATES,
) -> dict[str, Any]:  # fmt: skip
    """Return what the columns of these tables show of one attack at one eps under one score."""
    aimed = rival.kind != "naive" and score == SCORE
    keys = [column.key for column in estimates if column.unit]
    values = {key: found.get(label, rival, eps, key, score) for key in keys}
    last = values[keys[-1]]
    return {
        "label": label,
        "norm": found.norm,
        "eps": eps,
        "attack_label": rival.label,
        "kind": rival.kind,
        "name": _name(rival),
        "score": score,
        "score_name": score_name(score, adapted=None if rival.kind == "naive" else aimed),
        "adapted": aimed,
        "n_successful": sum_over(found.rows(label, rival, eps, score), "n_successful") or 0,
        **values,
        "n_seeds": last.n_seeds if last else 0,
        "flags": found.flags(label, rival, eps),
    }
