"""Whether a model is as it was, after somebody else's code had it in its hands.

An attack of somebody else's may change the model that judges it, and every attack after it. It can
do so in more ways than can be listed, so two things are compared: what the model consists of, and
what it answers.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from robustloss.attacks.base import AttackError
from robustloss.attacks.patches import find_replaced, list_functions
from robustloss.attacks.sealing import sealing, seeding_generators

_ASKED = 4  # images that the model is asked about
_DEEP = 8  # lists in lists that are looked into
_LONG = 10_000  # entries of one of them
_OURS = "robustloss"
_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith(("_hooks", "_with_kwargs")))
_GLOBAL_HOOKS = tuple(name for name in vars(torch_module) if name.startswith("_global_"))
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)

Parts = dict[str, Any]  # by name; equal values mean that nothing has changed


class ModelWitness:
    """What a model consists of and what it answers, to be compared later.

    What changes whenever the model is asked, such as a count of its calls, is not compared.

    Args:
        model: In eval mode.
        images: (B,C,H,W) on its device; it is asked about the first few.
        name: Of the attack that will have the model.
    """

    def __init__(self, model: nn.Module, images: Tensor, name: str) -> None:
        self.model, self.images = model, images[:_ASKED].detach().clone()
        self.name = name
        first = self._ask()  # whatever is built by the first call is there from now on
        before = _Description(model).parts
        self.answers: list[Tensor] | None = self._ask()
        self.parts = _Description(model).parts
        self.restless = sorted(_differences(before, self.parts))
        if not _same_answers(first, self.answers):
            self.answers = None  # a model of its own chance tells nothing
        self.functions = list_functions()

    def check(self) -> None:
        """Compare the model with what it was.

        Raises:
            AttackError: The model is another, or gives other answers.
        """
        if replaced := find_replaced(self.functions):
            _refuse(self.name, "functions that others use", replaced)
        now = _Description(self.model).parts
        changed = [part for part in _differences(self.parts, now) if not self._is_restless(part)]
        if changed:
            values = all(part.endswith(_VALUES) for part in changed)
            _refuse(self.name, "the model's parameters" if values else "the model", changed)
        if self.answers is not None and not _same_answers(self.answers, self._ask()):
            raise AttackError(
                f"attack '{self.name}' changed what the model answers to the same images. An "
                "attack may ask a model, but must not change it."
            )

    def _is_restless(self, part: str) -> bool:
        """Return whether a part, or what it is a part of, changes whenever the model is asked."""
        return any(
            part.startswith(root) and part[len(root) :][:1] in ("", ".", "[", " ")
            for root in self.restless
        )

    def _ask(self) -> list[Tensor]:
        """Return all that the model says of the images: logits, likelihoods, features."""
        said: list[Tensor] = []
        with seeding_generators(self.images.device, 0), torch.no_grad():
            for name in ("forward", "joint", "scored", "features"):
                offered = self.model if name == "forward" else getattr(self.model, name, None)
                if not callable(offered):
                    continue
                try:
                    found = offered(self.images.clone())
                except Exception:
                    if name == "forward":
                        raise
                    continue  # offered for something else
                outputs = found if isinstance(found, tuple | list) else (found,)
                said += [each.detach().clone() for each in outputs if isinstance(each, Tensor)]
        return said


_watched: ContextVar[dict[int, ModelWitness] | None] = ContextVar("watched", default=None)


@contextmanager
def watching() -> Iterator[None]:
    """Compare each model that an attack meets in the block with what it was at the beginning.

    Raises:
        AttackError: At the end of the block, as `ModelWitness.check`: the code of an attack may go
            on after it has returned.
    """
    token = _watched.set({})
    try:
        yield
        for witness in (_watched.get() or {}).values():
            with sealing(witness.model, witness.images.device, 0):
                witness.check()
    finally:
        _watched.reset(token)


def find_witness(model: nn.Module, images: Tensor, name: str) -> ModelWitness:
    """Return a new witness, or in a block of `watching` the one that the model has.

    Args: as for `ModelWitness`.
    """
    unwrap = getattr(type(model), "unwrap", None)  # of a module that takes notes when it is asked
    model = unwrap(model) if unwrap else model
    known = _watched.get()
    if known is None:
        return ModelWitness(model, images, name)
    if id(model) not in known:  # its witness holds it, so no other takes its place
        known[id(model)] = ModelWitness(model, images, name)
    return known[id(model)]


def is_ours(attack: object) -> bool:
    """Return whether an attack runs code of this project alone.

    What is adapted from other libraries does not, nor a function that was made an attack.
    """
    module = type(attack).__module__
    others = (f"{_OURS}.attacks.functions", f"{_OURS}.attacks.adapted.")
    return module.startswith(f"{_OURS}.attacks.") and not module.startswith(others)


def _refuse(name: str, what: str, parts: list[str]) -> None:
    named = ", ".join(part.removesuffix(_VALUES) for part in sorted(parts)[:3])
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    raise AttackError(
        f"attack '{name}' changed {what}; load the model again. It changed {named}{more}; an "
        "attack may ask a model, but must not change it."
    )


def _same_answers(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(_same_answer, one, other))


def _same_answer(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.device.type == "cpu":
        return digest_bits(one) == digest_bits(other)
    # The order in which a GPU adds may change from call to call.
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


# --- what a model consists of ---------------------------------------------------------------

_VALUES = " (values)"


class _Same:
    """An object that equals itself alone, and is kept, so that no other takes its place."""

    def __init__(self, it: object) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it

    __hash__ = None  # type: ignore[assignment]


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    absent = object()
    for key in one.keys() | other.keys():
        if one.get(key, absent) != other.get(key, absent):
            yield key


class _Description:
    """Modules, tensors, hooks, attributes and classes of a model, by readable names.

    Args:
        model: What is described.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parts: Parts = {}
        self.seen: set[int] = set()
        self._add_module("", model)
        for name in _GLOBAL_HOOKS:
            hooks = vars(torch_module)[name]
            self.parts[f"torch.nn.{name}"] = _list_same(hooks) if isinstance(hooks, dict) else hooks

    def _add_module(self, path: str, module: nn.Module) -> None:
        self.seen.add(id(module))
        for kind in type(module).__mro__[:-1]:
            if id(kind) not in self.seen:
                self.seen.add(id(kind))
                for name, value in vars(kind).items():
                    if name not in ("__dict__", "__weakref__"):
                        self._add(f"{kind.__qualname__}.{name}", value, 0)
        where = f"{path}." if path else ""
        self.parts[f"{where}type"] = _Same(type(module))
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    self._add(where + key, tensor, 0)
            elif name == "_modules":
                self.parts[f"{where}modules"] = _list_same(value)
                for key, part in value.items():
                    if part is not None and id(part) not in self.seen:
                        self._add_module(where + key, part)
            elif name in _HOOKS:
                self.parts[where + name] = _list_same(value)
            elif name != "training":  # the flag is put back anyway
                self._add(where + name, value, 0)

    def _add(self, name: str, value: Any, depth: int) -> None:
        """Add a value, and what it holds, under a name."""
        if isinstance(value, _PLAIN):
            self.parts[name] = repr(value)
            return
        if isinstance(value, MethodType):  # made anew whenever it is looked up
            self.parts[name] = _Same(value.__self__), _Same(value.__func__.__code__)
            return
        self.parts[name] = _Same(value)
        if id(value) in self.seen or depth > _DEEP:
            return
        self.seen.add(id(value))
        if isinstance(value, Tensor):
            self.parts[name] = _Same(value), value.dtype, value.device, value.shape
            self.parts[name + _VALUES] = digest_bits(value)
        elif isinstance(value, np.ndarray):
            self.parts[name] = (
                value.dtype.str,
                value.shape,
                hashlib.sha256(value.tobytes()).digest(),
            )
        elif isinstance(value, FunctionType):
            self.parts[name] = [_Same(each) for each in (value, value.__code__, value.__defaults__)]
        elif isinstance(value, nn.Module):
            self._add_module(name, value)
        elif isinstance(value, ModuleType | type):
            pass
        elif isinstance(value, Mapping):
            self.parts[name] = _Same(value), len(value)
            for number, (key, each) in enumerate(list(value.items())[:_LONG]):
                shown = repr(key) if isinstance(key, _PLAIN) else number
                self._add(f"{name}[{shown}]", each, depth + 1)
        elif isinstance(value, list | tuple | set | frozenset):
            self.parts[name] = _Same(value), len(value)
            for number, each in enumerate(list(value)[:_LONG]):
                self._add(f"{name}[{number}]", each, depth + 1)
        else:
            for key, each in list(getattr(value, "__dict__", {}).items()):
                self._add(f"{name}.{key}", each, depth + 1)


def _list_same(named: Mapping[Any, object]) -> list[Any]:
    return [(key, _Same(value)) for key, value in named.items()]


def digest_bits(tensor: Tensor) -> bytes:
    """Return a digest of the bits of a tensor, whatever its layout; b"" where it has none."""
    value = tensor.detach()
    if value.is_meta:
        return b""
    if value.is_nested:
        return b"".join(map(digest_bits, value.unbind()))
    if value.is_quantized:
        value = value.int_repr()
    elif value.layout != torch.strided:
        value = value.to_dense()
    value = value.resolve_conj().resolve_neg().cpu().contiguous()
    return hashlib.sha256(value.flatten().view(torch.uint8).numpy().data).digest()
