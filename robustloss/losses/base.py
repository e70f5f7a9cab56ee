"""The plug-in seam of the losses: a new loss is a LossHead with two methods."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.losses.arguments import whole_number

BATCHINGS = ("shuffled", "balanced")


class LossTerms(NamedTuple):
    """Per-image loss; the trainer minimises `(classification + regulariser).mean()`.

    Attributes:
        classification: (B,) nats.
        regulariser: (B,) nats, already weighted; zeros where the loss has none.
    """

    classification: Tensor
    regulariser: Tensor


class LossHead(nn.Module, ABC):
    """What stands on the features: it trains them and turns them into logits.

    Features reach a head in float32, outside autocast. Own parameters are keyword-only; tensors
    that are not trained are buffers, so that they move, save and load with the model.

    Args:
        feature_dim: D, at least 1.
        num_classes: K, at least 2.

    Raises:
        ValueError: if one of them is out of range.
    """

    density: ClassVar[bool] = False
    """Whether `class_log_likelihood` is a normalised log-density over the features."""
    batching: ClassVar[str] = "shuffled"
    """How the trainer draws batches; "balanced" (several images per class) for pair losses."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.feature_dim = whole_number("feature_dim", feature_dim, at_least=1)
        self.num_classes = whole_number("num_classes", num_classes, at_least=2)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.batching not in BATCHINGS:
            known = " or ".join(f"'{batching}'" for batching in BATCHINGS)
            raise TypeError(f"{cls.__name__}.batching (={cls.batching!r}) must be {known}.")
        if not isinstance(cls.density, bool):
            raise TypeError(f"{cls.__name__}.density (={cls.density!r}) must be True or False.")

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Margin-free logits.

        Args:
            features: (B,D).

        Returns:
            (B,K); their softmax is the posterior.

        Raises:
            RuntimeError: if the loss is a pair loss and `fit` has not run.
        """

    @abstractmethod
    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Training loss, without side effects and connected to the features.

        Args:
            features: (B,D).
            labels: (B,) int64 in [0, K).
            progress: fraction of the training that is done, in [0,1]; drives schedules.

        Returns:
            Both terms per image, (B,) nats.
        """

    def class_log_likelihood(self, features: Tensor) -> Tensor:
        """How typical the features are of each class, (B,D) -> (B,K) nats; higher is more."""
        return self.logits(features)

    def training_logits(self, features: Tensor, labels: Tensor, *, progress: float) -> Tensor:
        """The logits that training compares, margin included; default: `logits`.

        Where the true class's equals another's lies the boundary that training asks for, which
        the report draws beside the margin-free one.

        Args:
            features: (B,D).
            labels: (B,) int64.
            progress: as in `loss`.

        Returns:
            (B,K).
        """
        return self.logits(features)

    def class_vectors(self) -> Tensor | None:
        """What stands for each class in feature space, (K,D): a weight, a center; default: None.

        The report draws a line from the origin in the direction of each. Centers it draws as
        points, and compares with the class means: a (K,D) tensor that is kept as `self.centers`.
        """
        return None

    def boundary_terms(self) -> dict[str, Tensor]:
        """What a closed form of the training boundary needs beside `class_vectors`; default: {}.

        Returns:
            Keyword arguments of `losses.boundaries.closed_gaps`, those that the loss has:
            "bias" (K,), "scale" (), "log_var" (K,1) or (K,D), "log_prior" (K,), and "weight" (K,D)
            where the boundary is that of a linear layer and not of the class vectors.
        """
        return {}

    def phase(self, progress: float) -> tuple[float, ...]:
        """What `loss` takes from the progress, as a margin or a weight; default: all of it.

        At equal phases the loss is the same function of features and labels, without decisions in
        Python. On a GPU the trainer then replays one recorded step instead of starting its kernels
        one by one, which is several times as fast for a small network. A loss that ignores its
        progress says `()`. A class that inherits says it anew, or its steps are not recorded.
        """
        return (progress,)

    def note(self) -> str:
        """What every table must say of this loss, as an annealed margin; default: nothing."""
        return ""

    def tuples(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """How many pairs or triplets of a batch pull or push, a scalar tensor; None without."""
        return None

    def start(self, class_counts: Tensor) -> None:
        """Take the training images per class, (K,) int64; called once before training."""

    def after_step(self, features: Tensor, labels: Tensor) -> None:
        """Move what has a rule of its own, after each optimizer step.

        Args:
            features: (B,D) of the step's batch, detached.
            labels: (B,) int64.
        """

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Fit what needs all training features, (N,D) and (N,); called once after training."""

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimizer groups of the head's own parameters.

        Args:
            lr: the training's learning rate.

        Returns:
            Groups as torch.optim takes them; a key left out takes the training's own value.
        """
        return [{"params": list(self.parameters()), "lr": lr}]

    def forward(self, features: Tensor) -> Tensor:
        """The same as `logits`, so that a head can be called like any module."""
        return self.logits(features)


def check_inputs(head: LossHead, features: Tensor, labels: Tensor | None = None) -> None:
    """Refuse inputs that would broadcast into a wrong number without an error.

    Raises:
        ValueError: if features are not floating (B,D) or labels not int64 (B,).
    """
    if features.ndim != 2 or features.shape[1] != head.feature_dim:
        raise ValueError(
            f"features (shape {tuple(features.shape)}) must be (B, {head.feature_dim}). "
            "Build the backbone with the head's feature_dim."
        )
    if not features.is_floating_point():
        raise ValueError(f"features (={features.dtype}) must be floating. Convert to float32.")
    if labels is None:
        return
    if labels.shape != features.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(
            f"labels ({labels.dtype}, shape {tuple(labels.shape)}) must be int64 of shape "
            f"({features.shape[0]},), one class index per image."
        )


def check_terms(terms: object, features: Tensor) -> LossTerms:
    """Refuse what a plug-in's `loss` returned if it is not two (B,) tensors.

    Raises:
        ValueError: if it is not LossTerms, or a term has a wrong shape or type.
    """
    if not isinstance(terms, LossTerms):
        raise ValueError(
            f"loss() returned {type(terms).__name__}. "
            "Return LossTerms(classification, regulariser), both of shape (B,)."
        )
    for name, value in zip(LossTerms._fields, terms, strict=True):
        _check_result(f"loss().{name}", value, (features.shape[0],), "Do not average over B.")
    return terms


def check_logits(
    values: object, features: Tensor, num_classes: int, name: str = "logits"
) -> Tensor:
    """Refuse what a plug-in's `logits` or `class_log_likelihood` returned if it is not (B,K).

    Raises:
        ValueError: if it is no floating tensor of that shape.
    """
    shape = (features.shape[0], num_classes)
    return _check_result(f"{name}()", values, shape, "Return one row per image.")


def check_class_vectors(head: LossHead) -> Tensor | None:
    """The head's class vectors, (K,D) or None.

    Raises:
        ValueError: if a plug-in's `class_vectors` returned something else.
    """
    vectors = head.class_vectors()
    if vectors is None:
        return None
    shape = (head.num_classes, head.feature_dim)
    return _check_result("class_vectors()", vectors, shape, "Return one row per class, or None.")


def count_tuples(head: LossHead, features: Tensor, labels: Tensor) -> Tensor | None:
    """The head's number of pairs or triplets, a scalar or None.

    Raises:
        ValueError: if a plug-in's `tuples` returned something else.
    """
    count = head.tuples(features, labels)
    if count is None or (isinstance(count, Tensor) and count.ndim == 0):
        return count
    kind = f"shape {tuple(count.shape)}" if isinstance(count, Tensor) else type(count).__name__
    raise ValueError(
        f"tuples() returned {kind}. Return one count for the batch as a scalar tensor, such as "
        "(costs > 0).sum(), or None."
    )


def _check_result(name: str, value: object, shape: tuple[int, ...], remedy: str) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} (={kind}) must be a floating tensor of shape {shape}. {remedy}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} (shape {tuple(value.shape)}) must have shape {shape}. {remedy}")
    return value
