"""Detection scores as torch functions: what an attack on the detector follows and is judged by.

Each has the name of a score in `analysis.detection.scores`, takes what that one is fitted with, and
gives the same numbers; `tests/evaluation/test_torch_scores.py` holds the two together.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

VERSION = 1  # raise when the same score would be followed otherwise

_LEAST = 1e-24  # a squared distance whose root still has a gradient


class Outputs(NamedTuple):
    """What a model says of B images, under the names that a Record has.

    Attributes:
        logits: (B,K).
        class_log_likelihood: (B,K), nats.
        features: (B,D); None where the model offers none.
    """

    logits: Tensor
    class_log_likelihood: Tensor
    features: Tensor | None

    @property
    def predictions(self) -> Tensor:
        """(B,) the class of the largest logit."""
        return self.logits.argmax(dim=1)


class Judged(NamedTuple):
    """A score of B images, and what an attack climbs to raise it.

    Attributes:
        goals: (B,K), larger the more an image looks typical of each class. A score over all classes
            has the terms of each as goals: its own gradient would also raise the class that is to
            be left. A score that knows no classes is the goal for all of them.
        score: (B,), larger the more typical of clean images.
    """

    goals: Tensor
    score: Tensor


Fitted = Mapping[str, Tensor]
TorchScore = Callable[[Outputs], Judged]


def class_log_likelihood(outputs: Outputs, fit: Fitted) -> Judged:
    """Log-likelihood of the predicted class; the goals are those of all classes."""
    values = outputs.class_log_likelihood
    return Judged(values, values.gather(1, outputs.predictions.unsqueeze(1)).squeeze(1))


def max_log_posterior(outputs: Outputs, fit: Fitted) -> Judged:
    """Largest log-posterior, as −log1p of the others' share: it does not end at 0.

    The goals are the log-posteriors of all classes.
    """
    gaps = outputs.logits - outputs.logits.amax(dim=1, keepdim=True)
    top = outputs.predictions.unsqueeze(1)
    others = gaps.exp().scatter(1, top, 0.0).sum(dim=1)
    score = -others.log1p()
    return Judged((gaps + score.unsqueeze(1)).scatter(1, top, score.unsqueeze(1)), score)


def max_logit(outputs: Outputs, fit: Fitted) -> Judged:
    """Largest logit; the goals are the logits."""
    return Judged(outputs.logits, outputs.logits.amax(dim=1))


def energy(outputs: Outputs, fit: Fitted) -> Judged:
    """Log of the sum of exp(logits); the goals are the logits."""
    return Judged(outputs.logits, outputs.logits.logsumexp(dim=1))


def marginal_log_likelihood(outputs: Outputs, fit: Fitted) -> Judged:
    """Log of Σ p(k) N(f; mu_k, S_k); the goals are the logs of its terms."""
    terms = outputs.class_log_likelihood + fit["log_prior"]
    return Judged(terms, terms.logsumexp(dim=1))


def mahalanobis(outputs: Outputs, fit: Fitted) -> Judged:
    """Minus the smallest squared distance to a class mean; goals are those to each class's mean."""
    values = -_squares(outputs, fit)
    return _of_classes(values, values.amax(dim=1), outputs, fit)


def relative_mahalanobis(outputs: Outputs, fit: Fitted) -> Judged:
    """`mahalanobis` and the squared distance to the mean of all."""
    whole = ((_features(outputs) - fit["center"]) @ fit["background"]).square().sum(dim=1)
    values = whole.unsqueeze(1) - _squares(outputs, fit)
    return _of_classes(values, values.amax(dim=1), outputs, fit)


def knn(outputs: Outputs, fit: Fitted) -> Judged:
    """Minus the distance to the k-th nearest training features, both scaled to length 1.

    The goal of a class is minus a soft minimum, w log Σ exp(−distance/w), over its own training
    features; w is `fit_knn`'s width. Where the k-th neighbour changes, the score has a kink, and
    its gradient points at one neighbour alone.
    """
    features = _features(outputs)
    lengths = features.square().sum(dim=1, keepdim=True).clamp(min=_LEAST).sqrt()
    unit, train = features / lengths, fit["train"]  # of length 1, or 0
    squares = unit.square().sum(dim=1, keepdim=True) + train.square().sum(dim=1)
    squares = squares - 2.0 * unit @ train.T
    distances = squares.clamp(min=_LEAST).sqrt()
    score = -distances.detach().kthvalue(int(fit["k"]), dim=1).values
    width, labels = fit["width"].clamp(min=1e-6), fit["labels"]
    near = -distances / width
    softest = [near[:, labels == label].logsumexp(dim=1) for label in fit["classes"]]
    return _of_classes(width * torch.stack(softest, dim=1), score, outputs, fit)


def gaussian_mixture(outputs: Outputs, fit: Fitted) -> Judged:
    """Log-density under one fitted Gaussian a class, nats; the goals are the logs of its terms."""
    shifts = _features(outputs).unsqueeze(1) - fit["means"]
    squares = torch.einsum("bkd,kde->bke", shifts, fit["whites"]).square().sum(dim=2)
    terms = fit["constants"] - squares / 2
    return _of_classes(terms, terms.logsumexp(dim=1), outputs, fit)


def feature_norm(outputs: Outputs, fit: Fitted) -> Judged:
    """Length of the features."""
    return _of_all(torch.linalg.vector_norm(_features(outputs), dim=1), outputs)


TORCH_SCORES: dict[str, Callable[[Outputs, Fitted], Judged]] = {
    score.__name__: score
    for score in (
        *(class_log_likelihood, marginal_log_likelihood, max_log_posterior, max_logit, energy),
        *(mahalanobis, relative_mahalanobis, knn, gaussian_mixture, feature_norm),
    )
}


def build_torch_score(
    name: str, fit: Mapping[str, NDArray], device: torch.device, own: Callable | None = None
) -> TorchScore:
    """Return a score of outputs alone.

    Args:
        name: of `TORCH_SCORES`, or anything with a function of one's own.
        fit: what the score is fitted with; for one's own, the reference arrays or nothing.
        device: where the model is.
        own: the user's torch form, a function of Outputs, and of the reference as tensors where
            there is any; it returns (B,).
    """
    precision = choose_precision(device)
    tensors = {}
    for key, array in fit.items():
        tensor = torch.as_tensor(array)
        tensors[key] = tensor.to(device, precision if tensor.is_floating_point() else None)
    if own is None:
        built_in = TORCH_SCORES[name]
        return lambda outputs: built_in(outputs, tensors)
    given = (tensors,) if tensors else ()

    def score(outputs: Outputs) -> Judged:
        features = None if outputs.features is None else outputs.features.clone()
        copies = Outputs(outputs.logits.clone(), outputs.class_log_likelihood.clone(), features)
        values = own(copies, *given)
        if not isinstance(values, Tensor) or values.shape != outputs.logits.shape[:1]:
            what = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"the torch form of score {name} returned {what}. Return one number an image, a "
                f"tensor of shape ({len(outputs.logits)},)."
            )
        return _of_all(values, outputs)

    return score


def choose_precision(device: torch.device) -> torch.dtype:
    """Return the type that scores are computed in: float64, as their array form; MPS has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def _of_all(score: Tensor, outputs: Outputs) -> Judged:
    return Judged(score.unsqueeze(1).expand_as(outputs.logits), score)


def _of_classes(values: Tensor, score: Tensor, outputs: Outputs, fit: Fitted) -> Judged:
    """Return a score whose goals (B,K') are known for the classes in the fit alone."""
    goals = score.unsqueeze(1).expand_as(outputs.logits)
    return Judged(goals.index_copy(1, fit["classes"], values), score)


def _squares(outputs: Outputs, fit: Fitted) -> Tensor:
    """Return squared Mahalanobis distances (B,K') to the class means."""
    points = _features(outputs) @ fit["white"]
    return (points.unsqueeze(1) - fit["places"]).square().sum(dim=2)


def _features(outputs: Outputs) -> Tensor:
    if outputs.features is None:
        raise ValueError("the model offers no features, which this score needs.")
    return outputs.features
