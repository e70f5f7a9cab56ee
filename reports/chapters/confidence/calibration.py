"""How far a stated confidence can be believed, clean and under attack."""

from collections.abc import Mapping
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import (
    Estimate,
    eps_name,
    estimate_fields,
    fixed,
    in_percent,
    over_seeds,
)

Row = Mapping[str, Any]
_INFINITE = ("nll", "nll_after", "temperature")
_TOP = {"brier": 2.0} | dict.fromkeys(_INFINITE, float("inf"))  # what a number can be at most
_COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words=lambda eps: eps_text(eps) if eps else "clean"),
]
# one mark a row is enough: it stands at the first number
_ESTIMATES = [
    Column("right", "accuracy", 100.0, 2),
    Column("confidence", "mean_confidence", 100.0, 2, checks=()),
    Column("ECE", "ece_equal_width", 100.0, 2, checks=()),
    Column("ECE by chance", "ece_floor", 100.0, 2, checks=()),
    Column("ECE, equal mass", "ece_equal_mass", 100.0, 2, checks=()),
    Column("Brier", "brier", 1.0, checks=()),
    Column("NLL (nats)", "nll", 1.0, checks=()),
]
_AFTER = [
    Column("temperature", "temperature", 1.0, 2, checks=()),
    Column("ECE after", "ece_after", 100.0, 2, checks=()),
    Column("NLL after", "nll_after", 1.0, checks=()),
]
_AFTER_WORDS = (
    " After: with the logits divided by the temperature that suits the clean validation images "
    "best, which changes no prediction; at 0.05 or 20 the search ended at its limit."
)
_ONE_SEED = (
    " One training seed: the interval of the ECE is 95 % over resampled test images, with the "
    "upward bias of the resamples taken off; it lies too high where the ECE is near that by "
    "chance. The other numbers have none."
)


def calibration_of(
    numbers: Numbers, label: str, attack: str, eps: float, metric: str
) -> Estimate | None:
    """Return a column of `calibration` over seeds; the ECE of one seed keeps its own interval.

    Args:
        numbers: Of the run.
        label: Of the loss.
        attack: Label of the attack.
        eps: 0 is the clean pass.
        metric: The column.
    """
    rows = _rows(numbers, label, attack, eps)
    known = [row for row in rows if row.get(metric) is not None]
    if len(known) == 1 and metric == "ece_equal_width":
        mean, low, high = (float(known[0][k]) for k in (metric, "ece_low", "ece_high"))
        return Estimate(mean, low, high, 1, (mean,), "image bootstrap")
    return over_seeds([float(row[metric]) for row in known], most=_TOP.get(metric, 1.0))


def _rows(numbers: Numbers, label: str, attack: str, eps: float) -> list[Row]:
    name = "none" if eps == 0 else attack
    return [
        row
        for row in numbers.run.calibration
        if (row["label"], row["attack_label"], float(row["eps"])) == (label, name, float(eps))
    ]


def confidence_table(scene: Scene) -> Table | None:
    """Return calibration error and mean confidence of each loss by eps; None for older runs."""
    numbers, attack, marks = scene.numbers, scene.attack, Marks()
    rows, data, strengths = [], [], attack.with_clean
    for label in numbers.labels:
        errors, sure = (
            [calibration_of(numbers, label, attack.label, eps, metric) for eps in strengths]
            for metric in ("ece_equal_width", "mean_confidence")
        )
        if not any(errors):
            continue
        rows.append([
            Entry(label),
            *(Entry(in_percent(value), marks.of(scene.flags(label, eps)) if value and eps else "")
              for value, eps in zip(errors, strengths, strict=True)),
            *(Entry(fixed(value.mean if value else None, 1, 100.0)) for value in sure),
        ])  # fmt: skip
        data += [
            {"label": label, "attack_label": attack.label, "eps": eps,
             **estimate_fields(error, "ece"), "confidence": mean and mean.mean}
            for eps, error, mean in zip(strengths, errors, sure, strict=True)
        ]  # fmt: skip
    if not rows:
        return None
    names = [eps_name(eps).replace(" ", "\u00a0") for eps in strengths]
    return Table(
        f"confidence-{attack.slug}",
        f"Calibration error and confidence under {attack.label}",
        "ECE, the expected calibration error, is the mean gap between confidence and accuracy in "
        "percentage points: 0 where a network that is 90 % sure is right 9 times in 10. Confidence "
        "is the mean posterior of the predicted class, in percent. All test images; the table "
        "“Calibration” under Details has accuracy, chance and other measures.",
        ["loss", *(f"ECE, {name}" for name in names), *(f"confidence, {name}" for name in names)],
        rows,
        data,
        marks.notes(),
    )


def calibration_table(scene: Scene) -> Table | None:
    """Return losses by eps; None for older runs."""
    numbers, attack = scene.numbers, scene.attack
    scaled = any(row.get("temperature") is not None for row in numbers.run.calibration)
    estimates = [*_ESTIMATES, *(_AFTER if scaled else [])]
    rows = []
    for label in numbers.labels:
        for eps in attack.with_clean:
            place = (label, attack.label, eps)
            if _rows(numbers, *place):
                row = {column.key: calibration_of(numbers, *place, column.key)
                       for column in estimates}  # fmt: skip
                flags = scene.flags(label, eps) if eps else ()
                rows.append(
                    {"label": label, "attack_label": attack.label, "eps": eps, "flags": flags} | row
                )
    if not rows:
        return None
    several = len({row["seed"] for row in numbers.run.calibration}) > 1
    marks = Marks()
    return Table(
        f"calibration-{attack.slug}",
        f"Calibration, clean and under {attack.label}",
        "Share of images that are right, mean confidence, and the gap between them, in percent. "
        "ECE: the gap averaged over 15 bins of confidence of equal width, or (equal mass) of "
        "equally many images. By chance: what a perfectly calibrated network with the same "
        "confidences would show on so many images; an ECE near it is no fault. Brier: mean squared "
        "distance of the posteriors from the truth, 0 to 2. NLL: mean −log posterior of the label. "
        "All test images; attacked ones keep their label."
        + (_AFTER_WORDS if scaled else "")
        + ("" if several else _ONE_SEED),
        *lay_out([*_COLUMNS, *estimates], rows, marks),
        marks.notes(),
        left=2,
    )
