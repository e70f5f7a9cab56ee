"""Attacks of torchattacks behind our signature; see the table for what each of them takes."""

import difflib
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.adapted.model import AdaptedModel
from robustloss.attacks.adapted.torchattacks_table import ADAPTED, REFUSED, Entry
from robustloss.attacks.arguments import check_choice, check_integer, check_norm
from robustloss.attacks.ball import choose, distance
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import mispredicts
from robustloss.attacks.plugins import PluginError, check_parameters
from robustloss.attacks.sealing import seed_generators

PREFIX = "torchattacks:"
_THEIR_NORM = {"linf": "Linf", "l2": "L2"}
_SHRINK = 1e-6  # pixel units: how far from 0 and 1 the change of variables of CW can still move

_BUDGETS_STAND_BESIDE = "the budgets stand beside the parameters: eps = [0.1], not in them."
_FILLED = {
    "model": "it is the attacked model.",
    "eps": _BUDGETS_STAND_BESIDE,
    "max_epsilon": _BUDGETS_STAND_BESIDE,
    "seed": "it comes from the run's seed and the images.",
    "verbose": "progress is shown by the run.",
    "n_classes": "it is the model's own number of classes, at most 10 as published.",
    "multi_targeted": "torchattacks' code stops at the first class that it reaches; use 'fab'.",
}
_COUNTS = {
    "steps", "num_iter_set", "nb_iter", "nb_sample", "n_queries", "n_restarts", "eot_iter",
    "m", "N", "len_kernel", "noise_batch_size", "batch_max", "max_batch_size",
}  # fmt: skip


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
        """The attack's row of the table."""
        return ADAPTED[self.name.removeprefix(PREFIX)]

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Run torchattacks' code; see Attack.

        Raises:
            ValueError: images or classes that its code cannot take.
            AttackError: NaN in the model's logits or gradient.
        """
        entry = self.entry
        _, channels, height, width = inputs.shape
        if entry.square and height != width:
            raise ValueError(f"{self.name} takes square images only, not {height}x{width}.")
        if entry.three_channels and channels not in (1, 3):
            raise ValueError(f"{self.name} takes images of 1 or 3 channels, not {channels}.")
        grey = entry.three_channels and channels == 1
        images = inputs.expand(-1, 3 if grey else -1, -1, -1).contiguous()
        view = AdaptedModel(model, inputs.device, positive_logits=entry.positive_logits, grey=grey)
        seed = noise.batch_seed()
        if entry.minimum:
            return self._find_nearest(view, images, labels, seed)
        adv_inputs = [
            # 0 stands alone, and torchattacks divides by it.
            self._perturb(view, images, labels, budget, seed) if budget > 0 else images
            for budget in eps
        ]
        return AttackOutput(
            torch.stack(adv_inputs)[:, :, :channels],
            view.zero_gradient if entry.whole_batch else None,
        )

    @property
    def _targeted(self) -> bool:
        return self.name == f"{PREFIX}APGDT"

    @property
    def least_classes(self) -> int:
        """What its difference-of-logits ratio needs, where it climbs that."""
        if self._targeted:
            return 4
        return 3 if self.params.get("loss") == "dlr" else 2

    def _perturb(
        self, view: AdaptedModel, images: Tensor, labels: Tensor, eps: float, seed: int
    ) -> Tensor:
        """Return (B,C,H,W), whatever torchattacks returns at one eps."""
        factory = _find_class(self.name)
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
        # The difference-of-logits ratio divides by the third logit, or the third and fourth.
        if self.least_classes > 2:
            with torch.no_grad():
                classes = view(images[:1]).shape[1]
            if classes < self.least_classes:
                raise ValueError(
                    f"{self.name} with the difference-of-logits ratio needs at least "
                    f"{self.least_classes} classes, the model has {classes}; use 'pgd' with "
                    "objective 'margin'."
                )
            if self._targeted:
                keys["n_classes"] = min(10, classes)
        seed_generators(seed)  # for each eps anew: no result depends on the other eps asked for
        return factory(view, **keys)(images, labels).detach()

    def _find_nearest(
        self, view: AdaptedModel, images: Tensor, labels: Tensor, seed: int
    ) -> AttackOutput:
        """Return the attack's one image and its distance, which the harness judges."""
        diameter = 1.0 if self.norm == "linf" else math.sqrt(images[0].numel())
        start, wrong = images, torch.zeros_like(labels, dtype=torch.bool)
        if self.entry.shrunk:
            # tanh⁻¹ of 0 and 1 is infinite and has no slope: such pixels, most of MNIST's, would
            # never move. What is wrong from the start keeps its own pixels, and so radius 0.
            start = 0.5 + (1.0 - 2.0 * _SHRINK) * (images - 0.5)
            with torch.no_grad():
                wrong = mispredicts(view(images), labels)
        nearest = self._perturb(view, start, labels, diameter, seed)
        # 0 / 0 where the logits have no slope: nothing was found there. NaN of the model's own
        # making was refused by the view.
        lost = ~nearest.isfinite().flatten(1).all(dim=1)
        nearest = choose(lost | wrong, images, nearest)
        return AttackOutput(nearest.unsqueeze(0), radius=distance(nearest - images, self.norm))


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
        # Blind to upper and lower case, unlike plugins.did_you_mean: theirs follows no rule.
        folded = {known.casefold(): known for known in (*ADAPTED, *REFUSED)}
        close = difflib.get_close_matches(peer.casefold(), folded, n=1)
        hint = f"; did you mean '{PREFIX}{folded[close[0]]}'?" if close else "."
        raise PluginError(f"attack '{name}': unknown name{hint} Known: {', '.join(ADAPTED)}.")
    for key in params:
        if key in _FILLED:
            raise PluginError(f"{name}.{key}: not a parameter here; {_FILLED[key]}")
    factory, entry = _find_class(name), ADAPTED[peer]
    check_parameters(factory, params, name, given=_FILLED)
    defaults = {key: each.default for key, each in inspect.signature(factory).parameters.items()}
    try:
        for key, value in params.items():
            _check_value(key, value, defaults[key], entry)
    except ValueError as error:
        raise PluginError(f"attack '{name}': {error}") from error
    # The step size follows from eps at each call, unless the user gives one.
    left_out = {*_FILLED, "norm"} | ({entry.step_size} if entry.step else set())
    own = {key: default for key, default in defaults.items() if key not in left_out}
    keys = {**own, **entry.defaults, **params}
    norm: Any = keys.pop("norm", "linf") if entry.norm is None else entry.norm
    return TorchAttack(name=name, norm=norm, params=keys)


def _find_class(name: str) -> Any:
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
        check_norm(str(value), tuple(_THEIR_NORM))
    elif key in entry.choices:
        check_choice(key, value, entry.choices[key])
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
