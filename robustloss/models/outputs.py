"""What a model returns: the logits (B,K) in it, and a digest of all its answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robustloss.models.weight_files import tensor_digest

_IMAGENET = (1000, 1001, 21841, 21843)  # classes of its data sets, with and without a background
_RANDOM = "random"  # stands for the answers of a model that differ from call to call
_ASKED = 8  # images whose answers stand for a model


def take_logits(output: object) -> tuple[Tensor | None, str]:
    """Return the logits in what a model returns, and how they are called there.

    Args:
        output: A tensor; a mapping, dataclass or named tuple with ``logits``; or a tuple or list
            that begins with a tensor (B,K).

    Returns:
        The tensor, and where it is not the output itself, in words which part of it is taken; None
        where there are no logits.
    """
    if isinstance(output, Tensor):
        return output, ""
    kind = type(output).__name__
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named, f"its output is {_with_article(kind)}, whose logits are taken"
    if isinstance(output, tuple | list) and output:
        first = output[0]
        if isinstance(first, Tensor) and first.ndim == 2:
            count = f"{len(output)} {'entries' if output[1:] else 'entry'}"
            return first, f"its output is a {kind} of {count}, of which the first is taken"
    return None, ""


def check_logits(output: object, images: int, num_classes: int | None) -> tuple[Tensor, str]:
    """Return the logits in a model's output as `take_logits`, if they are logits.

    Args:
        output: What the model returned.
        images: B, how many images it was shown.
        num_classes: K that it must return; None for whatever it returns.

    Raises:
        ValueError: There are none, of another shape, not finite, or probabilities.
    """
    wanted = f"(B, K) = ({images}, {num_classes if num_classes else 'classes'})"
    logits, how = take_logits(output)
    if logits is None:
        raise ValueError(
            f"the model must return one tensor of logits {wanted}, or an object or dict with "
            f"logits, or a tuple that begins with them; got {_describe(output)}. Wrap it so that "
            "it returns the logits alone."
        )
    good = logits.ndim == 2 and logits.shape[0] == images and logits.shape[1] >= 2
    if not good or num_classes not in (None, logits.shape[1]):
        remedy = "Give it one output for each class."
        if good and logits.shape[1] in _IMAGENET:
            remedy = (
                f"{logits.shape[1]:,} outputs are the classes of ImageNet: give it a last layer of "
                f"{num_classes} outputs, and weights that were trained with it."
            )
        raise ValueError(
            f"the model must return logits of shape {wanted}, got {tuple(logits.shape)}. {remedy}"
        )
    if not logits.is_floating_point() or not bool(torch.isfinite(logits).all()):
        raise ValueError(
            f"the model returned {logits.dtype} with NaN or infinite values, or no real numbers, "
            "for images in [0, 1]; logits must be finite and floating."
        )
    total = logits.double().sum(1)
    if bool(((logits >= 0) & (logits <= 1)).all()) and bool(((total - 1).abs() < 1e-3).all()):
        raise ValueError(
            "the model returns probabilities (in [0, 1], with sum 1), but must return logits: the "
            "softmax of an attack would flatten their gradient. Leave out its last softmax, or "
            "return the logarithm."
        )
    return logits, how


def digest_answers(model: Any, image_shape: Sequence[int]) -> str:
    """Return a digest of all that a model says of a few fixed images, bit for bit.

    Tensors alone do not decide what code of somebody else's answers: that may read a plain
    attribute, a buffer that is not stored, or a file.

    Args:
        model: A classifier, or a given model that is wrapped.
        image_shape: (C, H, W).

    Returns:
        The digest; the same text for every model that gives other answers each time.
    """
    # Few levels of grey, so that simple networks answer the same on every machine.
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 5, (_ASKED, *image_shape), generator=generator) / 4
    images[0], images[1] = 0.0, 1.0
    tensors = (*model.parameters(), *model.buffers())
    images = images.to(tensors[0].device if tensors else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order in which floats are added must not depend on the executor
    try:
        found = []
        for _ in range(2):  # twice under one seed: what then differs draws numbers of its own
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.default_generator.manual_seed(0)
                answers = model.outputs(images)
            named = zip(("features", "logits", "likelihood"), answers, strict=True)
            found.append({name: value for name, value in named if value is not None})
    finally:
        torch.set_num_threads(threads)
    return (
        tensor_digest(found[0]) if tensor_digest(found[0]) == tensor_digest(found[1]) else _RANDOM
    )


def _with_article(kind: str) -> str:
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def _describe(output: object) -> str:
    """Return in words what came: its type, and the parts of it."""
    kind = type(output).__name__
    if isinstance(output, Mapping):
        parts = [f"{name!s:.40}: {_describe_part(part)}" for name, part in output.items()]
    elif isinstance(output, tuple | list):
        parts = [_describe_part(part) for part in output]
    else:
        return kind
    more = f" and {len(parts) - 4} more" if len(parts) > 4 else ""
    return f"{kind} of {', '.join(parts[:4]) or 'nothing'}{more}"


def _describe_part(part: object) -> str:
    return str(tuple(part.shape)) if isinstance(part, Tensor) else type(part).__name__
