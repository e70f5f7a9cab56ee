"""Tables of the feature space: distances and angles, margins, class means, pairs in training."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Table, lay_out
from robustloss.reports.reading.facts import by_loss, class_names, in_widths, mean, rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NOTHING, Estimate, fixed, minus, short, significant

_SPLITS = {
    "test": ("clean test images", ""),
    "train": ("training images", " Gradient: of the finished loss at a feature, full margin; "
              "correlation (Spearman) with the feature's norm."),
    "untrained": ("clean test images through the untrained network", ""),
}  # fmt: skip
_COLLAPSE = {
    "NC1": "nc1",
    "NC2, lengths": "nc2_lengths",
    "NC2, angles": "nc2_cosines",
    "NC3": "nc3",
}
_OF_EPOCH = ("epoch", "tuples", "tuple_seconds", "seconds")
_ERRORS = ("expected_error", "batch_mean_error", "centers_error")
LEMMA = (
    "Lemma 1 of Wan et al. 2018: with identity covariance and uniform priors the likelihood "
    "regulariser of GM and L-GM is the center loss plus ½ D log 2π per image, D the number of "
    "features: with the same centers and weight both pull a feature alike. They differ in "
    "how they classify (center loss by a linear layer beside the centers, GM and L-GM by the "
    "distances to them) and in how centers move: by running means of batches in center loss, by "
    "the gradient of the whole loss in GM and L-GM."
)
NO_MARGIN = 1e-6  # of the length: boundaries this near fall together


def space_table(numbers: Numbers) -> Table | None:
    """Return what shape the features of the test images have, in three numbers a loss."""
    found = by_loss(numbers, "geometry", split="test")
    columns = [
        Column("loss", "label"),
        Column("between ÷ within", "ratio", words=significant),
        Column("angle between classes", "angle"),
        Column("norm", "length", words=significant),
    ]
    return Table(
        "feature-space",
        "Distances and angles of the test images",
        "How far apart the classes lie: between ÷ within is the mean distance of two class means "
        "over that of an image to its class mean; the higher, the better separated. Angle: between "
        "class means, seen from the origin. Norm: mean length of a feature, in each loss's own "
        "unit.",
        *lay_out(columns, [_geometry_row(numbers, own) for own in found.values()])[:2],
        [row for own in found.values() for row in own],
    )


def geometry_tables(numbers: Numbers) -> list[Table]:
    """Return one table per split that the run has, test images first."""
    tables, losses = [], {*numbers.names.values()}
    both = "center" in losses and losses & {"gm", "lgm"}  # whose lemma it is
    for split, (what, more) in _SPLITS.items():
        found = by_loss(numbers, "geometry", split=split)
        if not found:
            continue
        columns = [
            Column("loss", "label"),
            Column("between ÷ within", "ratio", words=significant),
            Column("Fisher ratio", "fisher_ratio", words=significant),
            Column("angle within", "within_angle"),
            Column("angle between", "between_angle"),
            Column("gradient", "gradient_norm_mean", words=significant),
            Column("correlation with norm", "gradient_norm_correlation", words=significant),
            Column("within class", "within_distance", words=significant),
            Column("between classes", "between_distance", words=significant),
            Column("nearest two", "nearest"),
            Column("norm", "norm"),
        ]
        if split != "train":
            columns = [column for column in columns if not column.key.startswith("gradient")]
        tables.append(Table(
            f"geometry-{split}",
            f"Distances and angles: {what}",
            "Lengths in the unit of each loss's own space, so compare their ratios. Fisher ratio: "
            "the scatter of the class means over the scatter within the classes (trace over "
            "trace, per image); higher is better separated. Within class: mean distance of an "
            "image to its class mean; between classes: mean distance of two class means; in "
            "parentheses the nearest two. Norm: mean (5 % to 95 % quantile of the images). Angles "
            "in degrees, seen from the origin: of an image to its class mean, and between class "
            f"means (least: the nearest two).{more}",
            *lay_out(columns, [_geometry_row(numbers, own) for own in found.values()])[:2],
            [row for own in found.values() for row in own],
            [LEMMA] if both and split == "test" else [],
        ))  # fmt: skip
    return tables


def collapse_table(numbers: Numbers) -> Table | None:
    """Return the neural-collapse numbers, clean and under each attack at its largest eps."""
    every = [row for label in numbers.labels for row in rows(numbers, "collapse", label)]
    largest: dict[str, float] = {}
    for row in every:
        largest[row["attack_label"]] = max(row["eps"], largest.get(row["attack_label"], 0.0))
    columns = [
        Column("loss", "label"),
        Column("images", "images"),
        *(Column(head, key, words=significant) for head, key in _COLLAPSE.items()),
    ]
    shown = []
    for label in numbers.labels:
        for attack, eps in sorted(largest.items(), key=lambda each: each[0] != "none"):
            own = [
                row
                for row in rows(numbers, "collapse", label, attack_label=attack)
                if row["eps"] == eps
            ]
            if own:
                images = "clean" if attack == "none" else f"{attack}, eps {eps_text(eps)}"
                values = {key: mean(own, key) for key in _COLLAPSE.values()}
                shown.append({"label": label, "images": images, **values})
    if not shown:
        return None
    return Table(
        "neural-collapse",
        "Neural collapse, clean and attacked",
        "All numbers are 0 in full collapse (Papyan et al. 2020). NC1: scatter within the true "
        "classes over that between them. NC2: how far the centred class means are from equal "
        "lengths, and from the angles of a simplex. NC3: how far the class vectors of the loss are "
        "from parallel to the class means; n/a for a loss without such vectors. Each attack is "
        "shown at its largest eps.",
        *lay_out(columns, shown)[:2],
        every,
        left=2,
    )


def _geometry_row(numbers: Numbers, found: Sequence[dict]) -> dict[str, Any]:
    """Return the row of one loss, from a row of each seed."""
    ratios = [
        {"ratio": row["between_distance"] / row["within_distance"]}
        for row in found
        if row["within_distance"] and row["between_distance"] is not None
    ]
    names = class_names(numbers)
    pairs = {f"{_name(names, r['nearest_a'])}, {_name(names, r['nearest_b'])}" for r in found}
    nearest = significant(mean(found, "between_distance_min"))
    if nearest != NOTHING:
        nearest += f" ({pairs.pop() if len(pairs) == 1 else 'varies'})"
    length = mean(found, "norm_mean")
    norm = significant(length)
    low, high = mean(found, "norm_p5"), mean(found, "norm_p95")
    if low and high:
        norm += f" ({short(low.mean)} to {short(high.mean)})"
    between, least = (
        _degrees(mean(found, key)) for key in ("between_angle_deg", "between_angle_min_deg")
    )
    shares = ("fisher_ratio", "gradient_norm_mean", "within_distance", "between_distance")
    return {
        "label": found[0]["label"],
        "ratio": mean(ratios, "ratio"),
        **{key: mean(found, key) for key in shares},
        "gradient_norm_correlation": mean(found, "gradient_norm_correlation", least=-1.0),
        "within_angle": _degrees(mean(found, "within_angle_deg")),
        "between_angle": between if least == NOTHING else f"{between} (least {least})",
        "nearest": nearest,
        "norm": norm,
        "angle": between,
        "length": length,
    }


def _name(names: Sequence[str], place: int | None) -> str:
    return names[place] if place is not None and place < len(names) else str(place)


def _degrees(value: Estimate | None) -> str:
    if value is None:
        return NOTHING
    if value.low is None or value.high is None:
        return f"{value.mean:.1f}°"
    return minus(f"{value.mean:.1f}° [{value.low:.1f}, {value.high:.1f}]")


def margin_table(numbers: Numbers) -> Table | None:
    """Return the margin between the nearest two classes, beside its closed form."""
    found = by_loss(numbers, "margins")
    if not found:
        return None
    columns = [
        Column("loss", "label"),
        Column("nearest pair", "pair"),
        Column("length", "length", words=short),
        Column("boundary", "boundary", words=fixed),
        Column("true first", "boundary_a", words=fixed),
        Column("true second", "boundary_b", words=fixed),
        Column("margin", "margin"),
        Column("closed form", "closed_margin"),
        Column("margin ÷ length", "share", words=_share_words),
        Column("mean over pairs", "mean_share", words=_share_words),
        Column("pairs", "pairs"),
        Column("difference", "difference"),
    ]
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
        *lay_out(columns, [_margin_row(numbers, own) for own in found.values()])[:2],
        [row for own in found.values() for row in own],
        left=2,
    )


def _margin_row(numbers: Numbers, found: Sequence[dict]) -> dict[str, Any]:
    """Return the row of one loss: its nearest pair in the first seed, and what all pairs say."""
    first = min(row["seed"] for row in found)
    own = [row for row in found if row["seed"] == first]
    near = min(own, key=lambda row: row["length"])
    names = class_names(numbers)
    apart = [row["difference"] for row in found if row["difference"] is not None]
    shares = [share for row in found if (share := _share(row)) is not None]
    both = sum(_share(row) is not None for row in own)
    return near | {
        "pair": f"{_name(names, near['class_a'])}, {_name(names, near['class_b'])}",
        "margin": _margin_words(near, "margin"),
        "closed_margin": _margin_words(near, "closed_margin"),
        "share": _share(near),
        "mean_share": sum(shares) / len(shares) if shares else None,
        "pairs": f"{len(own)}" if len(shares) == len(found) else f"{len(own)} ({both} with both)",
        "difference": minus(f"{max(apart):.1e}") if apart else NOTHING,
    }


def _share(row: Mapping[str, Any]) -> float | None:
    """Return margin over length; None where a boundary is missing, or two means are one."""
    if row["margin"] is None or not row["length"]:
        return None
    return float(row["margin"]) / float(row["length"])


def _share_words(share: float | None) -> str:
    return NOTHING if share is None else minus(f"{100 * share:z.1f} %")


def _margin_words(row: Mapping[str, Any], key: str) -> str:
    """Return a margin, in words where there is none: both boundaries on one place."""
    value = row[key]
    if value is None:
        return NOTHING
    return "no margin" if abs(value) <= NO_MARGIN * row["length"] else short(value)


def center_table(numbers: Numbers) -> Table | None:
    """Return how well batches and centers know the class means."""
    found = by_loss(numbers, "center_estimates")
    if not found:
        return None
    columns = [
        Column("loss", "label"),
        Column("batch size", "batch_size", words=str),
        Column("images of a class", "images_per_class", words=significant),
        Column("within class", "within_distance", words=significant),
        Column("expected", "expected_error", words=significant),
        Column("batch mean", "batch_mean_error", words=significant),
        Column("centers", "centers_error", words=significant),
    ]
    made = [
        {"label": label, "batch_size": own[0]["batch_size"]}
        | {key: mean(own, key) for key in ("images_per_class", "within_distance")}
        | {key: in_widths(own, key) for key in _ERRORS}
        for label, own in found.items()
    ]
    fixed_centers = "mmc" in numbers.names.values()
    return Table(
        "class-means",
        "Class means: mini-batches and centers",
        "Distance to the true class means of the training features (root mean square), in units of "
        "the mean distance of an image to its class mean (within class, in the loss's own space), "
        "to compare losses. Batch mean: of a class's images in one mini-batch, over 200 "
        "batches; expected: the same from the scatter and the images of a class alone. Centers: "
        "those that the loss keeps, n/a where it keeps none. A loss that took its class means or "
        "variances from the batch at hand would work with the error of the batch mean. Center "
        "loss averages batches into its centers, the Gaussian losses learn theirs as parameters "
        "over many batches: an error of the centers below that of the batch mean is what this "
        "memory gains. Above it, the centers lag behind the features, or are not drawn to the "
        "means alone: the classification term moves the centers of the Gaussian losses too. "
        + ("The centers of the Max-Mahalanobis loss are fixed: there the features do the moving. "
           if fixed_centers else ""),
        *lay_out(columns, made)[:2],
        [row for own in found.values() for row in own],
    )  # fmt: skip


def tuple_table(numbers: Numbers) -> Table | None:
    """Return how many pairs or triplets of a pair loss pull, and what they cost."""
    made: list[dict[str, Any]] = []
    data: list[dict[str, object]] = []
    for label in numbers.labels:
        logs = [log for log in numbers.run.training if log.get("label") == label]
        shares, curves = [], []
        for log in logs:
            curve = [p for p in log.get("curve") or [] if p.get("tuples") is not None]
            spent = [p["tuple_seconds"] for p in curve if p.get("tuple_seconds") is not None]
            if spent and log.get("seconds"):
                shares.append(sum(spent) / float(log["seconds"]))
            curves += [curve] if curve else []
            place = {"label": label, "seed": log.get("seed")}
            data += [place | {key: point.get(key) for key in _OF_EPOCH} for point in curve]
        if curves:
            made.append({
                "label": label,
                "first": mean([curve[0] for curve in curves], "tuples"),
                "last": mean([curve[-1] for curve in curves], "tuples"),
                "time": sum(shares) / len(shares) if shares else None,
            })  # fmt: skip
    if not made:
        return None
    columns = [
        Column("loss", "label"),
        Column("per step, first epoch", "first", words=significant),
        Column("per step, last epoch", "last", words=significant),
        Column("time in the loss", "time", words=_share_words),
    ]
    return Table(
        "tuples",
        "Pairs and triplets in training",
        "Pairs or triplets of a batch with a non-zero term, mean per step of the first and of the "
        "last epoch; time: share of the training time spent in the loss. Few tuples at the end "
        "mean that most batches no longer teach anything.",
        *lay_out(columns, made)[:2],
        data,
    )
