"""The transfer matrix over seeds: images made on one loss, shown to another."""

import math

import numpy as np

from robustloss.reports.chapters.errors.heatmap import Heat, draw_heatmaps
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import interval_words
from robustloss.reports.reading.marks import TRANSFER, Flag, Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import NOTHING, Estimate, eps_name, estimate, over_seeds


class Matrix:
    """The table `transfer` of one attack, by source, target and eps.

    Attributes:
        attack: With which the images were made.
        eps: Strengths that were transferred.
        labels: Losses in the order of the spec.
    """

    def __init__(self, numbers: Numbers, attack: AttackInfo) -> None:
        self.numbers, self.attack = numbers, attack
        rows = [r for r in numbers.run.transfer if r["attack_label"] == attack.label]
        self._rows: dict[tuple[str, str, float], list[dict]] = {}
        for row in rows:
            key = row["source"], row["target"], float(row["eps"])
            self._rows.setdefault(key, []).append(row)
        self.eps = sorted({float(row["eps"]) for row in rows})
        known = {row[side] for row in rows for side in ("source", "target")}
        self.labels = [label for label in numbers.labels if label in known]

    def rows(self, source: str, target: str, eps: float) -> list[dict]:
        """One row a seed."""
        return self._rows.get((source, target, float(eps)), [])

    def get(self, source: str, target: str, eps: float) -> Estimate | None:
        """Error of the target on images made on the source; one seed keeps its Wilson interval."""
        rows = self.rows(source, target, eps)
        if len(rows) == 1:
            low, high = (float(rows[0][k]) for k in ("error_low", "error_high"))
            mean = float(rows[0]["error"])
            return Estimate(mean, low, high, 1, (mean,), "Wilson over images")
        return over_seeds([float(row["error"]) for row in rows])

    def clean(self, target: str) -> Estimate | None:
        """Error of a target on the clean test images, as the error tables have it."""
        return self.numbers.get(target, "none", 0.0, "error")

    def flags(self, source: str, target: str, eps: float) -> list[Flag]:
        """Flags of a white-box number; an error on the images of others claims nothing."""
        if source != target:
            return []
        return list(self.numbers.flags(target, self.attack.label, eps))


def matrices(numbers: Numbers) -> list[Matrix]:
    """One matrix for each attack that was transferred."""
    found = [Matrix(numbers, attack) for attack in numbers.attacks]
    return [matrix for matrix in found if matrix.labels]


def add_transfers(album: Album, numbers: Numbers) -> None:
    """One figure for each attack whose images were shown to other losses."""
    for matrix in matrices(numbers):
        _add(album, matrix)


def _add(album: Album, matrix: Matrix) -> None:
    heats = [_heat(matrix, eps) for eps in matrix.eps]
    name = matrix.attack.label
    album.add(
        f"transfer-{matrix.attack.slug}",
        draw_heatmaps(
            heats,
            matrix.labels,
            [f"{label}\n(clean {_clean(matrix, label)})" for label in matrix.labels],
            scale="error of the loss that sees the images (%)",
        ),
        _rows(matrix),
        title=f"Transfer of {name} between the losses",
        caption=f"Error in percent on images that {name} made on one loss (row) and another loss "
        "sees (column); its error on clean images stands under its name. The framed diagonal is "
        "the white-box attack. Images made elsewhere should do less harm than those: a column with "
        "a number above its diagonal is a model that hides its gradient, not one that resists. "
        "† on the diagonal: images made on another loss did better there, beyond chance. Mean "
        "over seeds; intervals are in the table.",
        alt=f"Heat maps of the error under transfer, source by target. {_in_words(matrix)}",
    )


def _heat(matrix: Matrix, eps: float) -> Heat:
    found = [[matrix.get(s, t, eps) for t in matrix.labels] for s in matrix.labels]
    marked = [[_beaten(matrix, s, t, eps) for t in matrix.labels] for s in matrix.labels]
    values = np.array([[100 * f.mean if f else math.nan for f in row] for row in found])
    return Heat(eps_name(eps), values, np.array(marked))


def _beaten(matrix: Matrix, source: str, target: str, eps: float) -> bool:
    """Whether the white-box number was beaten from outside; other doubts stand in the table."""
    return any(f.get("check") == TRANSFER for f in matrix.flags(source, target, eps))


def _clean(matrix: Matrix, label: str) -> str:
    found = matrix.clean(label)
    return f"{100 * found.mean:.1f} %" if found else NOTHING


def _rows(matrix: Matrix) -> list[dict[str, object]]:
    out: list[dict[str, object]] = []
    for eps in matrix.eps:
        for source in matrix.labels:
            for target in matrix.labels:
                found, clean = matrix.get(source, target, eps), matrix.clean(target)
                out.append(
                    {"eps": eps, "source": source, "target": target,
                     "error_percent": 100 * found.mean if found else None,
                     "target_clean_error_percent": 100 * clean.mean if clean else None,
                     "marked": _beaten(matrix, source, target, eps)}
                )  # fmt: skip
    return out


def _in_words(matrix: Matrix) -> str:
    eps = matrix.eps[len(matrix.eps) // 2]
    own: list[float] = []
    other: list[float] = []
    for source in matrix.labels:
        for target in matrix.labels:
            if found := matrix.get(source, target, eps):
                (own if source == target else other).append(100 * found.mean)
    text = f"At eps {eps:.4g}: white box {min(own):.0f} to {max(own):.0f} %" if own else ""
    return f"{text}, from other losses {min(other):.0f} to {max(other):.0f} %." if other else text


def transfer_table(matrix: Matrix) -> Table:
    """Rows: on which loss the images were made; columns: which loss sees them."""
    marks = Marks(matrix.numbers)
    clean = [Entry(estimate(matrix.clean(k), unit=100, digits=2)) for k in matrix.labels]
    rows = [[Entry("clean"), Entry("(no attack)"), *clean]]
    data = []
    for eps in matrix.eps:
        for source in matrix.labels:
            row = [Entry(f"{eps:.4g}"), Entry(source)]
            for target in matrix.labels:
                found = matrix.get(source, target, eps)
                flags = matrix.flags(source, target, eps) if found else []
                text = estimate(found, unit=100, digits=2)
                row.append(Entry(text, marks.of(flags), "top" if source == target else ""))
                data.append(_data(matrix, source, target, eps))
            rows.append(row)
    name = matrix.attack.label
    return Table(
        f"transfer-{matrix.attack.slug}",
        f"Transfer of {name} between the losses",
        f"Error in percent of the loss of the column on images that {name} made on the loss of "
        "the row. Bold, on the diagonal: white box, the attack sees the very model. An error off "
        "the diagonal that is above the one on it in the same column means that the white-box "
        f"attack did not find what another model's images do. {interval_words(matrix.numbers)}",
        ["eps", "made on", *(f"shown to {label}" for label in matrix.labels)],
        rows,
        data,
        marks.notes(),
        left=2,
        fold="of many losses",
    )


def _data(matrix: Matrix, source: str, target: str, eps: float) -> dict[str, object]:
    found, clean = matrix.get(source, target, eps), matrix.clean(target)
    return {
        "source": source, "target": target, "attack_label": matrix.attack.label,
        "norm": matrix.attack.norm, "eps": eps, "n_seeds": found.n_seeds if found else 0,
        "error": found.mean if found else None, "low": found.low if found else None,
        "high": found.high if found else None, "interval": found.interval if found else None,
        "target_clean_error": clean.mean if clean else None,
        "marks": names(matrix.flags(source, target, eps)),
    }  # fmt: skip
