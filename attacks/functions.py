"""A user's own attack: a plain function becomes an Attack."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_choice, check_norm
from robustloss.attacks.base import NEEDS, Attack, AttackError, AttackOutput, Budgets, Needs, Norm
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.plugins import PluginError, check_parameters
from robustloss.attacks.sealing import seed_generators


@dataclass(frozen=True, eq=False, kw_only=True)
class FunctionAttack:
    """A function behind the Attack signature.

    A function (model, inputs, labels, eps) is called once per eps, with eps a float, and returns
    the attacked images (B,C,H,W). A function that also takes `noise` is called once with all eps,
    and returns what an Attack returns, or the bare (E,B,C,H,W) tensor.

    Before each call the global generators are seeded from the seed and the batch's image indices,
    so that a function which draws from them repeats itself, whatever other eps are asked for.

    Args:
        function: the attack.
        name: what messages call it.
        norm: in which its eps are measured.
        needs: "likelihood" asks for a model with `joint` and `threshold`; see Attack.
        params: further keyword arguments.
    """

    function: Callable[..., Any]
    name: str
    norm: Norm = "linf"
    needs: Needs = "logits"
    params: Mapping[str, object] = field(default_factory=dict)

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Call the function; see Attack.

        Raises:
            AttackError: a function of one eps returned anything but one image for each input.
        """
        seed = noise.batch_seed()
        if "noise" in inspect.signature(self.function).parameters:
            seed_generators(seed)
            output = self.function(model, inputs, labels, eps=eps, noise=noise, **self.params)
            return AttackOutput(output) if isinstance(output, Tensor) else output
        outputs: list[AttackOutput] = []
        for budget in eps:
            seed_generators(seed)
            output = self.function(model, inputs.clone(), labels.clone(), eps=budget, **self.params)
            if isinstance(output, Tensor) and output.shape == inputs.shape:
                output = AttackOutput(output.unsqueeze(0))
            images = output.adv_inputs if isinstance(output, AttackOutput) else output
            if not isinstance(output, AttackOutput) or images.shape != (1, *inputs.shape):
                tensor = isinstance(images, Tensor)
                what = f"shape {tuple(images.shape)}" if tensor else type(output).__name__
                raise AttackError(
                    f"attack '{self.name}' returned {what}; a function that takes one eps must "
                    f"return images of shape {tuple(inputs.shape)}, or an AttackOutput of (1, ...)."
                )
            outputs.append(output)
            if outputs[0].radius is not None:  # a minimum-norm attack does not depend on eps
                return outputs[0]
        adv_inputs = torch.cat([each.adv_inputs for each in outputs])
        return AttackOutput(adv_inputs, outputs[0].zero_gradient)


def attack_from_function(
    function: Callable[..., Any], name: str, params: Mapping[str, object]
) -> FunctionAttack:
    """Bind a user's function and its parameters.

    `norm` and `needs` are read from the parameters, else from the function's attribute or default
    value of that name, else they are "linf" and "logits"; a function that names them gets them too.

    Args:
        function: takes (model, inputs, labels, eps), and further parameters as keywords.
        name: what messages call the attack.
        params: the further keyword arguments.

    Raises:
        PluginError: wrong signature, unknown or missing parameter, unknown norm or needs.
    """
    signature = inspect.signature(function)
    known = list(signature.parameters)
    if len(known) < 4 or "eps" not in known[3:]:
        raise PluginError(
            f"attack '{name}' takes ({', '.join(known)}); it must take "
            "(model, inputs, labels, eps), further parameters as keywords."
        )
    kind: dict[str, Any] = {}
    for key, default in (("norm", "linf"), ("needs", "logits")):
        own = signature.parameters.get(key)
        if own is not None and own.default is not own.empty:
            default = own.default
        kind[key] = params.get(key, getattr(function, key, default))
    passed = {key: value for key, value in params.items() if key not in kind or key in known}
    check_parameters(function, passed, name, given=(*known[:3], "eps", "noise"))
    attack = FunctionAttack(function=function, name=name, params=passed, **kind)
    _check_kind(attack, name)
    return attack


def as_attack(attack: object, name: str | None = None) -> Attack:
    """Return an Attack as it is, and a plain function as one.

    Args:
        attack: an Attack, or a function (model, inputs, labels, eps).
        name: what messages call it; None stands for its own name.

    Raises:
        PluginError: neither an attack nor a function, or of an unknown norm or needs.
    """
    label = name or str(getattr(attack, "__name__", type(attack).__name__))
    if inspect.isfunction(attack):
        return attack_from_function(attack, label, {})
    missing = [key for key in ("name", "norm", "needs") if not hasattr(attack, key)]
    if isinstance(attack, type) or not callable(attack) or missing:
        lacks = f"has no {', '.join(missing)}" if missing else "is a class, not an instance of it"
        raise PluginError(
            f"attack '{label}' {lacks}; an attack is a function (model, inputs, labels, eps), "
            "or an object with name, norm, needs and __call__."
        )
    _check_kind(cast(Attack, attack), label)
    return cast(Attack, attack)


def _check_kind(attack: Attack, label: str) -> None:
    try:
        check_norm(attack.norm)
        check_choice("needs", attack.needs, NEEDS)
        if attack.needs == "score" and not isinstance(getattr(attack, "score", None), str):
            raise ValueError('needs (="score") goes with score, the name of the one to deceive.')
    except ValueError as error:
        raise PluginError(f"attack '{label}': {error}") from error
