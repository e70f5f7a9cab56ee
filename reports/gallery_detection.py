"""Figure 4 of the paper and the ROC curves: does the likelihood tell attacked from clean?"""

import math
from collections.abc import Mapping

import numpy as np

from reports.album import Album
from reports.histograms import (
    Bins,
    Histogram,
    HistogramGrid,
    draw_histograms,
    histogram_numbers,
    pooled_bins,
)
from reports.roc import Roc, at_grid, draw_rocs, fpr_grid, roc_numbers
from reports.scene import Scene, eps_name
from reports.style import CROWD, Look
from reports.views import Reference, View
from robustloss.metrics import auroc, roc_curve

_EMPTY = Bins(np.array([0.0, 1.0]), below=False, above=False)


def add_likelihoods(album: Album, scene: Scene) -> None:
    """Likelihood of clean and attacked images over bins shared within a loss."""
    cells = [[_likelihood_cell(scene, k, e) for e in scene.eps] for k in scene.labels]
    if all(cell.gap for row in cells for cell in row):
        return
    grid = HistogramGrid(
        rows=scene.labels,
        columns=[eps_name(e) for e in scene.eps],
        cells=cells,
        x_label="log-likelihood (nats)",
        y_label="share of images",
        names=("clean", "attacked"),
        stacked=False,
    )
    areas = [
        f"{label}: {', '.join(cell.notes[0] for cell in row if cell.notes)}"
        for label, row in zip(grid.rows, cells, strict=True)
        if any(cell.notes for cell in row)
    ]
    album.add(
        f"likelihood-{scene.attack.slug}",
        draw_histograms(grid),
        histogram_numbers(grid),
        title="Likelihood of clean and attacked images",
        caption="Log-likelihood of the features at the predicted class (Figure 4 of Wan et al. "
        "2018, which plots its exponential). The less the two histograms overlap, the better "
        "the likelihood gives the attack away. The dashed line rejects 5 % of clean validation "
        "images: “caught” is the share of attacked images left of it. Bins are shared within a "
        "row; the wide bins at the ends are open. For a loss without a density, such as "
        "softmax, the quantity is the logit. AUROC is over all attacked images. "
        f"{scene.words()}",
        alt="Grid of overlaid histograms, losses by eps, of the log-likelihood of clean and "
        f"attacked images. {'; '.join(areas)}.",
        section=scene.attack.label,
    )


def _likelihood_cell(scene: Scene, label: str, eps: float) -> Histogram:
    clean, known = scene.shown.clean(label), scene.shown.reference(label)
    attacked = scene.views[(label, eps)]
    for part in (clean, attacked, known):
        if isinstance(part, str):
            return Histogram(_EMPTY, np.zeros(1), np.zeros(1), gap=part)
    assert isinstance(clean, View)
    assert isinstance(attacked, View)
    assert isinstance(known, Reference)
    row = [scene.views[(label, e)] for e in scene.eps]
    pools = [clean.score, *(v.score for v in row if isinstance(v, View))]
    bins = pooled_bins(pools, around=clean.score)
    caught = 100 * float((attacked.score < known.threshold).mean())
    return Histogram(
        bins,
        bins.shares(clean.score, clean.n),
        bins.shares(attacked.score, attacked.n),
        [f"AUROC {auroc(clean.score, attacked.score):.3f}", f"caught {caught:.1f} %"],
        line=known.threshold if math.isfinite(known.threshold) else None,
    )


def add_rocs(album: Album, scene: Scene, looks: Mapping[str, Look]) -> None:
    """ROC of the likelihood detector for each eps, on a linear and a logarithmic axis."""
    columns = [(eps_name(e), _curves(scene, e)) for e in scene.eps]
    known = [curve for _, curves in columns for curve in curves]
    if not known:
        return
    smallest = min(float(curve.fpr[1]) for curve in known)
    lowest = min(0.01, 10.0 ** math.floor(math.log10(smallest) + 1e-9))
    areas = [
        f"{title}: " + ", ".join(f"{c.label} {c.auroc:.3f}" for c in curves)
        for title, curves in columns
        if curves
    ]
    album.add(
        f"roc-{scene.attack.slug}",
        draw_rocs(columns, looks, lowest),
        roc_numbers(columns),
        title="ROC of the likelihood detector",
        caption="Share of attacked images caught against share of clean images rejected, as the "
        f"threshold moves. {_axes_words(scene)} All attacked images count, also those that did not "
        "fool the network. "
        f"A curve under the dotted line means that attacked images look more typical. "
        f"{scene.words()}",
        alt=f"ROC curves by eps. AUROC at {'; '.join(areas)}.",
        section=scene.attack.label,
    )


def _axes_words(scene: Scene) -> str:
    if len(scene.labels) > CROWD:
        return (
            "One frame a loss, one line an eps with its AUROC; the axis of clean images rejected "
            "is logarithmic and shows the corner where a detector would really work, with lines at "
            "1 % and 5 %."
        )
    return (
        "Upper row: linear axis, the whole curve. Lower row: logarithmic axis, the corner where a "
        "detector would really work; markers sit at 1 % and 5 % of clean images rejected."
    )


def _curves(scene: Scene, eps: float) -> list[Roc]:
    curves = []
    for label in scene.labels:
        clean, attacked = scene.shown.clean(label), scene.views[(label, eps)]
        if isinstance(clean, View) and isinstance(attacked, View):
            fpr, tpr, _ = roc_curve(clean.score, attacked.score)
            grid = fpr_grid(clean.n)
            area = auroc(clean.score, attacked.score)
            curves.append(Roc(label, grid, at_grid(fpr, tpr, grid), area))
    return curves
