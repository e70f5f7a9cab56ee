"""The transfer matrix over seeds: images made on one loss, shown to another."""

import math
from collections.abc import Iterator

import numpy as np

from robustloss.notation import eps_text
from robustloss.reports.chapters.result.heatmap import Heat, draw_heatmaps
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Flag, Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import (
    NOTHING,
    Estimate,
    eps_name,
    estimate_fields,
    in_percent,
    over_seeds,
)
from robustloss.results.numbers import TRANSFER


class Matrix:
    """The table `transfer` of one attack, by source, target and eps.

    Attributes:
        attack: With which the images were made.
        eps: Strengths that were transferred.
        labels: Losses in the order of the spec.
        places: Source, target and eps of every number: by eps, by source, by target.
        clean: Error of each loss on the clean test images, as the error tables have it.
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
        sources = targets = self.labels
        self.places = [(s, t, eps) for eps in self.eps for s in sources for t in targets]
        self.clean = {label: numbers.get(label, "none", 0.0, "error") for label in self.labels}

    def get(self, source: str, target: str, eps: float) -> Estimate | None:
        """Return the error of the target on images made on the source, at one eps.

        A single seed keeps its Wilson interval over images.
        """
        rows = self._rows.get((source, target, float(eps)), [])
        if len(rows) == 1:
            error, low, high = (float(rows[0][k]) for k in ("error", "error_low", "error_high"))
            return Estimate(error, low, high, 1, (error,), "Wilson over images")
        return over_seeds([float(row["error"]) for row in rows])

    def flags(self, source: str, target: str, eps: float) -> list[Flag]:
        """Return the flags of a white-box number; an error on others' images claims nothing."""
        if source != target:
            return []
        return list(self.numbers.flags_of(target, self.attack, eps))

    def is_beaten(self, source: str, target: str, eps: float) -> bool:
        """Return whether a white-box number was beaten from outside, beyond chance."""
        return any(flag.get("check") == TRANSFER for flag in self.flags(source, target, eps))

    def words(self) -> str:
        """Return the errors at the middle eps in words: of the white box, and on others' images."""
        middle = self.eps[len(self.eps) // 2]
        percents: dict[bool, list[float]] = {True: [], False: []}  # white box: the errors
        for source, target, eps in self.places:
            if eps == middle and (found := self.get(source, target, eps)):
                percents[source == target].append(100 * found.mean)
        own, other = (f"{min(found):.0f} to {max(found):.0f} %" if found else ""
                      for found in percents.values())  # fmt: skip
        text = f"At eps {eps_text(middle)}: white box {own}" if own else ""
        return f"{text}, from other losses {other}." if other else text


def matrices(numbers: Numbers) -> list[Matrix]:
    """Return one matrix for each attack that was transferred."""
    found = [Matrix(numbers, attack) for attack in numbers.attacks]
    return [matrix for matrix in found if matrix.labels]


def transfer_table(matrix: Matrix) -> Table:
    """Return the errors: in the rows the loss that images were made on, in the columns others."""
    marks, labels = Marks(), matrix.labels
    clean = [in_percent(matrix.clean[label]) for label in labels]
    rows = [[Entry(text) for text in ("clean", "(no attack)", *clean)]]
    data = []
    for source, target, eps in matrix.places:
        if target == labels[0]:
            rows.append([Entry(eps_text(eps)), Entry(source)])
        found, flags = matrix.get(source, target, eps), matrix.flags(source, target, eps)
        mark, kind = marks.of(flags) if found else "", "top" if source == target else ""
        rows[-1].append(Entry(in_percent(found), mark, kind))
        clean_error = matrix.clean[target]
        data.append(
            {"source": source, "target": target, "attack_label": matrix.attack.label,
             "norm": matrix.attack.norm, "eps": eps, **estimate_fields(found, "error"),
             "target_clean_error": clean_error.mean if clean_error else None,
             "marks": names(flags)}
        )  # fmt: skip
    name = matrix.attack.label
    return Table(
        f"transfer-{matrix.attack.slug}",
        f"Transfer of {name} between the losses",
        f"Error in percent of one loss (column) on images that {name} made on another (row). Bold: "
        "the diagonal, where the attack sees the very model (white box). A higher error elsewhere "
        "in its column means that the model hides its gradient from the attack.",
        ["eps", "made on", *(f"shown to {label}" for label in labels)],
        rows,
        data,
        marks.notes(),
        left=2,
    )


def plot_transfers(numbers: Numbers) -> Iterator[Plot]:
    """Draw one figure for each attack whose images were shown to other losses."""
    for matrix in matrices(numbers):
        name, labels = matrix.attack.label, matrix.labels
        clean = {k: 100 * v.mean if v else math.nan for k, v in matrix.clean.items()}
        under = [NOTHING if math.isnan(clean[k]) else f"{clean[k]:.1f} %" for k in labels]
        percents = {
            place: 100 * found.mean if (found := matrix.get(*place)) else math.nan
            for place in matrix.places
        }
        square = (len(matrix.eps), len(labels), len(labels))
        values = np.array([*percents.values()]).reshape(square)
        marked = np.array([matrix.is_beaten(*place) for place in percents]).reshape(square)
        yield Plot(
            f"transfer-{matrix.attack.slug}",
            draw_heatmaps(
                [Heat(eps_name(eps), values[i], marked[i]) for i, eps in enumerate(matrix.eps)],
                labels,
                [f"{k}\n(clean {text})" for k, text in zip(labels, under, strict=True)],
                scale="error of the loss that sees the images (%)",
            ),
            [
                {"eps": eps, "source": source, "target": target, "error_percent": percent,
                 "target_clean_error_percent": clean[target],
                 "marked": matrix.is_beaten(source, target, eps)}
                for (source, target, eps), percent in percents.items()
            ],
            title=f"Transfer of {name} between the losses",
            caption=f"Error in percent of one loss (column) on images that {name} made on another "
            "(row), mean over seeds. The framed diagonal is the white-box attack. A higher error "
            "elsewhere in its column means that the model hides its gradient; † on the diagonal: "
            "beyond chance.",
            alt=f"Heat maps of the error under transfer, source by target. {matrix.words()}",
        )  # fmt: skip
