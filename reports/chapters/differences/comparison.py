"""The differences between losses under one attack, with what is known of each, and the ranks.

A difference is over training seeds where a run has several, and over the test images of its first
seed otherwise. The ranks rest on the differences that are shown.
"""

from robustloss.notation import interval_text
from robustloss.reports.reading.numbers import of_one_unit
from robustloss.reports.reading.scene import Scene
from robustloss.results.columns import Row


class Compared:
    """The tables `comparisons` and `ranks` under one attack and on the clean images.

    Attributes:
        rows: Of `comparisons`: a row a pair, eps and metric.
        ranks: Of `ranks`: a row a loss, eps and metric.
        labels: The losses that are in a pair: the baseline first, the others as in the spec.
        unit: "seeds" or "images".
    """

    def __init__(self, scene: Scene) -> None:
        numbers, names = scene.numbers, (scene.attack.label, "none")
        self._trained = not numbers.nothing_trained
        self.unit = "seeds" if any(row["unit"] == "seeds" for row in numbers.compared) else "images"
        self.rows = [row for row in numbers.compared if row["attack_label"] in names]
        self.ranks = [row for row in of_one_unit(numbers.run.ranks) if row["attack_label"] in names]
        self._pairs = {
            (row["metric"], _eps(row), row["label_a"], row["label_b"]): row for row in self.rows
        }
        self._ranks = {(row["metric"], _eps(row), row["label"]): row for row in self.ranks}
        paired = {label for *_, a, b in self._pairs for label in (a, b)}
        order = dict.fromkeys([numbers.baseline, *numbers.labels])
        self.labels = [label for label in order if label in paired]

    def get(self, metric: str, eps: float, label: str, other: str) -> Row | None:
        """Return the row of one loss minus another, turned round where it is stored so.

        Args:
            metric: A metric of `comparisons`.
            eps: 0 for the clean images.
            label, other: Of the losses.
        """
        row = self._pairs.get((metric, eps, label, other))
        stored = self._pairs.get((metric, eps, other, label))
        if row is not None or stored is None:
            return row
        return turn(stored)

    def rank(self, metric: str, eps: float, label: str) -> Row | None:
        """Return the row of `ranks` of one loss; eps is 0 for the clean images."""
        return self._ranks.get((metric, eps, label))

    def unit_words(self) -> str:
        """Return the sentence that says what the intervals and the tests are over."""
        if self.unit == "seeds":
            seeds = max((int(row["n_seeds"]) for row in self.rows), default=0)
            return f"Tested over {seeds} training seeds, paired by seed (t-test)."
        of, other = " of one training seed", "; another training may differ otherwise"
        return (
            f"Tested over the test images{of if self._trained else ''} (McNemar's test for errors, "
            f"resampled images for AUROC){other if self._trained else ''}."
        )


def turn(row: Row) -> Row:
    """Return the row of A minus B as that of B minus A."""
    low, high, difference = (
        None if row[name] is None else -row[name] for name in ("high", "low", "difference")
    )
    return dict(row) | {
        "label_a": row["label_b"], "label_b": row["label_a"], "value_a": row["value_b"],
        "value_b": row["value_a"], "difference": difference, "low": low, "high": high,
    }  # fmt: skip


def write_difference(row: Row, unit: float, digits: int) -> str:
    """Return a difference with its interval and its sign: "+5.00 [3.00, 6.00]".

    Args:
        row: Of `comparisons`.
        unit: 100 shows fractions in percentage points.
        digits: Decimals.
    """
    if row["difference"] is None:  # one median radius lies beyond what was found
        return "larger" if row["value_a"] is None else "smaller"
    text = interval_text(row["difference"], row["low"], row["high"], unit=unit, digits=digits)
    return f"+{text}" if text[0] != "−" and float(text.partition(" ")[0]) else text


def _eps(row: Row) -> float | None:
    return 0.0 if row["attack"] == "none" else row["eps"]
