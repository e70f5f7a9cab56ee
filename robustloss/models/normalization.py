"""Which normalisation a model asks for: what it says itself, and what it is given."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robustloss.spec.losses import STATED, Normalization, read_normalize

PREPROCESSOR = "preprocessor_config.json"  # of a folder that save_pretrained wrote


@dataclass(frozen=True)
class Stated:
    """The normalisation that a model, or what came with it, says that it was trained with.

    Attributes:
        mean: (C,) of images in [0,1].
        std: (C,) likewise.
        source: Where it is said, for messages.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    def __str__(self) -> str:
        return f"mean {_list_numbers(self.mean)}, std {_list_numbers(self.std)}"


def find_stated(module: nn.Module) -> Stated | None:
    """Return what a module says of its normalisation: one of timm, or of transformers.

    Args:
        module: Any; also behind DataParallel or torch.compile.

    Raises:
        ValueError: Its image processor scales images otherwise than to [0,1].
    """
    inner = getattr(module, "module", module)
    for name in ("pretrained_cfg", "default_cfg"):  # of timm
        found = getattr(inner, name, None)
        if isinstance(found, Mapping) and {"mean", "std"} <= found.keys():
            return _read_stated(found["mean"], found["std"], f"its {name}")
    name = getattr(inner, "name_or_path", "")  # of transformers: from where it was loaded
    return read_preprocessor(_find_folder(name)) if isinstance(name, str) and name else None


def _find_folder(name: str) -> Path:
    """Return the folder of a model of transformers; of the Hugging Face hub, the one kept of it."""
    hub = sys.modules.get("huggingface_hub")
    if not Path(name).is_dir() and hub is not None:
        with suppress(Exception):  # a name that the hub does not have either
            found = hub.try_to_load_from_cache(name, PREPROCESSOR)
            if isinstance(found, str):
                return Path(found).parent
    return Path(name)


def read_preprocessor(folder: Path) -> Stated | None:
    """Return what the image processor beside a model of transformers says.

    Args:
        folder: That `save_pretrained` wrote; without a processor it says nothing.

    Raises:
        ValueError: It scales images otherwise than to [0,1].
    """
    try:
        config = json.loads((folder / PREPROCESSOR).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or config.get("do_normalize") is False:
        return None
    factor = config.get("rescale_factor", 1 / 255)
    if config.get("do_rescale") is False or not isinstance(factor, float | int):
        return None
    if abs(factor * 255 - 1) > 1e-6:
        raise ValueError(
            f"{PREPROCESSOR}: rescale_factor (={factor}) must be 1/255, for images in [0, 1]. Wrap "
            "the model in a factory that scales them itself."
        )
    return _read_stated(config.get("image_mean"), config.get("image_std"), f"its {PREPROCESSOR}")


def read_preset(preset: object, source: str) -> Stated | None:
    """Return what the transforms of torchvision's weights say.

    Args:
        preset: As ``weights.transforms()`` returns it.
        source: Where it is said.
    """
    return _read_stated(getattr(preset, "mean", None), getattr(preset, "std", None), source)


def _read_stated(mean: Any, std: Any, source: str) -> Stated | None:
    """Return the values, if they can be those of a normalisation of images in [0,1]."""
    try:
        read_normalize({"mean": list(mean), "std": list(std)})
        return Stated(tuple(map(float, mean)), tuple(map(float, std)), source)
    except (TypeError, ValueError):  # a SpecError is one too
        return None


def settle_normalization(
    module: nn.Module, asked: Normalization | None, stated: Stated | None, channels: int
) -> dict[str, list[float]] | None:
    """Return the mean and std, (C,) each, that a module's images are normalised with.

    Args:
        module: The model.
        asked: What the user wants, see `read_normalize`.
        stated: What the model says.
        channels: C of the images.

    Raises:
        ValueError: It is of other images, a second one, or the model says none.
    """
    if asked is None:
        return None
    if asked == STATED:
        if stated is None:
            raise ValueError(
                f'normalize (="{STATED}"): the model (={type(module).__name__}) does not say with '
                "which mean and std it was trained. Name them: normalize = { mean = [...], std = "
                '[...] }, or "imagenet".'
            )
        asked = {"mean": list(stated.mean), "std": list(stated.std)}
    assert not isinstance(asked, str)
    mean = asked["mean"]
    if len(mean) != channels:
        raise ValueError(
            f"normalize.mean (={mean}) must have one number for each channel of the images, "
            f"{channels}. A model that makes other channels of them must normalise them itself."
        )
    if isinstance(getattr(module, "mean", None), Tensor) and hasattr(module, "std"):
        raise ValueError(
            f"normalize: the model (={type(module).__name__}) has a mean and a std of its own, so "
            "images would be normalised twice. Leave normalize out; if the model does not use "
            "them, take them out of it."
        )
    return asked


def remark_on_normalization(asked: Normalization | None, stated: Stated | None) -> str:
    """Return what a reader must know of a normalisation that a model says; "" for nothing.

    Args:
        asked: What the user wants.
        stated: What the model says.
    """
    if stated is None:
        return ""
    if asked == STATED:
        return f"images are normalised with {stated}, as {stated.source} says"
    plain = set(stated.mean) == {0.0} and set(stated.std) == {1.0}
    if asked is not None or plain:
        return ""
    return (
        f"{stated.source} says {stated}, and it gets images in [0, 1] as they are; unless it "
        f'normalises them itself, give it normalize = "{STATED}"'
    )


def _list_numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
