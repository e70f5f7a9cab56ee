"""Detection in full: every population with its intervals, noise as a control, outside images."""

from collections.abc import Mapping

from robustloss.reports.chapters.detection.detected import (
    LIKELIHOOD,
    POPULATION_WORDS,
    Detected,
    interval_words,
)
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate, estimate

# heading, column of results.json, unit, decimals
_POINTS = (
    ("AUROC", "auroc", 1.0, 3),
    ("equal error rate", "equal_error_rate", 100.0, 1),
    ("caught at 1 % FPR", "tpr_at_1fpr", 100.0, 1),
    ("caught at 5 % FPR", "tpr_at_5fpr", 100.0, 1),
    ("clean rejected at 95 % caught", "clean_rejected_at_95tpr", 100.0, 1),
)
CONTROL = (
    "Noise is the control: clean images with random noise that is, image by image, as large as "
    "what this attack did at this eps, against the clean images. If noise is caught as easily as "
    "the attack, the detector notices that pixels were changed at all, and its AUROC says nothing "
    "about attacks; the attack is noticed as such only as far as its AUROC is higher. Noise near "
    "0.5 under a high AUROC means that it is the attack that is seen."
)


def populations_table(numbers: Numbers, found: Detected, attack: AttackInfo) -> Table | None:
    """Losses, eps and populations by detection numbers of the likelihood; None for older runs."""
    if not {"failed", "noise"} & set(found.populations):
        return None
    marks, rows, data = Marks(numbers), [], []
    behind: list[Mapping] = []
    columns = [c for c in _POINTS if any(
        row.get(c[1]) is not None for row in numbers.run.detection
    )]  # fmt: skip
    for label in numbers.labels:
        for eps in attack.strengths:
            for population in found.populations:
                place = (label, attack.label, eps, LIKELIHOOD, population)
                if not found.rows(*place):
                    continue
                behind += found.rows(*place)
                values = {m: found.get(*place, m) for _, m, _, _ in columns}
                # a flag is about the attack: noise had no gradient to lose
                mark = "" if population == "noise" else marks.on(label, attack, eps)
                cells = [
                    Entry(estimate(values[m], unit=unit, digits=digits), mark if values[m] else "")
                    for _, m, unit, digits in columns
                ]
                count = found.count(*place)
                rows.append([Entry(label), Entry(f"{eps:.4g}"), Entry(POPULATION_WORDS[population]),
                             Entry(f"{count:,}"), *cells])  # fmt: skip
                data.append(
                    {"label": label, "attack_label": attack.label, "eps": eps,
                     "population": population, "n_attacked": count, **estimates(values),
                     "marks": "" if population == "noise"
                     else names(numbers.flags(label, attack.label, eps))}
                )  # fmt: skip
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
        ["loss", "eps", "population", "n", *(name for name, *_ in columns)],
        rows,
        data,
        marks.notes(),
        left=3,
        section=attack.label,
        fold="always",
    )


def estimates(values: Mapping[str, Estimate | None]) -> dict[str, object]:
    """Each estimate as three plain values: its mean, and its interval as NAME_low and NAME_high."""
    return {
        f"{metric}{end}": getattr(value, key) if value else None
        for metric, value in values.items()
        for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
    }
