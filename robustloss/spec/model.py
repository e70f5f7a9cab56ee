"""Table [model]: the network up to the features."""

from typing import Annotated

from robustloss.spec.base import BUILT_IN, Name, PlainTable, Table, declare, without
from robustloss.spec.prefixes import placed

FROM_MODEL = "model.feature_dim decides it"  # why a parameter is refused
FROM_DATA = "the data set decides it"

BackboneParams = Annotated[
    PlainTable,
    without(feature_dim=FROM_MODEL, image_shape=FROM_DATA, name=BUILT_IN, folders=BUILT_IN),
]


class ModelSpec(Table):
    """Table [model]: the network up to the features."""

    backbone: Annotated[Name, placed("backbone")] = declare(
        "network: robustloss list backbones, torchvision:NAME, module:Class, file.py:Class",
        "lenet_plus",
    )
    feature_dim: int = declare("dimension D of the features", 100, ge=1, le=65536)
    params: BackboneParams = declare("the backbone's own parameters", {})
