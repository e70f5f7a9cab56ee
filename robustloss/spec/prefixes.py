"""Names in a spec that point at code: a package's, by a prefix in its own place, or the user's."""

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import AfterValidator

from robustloss.spec.errors import rule_error

Place = Literal["loss", "attack", "backbone", "model", "score", "data set"]

PREFIXES: dict[str, tuple[Place, ...]] = {
    "pml": ("loss",),
    "criterion": ("loss",),
    "torchattacks": ("attack",),
    "torchvision": ("backbone", "data set", "model"),
    "timm": ("backbone", "model"),
    "transformers": ("model",),
}
"""What each prefix may name. It stands for a package, never for a module of the user's; but for
"criterion", which stands before the name of any code."""

MODEL_LIBRARIES = ("torchvision", "timm", "transformers")
"""Packages that build a whole model. The first two by name; transformers reads a folder."""

MODEL_FILES = (".pt2", ".pt", ".pth", ".ts")
"""Endings of a file that holds a whole model, as torch.jit.save or torch.export.save write it."""

WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
"""Endings of a file of weights."""

CRITERION = "criterion:"
_OF_TORCH = ("torch.nn", "torch.nn.functional")  # whose criteria are nobody's own code


def is_plugin(name: str) -> bool:
    """Tell whether a name points at the user's own code; one that `misplaced_rule` accepts."""
    if name.startswith(CRITERION):
        return own_code(name).rpartition(":")[0] not in _OF_TORCH
    prefix, colon, _ = name.partition(":")
    return is_model_file(name) or (bool(colon) and prefix not in PREFIXES)


def is_model_file(name: str) -> bool:
    """Tell whether a name is that of a file with a whole model: a program that is run."""
    return name.endswith(MODEL_FILES) and not is_library_model(name)


def is_library_model(name: str) -> bool:
    """Tell whether a name of a whole model is "torchvision:", "timm:" or "transformers:" one."""
    return name.partition(":")[0] in MODEL_LIBRARIES


def names_weights(model: str | None, weights: str | None) -> bool:
    """Tell whether weights are named as torchvision or timm call them, and are no file.

    Args:
        model: the whole model, as a spec names it; None for a network of robustloss.
        weights: as a spec names them.
    """
    if model is None or weights is None or not is_library_model(model):
        return False
    return not ("/" in weights or "\\" in weights or weights.endswith(WEIGHT_FILES))


def own_code(name: str) -> str:
    """Return a plug-in's name as it is loaded: "criterion:file.py:f" is "file.py:f"."""
    return name.removeprefix(CRITERION)


def misplaced_rule(name: str, place: Place) -> str:
    """Return the rule that a name's prefix breaks, with the remedy; "" where it breaks none.

    Nothing but the builders of those places know a prefix. Anywhere else the name would be taken
    for a module, and a file of that name beside the spec would run without being called a plug-in.

    Args:
        name: of a loss, attack, backbone, model, score or data set, as a spec or run folder has it.
        place: what it is to name.
    """
    prefix, colon, rest = name.partition(":")
    if not colon or place in PREFIXES.get(prefix, (place,)):
        return ""
    own = rest.rpartition(":")[2] or "Name"
    named = " or ".join(PREFIXES[prefix])
    article = "an" if named.startswith("a") else "a"
    return (
        f'begins with "{prefix}:", which names {article} {named} and no {place}. Name code by '
        f'its file or module: "path/to/file.py:{own}" or "package.module:{own}".'
    )


def canonical_name(name: str, known: Iterable[str]) -> str:
    """Return a name as files store it: "FGSM" is "fgsm", "L-GM" is "lgm".

    Args:
        name: as the user wrote it, in any case, with spaces, hyphens and underscores anywhere.
        known: the names as they are stored.

    Returns:
        The known name of the same letters and digits; where there is none, the name as it is, but
        for the case of a prefix.
    """
    prefix, colon, rest = name.partition(":")
    if colon and prefix.casefold() in PREFIXES:
        name = f"{prefix.casefold()}:{rest}"

    def squeeze(text: str) -> str:
        return re.sub(r"[-_\s]", "", text.casefold())

    return {squeeze(each): each for each in known}.get(squeeze(name), name)


def placed(place: Place, known: Iterable[str]) -> AfterValidator:
    """Make the validator that refuses a prefix which belongs to another place.

    Args:
        place: what the name is to name.
        known: the built-in names, which may be written in any case.
    """

    def check(name: str) -> str:
        name = canonical_name(name, known)
        if rule := misplaced_rule(name, place):
            raise rule_error(rule)
        return name

    return AfterValidator(check)
