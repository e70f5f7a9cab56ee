"""Tables [train] and [train.adversarial]: how a network is trained."""

import math
from typing import Any, Literal, Self

from pydantic import (
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from robustloss.notation import eps_text
from robustloss.spec.base import Count, Eps, Table, as_tuple, declare, pixel_rule
from robustloss.spec.errors import rule_error

STEPS = {"fgsm": 1, "pgd": 7, "trades": 10}
"""Default steps, the published ones: Wong et al. 2020, Madry et al. 2018 (CIFAR-10), Zhang 2019."""

FGSM_STEP = 1.25  # of eps; from 2 eps on, training by one step collapses (Wong et al., figure 1)
STEP = 2.5  # of eps over the steps: enough to cross the ball and turn (Madry et al.'s rule)
BETA = 6.0

SHORT_WARMUP = 400  # optimizer steps; a rate that rises faster can make the loss NaN
SHORT_NORM = 1.0  # the longest gradient while it does
FORMER_DEFAULTS: dict[str, Any] = {"lr": 0.05, "max_grad_norm": False}
"""What these keys of [train] were without a word in the spec when older runs were trained."""


class AdversarialSpec(Table):
    """Table [train.adversarial]: learn attacked images instead of clean ones."""

    attack: Literal["pgd", "fgsm", "trades"] = declare(
        'what changes the images of a step; "trades" also learns the clean ones', "pgd"
    )
    norm: Literal["linf", "l2"] = declare("in which eps is measured", "linf")
    eps: Eps = declare(
        "budget in pixel units: L-inf in (0, 1], L2 > 0",
        example="8/255",
        kind='number or fraction as text ("8/255")',
    )
    steps: Count | None = declare(
        "gradient steps of the attack", None, shown="pgd 7, trades 10, fgsm 1"
    )
    step_size: float | None = declare(
        "length of a step as a share of eps", None, gt=0, le=100, shown="2.5 / steps; fgsm 1.25"
    )
    objective: Literal["ce", "margin", "loss"] | None = declare(
        "what pgd and fgsm climb: cross-entropy of the margin-free logits, their margin, or the "
        "training loss itself",
        None,
        shown='"ce"; trades climbs its own',
    )
    beta: float | None = declare(
        "trades: weight of the divergence between clean and attacked posterior",
        None,
        gt=0,
        le=1e6,
        shown="6 for trades",
    )
    start: float = declare("share of training that is clean, before the attack", 0.0, ge=0, lt=1)
    ramp: float = declare("share of training, after start, in which eps rises", 0.0, ge=0, le=1)
    select: Literal["last", "robust"] = declare(
        "weights that are kept: of the last epoch, or of the one with the fewest errors on "
        "attacked validation images",
        "last",
    )
    select_every: Count = declare(
        "epochs between two measurements of the attacked validation error", 1
    )
    select_images: Count = declare("validation images that are attacked for it", 1000)
    select_steps: Count = declare(
        "steps of that PGD, on the margin of the logits at the full eps", 20
    )

    @model_validator(mode="after")
    def check_and_complete(self) -> Self:
        """Refuse keys that do not go together, and set the defaults that follow other keys."""
        if self.eps == 0:
            self._refuse("eps", "must be > 0. For clean training write adversarial = false.")
        if self.norm == "linf" and self.eps > 1:
            self._refuse("eps", pixel_rule(self.eps))
        if self.attack == "fgsm" and self.steps not in (None, 1):
            self._refuse("steps", 'must be 1: fgsm is one step. Write attack = "pgd".')
        if self.attack == "trades" and self.objective is not None:
            rule = "is for pgd and fgsm: trades climbs its divergence. Remove it."
            self._refuse("objective", rule)
        if self.attack != "trades" and self.beta is not None:
            self._refuse("beta", 'is for attack = "trades" only. Remove it.')
        if self.start + self.ramp > 1:
            rule = f"must be <= 1 - start (={1 - self.start:g}): eps must reach its full value."
            self._refuse("ramp", rule)
        steps = self.steps or STEPS[self.attack]
        defaults = {
            "steps": steps,
            "step_size": FGSM_STEP if self.attack == "fgsm" else STEP / steps,
            "objective": None if self.attack == "trades" else "ce",
            "beta": BETA if self.attack == "trades" else None,
        }
        self._complete({k: value for k, value in defaults.items() if getattr(self, k) is None})
        return self

    def in_words(self) -> str:
        """Say in one line how a loss is trained."""
        steps = f"{self.steps} steps" if self.steps != 1 else "one step"
        length = (self.step_size or 0.0) * self.eps
        norm = "L-inf" if self.norm == "linf" else "L2"
        aims = {"ce": "cross-entropy", "margin": "the margin", "loss": "the loss itself"}
        climbed = aims[self.objective] if self.objective else f"divergence, beta {self.beta:g}"
        late = f", from {100 * self.start:.3g} % of training on" if self.start else ""
        rise = f", eps rising over {100 * self.ramp:.3g} % of training" if self.ramp else ""
        return (
            f"trained with {self.attack.upper()} images ({norm} eps {eps_text(self.eps)}, "
            f"{steps} of {length:.3g} on {climbed}{late}{rise})"
        )

    @model_serializer(mode="wrap")
    def leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out keys that this attack does not have: an inline table of TOML has no null."""
        return {key: value for key, value in handler(self).items() if value is not None}


class TrainSpec(Table):
    """Table [train]: how a network is trained."""

    epochs: int = declare("passes over the training images", 5, ge=1, le=10_000)
    batch_size: int = declare("images per optimizer step", 128, ge=1, le=1_000_000)
    optimizer: Literal["sgd", "adam"] = declare(
        "SGD, or Adam with decoupled weight decay (AdamW)", "sgd"
    )
    lr: float = declare(
        "learning rate, the highest of the schedule",
        0.1,
        gt=0,
        le=1000,
        shown="0.1 for sgd, 0.002 for adam",
    )
    momentum: float = declare("momentum of sgd", 0.9, ge=0, lt=1)
    nesterov: bool = declare("Nesterov momentum of sgd", True)
    weight_decay: float = declare("L2 penalty on the weights", 5e-4, ge=0, le=10)
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = declare(
        "learning rate over training, after the warm-up", "one_cycle"
    )
    step_every: int | tuple[int, ...] = declare(
        'schedule "step": optimizer steps between drops, or the list of their steps',
        3000,
        kind="integer >= 1 | list of integers",
    )
    step_factor: float = declare('schedule "step": factor of a drop', 0.1, gt=0, le=1)
    warmup: float = declare(
        "share of training with a linearly rising learning rate",
        0.0,
        ge=0,
        le=0.9,
        shown="0.2 for one_cycle, else 0",
    )
    max_grad_norm: float | Literal[False, "if_short"] = declare(
        "longest gradient of a step; a longer one is shortened; false: none is; "
        f'"if_short": 1 where the warm-up has fewer than {SHORT_WARMUP} steps, else none is',
        1.0,
        kind='number > 0 | false | "if_short"',
    )
    precision: Literal["auto", "float32", "bfloat16"] = declare(
        "arithmetic of training; auto: bfloat16 where the hardware has it", "auto"
    )
    augment: Literal["none", "shift", "crop", "crop_flip", "crop_flip_cutout"] = declare(
        "augmentation of training images", "none"
    )
    adversarial: AdversarialSpec | None = declare(
        "adversarial training, table train.adversarial; false: clean training",
        None,
        kind="table | false",
        shown="false",
    )

    @field_validator("step_every", mode="before")
    @classmethod
    def check_step_every(cls, value: object) -> object:
        """Accept one integer >= 1, or a rising list of such."""
        several = value if isinstance(value, (list, tuple)) else [value]
        whole = all(type(step) is int and step >= 1 for step in several)
        if not (several and whole and sorted(set(several)) == list(several)):
            raise rule_error("must be an integer >= 1, or a rising list of such as [60000, 90000].")
        return as_tuple(value)

    @field_validator("max_grad_norm", mode="before")
    @classmethod
    def check_max_grad_norm(cls, value: object) -> object:
        """Accept a number > 0, false or "if_short"; runs of older versions say null for false."""
        if value is None:
            return False
        number = type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]
        if not (number or value is False or value == "if_short"):
            raise rule_error('must be a number > 0, "if_short", or false for no limit.')
        return value

    @field_validator("adversarial", mode="before")
    @classmethod
    def check_adversarial(cls, value: object) -> object:
        """Accept a table, or false for none."""
        if value is True or (isinstance(value, (str, int, float)) and value is not False):
            raise rule_error(
                'must be a table, such as { attack = "pgd", eps = "8/255" }, or false for none.'
            )
        return None if value is False else value

    @model_validator(mode="after")
    def complete_rate(self) -> Self:
        """Set the rate by the optimizer, and the warm-up by the schedule."""
        if self.optimizer == "adam" and "lr" not in self.model_fields_set:
            self._complete({"lr": 0.002})
        if self.schedule == "one_cycle" and "warmup" not in self.model_fields_set:
            self._complete({"warmup": 0.2})
        return self

    @model_serializer(mode="wrap")
    def leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the key of clean training, whose stored files are named without it."""
        plain: dict[str, Any] = handler(self)
        if plain.get("adversarial", self) is None:
            del plain["adversarial"]
        return plain
