"""The transfer matrix over seeds: images made on one loss, shown to another."""

from robustloss.reports.marks import Flag
from robustloss.reports.numbers import AttackInfo, Estimate, Numbers, over_seeds


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
