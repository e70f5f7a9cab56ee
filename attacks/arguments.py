"""Refuse bad input before any work is done, with messages that name the remedy."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import torch
from torch import Tensor

from robustloss.attacks.base import NORMS, Budgets, Norm
from robustloss.notation import NORM_NAMES, eps_text


def checked_eps(eps: Budgets, norm: Norm) -> tuple[float, ...]:
    """Return the budgets as floats.

    Args:
        eps: numbers in pixel units; L-inf ones in [0, 1], others finite and at least 0.
        norm: of eps.

    Raises:
        ValueError: no sequence, empty, not numbers, or out of range.
    """
    # Tensors and arrays are sequences in all but name.
    if isinstance(eps, str | bytes | dict | set) or not hasattr(eps, "__getitem__"):
        raise ValueError(f"eps (={eps!r}) must be a sequence of numbers, such as [0.1, 0.2].")
    values = eps.tolist() if hasattr(eps, "tolist") else list(eps)
    if not isinstance(values, list) or not values:
        raise ValueError(f"eps (={eps!r}) must hold at least one budget, such as [0.1].")
    for value in values:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ValueError(f"eps (={value!r}) must be a number.")
        budget = float(value)
        if norm == "linf" and not 0 <= budget <= 1:
            raise ValueError(
                f"eps (={eps_text(budget)}) must lie in [0, 1]: pixel units, not 0–255."
            )
        if not 0 <= budget < math.inf:
            raise ValueError(
                f"eps (={eps_text(budget)}) must be finite and at least 0: an {NORM_NAMES[norm]} "
                "length in pixel units, not 0–255."
            )
    return tuple(float(value) for value in values)


def check_inputs(inputs: Tensor) -> None:
    """Refuse anything but images (N,C,H,W) float32 in [0,1].

    Raises:
        ValueError: the message names what is wrong.
    """
    if not isinstance(inputs, Tensor):
        raise ValueError(f"inputs (={type(inputs).__name__}) must be a torch.Tensor.")
    if inputs.dim() != 4:
        raise ValueError(
            f"inputs (shape {tuple(inputs.shape)}) must have 4 dimensions: "
            "images, channels, height, width."
        )
    if inputs.dtype != torch.float32:
        raise ValueError(
            f"inputs (dtype {inputs.dtype}) must be float32 in [0, 1]; divide uint8 images by 255."
        )
    if inputs.numel() == 0:
        raise ValueError(f"inputs (shape {tuple(inputs.shape)}) must hold at least one image.")
    low, high = (float(bound) for bound in torch.aminmax(inputs.detach()))
    if not (low >= 0 and high <= 1):  # NaN fails both
        found = f"inputs (from {low:.9g} to {high:.9g})"
        if math.isnan(low) or math.isnan(high):
            raise ValueError(f"{found} must lie in [0, 1]; some pixels are NaN.")
        hint = "normalisation belongs inside the model"
        if low >= -1e-3 and high <= 1 + 1e-3:
            hint = "they are off by rounding: write inputs.clamp(0, 1)"
        raise ValueError(f"{found} must lie in [0, 1]; {hint}.")


def check_labels(labels: Tensor, n: int) -> int:
    """Refuse anything but labels (N,) int64 of at least 0; return the highest one.

    Args:
        labels: the true classes.
        n: number of images.

    Raises:
        ValueError: the message names what is wrong.
    """
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels (={type(labels).__name__}) must be a torch.Tensor.")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels (dtype {labels.dtype}) must be int64; use labels.long().")
    if labels.shape != (n,):
        raise ValueError(f"labels (shape {tuple(labels.shape)}) must have shape ({n},).")
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0:
        raise ValueError(f"labels (lowest {low}) must be at least 0.")
    return high


def checked_index(index: Tensor | Sequence[int] | None, n: int) -> Tensor:
    """Return what identifies each image as (N,) int64.

    Args:
        index: whole numbers of at least 0; None stands for the positions 0 to n - 1.
        n: number of images.

    Raises:
        ValueError: not whole numbers, negative, or of another length.
    """
    if index is None:
        return torch.arange(n)
    values = torch.as_tensor(index)
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"index (dtype {values.dtype}) must hold whole numbers.")
    if values.shape != (n,):
        raise ValueError(
            f"index (shape {tuple(values.shape)}) must have shape ({n},): one number per image."
        )
    if int(values.min()) < 0:
        raise ValueError(f"index (lowest {int(values.min())}) must be at least 0.")
    return values.to(torch.int64)


def check_integer(name: str, value: int, least: int | None = None) -> None:
    """Refuse anything but an int, optionally of at least some value.

    Args:
        name: what messages call the argument.
        value: what was given.
        least: the lowest value allowed; None allows all.

    Raises:
        ValueError: the message names the argument.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} (={value!r}) must be an integer.")
    if least is not None and value < least:
        raise ValueError(f"{name} (={value}) must be at least {least}.")


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Refuse what is not one of the known names.

    Args:
        name: what messages call the argument.
        value: what was given.
        known: the names to choose from, in the order in which messages list them.

    Raises:
        ValueError: the message lists the known names.
    """
    names = list(known)
    if value not in names:
        raise ValueError(f"{name} (={value!r}) must be one of {', '.join(map(repr, names))}.")


def check_norm(norm: str, known: Sequence[str] = NORMS) -> None:
    """Refuse a norm that is unknown, or that an attack does not have.

    Args:
        norm: what was given.
        known: the norms of the attack.

    Raises:
        ValueError: not one of them.
    """
    if norm in NORMS and norm not in known:
        raise ValueError(
            f"norm (={norm!r}) must be one of {', '.join(map(repr, known))} in this attack. "
            "Attacks in L1 are fgsm, pgd, mifgsm, apgd_ce, apgd_dlr, fmn, confidence, adaptive_*."
        )
    check_choice("norm", norm, known)


def check_paths(steps: int, step_size: float | None, restarts: int, *, random_start: bool) -> None:
    """Refuse settings of an attack that steps along paths inside a ball.

    Args:
        steps: per path, at least 1.
        step_size: a share of eps, positive; None stands for the attack's own.
        restarts: paths per image, at least 1; more than 1 needs the random start.
        random_start: whether paths begin at random.

    Raises:
        ValueError: the message names the argument.
    """
    check_integer("steps", steps, least=1)
    check_integer("restarts", restarts, least=1)
    if step_size is not None and not 0 < step_size < math.inf:
        raise ValueError(f"step_size (={step_size}) must be positive: a share of eps.")
    if restarts > 1 and not random_start:
        raise ValueError(
            f"restarts (={restarts}) would all be the same path: use random_start=True."
        )
