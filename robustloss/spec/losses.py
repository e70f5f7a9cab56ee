"""Tables [model] and [[losses]]: the network, and what it is trained with or given ready-made."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

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
from robustloss.spec.errors import Problems, explain, rule_error
from robustloss.spec.prefixes import (
    MODEL_FILES,
    WEIGHT_FILES,
    canonical_name,
    is_library_model,
    is_model_file,
    misplaced_rule,
    placed,
)
from robustloss.spec.search import TRAIN_KEYS, check_search
from robustloss.spec.text import slug
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


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
"""What torchvision's networks, and most others of ImageNet, were trained with."""
STATED = "weights"
"""The value of `normalize` that stands for what the model's own weights say."""


def _check_normalize(value: object) -> object:
    """Accept "imagenet", "weights", or a table of mean and std with a number for each channel."""
    if value is None or value in ("imagenet", STATED):
        return value
    if not isinstance(value, Mapping) or set(value) != {"mean", "std"}:
        raise rule_error(
            'must be "imagenet", or a table of mean and std: each a list with one number for each '
            'channel; or "weights" for what the weights of the model say.'
        )
    table: Any = plain_table(value)
    problems = Problems()
    for key, numbers in table.items():
        if not isinstance(numbers, list) or not numbers or {*map(type, numbers)} - {int, float}:
            rule = "must be a list with one number for each channel, such as [0.5, 0.5, 0.5]."
            problems.add((key,), numbers, rule)
    problems.raise_if_any()
    if len(table["mean"]) != len(table["std"]):
        rule = f"must have as many numbers as mean, {len(table['mean'])}: one for each channel."
        problems.add(("std",), table["std"], rule)
    for i, mean in enumerate(table["mean"]):
        if not 0 <= mean <= 1:
            rule = "must lie in [0, 1], as the pixels do."
            problems.add(("mean", i), mean, rule + (_OF_BYTES if 1 < mean <= 255 else ""))
    for i, std in enumerate(table["std"]):
        if not 0 < std <= 1:
            rule = "must lie in (0, 1]: it divides pixels in [0, 1]; 1 leaves them as they are."
            problems.add(("std", i), std, rule + (_OF_BYTES if 1 < std <= 255 else ""))
    problems.raise_if_any()
    return table


def _check_model_normalize(value: object) -> object:
    return value if value == "data" else _check_normalize(value)


_OF_BYTES = " Divide mean and std by 255 if they are of pixels from 0 to 255."
Normalize = Annotated[Any, BeforeValidator(_check_normalize)]
Normalization = dict[str, list[float]] | str
"""Mean and std, (C,) each, or STATED."""


class _Normalizing(Table):
    """The key alone, as `read_normalize` checks it."""

    normalize: Normalize = None


def read_normalize(value: object) -> Normalization | None:
    """Return the mean and std of a key `normalize`, (C,) each; None where it is None.

    What the weights say is known only with the model: "weights" stays as it is.

    Args:
        value: "imagenet", "weights", or mean and std: lists, arrays or tensors of a number for each
            channel. Or what has them as attributes: weights of torchvision and their transforms(),
            a Normalize, an image processor of transformers.

    Raises:
        SpecError: It is something else, or cannot be right.
    """
    if callable(transforms := getattr(value, "transforms", None)):
        value = transforms()
    for names in (("mean", "std"), ("image_mean", "image_std")):
        found = [getattr(value, name, None) for name in names]
        if not isinstance(value, Mapping) and all(isinstance(e, list | tuple) for e in found):
            value = dict(zip(("mean", "std"), found, strict=True))
    if isinstance(value, Mapping):
        value = {k: each.tolist() if hasattr(each, "tolist") else each for k, each in value.items()}
    try:
        found = _Normalizing(normalize=value).normalize
    except ValidationError as error:
        raise explain(error, _Normalizing, {}) from None
    if found is None or found == STATED:
        return found
    table = IMAGENET if found == "imagenet" else found
    return {key: [float(each) for each in table[key]] for key in ("mean", "std")}


class ModelSpec(Table):
    """Table [model]: the network up to the features."""

    backbone: Annotated[Name, placed("backbone", BACKBONES)] = declare(
        "network: robustloss list backbones, torchvision:NAME, timm:NAME, module:Class, "
        "file.py:Class",
        "lenet_plus",
        shown="lenet_plus; digits_cnn for digits",
    )
    feature_dim: int = declare("dimension D of the features", 100, ge=1, le=65536)
    params: BackboneParams = declare("the backbone's own parameters", {})
    weights: Name | None = declare(
        'trained weights of the backbone that training starts from: "DEFAULT", another name that '
        "torchvision or timm has for them, or a file",
        None,
        shown="random ones",
    )
    normalize: Annotated[Any, BeforeValidator(_check_model_normalize)] = declare(
        'what these weights were trained with: { mean = [...], std = [...] }, "imagenet", or '
        '"data", the mean and std of the data',
        None,
        kind="table | text",
        shown="what named weights say; required with a file",
    )
    freeze: bool = declare("train only the last layer of the backbone, and the loss", False)
    spectral: float | None = declare(
        "bound on the spectral norm of each convolution and linear layer of the backbone, kept "
        "throughout training; 3 is usual",
        None,
        gt=0,
        shown="no bound",
    )

    @model_serializer(mode="wrap")
    def leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a network with random weights does not have."""
        plain: dict[str, Any] = handler(self)
        absent = {"weights": None, "normalize": None, "freeze": False, "spectral": None}
        return {k: v for k, v in plain.items() if k not in absent or v != absent[k]}

    @model_validator(mode="after")
    def check_spectral(self) -> Self:
        """Refuse a bound on weights that were trained without it."""
        if self.spectral is not None and self.weights is not None:
            rule = (
                "is not for weights from elsewhere, which were trained without it. Leave one out."
            )
            self._refuse("spectral", rule)
        return self


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
        "keys of [model] that this loss overrides; or, as text, a whole model, images to logits: "
        "package.module:factory, file.py:factory, torchvision:NAME, timm:NAME, "
        "transformers:FOLDER, or a file of TorchScript or torch.export",
        {},
        kind="table | text",
    )
    weights: Name | None = declare(
        "file of trained weights, safetensors or torch's .pt: nothing is trained; or, for "
        'torchvision:NAME and timm:NAME, "DEFAULT" or what the library calls them',
        None,
        kind="text",
        shown="trained here",
    )
    normalize: Normalize = declare(
        'of a whole model: { mean = [...], std = [...] } that it was trained with, "imagenet", or '
        '"weights" for what its weights say; images in [0, 1] are normalised with it first',
        None,
        kind="table | text",
        shown="the model normalises them itself",
    )
    head: Literal["nearest_mean"] | None = declare(
        'a head for the trained network of another loss, in place of its own: "nearest_mean" '
        "classifies by the nearest class mean; needs of",
        None,
    )
    of: str | None = declare(
        "label of the loss in this spec whose networks get the head; nothing is trained for it",
        None,
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
            value = canonical_name(value, ())
            known = is_model_file(value) or (is_library_model(value) and value[-1] != ":")
            if value.endswith(WEIGHT_FILES) and not known:
                raise rule_error(
                    f'is a file of weights. Write weights = "{value}", and name the network that '
                    'they are of: model = "file.py:factory" or "torchvision:NAME".'
                )
            if not known and not _FACTORY.fullmatch(value):
                raise rule_error(
                    'must be a table of keys of [model], or text as "package.module:factory", '
                    '"file.py:factory", "torchvision:NAME", "timm:NAME", "transformers:FOLDER" or '
                    f'"file{MODEL_FILES[0]}".'
                )
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

    @model_serializer(mode="wrap")
    def leave_out_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what only a loss with the network of another has."""
        plain: dict[str, Any] = handler(self)
        return {k: v for k, v in plain.items() if k not in ("head", "of") or v is not None}

    def is_called(self, text: str) -> bool:
        """As for any table; a head on the network of another loss does not have that one's name."""
        own = slug(text) in (slug(self.label), self.slug)
        return own or text == self.label if self.of else super().is_called(text)

    @model_validator(mode="after")
    def check_origin(self) -> Self:
        """Refuse a model from elsewhere that names a loss, or that is trained here."""
        if self.head and not self.of:
            self._refuse("head", 'needs the label of another loss, as of = "Softmax".')
        if self.of and not self.head:
            self._refuse("of", 'needs head = "nearest_mean".')
        for name in ("weights", "search"):
            if self.of and getattr(self, name):
                self._refuse(name, f'must be left out: of = "{self.of}" decides the training.')
        if self.factory and self.name != GIVEN:
            rule = f'must be left out: model = "{self.factory}" brings its own last layer.'
            self._refuse("name", rule)
        if self.name == GIVEN and not self.factory:
            self._refuse("name", 'needs model = "package.module:factory" or "file.py:factory".')
        if (self.factory or "").startswith("transformers:") and self.params:
            rule = "is not for transformers: the folder decides the model. Take the key out."
            self._refuse("params", rule)
        for name in ("train", "search"):
            if self.given and getattr(self, name):
                self._refuse(name, "is not for a model that is not trained here.")
        if self.normalize is not None and not self.factory:
            rule = 'is for a whole model, model = "file.py:factory". A network of robustloss '
            self._refuse("normalize", f"{rule}normalises itself. Take the key out.")
        check_search(self.search, self.params, self.train)
        return self

    @property
    def factory(self) -> str | None:
        """The name of a whole model, as "file.py:factory" or "torchvision:resnet18"."""
        return self.model if isinstance(self.model, str) else None

    @property
    def given(self) -> bool:
        """Whether the model is from elsewhere, not trained here."""
        return self.factory is not None or self.weights is not None

    @property
    def trains(self) -> bool:
        """Whether a network is trained for it: no model from elsewhere, nor another loss's."""
        return not self.given and self.of is None

    @property
    def model_keys(self) -> dict[str, Any]:
        """Keys of [model] that hold for this loss alone."""
        return {} if isinstance(self.model, str) else self.model

    @property
    def short_name(self) -> str:
        """The name of the loss or of the factory."""
        if self.factory and (self.factory.startswith("transformers:") or ":" not in self.factory):
            return PurePath(self.factory.removeprefix("transformers:")).stem
        return self.factory.rpartition(":")[2] if self.factory else self.name

    def substitute(self, values: Mapping[str, Any]) -> Self:
        """Return this loss with searched values in place of its search."""
        train = {key: value for key, value in values.items() if key in TRAIN_KEYS}
        params = {key: value for key, value in values.items() if key not in TRAIN_KEYS}
        tried = self.override(
            {"params": {**self.params, **params}, "train": {**self.train, **train}, "search": {}}
        )
        tried._complete({"label": self.label})  # the spec may have told it from a namesake
        return tried
