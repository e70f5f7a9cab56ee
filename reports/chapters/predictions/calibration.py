"""How far a stated confidence can be believed, clean and under attack."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate, estimate, over_seeds

Row = Mapping[str, Any]
_INFINITE = ("nll", "nll_after", "temperature")
_TOP = {"brier": 2.0} | dict.fromkeys(_INFINITE, float("inf"))  # what a number can be at most
# column of results.json, heading, unit, decimals
_COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("accuracy", "right", 100.0, 2),
    ("mean_confidence", "confidence", 100.0, 2),
    ("ece_equal_width", "ECE", 100.0, 2),
    ("ece_floor", "ECE by chance", 100.0, 2),
    ("ece_equal_mass", "ECE, equal mass", 100.0, 2),
    ("brier", "Brier", 1.0, 3),
    ("nll", "NLL (nats)", 1.0, 3),
)
_AFTER = (
    ("temperature", "temperature", 1.0, 2),
    ("ece_after", "ECE after", 100.0, 2),
    ("nll_after", "NLL after", 1.0, 3),
)


def calibration_of(
    numbers: Numbers, label: str, attack: str, eps: float, metric: str
) -> Estimate | None:
    """A column of `calibration` over seeds; the ECE of one seed keeps its interval over images."""
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


def calibration_table(numbers: Numbers, attack: AttackInfo) -> Table | None:
    """Losses by eps; None for older runs."""
    marks, body, data = Marks(numbers), [], []
    columns = _COLUMNS
    if any(row.get("temperature") is not None for row in numbers.run.calibration):
        columns = (*_COLUMNS, *_AFTER)
    for label in numbers.labels:
        for eps in (0.0, *attack.strengths):
            if not _rows(numbers, label, attack.label, eps):
                continue
            found = {m: calibration_of(numbers, label, attack.label, eps, m) for m, *_ in columns}
            mark = marks.on(label, attack, eps) if eps else ""
            cells = [
                Entry(
                    estimate(found[m], unit=unit, digits=digits),
                    mark if m == "accuracy" else "",
                )
                for m, _, unit, digits in columns
            ]
            body.append([Entry(label), Entry(f"{eps:.4g}" if eps else "clean"), *cells])
            data.append(
                {"label": label, "attack_label": attack.label, "eps": eps}
                | {f"{m}{end}": getattr(v, key) if v else None for m, v in found.items()
                   for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))}
                | {"marks": names(numbers.flags(label, attack.label, eps)) if eps else ""}
            )  # fmt: skip
    if not body:
        return None
    return Table(
        f"calibration-{attack.slug}",
        f"Calibration, clean and under {attack.label}",
        "Does a network that is 90 % sure err in one case out of ten? Right and confidence (mean "
        "largest posterior) in percent of all test images; labels of attacked images are those of "
        "the images before. ECE: expected calibration error in percent, the gap between the two "
        "averaged over 15 bins of confidence of equal width, or of equally many images with equal "
        "confidences kept together. By chance: what a perfectly calibrated network with the same "
        "confidences would show on so many images; an ECE near it is no fault. Brier: mean squared "
        "distance of the posteriors from the truth, 0 to 2. NLL: mean −log posterior of the label."
        + _after_words(columns)
        + " "
        + _interval_words(numbers),
        ["loss", "eps", *(heading for _, heading, _, _ in columns)],
        body,
        data,
        marks.notes(),
        left=2,
        section=attack.label,
        fold="always",
    )


def _after_words(columns: Sequence[tuple[str, str, float, int]]) -> str:
    if len(columns) == len(_COLUMNS):
        return ""
    return (
        " After: with the logits divided by the temperature that suits the clean validation images "
        "best, which changes no prediction; at 0.05 or 20 the search ended at its limit."
    )


def _interval_words(numbers: Numbers) -> str:
    if len({row["seed"] for row in numbers.run.calibration}) > 1:
        return "Intervals are 95 % t-intervals over training seeds."
    return (
        "One training seed: the interval of the ECE is 95 % over resampled test images, with the "
        "upward bias of the resamples taken off; it lies too high where the ECE is near that by "
        "chance. The other numbers have none."
    )
