"""Losses of pytorch-metric-learning behind the head's contract, named "pml:NAME"."""

import inspect
import warnings
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustloss.attacks.plugins import did_you_mean
from robustloss.losses.base import LossHead, LossTerms, check_inputs

PREFIX = "pml:"
_OURS = {"self", "num_classes", "embedding_size"}  # robustloss decides these itself


class MetricLearningHead(LossHead):
    """A loss of pytorch-metric-learning that has `get_logits`; a subclass says which.

    Parameters, their defaults and their units are that package's own; margins are in degrees there.
    So are its numerics: ProxyNCALoss takes the logarithm of a posterior that may underflow, so that
    from a softmax_scale of about 30 on its gradients can be infinite, which stops a training.

    Args:
        feature_dim: D.
        num_classes: K.
        **params: the loss's own parameters.

    Raises:
        ValueError: if the loss gives no term per image, as ProxyAnchorLoss, whose terms belong to
            classes.

    Source: Musgrave et al., PyTorch Metric Learning, 2020.
    """

    wrapped: ClassVar[type]

    def __init__(self, feature_dim: int, num_classes: int, **params: Any) -> None:
        super().__init__(feature_dim, num_classes)
        from pytorch_metric_learning.reducers import DoNothingReducer

        with warnings.catch_warnings():
            # numpy's: version 2.9 hands arrays of torch to scipy.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.inner = self.wrapped(
                num_classes=num_classes,
                embedding_size=feature_dim,
                reducer=DoNothingReducer(),
                **params,
            )
        for name, value in list(vars(self.inner).items()):
            if isinstance(value, Tensor):  # plain there, so it would stay behind on a device move
                delattr(self.inner, name)
                self.inner.register_buffer(name, value, persistent=False)
        # Its get_logits gives distances; NormalizedSoftmaxLoss, which has W, turns them itself.
        distances = not self.inner.distance.is_inverted and hasattr(self.inner, "proxies")
        self.sign = -1.0 if distances else 1.0
        # More images than classes, so that a term per class is not taken for one per image.
        images = torch.zeros(num_classes + 1, feature_dim)
        self._terms(images, torch.arange(num_classes + 1) % num_classes)

    def logits(self, features: Tensor) -> Tensor:
        """Return `get_logits` of the loss, higher for the likelier class, (B,D) -> (B,K)."""
        check_inputs(self, features)
        return self.sign * self.inner.get_logits(features)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the loss per image before it is averaged, no regulariser."""
        check_inputs(self, features, labels)
        classification = self._terms(features, labels)
        return LossTerms(classification, torch.zeros_like(classification))

    def class_vectors(self) -> Tensor | None:
        """Return the weights or proxies, (K,D); None where a class has several."""
        found = getattr(self.inner, "proxies", None)
        weight = getattr(self.inner, "W", None)
        found = weight.T if found is None and weight is not None else found
        shape = (self.num_classes, self.feature_dim)
        return found if found is not None and tuple(found.shape) == shape else None

    def _terms(self, features: Tensor, labels: Tensor) -> Tensor:
        parts = self.inner(features, labels)
        part = parts.get("loss", {})
        terms, index = part.get("losses"), part.get("indices")
        per_image = part.get("reduction_type") == "element" and isinstance(terms, Tensor)
        if not per_image or not isinstance(index, Tensor) or len(index) > len(labels):
            raise ValueError(
                f"{self.wrapped.__name__} gives no term per image ({', '.join(parts)}), so its "
                "loss cannot be told apart by image. Choose another of pytorch-metric-learning's."
            )
        # An image that the loss leaves out has term 0, connected to the features.
        return (0.0 * features.sum(1)).index_add(0, index, terms)


def metric_learning_class(name: str) -> type[LossHead]:
    """Return the head behind "pml:NAME".

    Raises:
        ValueError: if the package is absent, or has no such loss with `get_logits`.
    """
    try:
        from pytorch_metric_learning import losses
    except ImportError as error:
        raise ValueError(
            f"loss (='{name}') needs the package pytorch-metric-learning ({error}). "
            "Install it: pip install 'robustloss[pml]'."
        ) from error
    known = {
        key: value
        for key, value in vars(losses).items()
        if isinstance(value, type) and hasattr(value, "get_logits")
    }
    wanted = name.removeprefix(PREFIX)
    if wanted not in known:
        raise ValueError(
            f"loss (='{name}') must be one of {', '.join(PREFIX + key for key in sorted(known))}: "
            f"pytorch-metric-learning's losses with get_logits{did_you_mean(wanted, known)}"
        )
    return _make_head(known[wanted])


@cache
def _make_head(wrapped: type) -> type[LossHead]:
    """Make a head whose constructor has the signature of the loss: `build_loss` checks by it."""

    def __init__(self: MetricLearningHead, feature_dim: int, num_classes: int, **params: Any):  # type: ignore[no-untyped-def] # noqa: N807
        MetricLearningHead.__init__(self, feature_dim, num_classes, **params)

    kind = inspect.Parameter
    names = ("self", "feature_dim", "num_classes")
    parameters = [kind(name, kind.POSITIONAL_OR_KEYWORD) for name in names]
    # Of the loss's own, those that a spec can give: their default is a number or text.
    seen = set(_OURS)
    for base in wrapped.__mro__:
        if "__init__" not in vars(base) or not base.__module__.startswith("pytorch_metric"):
            continue
        for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
            plain = isinstance(parameter.default, int | float | str)
            if name not in seen and plain and not name.endswith("_reg_weight"):
                parameters.append(kind(name, kind.KEYWORD_ONLY, default=parameter.default))
            seen.add(name)
    __init__.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    own_names = {"__init__": __init__, "wrapped": wrapped, "__doc__": wrapped.__doc__}
    return type(wrapped.__name__, (MetricLearningHead,), own_names)
