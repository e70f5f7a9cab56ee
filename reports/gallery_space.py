"""The likelihood map of a 2-D feature space, with attacked images on it."""

from collections.abc import Sequence

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.explained import class_key
from robustloss.reports.likelihood_map import LikelihoodMap, draw_likelihood_maps
from robustloss.reports.scene import Scene
from robustloss.reports.views import Reference, Shown, View

ARROWS = 16


def add_likelihood_map(album: Album, scene: Scene) -> None:
    """Figure 1f of the paper, for every loss with 2-D features."""
    shown = scene.shown
    if not any(cell.feature_dim == 2 for cell in shown.cells.values()):
        return
    middle = scene.eps[(len(scene.eps) - 1) // 2]
    cells = [_map(label, scene.views[(label, middle)], shown) for label in scene.labels]
    if all(cell.gap for cell in cells):
        return
    album.add(
        f"likelihood-map-{scene.attack.slug}",
        draw_likelihood_maps(cells, scene.numbers.classes or 1),
        _map_arrays(cells, shown, scene.labels),
        title=f"Where attacked images land (eps {middle:.4g})",
        caption="Log-likelihood of the predicted class over the 2-D feature space (Figure 1f of "
        "Wan et al. 2018); brighter is more typical of clean data. 1, 5 and 50 % of clean "
        "validation images lie on the darker side of the white contours: a detector with 5 % "
        "false alarms rejects whatever lands on the darker side of the dashed one. Arrows lead "
        "from clean images (dots) to the same images under attack (diamonds, in the colour of "
        "the class they are taken for): the first successful attacks, at most two from each "
        "class. A diamond in a dark region is a mistake that the likelihood gives away. Each "
        f"panel has its own scale in nats. {class_key(scene.numbers)}{scene.words()}",
        alt="Maps of the log-likelihood over the 2-D feature space, one per loss, with arrows "
        "from clean to attacked images. "
        + "; ".join(f"{cell.title}: {cell.note}" for cell in cells if not cell.gap),
        section=scene.attack.label,
    )


def _map(label: str, attacked: View | str, shown: Shown) -> LikelihoodMap:
    clean, known = shown.clean(label), shown.reference(label)
    for part in (clean, attacked, known):
        if isinstance(part, str):
            return LikelihoodMap(label, gap=part)
    assert isinstance(clean, View)
    assert isinstance(attacked, View)
    assert isinstance(known, Reference)
    if known.grid is None or clean.features is None or attacked.features is None:
        return LikelihoodMap(label, gap="features are not 2-D")
    some = _first_successes(clean, attacked)
    x, y, values = known.grid
    ends = attacked.features[some]
    inside = (ends >= [x[0], y[0]]).all(1) & (ends <= [x[-1], y[-1]]).all(1)
    passed = int((attacked.score[some] >= known.threshold).sum())
    note = f"{passed} of {len(some)} arrows end unnoticed" if len(some) else "no successful attack"
    if not inside.all():
        note += f"; {int((~inside).sum())} outside"
    return LikelihoodMap(
        label,
        x,
        y,
        values,
        known.levels,
        np.quantile(clean.features, (0.005, 0.995), axis=0),
        clean.features[some],
        ends,
        clean.predictions[some],
        attacked.predictions[some],
        note,
    )


def _first_successes(clean: View, attacked: View) -> np.ndarray:
    """Positions of the first successful attacks, at most two from each class."""
    found = np.flatnonzero(~clean.wrong & attacked.wrong)
    rank = np.zeros(len(found), int)
    for k in np.unique(clean.labels[found]):
        of_class = clean.labels[found] == k
        rank[of_class] = np.arange(of_class.sum())
    order = np.lexsort((found, rank))
    return np.sort(found[order[rank[order] < 2]][:ARROWS])


def _map_arrays(
    cells: Sequence[LikelihoodMap], shown: Shown, labels: Sequence[str]
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for cell, label in zip(cells, labels, strict=True):
        if not cell.gap:
            name = shown.cells[label].slug
            arrays |= {
                f"{name}:x": cell.x, f"{name}:y": cell.y,
                f"{name}:log_likelihood": cell.values.astype(np.float32),
                f"{name}:contours": np.asarray(cell.levels), f"{name}:clean": cell.clean,
                f"{name}:attacked": cell.attacked, f"{name}:clean_class": cell.clean_class,
                f"{name}:attacked_class": cell.attacked_class,
            }  # fmt: skip
    return arrays
