"""How sensitive each loss is: errors of its trials against each value that was searched."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from robustloss.reports.album import Album
from robustloss.reports.legends import LINE, legend_below, legend_shape
from robustloss.reports.numbers import Numbers
from robustloss.reports.style import BLUE, INK, VERMILLION, blank, panel_width, panels, plain
from robustloss.reports.tables_tuning import fgsm_eps, short, trials_of
from robustloss.reports.ticks import percent, unlabelled

Row = Mapping[str, Any]
CLEAN, ATTACKED, SOFT = BLUE, VERMILLION, "#5B6470"


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
        [_numbers(row) for row in rows if row["label"] in labels],
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
    rows: Sequence[Row],
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


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    drawn = [100 * r[k] for r in rows for k in ("validation_error", "fgsm_error") if r[k]]
    return (0.7 * min(drawn), min(110.0, 1.4 * max(drawn))) if drawn else (1.0, 100.0)


def _numbers(row: Row) -> dict[str, object]:
    kept = ("label", "trial", "chosen", "validation_error", "eps", "fgsm_error")
    values = ", ".join(f"{key} {short(value)}" for key, value in row["settings"].items())
    return {**{key: row[key] for key in kept}, "settings": values}


def _words(rows: Sequence[Row], labels: Sequence[str], eps: float) -> str:
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
