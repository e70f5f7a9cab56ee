"""The tables [[losses]] and [tuning]: what is trained, tuned, or given ready-made."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from robustloss.spec.base import (
    BUILT_IN,
    Count,
    Labelled,
    Name,
    PlainTable,
    Table,
    plain_table,
    raise_at,
    refuse_keys,
    without,
)
from robustloss.spec.errors import rule_error
from robustloss.spec.search import WHOLE, check_search, combinations
from robustloss.spec.training import TrainSpec

GIVEN = "given"  # the name of a whole model that was trained elsewhere
_FACTORY = re.compile(r"[^:\s][^:]*:[A-Za-z_][A-Za-z0-9_]*")
_DIM = "model.feature_dim decides it"
_CLASSES = "the data set decides it"
LOSS_PARAMS = {"feature_dim": _DIM, "num_classes": _CLASSES, "name": BUILT_IN, "folders": BUILT_IN}
BackboneParams = Annotated[
    PlainTable, without(feature_dim=_DIM, image_shape=_CLASSES, name=BUILT_IN, folders=BUILT_IN)
]


def _table_or_factory(value: object) -> object:
    if isinstance(value, str):
        if not _FACTORY.fullmatch(value):
            rule = 'must be a table of keys of [model], or text as "package.module:factory" or '
            raise rule_error(rule + '"file.py:factory".')
        return value
    if not isinstance(value, Mapping):
        raise rule_error(
            'must be a table. Write model = { key = value }, or model = "file.py:factory" for a '
            "whole model."
        )
    return plain_table(value)


class LossSpec(Labelled):
    """One table [[losses]]: a loss, its parameters, and what it changes in [train] and [model].

    Or a model from elsewhere, which is not trained: `weights` of this loss and network, or a whole
    `model`.
    """

    name: Name = Field(
        description='loss: robustloss list losses, module:Class, file.py:Class; "given" for a '
        "whole model",
        examples=["lgm"],
    )
    params: PlainTable = Field(default={}, description="its own parameters, or the factory's")
    train: PlainTable = Field(default={}, description="keys of [train] that this loss overrides")
    model: Annotated[Any, BeforeValidator(_table_or_factory)] = Field(
        default={},
        description="keys of [model] that this loss overrides; or, as text, "
        "package.module:factory or file.py:factory of a whole model: images to logits",
        json_schema_extra={"shown_type": "table | text"},
    )
    weights: Name | None = Field(
        default=None,
        description="file of trained weights, safetensors or torch's .pt: nothing is trained",
        json_schema_extra={"shown_type": "text", "shown_default": "trained here"},
    )
    search: PlainTable = Field(
        default={},
        description="values to try, of its parameters or keys of [train]: lists, or "
        "{ low = , high = , log = true }",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_of_a_whole_model(cls, tables: Any) -> Any:
        if isinstance(tables, Mapping) and isinstance(tables.get("model"), str):
            return {"name": GIVEN, **tables}
        return tables

    @field_validator("params")
    @classmethod
    def _own_parameters(cls, params: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        # a factory decides its own; those of a loss that robustloss passes itself are refused
        return params if info.data.get("name") == GIVEN else refuse_keys(params, LOSS_PARAMS)

    @field_validator("train", "model")
    @classmethod
    def _valid_keys(cls, value: Any, info: ValidationInfo) -> Any:
        table: type[Table] = TrainSpec if info.field_name == "train" else ModelSpec
        if not isinstance(value, str):
            table.model_validate(value)
        return value

    @model_validator(mode="after")
    def _given_or_trained(self) -> Self:
        if self.factory and self.name != GIVEN:
            rule = f'must be left out: model = "{self.factory}" brings its own last layer.'
            raise_at("name", self.name, rule)
        if self.name == GIVEN and not self.factory:
            rule = 'needs model = "package.module:factory" or "file.py:factory".'
            raise_at("name", self.name, rule)
        for key in ("train", "search"):
            if self.given and getattr(self, key):
                raise_at(key, getattr(self, key), "is not for a model that is not trained here.")
        check_search(self.search, self.params, self.train)
        return self

    @property
    def factory(self) -> str | None:
        """What makes a whole model, "package.module:factory" or "file.py:factory"."""
        return self.model if isinstance(self.model, str) else None

    @property
    def given(self) -> bool:
        """Whether the model is from elsewhere, not trained here."""
        return self.factory is not None or self.weights is not None

    @property
    def model_keys(self) -> dict[str, Any]:
        """Keys of [model] that hold for this loss alone."""
        return {} if isinstance(self.model, str) else self.model

    def _plain_label(self) -> str:
        return self.factory.rpartition(":")[2] if self.factory else self.name

    def combinations(self) -> int | None:
        """How many combinations the search has; None where a range has any number."""
        return combinations(self.search)

    def with_values(self, values: Mapping[str, Any]) -> "LossSpec":
        """This loss with searched values in place of its search."""
        train = {key: value for key, value in values.items() if key in WHOLE}
        params = {key: value for key, value in values.items() if key not in WHOLE}
        return self.overridden(
            {"params": {**self.params, **params}, "train": {**self.train, **train}, "search": {}}
        )


class TuningSpec(Table):
    """Table [tuning]: how many values every loss may try."""

    trials: Count | None = Field(
        default=None,
        le=1000,
        description="trainings that every loss gets to find its values, chosen by the clean "
        "validation error; fewer than the search has combinations are drawn at random",
        json_schema_extra={"shown_default": "all combinations"},
    )


class ModelSpec(Table):
    """Table [model]: the network up to the features."""

    backbone: Name = Field(
        default="lenet_plus",
        description="network: robustloss list backbones, torchvision:NAME, module:Class, "
        "file.py:Class",
    )
    feature_dim: int = Field(default=100, ge=1, le=65536, description="dimension D of the features")
    params: BackboneParams = Field(default={}, description="the backbone's own parameters")
