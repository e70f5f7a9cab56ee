"""Where training and test images lie in the space of each loss, and where they started."""

from collections.abc import Sequence

import numpy as np

from robustloss.reports.chapters.space.embedding_drawing import (
    Cloud,
    Embedding,
    Plane,
    draw_embeddings,
    plane,
)
from robustloss.reports.drawing.album import SPACE, Album
from robustloss.reports.drawing.style import columns_of
from robustloss.reports.reading.facts import class_key
from robustloss.reports.reading.feature_space import MOST_POINTS, Space, evenly
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown, View
from robustloss.reports.words import listed, short

BANDS = ("training images", "test images")


def add_embedding(album: Album, numbers: Numbers, shown: Shown) -> None:
    """Figure 1 of the paper: where the clean images lie in feature space."""
    cells = [_embedding(label, shown) for label in numbers.labels]
    if not any(_drawn(cell) for cell in cells):
        return
    plain = any(cell.explained is None for cell in cells if _drawn(cell))
    how = (
        "the two features themselves, equal scale on both axes"
        if plain
        else "the two leading principal components of the test features, so most of the space is "
        "not seen (“seen” is the share of the variance that is): clusters that overlap here may be "
        "apart in it"
    )
    album.add(
        "embedding",
        draw_embeddings(cells, numbers.classes or 1, BANDS),
        _arrays(cells, shown, numbers.labels),
        title="Feature space",
        caption="Clean images in the space that each loss shaped (Figure 1 of Wan et al. 2018): "
        f"{how}. Above training images, below test images, on the same axes; every loss has its "
        "own scale, so read the numbers on the axes and the norm (95 % of the images have a "
        "feature no longer than this). Colour is the true class; a ring marks a mistake, which is "
        "known for test images only. A cross is the center of a class, a line from the origin the "
        "direction of its weight, drawn as long as that norm. Compact, well separated clusters are "
        f"what the center and Gaussian losses aim for. At most {MOST_POINTS:,} evenly chosen "
        f"images of each kind are drawn. {class_key(numbers)}{shown.words(numbers.labels)}",
        alt="Scatter plots of the clean features, training images above test images, one column "
        "per loss, coloured by class. "
        + "; ".join(f"{c.title}: {c.clouds[1].note}" for c in cells if _drawn(c)),
        section=SPACE,
    )


def _drawn(cell: Embedding) -> bool:
    return any(not cloud.gap for cloud in cell.clouds)


def _embedding(label: str, shown: Shown) -> Embedding:
    clean, known = shown.clean(label), shown.space(label)
    if isinstance(clean, str) or clean.features is None:
        gap = clean if isinstance(clean, str) else "no features stored"
        return Embedding(label, [Cloud(gap=gap)] * 2)
    view = plane(clean.features)
    some = evenly(clean.n, MOST_POINTS)
    reach = _reach(clean.features)
    test = Cloud(
        view(clean.features[some]), clean.labels[some], clean.wrong[some],
        f"error {100 * clean.wrong.mean():.2f} %, norm to {short(reach)}",
    )  # fmt: skip
    if isinstance(known, str):
        return Embedding(label, [Cloud(gap=known), test], explained=view.explained)
    return Embedding(
        label, [_train(known, view), test], *_vectors(known, view, reach), view.explained
    )


def _train(known: Space, view: Plane) -> Cloud:
    if known.train is None or known.train_labels is None:
        return Cloud(gap="no training features stored")
    seen = "" if view.explained is None else f"{100 * sum(view.explained):.0f} % seen, "
    note = f"{seen}norm to {short(_reach(known.train))}"
    return Cloud(view(known.train), known.train_labels, note=note)


def _reach(features: np.ndarray) -> float:
    """The norm that 95 % of the features do not exceed."""
    return float(np.quantile(np.linalg.norm(np.asarray(features, float), axis=1), 0.95))


def _vectors(
    known: Space, view: Plane, reach: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Class vectors as points, or as lines from the origin."""
    if known.vectors is None:
        return None, None
    if known.are_centers:
        return view(known.vectors), None
    lengths = np.maximum(np.linalg.norm(known.vectors, axis=1, keepdims=True), 1e-12)
    ends = view(reach * known.vectors / lengths)
    start = view(np.zeros((1, known.vectors.shape[1])))
    return None, np.stack([np.repeat(start, len(ends), 0), ends], 1)


def _arrays(
    cells: Sequence[Embedding], shown: Shown, labels: Sequence[str]
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for cell, label in zip(cells, labels, strict=True):
        if not _drawn(cell):
            continue
        name = shown.cells[label].slug
        train, test = cell.clouds
        assert test.wrong is not None
        arrays |= {f"{name}:points": test.points, f"{name}:labels": test.labels,
                   f"{name}:wrong": test.wrong}  # fmt: skip
        if not train.gap:
            arrays |= {f"{name}:train_points": train.points, f"{name}:train_labels": train.labels}
        for key, part in (("centers", cell.centers), ("rays", cell.rays)):
            if part is not None:
                arrays[f"{name}:{key}"] = part
    return arrays


def same_start(shown: Shown, labels: Sequence[str]) -> list[list[str]]:
    """Losses by their untrained network: those with bit for bit the same features together."""
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


MOST_STARTS = 4


def add_untrained(album: Album, numbers: Numbers, shown: Shown) -> None:
    """The untrained network's features beside those that training made of them."""
    groups = same_start(shown, numbers.labels)
    if not groups:
        return
    cells: list[Embedding] = []
    arrays: dict[str, np.ndarray] = {}
    for number, members in enumerate(groups[:MOST_STARTS]):
        before = _untrained(shown, members[0])
        after = [_trained(shown, k) for k in members[: 4 if len(groups) == 1 else 1]]
        title = f"untrained (all {len(members)})" if len(groups) == 1 else f"untrained {number + 1}"
        cells += [Embedding(title, [before]), *after]
        arrays[f"{number + 1}:points"] = before.points
        arrays[f"{number + 1}:labels"] = before.labels
    album.add(
        "untrained",
        draw_embeddings(cells, numbers.classes or 1, ["test images"],
                        columns=columns_of(min(len(cells), 5)) if len(groups) > 1
                        else min(len(cells), 5)),
        arrays,
        title="Before and after training",
        caption="Clean test images through the network as it was initialised, beside what training "
        f"made of them. {_start_words(groups)} Own scale in every panel; in more than two "
        "dimensions each panel shows its own principal plane. What is apart on the right and not "
        "on the left was learned; what is already apart on the left was not. "
        f"{class_key(numbers)}{shown.words(numbers.labels)}",
        alt=f"Scatter plots of the untrained and the trained features. {_start_words(groups)}",
        section=SPACE,
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


def _untrained(shown: Shown, label: str) -> Cloud:
    known = shown.space(label)
    assert isinstance(known, Space)
    assert known.untrained is not None
    assert known.untrained_labels is not None
    view = plane(known.untrained)
    note = f"at the start, norm to {short(_reach(known.untrained))}"
    return Cloud(view(known.untrained), known.untrained_labels, note=note)


def _trained(shown: Shown, label: str) -> Embedding:
    clean = shown.clean(label)
    if not isinstance(clean, View) or clean.features is None:
        return Embedding(label, [Cloud(gap="no features stored")])
    view, known = plane(clean.features), shown.space(label)
    assert isinstance(known, Space)
    some = evenly(clean.n, len(known.untrained) if known.untrained is not None else MOST_POINTS)
    cloud = Cloud(view(clean.features[some]), clean.labels[some], clean.wrong[some],
                  f"trained, norm to {short(_reach(clean.features))}")  # fmt: skip
    return Embedding(label, [cloud])
