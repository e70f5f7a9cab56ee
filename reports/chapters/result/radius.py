"""How far to the first mistake: radii and error curves in numbers, and the curves themselves."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.notation import eps_text
from robustloss.reports.drawing import ticks
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.curves import stroke
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import CROWD, INK, SOFT, Look, looks, plain
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of, without_empty_columns
from robustloss.reports.reading.facts import eps_words
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.scene import featured
from robustloss.reports.words import NORM_NAMES, NOTHING, Estimate, estimate, in_percent
from robustloss.results.numbers import WORST
from robustloss.spec.attack_kinds import attack_kind

METRICS = ("median_radius", "eps_at_50_error", "area_under_error_curve")
COMPARED = ("smallest_share", "mean_excess", "optimality")  # of attacks with each other
UNKNOWN = "–"
PARTS = ("mean", "low", "high", "n_seeds")
COLUMNS = [
    Column("", "label"),
    Column("", "attack_label"),
    Column("", "norm"),
    *(Column("", metric, 1.0, parts=PARTS) for metric in (*METRICS, *COMPARED)),
    Column("", "n_found"),
    Column("", "n"),
    Column("", "eps_max"),
]


def radius_table(numbers: Numbers, norm: str) -> Table | None:
    """Return attacks and losses of one norm by radius, losses in the order of the first attack's.

    Of many attacks the page shows the worst case, those with radii and the featured ones.

    Args:
        numbers: Of the run.
        norm: Of the attacks.
    """
    curves = numbers.curves(norm)
    if not curves:
        return None
    shown = [
        attack
        for attack in curves
        if attack.name == WORST or is_minimum_norm(numbers, attack) or attack in featured(numbers)
    ]
    rows, marks = _rows(numbers, curves), Marks()
    set_aside = " The CSV has every attack." if len(shown) < len(curves) else ""
    return Table(
        f"radius-{norm}",
        f"How large a change fools half of the images, {NORM_NAMES.get(norm, norm)}",
        f"How far each attack must go, in {eps_words(norm)}; losses stand in the order of "
        f"{curves[0].label}, the most robust first. Eps at 50 % error: where the error curve "
        "crosses 50 %, interpolated between the eps of the run, so that one attack may seem "
        "stronger than the worst case. Area: mean error in percent over eps from 0 to the largest; "
        "lower is better. Fooled: images that the attack fools at any eps, clean mistakes "
        "included. Median radius: the smallest change that fools half of the images, from attacks "
        "that look for it. Smallest: of the images that any attack fools, the percentage on which "
        "no other attack found a smaller change; attacks with fixed eps are compared at those eps. "
        "Excess: how much more the attack needed than the best one, on average over the same "
        f"images.{set_aside}",
        *without_empty_columns(
            ["attack", "loss", "median radius", "eps at 50 % error", "area", "fooled", "smallest",
             "excess"],
            [_entries_of(row, marks) for row in rows if row["attack"] in shown],
        ),
        [fields_of(COLUMNS, row) for row in rows],
        marks.notes(),
        left=2,
    )  # fmt: skip


def _rows(numbers: Numbers, curves: Sequence[AttackInfo]) -> list[dict[str, Any]]:
    """Return one row for each attack and loss with radii, by attack and then by rank.

    The first of the curves ranks the losses.
    """
    rows = []
    for attack, label in itertools.product(curves, rank_labels(numbers, curves[0])):
        radii = numbers.radii(label, attack)
        if not radii:
            continue
        # an attack with fixed eps counts no images with a radius
        known = [row for row in radii if row["n_found"] is not None]
        rows.append(
            {
                "attack": attack,
                "label": label,
                "attack_label": "worst case" if attack.name == WORST else attack.label,
                "norm": attack.norm,
                **{
                    metric: numbers.get(label, attack.label, None, metric)
                    for metric in (*METRICS, *COMPARED)
                },
                "n_found": sum(int(row["n_found"]) for row in known) if known else None,
                "n": sum(int(row["n"]) for row in known or radii),
                "eps_max": max(row["eps_max"] for row in radii),
                "seeds": len(radii),
                "flags": numbers.flags_of(label, attack, None),
            }
        )
    return rows


def _entries_of(row: Mapping[str, Any], marks: Marks) -> list[Entry]:
    """Return a row as the page shows it; what is unknown or never happened has no mark."""
    radius, half, area = (row[metric] for metric in METRICS)
    never = f"> {eps_text(row['eps_max'])}" if area else NOTHING
    texts = [
        _length(radius, row["seeds"]) if radius else UNKNOWN,
        _length(half, row["seeds"]) if half else never,
        in_percent(area),
    ]
    share, excess, _ = (row[metric] for metric in COMPARED)
    compared = [in_percent(share), _length(excess, row["seeds"])] if share and excess else []
    mark = marks.of(row["flags"])
    found = UNKNOWN if row["n_found"] is None else f"{row['n_found']:,} of {row['n']:,}"
    return [
        Entry(row["attack"].label),
        Entry(row["label"]),
        *(Entry(text, "" if text in (NOTHING, UNKNOWN) else mark) for text in texts),
        Entry(found),
        *map(Entry, compared or [UNKNOWN, UNKNOWN]),
    ]


def is_minimum_norm(numbers: Numbers, attack: AttackInfo) -> bool:
    """Return whether an attack looks for the smallest change; a user's own shows it by radii."""
    rows = [row for label in numbers.labels for row in numbers.radii(label, attack)]
    known = any(row["median_radius"] is not None for row in rows)
    return attack_kind(attack.name) == "minimum_norm" or known


def rank_labels(numbers: Numbers, curve: AttackInfo) -> list[str]:
    """Return the losses by how far an attack must go, farthest first.

    By the eps at 50 % error. A loss whose curve never gets there is better than all whose does;
    among those the area under it decides. Losses without a number come last.
    """

    def key(label: str) -> tuple[int, float]:
        half, area = (numbers.get(label, curve.label, None, metric) for metric in METRICS[1:])
        if half is not None:
            return 1, -half.mean
        return (0, area.mean) if area is not None else (2, 0.0)

    return sorted(numbers.labels, key=key)


def _length(value: Estimate, seeds: int) -> str:
    """Return a length with three digits that count, and how many of the seeds never got there."""
    digits = 4 if value.mean < 0.1 else 3 if value.mean < 1 else 2
    missing = seeds - value.n_seeds
    never = f" ({missing} of {seeds} seeds never)" if missing else ""
    return estimate(value, digits=digits) + never


POINTS = 400
WORST_WORDS = (
    "Open markers: the worst case over all attacks of the norm, with its 95 % interval; one above "
    "the curve says that another attack found more."
)


@dataclass(frozen=True)
class RadiusCurve:
    """The curve of one loss."""

    label: str
    x: np.ndarray  # (P,) eps from 0
    y: np.ndarray  # (P,) error in percent
    median: float | None  # half of the images have a smaller radius; None where fewer have any
    worst: Sequence[tuple[float, float, float, float]]  # worst case: (eps, error, low, high) in %

    @property
    def words(self) -> str:
        """The median radius in figures."""
        return "none" if self.median is None else f"{self.median:.3g}"

    def points(self) -> list[tuple[str, float, float]]:
        """Return kind, eps and error in percent of everything that is drawn."""
        curve = [("curve", float(x), float(y)) for x, y in zip(self.x, self.y, strict=True)]
        return [*curve, *(("worst case", eps, error) for eps, error, _, _ in self.worst)]


@dataclass(frozen=True)
class RadiusPanel:
    """One attack with the curve of every loss; ``end`` is where the axis ends."""

    title: str
    x_label: str
    curves: Sequence[RadiusCurve]
    end: float

    @classmethod
    def of(cls, numbers: Numbers, attack: AttackInfo) -> "RadiusPanel":
        """Count the images by radius."""
        radii = {label: numbers.shown.radii(label, attack) for label in numbers.labels}
        known = {label: by_seed for label, by_seed in radii.items() if by_seed}
        end = curve_end(list(known.values()))
        x = np.linspace(0, end, POINTS)
        cases = [case for case in numbers.worst_cases if case.norm == attack.norm]
        curves = []
        for label, by_seed in known.items():
            worst = []
            for case, eps in ((each, eps) for each in cases for eps in each.strengths):
                if found := numbers.get(label, case.label, eps, "error"):
                    low = found.mean if found.low is None else found.low
                    high = found.mean if found.high is None else found.high
                    worst.append((eps, 100 * found.mean, 100 * low, 100 * high))
            median = numbers.get(label, attack.label, None, "median_radius")
            middle = median.mean if median else None
            curves.append(RadiusCurve(label, x, error_curve(by_seed, x), middle, worst))
        return cls(attack.label, attack.axis, curves, end)


def plot_radius_curves(numbers: Numbers) -> Iterator[Plot]:
    """Draw one panel for each attack that looks for the smallest change."""
    grid = [
        RadiusPanel.of(numbers, attack)
        for attack in numbers.attacks
        if attack.strengths and is_minimum_norm(numbers, attack)
    ]
    if not any(panel.curves for panel in grid):
        return
    crowded = max(len(panel.curves) for panel in grid) > CROWD
    worst = "The worst case over all attacks is in the tables." if crowded else WORST_WORDS
    medians = []
    for panel in grid:
        known = [f"{c.label} {c.words}" for c in panel.curves if c.median is not None]
        medians.append(f"{panel.title}, median radius: {', '.join(known) or 'none'}")
    yield Plot(
        "error-vs-radius",
        _draw_radius_curves(grid, looks(numbers.labels)),
        [
            {"panel": panel.title, "label": curve.label, "kind": kind, "eps": eps,
             "error_percent": error}
            for panel in grid
            for curve in panel.curves
            for kind, eps, error in curve.points()
        ],
        title="Error against the smallest change that fools",
        caption="Error against eps under attacks that find the smallest change that fools each "
        "image (its radius), mean over seeds. The farther to the right a curve lies, the harder "
        "its loss is to fool; it crosses 50 % at the median radius, and clean mistakes have radius "
        f"0. {worst} Each axis ends where the slowest curve does.",
        alt=f"Rising curves of error against eps, one line per loss. {'; '.join(medians)}.",
    )  # fmt: skip


def error_curve(radii: Sequence[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return the percent of images with a radius of at most x, mean over seeds: (P,).

    Args:
        radii: (N,) a seed; inf where none was found.
        x: (P,) eps.
    """
    shares = [np.searchsorted(np.sort(r), x, side="right") / len(r) for r in radii]
    return 100 * np.mean(shares, axis=0)


def curve_end(radii: Sequence[Sequence[np.ndarray]]) -> float:
    """Return where the slowest curve has risen to 99.5 % of its height: nothing happens beyond.

    Radii are (N,) by loss and seed.
    """
    finite = [np.concatenate(list(by_seed)) for by_seed in radii]
    finite = [r[np.isfinite(r)] for r in finite]
    return max((float(np.quantile(r, 0.995)) for r in finite if r.size), default=0.0) * 1.03


def _draw_radius_curves(grid: Sequence[RadiusPanel], looks: Mapping[str, Look]) -> Figure:
    """Draw the panels in rows; many losses are listed beside each of them, farthest first."""
    labels = [k for k in looks if any(c.label == k for p in grid for c in p.curves)]
    crowded = len(labels) > CROWD
    titles = [panel.title for panel in grid]
    cells = [panel if panel.curves and panel.end > 0 else "no image has a radius" for panel in grid]

    def draw(ax: Axes, panel: RadiusPanel, spot: Spot) -> None:
        _draw_panel(ax, panel, looks, crowded=crowded)

    if crowded:
        most = max(len(panel.curves) for panel in grid)
        return draw_panels(
            cells, draw, columns=2, widest=4.6, height=max(3.2, 0.18 * (most + 1)), titles=titles,
            margins=Margins(right=2.25, wgap=2.95),
        )  # fmt: skip
    handles = [Line2D([], [], label=plain(k), **stroke(looks[k])) for k in labels]
    handles.append(Line2D([], [], ls="none", marker="o", ms=7, mfc="white", mec=INK, mew=1.4,
                          label="worst case over attacks"))  # fmt: skip
    return draw_panels(
        cells, draw, columns=3, widest=6.2 if len(grid) == 1 else 4.8,
        height=lambda width: min(3.8, 0.8 * width), titles=titles, legend=Names(handles),
    )  # fmt: skip


def _draw_panel(ax: Axes, panel: RadiusPanel, looks: Mapping[str, Look], *, crowded: bool) -> None:
    """Draw the curves; name the medians in a corner or, of many losses, beside the panel."""
    ax.axhline(50, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for curve in panel.curves:
        look = looks[curve.label]
        ax.step(curve.x, curve.y, where="post", color=look.colour, ls=look.dash, lw=1.8, zorder=3)
        if curve.median is not None and curve.median <= panel.end:
            if not crowded:
                ax.plot([curve.median] * 2, [0, 50], color=look.colour, lw=0.9, zorder=2)
            ax.plot([curve.median], [50], marker=look.marker, ms=5.5, color=look.colour,
                    mec="white", mew=0.6, zorder=4)  # fmt: skip
        for eps, error, low, high in () if crowded else curve.worst:
            if eps <= panel.end:
                ax.errorbar([eps], [error], [[error - low], [high - error]], fmt=look.marker,
                            ms=7, mfc="white", mec=look.colour, ecolor=look.colour, mew=1.4,
                            elinewidth=1, zorder=5)  # fmt: skip
    ax.set(xlim=(0, panel.end), ylim=(0, 102), xlabel=panel.x_label, ylabel="error")
    ax.yaxis.set_major_formatter(ticks.percent)
    ax.grid(True)
    if not crowded:  # the medians in figures, where the curves have already risen
        lines = [f"{plain(c.label, 16)} {c.words}" for c in panel.curves]
        ax.text(
            0.98, 0.03, "\n".join(["median radius", *lines]), transform=ax.transAxes, ha="right",
            va="bottom", fontsize=8, color=INK, zorder=6, linespacing=1.35,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
        )  # fmt: skip
        return
    ordered = sorted(panel.curves, key=lambda c: -np.inf if c.median is None else -c.median)
    step = 1 / (len(ordered) + 1)
    ax.text(1.03, 1 - step / 2, "median radius", transform=ax.transAxes, fontsize=8, color=SOFT,
            va="center")  # fmt: skip
    for i, curve in enumerate(ordered):
        y, look = 1 - (i + 1.5) * step, looks[curve.label]
        ax.plot([1.03, 1.12], [y, y], transform=ax.transAxes, clip_on=False, lw=1.6,
                color=look.colour, ls=look.dash)  # fmt: skip
        ax.plot([1.075], [y], transform=ax.transAxes, clip_on=False, marker=look.marker, ms=4.5,
                color=look.colour, mec="white", mew=0.5)  # fmt: skip
        ax.text(1.135, y, f"{curve.words}  {plain(curve.label, 22)}", transform=ax.transAxes,
                fontsize=8, va="center")  # fmt: skip
