"""Detection and rejection under attacks that know the detector, and how far the detector falls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.table import score_name
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import ADVERSARIAL, INK, NORMAL, SOFT, plain
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of, lay_out
from robustloss.reports.reading.detected import sum_over
from robustloss.reports.reading.guarded import ANY, BEST, SCORE, Guarded, Rival, guarded
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, eps_name
from robustloss.results.schema import ANY_ATTACK

FETAYA = (
    "No likelihood is guaranteed to give attacked images away, however good the model of the data "
    "is, and what held on MNIST broke down on CIFAR-10 (Fetaya et al., ICLR 2020)."
)
_NAMES = {BEST: "best adaptive", ANY: ANY_ATTACK["attack_label"]}
_ESTIMATES = [
    Column("AUROC, all", "auroc_all", 1.0),
    Column("", "n_seeds"),
    Column("AUROC, successful", "auroc_successful", 1.0),
    Column("", "undetected_success_at_1fpr", 100.0, 2),
    Column("fooled and unnoticed", "undetected_success_at_5fpr", 100.0, 2),
    Column("", "error", 100.0, 2),
    Column("", "error_with_rejection_at_1fpr", 100.0, 2),
    Column("", "error_with_rejection_at_5fpr", 100.0, 2),
]
_PLACE = [Column("", key) for key in ("norm", "eps", "attack_label", "kind")]
_EVERY = [
    Column("loss", "label"),
    *_PLACE,
    Column("attack", "name", in_csv=False),
    Column("score", "score_name", in_csv=False),
    Column("", "score"),
    Column("", "adapted"),
    Column("eps", "eps", words=eps_text, in_csv=False),
    Column("", "n_successful"),
    *_ESTIMATES,
]
_FALL = [Column("AUROC", "auroc_all", 1.0),
         Column("fooled and unnoticed", "undetected_success_at_5fpr", 100.0, 2)]  # fmt: skip
_BESIDE = [Column("loss", "label"), *_PLACE, _FALL[0], Column("", "n_seeds"), _FALL[1]]
_REJECTING = [
    Column("error", "error", 100.0, 2),
    Column("1 % rejected", "error_with_rejection_at_1fpr", 100.0, 2),
    Column("5 % rejected", "error_with_rejection_at_5fpr", 100.0, 2),
]


def auroc_table(found: Guarded) -> Table:
    """Return AUROC, naive and best adaptive, and who is fooled and unnoticed, naive and by any."""
    marks = Marks()
    start = [found.start] if found.start else []
    asked = [(column, rival) for column, more in zip(_FALL, (found.of_kind(BEST), found.worst),
                                                     strict=True)
             for rival in (*start, *more)]  # fmt: skip
    rows, data = [], []
    for label, eps in product(found.numbers.labels, found.eps):
        cells = [_entry(found, marks, label, rival, eps, column) for column, rival in asked]
        rows.append([Entry(label), Entry(eps_text(eps)), *cells])
        data += [
            fields_of(_BESIDE, _numbers(found, label, rival, eps, SCORE, _FALL))
            for rival in found.of_likelihood
        ]
    return Table(
        f"adaptive-auroc-{found.norm}",
        f"What is noticed when the attack knows the detector, {found.norm_name}",
        "Detection of an attack that only wants a wrong class, beside adaptive attacks, which want "
        "one that also looks likely. Best adaptive: for each image, the adaptive attack that fools "
        "it and looks most likely. AUROC is over all attacked images. Fooled and unnoticed is in "
        "percent, at 5 % FPR. Any attack: an image counts as soon as one attack, naive or "
        "adaptive, fools the network and passes with it. The CSV has every attack.",
        [
            "loss",
            "eps",
            *(f"{column.head}, {_NAMES.get(rival.kind, rival.label)}" for column, rival in asked),
        ],
        rows,
        data,
        [*marks.notes(), FETAYA],
    )


def rejection_table(found: Guarded) -> Table:
    """Return who passes a model that may reject: naive at worst, best adaptive, any attack."""
    marks = Marks()
    kinds = [
        ("worst naive", found.of_kind("naive")),
        *((name, found.of_kind(kind)) for kind, name in _NAMES.items() if found.of_kind(kind)),
    ]
    rows, data = [], []
    for label, eps in product(found.numbers.labels, found.eps):
        for name, rivals in kinds:
            row = [Entry(label), Entry(name), Entry(eps_text(eps))]
            for column in _REJECTING:
                known = [(value.mean, rival) for rival in rivals
                         if (value := found.get(label, rival, eps, column.key))]  # fmt: skip
                worst = max(known, key=lambda pair: pair[0], default=(0.0, None))[1]
                row.append(_entry(found, marks, label, worst, eps, column))
            rows.append(row)
        data += [
            fields_of(_EVERY, _numbers(found, label, rival, eps, SCORE))
            for rival in found.of_likelihood
        ]
    return Table(
        f"adaptive-rejection-{found.norm}",
        f"Error with the option to reject, {found.norm_name}",
        "Error in percent, and what is left of it when the detector rejects 1 % or 5 % of clean "
        "validation images. What is left: images that are wrong and accepted, clean mistakes "
        "included. Worst naive: in each column the highest over the attacks that ignore the "
        "detector. Any attack: image by image over all of them.",
        ["loss", "attack", "eps", *(column.head for column in _REJECTING)],
        rows,
        data,
        marks.notes(),
        left=2,
    )


def _entry(
    found: Guarded, marks: Marks, label: str, rival: Rival | None, eps: float, column: Column
) -> Entry:
    """Return the cell of one attack, with its marks; "n/a" where there is no attack."""
    value = found.get(label, rival, eps, column.key) if rival else None
    if rival is None or value is None:
        return Entry(NOTHING)
    return column.entry(value, marks.of(found.flags(label, rival, eps)))


def every_adaptive_table(found: Guarded) -> Table:
    """Return every attack under every score: what the two tables above are taken from."""
    marks = Marks()
    rows = [
        _numbers(found, label, rival, eps, score)
        for label, eps, rival, score in product(
            found.numbers.labels, found.eps, found.rivals, found.scores
        )
        if found.rows(label, rival, eps, score)
    ]
    return Table(
        f"adaptive-every-{found.norm}",
        f"Every attack and every score beside the adaptive attacks, {found.norm_name}",
        "AUROC of every score under every attack, and the percentage fooled and unnoticed at 5 % "
        "FPR. “Not adapted”: the attack, or every attack in the best of adaptive, aims at another "
        "score, so a high AUROC is no evidence. The CSV also has 1 % FPR, errors and counts.",
        *lay_out(_EVERY, rows, marks),
        marks.notes(),
        left=3,
    )


def _numbers(
    found: Guarded, label: str, rival: Rival, eps: float, score: str,
    estimates: Sequence[Column] = _ESTIMATES,
) -> dict[str, Any]:  # fmt: skip
    """Return what the columns of these tables show of one attack at one eps under one score."""
    aimed = any(row["adapted"] for row in found.rows(label, rival, eps, score))
    naive = "naive: " if rival.kind == "naive" else ""
    keys = [column.key for column in estimates if column.unit]
    values = {key: found.get(label, rival, eps, key, score) for key in keys}
    last = values[keys[-1]]
    return {
        "label": label,
        "norm": found.norm,
        "eps": eps,
        "attack_label": rival.label,
        "kind": rival.kind,
        "name": _NAMES.get(rival.kind, naive + rival.label),
        "score": score,
        "score_name": score_name(score, adapted=None if rival.kind == "naive" else aimed),
        "adapted": aimed,
        "n_successful": sum_over(found.rows(label, rival, eps, score), "n_successful") or 0,
        **values,
        "n_seeds": last.n_seeds if last else 0,
        "flags": found.flags(label, rival, eps),
    }


@dataclass(frozen=True)
class Fall:
    """AUROC at one eps of one loss; None where there is no number."""

    name: str
    start: float | None  # under the naive attack that the arrow starts from
    naive: Sequence[float]  # under each other naive attack
    adaptive: Sequence[float]
    best: float | None  # of the adaptive ones, image by image


def plot_falls(numbers: Numbers) -> Iterator[Plot]:
    """Draw one figure for each norm with an adaptive attack."""
    for found in guarded(numbers):
        if not found.aimed:
            continue
        start, bests = found.start, found.of_kind(BEST)
        if start is None or not bests:
            continue
        rows = []
        grid: dict[str, list[Fall]] = {label: [] for label in numbers.labels}
        for label, eps in product(numbers.labels, found.eps):
            areas = {
                rival: area.mean
                for rival in found.of_likelihood
                if (area := found.get(label, rival, eps, "auroc_all"))
            }
            naive = [y for rival, y in areas.items() if rival.kind == "naive" and rival != start]
            adaptive = [y for rival, y in areas.items() if rival.kind == "adaptive"]
            grid[label].append(
                Fall(eps_name(eps), areas.get(start), naive, adaptive, areas.get(bests[0]))
            )
            rows += [
                {"label": label, "eps": eps, "attack_label": rival.label, "kind": rival.kind,
                 "auroc_all": areas.get(rival)}
                for rival in found.of_likelihood
            ]  # fmt: skip
        words = [
            f"{label} from {falls[-1].start:.2f} to {falls[-1].best:.2f}"
            for label, falls in grid.items()
            if falls[-1].start is not None and falls[-1].best is not None
        ]
        yield Plot(
            f"adaptive-fall-{found.norm}",
            _draw_falls([*grid.items()], start.label),
            rows,
            title=f"The detector falls when the attack knows it, {found.norm_name}",
            caption="How far AUROC falls when the attack knows the detector. Grey: attacks that "
            f"only want a wrong class; the arrow starts at {start.label}. Orange: adaptive "
            "attacks, which want a wrong class that also looks likely; the diamond takes the best "
            "of them for each image. Left of the dotted line attacked images look more typical "
            "than clean ones. All attacked images, means over seeds.",
            alt=f"Arrows from the AUROC under {start.label} to that under the best adaptive "
            f"attack, one panel per loss. At {eps_name(found.eps[-1])}: {', '.join(words)}.",
        )


def _draw_falls(grid: Sequence[tuple[str, Sequence[Fall]]], start: str) -> Figure:
    """Draw the panels; every axis runs from 0 to 1."""
    most = max(len(falls) for _, falls in grid)

    def draw(ax: Axes, falls: Sequence[Fall], spot: Spot) -> None:
        _draw_fall(ax, falls, most)
        ax.tick_params(labelleft=spot.leftmost)

    def mark(label: str, marker: str, **look: object) -> Line2D:
        return Line2D([], [], ls="none", marker=marker, label=label, **look)  # type: ignore[arg-type]

    handles = [mark(f"naive: {plain(start)}", "o", ms=7, color=NORMAL)]
    if any(fall.naive for _, falls in grid for fall in falls):
        handles.append(mark("other naive attacks", "o", ms=5, mfc="white", mec=NORMAL))
    handles += [
        mark("each adaptive attack", "|", ms=11, mew=1.6, color=ADVERSARIAL),
        mark("best adaptive, per image", "D", ms=6.5, color=ADVERSARIAL),
        Line2D([], [], color=SOFT, lw=1, ls=(0, (1, 2)), label="guessing"),
    ]
    cells = [falls if any(fall.best is not None for fall in falls) else "no numbers for this loss"
             for _, falls in grid]  # fmt: skip
    return draw_panels(
        cells, draw, columns=4, widest=4.4, height=0.42 + 0.52 * most,
        titles=[label for label, _ in grid], legend=Names(handles),
        margins=Margins(left=0.85, wgap=0.35),
    )  # fmt: skip


def _draw_fall(ax: Axes, falls: Sequence[Fall], most: int) -> None:
    ax.axvline(0.5, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for y, fall in enumerate(falls):
        ax.plot(fall.naive, [y] * len(fall.naive), ls="none", marker="o", ms=5, mfc="white",
                mec=NORMAL, mew=1.1, zorder=3)  # fmt: skip
        ax.plot(fall.adaptive, [y] * len(fall.adaptive), ls="none", marker="|", ms=11, mew=1.6,
                color=ADVERSARIAL, zorder=3)  # fmt: skip
        start, end = fall.start, fall.best
        if start is None or end is None:
            continue
        # both ends with their numbers, and an arrow where there is room between them
        if abs(start - end) > 0.03:
            ax.annotate("", (end, y), (start, y), zorder=2,
                        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.1,
                                    "shrinkA": 4, "shrinkB": 5})  # fmt: skip
        ax.plot([start], [y], marker="o", ms=7, color=NORMAL, mec="white", mew=0.6, zorder=4)
        ax.plot([end], [y], marker="D", ms=6.5, color=ADVERSARIAL, mec="white", mew=0.6, zorder=5)
        close = abs(start - end) < 0.14
        for x, side in ((start, 1), (end, -1)):
            # two decimals, or three where two would read as perfect
            text = f"{x:.2f}" if 0.005 <= x < 0.995 or x in (0, 1) else f"{x:.3f}"
            shift = side * (9 if close else 0) * (1 if start >= end else -1)
            ax.annotate(text, (x, y), xytext=(shift, 6), textcoords="offset points", fontsize=8,
                        ha="right" if x > 0.93 and not close else "left" if x < 0.07 else "center",
                        va="bottom", color=INK)  # fmt: skip
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(most - 0.45, -0.75)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    ax.set_yticks(range(len(falls)), [fall.name for fall in falls])
    ax.set_xlabel("AUROC, all attacked images")
    ax.grid(True, axis="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
