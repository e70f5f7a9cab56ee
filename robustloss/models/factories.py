"""Networks of the user's: called with their parameters, and checked for what they return."""

from collections.abc import Mapping

from torch import nn

from robustloss.attacks.plugins import check_parameters
from robustloss.attacks.settings import preserving_settings


def call_factory(
    name: str,
    factory: object,
    params: Mapping[str, object],
    given: Mapping[str, object] | None = None,
) -> nn.Module:
    """Return the module that a function or class of the user's makes.

    Args:
        name: What messages call it.
        factory: What the name points at.
        params: Its parameters, from the spec.
        given: Keyword arguments that robustloss decides itself.

    Raises:
        ValueError: It cannot be called, fails, or makes no torch.nn.Module. The message names what
            it raised.
    """
    given = given or {}
    if not callable(factory):
        raise ValueError(
            f"{name} must be a function or class that returns a torch.nn.Module, got "
            f"{type(factory).__name__}."
        )
    check_parameters(factory, params, name, given)
    try:
        with preserving_settings():
            module = factory(**given, **params)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        used = " and ".join(filter(None, (", ".join(given), "its params")))
        raise ValueError(f"{name} could not be built with {used}: {reason}") from error
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name} must return a torch.nn.Module, got {type(module).__name__}.")
    return module
