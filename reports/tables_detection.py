"""Detection in full: every population with its intervals, noise as a control, outside images."""

from collections.abc import Mapping, Sequence

from robustloss.reports.detected import (
    LIKELIHOOD,
    POPULATION_WORDS,
    Detected,
    in_order,
    interval_words,
    over_rows,
    score_words,
)
from robustloss.reports.marks import Marks, names
from robustloss.reports.numbers import AttackInfo, Estimate, Numbers
from robustloss.reports.table import Entry, Table
from robustloss.reports.words import NOTHING, estimate

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
                     "population": population, "n_attacked": count, **_numbers(values),
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
    )


def _numbers(values: Mapping[str, Estimate | None]) -> dict[str, object]:
    return {
        f"{metric}{end}": getattr(value, key) if value else None
        for metric, value in values.items()
        for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))
    }


def outside_tables(numbers: Numbers) -> list[Table]:
    """Out-of-distribution sets: the likelihood of every loss, and, if there are, all scores."""
    every = numbers.run.results.get("out_of_distribution") or []
    lean = [row for row in every if row["score"] == LIKELIHOOD]
    tables = [_outside(numbers, lean, "out-of-distribution", "by likelihood")] if lean else []
    if len(every) > len(lean):
        tables.append(_outside(numbers, every, "scores-out-of-distribution", "by every score"))
    return tables


def _outside(numbers: Numbers, every: Sequence[Mapping], name: str, how: str) -> Table:
    places: dict[tuple[str, str, str], list[Mapping]] = {}
    for row in every:
        places.setdefault((row["outside"], row["label"], row["score"]), []).append(row)
    sets = list(dict.fromkeys(row["outside"] for row in every))
    scores = in_order(row["score"] for row in every)
    rows, data = [], []
    for label in numbers.labels:
        for score in scores:
            if not any((o, label, score) in places for o in sets):
                continue  # the loss has no such score
            cells = []
            for outside in sets:
                own = places.get((outside, label, score), [])
                area, caught = over_rows(own, "auroc"), over_rows(own, "caught_at_5fpr")
                cells += [
                    Entry(estimate(area)),
                    Entry(estimate(caught, unit=100.0, digits=1)),
                ]
                data.append(
                    {"outside": outside, "label": label, "score": score,
                     "n_outside": sum(int(r["n_outside"]) for r in own) if own else None,
                     **_numbers({m: over_rows(own, m) for m in _OUTSIDE})}
                )  # fmt: skip
            rows.append([Entry(label), Entry(score_words(score)), *cells])
    return Table(
        name,
        f"Images that are not of the data: are they noticed {how}?",
        f"{_sets(every, sets)} AUROC: of these images against all clean test images; 1 means that "
        "every one of them has a lower score than every clean image, 0.5 is guessing, and less "
        "that they look more typical than the network's own data. Caught: percent of them below "
        "the threshold that rejects 5 % of clean validation images. Nobody attacked here. A score "
        f"that a loss does not have is left out. {interval_words(every)}",
        ["loss", "score", *(f"{o}: {what}" for o in sets for what in ("AUROC", "caught"))],
        rows,
        data,
        left=2,
    )


_OUTSIDE = ("auroc", "average_precision", "tpr_at_1fpr", "tpr_at_5fpr", "clean_rejected_at_95tpr",
            "equal_error_rate", "caught_at_5fpr")  # fmt: skip


def _sets(rows: Sequence[Mapping], sets: Sequence[str]) -> str:
    parts = []
    for outside in sets:
        own = [row for row in rows if row["outside"] == outside]
        name, n = own[0].get("outside_name") or outside, max(int(r["n_outside"]) for r in own)
        parts.append(f"{outside}{'' if name == outside else f' ({name})'}, {n:,} images")
    return f"Shown to the networks as they are: {'; '.join(parts) or NOTHING}."
