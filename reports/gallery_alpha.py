"""The effect of alpha on the margin, drawn when the run has a Gaussian-mixture loss."""

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.alpha import Measured, draw_alpha, margin_share, own_boundary
from robustloss.reports.explained import loss_spec, rows
from robustloss.reports.gallery_boundary import nearest_centers
from robustloss.reports.gallery_embedding import SPACE
from robustloss.reports.numbers import Numbers
from robustloss.reports.stored_space import Space
from robustloss.reports.views import Shown

ALPHAS = (0.0, 0.1, 0.3, 1.0)


def alpha_of(numbers: Numbers, label: str) -> float | None:
    """Alpha of a GM or L-GM loss; None for any other."""
    name = numbers.names.get(label)
    if name == "gm":
        return 0.0
    if name == "lgm":
        return float((loss_spec(numbers, label).get("params") or {}).get("alpha", 1.0))
    return None


def add_alpha(album: Album, numbers: Numbers, shown: Shown) -> None:
    """Figure 2 of the paper, on the nearest pair of centers of the run's own L-GM."""
    known = [
        (label, alpha, found)
        for label in numbers.labels
        if (alpha := alpha_of(numbers, label)) is not None
        and isinstance(found := shown.space(label), Space)
        and nearest_centers(found) is not None
    ]
    if not known:
        return
    label, own, found = max(known, key=lambda entry: entry[1])
    alphas = sorted({*ALPHAS, *(alpha for _, alpha, _ in known)})
    points, classes = _points(found)
    measured = [m for k, alpha, _ in known if (m := _measured(numbers, k, alpha))]
    pair = nearest_centers(found)
    assert pair is not None
    album.add(
        "alpha",
        draw_alpha(alphas, points, classes, measured),
        [{"kind": "closed form", "label": "", "alpha": a, "boundary": own_boundary(a),
          "margin_share": float(margin_share(a)), "low": None, "high": None} for a in alphas]
        + [{"kind": "measured", "label": m.label, "alpha": m.alpha, "boundary": None,
            "margin_share": m.nearest, "low": m.low, "high": m.high} for m in measured],
        title="What alpha does to the margin",
        caption=f"Figure 2 of Wan et al. 2018, on the nearest pair of centers of {label} (classes "
        f"{pair[0]} and {pair[1]}, {pair[2]:.3g} apart, alpha {own:g}). Left: training calls the "
        "two classes equal where (1+alpha) times the squared distance to the true center is that "
        "to the other: a straight line at alpha 0, else a circle around the true center "
        "(Apollonius), tighter with every alpha. The margin is the gap between a solid and a "
        "dashed line of one colour. Right: its width on the line between the centers; measured "
        "points are read off the trained heads between the class means of the training images, so "
        "they leave the curve where those means are not the centers, or where variances are "
        "learned. " + ("Dots are the training images of the two classes. " if len(points) else "")
        + shown.words([label]),
        alt="Circles around two centers for several alpha, and the margin as a share of their "
        "distance: "
        + ", ".join(f"{100 * float(margin_share(a)):.1f} % at alpha {a:g}" for a in alphas)
        + "".join(f"; measured {m.label} {100 * m.nearest:.1f} %" for m in measured) + ".",
        section=SPACE,
    )  # fmt: skip


def _points(known: Space) -> tuple[np.ndarray, np.ndarray]:
    """Training images of the two classes in the frame of their centers; none beyond 2-D."""
    pair = nearest_centers(known)
    if pair is None or known.vectors is None or known.train is None or known.train.shape[1] != 2:
        return np.zeros((0, 2)), np.zeros(0, int)
    assert known.train_labels is not None
    a, b, length = pair
    some = np.isin(known.train_labels, (a, b))
    along = (known.vectors[b] - known.vectors[a]).astype(float) / length
    frame = np.stack([along, [-along[1], along[0]]], 1) / length
    points = (known.train[some] - known.vectors[a]) @ frame
    return points, (known.train_labels[some] == b).astype(int)


def _measured(numbers: Numbers, label: str, alpha: float) -> Measured | None:
    found = [r for r in rows(numbers, "margins", label) if r["margin"] is not None]
    if not found:
        return None
    shares = [r["margin"] / r["length"] for r in found]
    nearest = [
        min((r for r in found if r["seed"] == seed), key=lambda r: r["length"])
        for seed in sorted({r["seed"] for r in found})
    ]
    at = float(np.mean([r["margin"] / r["length"] for r in nearest]))
    return Measured(label, alpha, at, min(shares), max(shares))
