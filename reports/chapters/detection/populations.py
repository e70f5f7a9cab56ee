"""Detection in full: every population of images, with noise as a control."""

from itertools import product

from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.detected import (
    EARLY,
    LIKELIHOOD,
    POPULATION_WORDS,
    Detected,
    interval_words,
)
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
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
_UNNOTICED = Column("fooled and unnoticed, 1 %", EARLY, 100.0, 2)


def populations_table(numbers: Numbers, found: Detected, attack: AttackInfo) -> Table | None:
    """Return losses, eps and populations by numbers of the likelihood.

    Args:
        numbers: Of the run.
        found: Its table `detection`.
        attack: Detected by the likelihood.
    """
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
            # a share of all images that were right
            | {EARLY: found.get(*place, EARLY) if population == "all" else Entry("")}
        )  # fmt: skip
    behind = [row for row in detection if row["attack_label"] == attack.label
              and row["score"] == LIKELIHOOD and row["eps"] > 0]  # fmt: skip
    marks = Marks(numbers)
    return Table(
        f"populations-{attack.slug}",
        f"Detection of {attack.label} by likelihood, by population",
        "Score: log-likelihood at the predicted class. All attacked images stand against all clean "
        "ones; the successful (right, now wrong) and the failed (still right) against all clean "
        "images that are right; noise, as large as the attack's change of each image, against all "
        "clean ones. n: images, summed over seeds. AUROC is a fraction, the rest percent. Equal "
        "error rate: where as many clean images are rejected as attacked ones pass. Clean rejected "
        "at 95 % caught: by the threshold that catches 95 % of the population. "
        + interval_words(behind),
        *lay_out([*_COLUMNS, *known, _UNNOTICED], rows, marks),
        marks.notes(),
        left=3,
    )
