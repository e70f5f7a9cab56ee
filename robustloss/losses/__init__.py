"""Loss heads: each trains the features by its own rule and turns them into logits.

The built-in losses stand in LOSSES; a loss of your own is named "package.module:Class" or
"path/to/file.py:Class" and needs no registration; "pml:NAME" is one of pytorch-metric-learning,
"criterion:SOURCE:NAME" any criterion of logits and labels.

Begin with `base` (what a loss is) and `softmax` (the simplest one), then read a family:
`cosine` and `multiple_angle`, `gaussian_mixture`, `center`, `max_mahalanobis`, `pairs`, `pml`,
`criterion`.
`boundaries` has the closed forms that the heads are compared with, `contract` what
`robustloss check-loss` checks.

Imports `attacks.plugins` alone; `models` and all above it import this.
"""

from collections.abc import Sequence
from pathlib import Path

from robustloss.attacks.plugins import check_parameters, did_you_mean, load_object
from robustloss.losses.base import LossHead
from robustloss.losses.center import CenterHead
from robustloss.losses.cosine import ArcFaceHead, CosFaceHead, ModifiedSoftmaxHead, NormFaceHead
from robustloss.losses.criterion import PREFIX as CRITERION
from robustloss.losses.criterion import criterion_class
from robustloss.losses.gaussian_mixture import GaussianMixtureHead, LargeMarginGaussianMixtureHead
from robustloss.losses.max_mahalanobis import MaxMahalanobisHead
from robustloss.losses.multiple_angle import ASoftmaxHead, FNormSphereFaceHead, LSoftmaxHead
from robustloss.losses.pairs import ContrastiveHead, TripletHead
from robustloss.losses.pml import PREFIX, metric_learning_class
from robustloss.losses.softmax import (
    FocalHead,
    L2SoftmaxHead,
    LabelSmoothingHead,
    LogitNormHead,
    OneVsRestHead,
    SoftmaxHead,
    WeightedSoftmaxHead,
)

__all__ = ["LOSSES", "VERSION", "build_loss", "check_head_class", "find_loss"]

VERSION = 1
"""Raised by hand when the numbers of a built-in loss change; part of the key of a trained cell."""

LOSSES: dict[str, type[LossHead]] = {
    "softmax": SoftmaxHead,
    "center": CenterHead,
    "gm": GaussianMixtureHead,
    "lgm": LargeMarginGaussianMixtureHead,
    "weighted_softmax": WeightedSoftmaxHead,
    "l_softmax": LSoftmaxHead,
    "a_softmax": ASoftmaxHead,
    "modified_softmax": ModifiedSoftmaxHead,
    "fnorm_sphereface": FNormSphereFaceHead,
    "l2_softmax": L2SoftmaxHead,
    "normface": NormFaceHead,
    "cosface": CosFaceHead,
    "arcface": ArcFaceHead,
    "contrastive": ContrastiveHead,
    "triplet": TripletHead,
    "mmc": MaxMahalanobisHead,
    "label_smoothing": LabelSmoothingHead,
    "focal": FocalHead,
    "logit_norm": LogitNormHead,
    "one_vs_rest": OneVsRestHead,
}


def build_loss(
    name: str,
    *,
    feature_dim: int,
    num_classes: int,
    folders: Sequence[Path] = (),
    **params: object,
) -> LossHead:
    """Build a loss head, drawing its starting weights from the global random state.

    Args:
        name: a key of LOSSES, "package.module:Class", "path/to/file.py:Class", "pml:NAME" or
            "criterion:SOURCE:NAME".
        feature_dim: D, at least 1.
        num_classes: K, at least 2.
        folders: where a relative path of a plug-in file is looked for.
        **params: the loss's own keyword parameters.

    Returns:
        The head.

    Raises:
        ValueError: if the name or a parameter is unknown or refused; the message names it. A
            plug-in that does not load and a parameter that the loss does not take raise
            PluginError, which is a ValueError.
    """
    kind = find_loss(name, folders)
    check_parameters(kind, params, name, given=("feature_dim", "num_classes"))
    try:
        return kind(feature_dim, num_classes, **params)
    except ValueError as error:
        raise ValueError(f"loss '{name}': {error}") from error
    except (Exception, SystemExit) as error:
        # A plug-in's constructor may raise anything; the user needs to know whose it is.
        raise ValueError(
            f"loss '{name}': could not be built: {type(error).__name__}: {error}"
        ) from error


def find_loss(name: str, folders: Sequence[Path] = ()) -> type[LossHead]:
    """Return the class behind a loss name; arguments and errors as for `build_loss`."""
    if name in LOSSES:
        return LOSSES[name]
    if name.startswith(PREFIX):
        return metric_learning_class(name)
    if name.startswith(CRITERION):
        return criterion_class(name, folders)
    if name.endswith(".py"):
        raise ValueError(
            f"loss (='{name}') names a file and no class in it. Write '{name}:Class' with the name "
            "of the loss's class."
        )
    if ":" not in name:
        raise ValueError(
            f"loss (='{name}') must be one of {', '.join(LOSSES)}, or a loss of your own as "
            f"'package.module:Class' or 'path/to/file.py:Class'{did_you_mean(name, LOSSES)}"
        )
    return check_head_class(load_object(name, folders), name)


def check_head_class(found: object, name: str) -> type[LossHead]:
    """Return what a plug-in's name points at, if it is a complete loss head.

    Args:
        found: what the name points at.
        name: what messages call it.

    Raises:
        ValueError: if it is no subclass of LossHead, or a method is missing.
    """
    if not (isinstance(found, type) and issubclass(found, LossHead)):
        kind = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise ValueError(
            f"loss (='{name}') must be a subclass of robustloss.losses.base.LossHead, "
            f"but it is a {kind}."
        )
    missing = sorted(found.__abstractmethods__)
    if missing:
        raise ValueError(
            f"loss (='{name}') must define {' and '.join(f'{m}()' for m in missing)}. "
            "A loss is a LossHead with the methods logits() and loss()."
        )
    return found
