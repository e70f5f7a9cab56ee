"""Tables [model] and [[losses]]: the network, and what it is trained with or given ready-made."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationInfo, field_validator, model_validator

from robustloss.spec.base import (
    BUILT_IN,
    Labelled,
    Name,
    PlainTable,
    Table,
    declare,
    plain_table,
    refuse_keys,
    without,
)
from robustloss.spec.errors import rule_error
from robustloss.spec.prefixes import misplaced_rule, placed
from robustloss.spec.search import TRAIN_KEYS, check_search
from robustloss.spec.training import TrainSpec

FROM_MODEL = "model.feature_dim decides it"  # why a parameter is refused
FROM_DATA = "the data set decides it"
BackboneParams = Annotated[
    PlainTable,
    without(feature_dim=FROM_MODEL, image_shape=FROM_DATA, name=BUILT_IN, folders=BUILT_IN),
]
BACKBONES = (
    *("lenet_plus", "small_cnn", "digits_cnn", "cifar_cnn", "vgg13_cifar", "resnet18_cifar"),
)
"""Every backbone of our own. What builds them stands in `models.backbones`."""

LOSS_LABELS = {
    "softmax": "Softmax",
    "center": "Center",
    "gm": "GM",
    "lgm": "L-GM",
    "weighted_softmax": "Weighted softmax",
    "l_softmax": "L-Softmax",
    "a_softmax": "A-Softmax",
    "modified_softmax": "Modified softmax",
    "fnorm_sphereface": "FNorm SphereFace",
    "l2_softmax": "L2-softmax",
    "normface": "NormFace",
    "cosface": "CosFace",
    "arcface": "ArcFace",
    "contrastive": "Contrastive",
    "triplet": "Triplet",
    "mmc": "MMC",
    "label_smoothing": "Label smoothing",
    "focal": "Focal",
    "logit_norm": "LogitNorm",
    "one_vs_rest": "One-vs-rest",
}
"""Every loss of our own, and how tables call it where its label is left out. What computes them
stands in `losses.LOSSES`."""

GIVEN = "given"  # the name of a whole model that was trained elsewhere
_FACTORY = re.compile(r"[^:\s][^:]*:[A-Za-z_][A-Za-z0-9_]*")
# Parameters that robustloss passes to a loss itself, and where they are decided.
_PASSED = {
    "feature_dim": FROM_MODEL,
    "num_classes": FROM_DATA,
    "name": BUILT_IN,
    "folders": BUILT_IN,
}


class ModelSpec(Table):
    """Table [model]: the network up to the features."""

    backbone: Annotated[Name, placed("backbone", BACKBONES)] = declare(
        "network: robustloss list backbones, torchvision:NAME, module:Class, file.py:Class",
        "lenet_plus",
    )
    feature_dim: int = declare("dimension D of the features", 100, ge=1, le=65536)
    params: BackboneParams = declare("the backbone's own parameters", {})


class LossSpec(Labelled):
    """One table [[losses]]: a loss, its parameters, and what it changes in [train] and [model].

    It may instead be a model that was trained elsewhere: `weights` for this loss and network, or a
    whole `model` as text.
    """

    labels: ClassVar[Mapping[str, str]] = LOSS_LABELS

    name: Annotated[Name, placed("loss", (*LOSS_LABELS, GIVEN))] = declare(
        'loss: robustloss list losses, module:Class, file.py:Class; "given" for a whole model',
        example="lgm",
    )
    params: PlainTable = declare("its own parameters, or the factory's", {})
    train: PlainTable = declare("keys of [train] that this loss overrides", {})
    model: Any = declare(
        "keys of [model] that this loss overrides; or, as text, package.module:factory or "
        "file.py:factory of a whole model: images to logits",
        {},
        kind="table | text",
    )
    weights: Name | None = declare(
        "file of trained weights, safetensors or torch's .pt: nothing is trained",
        None,
        kind="text",
        shown="trained here",
    )
    search: PlainTable = declare(
        "values to try, of its parameters or keys of [train]: lists, or "
        "{ low = , high = , log = true }",
        {},
    )

    @model_validator(mode="before")
    @classmethod
    def complete_name(cls, tables: Any) -> Any:
        """Name a whole model, which needs no name of a loss."""
        if isinstance(tables, Mapping) and isinstance(tables.get("model"), str):
            return {"name": GIVEN, **tables}
        return tables

    @field_validator("model", mode="before")
    @classmethod
    def check_model(cls, value: object) -> object:
        """Accept keys of [model], or the name of a factory."""
        if isinstance(value, str):
            if not _FACTORY.fullmatch(value):
                rule = 'must be a table of keys of [model], or text as "package.module:factory" or '
                raise rule_error(rule + '"file.py:factory".')
            if rule := misplaced_rule(value, "model"):
                raise rule_error(rule)
            return value
        if not isinstance(value, Mapping):
            raise rule_error(
                'must be a table. Write model = { key = value }, or model = "file.py:factory" for '
                "a whole model."
            )
        return plain_table(value)

    @field_validator("params")
    @classmethod
    def check_params(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Refuse parameters that robustloss passes itself; a factory decides its own."""
        return params if info.data.get("name") == GIVEN else refuse_keys(params, _PASSED)

    @field_validator("search")
    @classmethod
    def check_searched(cls, search: dict[str, Any]) -> dict[str, Any]:
        """Refuse to try values of parameters that robustloss passes itself."""
        return refuse_keys(search, _PASSED, "search")

    @field_validator("train", "model")
    @classmethod
    def check_overrides(cls, value: Any, info: ValidationInfo) -> Any:
        """Check overridden keys as the table itself checks them."""
        table: type[Table] = TrainSpec if info.field_name == "train" else ModelSpec
        if not isinstance(value, str):
            table.model_validate(value)
        return value

    @model_validator(mode="after")
    def check_origin(self) -> Self:
        """Refuse a model from elsewhere that names a loss, or that is trained here."""
        if self.factory and self.name != GIVEN:
            rule = f'must be left out: model = "{self.factory}" brings its own last layer.'
            self._refuse("name", rule)
        if self.name == GIVEN and not self.factory:
            self._refuse("name", 'needs model = "package.module:factory" or "file.py:factory".')
        for name in ("train", "search"):
            if self.given and getattr(self, name):
                self._refuse(name, "is not for a model that is not trained here.")
        check_search(self.search, self.params, self.train)
        return self

    @property
    def factory(self) -> str | None:
        """The name of what makes a whole model, "package.module:factory" or "file.py:factory"."""
        return self.model if isinstance(self.model, str) else None

    @property
    def given(self) -> bool:
        """Whether the model is from elsewhere, not trained here."""
        return self.factory is not None or self.weights is not None

    @property
    def model_keys(self) -> dict[str, Any]:
        """Keys of [model] that hold for this loss alone."""
        return {} if isinstance(self.model, str) else self.model

    @property
    def short_name(self) -> str:
        """The name of the loss or of the factory."""
        return self.factory.rpartition(":")[2] if self.factory else self.name

    def substitute(self, values: Mapping[str, Any]) -> Self:
        """Return this loss with searched values in place of its search."""
        train = {key: value for key, value in values.items() if key in TRAIN_KEYS}
        params = {key: value for key, value in values.items() if key not in TRAIN_KEYS}
        return self.override(
            {"params": {**self.params, **params}, "train": {**self.train, **train}, "search": {}}
        )
