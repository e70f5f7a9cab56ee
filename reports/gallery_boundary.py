"""Boundaries and margins of 2-D runs, measured and in closed form."""

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.boundary import Frontier, draw_frontiers
from robustloss.reports.explained import rows
from robustloss.reports.gallery_embedding import SPACE
from robustloss.reports.numbers import Numbers
from robustloss.reports.stored_space import Boundary, Space
from robustloss.reports.views import Shown
from robustloss.reports.words import short


def add_boundaries(album: Album, numbers: Numbers, shown: Shown) -> None:
    """One panel per loss: the two nearest classes, the boundary between them, the margin."""
    cells = [_frontier(numbers, shown, label) for label in numbers.labels]
    if all(cell.gap for cell in cells):
        return
    album.add(
        "boundaries",
        draw_frontiers(cells, numbers.classes or 1),
        _arrays(cells, shown, numbers.labels),
        title="Boundary and margin between the two nearest classes",
        caption="Training images of the two classes whose means are nearest, in the space of each "
        "loss. Solid: where the margin-free logits of the two are equal, which is where the "
        "prediction changes if no third class is more likely. Dashed, in the colour of a class: "
        "where training, which takes the margin off the true class, calls the two equal; an image "
        "of that class beyond it is still pushed. Between the two dashed lines, shaded, lies the "
        "margin; without one all three lines are one. Magenta dots: the closed form of the same "
        "lines, computed from the class vectors alone; it must lie on them. Margin: measured "
        "along the line between the two class means, where the closed form of a loss exists "
        f"beside it. Own scale in every panel. {shown.words(numbers.labels)}",
        alt="Scatter plots of the two nearest classes of each loss with the decision boundary and "
        "the boundaries of training. "
        + "; ".join(f"{c.title}: {c.note}".replace("\n", ", ") for c in cells if not c.gap),
        section=SPACE,
    )


def _frontier(numbers: Numbers, shown: Shown, label: str) -> Frontier:
    known = shown.space(label)
    if isinstance(known, str):
        return Frontier(label, gap=known)
    if known.boundary is None:
        return Frontier(label, gap="no boundaries stored")
    if known.train is None or known.train_labels is None:
        return Frontier(label, gap="no training features stored")
    some = np.isin(known.train_labels, known.boundary.pair)
    note = _note(numbers, label, shown.cells[label].seed, known.boundary)
    return Frontier(label, known.boundary, known.train[some], known.train_labels[some], note)


def _note(numbers: Numbers, label: str, seed: int, boundary: Boundary) -> str:
    a, b = boundary.pair
    text = f"classes {a} and {b}"
    found = [
        r for r in rows(numbers, "margins", label, seed=seed)
        if {r["class_a"], r["class_b"]} == {a, b}
    ]  # fmt: skip
    if not found or found[0]["margin"] is None:
        return text + "\nno margin on the line"
    closed = found[0]["closed_margin"]
    beside = "no closed form" if closed is None else f"closed form {short(closed)}"
    return f"{text}\nmargin {short(found[0]['margin'])}, {beside}"


def _arrays(cells: list[Frontier], shown: Shown, labels: list[str]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for cell, label in zip(cells, labels, strict=True):
        if cell.boundary is None or cell.gap:
            continue
        name, lines = shown.cells[label].slug, cell.boundary
        arrays |= {
            f"{name}:pair": np.array(lines.pair), f"{name}:x": lines.x, f"{name}:y": lines.y,
            f"{name}:free": lines.free, f"{name}:a": lines.own[0], f"{name}:b": lines.own[1],
            f"{name}:points": cell.points, f"{name}:labels": cell.labels,
        }  # fmt: skip
        if lines.closed is not None:
            parts = zip(("free", "a", "b"), lines.closed, strict=True)
            arrays |= {f"{name}:closed_{k}": v for k, v in parts}
    return arrays


def nearest_centers(known: Space) -> tuple[int, int, float] | None:
    """The nearest pair of centers and its distance; None without centers."""
    if known.vectors is None or not known.are_centers:
        return None
    points = np.asarray(known.vectors, float)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    distance[np.tril_indices(len(points))] = np.inf
    a, b = np.unravel_index(distance.argmin(), distance.shape)
    return int(a), int(b), float(distance[a, b])
