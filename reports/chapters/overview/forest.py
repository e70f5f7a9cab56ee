"""Forest plot: every loss's difference to the first one, with what is shown and what is not."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import BLUE, GREY, blank, panels, plain
from robustloss.reports.drawing.ticks import signed
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.scene import chosen_eps
from robustloss.reports.words import eps_name

Row = Mapping[str, Any]
# metric, title, factor, which side is better for the loss
_METRICS = (
    ("error", "error, percentage points", 100.0, ("fewer errors", "more errors")),
    ("auroc_all", "AUROC of the likelihood", 1.0, ("lower", "higher")),
)


def add_forest(album: Album, numbers: Numbers, attack: AttackInfo) -> None:
    """Losses less the first loss, one column a metric, one block of rows an eps."""
    if len(numbers.labels) < 2:
        return
    reference, others = numbers.labels[0], numbers.labels[1:]
    rows, unit = _own(numbers, attack)
    eps = (0.0, *chosen_eps(attack))
    found = {
        (metric, e): [
            (label, row)
            for label in others
            if (row := _against(rows, metric, e, label, reference)) is not None
        ]
        for metric, *_ in _METRICS
        for e in eps
    }
    seen = {label for own in found.values() for label, _ in own}
    if not seen:
        return
    left = [label for label in others if label not in seen]
    others = [label for label in others if label in seen]
    shown = [
        f"{label} {_words(e)}: {metric} {100 * row['difference']:+.2g} points"
        if metric == "error"
        else f"{label} {_words(e)}: AUROC {row['difference']:+.3f}"
        for (metric, e), own in found.items()
        for label, row in own
        if row["shown"]
    ]
    album.add(
        f"forest-{attack.slug}",
        _draw(others, reference, eps, found),
        [dict(row) for own in found.values() for _, row in own],
        title=f"How far is each loss from {plain(reference)}?",
        caption=f"Difference to {reference} (each loss less {reference}) with its 95 % interval, "
        + (
            f"over {rows[0]['n_seeds']} training seeds, in pairs of equal seeds. "
            if unit == "seeds"
            else "over the test images of one training seed: another training would give other "
            "networks, and that is not in these intervals. "
        )
        + "Filled: shown, after adjustment for the number of comparisons. Hollow: no difference "
        "shown, which does not mean that there is none. An interval is of its own difference "
        "alone, so it may leave out 0 where nothing is shown. Each column has one horizontal axis "
        "for its rows of one eps."
        + (f" Without a comparison, for want of seeds: {', '.join(left)}." if left else ""),
        alt=f"Forest plot of differences to {reference}. Shown: {'; '.join(shown) or 'none'}.",
        section=attack.label,
    )


def _words(eps: float) -> str:
    return eps_name(eps) if eps else "clean"


def _own(numbers: Numbers, attack: AttackInfo) -> tuple[list[Row], str]:
    rows: list[Row] = [
        r for r in numbers.run.comparisons if r["attack_label"] in (attack.label, "none")
    ]
    unit = "seeds" if any(row["unit"] == "seeds" for row in rows) else "images"
    rows = [row for row in rows if row["unit"] == unit]
    if unit == "images" and rows:
        rows = [row for row in rows if row["seed"] == min(r["seed"] for r in rows)]
    return rows, unit


def _against(
    rows: Sequence[Row], metric: str, eps: float, label: str, reference: str
) -> dict[str, Any] | None:
    """The row of a loss less the reference, turned round where it was stored the other way."""
    for row in rows:
        if row["metric"] != metric or (0.0 if row["attack"] == "none" else row["eps"]) != eps:
            continue
        if (row["label_a"], row["label_b"]) == (label, reference):
            return dict(row)
        if (row["label_a"], row["label_b"]) == (reference, label):
            turned = {"label_a": label, "label_b": reference, "value_a": row["value_b"],
                      "value_b": row["value_a"], "difference": -row["difference"],
                      "low": _minus(row["high"]), "high": _minus(row["low"])}  # fmt: skip
            return dict(row) | turned
    return None


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _draw(
    others: Sequence[str],
    reference: str,
    eps: Sequence[float],
    found: Mapping[tuple[str, float], Sequence[tuple[str, Row]]],
) -> Figure:
    rows = max(len(others), 1)
    figure, axes = panels(
        len(eps), len(_METRICS), width=3.6, height=0.24 * rows + 0.3, left=2.2, right=0.25,
        wgap=0.45, top=0.85, bottom=0.75, hgap=0.55,
    )  # fmt: skip
    for r, e in enumerate(eps):
        for c, (metric, title, factor, sides) in enumerate(_METRICS):
            ax = axes[r, c]
            own = found[metric, e]
            if r == 0:
                ax.annotate(title, (0.5, 1), (0, 20), xycoords="axes fraction",
                            textcoords="offset points", ha="center", fontsize=10)  # fmt: skip
            if not own:
                blank(ax, "clean images are not attacked" if not e else "no number")
            else:
                _panel(ax, own, others, factor)
            if c == 0:
                ax.set_title(_words(e), pad=5)
                if own:
                    ax.set_yticks(range(len(others)), [plain(k, 26) for k in others])
            elif own:
                ax.tick_params(labelleft=False)
            if r == len(eps) - 1 and own:
                ax.set_xlabel(f"← {sides[0]}     less {plain(reference, 16)}     {sides[1]} →",
                              fontsize=8.5)  # fmt: skip
    figure.legend(
        handles=[
            Line2D([], [], marker="o", color=BLUE, lw=1.6, label="shown"),
            Line2D([], [], marker="o", color=GREY, mfc="white", lw=1.2,
                   label="no difference shown"),
        ],
        loc="upper left", bbox_to_anchor=(0.01, 1.0), ncols=2, frameon=False, fontsize=9,
    )  # fmt: skip
    return figure


def _panel(ax: Axes, own: Sequence[tuple[str, Row]], others: Sequence[str], factor: float) -> None:
    ax.axvline(0, color="#444444", lw=0.9)
    for label, row in own:
        y = others.index(label)
        colour = BLUE if row["shown"] else GREY
        if row["low"] is not None and row["high"] is not None:
            ax.hlines(y, factor * row["low"], factor * row["high"], color=colour,
                      lw=1.6 if row["shown"] else 1.2)  # fmt: skip
        ax.plot([factor * row["difference"]], [y], "o", ms=5, color=colour,
                mfc=colour if row["shown"] else "white", zorder=3)  # fmt: skip
    ax.set_ylim(len(others) - 0.5, -0.5)
    reach = max(
        abs(factor * float(row[k]))
        for _, row in own
        for k in ("difference", "low", "high")
        if row[k] is not None
    )
    ax.set_xlim(-1.08 * reach or -1.0, 1.08 * reach or 1.0)
    ax.xaxis.set_major_formatter(signed)
    ax.locator_params(axis="x", nbins=5)
    ax.grid(axis="x", color="#E4E1DB", lw=0.7)
    ax.set_axisbelow(True)
