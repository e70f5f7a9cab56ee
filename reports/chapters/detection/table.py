"""Tables of one attack: detection by the likelihood, and every detection score beside it."""

from itertools import product

from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.detected import (
    LIKELIHOOD,
    Detected,
    interval_words,
    score_words,
    sum_over,
)
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of, lay_out
from robustloss.reports.reading.facts import seed_words
from robustloss.reports.reading.marks import Marks
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
    Column("eps", "eps", words=eps_text),
    Column("n successful", "n_successful"),
    *_ESTIMATES,
    Column("the same, 1 % threshold", EARLY, 100.0, 2, parts=("mean",)),
]
# the checks doubt attacks: noise had no gradient to lose
_CONTROL = Column("AUROC, noise", "auroc_noise", 1.0, parts=("mean",), checks=())


_AREA = Column("AUROC", "auroc", 1.0)
_OF_A_SCORE = [
    *(Column("", key) for key in ("label", "score", "population", "eps", "n_seeds")),
    _AREA,
    Column("", "adapted"),
]
_NOT_ADAPTED = (
    " “Not adapted”: this attack did not try to deceive that score, so a high AUROC there is no "
    "evidence."
)


def detection_table(numbers: Numbers, attack: AttackInfo) -> Table:
    """Return losses and eps by detection numbers; no successful attack gives n/a.

    Args:
        numbers: Of the run.
        attack: Detected by the likelihood.
    """
    marks, detected = Marks(numbers), Detected(numbers)
    control = "noise" in detected.populations
    rows = []
    for label, eps in product(numbers.labels, attack.strengths):
        place = (label, attack.label, eps)
        rows.append(
            {
                "label": label,
                "attack_label": attack.label,
                "eps": eps,
                "n_successful": sum_over(numbers.rows(*place), "n_successful"),
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
        [*marks.notes(), *_notes(numbers, attack)],
        section=attack.label,
        fold="of many losses",
    )


def interval_words_detection(numbers: Numbers) -> str:
    """Return the sentence that says what stands behind the number in a table of detection."""
    over_images = any(row.get("auroc_low") is not None for row in numbers.run.detection)
    if len(numbers.seeds) > 1 or not over_images:
        return seed_words(numbers)
    return (
        "One training seed: intervals of AUROC are 95 % over test images (clustered DeLong), "
        "the other numbers have none."
    )


def _notes(numbers: Numbers, attack: AttackInfo) -> list[str]:
    """Return what a reader of these numbers must know of the attack and of the threshold."""
    notes = []
    entries = [e for e in numbers.spec.get("attacks", []) if e["label"] == attack.label]
    if any((e.get("params") or {}).get("keep") == "first" for e in entries):
        # ending at the first error shows a detector other images than going on does
        notes.append(
            f"{attack.label} leaves an image as soon as it is fooled (keep = first), near the "
            "boundary: its errors are those of the whole attack, its detection numbers are not."
        )
    rejected = []
    for label in numbers.labels:
        values = [
            float(d["clean_rejected_fraction"]) for d in numbers.run.detection
            if (d["label"], d["score"], d["population"]) == (label, LIKELIHOOD, "all")
            and d["clean_rejected_fraction"] is not None
        ]  # fmt: skip
        rejected += [f"{label} {span(values, 1, 100.0)} %"] if values else []
    if rejected:
        words = ", ".join(rejected)
        notes.append(f"Clean test images that the 5 % threshold really rejects: {words}.")
    return notes


def score_name(score: str, *, adapted: bool | None) -> str:
    """Return a score in words; one that an adaptive attack did not aim at says so.

    Args:
        score: Its key.
        adapted: Whether the attack aimed at it; None for an attack that aims at no score.
    """
    words = score_words(score)
    return f"{words} (not adapted)" if adapted is False else words


def scores_table(numbers: Numbers, attack: AttackInfo) -> Table | None:
    """Return AUROC of every detection score, both populations; None with a single score.

    Args:
        numbers: Of the run.
        attack: Told from clean images by the scores.
    """
    found = Detected(numbers)
    adapted = found.adapted(attack.label)
    if len(adapted) < 2:
        return None
    behind = [d for d in numbers.run.detection
              if d["attack_label"] == attack.label and d["eps"] > 0]  # fmt: skip
    places = [*product(("all", "successful"), attack.strengths)]
    marks = Marks(numbers)
    rows, data = [], []
    for label in numbers.labels:
        for score in found.scores_of(label, attack.label):
            cells = []
            for population, eps in places:
                area = found.get(label, attack.label, eps, score, population)
                flags = numbers.flags(label, attack.label, eps)
                cells.append(_AREA.entry(area, marks.of(flags) if area else ""))
                row = {"label": label, "score": score, "population": population, "eps": eps,
                       "n_seeds": area.n_seeds if area else 0, "auroc": area,
                       "adapted": adapted[score], "flags": flags}  # fmt: skip
                data.append(fields_of(_OF_A_SCORE, row))
            name = score_name(score, adapted=adapted[score])
            rows.append([Entry(label), Entry(name), *cells])
    return Table(
        f"scores-{attack.slug}",
        f"Which score tells {attack.label} from clean images?",
        f"AUROC of each detection score. {interval_words(behind)} The likelihood "
        "asks whether the features look like the predicted class at all, the posterior only how "
        f"clearly one class wins.{_NOT_ADAPTED if False in adapted.values() else ''}",
        ["loss", "score", *(f"{population}, eps {eps_text(eps)}" for population, eps in places)],
        rows,
        data,
        marks.notes(),
        left=2,
        section=attack.label,
        fold="always",
    )
