"""Errors class by class, and the errors that do not count every image alike."""

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import class_counts, class_names, losses_with, mean, rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, Estimate, estimate, over_seeds

MOST_CLASSES = 20
UNEQUAL = 1.5  # largest over smallest class; MNIST's digits have 1.25
WEIGHTED = "weighted_softmax"


def class_table(numbers: Numbers) -> Table | None:
    """Clean error, false positives and false negatives of each class."""
    labels = losses_with(numbers, "per_class", attack="none")
    if not labels:
        return None
    names = class_names(numbers)
    shown = len(names) <= MOST_CLASSES
    rows_, data = [], []
    for label in labels:
        found = rows(numbers, "per_class", label, attack="none")
        data += found
        worst = _worst(found)
        for k in sorted({row["class_index"] for row in found}):
            own = [row for row in found if row["class_index"] == k]
            if shown or k in worst:
                rows_.append(_class_row(label, names[k] if k < len(names) else str(k), own))
    some = (
        ""
        if shown
        else f" Of each loss the {MOST_CLASSES} classes with the highest error; the CSV has all."
    )
    return Table(
        "per-class",
        "Clean error by class",
        "Error in percent of the class's own test images. False negatives: its images that are "
        "taken for another class; false positives: images of other classes that are taken for it; "
        "counts are means over seeds, the rate is a share of the images of all other classes, in "
        f"percent. [low, high] is a 95 % Wilson interval over images{_widest(numbers)}.{some}",
        ["loss", "class", "images", "error", "false negatives", "false positives",
         "false positive rate"],
        rows_,
        data,
        left=2,
        fold="always",
        of_errors=True,
    )  # fmt: skip


def _widest(numbers: Numbers) -> str:
    return ", the widest over the training seeds" if len(numbers.seeds) > 1 else ""


def _worst(found: list[dict]) -> list[int]:
    """The classes with the highest mean error over seeds."""
    errors: dict[int, list[float]] = {}
    for row in found:
        if row["error"] is not None:  # a class without test images has none
            errors.setdefault(row["class_index"], []).append(float(row["error"]))
    order = sorted(errors, key=lambda k: (-sum(errors[k]) / len(errors[k]), k))
    return order[:MOST_CLASSES]


def _class_row(label: str, name: str, own: list[dict]) -> list[Entry]:
    error = over_seeds([float(row["error"]) for row in own if row["error"] is not None])
    if error:
        low = min(float(row["error_low"]) for row in own if row["error_low"] is not None)
        high = max(float(row["error_high"]) for row in own if row["error_high"] is not None)
        error = Estimate(error.mean, low, high, len(own), error.values, "Wilson over images")
    count = [mean(own, key) for key in ("false_negatives", "false_positives")]
    rate = mean(own, "false_positive_rate")
    return [
        Entry(label),
        Entry(name),
        Entry(f"{own[0]['n']:,}"),
        Entry(estimate(error, unit=100, digits=2)),
        *(Entry(NOTHING if c is None else f"{c.mean:,.4g}") for c in count),
        Entry(NOTHING if rate is None else f"{100 * rate.mean:.3f}"),
    ]


def balance_table(numbers: Numbers) -> Table | None:
    """Balanced error beside error, where the classes do not count alike."""
    counts = class_counts(numbers)
    unequal = bool(counts) and min(counts) > 0 and max(counts) > UNEQUAL * min(counts)
    weighted = WEIGHTED in numbers.names.values()
    known = any(row.get("balanced_error") is not None for row in numbers.run.rows)
    if not known or not (unequal or weighted):
        return None
    places = [("clean", "none", 0.0)]
    for attack in [a for a in numbers.attacks if a.strengths][:1]:
        places += [(f"{attack.label}, eps {e:.4g}", attack.label, e) for e in attack.strengths]
    rows_, data = [], []
    for label in numbers.labels:
        for name, attack_label, eps in places:
            found = numbers.rows(label, attack_label, eps)
            if not any(row.get("balanced_error") is not None for row in found):
                continue
            rows_.append(_balance_row(label, name, found))
            data += [
                {"label": label, "seed": row["seed"], "attack_label": attack_label, "eps": eps,
                 "error": row["error"], "balanced_error": row["balanced_error"]}
                for row in found
            ]  # fmt: skip
    size = f" Training images per class: {min(counts):,} to {max(counts):,}." if counts else ""
    return Table(
        "balanced",
        "Balanced error",
        "Balanced error is the mean of the errors of the classes, so a rare class counts as much "
        f"as a frequent one; in percent.{size} Higher than the error: the rare classes are the "
        f"wrong ones. {interval_note(numbers)}",
        ["loss", "attack", "error", "balanced error", "balanced − error"],
        rows_,
        data,
        left=2,
        fold="of many losses",
        of_errors=True,
    )


def _balance_row(label: str, name: str, found: list[dict]) -> list[Entry]:
    some = [row for row in found if row.get("balanced_error") is not None]
    error, balanced = (over_seeds([row[k] for row in some]) for k in ("error", "balanced_error"))
    apart = sum(row["balanced_error"] - row["error"] for row in some) / len(some)
    texts = (
        *(estimate(v, unit=100, digits=2) for v in (error, balanced)),
        f"{100 * apart:+.2f}" if abs(apart) >= 5e-5 else "0.00",
    )
    return [Entry(label), Entry(name), *(Entry(text.replace("-", "−")) for text in texts)]


def interval_note(numbers: Numbers) -> str:
    """The sentence that says what stands behind ±, for the caption of a table."""
    if len(numbers.seeds) > 1:
        return "± is half a 95 % t-interval over training seeds."
    return "One training seed: no interval."
