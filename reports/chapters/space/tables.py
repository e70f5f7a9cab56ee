"""Tables of the feature space: distances and angles, margins, class means, pairs in training."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.reports.drawing.album import SPACE
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.facts import class_names, in_widths, losses_with, mean, rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, Estimate, short, significant

_SPLITS = {
    "test": ("clean test images", ""),
    "train": ("training images", " Gradient: of the finished loss at a feature, full margin; "
              "correlation (Spearman) with the feature's norm."),
    "untrained": ("clean test images through the untrained network", ""),
}  # fmt: skip
NO_MARGIN = 1e-6  # of the length: boundaries this near fall together
_LENGTHS = (
    ("within_distance", "within class"),
    ("between_distance", "between classes"),
    ("between_distance_min", "nearest two"),
    ("norm_mean", "norm"),
)
_ANGLES = ("within_angle_deg", "between_angle_deg", "between_angle_min_deg")
_GRADIENT = (
    ("gradient_norm_mean", "gradient", 0.0),
    ("gradient_norm_correlation", "correlation with norm", -1.0),
)


def geometry_tables(numbers: Numbers) -> list[Table]:
    """One table per split that the run has, test images first."""
    return [_geometry(numbers, split) for split in _SPLITS
            if losses_with(numbers, "geometry", split=split)]  # fmt: skip


def _geometry(numbers: Numbers, split: str) -> Table:
    labels = losses_with(numbers, "geometry", split=split)
    found = {k: rows(numbers, "geometry", k, split=split) for k in labels}
    gradient = split == "train"
    what, more = _SPLITS[split]
    return Table(
        f"geometry-{split}",
        f"Distances and angles: {what}",
        "Lengths in the unit of each loss's own space, so compare their ratios: Fisher ratio is "
        "the scatter of the class means over the scatter within the classes (trace over trace, "
        "per image), higher is better separated. Within class: mean distance of an image to its "
        "class mean; between classes: mean distance of two class means; in brackets the nearest "
        "two. Norm: mean [5 %, 95 % of the images]. Angles in degrees, seen from the origin: of an "
        f"image to its class mean, and between class means (least: the nearest two).{more} "
        f"{_seed_words(numbers)}",
        ["loss", "between ÷ within", "Fisher ratio", "angle within", "angle between",
         *(name for _, name, _ in _GRADIENT if gradient), *(name for _, name in _LENGTHS)],
        [_geometry_row(numbers, k, found[k], gradient) for k in labels],
        [row for k in labels for row in found[k]],
        lemma_notes(numbers) if split == "test" else [],
        section=SPACE,
        fold="never" if split == "test" else "always",
    )  # fmt: skip


def _geometry_row(
    numbers: Numbers, label: str, found: Sequence[dict], gradient: bool
) -> list[Entry]:
    texts = {key: significant(mean(found, key)) for key, _ in _LENGTHS}
    names = class_names(numbers)
    pairs = {f"{_name(names, r['nearest_a'])}, {_name(names, r['nearest_b'])}" for r in found}
    if texts["between_distance_min"] != NOTHING:
        texts["between_distance_min"] += f" ({pairs.pop() if len(pairs) == 1 else 'varies'})"
    low, high = mean(found, "norm_p5"), mean(found, "norm_p95")
    if low and high:
        texts["norm_mean"] += f" [{short(low.mean)}, {short(high.mean)}]"
    ratios = [
        {"r": r["between_distance"] / r["within_distance"]}
        for r in found
        if r["within_distance"] and r["between_distance"] is not None
    ]
    within, between, least = (_degrees(mean(found, key)) for key in _ANGLES)
    angles = [within, f"{between} (least {least})"]
    pull = [significant(mean(found, key, least=lowest)) for key, _, lowest in _GRADIENT if gradient]
    if least == NOTHING:
        angles = [within, between]
    shares = [significant(mean(ratios, "r")), significant(mean(found, "fisher_ratio"))]
    every = [*shares, *angles, *pull, *texts.values()]
    return [Entry(label), *(Entry(text) for text in every)]


def _name(names: Sequence[str], place: int | None) -> str:
    return names[place] if place is not None and place < len(names) else str(place)


def _degrees(value: Estimate | None) -> str:
    if value is None:
        return NOTHING
    if value.low is None or value.high is None:
        return f"{value.mean:.1f}°"
    return f"{value.mean:.1f}° ± {(value.high - value.low) / 2:.1f}"


def _seed_words(numbers: Numbers) -> str:
    if len(numbers.seeds) > 1:
        return "Means over seeds; ± is half a 95 % t-interval over training seeds."
    return "One training seed: no interval."


def lemma_notes(numbers: Numbers) -> list[str]:
    """Lemma 1 of the paper, where both losses stand in the run."""
    names = set(numbers.names.values())
    if "center" not in names or not names & {"gm", "lgm"}:
        return []
    return [
        "Lemma 1 of Wan et al. 2018: with identity covariance and uniform priors the likelihood "
        "regulariser of GM and L-GM is the center loss plus ½ D log 2π per image, D the number of "
        "features: with the same centers and weight both pull a feature alike. What is left "
        "between them is how they classify (center loss by a linear layer beside the centers, GM "
        "and L-GM by the distances to them) and how centers move: those of center loss by running "
        "means of batches, those of GM and L-GM by the gradient, of the classification too."
    ]


def margin_table(numbers: Numbers) -> Table | None:
    """The margin between the nearest two classes, beside its closed form."""
    labels = losses_with(numbers, "margins")
    if not labels:
        return None
    return Table(
        "margins",
        "Boundaries and margins, measured and in closed form",
        "On the line between the means of two classes, training features: positions are shares of "
        "that line from the first class to the second. Boundary: where the margin-free logits are "
        "equal; the two after it: where training calls the classes equal when the first, or the "
        "second, is the true one. Margin: between those two, times the length; “no margin” where "
        "they fall together, n/a where one of them is not on the line. Closed form: the same from "
        "the class vectors alone; n/a for a loss without one, such as a pair loss. Difference: "
        "the largest between measured and closed form, of the three positions over all pairs and "
        "seeds. Shown is the nearest pair of classes of the first seed; margin ÷ length also as "
        "mean over pairs and seeds. The CSV has every pair and seed.",
        ["loss", "nearest pair", "length", "boundary", "true first", "true second", "margin",
         "closed form", "margin ÷ length", "mean over pairs", "pairs", "difference"],
        [_margin_row(numbers, label) for label in labels],
        [row for label in labels for row in rows(numbers, "margins", label)],
        section=SPACE,
        left=2,
    )  # fmt: skip


def _margin_row(numbers: Numbers, label: str) -> list[Entry]:
    found = rows(numbers, "margins", label)
    first = min(row["seed"] for row in found)
    own = [row for row in found if row["seed"] == first]
    near = min(own, key=lambda row: row["length"])
    names = class_names(numbers)
    apart = [row["difference"] for row in found if row["difference"] is not None]
    shares = [s for row in found if (s := _share(row)) is not None]
    every = sum(shares) / len(shares) if shares else None
    texts = [
        f"{_name(names, near['class_a'])}, {_name(names, near['class_b'])}",
        _short(near["length"]),
        *(_place(near[key]) for key in ("boundary", "boundary_a", "boundary_b")),
        _margin(near, "margin"),
        _margin(near, "closed_margin"),
        *(NOTHING if s is None else f"{_unsigned(100 * s)} %" for s in (_share(near), every)),
        str(len(own)) if len(shares) == len(found) else f"{len(own)} ({_known(own)} with both)",
        f"{max(apart):.1e}".replace("-", "−") if apart else NOTHING,
    ]
    return [Entry(label), *(Entry(text) for text in texts)]


def _share(row: Mapping[str, Any]) -> float | None:
    """Margin over length; None where a boundary is missing, or two means are one."""
    if row["margin"] is None or not row["length"]:
        return None
    return float(row["margin"]) / float(row["length"])


def _known(found: Sequence[Mapping[str, Any]]) -> int:
    return sum(_share(row) is not None for row in found)


def _unsigned(value: float) -> str:
    """One decimal, no minus before what rounds to 0, a true minus before the rest."""
    return f"{value + 0.0 if abs(value) >= 0.05 else 0.0:.1f}".replace("-", "−")


def _margin(row: Mapping[str, Any], key: str) -> str:
    """A margin in words where there is none: both boundaries on one place."""
    value = row[key]
    if value is None:
        return NOTHING
    if abs(value) <= NO_MARGIN * row["length"]:
        return "no margin"
    return short(value)


def _short(value: float | None) -> str:
    return NOTHING if value is None else short(value)


def _place(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def center_table(numbers: Numbers) -> Table | None:
    """How well batches and centers know the class means."""
    labels = losses_with(numbers, "center_estimates")
    if not labels:
        return None
    found = {k: rows(numbers, "center_estimates", k) for k in labels}
    return Table(
        "class-means",
        "Class means: mini-batches and centers",
        "Distance to the true class means of the training features (root mean square), in units of "
        "the mean distance of an image to its class mean (within class, in the loss's own space), "
        "so that losses compare. Batch mean: of a class's images in one mini-batch, over 200 "
        "batches; expected: the same from the scatter and the images of a class alone. Centers: "
        "those that the loss keeps, n/a where it keeps none. A loss that took its class means or "
        "variances from the batch at hand would work with the error of the batch mean. Center "
        "loss averages batches into its centers, the Gaussian losses learn theirs as parameters "
        "over many batches: an error of the centers below that of the batch mean is what this "
        "memory gains. Above it, the centers lag behind the features, or are not drawn to the "
        "means alone: the classification term moves the centers of the Gaussian losses too. "
        f"{_fixed(numbers)}{_seed_words(numbers)}",
        ["loss", "batch size", "images of a class", "within class", "expected", "batch mean",
         "centers"],
        [
            [Entry(k), Entry(str(found[k][0]["batch_size"])),
             Entry(significant(mean(found[k], "images_per_class"))),
             Entry(significant(mean(found[k], "within_distance"))),
             *(Entry(significant(in_widths(found[k], key))) for key in _ERRORS)]
            for k in labels
        ],
        [row for k in labels for row in found[k]],
        section=SPACE,
    )  # fmt: skip


_ERRORS = ("expected_error", "batch_mean_error", "centers_error")


def _fixed(numbers: Numbers) -> str:
    if "mmc" not in numbers.names.values():
        return ""
    return "The centers of the Max-Mahalanobis loss are fixed: there the features do the moving. "


def tuple_table(numbers: Numbers) -> Table | None:
    """Pair losses: how many pairs or triplets pull, and what they cost."""
    rows_, data = [], []
    for label in numbers.labels:
        logs = [t for t in numbers.run.training if t.get("label") == label]
        curves = [[p for p in t.get("curve") or [] if p.get("tuples") is not None] for t in logs]
        curves = [curve for curve in curves if curve]
        if not curves:
            continue
        ends = [
            mean([c[place] for c in curves], "tuples") for place in (0, -1)
        ]  # fmt: skip
        share = _time_share(logs)
        rows_.append(
            [Entry(label), *(Entry(significant(end)) for end in ends),
             Entry(NOTHING if share is None else f"{100 * share:.1f} %")]
        )  # fmt: skip
        data += [
            {"label": label, "seed": log.get("seed"), "epoch": p["epoch"], "tuples": p["tuples"],
             "tuple_seconds": p.get("tuple_seconds"), "seconds": p.get("seconds")}
            for log in logs for p in log.get("curve") or [] if p.get("tuples") is not None
        ]  # fmt: skip
    if not rows_:
        return None
    return Table(
        "tuples",
        "Pairs and triplets in training",
        "Pairs or triplets of a batch with a non-zero term, mean per step of the first and of the "
        "last epoch; time: share of the training time spent in the loss. Few tuples at the end "
        "mean that most batches no longer teach anything.",
        ["loss", "per step, first epoch", "per step, last epoch", "time in the loss"],
        rows_,
        data,
        section=SPACE,
    )


def _time_share(logs: Sequence[dict]) -> float | None:
    shares = []
    for log in logs:
        spent = [p["tuple_seconds"] for p in log.get("curve") or []
                 if p.get("tuple_seconds") is not None]  # fmt: skip
        if spent and log.get("seconds"):
            shares.append(sum(spent) / float(log["seconds"]))
    return sum(shares) / len(shares) if shares else None
