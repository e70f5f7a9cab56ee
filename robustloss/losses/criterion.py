"""A plain criterion of logits and labels as a head on a linear layer.

It is named "criterion:SOURCE:NAME". SOURCE is `torch.nn` or `torch.nn.functional`, or a file or
module of the user's. NAME is a class of torch.nn.Module or a function, which is called as
criterion(logits, labels).
"""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.plugins import did_you_mean, load_object
from robustloss.losses.base import LossHead, LossTerms, check_inputs
from robustloss.losses.softmax import SoftmaxHead

PREFIX = "criterion:"
OF_TORCH = {"torch.nn": nn.modules.loss, "torch.nn.functional": nn.functional}
_FAR = 1000.0  # a logit at which a loss of log-posteriors has long fallen below _LEAST
_LEAST = -100.0  # nats


class CriterionHead(SoftmaxHead):
    """A criterion of logits and labels on a linear layer; a subclass says which.

    The logits are those of softmax, logits_k = w_k·f + b_k, and the loss is the criterion of them.
    Where the criterion takes `reduction`, that is "none"; where it takes `num_classes` or
    `feature_dim`, it gets them. One that returns a number for a whole batch is computed image by
    image: by vmap where that gives the same, else in a loop.

    Args:
        feature_dim: D.
        num_classes: K.
        **params: the criterion's own parameters. A list becomes a tensor where it asks for one.

    Raises:
        ValueError: if the criterion does not take logits (B,K) and int64 labels (B,), if it
            compares images, or if it gives no finite loss with a gradient.
    """

    wrapped: ClassVar[Callable[..., Any]]

    def __init__(self, feature_dim: int, num_classes: int, **params: Any) -> None:
        super().__init__(feature_dim, num_classes)  # first, so that it starts as softmax does
        wrapped = type(self).wrapped
        taken = _list_parameters(wrapped)
        arguments = {
            name: torch.tensor(value, dtype=torch.float32)
            if isinstance(value, list) and "Tensor" in str(taken[name].annotation)
            else value
            for name, value in params.items()
        }
        ours = {"feature_dim": feature_dim, "num_classes": num_classes, "reduction": "none"}
        arguments |= {name: value for name, value in ours.items() if name in taken}
        is_class = isinstance(wrapped, type)
        self.criterion = wrapped(**arguments) if is_class else _Function(wrapped, arguments)
        self.way = "whole"
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._try_out()

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the criterion per image, no regulariser."""
        check_inputs(self, features, labels)
        classification = self._terms(self.logits(features), labels)
        return LossTerms(classification, torch.zeros_like(classification))

    def _terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the criterion per image, (B,K) and (B,) -> (B,), in the way that was found."""
        if self.way == "whole":
            return self.criterion(logits, labels)

        def of_one(row: Tensor, label: Tensor) -> Tensor:
            return self.criterion(row.unsqueeze(0), label.unsqueeze(0)).reshape(())

        if self.way == "vmap":
            return torch.func.vmap(of_one)(logits, labels)
        return torch.stack([of_one(*each) for each in zip(logits, labels, strict=True)])

    def _try_out(self) -> None:
        """Find the way to a loss per image, and refuse a criterion that has none."""
        images = 6 if self.num_classes == 5 else 5  # not K: a wrong shape must not broadcast
        labels = torch.arange(images) % self.num_classes
        numbers = torch.arange(float(images * self.num_classes))
        logits = (2.0 * numbers.sin()).reshape(images, -1).requires_grad_()
        whole = self._call(logits, labels)
        if whole.ndim and whole.shape != (images,):
            raise ValueError(
                f"the criterion returned shape {tuple(whole.shape)} for {images} images. It must "
                "return one number per image, or one for all: sum over the classes."
            )
        self.way = "loop"
        terms = self._terms(logits, labels)
        (slope,) = (
            torch.autograd.grad(terms.sum(), logits, allow_unused=True)
            if terms.requires_grad
            else (None,)
        )
        if slope is None:
            raise ValueError(
                "the criterion is not connected to the logits: look for detach, argmax or item()."
            )
        if not (terms.isfinite().all() and slope.isfinite().all()):
            raise ValueError(
                "the criterion or its gradient is not finite at logits between -2 and 2. It is "
                "given logits, not probabilities: apply softmax or log_softmax inside it."
            )
        same = [whole] if whole.ndim else [whole * images, whole]
        if not any(torch.allclose(_sum_up(terms, each), each, rtol=1e-4) for each in same):
            raise ValueError(
                "the criterion compares images: its value for a batch is not made of its values "
                "for single images. Write it as a loss head with its own loss(), see 'robustloss "
                "guide losses'."
            )
        right = _FAR * nn.functional.one_hot(labels, self.num_classes).float()
        if (self._terms(right, labels) < _LEAST).any():
            raise ValueError(
                "the criterion falls without end as logits grow. It is given logits, not "
                "log-probabilities: torch.nn:CrossEntropyLoss in place of NLLLoss."
            )
        self.way = "whole" if whole.ndim else self._find_vmap(logits, labels, terms)

    def _call(self, logits: Tensor, labels: Tensor) -> Tensor:
        remedy = (
            "It is called as criterion(logits, labels) with float32 logits (B,K) and int64 labels "
            "(B,). For targets of another form write a function that makes them, as 'criterion:"
            "path/to/file.py:NAME'."
        )
        try:
            found = self.criterion(logits, labels)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the criterion failed: {type(error).__name__}: {reason}. {remedy}"
            ) from error
        if not isinstance(found, Tensor) or not found.is_floating_point():
            kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the criterion returned {kind}, not a floating tensor. {remedy}")
        return found

    def _find_vmap(self, logits: Tensor, labels: Tensor, terms: Tensor) -> str:
        self.way = "vmap"
        warnings.simplefilter("error", UserWarning)  # torch's where vmap is as slow as a loop
        try:
            same = torch.allclose(self._terms(logits, labels), terms, rtol=1e-4)
        except Exception:  # it decides by values, or an operation has no rule
            same = False
        return "vmap" if same else "loop"


def _sum_up(terms: Tensor, like: Tensor) -> Tensor:
    return terms if like.ndim else terms.sum()


class _Function(nn.Module):
    """A function (logits, labels, **params) with its parameters; tensors among them are buffers."""

    def __init__(self, function: Callable[..., Any], params: Mapping[str, Any]) -> None:
        super().__init__()
        self.function, self.params = function, dict(params)
        for name, value in params.items():
            if isinstance(value, Tensor):
                self.register_buffer(f"param_{name}", self.params.pop(name))

    def forward(self, logits: Tensor, labels: Tensor) -> Any:
        tensors = {name.removeprefix("param_"): value for name, value in self.named_buffers()}
        return self.function(logits, labels, **self.params, **tensors)


def criterion_class(name: str, folders: Sequence[Path] = ()) -> type[LossHead]:
    """Return the head behind "criterion:SOURCE:NAME".

    Args:
        name: the whole name.
        folders: where a relative path of a file is looked for.

    Raises:
        ValueError: if there is no such criterion, or it is none.
    """
    source, _, attribute = name.removeprefix(PREFIX).rpartition(":")
    if source in OF_TORCH:
        known = _list_of_torch(source)
        if attribute not in known:
            raise ValueError(
                f"loss (='{name}') must name a loss of {source}, as "
                f"{'CrossEntropyLoss' if source == 'torch.nn' else 'cross_entropy'}"
                f"{did_you_mean(attribute, known)}"
            )
        return _make_head(known[attribute])
    if not source:
        raise ValueError(
            f"loss (='{name}') must have the form 'criterion:torch.nn:NAME', 'criterion:path/to/"
            "file.py:NAME' or 'criterion:package.module:NAME'."
        )
    found = load_object(f"{source}:{attribute}", folders)
    if isinstance(found, type) and issubclass(found, LossHead):
        raise ValueError(f"loss (='{name}') is a loss head: leave out '{PREFIX}'.")
    is_class = isinstance(found, type) and issubclass(found, nn.Module)
    if not is_class and not inspect.isfunction(found):
        kind = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise ValueError(
            f"loss (='{name}') must be a class of torch.nn.Module or a function (logits, labels), "
            f"but it is a {kind}."
        )
    return _make_head(found)


def _list_of_torch(source: str) -> dict[str, Callable[..., Any]]:
    """Return the losses of torch.nn or of torch.nn.functional by name."""
    module = OF_TORCH[source]
    if source == "torch.nn":
        return {name: getattr(module, name) for name in module.__all__}
    plain = {name: value for name, value in vars(module).items() if inspect.isfunction(value)}
    return {
        name: value
        for name, value in plain.items()
        if not name.startswith("_") and "target" in inspect.signature(value).parameters
    }


def _list_parameters(wrapped: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return what a criterion takes by keyword beside logits and labels."""
    parameters = list(inspect.signature(wrapped).parameters.values())
    named = parameters if isinstance(wrapped, type) else parameters[2:]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in named if p.kind in kinds}


@cache
def _make_head(wrapped: Callable[..., Any]) -> type[LossHead]:
    """Make a head whose constructor has the signature of the criterion; `build_loss` checks it."""

    def __init__(self: CriterionHead, feature_dim: int, num_classes: int, **params: Any):  # type: ignore[no-untyped-def] # noqa: N807
        CriterionHead.__init__(self, feature_dim, num_classes, **params)

    kind = inspect.Parameter
    names = ("self", "feature_dim", "num_classes")
    own = [p for p in _list_parameters(wrapped).values() if p.name not in (*names, "reduction")]
    __init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            *(kind(name, kind.POSITIONAL_OR_KEYWORD) for name in names),
            *(p.replace(kind=kind.KEYWORD_ONLY) for p in own),
        ]
    )
    of_torch = wrapped.__module__.partition(".")[0] == "torch"
    members = {
        "__init__": __init__,
        # What is not torch's counts as code of that module: its training steps are not captured.
        "__module__": __name__ if of_torch else wrapped.__module__,
        "wrapped": staticmethod(wrapped),
        "__doc__": wrapped.__doc__,
    }
    return type(wrapped.__name__, (CriterionHead,), members)
