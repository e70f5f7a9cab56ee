"""The user's own detection scores: a function of a Record, by name, and its torch form."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from robustloss.analysis.detection.scores import Score
from robustloss.attacks.patches import find_replaced, list_functions
from robustloss.attacks.plugins import PluginError, load_object
from robustloss.attacks.settings import preserving_settings

Array = NDArray[Any]
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class TorchForm(NamedTuple):
    """A score of the user's as a torch function, which an attack can follow.

    Attributes:
        function: Of `evaluation.torch_scores.Outputs`; returns (B,).
        takes_reference: Whether it also takes the reference arrays, as tensors.
    """

    function: Callable[..., Any]
    takes_reference: bool


def load(
    names: Sequence[str], reference: Mapping[str, Array], folders: Sequence[Path]
) -> dict[str, Score]:
    """Return the user's scores among the names, by name.

    Args:
        names: Scores; those with a colon are loaded, "module:function" or "file.py:function".
        reference: What a function with a second argument is given: arrays of clean images alone,
            "train_features" (M,D) and "train_labels" (M,), "validation_logits" (V,K), and so on.
        folders: Where a relative path is looked for first.

    Returns:
        Functions of a Record that give (N,); higher is more typical of clean images.

    Raises:
        PluginError: There is no such function, or it takes other arguments.
    """
    return {name: _load_score(name, reference, folders) for name in names if ":" in name}


def check(names: Sequence[str], folders: Sequence[Path]) -> None:
    """Refuse scores that cannot be loaded, before anything is trained.

    Args:
        names: See `load`.
        folders: See `load`.

    Raises:
        PluginError: See `load`.
    """
    for name in load(names, {}, folders):
        find_torch_form(name, folders)


def find_torch_form(name: str, folders: Sequence[Path]) -> TorchForm | None:
    """Return the torch form of a score: "gap_torch" beside "gap", in the same file.

    Args:
        name: One with a colon.
        folders: See `load`.

    Raises:
        PluginError: See `load`.
    """
    score = load_object(name, folders)
    twin = f"{getattr(score, '__name__', '')}_torch"
    function = getattr(inspect.getmodule(score), twin, None)
    if function is None:
        return None
    named = f"{name}_torch"
    if not inspect.isfunction(function):
        raise PluginError(f"score '{named}' is no function, which a torch form must be.")
    return TorchForm(function, _takes_reference(named, function))


def _load_score(name: str, reference: Mapping[str, Array], folders: Sequence[Path]) -> Score:
    """Return a function of a Record alone, which passes the reference on where it is asked for.

    It is given copies: what it writes on them must not reach the other scores.
    """
    function = load_object(name, folders)
    if not callable(function) or inspect.isclass(function):
        raise PluginError(
            f"score '{name}' is no function. Name one that takes a Record and returns (N,) numbers."
        )
    given = (reference,) if _takes_reference(name, function) else ()
    return lambda record: _call(name, function, record, *given)


def _takes_reference(name: str, function: Callable[..., Any]) -> bool:
    """Return whether a score takes the reference beside the record; refuse any other signature."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some compiled functions have no signature
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind in _BY_PLACE]
    takes_all = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    only_named = [p.name for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    if (len(needed) not in (1, 2) and not takes_all) or only_named:
        raise PluginError(
            f"score '{name}' must take a Record, or a Record and the reference arrays, by "
            f"position; it needs ({', '.join(p.name for p in parameters)})."
        )
    return len(needed) == 2


def _call(name: str, function: Callable[..., Any], *given: Any) -> Any:
    before = list_functions()
    with preserving_settings():
        values = function(*copy.deepcopy(given))
    if replaced := find_replaced(before):
        raise PluginError(
            f"score '{name}' replaced {', '.join(replaced[:3])}, on which all numbers rest; call "
            "functions of its own instead."
        )
    return values
