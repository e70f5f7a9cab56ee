"""The tables of a spec: their keys, types, ranges, defaults and meanings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from robustloss.spec_adversarial import AdversarialSpec
from robustloss.spec_base import Count, Eps, Table, as_tuple, raise_at
from robustloss.spec_errors import Problems, did_you_mean, rule_error
from robustloss.spec_text import slug

MAX_LABEL = 80  # characters: file names hold the slug of a label, eps and a key
# In what the eps of our own attacks are, unless their parameter norm says otherwise.
_NORMS = {
    **dict.fromkeys(
        ("fgsm", "pgd", "mifgsm", "apgd_ce", "apgd_dlr", "square", "autoattack"), "linf"
    ),
    **dict.fromkeys(("adaptive_joint", "adaptive_selective", "adaptive_orthogonal"), "linf"),
    **{"adaptive_matching": "linf", "fab": "linf", "deepfool": "l2", "cw": "l2"},
}
_RESERVED = {
    "none": "the clean pass's own",
    "worst-case": "that of the worst over all attacks",
    "best-of-adaptive": "that of the best over the adaptive attacks",
}
_TORCHATTACKS_L2 = ("CW", "DeepFool", "PGDL2", "PGDRSL2")


def _norm(name: str, params: Mapping[str, Any]) -> str | None:
    """In what an attack's eps are, without loading it; None for the user's own."""
    default = _NORMS.get(name)
    if name.startswith("torchattacks:"):
        default = "l2" if name.partition(":")[2] in _TORCHATTACKS_L2 else "linf"
    return default and params.get("norm", default)


def plain_table(value: object) -> object:
    """A deep copy holding only what TOML and JSON both hold, so that it can be hashed and sent."""
    problems = Problems()
    copy = _plain(value, (), problems) if isinstance(value, Mapping) else value
    problems.raise_if_any()
    return copy


def _plain(value: object, loc: tuple[int | str, ...], problems: Problems) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*loc, str(key)), problems) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, (*loc, i), problems) for i, item in enumerate(value)]
    if isinstance(value, float) and not abs(value) < float("inf"):
        problems.add(loc, value, "must be a finite number.")
    elif not isinstance(value, (str, bool, int, float)):
        problems.add(loc, value, "must be text, a number, true or false, or a list or table.")
    return value


def _without(**given: str) -> AfterValidator:
    """Refuses parameters that robustloss passes itself: name -> where they are decided."""

    return AfterValidator(lambda params: refuse_keys(params, given))


def refuse_keys(params: dict[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Returns the parameters if none of those is among them that are decided elsewhere."""
    problems = Problems()
    for key, reason in given.items():
        if key in params:
            problems.add((key,), params[key], f"cannot stand in params: {reason}. Remove it.")
    problems.raise_if_any()
    return params


Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
PlainTable = Annotated[dict[str, Any], BeforeValidator(plain_table)]
_OURS = "robustloss uses this name itself"
_DIM = "model.feature_dim decides it"
_CLASSES = "the data set decides it"
LOSS_PARAMS = {"feature_dim": _DIM, "num_classes": _CLASSES, "name": _OURS, "folders": _OURS}
BackboneParams = Annotated[
    PlainTable, _without(feature_dim=_DIM, image_shape=_CLASSES, name=_OURS, folders=_OURS)
]
AttackParams = Annotated[PlainTable, _without(folders=_OURS)]
Name = Annotated[str, Field(min_length=1)]


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


class ModelSpec(Table):
    """Table [model]: the network up to the features."""

    backbone: Name = Field(
        default="lenet_plus",
        description="network: robustloss list backbones, torchvision:NAME, module:Class, "
        "file.py:Class",
    )
    feature_dim: int = Field(default=100, ge=1, le=65536, description="dimension D of the features")
    params: BackboneParams = Field(default={}, description="the backbone's own parameters")


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


class DetectionSpec(Table):
    """Table [detection]: how attacked images are told from clean ones."""

    scores: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = Field(
        default=(
            *("class_log_likelihood", "marginal_log_likelihood", "max_log_posterior"),
            *("max_logit", "energy", "mahalanobis", "relative_mahalanobis", "knn"),
            *("gaussian_mixture", "feature_norm"),
        ),
        description="detection scores: robustloss list scores; or your own, module:function",
        json_schema_extra={"shown_default": "all of them"},
    )
    fit_size: Count = Field(
        default=5000, description="clean training images that scores are fitted on"
    )
    temperature: bool = Field(
        default=False,
        description="also say how calibrated each loss is after temperature scaling",
    )
    noise: bool = Field(
        default=True,
        description="also score noise as large as each attack was on each image, a control",
    )

    @field_validator("scores")
    @classmethod
    def _known(cls, scores: tuple[str, ...]) -> tuple[str, ...]:
        from robustloss.detection import SCORES  # numpy and scipy: only when a spec names scores

        problems = Problems()
        for i, score in enumerate(scores):
            if ":" in score and score not in scores[:i]:
                continue  # the user's own: loaded when the run begins
            if ":" not in score and score not in SCORES:
                hint = did_you_mean(score, list(SCORES)) or "."
                problems.add((i,), score, f"must be one of {', '.join(SCORES)}{hint}")
            elif score in scores[:i]:
                problems.add((i,), score, "is listed twice. Remove one.")
        problems.raise_if_any()
        return scores


class ChecksSpec(Table):
    """Table [checks]: the short trial attacks that tell a robust model from a masked gradient."""

    images: int = Field(
        default=200, ge=0, le=2000, description="test images that are tried; 0 leaves it out"
    )
    eps: Annotated[Eps | None, Field()] = Field(
        default=None,
        description="L-inf budget of the trials, in (0, 1]",
        json_schema_extra={"shown_default": "the smallest of the L-inf attacks"},
    )

    @field_validator("eps")
    @classmethod
    def _in_the_box(cls, eps: float | None) -> float | None:
        if eps is not None and not 0 < eps <= 1:
            raise rule_error("must lie in (0, 1]: pixel units, not 0–255.")
        return eps


class Labelled(Table):
    """A table of an array: what is named, and how tables and figures call it."""

    name: Name
    label: str = Field(
        default="",
        description="how tables and figures call it; its slug names files",
        json_schema_extra={"shown_default": "the name"},
    )

    @model_validator(mode="after")
    def _default_label(self) -> Self:
        if "label" not in self.model_fields_set:
            object.__setattr__(self, "label", self._plain_label())
        if not (self.label.isprintable() and 0 < len(self.slug) <= MAX_LABEL):
            rule = f"must be one line of 1 to {MAX_LABEL} characters, with a letter a-z or a digit."
            raise_at("label", self.label, rule)
        return self

    def _plain_label(self) -> str:
        return self.name

    @property
    def slug(self) -> str:
        """The label as a file name."""
        return slug(self.label)


OUTSIDE_SETS = (
    *("digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100"),
    *("image_folder", "uniform_noise", "held_out_classes"),
)


class OutsideSpec(Labelled):
    """One table [[outside]]: images that are not of the data, shown to every network."""

    name: Name = Field(
        description=f"which images: {', '.join(OUTSIDE_SETS)}", examples=["fashion_mnist"]
    )
    images: Count = Field(default=2000, description="how many of them at most, spread evenly")
    folder: Name | None = Field(
        default=None,
        description="image_folder: any folder of images, or a tar archive of one; relative to the "
        "spec, then to --data",
        json_schema_extra={"shown_default": "required by image_folder"},
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OUTSIDE_SETS:
            hint = did_you_mean(name, list(OUTSIDE_SETS)) or "."
            raise rule_error(f"must be one of {', '.join(OUTSIDE_SETS)}{hint}")
        return name

    @model_validator(mode="after")
    def _folder_fits(self) -> Self:
        if self.name == "image_folder" and self.folder is None:
            raise_at("folder", None, "must be given: image_folder reads the folder it names.")
        if self.name != "image_folder" and self.folder is not None:
            rule = f'is for name = "image_folder" only, not {self.name!r}. Remove it.'
            raise_at("folder", self.folder, rule)
        return self


class AttackSpec(Labelled):
    """One table [[attacks]]: an attack, its parameters and its budgets."""

    name: Name = Field(
        description="attack: robustloss list attacks, module:name, file.py:name", examples=["fgsm"]
    )
    params: AttackParams = Field(default={}, description="its own parameters")
    eps: Annotated[tuple[Eps, ...], BeforeValidator(as_tuple), Field(min_length=1)] = Field(
        description="budgets in pixel units: L-inf in [0, 1], L2 >= 0",
        examples=[(0.1, "8/255")],
        json_schema_extra={"shown_type": 'list of numbers or fractions as text ("8/255")'},
    )
    batch_size: Count = Field(default=500, description="images attacked at once")
    eight_bit: bool = Field(
        default=False,
        description="also count errors on the images rounded to 8 bits, inside the ball",
    )
    transfer: bool = Field(
        default=False, description="also show its images to the models of the other losses"
    )

    @model_validator(mode="after")
    def _label_is_free(self) -> Self:
        if self.slug in _RESERVED:
            raise_at("label", self.label, f"is {_RESERVED[self.slug]}. Give it another label.")
        return self

    @field_validator("eps")
    @classmethod
    def _budgets(cls, eps: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        problems = Problems()
        pixels = _norm(info.data.get("name", ""), info.data.get("params") or {}) == "linf"
        for i, value in enumerate(eps):
            if value > 1 and pixels:
                remedy = f'; write "{value:g}/255".' if value <= 255 else "."
                rule = f"must lie in [0, 1]: pixel units, not 0–255{remedy}"
                problems.add((i,), int(value) if value.is_integer() else value, rule)
            if value in eps[:i]:
                problems.add((i,), value, "is listed twice. Remove one.")
        problems.raise_if_any()
        return tuple(sorted(value + 0.0 for value in eps))  # + 0.0: no negative zero
