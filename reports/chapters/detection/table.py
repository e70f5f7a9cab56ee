"""Tables of one attack: detection by the likelihood, and every detection score beside it."""

from robustloss.reports.chapters.detection.detected import (
    LIKELIHOOD,
    Detected,
    interval_words,
    score_words,
)
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.marks import Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import span

EARLY = "undetected_success_at_1fpr"
NOISE = (
    "“AUROC, noise”: of clean images with random noise of the same size, image by image, as this "
    "attack's change; where it is as high as “AUROC, all”, the likelihood notices that pixels were "
    "changed, not that somebody attacked."
)
_ESTIMATES = [
    Column("AUROC, all", "auroc_all", 1.0),
    Column("AUROC, successful", "auroc_successful", 1.0),
    Column("caught at 1 % FPR, all", "tpr_at_1fpr", 100.0, 1),
    Column("caught at 5 % FPR, all", "tpr_at_5fpr", 100.0, 1),
    Column("caught at 5 % FPR, successful", "tpr_at_5fpr_successful", 100.0, 1),
    Column("fooled and not noticed", "undetected_success_at_5fpr", 100.0, 2),
]
_COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words="{:.4g}".format),
    Column("n successful", "n_successful"),
    *_ESTIMATES,
    Column("the same, 1 % threshold", EARLY, 100.0, 2, parts=("mean",)),
]
# the checks doubt attacks: noise had no gradient to lose
_CONTROL = Column("AUROC, noise", "auroc_noise", 1.0, parts=("mean",), checks=())


def detection_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """Losses and eps by detection numbers; no successful attack gives n/a."""
    marks, detected = Marks(numbers), Detected(numbers)
    control = "noise" in detected.populations
    rows = []
    for label in numbers.labels:
        for eps in attack.strengths:
            place = (label, attack.label, eps)
            successes = [
                int(row["n_successful"])
                for row in numbers.rows(*place)
                if row["n_successful"] is not None
            ]
            rows.append(
                {
                    "label": label,
                    "attack_label": attack.label,
                    "eps": eps,
                    "n_successful": sum(successes) if successes else None,
                    **{column.key: numbers.get(*place, column.key) for column in _ESTIMATES},
                    EARLY: detected.get(*place, LIKELIHOOD, "all", EARLY),
                    "auroc_noise": detected.get(*place, LIKELIHOOD, "noise"),
                    "flags": numbers.flags(*place),
                }
            )
    return Table(
        f"detection-{attack.slug}",
        f"Detection of {attack.label} by likelihood",
        "Score: log-likelihood of the features at the predicted class. “All” sets every attacked "
        "image against every clean one; “successful” sets images that were right and became "
        "wrong against all clean images that are right; n successful is summed over seeds, and "
        "n/a means that no attack succeeded. AUROC is a fraction, the rest is percent. FPR is "
        "the share of clean images rejected. “Fooled and not noticed”: of the initially correct "
        "images, those that are fooled and pass the 5 % threshold of clean validation images; "
        "the one column that compares losses fairly, and beside it the same with the 1 % "
        "threshold. " + (f"{NOISE} " if control else "") + interval_words_detection(numbers),
        *lay_out([*_COLUMNS, _CONTROL] if control else _COLUMNS, rows, marks),
        [*marks.notes(), *_stopped_notes(numbers, attack), *_rejected_notes(numbers)],
        section=attack.label,
        fold="of many losses",
    )


def interval_words_detection(numbers: Numbers) -> str:
    """What stands behind the number in a table of detection."""
    if len(numbers.seeds) > 1:
        return "± is half a 95 % t-interval over training seeds."
    known = any(row.get("auroc_low") is not None for row in numbers.run.detection)
    return (
        "One training seed: intervals of AUROC are 95 % over test images (clustered DeLong), "
        "the other numbers have none."
        if known
        else "One training seed: no interval."
    )


def _stopped_notes(numbers: Numbers, attack: AttackInfo) -> list[str]:
    """Ending at the first error shows a detector other images than going on does."""
    entries = [e for e in numbers.spec.get("attacks", []) if e["label"] == attack.label]
    if not any((e.get("params") or {}).get("keep") == "first" for e in entries):
        return []
    return [
        f"{attack.label} leaves an image as soon as it is fooled (keep = first), near the "
        "boundary: its errors are those of the whole attack, its detection numbers are not."
    ]


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


def score_name(score: str, *, adapted: bool | None) -> str:
    """A score in words; one that an adaptive attack did not aim at says so.

    Args:
        score: Its key.
        adapted: Whether the attack aimed at it; None for an attack that aims at no score.
    """
    words = score_words(score)
    return f"{words} (not adapted)" if adapted is False else words


_AREA = Column("AUROC", "auroc", 1.0)
_NOT_ADAPTED = (
    " “Not adapted”: this attack did not try to deceive that score, so a high AUROC there is no "
    "evidence."
)


def scores_table(numbers: Numbers, attack: AttackInfo) -> Table | None:
    """AUROC of every detection score, both populations; None with a single score."""
    found = Detected(numbers)
    behind = [d for d in numbers.run.detection
              if d["attack_label"] == attack.label and d["eps"] > 0]  # fmt: skip
    adapted = found.adapted(attack.label)
    scores = {k: adapted[k] for k in found.scores if k in adapted}
    if len(scores) < 2:
        return None
    marks = Marks(numbers)
    rows, data = [], []
    for label in numbers.labels:
        for score in scores:
            own = [d for d in behind if (d["label"], d["score"]) == (label, score)]
            if not own:
                continue  # the loss has no such score
            cells = []
            for population in ("all", "successful"):
                for eps in attack.strengths:
                    some = found.get(label, attack.label, eps, score, population)
                    flags = numbers.flags(label, attack.label, eps)
                    cells.append(_AREA.entry(some, marks.of(flags) if some else ""))
                    data.append(
                        {
                            "label": label,
                            "score": score,
                            "population": population,
                            "eps": eps,
                            "n_seeds": some.n_seeds if some else 0,
                            **_AREA.fields(some),
                            "adapted": scores[score],
                            "marks": names(flags),
                        }
                    )
            rows.append([Entry(label), Entry(score_name(score, adapted=scores[score])), *cells])
    heads = [f"{p}, eps {e:.4g}" for p in ("all", "successful") for e in attack.strengths]
    return Table(
        f"scores-{attack.slug}",
        f"Which score tells {attack.label} from clean images?",
        f"AUROC of each detection score. {interval_words(behind)} The likelihood "
        "asks whether the features look like the predicted class at all, the posterior only how "
        f"clearly one class wins.{_NOT_ADAPTED if False in scores.values() else ''}",
        ["loss", "score", *heads],
        rows,
        data,
        marks.notes(),
        left=2,
        section=attack.label,
        fold="always",
    )
