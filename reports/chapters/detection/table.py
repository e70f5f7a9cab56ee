"""Tables of one attack: detection by the likelihood, by population, and by every other score."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.drawing.style import CROWD
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of, lay_out
from robustloss.reports.reading.detected import (
    EARLY,
    POPULATION_WORDS,
    sum_over,
)
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.published import Published, published_errors
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import NOTHING, span
from robustloss.spec.detection import LIKELIHOOD, score_words

_COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words=eps_text),
    Column("", "n_successful"),
    Column("AUROC, all", "auroc_all", 1.0),
    Column("AUROC, successful", "auroc_successful", 1.0),
    # the checks doubt attacks: noise had no gradient to lose
    Column("AUROC, noise control", "auroc_noise", 1.0, parts=("mean",), checks=()),
    Column("", "tpr_at_1fpr", 100.0),
    Column("", "tpr_at_5fpr", 100.0),
    Column("", "tpr_at_5fpr_successful", 100.0),
    Column("fooled and unnoticed", "undetected_success_at_5fpr", 100.0, 2),
    Column("", EARLY, 100.0, parts=("mean",)),
    Column("AUGRC", "augrc", 100.0, 2),
    Column("", "aurc", 100.0, 2),
]

MOST_EPS = 3  # for which the page has room
_AREA = Column("AUROC", "auroc", 1.0)
_OF_A_SCORE = [
    *(Column("", key) for key in ("label", "score", "population", "eps", "n_seeds")),
    _AREA,
    Column("", "adapted"),
    Column("", "auroc_own_attack", 1.0, parts=("mean",)),
]
NOT_ATTACKED = "not attacked"
_NOT_ADAPTED = (
    " “Not adapted”: this attack did not try to deceive that score, so a high AUROC there is no "
    "evidence."
)


def detection_table(scene: Scene) -> Table:
    """Return AUROC of the likelihood and who is fooled and unnoticed; the CSV file has more."""
    attack, marks, detected = scene.attack, Marks(), scene.numbers.detected
    columns = [c for c in _COLUMNS if c.key != "auroc_noise" or "noise" in detected.populations]
    rows = []
    for label, eps in product(scene.labels, attack.strengths):
        place = (label, attack.label, eps)
        rows.append(
            {"label": label, "attack_label": attack.label, "eps": eps,
             "n_successful": sum_over(scene.numbers.rows(*place), "n_successful"),
             **{column.key: scene.get(label, eps, column.key) for column in columns if column.unit},
             EARLY: detected.get(*place, LIKELIHOOD, "all", EARLY),
             "auroc_noise": detected.get(*place, LIKELIHOOD, "noise"),
             "flags": scene.flags(label, eps)}
        )  # fmt: skip
    header, entries, data = lay_out(columns, rows, marks)
    published = [each for each in published_errors(scene.numbers, attack) if each.auroc]
    for i in reversed(range(len(rows))):
        entries[i + 1 : i + 1] = _published_rows(header, published, rows[i], data[i])
    return Table(
        f"detection-{attack.slug}",
        f"Detection of {attack.label} by likelihood",
        "AUROC of the likelihood, and the percentage of the initially correct images that are "
        "fooled and unnoticed. All: every attacked image against every clean one. Successful: "
        "images that were right and became wrong, against the clean images that are right (n/a: "
        "no attack succeeded). Fooled and unnoticed, at 5 % FPR, compares losses fairly. AUGRC, in "
        "percent, does so without a threshold: the share that is wrong and accepted, of clean and "
        "attacked images together, on average over all thresholds. For both, lower is better.",
        header,
        entries,
        data,
        [
            *marks.notes(),
            *_notes(scene),
            *(
                []
                if LIKELIHOOD in detected.attacked
                else ["Not attacked: no attack of this run tries to deceive the likelihood."]
            ),
            *(f"Published: {p.source}. {p.caveat}" for p in published),
        ],
    )


def _published_rows(
    header: Sequence[str],
    published: Sequence[Published],
    row: Mapping[str, Any],
    data: dict[str, object],
) -> list[list[Entry]]:
    """Return the rows of others below one of ours, and add what they found to its CSV fields."""
    found: list[list[Entry]] = []
    if published:
        data |= {"published_auroc": None, "published_source": None}
    for each in reversed(published):
        area = each.auroc.get(row["label"], {}).get(row["eps"])
        if area is not None:
            texts = {header[0]: each.name_among(published), "eps": eps_text(row["eps"])}
            texts["AUROC, all"] = f"{area:.3f}"
            found.insert(0, [Entry(texts.get(head, "–"), kind="published") for head in header])
            data |= {"published_auroc": area, "published_source": each.short}
    return found


def _notes(scene: Scene) -> list[str]:
    """Return what a reader of these numbers must know of the attack and of the threshold."""
    numbers, attack, notes = scene.numbers, scene.attack, []
    entries = [e for e in numbers.spec.get("attacks", []) if e["label"] == attack.label]
    if any((e.get("params") or {}).get("keep") == "first" for e in entries):
        # ending at the first error shows a detector other images than going on does
        notes.append(
            f"{attack.label} stops at the first change that fools an image (keep = first), near "
            "the boundary: its errors are sound, but an attack that goes on looks different to a "
            "detector."
        )
    rejected, every = [], []
    for label in numbers.labels:
        values = [
            float(d["clean_rejected_fraction"]) for d in numbers.run.detection
            if (d["label"], d["score"], d["population"]) == (label, LIKELIHOOD, "all")
            and d["clean_rejected_fraction"] is not None
        ]  # fmt: skip
        rejected += [f"{label} {span(values, 1, 100.0)} %"] if values else []
        every += values
    if rejected:
        crowd = len(rejected) > CROWD
        words = f"{span(every, 1, 100.0)} %" if crowd else ", ".join(rejected)
        notes.append(f"Clean test images that the 5 % threshold rejects: {words}.")
    return notes


def score_name(score: str, *, adapted: bool | None) -> str:
    """Return a score in words; one that an adaptive attack did not aim at says so.

    Args:
        score: Its key.
        adapted: Whether the attack aimed at it; None for an attack that aims at no score.
    """
    words = score_words(score)
    return f"{words} (not adapted)" if adapted is False else words


def scores_table(scene: Scene) -> Table | None:
    """Return AUROC of every detection score, both populations; None with a single score."""
    attack, found, marks = scene.attack, scene.numbers.detected, Marks()
    adapted = found.adapted(attack.label)
    if len(adapted) < 2:
        return None
    places = [*product(("all", "successful"), attack.strengths)]
    kept = [place for place in places if place[1] in scene.eps[-MOST_EPS:]]
    last = found.last_attacked(attack.strengths) or attack.strengths[-1]
    rows, data = [], []
    for label in scene.labels:
        for score in found.scores_of(label, attack.label):
            cells = []
            for population, eps in places:
                area = found.get(label, attack.label, eps, score, population)
                flags = scene.flags(label, eps)
                if (population, eps) in kept:
                    cells.append(_AREA.entry(area, marks.of(flags) if area else ""))
                own = found.own_attack(label, score, eps)
                row = {"label": label, "score": score, "population": population, "eps": eps,
                       "n_seeds": area.n_seeds if area else 0, "auroc": area,
                       "adapted": adapted[score], "flags": flags,
                       "auroc_own_attack": own and own[1]}  # fmt: skip
                data.append(fields_of(_OF_A_SCORE, row))
            name = score_name(score, adapted=adapted[score])
            own = found.own_attack(label, score, last)
            missing = NOTHING if score in found.attacked else NOT_ATTACKED
            if own:
                flags = scene.numbers.flag_index.of_attack(label, own[0], last)
            cells.append(_AREA.entry(own[1], marks.of(flags)) if own else Entry(missing))
            rows.append([Entry(label), Entry(name), *cells])
    return Table(
        f"scores-{attack.slug}",
        f"Which score tells {attack.label} from clean images?",
        "AUROC of each detection score, over all attacked images and over the successful attacks. "
        "The likelihood asks whether the features look like the predicted class at all, the "
        "posterior only how clearly one class wins."
        f"{_NOT_ADAPTED if False in adapted.values() else ''} Its own attack: over all images, "
        "under the adaptive attack that aims at the score of that row; “not attacked” if the run "
        "has none. The CSV has every eps.",
        [
            "loss",
            "score",
            *(f"{population}, eps {eps_text(eps)}" for population, eps in kept),
            f"its own attack, eps {eps_text(last)}",
        ],
        rows,
        data,
        marks.notes(),
        left=2,
    )


_OF_A_RISK = [Column("", key) for key in ("label", "score", "attack_label", "eps", "adapted")]
_AREAS_OF_RISK = [Column("AUGRC", "augrc", 100.0, 2), Column("AURC", "aurc", 100.0, 2)]
_OF_A_POPULATION = [
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
    Column("clean rejected at 95 %", "clean_rejected_at_95tpr", 100.0, 1),
]
_UNNOTICED = Column("", EARLY, 100.0, 2)  # of all attacked images, a share of all that were right


def risk_table(scene: Scene) -> Table | None:
    """Return losses and scores by AUGRC, of the clean images and at each eps; the CSV has AURC."""
    attack, found = scene.attack, scene.numbers.detected
    aimed, marks = found.adapted(attack.label), Marks()
    places = [("none", 0.0, "clean"), *((attack.label, e, "all") for e in attack.strengths)]
    kept = [*places[:1], *places[1:][-MOST_EPS:]]
    rows, data = [], []
    for label in scene.labels:
        for score in found.scores_of(label, attack.label):
            cells = []
            for name, eps, population in places:
                place = (label, name, eps, score, population)
                areas = {c.key: found.get(*place, c.key) for c in _AREAS_OF_RISK}
                flags = scene.flags(label, eps) if eps else []
                if (name, eps, population) in kept:
                    cells.append(_AREAS_OF_RISK[0].entry(areas["augrc"], marks.of(flags)))
                row = {"label": label, "score": score, "attack_label": name, "eps": eps,
                       "adapted": aimed[score] if eps else None, "flags": flags}  # fmt: skip
                data.append(fields_of([*_OF_A_RISK, *_AREAS_OF_RISK], row | areas))
            rows.append([Entry(label), Entry(score_name(score, adapted=aimed[score])), *cells])
    if not any(row["augrc"] is not None for row in data):
        return None  # of an older version
    return Table(
        f"risk-{attack.slug}",
        f"Undetected failures without a threshold, {attack.label}",
        "AUGRC of each detection score in percent: the share of all images that is wrong and "
        "accepted, on average over all thresholds. Clean: how well the score finds the mistakes "
        "on clean images. At an eps: over the clean and the attacked images together. A useless "
        "score has half the error of these images, a perfect one half its square."
        f"{_NOT_ADAPTED if False in aimed.values() else ''} The CSV has every eps and AURC.",
        ["loss", "score", "clean", *(f"eps {eps_text(eps)}" for _, eps, _ in kept[1:])],
        rows,
        data,
        marks.notes(),
        left=2,
    )


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
        "attacked ones pass. Clean rejected at 95 %: the share when 95 % are caught.",
        *lay_out([*_OF_A_POPULATION, *known, _UNNOTICED], rows, marks),
        marks.notes(),
        left=3,
    )
