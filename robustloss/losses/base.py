"""What a loss is: a head on the features, with two methods to write.

A backbone maps an image to features f. A head maps the features to logits z, one for each class,
whose softmax is the posterior; and it says what each training image costs:

    logits(f)                    (B,D) -> (B,K)   margin-free: what is attacked and what classifies
    loss(f, labels, progress)    (B,D) -> 2·(B,)  what training minimises, margin included

Everything else has a default. `LossHead` lists its methods in the order in which the trainer and
then the report call them. The functions below it check what a user's own head returns.

Shapes: B images of a batch, N images of a set, K classes, D feature dimensions.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.losses.arguments import check_whole_number

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
        self.feature_dim = check_whole_number("feature_dim", feature_dim, at_least=1)
        self.num_classes = check_whole_number("num_classes", num_classes, at_least=2)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.batching not in BATCHINGS:
            known = " or ".join(f"'{batching}'" for batching in BATCHINGS)
            raise TypeError(f"{cls.__name__}.batching (={cls.batching!r}) must be {known}.")
        if not isinstance(cls.density, bool):
            raise TypeError(f"{cls.__name__}.density (={cls.density!r}) must be True or False.")

    # --- the two methods of every loss -----------------------------------------------------------

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Return the margin-free logits.

        Args:
            features: (B,D).

        Returns:
            (B,K); their softmax is the posterior.

        Raises:
            RuntimeError: if `fit` has not run and `logits_while_training` is False.
        """

    @abstractmethod
    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the training loss, without side effects and connected to the features.

        Args:
            features: (B,D).
            labels: (B,) int64 in [0, K).
            progress: fraction of the training that is done, in [0,1]; drives schedules.

        Returns:
            Both terms per image, (B,) nats.
        """

    # --- training --------------------------------------------------------------------------------

    @property
    def logits_while_training(self) -> bool:
        """Whether `logits` works before `fit`; default: for every loss but a pair loss.

        A pair loss classifies by what `fit` takes from the trained features. While it trains it
        therefore has no training or validation error, no logits for an attack to climb, and no
        margin to draw.
        """
        return self.batching == "shuffled"

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the optimizer groups of the head's own parameters; default: one group.

        Args:
            lr: the training's learning rate.

        Returns:
            Groups as torch.optim takes them; a key left out takes the training's own value.
        """
        return [{"params": list(self.parameters()), "lr": lr}]

    def start(self, class_counts: Tensor) -> None:
        """Take the training images per class, (K,) int64; called once before training."""

    def after_step(self, features: Tensor, labels: Tensor) -> None:
        """Move what has a rule of its own, such as centers, after each optimizer step.

        Args:
            features: (B,D) of the step's batch, detached.
            labels: (B,) int64.
        """

    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Fit what needs all training features, (N,D) and (N,); called once after training."""

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return what `loss` takes from the progress, as a margin or a weight; default: all of it.

        At equal phases the loss is the same function of features and labels, without decisions in
        Python. On a GPU the trainer then replays one captured step instead of starting its kernels
        one by one, which is several times as fast for a small network. A loss that ignores its
        progress returns `()`. A subclass must define this method anew, or its steps are not
        captured.
        """
        return (progress,)

    def tuples(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """Count the pairs or triplets of a batch that pull or push: a scalar; default: None."""
        return None

    # --- after training: detection, tables, pictures ---------------------------------------------

    def class_log_likelihood(self, features: Tensor) -> Tensor:
        """Return how typical the features are of each class; default: the logits.

        Args:
            features: (B,D).

        Returns:
            (B,K) nats; higher is more typical.
        """
        return self.logits(features)

    def training_logits(self, features: Tensor, labels: Tensor, *, progress: float) -> Tensor:
        """Return the logits that training compares, margin included; default: `logits`.

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
        """Return what stands for each class in feature space, (K,D): a weight, a center, or None.

        The report draws a line from the origin in the direction of each. Centers it draws as
        points, and compares with the class means: a (K,D) tensor that is kept as `self.centers`.
        """
        return None

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return what a closed form of the boundary needs beside `class_vectors`; default: {}.

        Returns:
            Keyword arguments of `losses.boundaries.closed_gaps`, those that the loss has:
            "bias" (K,), "scale" (), "log_var" (K,1) or (K,D), "log_prior" (K,), and "weight" (K,D)
            where the boundary is that of a linear layer and not of the class vectors.
        """
        return {}

    def note(self) -> str:
        """Return what every table must say of this loss, as an annealed margin; default: ""."""
        return ""

    def forward(self, features: Tensor) -> Tensor:
        """Return `logits`, so that a head can be called like any module."""
        return self.logits(features)


# --- what a head is given, and what a user's own head returns ------------------------------------


def check_inputs(head: LossHead, features: Tensor, labels: Tensor | None = None) -> None:
    """Refuse inputs that would broadcast into a wrong number without an error.

    Args:
        head: the head that they are for.
        features: must be (B,D), floating.
        labels: must be (B,) int64 in [0, K), if given. The range is looked at on a CPU alone: a GPU
            would have to be waited for.

    Raises:
        ValueError: if they are not.
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
    if labels.device.type == "cpu" and len(labels):
        low, high = (int(each) for each in labels.aminmax())
        if low < 0 or high >= head.num_classes:
            raise ValueError(
                f"labels (from {low} to {high}) must lie in [0, {head.num_classes - 1}], the "
                f"{head.num_classes} classes of the loss."
            )


def check_class_counts(head: LossHead, class_counts: Tensor, *, at_least: int, remedy: str) -> None:
    """Refuse training images per class that a head cannot start from.

    Args:
        head: the head that they are for.
        class_counts: must be (K,), not all 0.
        at_least: what each must reach, 0 or 1.
        remedy: what the message advises.

    Raises:
        ValueError: if they are not.
    """
    counts, k = class_counts, head.num_classes
    if tuple(counts.shape) != (k,) or bool((counts < at_least).any()) or not bool(counts.any()):
        raise ValueError(
            f"class_counts (={counts.tolist()}) must be {k} numbers of at least {at_least}, not "
            f"all 0. {remedy}"
        )


_PER_IMAGE = 'Criteria of torch give it with reduction="none".'


def check_terms(terms: object, features: Tensor) -> LossTerms:
    """Return the terms that a `loss` gave, if they are two floating (B,) tensors.

    Args:
        terms: what it returned.
        features: (B,D), for B.

    Raises:
        ValueError: if it is not LossTerms, or a term has a wrong shape or type.
    """
    if not isinstance(terms, LossTerms):
        kind = type(terms).__name__
        if isinstance(terms, Tensor):
            kind = f"one tensor of shape {tuple(terms.shape)}"
        raise ValueError(
            f"loss() returned {kind}. Return LossTerms(classification, regulariser), both of shape "
            f"(B,): a number per image. {_PER_IMAGE} Without a regulariser, its zeros are "
            "torch.zeros_like(classification)."
        )
    remedy = f"Do not average over B. {_PER_IMAGE}"
    for name, value in zip(LossTerms._fields, terms, strict=True):
        _check_result(f"loss().{name}", value, (features.shape[0],), remedy)
    return terms


def check_logits(
    values: object, features: Tensor, num_classes: int, name: str = "logits"
) -> Tensor:
    """Return the logits or likelihoods that a head gave, if they are a floating (B,K) tensor.

    Args:
        values: what it returned.
        features: (B,D), for B.
        num_classes: K.
        name: the method, for the message.

    Raises:
        ValueError: if it is another shape or type.
    """
    shape = (features.shape[0], num_classes)
    return _check_result(f"{name}()", values, shape, "Return one row per image.")


def check_class_vectors(head: LossHead) -> Tensor | None:
    """Return the head's class vectors, if they are None or a floating (K,D) tensor.

    Raises:
        ValueError: if they are something else.
    """
    vectors = head.class_vectors()
    if vectors is None:
        return None
    shape = (head.num_classes, head.feature_dim)
    return _check_result("class_vectors()", vectors, shape, "Return one row per class, or None.")


def _check_result(name: str, value: object, shape: tuple[int, ...], remedy: str) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} (={kind}) must be a floating tensor of shape {shape}. {remedy}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} (shape {tuple(value.shape)}) must have shape {shape}. {remedy}")
    return value


def count_tuples(head: LossHead, features: Tensor, labels: Tensor) -> Tensor | None:
    """Return the head's number of pairs or triplets, if it is None or a scalar tensor.

    Args:
        head: a pair loss, or any other.
        features: (B,D).
        labels: (B,) int64.

    Raises:
        ValueError: if it is something else.
    """
    count = head.tuples(features, labels)
    if count is None or (isinstance(count, Tensor) and count.ndim == 0):
        return count
    kind = f"shape {tuple(count.shape)}" if isinstance(count, Tensor) else type(count).__name__
    raise ValueError(
        f"tuples() returned {kind}. Return one count for the batch as a scalar tensor, such as "
        "(costs > 0).sum(), or None."
    )
