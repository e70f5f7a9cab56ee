"""Images and labels that a caller has as tensors, arrays or a loader, checked and held in memory.

Batches of a loader are checked and packed one by one, so that memory holds 8 bits a pixel where
that says all, and at most one batch besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from robustloss.data.folders.load import SHARE_OF_MEMORY, memory_size
from robustloss.data.images import ImageSet

Source = Tensor | NDArray[Any] | TorchDataset[Any] | Iterable[Any]
Labels = Tensor | NDArray[Any] | Iterable[int]

AT_ONCE = 500  # images of a tensor or a torch Dataset that are looked at together
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32)


class FloatImages(ImageSet):
    """Images whose pixels are no whole grey levels; they are kept as they are."""

    def __post_init__(self) -> None:
        pass  # `read_images` has checked more than a set of 8 bits asks for

    def batch(self, selection: Tensor | slice) -> Tensor:
        """Images at the given positions as float32 (B, C, H, W) in [0, 1]; a new tensor."""
        assert isinstance(self.images, Tensor)
        return self.images[selection].clone()


def read_images(name: str, images: Source, labels: Labels | None = None) -> ImageSet:
    """Return checked images: as 8 bits where every pixel is a whole grey level, else as floats.

    Args:
        name: How messages call them, such as "images" or "train".
        images: (N,C,H,W) floating in [0,1], as a tensor or an array; or whatever gives batches
            (images, labels) of such; or a torch Dataset of pairs of one image and its label.
        labels: (N,) int64 of a tensor or an array; None where the batches bring them.

    Raises:
        ValueError: They are none, or do not fit into memory.
    """
    if isinstance(images, Tensor | np.ndarray):
        if labels is None:
            raise ValueError(
                f"labels of {name} (=None) must be given with a tensor or an array: int64 of shape "
                "(N,), one class index an image."
            )
        checked = _check_batch(name, images, labels)
        pairs = zip(*(part.split(AT_ONCE) for part in checked), strict=True)
        return _hold(name, ((_pack(part), some) for part, some in pairs), None)
    if labels is not None:
        raise ValueError(
            f"labels of {name} (={_shorten(labels)}) must be left out: the batches of "
            f"{type(images).__name__} bring them. What follows goes by keyword: attacks=[...]."
        )
    return _hold(name, _read_batches(name, images), _count_batches(images))


def _read_batches(name: str, source: object) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the checked and packed batches of a loader, and labels."""
    if isinstance(source, TorchDataset):
        source = DataLoader(source, batch_size=AT_ONCE)
    if isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable):
        raise ValueError(
            f"{name} (={type(source).__name__}) must be a tensor of shape (N, C, H, W), an array, "
            "a DataLoader or another iterable of batches (images, labels), or a torch Dataset."
        )
    rest, number = iter(source), 0
    while True:
        number += 1
        try:
            batch = next(rest)
        except StopIteration:
            return
        except Exception as error:
            hint = " Let the data set make tensors: transform=torchvision.transforms.ToTensor()."
            raise ValueError(
                f"{name}: batch {number} cannot be read: {type(error).__name__}: {error}."
                + (hint if "PIL" in str(error) else "")
            ) from error
        where = f"batch {number} of {name}"
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            keys = f" with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
            raise ValueError(
                f"{where} (={type(batch).__name__}{keys}) must be a pair (images, labels). Give an "
                'iterable of pairs, as ((batch["image"], batch["label"]) for batch in loader).'
            )
        checked, labels = _check_batch(where, *batch)
        yield _pack(checked), labels


def _count_batches(source: object) -> int | None:
    """Return how many batches there will be, None where that is not known."""
    if isinstance(source, TorchDataset):
        source = DataLoader(source, batch_size=AT_ONCE)
    try:
        return len(source)  # type: ignore[arg-type]
    except TypeError:
        return None


def _hold(name: str, batches: Iterable[tuple[Tensor, Tensor]], count: int | None) -> ImageSet:
    """Join batches.

    Args:
        name: See `read_images`.
        batches: Images, uint8 or float32, and labels.
        count: Of the batches that a loader will give, None where that is not known.
    """
    # These grow in place; tensors that stay between those that go would leave holes in the memory.
    held, labels = bytearray(), bytearray()
    dtype, shape = torch.uint8, None
    most = memory_size() // SHARE_OF_MEMORY
    for number, (part, some) in enumerate(batches, start=1):
        shape = shape or part.shape[1:]
        if part.shape[1:] != shape:
            raise ValueError(
                f"batch {number} of {name} (={tuple(part.shape[1:])}) must have the shape "
                f"of the first, {tuple(shape)}. Bring all images to one size."
            )
        if part.dtype != dtype:  # what is packed is as exact as the rest, see `_pack`
            if dtype == torch.uint8 and held:
                held = bytearray((torch.frombuffer(held, dtype=dtype) / 255).numpy().data)
            part, dtype = part / (255 if part.dtype == torch.uint8 else 1), torch.float32
        held += part.contiguous().numpy().data.cast("B")
        labels += some.numpy().data.cast("B")
        _check_fits(name, len(held) * max(1, (count or 0) // number), most)
    if shape is None:
        raise ValueError(f"{name} must hold images, but gives no batch.")
    kind, scale = (ImageSet, 255.0) if dtype == torch.uint8 else (FloatImages, 1.0)
    images = torch.frombuffer(held, dtype=dtype).view(-1, *shape)
    classes = torch.frombuffer(labels, dtype=torch.int64)
    return kind(images, classes, torch.arange(len(images)), scale)


def _check_fits(name: str, needed: int, most: int) -> None:
    if needed > most:
        raise ValueError(
            f"{name} take {needed / 2**30:.1f} GiB or more, but must fit in a quarter of the "
            f"memory, {most / 2**30:.1f} GiB: a loader is read as a whole. Give fewer images, or "
            "write them as files into class folders, which a spec decodes batch by batch "
            "(image_folder)."
        )


def _pack(images: Tensor) -> Tensor:
    """Return new images: uint8 where every pixel is one of 255 levels, else float32."""
    grey = (images * 255).round()
    # Clones: a tensor of torch.inference_mode can have no part in a gradient.
    return grey.to(torch.uint8) if torch.equal(grey / 255, images) else images.clone()


def _check_batch(name: str, images: object, labels: object) -> tuple[Tensor, Tensor]:
    """Return images as float32 (N,C,H,W) and labels as int64 (N,), both on the CPU."""
    whole = not name.startswith("batch ")
    if not isinstance(images, Tensor | np.ndarray) or images.ndim != 4 or not len(images):
        shaped = isinstance(images, Tensor | np.ndarray)
        kind = tuple(images.shape) if shaped else type(images).__name__  # type: ignore[attr-defined]
        raise ValueError(
            f"{name} (={kind}) must be a tensor of shape (N, C, H, W), N >= 1."
            + _hint_shape(images, whole)
        )
    array = isinstance(images, np.ndarray)
    if images.dtype.kind != "f" if isinstance(images, np.ndarray) else not (
        images.is_floating_point()
    ):  # fmt: skip
        remedy = "images.astype('float32') / 255" if array else "images.float() / 255"
        if not whole:
            remedy = "((images / 255, labels) for images, labels in loader)"
        raise ValueError(f"{name} (={images.dtype}) must be floating, in [0, 1]. Write {remedy}.")
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.array(images, dtype=np.float32, order="C"))
    images = images.detach().cpu().float()
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{name} (from {low:.9g} to {high:.9g}) must lie in [0, 1]. {_unfit_pixels(low, high)}"
        )
    return images, _check_labels(name, labels, len(images))


def _check_labels(name: str, labels: object, count: int) -> Tensor:
    """Return labels as int64 (N,) on the CPU."""
    rule = f"must be int64 of shape ({count},), one class index an image."
    try:
        array = isinstance(labels, np.ndarray)
        found = torch.tensor(labels) if array else torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"labels of {name} (={_shorten(labels)}) {rule}") from None
    if found.shape != (count,) or found.dtype != torch.int64:
        remedy = "labels.astype('int64')" if array else "labels.long()"
        raise ValueError(
            f"labels of {name} ({found.dtype}, shape {tuple(found.shape)}) {rule}"
            + (f" Write {remedy}." if found.dtype in _WHOLE else "")
        )
    return found.detach().cpu().clone()


def _shorten(value: object) -> str:
    text = repr(value) if isinstance(value, str | list | tuple) else type(value).__name__
    return text if len(text) < 60 else f"{text[:57]}..."


def _hint_shape(images: object, whole: bool) -> str:
    """Return how something that is no tensor (N,C,H,W) becomes one, where that is known."""
    if not isinstance(images, Tensor | np.ndarray) or images.ndim != 3:
        return ""
    if not whole:
        return (
            " Of pairs of one image and its label make batches: "
            "torch.utils.data.DataLoader(pairs, batch_size=500)."
        )
    if isinstance(images, np.ndarray):
        return " Write images[:, None] for grey images, images[None] for a single one."
    return " Write images.unsqueeze(1) for grey images, images.unsqueeze(0) for a single one."


def _unfit_pixels(low: float, high: float) -> str:
    """Return what pixels outside [0, 1] probably are, and what to do."""
    if math.isnan(low) or math.isnan(high):
        return "Some pixels are NaN: look at where they come from."
    if low >= -1e-3 and high <= 1 + 1e-3:
        return "They are off by rounding: write images.clamp(0, 1)."
    if low >= 0:
        return "Divide them by 255."
    return (
        "They look normalised: give the images as they were, and evaluate the mean and std, "
        'normalize={"mean": ..., "std": ...}.'
    )
