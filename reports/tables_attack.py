"""Tables of one attack: detection, detection scores, and how the attack itself fared."""

from collections.abc import Sequence

from reports.numbers import AttackInfo, Numbers
from reports.table import Entry, Table
from reports.tables_error import Marks
from reports.words import NOTHING, estimate, number, span
from robustloss.statistics import t_interval

_DETECTION = (
    ("AUROC, all", "auroc_all", 1.0, 3),
    ("AUROC, successful", "auroc_successful", 1.0, 3),
    ("caught at 1 % FPR, all", "tpr_at_1fpr", 100.0, 1),
    ("caught at 5 % FPR, all", "tpr_at_5fpr", 100.0, 1),
    ("caught at 5 % FPR, successful", "tpr_at_5fpr_successful", 100.0, 1),
    ("fooled and not noticed", "undetected_success_at_5fpr", 100.0, 2),
)


def detection_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """Losses and eps by detection numbers; no successful attack gives n/a."""
    rows, data = [], []
    for label in numbers.labels:
        for eps in attack.strengths:
            found = {m: numbers.get(label, attack.label, eps, m) for _, m, _, _ in _DETECTION}
            successes = [
                int(r["n_successful"]) for r in numbers.run.rows
                if (r["label"], r["attack_label"], r["eps"]) == (label, attack.label, eps)
                and r["n_successful"] is not None
            ]  # fmt: skip
            cells = [
                Entry(estimate(found[m], unit=unit, digits=digits))
                for _, m, unit, digits in _DETECTION
            ]
            total = Entry(f"{sum(successes):,}" if successes else NOTHING)
            rows.append([Entry(label), Entry(f"{eps:.4g}"), total, *cells])
            data.append(
                {"label": label, "attack_label": attack.label, "eps": eps,
                 "n_successful": sum(successes) if successes else None}
                | {f"{m}{k}": getattr(found[m], k2) if found[m] else None
                   for _, m, _, _ in _DETECTION
                   for k, k2 in (("", "mean"), ("_low", "low"), ("_high", "high"))}
            )  # fmt: skip
    return Table(
        f"detection-{attack.slug}",
        f"Detection of {attack.label} by likelihood",
        "Score: log-likelihood of the features at the predicted class. “All” sets every attacked "
        "image against every clean one; “successful” sets images that were right and became "
        "wrong against all clean images that are right; n successful is summed over seeds, and "
        "n/a means that no attack succeeded. AUROC is a fraction, the rest is percent. FPR is "
        "the share of clean images rejected. “Fooled and not noticed”: of the initially correct "
        "images, those that are fooled and pass the 5 % threshold of clean validation images; "
        "the one column that compares losses fairly. " + _interval_words_detection(numbers),
        ["loss", "eps", "n successful", *(name for name, *_ in _DETECTION)],
        rows,
        data,
        _rejected_notes(numbers),
        section=attack.label,
    )


def _interval_words_detection(numbers: Numbers) -> str:
    if len(numbers.seeds) > 1:
        return "± is half a 95 % t-interval over training seeds."
    return "One training seed: no interval."


def _rejected_notes(numbers: Numbers) -> list[str]:
    parts = []
    for label in numbers.labels:
        values = sorted({
            float(d["clean_rejected_fraction"]) for d in numbers.run.detection
            if d["label"] == label and d["score"] == "class_log_likelihood"
            and d["population"] == "all" and d["clean_rejected_fraction"] is not None
        })  # fmt: skip
        if values:
            parts.append(f"{label} {span(values, 1, 100.0)} %")
    if not parts:
        return []
    return [f"Clean test images that the 5 % threshold really rejects: {', '.join(parts)}."]


def attack_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """How well the attack did: success, confidence, and the gradients that it did not have."""
    columns = (
        ("attack success", "attack_success_rate", 100.0, 2),
        ("mean posterior", "mean_max_posterior", 1.0, 3),
        ("zero gradient", "zero_gradient_fraction", 100.0, 2),
    )
    rows, data = [], []
    marks = Marks(numbers)
    for label in numbers.labels:
        for eps in attack.strengths:
            found = {m: numbers.get(label, attack.label, eps, m) for _, m, _, _ in columns}
            cells = [Entry(estimate(found[m], unit=u, digits=d)) for _, m, u, d in columns]
            if cells[-1].text != NOTHING:
                cells[-1] = Entry(cells[-1].text, marks.at(label, attack.label, eps))
            rows.append([Entry(label), Entry(f"{eps:.4g}"), *cells])
            data.append(
                {"label": label, "attack_label": attack.label, "eps": eps}
                | {m: found[m].mean if found[m] else None for _, m, _, _ in columns}  # type: ignore[union-attr]
            )
    return Table(
        f"attack-{attack.slug}",
        f"How {attack.label} fared",
        "Attack success: share of the initially correct images that became wrong, in percent. "
        "Mean posterior: of the predicted class, over all attacked images. Zero gradient: share "
        "of images, in percent, for which the attack had no direction to go, so that it left "
        "them as they were; such images are no evidence of robustness.",
        ["loss", "eps", *(name for name, *_ in columns)],
        rows,
        data,
        marks.notes(),
        section=attack.label,
    )


WORDS = {
    "class_log_likelihood": "log-likelihood",
    "max_log_posterior": "largest posterior",
}


def scores_table(numbers: Numbers, attack: AttackInfo) -> Table | None:
    """AUROC of every detection score, both populations; None with a single score."""
    found = [d for d in numbers.run.detection if d["attack_label"] == attack.label and d["eps"] > 0]
    scores = sorted({d["score"] for d in found})
    if len(scores) < 2:
        return None
    values: dict[tuple, list[float]] = {}
    for d in found:
        if d["auroc"] is not None:
            key = (d["label"], d["score"], d["population"], float(d["eps"]))
            values.setdefault(key, []).append(float(d["auroc"]))
    rows, data = [], []
    for label in numbers.labels:
        for score in scores:
            cells = []
            for population in ("all", "successful"):
                for eps in attack.strengths:
                    some = values.get((label, score, population, eps), [])
                    cells.append(Entry(_mean(some)))
                    data.append(
                        {"label": label, "score": score, "population": population, "eps": eps,
                         "n_seeds": len(some), "auroc": sum(some) / len(some) if some else None}
                    )  # fmt: skip
            rows.append([Entry(label), Entry(WORDS.get(score, score.replace("_", " "))), *cells])
    names = [f"{p}, eps {e:.4g}" for p in ("all", "successful") for e in attack.strengths]
    return Table(
        f"scores-{attack.slug}",
        f"Which score tells {attack.label} from clean images?",
        "AUROC of each detection score, mean ± half a 95 % t-interval over seeds. The likelihood "
        "asks whether the features look like the predicted class at all, the posterior only how "
        "clearly one class wins.",
        ["loss", "score", *names],
        rows,
        data,
        left=2,
        section=attack.label,
    )


def _mean(values: Sequence[float]) -> str:
    if not values:
        return NOTHING
    mean, _, low, high = t_interval(values)
    return number(mean) if len(values) == 1 else f"{mean:.3f} ± {(high - low) / 2:.3f}"
