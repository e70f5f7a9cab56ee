"""Functions of torch, NumPy, Python and this project that somebody else's code has replaced.

They decide the numbers of all code that runs in the same process, whoever wrote it.
"""

import builtins
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

_OURS = "robustloss"
_TORCH_FOLDER = str(Path(torch.__file__).parent)
_NAMESPACES = {
    "torch": torch,
    "torch.nn.functional": nn.functional,
    "torch.nn.init": nn.init,
    "torch.Tensor": torch.Tensor,
    "numpy": np,
    "builtins": builtins,
}


@dataclass(frozen=True)
class Namespace:
    """The functions and classes of one module or class.

    Attributes:
        owner: The module or class.
        functions: By name, each with its code where it is written in Python.
    """

    owner: Any
    functions: dict[str, tuple[Any, Any]]


def list_functions() -> dict[str, Namespace]:
    """Return the functions and classes that decide numbers, as they are now."""
    owners: dict[str, Any] = dict(_NAMESPACES)
    owners |= {f"torch.nn.{key}": kind for key, kind in vars(nn).items() if isinstance(kind, type)}
    for name, module in list(sys.modules.items()):
        if module is not None and name.partition(".")[0] == _OURS:
            owners[name] = module
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value.__module__ == name:
                    owners[f"{name}.{key}"] = value
    return {
        name: Namespace(
            owner,
            {
                key: (value, getattr(value, "__code__", None))
                for key, value in list(vars(owner).items())
                if _is_code(value)
            },
        )
        for name, owner in owners.items()
    }


def find_replaced(before: dict[str, Namespace]) -> list[str]:
    """Put back the functions that were replaced, and return their names.

    Args:
        before: What `list_functions` returned. Functions that are new since do not count, unless
            they take the place of one that a class inherits.
    """
    found = []
    for place, namespace in before.items():
        owner = namespace.owner
        for name, (function, code) in namespace.functions.items():
            now = vars(owner).get(name)
            if now is not function and not _is_of_torch(now):
                found.append(f"{place}.{name}")
                setattr(owner, name, function)
            if code is not None and function.__code__ is not code:
                found.append(f"{place}.{name}")
                function.__code__ = code
        if isinstance(owner, type):
            for name, value in list(vars(owner).items()):
                new = name not in namespace.functions and _is_code(value)
                if new and any(name in vars(kind) for kind in owner.__mro__[1:]):
                    found.append(f"{place}.{name}")
                    delattr(owner, name)
    return sorted(set(found))


def _is_code(value: object) -> bool:
    return callable(value) or isinstance(value, property | staticmethod | classmethod)


def _is_of_torch(function: object) -> bool:
    """Return whether torch has written a function: it replaces some of its own by and by."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(_TORCH_FOLDER)
