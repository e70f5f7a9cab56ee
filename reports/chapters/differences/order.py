"""Many losses in one order: the numbers to quote, and the ranks that the tests leave each loss."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from robustloss.reports.chapters.differences.comparison import Compared
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import basis_words
from robustloss.reports.reading.guarded import ANY, BEST, guarded
from robustloss.reports.reading.marks import Flag, Marks
from robustloss.reports.reading.numbers import Numbers, of_one_unit
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import Estimate, eps_name, estimate, in_percent, significant
from robustloss.results.columns import Row
from robustloss.results.numbers import WORST, combined_label, place_of
from robustloss.results.schema import WORST_CASE

Place = tuple[str, str, float | None]  # metric, attack as `place_of` writes it, eps


@dataclass(frozen=True)
class _Measure:
    """One number of every loss."""

    head: str
    place: Place
    find: Callable[[str], Estimate | None]  # from the label of a loss
    flags: Callable[[str], list[Flag]]  # likewise
    words: Callable[[Estimate | None], str] = in_percent


def order_table(numbers: Numbers) -> Table | None:
    """Return the losses by the first number that was compared, the best first, with their ranks.

    That is the median radius in the worst case; without attacks that look for radii, the error at
    the smallest eps. Losses of a reference are compared with those of the run alone and have no
    rank. None is returned where no losses are compared.
    """
    rank_rows = of_one_unit(numbers.run.ranks)
    ranks = {(_place(row), row["label"]): row for row in rank_rows}
    known = {place for place, _ in ranks}
    measures = [measure for measure in _measures(numbers) if measure.place in known]
    if not measures:
        return None
    apart = {
        (_place(row), frozenset((row["label_a"], row["label_b"])))
        for row in numbers.compared
        if row["shown"]
    }
    first, baseline, marks, rows = measures[0], numbers.baseline, Marks(), []
    for label in sorted(numbers.labels, key=lambda label: _standing(measures, label)):
        cells = [Entry(label)]
        for measure in measures:
            mark = marks.of(measure.flags(label))
            bold = not mark and (measure.place, frozenset((label, baseline))) in apart
            text = measure.words(measure.find(label))
            cells.append(Entry(text, mark, "top" if bold else ""))
            row = ranks.get((measure.place, label))
            ends = {row["rank_low"], row["rank_high"]} if row else ()
            cells.append(Entry(" to ".join(map(str, sorted(ends)))))
        rows.append(cells)
    shown = {measure.place for measure in measures}
    tested = Compared(Scene(numbers, numbers.attacking[0])).unit_words()
    unranked = " Losses of the reference are not tested against each other and have no rank."
    untested = unranked if numbers.elsewhere else ""
    return Table(
        "order",
        "In which order are the losses?",
        f"By the {first.head}, the best first; errors, and who is fooled and unnoticed, in "
        f"percent. Bold: shown to differ from {baseline} (p at most .05, adjusted by Benjamini and "
        f"Hochberg for all comparisons of the run), and not marked †. {tested} Rank 1 is best; "
        "“2 to 4” is what the shown differences leave open (Mogstad et al. 2024). Median radius: "
        f"the smallest change that fools half of the images.{untested}",
        ["loss", *(head for measure in measures for head in (measure.head, "rank"))],
        rows,
        [row for row in rank_rows if _place(row) in shown],
        marks.notes(),
        basis=basis_words(numbers),
        highlight=(numbers.spec.get("report") or {}).get("highlight") or (),
    )


def _measures(numbers: Numbers) -> Iterator[_Measure]:
    """Yield the numbers from left to right: in the worst case, against the detector, clean."""
    for case in [*numbers.worst_cases, *numbers.attacking][:1]:
        under, eps = Scene(numbers, case), case.strengths[0]
        name = "worst case" if case.name == WORST else case.label
        yield _Measure(
            "median radius",
            ("median_radius", case.label, None),
            partial(under.get, eps=None, metric="median_radius"),
            partial(under.flags, eps=None),
            words=significant,
        )
        yield _Measure(
            f"error, {name}, {eps_name(eps)}",
            ("error", case.label, eps),
            partial(under.get, eps=eps, metric="error"),
            partial(under.flags, eps=eps),
        )
    for found in guarded(numbers)[:1]:
        for rival in found.of_kind(ANY):
            unnoticed, eps = "undetected_success_at_5fpr", found.eps[0]
            yield _Measure(
                f"fooled and unnoticed, {eps_name(eps)}",
                (unnoticed, combined_label(WORST_CASE["attack_label"], found.norm), eps),
                partial(found.get, rival=rival, eps=eps, metric=unnoticed),
                partial(found.flags, rival=rival, eps=eps),
            )
        for rival in found.of_kind(BEST):
            eps = found.eps[-1]
            yield _Measure(
                f"AUROC, best adaptive, {eps_name(eps)}",
                ("auroc_all", combined_label(rival.label, found.norm), eps),
                partial(found.get, rival=rival, eps=eps, metric="auroc_all"),
                partial(found.flags, rival=rival, eps=eps),
                words=estimate,
            )
    yield _Measure(
        "error, clean",
        ("error", "none", 0.0),
        partial(numbers.get, attack="none", eps=0.0, metric="error"),
        lambda label: [],
    )


def _place(row: Row) -> Place:
    return row["metric"], place_of(row), row["eps"]


def _standing(measures: Sequence[_Measure], label: str) -> float:
    """Return what sorts a loss, the best least: also one of a reference, which has no rank."""
    value = measures[0].find(label)
    radius = measures[0].place[0] == "median_radius"
    if value is not None:
        return -value.mean if radius else value.mean
    # most images were never fooled, or nothing is known of the loss
    return -math.inf if radius and measures[1].find(label) else math.inf
