"""Detection in full: every population of images, with noise as a control."""

from itertools import product

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Table, lay_out
from robustloss.reports.reading.detected import EARLY, LIKELIHOOD, POPULATION_WORDS
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.scene import Scene

_COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words=eps_text),
    Column("population", "population", words=POPULATION_WORDS.__getitem__),
    Column("n", "n_attacked"),
]
_ESTIMATES = [
    Column("AUROC", "auroc", 1.0),
    Column("EER", "equal_error_rate", 100.0, 1),
    Column("caught, 1 %", "tpr_at_1fpr", 100.0, 1),
    Column("caught, 5 %", "tpr_at_5fpr", 100.0, 1),
    Column("FPR at 95 %", "clean_rejected_at_95tpr", 100.0, 1),
]
_UNNOTICED = Column("", EARLY, 100.0, 2)  # of all attacked images, a share of all that were right


def populations_table(scene: Scene) -> Table | None:
    """Return losses, eps and populations by numbers of the likelihood."""
    attack, found, detection = scene.attack, scene.numbers.detected, scene.numbers.run.detection
    # runs of older versions lack some of the numbers
    known = [c for c in _ESTIMATES if any(row.get(c.key) is not None for row in detection)]
    rows = []
    for label, eps, population in product(scene.labels, attack.strengths, found.populations):
        place = (label, attack.label, eps, LIKELIHOOD, population)
        if not found.rows(*place):
            continue
        # a flag is about the attack: noise had no gradient to lose
        flags = () if population == "noise" else scene.flags(label, eps)
        rows.append(
            {"label": label, "attack_label": attack.label, "eps": eps, "population": population,
             "n_attacked": found.count(*place), "flags": flags}
            | {column.key: found.get(*place, column.key) for column in known}
            | {EARLY: found.get(*place, EARLY) if population == "all" else None}
        )  # fmt: skip
    marks = Marks()
    return Table(
        f"populations-{attack.slug}",
        f"Detection of {attack.label} by likelihood, by population",
        "How well the likelihood tells each population of attacked images from clean ones. "
        "Successful (right, now wrong) and failed (still right) attacks stand against the clean "
        "images that are right, the other populations against all clean ones; noise is as large as "
        "the attack's change of each image. n: images of all seeds. Caught: percentage rejected at "
        "1 % or 5 % FPR. EER: equal error rate, where as many clean images are rejected as "
        "attacked ones pass. FPR at 95 %: clean images rejected when 95 % are caught.",
        *lay_out([*_COLUMNS, *known, _UNNOTICED], rows, marks),
        marks.notes(),
        left=3,
    )
