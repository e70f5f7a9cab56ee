"""Where training and test images lie in the space of each loss, and where they started."""

from collections.abc import Iterator, Sequence

import numpy as np

from robustloss.reports.chapters.space.embedding_drawing import (
    Cloud,
    Embedding,
    draw_embeddings,
    plane,
)
from robustloss.reports.drawing.album import Plot, by_model
from robustloss.reports.drawing.style import columns_of
from robustloss.reports.reading.facts import class_key
from robustloss.reports.reading.feature_space import MOST_POINTS, Space, evenly
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown, View
from robustloss.reports.words import listed, short

BANDS = ("training images", "test images")
MOST_STARTS = 4


def plot_embedding(numbers: Numbers) -> Iterator[Plot]:
    """Draw Figure 1 of the paper: where the clean images lie in feature space."""
    shown = numbers.shown
    cells = [_embedding(label, shown) for label in numbers.labels]
    drawn = [cell for cell in cells if not all(cloud.gap for cloud in cell.clouds)]
    if not drawn:
        return
    how = "The axes are the two features."
    if all(cell.explained is not None for cell in drawn):
        how = (
            "The axes are the two leading principal components of the test features and show only "
            "a part of the variance (“seen”): clusters that overlap here may be apart."
        )
    yield Plot(
        "embedding",
        draw_embeddings(cells, numbers.classes or 1, BANDS),
        by_model({shown.cells[cell.title].slug: cell.arrays() for cell in drawn}),
        title="Where do the classes lie?",
        caption="Clean images in the feature space of each loss, coloured by their class: training "
        f"images above, test images below. {how} Compact clusters far apart are what the center "
        "and Gaussian losses aim for. A ring marks a mistake on a test image, a cross the center "
        "of a class, a line from the origin the direction of its weight. Every loss has its own "
        "scale; 95 % of its features are no longer than the norm above the panel. As Figure 1 of "
        f"Wan et al. 2018, with at most {MOST_POINTS:,} images a panel. "
        f"{class_key(numbers)}{shown.words(numbers.labels)}",
        alt="Scatter plots of the clean features, training images above test images, one column "
        "per loss, coloured by class. "
        + "; ".join(f"{cell.title}: {cell.clouds[1].note}" for cell in drawn),
    )


def _embedding(label: str, shown: Shown) -> Embedding:
    """Return a loss in the plane of its test images."""
    clean, known = shown.clean(label), shown.space(label)
    if isinstance(clean, str) or clean.features is None:
        gap = clean if isinstance(clean, str) else "no features stored"
        return Embedding(label, [Cloud(gap=gap)] * 2)
    view, reach = plane(clean.features), _reach(clean.features)
    some = evenly(clean.n, MOST_POINTS)
    test = Cloud(
        view(clean.features[some]), clean.labels[some], clean.wrong[some],
        f"error {100 * clean.wrong.mean():.2f} %, norm to {short(reach)}",
    )  # fmt: skip
    if isinstance(known, str):
        return Embedding(label, [Cloud(gap=known), test], explained=view.explained)
    train = Cloud(gap="no training features stored")
    if known.train is not None and known.train_labels is not None:
        seen = "" if view.explained is None else f"{100 * sum(view.explained):.0f} % seen, "
        note = f"{seen}norm to {short(_reach(known.train))}"
        train = Cloud(view(known.train), known.train_labels, note=note)
    centers = rays = None
    if known.vectors is not None and known.are_centers:
        centers = view(known.vectors)
    elif known.vectors is not None:  # directions: lines from the origin
        lengths = np.maximum(np.linalg.norm(known.vectors, axis=1, keepdims=True), 1e-12)
        ends = view(reach * known.vectors / lengths)
        start = view(np.zeros((1, known.vectors.shape[1])))
        rays = np.stack([np.repeat(start, len(ends), 0), ends], 1)
    return Embedding(label, [train, test], centers, rays, view.explained)


def _reach(features: np.ndarray) -> float:
    """Return the norm that 95 % of the features do not exceed."""
    return float(np.quantile(np.linalg.norm(np.asarray(features, float), axis=1), 0.95))


def same_start(shown: Shown, labels: Sequence[str]) -> list[list[str]]:
    """Return the losses in groups whose untrained networks have the same features bit for bit.

    Args:
        shown: The models.
        labels: Of losses; those without stored features are left out.
    """
    groups: list[tuple[np.ndarray, list[str]]] = []
    for label in labels:
        known = shown.space(label)
        if isinstance(known, str) or known.untrained is None:
            continue
        for features, members in groups:
            if np.array_equal(features, known.untrained):
                members.append(label)
                break
        else:
            groups.append((known.untrained, [label]))
    return [members for _, members in groups]


def plot_untrained(numbers: Numbers) -> Iterator[Plot]:
    """Draw the untrained network's features beside those that training made of them."""
    shown = numbers.shown
    groups = same_start(shown, numbers.labels)
    if not groups:
        return
    alone = len(groups) == 1
    cells: list[Embedding] = []
    arrays: dict[str, dict[str, np.ndarray | None]] = {}
    for number, members in enumerate(groups[:MOST_STARTS], 1):
        known = shown.space(members[0])
        assert isinstance(known, Space)
        assert known.untrained is not None
        assert known.untrained_labels is not None
        note = f"at the start, norm to {short(_reach(known.untrained))}"
        points = plane(known.untrained)(known.untrained)
        before = Cloud(points, known.untrained_labels, note=note)
        title = f"untrained (all {len(members)})" if alone else f"untrained {number}"
        cells.append(Embedding(title, [before]))
        cells += [Embedding(k, [_trained(shown, k)]) for k in members[: 4 if alone else 1]]
        arrays[str(number)] = {"points": before.points, "labels": before.labels}
    columns = min(len(cells), 5)
    yield Plot(
        "untrained",
        draw_embeddings(cells, numbers.classes or 1, ["test images"],
                        columns=columns if alone else columns_of(columns)),
        by_model(arrays),
        title="What did training change?",
        caption="Features of clean test images before training and after it. Classes that are "
        f"apart before it were not learned to be so. {_start_words(groups)} Every panel has its "
        "own scale and, in more than two dimensions, its own principal plane. "
        f"{class_key(numbers)}{shown.words(numbers.labels)}",
        alt=f"Scatter plots of the untrained and the trained features. {_start_words(groups)}",
    )  # fmt: skip


def _start_words(groups: Sequence[Sequence[str]]) -> str:
    if len(groups) == 1 and len(groups[0]) == 1:
        return f"One network: {groups[0][0]}."
    if len(groups) == 1:
        return (
            f"Checked: all {len(groups[0])} losses start from the same network, their untrained "
            "features are equal bit for bit."
        )
    parts = [f"{i + 1}: {listed(list(members))}" for i, members in enumerate(groups)]
    more = f" (the first {MOST_STARTS} are drawn)" if len(groups) > MOST_STARTS else ""
    return f"The losses start from {len(groups)} different networks{more}: {'; '.join(parts)}."


def _trained(shown: Shown, label: str) -> Cloud:
    """Return as many test images as there are of the untrained network, after training."""
    clean, known = shown.clean(label), shown.space(label)
    if not isinstance(clean, View) or clean.features is None:
        return Cloud(gap="no features stored")
    assert isinstance(known, Space)
    some = evenly(clean.n, len(known.untrained) if known.untrained is not None else MOST_POINTS)
    note = f"trained, norm to {short(_reach(clean.features))}"
    view = plane(clean.features)
    return Cloud(view(clean.features[some]), clean.labels[some], clean.wrong[some], note)
