"""Coverage against error: what the detector buys, and at what price in accepted images."""

from collections.abc import Iterator

import numpy as np

from robustloss.metrics.intervals import wilson
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.curves import Line, Panel, curve_numbers, draw_curves
from robustloss.reports.drawing.style import CROWD, looks
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

LEAST = 0.02  # of so few images the error says nothing
POINTS = 60


def plot_coverage(scene: Scene) -> Iterator[Plot]:
    """Draw the error among the accepted images as the detector rejects the lowest scores."""
    passes = [("clean images", [(k, scene.shown.clean(k)) for k in scene.labels])]
    passes += [(eps_name(e), [(k, scene.views[k, e]) for k in scene.labels]) for e in scene.eps]
    grid: list[Panel] = []
    ends = []
    for title, views in passes:
        lines = [_line(label, view) for label, view in views if isinstance(view, View)]
        # the curves decide, not the wide bands of the first few images; 0 is always in sight
        highest = max((y for line in lines for y in line.y), default=1.0)
        top = min(1.25 * highest, 102.0) or 1.0
        y_label = "error of those" if len(grid) % 2 == 0 else ""
        grid.append(Panel(title, "images accepted", y_label, lines, (-0.03 * top, top),
                          percent=True, x_percent=True))  # fmt: skip
        halves = [line.y[min(int(np.searchsorted(line.x, 50)), len(line.x) - 1)] for line in lines]
        words = [f"{line.label} {half:.3g} %" for line, half in zip(lines, halves, strict=True)]
        ends += [f"{title}: {', '.join(words)}"] if lines else []
    if not any(panel.lines for panel in grid[1:]):
        return
    band = "Bands are pointwise 95 % Wilson intervals over images. "
    yield Plot(
        f"coverage-{scene.attack.slug}",
        draw_curves(grid, looks(scene.labels), columns=2),
        curve_numbers(grid),
        title="What is gained by rejecting: error against coverage",
        caption="Error among the accepted images, as the detector rejects more of the least likely "
        "(to the left). A good detector falls towards the left; a flat curve rejects right and "
        "wrong answers alike; one that rises to the left finds wrong answers more typical. All "
        "images of a frame are attacked, except in the first. Each frame has its own vertical "
        f"axis. {band if len(scene.labels) <= CROWD else ''}{scene.words()}",
        alt="Line charts of the error among accepted images against the share accepted. Error of "
        f"the half with the highest likelihood, {'; '.join(ends)}.",
    )


def _line(label: str, view: View) -> Line:
    coverage, wrong = risk(view.score, view.wrong)
    # at most so many points, spread evenly, the last always among them
    wanted = np.linspace(LEAST, 1.0, POINTS)
    at = np.unique(np.minimum(np.searchsorted(coverage, wanted - 1e-12), coverage.size - 1))
    accepted = np.rint(coverage[at] * view.n).astype(int)
    bounds = [wilson(int(w), int(n)) for w, n in zip(wrong[at], accepted, strict=True)]
    low, high = (tuple(100.0 * bound[end] for bound in bounds) for end in (0, 1))
    return Line(label, tuple(100.0 * coverage[at]), tuple(100.0 * wrong[at] / accepted), low, high)


def risk(scores: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the operating points of accepting the highest scores; ties are accepted together.

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
