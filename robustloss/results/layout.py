"""Arrays that belong together: of which kind each is, and which of their sizes must agree."""

from collections.abc import Mapping

import numpy as np

Layout = Mapping[str, tuple[str, str]]
"""Name -> kind, a key of `_KINDS`, and axes: a letter is a size, a digit itself."""

_KINDS = {"i": "integer", "u": "unsigned integer", "f": "float", "b": "bool"}

REFERENCE: Layout = {
    "validation_index": ("i", "V"),
    "validation_labels": ("i", "V"),
    "validation_logits": ("f", "VK"),
    "validation_class_log_likelihood": ("f", "VK"),
    "validation_features": ("f", "VD"),
    "train_features": ("f", "MD"),
    "train_labels": ("i", "M"),
    "train_gradient_norm": ("f", "M"),
    "untrained_features": ("f", "UD"),
    "untrained_labels": ("i", "U"),
    "centers": ("f", "KD"),
    "class_vectors": ("f", "KD"),
    "margin_pairs": ("i", "P2"),
    "margin_positions": ("f", "P3"),
    "margin_closed": ("f", "P3"),
    "grid_x": ("f", "X"),
    "grid_y": ("f", "Y"),
    "grid_class_log_likelihood": ("f", "YXK"),
    "grid_prediction": ("i", "YX"),
    "boundary_pair": ("i", "2"),
    **{
        f"{name}_{part}": ("f", "YX") for name in ("boundary", "closed") for part in ("free", *"ab")
    },
}
# arrays that hold classes, in [0, K)
_CLASSES = (
    *("validation_labels", "train_labels", "untrained_labels", "margin_pairs", "grid_prediction"),
    "boundary_pair",
)
# Where the first array of a group is there, the others must be; the first group is always there.
_TOGETHER = (
    tuple(f"validation_{part}" for part in ("index", "labels", "logits", "class_log_likelihood")),
    ("validation_features", "train_features"),
    ("train_features", "train_labels", "validation_features"),
    ("train_gradient_norm", "train_features"),
    ("untrained_features", "untrained_labels", "train_features"),
    ("margin_pairs", "margin_positions", "margin_closed", "train_features"),
    ("grid_x", "grid_y", "grid_class_log_likelihood", "grid_prediction"),
    ("boundary_pair", "boundary_free", "boundary_a", "boundary_b", "grid_x"),
)


def check_layout(
    arrays: Mapping[str, np.ndarray], layout: Layout, sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Refuse arrays of another kind or shape than their layout; others than in it are let be.

    Args:
        arrays: by name.
        layout: kind and axes by name.
        sizes: of axes that are known from elsewhere.

    Returns:
        The size of each axis.

    Raises:
        ValueError: naming the array and what it must be.
    """
    found = dict(sizes or {})
    for name, array in arrays.items():
        if name not in layout:
            continue
        kind, axes = layout[name]
        if array.dtype.kind != kind:
            raise ValueError(f"{name} (dtype {array.dtype}) must be {_KINDS[kind]}.")
        fits = array.ndim == len(axes) and all(
            size == (int(axis) if axis.isdigit() else found.setdefault(axis, size))
            for axis, size in zip(axes, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join(str(found.get(axis, axis)) for axis in axes)
            raise ValueError(f"{name} (shape {array.shape}) must be ({wanted}).")
    return found


def check_reference(
    arrays: Mapping[str, np.ndarray], classes: int | None = None, feature_dim: int | None = None
) -> None:
    """Refuse reference arrays that are not what `evaluation.reference_arrays` makes.

    Args:
        arrays: the content of reference-KEY.npz.
        classes: K, where it is known.
        feature_dim: D, where it is known.

    Raises:
        ValueError: naming the array.
    """
    known = {axis: size for axis, size in (("K", classes), ("D", feature_dim)) if size is not None}
    sizes = check_layout(arrays, REFERENCE, known)
    for group in _TOGETHER:
        missing = [name for name in group if name not in arrays]
        if missing and (group is _TOGETHER[0] or group[0] in arrays):
            raise ValueError(f"reference has no {missing[0]!r}; it holds {sorted(arrays)}.")
    for name in _CLASSES:
        labels = arrays.get(name, np.zeros(0))
        if labels.size and not 0 <= labels.min() <= labels.max() < sizes["K"]:
            raise ValueError(f"{name} must lie in [0, {sizes['K']}).")
    for name in ("validation_logits", "validation_class_log_likelihood"):  # they give thresholds
        if np.isnan(arrays[name]).any():
            raise ValueError(f"{name} must not be NaN.")
    for name in ("grid_x", "grid_y"):  # a figure's axes
        if name in arrays and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} must be finite.")
    if 0 in (sizes["V"], sizes.get("M"), sizes.get("X"), sizes.get("Y")):
        raise ValueError("reference must hold images; it has an empty array.")
