"""Figure 4 of the paper and the ROC curves: does the likelihood tell attacked from clean?"""

import math
from collections.abc import Mapping

import numpy as np

from robustloss.metrics import auroc, rejected_fraction, roc_curve
from robustloss.reports.album import Album
from robustloss.reports.histograms import Bins, pooled_bins
from robustloss.reports.populations import (
    FEW,
    Populations,
    draw_populations,
    population_numbers,
    words_of,
)
from robustloss.reports.roc import Roc, at_grid, draw_rocs, fpr_grid, roc_numbers
from robustloss.reports.roc_band import RESAMPLES, image_resamples, roc_band
from robustloss.reports.scene import Scene, eps_name
from robustloss.reports.style import CROWD, Look
from robustloss.reports.views import Reference, View

BANDS = 5  # losses up to which ROC curves in one frame carry bands
_EMPTY = Bins(np.array([0.0, 1.0]), below=False, above=False)


def add_likelihoods(album: Album, scene: Scene) -> None:
    """Likelihood of clean, failed and successful images over bins shared within a loss."""
    cells = [[_populations(scene, k, e) for e in scene.eps] for k in scene.labels]
    if all(cell.gap for row in cells for cell in row):
        return
    columns = [eps_name(e) for e in scene.eps]
    areas = [
        f"{label} at {column}: {'; '.join(words_of(cell))}"
        for label, row in zip(scene.labels, cells, strict=True)
        for column, cell in zip(columns, row, strict=True)
        if not cell.gap
    ]
    album.add(
        f"likelihood-{scene.attack.slug}",
        draw_populations(scene.labels, columns, cells, x_label="log-likelihood (nats)"),
        population_numbers(scene.labels, columns, cells),
        title="Likelihood of clean, failed and successful images",
        caption="Log-likelihood of the features at the predicted class (Figure 4 of Wan et al. "
        "2018, which plots its exponential). Only images that are classified correctly before "
        "the attack: as they were (clean), and after it, those that stayed correct (attack "
        "failed) and those that became wrong (attack successful); their numbers stand over each "
        "frame. Each histogram adds up to 100 % of its own population; of fewer than "
        f"{FEW} images each is one stroke. The less the histogram of the successful overlaps "
        "the clean one, the better the likelihood gives the attack away; if the failed ones move "
        "as far, the likelihood sees the perturbation and not the mistake. The dashed line rejects "
        "5 % of clean validation images: “caught” is the share left of it. AUROC is against the "
        "clean images. Bins are shared within a row; the wide bins at the ends are open. For a "
        f"loss without a density, such as softmax, the quantity is the logit. {scene.words()}",
        alt="Grid of overlaid histograms, losses by eps, of the log-likelihood of clean images "
        f"and of images on which the attack failed or succeeded. {'. '.join(areas)}.",
        section=scene.attack.label,
    )


def _populations(scene: Scene, label: str, eps: float) -> Populations:
    clean, known = scene.shown.clean(label), scene.shown.reference(label)
    attacked = scene.views[(label, eps)]
    for part in (clean, attacked, known):
        if isinstance(part, str):
            return Populations(_EMPTY, np.zeros(0), np.zeros(0), np.zeros(0), gap=part)
    assert isinstance(clean, View)
    assert isinstance(attacked, View)
    assert isinstance(known, Reference)
    if not np.array_equal(clean.index, attacked.index):
        return Populations(
            _EMPTY, np.zeros(0), np.zeros(0), np.zeros(0), gap="clean and attacked images differ"
        )
    row = [scene.views[(label, e)] for e in scene.eps]
    pools = [clean.score, *(v.score for v in row if isinstance(v, View))]
    right = ~clean.wrong
    typical = clean.score[right]
    failed, fooled = (attacked.score[right & hit] for hit in (~attacked.wrong, attacked.wrong))
    areas = [auroc(typical, group) for group in (failed, fooled)]
    caught = [rejected_fraction(group, known.threshold) for group in (failed, fooled)]
    return Populations(
        pooled_bins(pools, around=clean.score), typical, failed, fooled,
        (areas[0], areas[1]), (caught[0], caught[1]),
        known.threshold if math.isfinite(known.threshold) else None,
    )  # fmt: skip


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
        f"{_band_words(scene)}{scene.words()}",
        alt=f"ROC curves by eps. AUROC at {'; '.join(areas)}.",
        section=scene.attack.label,
    )


def _band_words(scene: Scene) -> str:
    if len(scene.labels) > BANDS:
        return ""
    return (
        "The band is a pointwise 95 % interval of the share caught, from "
        f"{RESAMPLES} resamples of the test images, each drawn with its clean and its attacked "
        "score: at any one place of the axis, not of the whole curve at once, and about these "
        "images with this trained network, not about training seeds. "
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
            curves.append(
                Roc(label, grid, at_grid(fpr, tpr, grid), area, _band(scene, clean, attacked, grid))
            )
    return curves


def _band(
    scene: Scene, clean: View, attacked: View, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of few curves in a frame; more bands would hide each other."""
    if len(scene.labels) > BANDS or not np.array_equal(clean.index, attacked.index):
        return None
    return roc_band(clean.score, attacked.score, grid, image_resamples(clean.n))
