"""Attacks of torchattacks behind our signature; see the table for what each of them takes."""

import difflib
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.adapted.model import AdaptedModel
from robustloss.attacks.adapted.torchattacks_table import ADAPTED, REFUSED, Entry
from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import distance
from robustloss.attacks.base import AttackOutput, Needs, Norm
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.plugins import PluginError, check_parameters
from robustloss.attacks.sealing import seed_global_random

PREFIX = "torchattacks:"
_THEIR_NORM = {"linf": "Linf", "l2": "L2"}
_SHRINK = 1e-6  # pixel units: how far from 0 and 1 the change of variables of CW can still move

_FILLED = {
    "model": "it is the attacked model.",
    **dict.fromkeys(
        ("eps", "max_epsilon"), "the budgets stand beside the parameters: eps = [0.1], not in them."
    ),
    "seed": "it comes from the run's seed and the images.",
    "verbose": "progress is shown by the run.",
    "n_classes": "it is the model's own number of classes, at most 10 as published.",
    "multi_targeted": "torchattacks' code stops at the first class that it reaches; use 'fab'.",
}
_COUNTS = {"steps", "num_iter_set", "nb_iter", "nb_sample", "n_queries", "n_restarts", "eot_iter"}


_COUNTS |= {"m", "N", "len_kernel", "noise_batch_size", "batch_max", "max_batch_size"}


@dataclass(frozen=True, kw_only=True)
class TorchAttack:
    """An attack of torchattacks, run once for each eps, or once where it looks for the nearest.

    Untargeted only: targets are an attack's own affair (APGDT picks its own). A step size given by
    the user is in pixel units, as torchattacks takes it, and the same for every eps. Batch size
    decides the result: torchattacks draws from the global generators, which are seeded from the
    run's seed and the batch's image indices, and some attacks stop when the batch as a whole does.

    Args:
        name: "torchattacks:NAME".
        norm: of eps and radius.
        params: what torchattacks is given beside model, eps and seed.
    """

    name: str
    norm: Norm
    params: Mapping[str, object]

    needs: ClassVar[Needs] = "logits"

    @property
    def entry(self) -> Entry:
        """The attack's line of the table."""
        return ADAPTED[self.name.removeprefix(PREFIX)]

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        *,
        eps: Sequence[float],
        noise: ImageNoise,
    ) -> AttackOutput:
        """Run torchattacks' code; see Attack.

        Raises:
            ValueError: images or classes that its code cannot take.
            AttackError: NaN in the model's logits or gradient.
        """
        grey = self._check_images(inputs)
        images = inputs.expand(-1, 3 if grey else -1, -1, -1).contiguous()
        view = AdaptedModel(
            model, inputs.device, positive_logits=self.entry.positive_logits, grey=grey
        )
        seed = noise.batch_seed()
        if self.entry.minimum:
            return self._nearest(view, images, labels, seed)
        found = [
            # 0 stands alone, and torchattacks divides by it.
            self._attacked(view, images, labels, budget, seed) if budget > 0 else images
            for budget in eps
        ]
        adv_inputs = torch.stack(found)[:, :, : inputs.shape[1]]
        return AttackOutput(adv_inputs, view.zero_gradient if self.entry.whole_batch else None)

    def _attacked(
        self, view: AdaptedModel, images: Tensor, labels: Tensor, eps: float, seed: int
    ) -> Tensor:
        """(B,C,H,W), whatever torchattacks returns."""
        factory = _factory(self.name)
        entry, keys = self.entry, dict(self.params)
        known = inspect.signature(factory).parameters
        if entry.budget in known:
            keys[entry.budget] = eps
        if entry.step is not None:
            steps = keys.get(entry.steps, 1)
            assert isinstance(steps, int)
            # No farther than eps but for FFGSM, whose only step starts off the centre.
            share = entry.step / steps if entry.steps not in known else min(1, entry.step / steps)
            keys.setdefault(entry.step_size, eps * share)
        filled: dict[str, object] = {"norm": _THEIR_NORM[self.norm], "seed": seed}
        keys |= {key: value for key, value in filled.items() if key in known}
        keys |= self._targets(view, images)
        seed_global_random(seed)  # for each eps anew: no result depends on the other eps asked for
        return factory(view, **keys)(images, labels).detach()

    def _nearest(
        self, view: AdaptedModel, images: Tensor, labels: Tensor, seed: int
    ) -> AttackOutput:
        """The attack's one image and its distance, which the harness judges."""
        diameter = 1.0 if self.norm == "linf" else math.sqrt(images[0].numel())
        start, wrong = images, torch.zeros_like(labels, dtype=torch.bool)
        if self.entry.shrunk:
            # tanh⁻¹ of 0 and 1 is infinite and has no slope: such pixels, most of MNIST's, would
            # never move. What is wrong from the start keeps its own pixels, and so radius 0.
            start = 0.5 + (1.0 - 2.0 * _SHRINK) * (images - 0.5)
            with torch.no_grad():
                wrong = view(images).argmax(dim=1) != labels
        found = self._attacked(view, start, labels, diameter, seed)
        # 0 / 0 where the logits have no slope: nothing was found there. NaN of the model's own
        # making was refused by the view.
        lost = ~found.isfinite().flatten(1).all(dim=1)
        found = torch.where((lost | wrong).view(-1, 1, 1, 1), images, found)
        radius = distance(found - images, self.norm)
        return AttackOutput(found.unsqueeze(0), radius=radius)

    def _check_images(self, inputs: Tensor) -> bool:
        """Whether they are grey and the code wants three channels; refuse what it cannot take."""
        _, channels, height, width = inputs.shape
        if self.entry.square and height != width:
            raise ValueError(f"{self.name} takes square images only, not {height}x{width}.")
        if self.entry.three_channels and channels not in (1, 3):
            raise ValueError(f"{self.name} takes images of 1 or 3 channels, not {channels}.")
        return self.entry.three_channels and channels == 1

    def _targets(self, view: AdaptedModel, images: Tensor) -> dict[str, object]:
        """The number of classes, for the attack that takes it; refuse too few for the loss."""
        targeted = self.name == f"{PREFIX}APGDT"
        least = 4 if targeted else 3 if self.params.get("loss") == "dlr" else 0
        if not least:
            return {}
        with torch.no_grad():
            count = view(images[:1]).shape[1]
        if count < least:
            raise ValueError(
                f"{self.name} with the difference-of-logits ratio needs at least {least} classes, "
                f"the model has {count}; use 'pgd' with objective 'margin'."
            )
        return {"n_classes": min(10, count)} if targeted else {}


def adapt(name: str, params: Mapping[str, object]) -> TorchAttack:
    """Build an attack of torchattacks.

    Args:
        name: "torchattacks:NAME".
        params: torchattacks' own parameters; `norm`, where it takes one, is "linf" or "l2".

    Raises:
        PluginError: an attack that cannot be compared by L-inf or L2, an unknown name or
            parameter, a refused value, or no torchattacks.
    """
    peer = name.removeprefix(PREFIX)
    if peer in REFUSED:
        raise PluginError(
            f"attack '{name}': it {REFUSED[peer]}. Adapted are attacks on one model with an L-inf "
            "or L2 budget, or of minimum norm."
        )
    if peer not in ADAPTED:
        raise PluginError(
            f"attack '{name}': unknown name{_did_you_mean(peer)} Known: {', '.join(ADAPTED)}."
        )
    for key in params:
        if key in _FILLED:
            raise PluginError(f"{name}.{key}: not a parameter here; {_FILLED[key]}")
    factory, entry = _factory(name), ADAPTED[peer]
    check_parameters(factory, params, name, given=_FILLED)
    own = {
        key: each.default
        for key, each in inspect.signature(factory).parameters.items()
        if key not in _FILLED and key != "norm" and not (entry.step and key == entry.step_size)
    }
    try:
        for key, value in params.items():
            _check_value(key, value, inspect.signature(factory).parameters[key].default, entry)
    except ValueError as error:
        raise PluginError(f"attack '{name}': {error}") from error
    keys = {**own, **entry.defaults, **params}
    norm: Any = keys.pop("norm", "linf") if entry.norm is None else entry.norm
    return TorchAttack(name=name, norm=norm, params=keys)


def _factory(name: str) -> Any:
    try:
        import torchattacks  # seconds, and only for those who use it
    except ImportError as error:
        raise PluginError(
            f"attack '{name}' needs torchattacks ({error}); pip install torchattacks."
        ) from error
    return getattr(torchattacks, name.removeprefix(PREFIX))


def _check_value(key: str, value: object, default: object, entry: Entry) -> None:
    """Refuse what torchattacks would trip over, or run with and do nothing.

    Raises:
        ValueError: the message names the parameter.
    """
    if key == "norm":
        check_norm(str(value))
    elif key in entry.choices:
        if value not in entry.choices[key]:
            known = ", ".join(map(repr, entry.choices[key]))
            raise ValueError(f"{key} (={value!r}) must be one of {known}.")
    elif key in _COUNTS:
        check_integer(key, value, least=1)  # type: ignore[arg-type]
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{key} (={value!r}) must be true or false.")
    elif not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < math.inf:
        raise ValueError(f"{key} (={value!r}) must be a finite number.")
    elif key == entry.step_size and not value > 0:
        raise ValueError(f"{key} (={value}) must be positive: pixel units, the same for every eps.")
    elif key == "resize_rate" and not 0 < value < 1:
        raise ValueError(f"{key} (={value}) must lie between 0 and 1.")


def _did_you_mean(name: str) -> str:
    """As plugins.did_you_mean, but blind to upper and lower case: theirs follows no rule."""
    lower = {known.casefold(): known for known in (*ADAPTED, *REFUSED)}
    close = difflib.get_close_matches(name.casefold(), lower, n=1)
    return f"; did you mean '{PREFIX}{lower[close[0]]}'?" if close else "."
