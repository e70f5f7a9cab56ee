"""Images of any origin against a model of a run: how many fool it, and are they allowed to?"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.data.images import Dataset
from robustloss.evaluation.passes import to_numpy
from robustloss.metrics.intervals import wilson
from robustloss.models.classifier import AnyClassifier
from robustloss.notation import NORM_NAMES, eps_text
from robustloss.runs.proof.findings import Finding, name_some
from robustloss.runs.proof.image_input import BroughtImages, ImagesError
from robustloss.runs.proof.outputs import count_images, count_outside, find_undecided, look_at


def check_brought(
    images: BroughtImages,
    model: AnyClassifier,
    dataset: Dataset,
    name: str,
    weights: str,
    *,
    norm: str | None,
    eps: float | None,
) -> tuple[list[Finding], dict[str, Any]]:
    """Show images to a model and say how many fool it.

    Args:
        images: As `open_brought` opened them.
        model: In eval mode, on its device.
        dataset: Of the run, loaded anew.
        name: Of the model, for the findings.
        weights: Digest of its weights.
        norm: Of the ball; None for what the images say.
        eps: Its radius; None for what the images say.

    Returns:
        The findings; and n, fooled, share, low, high, outside, see `Verification.fooled`.

    Raises:
        ImagesError: They cannot be images of the data.
    """
    if images.shape[1:] != dataset.test.shape:
        raise ImagesError(
            f"{images.path}: images (={images.shape}) must be (N, "
            f"{', '.join(map(str, dataset.test.shape))}), as those of {dataset.name}."
        )
    norm = norm or images.texts.get("norm")
    eps = images.eps if eps is None else eps
    if norm is not None and norm not in NORM_NAMES:
        raise ImagesError(f"{images.path}: norm (={norm}) must be one of {', '.join(NORM_NAMES)}.")
    positions = _find_positions(images, dataset)
    labels = images.arrays.get("labels")
    if labels is None:
        assert positions is not None
        labels = to_numpy(dataset.test.labels)[positions]
    elif labels.min() < 0 or labels.max() >= dataset.num_classes:
        raise ImagesError(
            f"{images.path}: labels (from {labels.min()} to {labels.max()}) must lie in [0, "
            f"{dataset.num_classes - 1}], the classes of {dataset.name}."
        )
    found = look_at(model, images.pieces(), dataset, positions, images.n, norm=norm, eps=eps)
    findings = [*_check_originals(images, dataset, positions, norm, eps)]
    if told := count_outside(found, eps):
        findings.append(Finding("box and ball", "fail", name_some(told)))
    elif positions is not None and norm is not None and eps is not None:
        ball = f"the ball ({NORM_NAMES[norm]}, eps {eps_text(eps)})"
        text = f"all {images.n:,} images lie in [0, 1] and in {ball}"
        findings.append(Finding("box and ball", "pass", text))
    else:
        findings.append(Finding("box", "pass", f"all {images.n:,} images lie in [0, 1]"))
    claimed = images.arrays.get("predictions")
    if claimed is not None and images.texts.get("weights", weights) != weights:
        text = f"IMAGES states them for another model than {name}"
        findings.append(Finding("predictions", "open", text))
    elif claimed is not None:
        sure = ~find_undecided(found.arrays["logits"])
        bad = (claimed != found.predictions) & sure
        text = f"{name} predicts what IMAGES states"
        if bad.any():
            text = count_images(f"{name} predicts otherwise than IMAGES states", bad)
        findings.append(Finding("predictions", "fail" if bad.any() else "pass", text))
    outside = found.outside_box | found.outside_ball
    fooled = (found.predictions != labels) & ~outside
    count, n = int(fooled.sum()), images.n
    low, high = wilson(count, n)
    text = (
        f"{count:,} of {n:,} images fool {name}: {100 * count / n:.2f} % "
        f"[{100 * low:.2f}, {100 * high:.2f}]"
    )
    if outside.any():
        text += f"; {int(outside.sum())} that leave box or ball count as not fooled"
    findings.append(Finding("fooled", "pass", text))
    numbers = {"n": n, "fooled": count, "share": count / n, "low": low, "high": high}
    return findings, numbers | {"outside": int(outside.sum())}


def _find_positions(images: BroughtImages, dataset: Dataset) -> NDArray | None:
    """Return where the originals stand in the test set; None where the images do not say."""
    indices = images.arrays.get("indices")
    if indices is None:
        return None
    known = to_numpy(dataset.test.index)
    order = np.argsort(known, kind="stable")
    places = np.searchsorted(known, indices, sorter=order)
    positions = order[np.minimum(places, len(order) - 1)]
    if bad := indices[known[positions] != indices].tolist():
        raise ImagesError(
            f"{images.path}: indices ({', '.join(map(str, bad[:3]))}) are not positions of test "
            f"images of {dataset.name}, whose indices go from {known.min()} to {known.max()}."
        )
    values, counts = np.unique(indices, return_counts=True)
    if twice := values[counts > 1].tolist():
        raise ImagesError(
            f"{images.path}: indices hold {twice[0]} more than once; an image may count once."
        )
    return positions


def _check_originals(
    images: BroughtImages,
    dataset: Dataset,
    positions: NDArray | None,
    norm: str | None,
    eps: float | None,
) -> Iterator[Finding]:
    """Yield what can be said of the originals: their labels, and whether there is a ball."""
    if positions is None:
        yield Finding("ball", "open", "without indices the originals are not known")
        return
    labels, own = images.arrays.get("labels"), to_numpy(dataset.test.labels)[positions]
    if labels is not None:
        bad = labels != own
        text = "they are those of the data"
        if bad.any():
            text = count_images("not those of the data", bad)
        yield Finding("labels", "fail" if bad.any() else "pass", text)
    if norm is None or eps is None:
        lacking = " and ".join(n for n, each in (("norm", norm), ("eps", eps)) if each is None)
        yield Finding("ball", "open", f"nothing says {lacking}. Give --norm and --eps")
