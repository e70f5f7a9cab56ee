"""The search for each loss's values: what was tried, what it changed, what was kept."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from robustloss.notation import eps_text
from robustloss.reports.drawing import ticks
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import BLUE, INK, SOFT, VERMILLION, plain
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import choice_words
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import fixed, name_files, span
from robustloss.results.columns import Row
from robustloss.results.numbers import group_rows

Trial = Sequence[Row]  # the rows of one trial: one for each budget of its FGSM

# column of `trials`: colour, marker, name
ERRORS = {
    "validation_error": (BLUE, "o", "clean validation error"),
    "fgsm_error": (VERMILLION, "^", "FGSM at eps {eps}, validation images"),
}


class Search:
    """The trials of every loss that was tuned.

    Attributes:
        trials: By loss in the order of the spec, then in the order of the trials.
        eps: The budgets of the trials' FGSM, rising.
        choice: What a value had to be for a loss to keep it.
    """

    def __init__(self, numbers: Numbers) -> None:
        rows, self.choice = numbers.run.trials, choice_words(numbers)
        self.trials: dict[str, list[Trial]] = {}
        for label in numbers.labels:
            own = (row for row in rows if row["label"] == label)
            if by_number := group_rows(own, lambda row: row["trial"]):
                self.trials[label] = list(by_number.values())
        self.eps = sorted({float(row["eps"]) for row in rows if row["eps"] is not None})

    def rows(self, label: str) -> list[Row]:
        """Return every row of a loss."""
        return [row for trial in self.trials[label] for row in trial]

    def rows_at(self, label: str, eps: float | None) -> list[Row]:
        """Return the rows of a loss at one eps, one for each trial; None: those that diverged."""
        return [row for row in self.rows(label) if row["eps"] == eps]


def in_words(value: object) -> str:
    """Return a searched value as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings(row: Row) -> str:
    """Return the searched values of a trial as text: "lr 0.02, alpha 1"."""
    return ", ".join(f"{key} {in_words(value)}" for key, value in row["settings"].items())


def tuning_tables(numbers: Numbers) -> list[Table]:
    """Return the tables of the search; none of a run without one."""
    search = Search(numbers)
    return [_kept_table(search), _trial_table(search)] if search.trials else []


def _kept_table(search: Search) -> Table:
    """Return what each loss kept, beside the spread over its trials."""
    rows: list[list[Entry]] = []
    every = [row for label in search.trials for row in search.rows(label)]
    for label, trials in search.trials.items():
        firsts = [trial[0] for trial in trials]
        kept = next((row for row in firsts if row["chosen"]), None)
        errors = [r["validation_error"] for r in firsts if r["validation_error"] is not None]
        texts = [
            str(len(trials)),
            str(len(trials) - len(errors)),
            settings(kept) if kept else "none finished",
            fixed(kept["validation_error"] if kept else None, 2, 100.0),
            span(errors, 2, 100.0),
        ]
        for eps in search.eps:
            tried = search.rows_at(label, eps)
            own = next((row["fgsm_error"] for row in tried if row["chosen"]), None)
            texts += [fixed(own, 2, 100.0), span([row["fgsm_error"] for row in tried], 1, 100.0)]
        kind = "" if kept else "gap"
        rows.append([Entry(label), *(Entry(text, kind=kind) for text in texts)])
    n = next((row["n"] for row in every if row["n"] is not None), 0)
    heads = [f"FGSM {eps_text(eps)}, {what}" for eps in search.eps for what in ("kept", "tried")]
    return Table(
        "tuning",
        "Tuning",
        f"Every loss had the same number of trials. Kept values: {search.choice}; of equal "
        "ones that of the smaller cross-entropy on validation images, then the first. "
        "Attacked images and test images chose nothing: errors here, in percent, are of "
        f"{n:,} validation images, also under FGSM. “Tried”: lowest to highest trial. All trials "
        f"have seed {every[0]['seed']}: the network's initial weights are the same, and so is the "
        "order of the images, but for losses of pairs, which fill their batches class by class.",
        ["loss", "trials", "diverged", "kept", "validation error, kept", "tried", *heads],
        rows,
        [{**row, "settings": settings(row)} for row in every if row["chosen"]],
    )


def _trial_table(search: Search) -> Table:
    """Return every trial: its values, its errors, and why it has none."""
    rows: list[list[Entry]] = []
    for label, trials in search.trials.items():
        for trial in trials:
            first = trial[0]
            fgsm = {float(r["eps"]): r["fgsm_error"] for r in trial if r["eps"] is not None}
            texts = [
                fixed(first["validation_error"], 2, 100.0),
                fixed(first["validation_loss"], 4),  # null where it is infinite too
                *(fixed(fgsm.get(eps), 2, 100.0) for eps in search.eps),
                "kept" if first["chosen"] else name_files(str(first["reason"] or "")),
            ]
            failed = first["validation_error"] is None
            kind = "top" if first["chosen"] else "gap" if failed else ""
            cells = [Entry(text, kind=kind) for text in texts]
            rows.append([Entry(label), Entry(settings(first)), *cells])
    return Table(
        "tuning-trials",
        "Every trial",
        "Errors of validation images in percent, clean and under FGSM; cross-entropy of the "
        "logits on clean ones in nats. In bold what was kept.",
        ["loss", "values", "validation error", "validation loss",
         *(f"FGSM {eps_text(eps)}" for eps in search.eps), "remark"],
        rows,
        [{**row, "settings": settings(row)} for k in search.trials for row in search.rows(k)],
        left=2,
    )  # fmt: skip


def plot_tuning(numbers: Numbers) -> Iterator[Plot]:
    """Draw a panel for each loss and searched value: clean and FGSM error of the trials."""
    search = Search(numbers)
    if not search.trials or not search.eps:
        return
    eps = search.eps[0]
    parts = []
    for label in search.trials:
        if rows := search.rows_at(label, eps):
            clean, fgsm = ([100 * row[key] for row in rows] for key in ERRORS)
            parts.append(
                f"{label} {min(clean):.2f} to {max(clean):.2f} % clean, {min(fgsm):.1f} to "
                f"{max(fgsm):.1f} % under FGSM at {eps_text(eps)}"
            )
    kept = ("label", "trial", "chosen", "validation_error", "eps", "fgsm_error")
    yield Plot(
        "tuning",
        _draw(search),
        [
            {key: row[key] for key in kept} | {"settings": settings(row)}
            for row in numbers.run.trials
            if row["label"] in search.trials
        ],
        title="How sensitive each loss is to its values",
        caption="A point is a trial, the line the mean over the trials that share the value, so "
        "its height also depends on the other values tried; the ring is what was kept, by the "
        "clean validation error alone. Errors are of validation images on one logarithmic axis; a "
        "flat line means that the value does not matter, a gap between the two lines' slopes that "
        "tuning for clean error does not tune for attacks. An error of exactly 0 is drawn at the "
        "lower edge; a cross at the upper edge says that a trial with this value diverged.",
        alt="Points and lines of error against each searched value: " + "; ".join(parts),
    )


def _draw(search: Search) -> Figure:
    """Draw a row of panels for each loss, one for each searched value, at the smallest eps."""
    eps = search.eps[0]
    finished = {label: search.rows_at(label, eps) for label in search.trials}
    diverged = {label: search.rows_at(label, None) for label in search.trials}
    drawn = [100 * r[key] for own in finished.values() for r in own for key in ERRORS if r[key]]
    limits = (0.7 * min(drawn), min(110.0, 1.4 * max(drawn))) if drawn else (1.0, 100.0)
    searched = {label: list(trials[0][0]["settings"]) for label, trials in search.trials.items()}
    columns = max(len(keys) for keys in searched.values())
    cells: list[tuple[str, str] | str | None] = []
    for label, keys in searched.items():
        own = [(label, key) if finished[label] else "every trial diverged" for key in keys]
        cells += [*own, *[None] * (columns - len(keys))]

    def draw(ax: Axes, cell: tuple[str, str], spot: Spot) -> None:
        label, key = cell
        _draw_trials(ax, finished[label], diverged[label], key, limits)

    handles = [
        Line2D([], [], color=colour, marker=marker, label=name.format(eps=eps_text(eps)))
        for colour, marker, name in ERRORS.values()
    ]
    handles.append(Line2D([], [], color=INK, marker="o", mfc="none", ms=9, ls="", label="kept"))
    if any(diverged.values()):
        label = "some trial diverged"
        handles.append(Line2D([], [], color=SOFT, marker="x", ms=6, ls="", label=label))
    return draw_panels(
        cells, draw, columns=columns, widest=4.4, height=1.75,
        titles=[label for label in searched for _ in range(columns)], legend=Names(handles),
        margins=Margins(left=0.85, hgap=0.85),
    )  # fmt: skip


def _draw_trials(
    ax: Axes, finished: Sequence[Row], diverged: Sequence[Row], key: str,
    limits: tuple[float, float],
) -> None:  # fmt: skip
    """Draw the trials of one loss against one of its values."""
    every = [row["settings"][key] for row in (*finished, *diverged)]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in every)
    order = sorted(set(every)) if numeric else list(dict.fromkeys(every))
    place = {value: float(value) if numeric else float(i) for i, value in enumerate(order)}
    x = np.array([place[row["settings"][key]] for row in finished])
    for name, (colour, marker, _) in ERRORS.items():
        y = np.maximum([100 * row[name] for row in finished], limits[0])
        ax.plot(x, y, ls="", marker=marker, color=colour, ms=4, alpha=0.55, mec="none")
        ends = np.unique(x)
        ax.plot(ends, [y[x == end].mean() for end in ends], color=colour, lw=1.5)
        kept = np.array([bool(row["chosen"]) for row in finished])
        ax.plot(x[kept], y[kept], marker="o", mfc="none", mec=INK, ms=9, ls="")
    for value in dict.fromkeys(row["settings"][key] for row in diverged):
        ax.plot(place[value], 0.97, marker="x", color=SOFT, ms=6, ls="",
                transform=ax.get_xaxis_transform())  # fmt: skip
    ax.set(yscale="log", ylim=limits)
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    ax.yaxis.set_major_formatter(ticks.percent)
    ax.yaxis.set_minor_formatter(ticks.unlabelled)
    ax.grid(True, axis="y")
    ax.set_xlabel(plain(key), labelpad=2)
    if numeric and len(order) > 1 and order[0] > 0 and order[-1] / order[0] >= 4:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(ticks.unlabelled)
        ax.xaxis.set_minor_locator(NullLocator())
    if len(order) <= 8:
        names = [plain(in_words(value), 12) for value in order]
        ax.set_xticks([place[value] for value in order], names)
