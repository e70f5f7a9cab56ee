"""The search for each loss's values: what was tried, what it changed, what was kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.legends import LINE, legend_below, legend_shape
from robustloss.reports.drawing.style import (
    BLUE,
    INK,
    VERMILLION,
    blank,
    panel_width,
    panels,
    plain,
)
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.drawing.ticks import percent, unlabelled
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, span

Row = Mapping[str, Any]
CLEAN, ATTACKED, SOFT = BLUE, VERMILLION, "#5B6470"


def tuning_tables(numbers: Numbers) -> list[Table]:
    """What each loss kept, with the spread over its trials, and every trial."""
    rows = numbers.run.trials
    if not rows:
        return []
    labels = [label for label in numbers.labels if any(row["label"] == label for row in rows)]
    eps = fgsm_eps(rows)
    return [_kept(labels, rows, eps), _every(labels, rows, eps)]


def fgsm_eps(rows: Sequence[Row]) -> list[float]:
    """The budgets of the trials' FGSM, rising."""
    return sorted({float(row["eps"]) for row in rows if row["eps"] is not None})


def trials_of(rows: Sequence[Row], label: str) -> list[list[Row]]:
    """The rows of a loss, trial by trial."""
    numbers = dict.fromkeys(row["trial"] for row in rows if row["label"] == label)
    return [[r for r in rows if r["label"] == label and r["trial"] == n] for n in numbers]


def settings(row: Row) -> str:
    """Searched values as text: "lr 0.02, alpha 1"."""
    return ", ".join(f"{key} {short(value)}" for key, value in row["settings"].items())


def short(value: object) -> str:
    """A searched value as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kept(labels: Sequence[str], rows: Sequence[Row], eps: Sequence[float]) -> Table:
    body, data = [], []
    for label in labels:
        trials = trials_of(rows, label)
        firsts = [trial[0] for trial in trials]
        kept = next((row for row in firsts if row["chosen"]), None)
        errors = [r["validation_error"] for r in firsts if r["validation_error"] is not None]
        texts = [
            str(len(trials)),
            str(len(trials) - len(errors)),
            settings(kept) if kept else "none finished",
            _percent(kept["validation_error"]) if kept else NOTHING,
            span(errors, 2, 100.0),
        ]
        for each in eps:
            tried = [r for r in rows if r["label"] == label and r["eps"] == each]
            own = [r["fgsm_error"] for r in tried if r["chosen"]]
            texts += [_percent(own[0]) if own else NOTHING]
            texts += [span([r["fgsm_error"] for r in tried], 1, 100.0)]
        body.append([Entry(label), *(Entry(text, kind="" if kept else "gap") for text in texts)])
        data += [dict(row) for row in rows if row["label"] == label and row["chosen"]]
    n = next((row["n"] for row in rows if row["n"] is not None), 0)
    heads = [head for each in eps for head in (f"FGSM {each:.4g}, kept", f"FGSM {each:.4g}, tried")]
    return Table(
        "tuning",
        "Tuning",
        "Every loss had the same number of trials and kept the values of the smallest clean "
        "validation error (ties: the smaller cross-entropy on validation images, then the first). "
        "Attacked images and test images chose nothing: errors here, in percent, are of "
        f"{n:,} validation images, also under FGSM. “Tried”: lowest to highest trial. All trials "
        f"have seed {rows[0]['seed']}: the network's initial weights are the same, and so is the "
        "order of the images, but for losses of pairs, which fill their batches class by class.",
        ["loss", "trials", "diverged", "kept", "validation error, kept", "tried", *heads],
        body,
        [_flat(row) for row in data],
    )


def _every(labels: Sequence[str], rows: Sequence[Row], eps: Sequence[float]) -> Table:
    body = []
    for label in labels:
        for trial in trials_of(rows, label):
            first = trial[0]
            attacked = {float(r["eps"]): r["fgsm_error"] for r in trial if r["eps"] is not None}
            failed = first["validation_error"] is None
            loss = first["validation_loss"]  # null where it is infinite too
            texts = [
                NOTHING if failed else _percent(first["validation_error"]),
                NOTHING if loss is None else f"{loss:.4f}",
                *(_percent(attacked.get(each)) for each in eps),
                "kept" if first["chosen"] else str(first["reason"] or ""),
            ]
            kind = "top" if first["chosen"] else "gap" if failed else ""
            body.append(
                [Entry(label), Entry(settings(first)), *(Entry(text, kind=kind) for text in texts)]
            )
    return Table(
        "tuning-trials",
        "Every trial",
        "Errors of validation images in percent, clean and under FGSM; cross-entropy of the "
        "logits on clean ones in nats. In bold what was kept.",
        ["loss", "values", "validation error", "validation loss",
         *(f"FGSM {each:.4g}" for each in eps), "remark"],
        body,
        [_flat(row) for label in labels for row in rows if row["label"] == label],
        left=2,
        fold="always",
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.2f}"


def _flat(row: Row) -> dict[str, object]:
    return {**row, "settings": settings(row)}


TrialRow = Mapping[str, Any]


def add_tuning(album: Album, numbers: Numbers) -> None:
    """A frame for each loss and searched value: clean and FGSM error of the trials."""
    rows = numbers.run.trials
    labels = [label for label in numbers.labels if any(row["label"] == label for row in rows)]
    eps = fgsm_eps(rows)
    if not labels or not eps:
        return
    shown = eps[0]
    keys = {label: list(trials_of(rows, label)[0][0]["settings"]) for label in labels}
    columns = max(len(own) for own in keys.values())
    margins = {"left": 0.85, "right": 0.2, "wgap": 0.75}
    width = panel_width(columns, widest=4.4, **margins)
    handles = [
        Line2D([], [], color=CLEAN, marker="o", ls="-", label="clean validation error"),
        Line2D([], [], color=ATTACKED, marker="^", ls="-",
               label=f"FGSM at eps {shown:.4g}, validation images"),
        Line2D([], [], color=INK, marker="o", mfc="none", ms=9, ls="", label="kept"),
    ]  # fmt: skip
    if any(row["eps"] is None for row in rows):
        cross = Line2D([], [], color=SOFT, marker="x", ms=6, ls="", label="some trial diverged")
        handles.append(cross)
    inches = 0.2 + columns * (width + margins["wgap"])
    texts = [str(handle.get_label()) for handle in handles]
    figure, axes = panels(
        len(labels), columns, width=width, height=1.75, top=0.4,
        bottom=0.68 + LINE * legend_shape(texts, inches - 0.7)[1], hgap=0.85, **margins,
    )  # fmt: skip
    limits = _limits([row for row in rows if row["eps"] in (None, shown)])
    for line, label in zip(axes, labels, strict=True):
        own = [r for r in rows if r["label"] == label and r["eps"] == shown]
        lost = [r["settings"] for r in rows if r["label"] == label and r["eps"] is None]
        for number, ax in enumerate(line):
            if number >= len(keys[label]):
                ax.set_axis_off()
            elif not own:
                blank(ax, "every trial diverged")
            else:
                _draw(ax, own, lost, keys[label][number], limits)
                ax.set_title(plain(label))
    legend_below(figure, handles, left=0.7)
    album.add(
        "tuning",
        figure,
        [_trial_numbers(row) for row in rows if row["label"] in labels],
        title="How sensitive each loss is to its values",
        caption="A point is a trial, the line the mean over the trials that share the value, so "
        "its height also depends on the other values tried; the ring is what was kept, by the "
        "clean validation error alone. Errors are of validation images on one logarithmic axis; a "
        "flat line means that the value does not matter, a gap between the two lines' slopes that "
        "tuning for clean error does not tune for attacks. An error of exactly 0 is drawn at the "
        "lower edge; a cross at the upper edge says that a trial with this value diverged.",
        alt="Points and lines of error against each searched value: " + _words(rows, labels, shown),
    )


def _draw(
    ax: Axes,
    rows: Sequence[TrialRow],
    lost: Sequence[Mapping[str, Any]],
    key: str,
    limits: tuple[float, float],
) -> None:
    """One frame; lost are the values of the trials without numbers."""
    values = [row["settings"][key] for row in rows]
    every = [*values, *(each[key] for each in lost)]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in every)
    order = sorted(set(every)) if numeric else list(dict.fromkeys(every))
    place = {value: float(value) if numeric else float(i) for i, value in enumerate(order)}
    x = np.array([place[value] for value in values])
    for name, colour, marker in (
        ("validation_error", CLEAN, "o"),
        ("fgsm_error", ATTACKED, "^"),
    ):
        y = np.maximum([100 * row[name] for row in rows], limits[0])
        ax.plot(x, y, ls="", marker=marker, color=colour, ms=4, alpha=0.55, mec="none")
        ends = sorted(set(x.tolist()))
        ax.plot(ends, [y[x == end].mean() for end in ends], color=colour, lw=1.5)
        for row, left, height in zip(rows, x, y, strict=True):
            if row["chosen"]:
                ax.plot(left, height, marker="o", mfc="none", mec=INK, ms=9, ls="")
    for left in {place[each[key]] for each in lost}:
        ax.plot(left, 0.97, marker="x", color=SOFT, ms=6, ls="", transform=ax.get_xaxis_transform())
    ax.set_yscale("log")
    ax.set_ylim(*limits)
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    ax.yaxis.set_major_formatter(percent)
    ax.yaxis.set_minor_formatter(unlabelled)
    ax.grid(True, axis="y")
    ax.set_xlabel(plain(key), labelpad=2)
    if numeric and len(order) > 1 and order[0] > 0 and order[-1] / order[0] >= 4:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(unlabelled)
        ax.xaxis.set_minor_locator(NullLocator())
    if len(order) <= 8:
        ax.set_xticks([place[value] for value in order], [plain(short(v), 12) for v in order])


def _limits(rows: Sequence[TrialRow]) -> tuple[float, float]:
    drawn = [100 * r[k] for r in rows for k in ("validation_error", "fgsm_error") if r[k]]
    return (0.7 * min(drawn), min(110.0, 1.4 * max(drawn))) if drawn else (1.0, 100.0)


def _trial_numbers(row: TrialRow) -> dict[str, object]:
    kept = ("label", "trial", "chosen", "validation_error", "eps", "fgsm_error")
    values = ", ".join(f"{key} {short(value)}" for key, value in row["settings"].items())
    return {**{key: row[key] for key in kept}, "settings": values}


def _words(rows: Sequence[TrialRow], labels: Sequence[str], eps: float) -> str:
    parts = []
    for label in labels:
        own = [r for r in rows if r["label"] == label and r["eps"] == eps]
        if own:
            clean = [100 * r["validation_error"] for r in own]
            attacked = [100 * r["fgsm_error"] for r in own]
            parts.append(
                f"{label} {min(clean):.2f} to {max(clean):.2f} % clean, {min(attacked):.1f} to "
                f"{max(attacked):.1f} % under FGSM at {eps:.4g}"
            )
    return "; ".join(parts)
