"""The tables of a spec: their keys, types, ranges, defaults and meanings."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from robustloss.spec.base import Count, Eps, Table, as_tuple, raise_at
from robustloss.spec.errors import rule_error

STEPS = {"fgsm": 1, "pgd": 7, "trades": 10}
"""Default steps, the published ones: Wong et al. 2020, Madry et al. 2018 (CIFAR-10), Zhang 2019."""

FGSM_STEP = 1.25  # of eps; from 2 eps on, training by one step collapses (Wong et al., figure 1)
STEP = 2.5  # of eps over the steps: enough to cross the ball and turn (Madry et al.'s rule)
BETA = 6.0


def _drops(value: object) -> object:
    """One integer >= 1, or a rising list of such."""
    several = value if isinstance(value, (list, tuple)) else [value]
    whole = all(type(step) is int and step >= 1 for step in several)
    if not (several and whole and sorted(set(several)) == list(several)):
        raise rule_error("must be an integer >= 1, or a rising list of such as [60000, 90000].")
    return as_tuple(value)


def _false_is_none(value: object) -> object:
    if value is True or (isinstance(value, (str, int, float)) and value is not False):
        raise rule_error(
            'must be a table, such as { attack = "pgd", eps = "8/255" }, or false for none.'
        )
    return None if value is False else value


class AdversarialSpec(Table):
    """Table [train.adversarial]: learn attacked images instead of clean ones."""

    place: ClassVar[str] = "train.adversarial"  # what messages call it

    attack: Literal["pgd", "fgsm", "trades"] = Field(
        default="pgd",
        description='what changes the images of a step; "trades" also learns the clean ones',
    )
    norm: Literal["linf", "l2"] = Field(default="linf", description="in which eps is measured")
    eps: Eps = Field(
        description="budget in pixel units: L-inf in (0, 1], L2 > 0",
        examples=["8/255"],
        json_schema_extra={"shown_type": 'number or fraction as text ("8/255")'},
    )
    steps: Count | None = Field(
        default=None,
        description="gradient steps of the attack",
        json_schema_extra={"shown_default": "pgd 7, trades 10, fgsm 1"},
    )
    step_size: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="length of a step as a share of eps",
        json_schema_extra={"shown_default": "2.5 / steps; fgsm 1.25"},
    )
    objective: Literal["ce", "margin", "loss"] | None = Field(
        default=None,
        description="what pgd and fgsm climb: cross-entropy of the margin-free logits, their "
        "margin, or the training loss itself",
        json_schema_extra={"shown_default": '"ce"; trades climbs its own'},
    )
    beta: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="trades: weight of the divergence between clean and attacked posterior",
        json_schema_extra={"shown_default": "6 for trades"},
    )
    start: float = Field(
        default=0.0, ge=0, lt=1, description="share of training that is clean, before the attack"
    )
    ramp: float = Field(
        default=0.0, ge=0, le=1, description="share of training, after start, in which eps rises"
    )
    select: Literal["last", "robust"] = Field(
        default="last",
        description="weights that are kept: of the last epoch, or of the one with the fewest "
        "errors on attacked validation images",
    )
    select_every: Count = Field(
        default=1, description="epochs between two measurements of the attacked validation error"
    )
    select_images: Count = Field(
        default=1000, description="validation images that are attacked for it"
    )
    select_steps: Count = Field(
        default=20, description="steps of that PGD, on the margin of the logits at the full eps"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.eps == 0:
            raise_at("eps", self.eps, "must be > 0. For clean training write adversarial = false.")
        if self.norm == "linf" and self.eps > 1:
            hint = f' Write "{self.eps:g}/255".' if self.eps <= 255 else ""
            raise_at("eps", self.eps, f"must lie in (0, 1]: pixel units, not 0–255.{hint}")
        if self.attack == "fgsm" and self.steps not in (None, 1):
            raise_at("steps", self.steps, 'must be 1: fgsm is one step. Write attack = "pgd".')
        if self.attack == "trades" and self.objective is not None:
            rule = "is for pgd and fgsm: trades climbs its divergence. Remove it."
            raise_at("objective", self.objective, rule)
        if self.attack != "trades" and self.beta is not None:
            raise_at("beta", self.beta, 'is for attack = "trades" only. Remove it.')
        if self.start + self.ramp > 1:
            rule = f"must be <= 1 - start (={1 - self.start:g}): eps must reach its full value."
            raise_at("ramp", self.ramp, rule)
        return self._completed()

    def _completed(self) -> Self:
        """Fill in the defaults that follow other keys."""
        steps = self.steps or STEPS[self.attack]
        defaults = {
            "steps": steps,
            "step_size": FGSM_STEP if self.attack == "fgsm" else STEP / steps,
            "objective": None if self.attack == "trades" else "ce",
            "beta": BETA if self.attack == "trades" else None,
        }
        for key, value in defaults.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)  # frozen
        return self

    def in_words(self) -> str:
        """What tables say of a loss that is trained so."""
        steps = f"{self.steps} steps" if self.steps != 1 else "one step"
        length = (self.step_size or 0.0) * self.eps
        norm = "L-inf" if self.norm == "linf" else "L2"
        aims = {"ce": "cross-entropy", "margin": "the margin", "loss": "the loss itself"}
        climbed = aims[self.objective] if self.objective else f"divergence, beta {self.beta:g}"
        late = f", from {100 * self.start:.3g} % of training on" if self.start else ""
        rise = f", eps rising over {100 * self.ramp:.3g} % of training" if self.ramp else ""
        return (
            f"trained with {self.attack.upper()} images ({norm} eps {self.eps:.3g}, {steps} of "
            f"{length:.3g} on {climbed}{late}{rise})"
        )

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what this attack does not have: an inline table of TOML has no null."""
        return {key: value for key, value in handler(self).items() if value is not None}


class TrainSpec(Table):
    """Table [train]: how a network is trained."""

    epochs: int = Field(default=5, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(
        default=128, ge=1, le=1_000_000, description="images per optimizer step"
    )
    optimizer: Literal["sgd", "adam"] = Field(
        default="sgd", description="SGD, or Adam with decoupled weight decay (AdamW)"
    )
    lr: float = Field(
        default=0.05, gt=0, le=1000, description="learning rate, the highest of the schedule"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of sgd")
    nesterov: bool = Field(default=True, description="Nesterov momentum of sgd")
    weight_decay: float = Field(default=5e-4, ge=0, le=10, description="L2 penalty on the weights")
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = Field(
        default="one_cycle", description="learning rate over training, after the warm-up"
    )
    step_every: Annotated[int | tuple[int, ...], BeforeValidator(_drops)] = Field(
        default=3000,
        description='schedule "step": optimizer steps between drops, or the list of their steps',
        json_schema_extra={"shown_type": "integer >= 1 | list of integers"},
    )
    step_factor: float = Field(
        default=0.1, gt=0, le=1, description='schedule "step": factor of a drop'
    )
    warmup: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="share of training with a linearly rising learning rate",
        json_schema_extra={"shown_default": "0.2 for one_cycle, else 0"},
    )
    max_grad_norm: float | None = Field(
        default=None, gt=0, description="longest gradient of a step; a longer one is shortened"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="arithmetic of training; auto: bfloat16 where the hardware has it",
    )
    augment: Literal["none", "shift", "crop", "crop_flip", "crop_flip_cutout"] = Field(
        default="none", description="augmentation of training images"
    )
    adversarial: Annotated[AdversarialSpec | None, BeforeValidator(_false_is_none)] = Field(
        default=None,
        description="adversarial training, table train.adversarial; false: clean training",
        json_schema_extra={"shown_type": "table | false", "shown_default": "false"},
    )

    @model_validator(mode="after")
    def _default_warmup(self) -> Self:
        if self.schedule == "one_cycle" and "warmup" not in self.model_fields_set:
            object.__setattr__(self, "warmup", 0.2)  # frozen: this default follows another key
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what clean training does not have: its keys are those of before."""
        plain: dict[str, Any] = handler(self)
        if plain.get("adversarial", self) is None:
            del plain["adversarial"]
        return plain
