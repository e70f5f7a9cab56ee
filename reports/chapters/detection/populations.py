"""Detection in full: every population with its intervals, noise as a control, outside images."""

from itertools import product

from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.detected import (
    LIKELIHOOD,
    POPULATION_WORDS,
    Detected,
    interval_words,
)
from robustloss.reports.drawing.table import Column, Table, lay_out
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import AttackInfo, Numbers

_COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words=eps_text),
    Column("population", "population", words=POPULATION_WORDS.__getitem__),
    Column("n", "n_attacked"),
]
_ESTIMATES = [
    Column("AUROC", "auroc", 1.0),
    Column("equal error rate", "equal_error_rate", 100.0, 1),
    Column("caught at 1 % FPR", "tpr_at_1fpr", 100.0, 1),
    Column("caught at 5 % FPR", "tpr_at_5fpr", 100.0, 1),
    Column("clean rejected at 95 % caught", "clean_rejected_at_95tpr", 100.0, 1),
]
CONTROL = (
    "Noise is the control: clean images with random noise that is, image by image, as large as "
    "what this attack did at this eps, against the clean images. If noise is caught as easily as "
    "the attack, the detector notices that pixels were changed at all, and its AUROC says nothing "
    "about attacks; the attack is noticed as such only as far as its AUROC is higher. Noise near "
    "0.5 under a high AUROC means that it is the attack that is seen."
)


def populations_table(numbers: Numbers, found: Detected, attack: AttackInfo) -> Table | None:
    """Return losses, eps and populations by numbers of the likelihood; None for older runs.

    Args:
        numbers: Of the run.
        found: Its table `detection`.
        attack: Detected by the likelihood.
    """
    if not {"failed", "noise"} & set(found.populations):
        return None
    detection = numbers.run.detection
    # runs of older versions lack some of the numbers
    known = [c for c in _ESTIMATES if any(row.get(c.key) is not None for row in detection)]
    rows = []
    for label, eps, population in product(numbers.labels, attack.strengths, found.populations):
        place = (label, attack.label, eps, LIKELIHOOD, population)
        if not found.rows(*place):
            continue
        # a flag is about the attack: noise had no gradient to lose
        flags = () if population == "noise" else numbers.flags(label, attack.label, eps)
        rows.append(
            {"label": label, "attack_label": attack.label, "eps": eps, "population": population,
             "n_attacked": found.count(*place), "flags": flags}
            | {column.key: found.get(*place, column.key) for column in known}
        )  # fmt: skip
    behind = [row for row in detection if row["attack_label"] == attack.label
              and row["score"] == LIKELIHOOD and row["eps"] > 0]  # fmt: skip
    marks = Marks(numbers)
    return Table(
        f"populations-{attack.slug}",
        f"Detection of {attack.label} by likelihood, by population",
        "Score: log-likelihood of the features at the predicted class. All attacked images against "
        "all clean ones; those that were right and became wrong (successful) and those that stayed "
        "right (failed) against all clean images that are right. n: attacked images, summed over "
        f"seeds. {CONTROL if 'noise' in found.populations else ''} AUROC is a fraction, the rest "
        "percent. Equal error rate: where as many clean images are rejected as attacked ones pass. "
        "FPR: share of clean images rejected. The last column: clean images rejected by the "
        "threshold that catches 95 % of the population. " + interval_words(behind),
        *lay_out([*_COLUMNS, *known], rows, marks),
        marks.notes(),
        left=3,
        section=attack.label,
        fold="always",
    )
