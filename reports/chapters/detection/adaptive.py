"""Detection and rejection under attacks that know the detector, over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustloss.reports.chapters.detection.table import interval_words_detection, score_name
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Flag, Marks, flags_of, names
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_NAMES, NOTHING, Estimate, estimate, over_seeds

BEST = "best_of_adaptive"
SCORE = "class_log_likelihood"  # what the adaptive attacks aim at

MOST_NAIVE = 3
_REJECTING = (
    ("error", "error, nothing rejected"),
    ("undetected_success_at_1fpr", "fooled and not noticed, 1 % of clean rejected"),
    ("undetected_success_at_5fpr", "fooled and not noticed, 5 % of clean rejected"),
    ("error_with_rejection_at_1fpr", "wrong and accepted, 1 % of clean rejected"),
    ("error_with_rejection_at_5fpr", "wrong and accepted, 5 % of clean rejected"),
)
_ALL = (
    ("auroc_all", "AUROC, all", 1.0, 3),
    ("auroc_successful", "AUROC, successful", 1.0, 3),
    ("undetected_success_at_1fpr", "fooled and not noticed, 1 %", 100.0, 2),
    ("undetected_success_at_5fpr", "fooled and not noticed, 5 %", 100.0, 2),
    ("error", "error", 100.0, 2),
    ("error_with_rejection_at_1fpr", "wrong and accepted, 1 %", 100.0, 2),
    ("error_with_rejection_at_5fpr", "wrong and accepted, 5 %", 100.0, 2),
)


@dataclass(frozen=True)
class Rival:
    """One attack in the comparison: kind "naive", "adaptive" or "best_of_adaptive"."""

    label: str
    kind: str


class Guarded:
    """The table `adaptive` of one norm, by loss, attack, eps and score.

    Attributes:
        norm: Of every number in it.
        eps: Strengths that have an adaptive attack.
        rivals: Naive attacks in the order of the spec, then the adaptive ones, then their best.
        scores: The score that the attacks aim at, then the others.
    """

    def __init__(self, numbers: Numbers, norm: str) -> None:
        self.numbers, self.norm = numbers, norm
        rows = [row for row in numbers.run.adaptive if row["norm"] == norm]
        self._rows: dict[tuple, list[dict]] = {}
        for row in rows:
            key = (row["label"], row["attack_label"], row["kind"], float(row["eps"]), row["score"])
            self._rows.setdefault(key, []).append(row)
        self.eps = sorted({float(row["eps"]) for row in rows})
        self.scores = sorted({row["score"] for row in rows}, key=lambda s: (s != SCORE, s))
        place = {attack.label: i for i, attack in enumerate(numbers.attacks)}
        order = ("naive", "adaptive", BEST)
        found = {Rival(row["attack_label"], row["kind"]) for row in rows}
        self.rivals = sorted(
            found, key=lambda r: (order.index(r.kind), place.get(r.label, len(place)), r.label)
        )

    def of_kind(self, kind: str) -> list[Rival]:
        """The attacks of one kind."""
        return [rival for rival in self.rivals if rival.kind == kind]

    def get(
        self, label: str, rival: Rival, eps: float, metric: str, score: str = SCORE
    ) -> Estimate | None:
        """The estimate over seeds; seeds without the number are left out."""
        rows = self.rows(label, rival, eps, score)
        return over_seeds([float(r[metric]) for r in rows if r[metric] is not None])

    def rows(self, label: str, rival: Rival, eps: float, score: str = SCORE) -> list[dict]:
        """One row a seed."""
        return self._rows.get((label, rival.label, rival.kind, float(eps), score), [])

    def extreme(
        self, label: str, rivals: Sequence[Rival], eps: float, metric: str, *, lowest: bool
    ) -> Rival | None:
        """The attack with the lowest or highest number; the first of equals, None of nothing."""
        found = [(r, v.mean) for r in rivals if (v := self.get(label, r, eps, metric))]
        if not found:
            return None
        return (min if lowest else max)(found, key=lambda pair: pair[1])[0]

    def flags(self, label: str, rival: Rival, eps: float) -> list[Flag]:
        """Flags of one attack; the best of the adaptive carries those of each of them."""
        concerned = self.of_kind("adaptive") if rival.kind == BEST else [rival]
        known = {attack.label: attack for attack in self.numbers.attacks}
        found: list[Flag] = []
        for one in concerned:
            if one.label in known:
                some = flags_of(self.numbers, label, known[one.label], eps)
                found += [flag for flag in some if flag not in found]
        return found

    @property
    def norm_name(self) -> str:
        """The norm in words."""
        return NORM_NAMES.get(self.norm, self.norm)


def guarded(numbers: Numbers) -> list[Guarded]:
    """One comparison for each norm that has an adaptive attack."""
    found = [Guarded(numbers, norm) for norm in numbers.norms]
    return [one for one in found if one.eps and numbers.labels]


def auroc_table(found: Guarded) -> Table:
    """AUROC of the likelihood under naive attacks beside that under adaptive ones."""
    marks = Marks(found.numbers)
    naive = found.of_kind("naive")
    shown = naive if len(naive) <= MOST_NAIVE else naive[:1]
    rivals = [*shown, *found.of_kind("adaptive"), *found.of_kind(BEST)]
    rows, data = [], []
    for label in found.numbers.labels:
        for eps in found.eps:
            row = [Entry(label), Entry(f"{eps:.4g}")]
            for rival in rivals:
                row.append(_entry(found, marks, label, rival, eps, "auroc_all", 1.0, 3))
            if len(shown) < len(naive):
                row.insert(3, _lowest_naive(found, marks, label, eps))
            rows.append(row)
            data += [_auroc_data(found, label, rival, eps) for rival in found.rivals]
    header = ["loss", "eps", *(_name(rival) for rival in rivals)]
    if len(shown) < len(naive):
        header.insert(3, f"lowest of {len(naive)} naive attacks")
    return Table(
        f"adaptive-auroc-{found.norm}",
        f"AUROC when the attack knows the detector, {found.norm_name}",
        "Score: log-likelihood of the features at the predicted class; over all attacked images, "
        "0.5 is guessing, and below it attacked images look more typical than clean ones. Naive "
        "attacks only want a wrong class. Adaptive attacks want a wrong class that is also "
        "likely; best of adaptive takes for every image the one among them that is wrong and most "
        "likely. The CSV has every naive attack. " + interval_words_detection(found.numbers),
        header,
        rows,
        data,
        marks.notes(),
    )


def _lowest_naive(found: Guarded, marks: Marks, label: str, eps: float) -> Entry:
    rival = found.extreme(label, found.of_kind("naive"), eps, "auroc_all", lowest=True)
    if rival is None:
        return Entry(NOTHING)
    entry = _entry(found, marks, label, rival, eps, "auroc_all", 1.0, 3)
    return Entry(f"{entry.text} ({rival.label})", entry.mark)


def rejection_table(found: Guarded) -> Table:
    """Who is fooled and accepted when the model may reject: naive at worst against adaptive."""
    marks = Marks(found.numbers)
    rows, data = [], []
    for label in found.numbers.labels:
        for eps in found.eps:
            for name, rivals in (
                ("naive at worst", found.of_kind("naive")),
                ("best of adaptive", found.of_kind(BEST)),
            ):
                cells = [_highest(found, marks, label, rivals, eps, m) for m, _ in _REJECTING]
                rows.append([Entry(label), Entry(name), Entry(f"{eps:.4g}"), *cells])
            data += [_all_data(found, label, rival, eps, SCORE) for rival in found.rivals]
    return Table(
        f"adaptive-rejection-{found.norm}",
        f"Error with the option to reject, {found.norm_name}",
        "In percent. The model rejects images whose likelihood lies below a threshold that rejects "
        "1 or 5 % of clean validation images. Fooled and not noticed: of the initially correct "
        "images, those that are wrong after the attack and accepted. Wrong and accepted: of all "
        "images, clean mistakes included: the error that remains with the option to reject. Naive "
        "at worst: in each column the highest over the attacks that do not know the detector. Best "
        "of adaptive: image by image. " + interval_words_detection(found.numbers),
        ["loss", "attack", "eps", *(name for _, name in _REJECTING)],
        rows,
        data,
        marks.notes(),
        left=2,
    )


def _highest(
    found: Guarded, marks: Marks, label: str, rivals: Sequence[Rival], eps: float, metric: str
) -> Entry:
    rival = found.extreme(label, rivals, eps, metric, lowest=False)
    if rival is None:
        return Entry(NOTHING)
    return _entry(found, marks, label, rival, eps, metric, 100.0, 2)


def every_adaptive_table(found: Guarded) -> Table:
    """Every attack under every score: what the two tables above are taken from."""
    marks = Marks(found.numbers)
    rows, data = [], []
    for label in found.numbers.labels:
        for eps in found.eps:
            for rival in found.rivals:
                for score in found.scores:
                    if found.rows(label, rival, eps, score):
                        rows.append(_all_row(found, marks, label, rival, eps, score))
                        data.append(_all_data(found, label, rival, eps, score))
    return Table(
        f"adaptive-every-{found.norm}",
        f"Every attack and every score beside the adaptive attacks, {found.norm_name}",
        "The adaptive attacks aim at the log-likelihood only. Other scores are taken of the same "
        "images and marked “not adapted”: no attack has tried to deceive them, so a high AUROC "
        "there is no evidence. AUROC is a fraction, the rest is percent; n successful is summed "
        "over seeds. " + interval_words_detection(found.numbers),
        ["loss", "attack", "score", "eps", "n successful", *(name for _, name, _, _ in _ALL)],
        rows,
        data,
        marks.notes(),
        left=3,
        fold="always",
    )


def _all_row(
    found: Guarded, marks: Marks, label: str, rival: Rival, eps: float, score: str
) -> list[Entry]:
    rows = found.rows(label, rival, eps, score)
    known = [int(r["n_successful"]) for r in rows if r["n_successful"] is not None]
    return [
        Entry(label),
        Entry(_name(rival)),
        Entry(score_name(score, adapted=None if rival.kind == "naive" else score == SCORE)),
        Entry(f"{eps:.4g}"),
        Entry(f"{sum(known):,}" if known else NOTHING),
        *(_entry(found, marks, label, rival, eps, m, unit, digits, score)
          for m, _, unit, digits in _ALL),
    ]  # fmt: skip


def _entry(
    found: Guarded, marks: Marks, label: str, rival: Rival, eps: float, metric: str,
    unit: float, digits: int, score: str = SCORE,
) -> Entry:  # fmt: skip
    value = found.get(label, rival, eps, metric, score)
    mark = marks.of(found.flags(label, rival, eps)) if value else ""
    return Entry(estimate(value, unit=unit, digits=digits), mark)


def _name(rival: Rival) -> str:
    return {"naive": f"naive: {rival.label}", "adaptive": rival.label}.get(rival.kind, rival.label)


def _auroc_data(found: Guarded, label: str, rival: Rival, eps: float) -> dict[str, object]:
    place = {"label": label, "norm": found.norm, "eps": eps, "attack_label": rival.label,
             "kind": rival.kind}  # fmt: skip
    value = found.get(label, rival, eps, "auroc_all")
    return place | _fields("auroc_all", value) | {"marks": names(found.flags(label, rival, eps))}


def _all_data(
    found: Guarded, label: str, rival: Rival, eps: float, score: str
) -> dict[str, object]:
    rows = found.rows(label, rival, eps, score)
    out: dict[str, object] = {
        "label": label, "norm": found.norm, "eps": eps, "attack_label": rival.label,
        "kind": rival.kind, "score": score, "adapted": rival.kind != "naive" and score == SCORE,
        "n_successful": sum(int(r["n_successful"] or 0) for r in rows),
    }  # fmt: skip
    for metric, *_ in _ALL:
        out |= _fields(metric, found.get(label, rival, eps, metric, score))
    return out | {"marks": names(found.flags(label, rival, eps))}


def _fields(metric: str, value: Estimate | None) -> dict[str, object]:
    return {
        metric: value.mean if value else None,
        f"{metric}_low": value.low if value else None,
        f"{metric}_high": value.high if value else None,
        "n_seeds": value.n_seeds if value else 0,
    }
