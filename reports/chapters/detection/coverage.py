"""Coverage against error: what the detector buys, and at what price in accepted images."""

from collections.abc import Mapping, Sequence

import numpy as np

from robustloss.metrics.intervals import wilson
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.curves import Line, Panel, curve_numbers, draw_curves
from robustloss.reports.drawing.style import CROWD, Look
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

LEAST = 0.02  # of so few images the error says nothing
POINTS = 60


def add_coverage(album: Album, scene: Scene, looks: Mapping[str, Look]) -> None:
    """Error among the accepted images as the detector rejects the lowest scores."""
    passes = [("clean images", [(k, scene.shown.clean(k)) for k in scene.labels])]
    passes += [(eps_name(e), [(k, scene.views[(k, e)]) for k in scene.labels]) for e in scene.eps]
    grid = [
        Panel(
            title,
            "images accepted",
            "error of those" if i % 2 == 0 else "",
            lines := [_line(label, view) for label, view in views if isinstance(view, View)],
            y_range=_heights(lines),
            percent=True,
            x_percent=True,
        )
        for i, (title, views) in enumerate(passes)
    ]
    if not any(panel.lines for panel in grid[1:]):
        return
    ends = [
        f"{panel.title}: " + ", ".join(f"{k.label} {_at(k, 50):.3g} %" for k in panel.lines)
        for panel in grid
        if panel.lines
    ]
    band = (
        ""
        if len(scene.labels) > CROWD
        else "The band is a pointwise 95 % Wilson interval over images, for the order as it is; "
        "of few images it may leave the frame. "
    )
    album.add(
        f"coverage-{scene.attack.slug}",
        draw_curves(grid, looks, columns=2),
        curve_numbers(grid),
        title="What is gained by rejecting: error against coverage",
        caption="The detector sorts the images by log-likelihood at the predicted class and "
        "accepts the highest: the further to the left, the more are rejected. The curve is the "
        "error among the accepted ones (clean mistakes count). A good detector falls towards the "
        "left; a flat curve means that it rejects right and wrong answers alike, and one that "
        "rises to the left that wrong answers look more typical than right ones. All images of a "
        "frame are attacked, except in the first. Each frame has its own vertical axis. "
        f"{band}{scene.words()}",
        alt="Line charts of the error among accepted images against the share accepted. Error of "
        f"the half with the highest likelihood, {'; '.join(ends)}.",
        section=scene.attack.label,
    )


def _heights(lines: Sequence[Line]) -> tuple[float, float]:
    """The curves decide, not the wide bands of the first few images; 0 is always in sight."""
    top = max((y for line in lines for y in line.y), default=1.0)
    top = min(1.25 * top, 102.0) or 1.0
    return -0.03 * top, top


def _line(label: str, view: View) -> Line:
    coverage, wrong = risk(view.score, view.wrong)
    at = thinned(coverage)
    accepted = np.rint(coverage[at] * view.n).astype(int)
    bounds = [wilson(int(w), int(n)) for w, n in zip(wrong[at], accepted, strict=True)]
    share = 100.0 * wrong[at] / accepted
    low, high = (tuple(100.0 * b[i] for b in bounds) for i in (0, 1))
    return Line(label, tuple(100.0 * coverage[at]), tuple(share), low, high)


def risk(scores: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Operating points of accepting the highest scores; ties are accepted together.

    Args:
        scores: (N,) higher is accepted first.
        wrong: (N,) bool.

    Returns:
        Share accepted (U,), rising to 1, and how many of those are wrong (U,).

    Source: El-Yaniv and Wiener 2010.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), scores.size - 1)
    return (last + 1) / scores.size, np.cumsum(wrong[order])[last]


def thinned(coverage: np.ndarray) -> np.ndarray:
    """Indices of at most ``POINTS`` operating points, spread evenly, the last always among them."""
    wanted = np.linspace(LEAST, 1.0, POINTS)
    places = np.minimum(np.searchsorted(coverage, wanted - 1e-12), coverage.size - 1)
    return np.unique(places)


def _at(line: Line, coverage: float) -> float:
    place = min(int(np.searchsorted(line.x, coverage)), len(line.x) - 1)
    return line.y[place]
