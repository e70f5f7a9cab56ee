"""Images and labels that a caller has as tensors, arrays or a loader, checked and held.

Batches of a loader are checked and packed one by one, so that memory holds 8 bits a pixel where
that says all, and at most one batch besides. What does not fit in memory goes to a file. A loader
is read once, so one that shuffles keeps every image with its label.
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
from robustloss.data.streamed import PixelFile, StreamedImages

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
        found = self.images[selection]
        return found.clone() if isinstance(self.images, Tensor) else found


def read_images(name: str, images: Source, labels: Labels | None = None) -> ImageSet:
    """Return checked images: as 8 bits where every pixel is a whole grey level, else as floats.

    Args:
        name: How messages call them, such as "images" or "train".
        images: (N,C,H,W) floating in [0,1], as a tensor or an array; or whatever gives batches
            (images, labels) of such; or a torch Dataset of pairs of one image and its label.
        labels: (N,) int64 of a tensor or an array; None where the batches bring them.

    Raises:
        ValueError: They are none, or may have no end.
    """
    if isinstance(images, Tensor | np.ndarray):
        if labels is None:
            raise ValueError(
                f"labels of {name} (=None) must be given with a tensor or an array: int64 of shape "
                "(N,), one class index an image."
            )
        checked = _check_images(name, images)
        classes = _check_labels(name, labels, len(checked))
        starts = range(0, len(checked), AT_ONCE)
        pieces = (slice(start, start + AT_ONCE) for start in starts)
        pairs = ((_pack(_as_float32(checked[piece])), classes[piece]) for piece in pieces)
        return _hold(name, pairs, len(starts))
    wrong = isinstance(images, str | bytes | Mapping)
    if wrong or not isinstance(images, TorchDataset | Iterable):
        raise ValueError(
            f"{name} (={type(images).__name__}) must be a tensor of shape (N, C, H, W), an array, "
            "a DataLoader or another iterable of batches (images, labels), or a torch Dataset."
        )
    if labels is not None:
        raise ValueError(
            f"labels of {name} (={_shorten(labels)}) must be left out: the batches of "
            f"{type(images).__name__} bring them. What follows goes by keyword: attacks=[...]."
        )
    return _hold(name, _read_batches(name, images), _count_batches(images))


def _read_batches(
    name: str, source: Iterable[Any] | TorchDataset[Any]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the checked and packed batches of a loader, and labels."""
    if isinstance(source, TorchDataset):
        source = DataLoader(source, batch_size=AT_ONCE)
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
            raise ValueError(f"{where} {_explain_no_pair(batch)}")
        checked = _as_float32(_check_images(where, batch[0]))
        yield _pack(checked), _check_labels(where, batch[1], len(checked))


def _explain_no_pair(batch: object) -> str:
    """Return why a batch is no pair (images, labels), and how it becomes one."""
    remedy = '((batch["image"], batch["label"]) for batch in loader)'
    kind = type(batch).__name__
    if isinstance(batch, Mapping):
        kind += f" with {', '.join(map(str, batch))}"
    elif isinstance(batch, tuple | list):
        kind += f" of {len(batch)}"
        remedy = "((batch[0], batch[1]) for batch in loader)"
    if isinstance(batch, Tensor | np.ndarray) or (
        isinstance(batch, tuple | list) and len(batch) < 2
    ):
        return (
            f"(={kind}) must be a pair (images, labels), but has no labels. Without them nothing "
            "tells whether a model is fooled: give an iterable of pairs."
        )
    return f"(={kind}) must be a pair (images, labels). Give an iterable of pairs, as {remedy}."


def _count_batches(source: object) -> int | None:
    """Return how many batches there will be, None where that is not known."""
    if isinstance(source, TorchDataset):
        source = DataLoader(source, batch_size=AT_ONCE)
    try:
        return len(source)  # type: ignore[arg-type]
    except TypeError:
        return None


def _hold(name: str, batches: Iterable[tuple[Tensor, Tensor]], count: int | None) -> ImageSet:
    """Join batches, in memory where they fit in a quarter of it and else in a file.

    Args:
        name: See `read_images`.
        batches: Images, uint8 or float32, and labels.
        count: Of the batches that there will be, None where that is not known.
    """
    labels = bytearray()
    store: _Store | None = None
    most = memory_size() // SHARE_OF_MEMORY
    for number, (part, some) in enumerate(batches, start=1):
        store = store or _Store(part.shape[1:])
        if part.shape[1:] != store.shape:
            raise ValueError(
                f"batch {number} of {name} (={tuple(part.shape[1:])}) must have the shape "
                f"of the first, {tuple(store.shape)}. Bring all images to one size."
            )
        store.add(part)
        labels += some.numpy().data.cast("B")
        if store.file is None and len(store.memory) * max(1, (count or 0) // number) > most:
            if count is None:
                raise ValueError(
                    f"{name} take more than a quarter of the memory, {most / 2**30:.1f} GiB, and "
                    "have no length: they may have no end. Give a DataLoader of a Dataset or "
                    "another iterable with __len__, the number of its batches; or fewer images."
                )
            store.move_to_file()
        if store.file is not None and count is not None and number > count:
            raise ValueError(
                f"{name} give more batches than their length, {count}: they may have no end. Mend "
                "the length (__len__), or cut them by itertools.islice."
            )
    if store is None:
        raise ValueError(
            f"{name} must hold images, but gives no batch. A generator gives its batches once: "
            "make a new one."
        )
    kind, scale = (ImageSet, 255.0) if store.dtype == torch.uint8 else (FloatImages, 1.0)
    classes = torch.frombuffer(labels, dtype=torch.int64)
    return kind(store.images(), classes, torch.arange(len(classes)), scale)


class _Store:
    """Images of one shape (C,H,W): 8 bits a pixel until some need more, in memory or in a file."""

    def __init__(self, shape: torch.Size) -> None:
        self.shape, self.dtype = shape, torch.uint8
        # Grows in place; tensors that stay between those that go would leave holes in the memory.
        self.memory = bytearray()
        self.file: PixelFile | None = None

    def add(self, part: Tensor) -> None:
        """Append images (B,C,H,W), uint8 or float32."""
        if part.dtype != self.dtype:  # what is packed is as exact as the rest, see `_pack`
            if self.dtype == torch.uint8:
                self._widen()
            part = part / 255 if part.dtype == torch.uint8 else part
        if self.file is None:
            self.memory += part.contiguous().numpy().data.cast("B")
        else:
            self.file.append(part.numpy())

    def move_to_file(self) -> None:
        """Move the images to a file."""
        self.file = PixelFile(self.shape, self.dtype)
        self.file.append(self._tensor().numpy())
        self.memory = bytearray()

    def images(self) -> Tensor | StreamedImages:
        """Return all images, (N,C,H,W)."""
        return self._tensor() if self.file is None else StreamedImages(self.file)

    def _tensor(self) -> Tensor:
        return torch.frombuffer(self.memory, dtype=self.dtype).view(-1, *self.shape)

    def _widen(self) -> None:
        """Turn 8 bits a pixel into float32."""
        if self.file is not None:
            wide = PixelFile(self.shape, torch.float32)
            for piece in StreamedImages(self.file):
                wide.append((torch.from_numpy(piece) / 255).numpy())
            self.file = wide
        elif self.memory:
            self.memory = bytearray((self._tensor() / 255).numpy().data)
        self.dtype = torch.float32


def _pack(images: Tensor) -> Tensor:
    """Return new images: uint8 where every pixel is one of 255 levels, else float32."""
    grey = (images * 255).round()
    # Clones: a tensor of torch.inference_mode can have no part in a gradient.
    return grey.to(torch.uint8) if torch.equal(grey / 255, images) else images.clone()


def _check_images(name: str, images: object) -> Tensor | NDArray[Any]:
    """Return images (N,C,H,W) as they were given: floating, in [0, 1]."""
    whole = not name.startswith("batch ")
    if not isinstance(images, Tensor | np.ndarray) or images.ndim != 4 or not len(images):
        shaped = isinstance(images, Tensor | np.ndarray)
        kind = tuple(images.shape) if shaped else type(images).__name__  # type: ignore[attr-defined]
        raise ValueError(
            f"{name} (={kind}) must be a tensor of shape (N, C, H, W), N >= 1."
            + _hint_shape(images, whole)
        )
    _, channels, height, width = images.shape
    if channels == height > 4 and width in (1, 3, 4):
        swap = (
            "images.transpose(0, 3, 1, 2)"
            if isinstance(images, np.ndarray)
            else "images.permute(0, 3, 1, 2)"
        )
        if not whole:
            swap = "((images.permute(0, 3, 1, 2), labels) for images, labels in loader)"
        raise ValueError(
            f"{name} (={tuple(images.shape)}) must have its channels before height and width. "
            f"Write {swap}."
        )
    array = isinstance(images, np.ndarray)
    if images.dtype.kind != "f" if isinstance(images, np.ndarray) else not (
        images.is_floating_point()
    ):  # fmt: skip
        remedy = "images.astype('float32') / 255" if array else "images.float() / 255"
        if not whole:
            remedy = "((images / 255, labels) for images, labels in loader)"
        raise ValueError(f"{name} (={images.dtype}) must be floating, in [0, 1]. Write {remedy}.")
    low, high = (float(np.float32(float(each))) for each in (images.min(), images.max()))
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{name} (from {low:.9g} to {high:.9g}) must lie in [0, 1]. {_unfit_pixels(low, high)}"
        )
    return images


def _as_float32(images: Tensor | NDArray[Any]) -> Tensor:
    """Return images on the CPU."""
    if isinstance(images, np.ndarray):
        return torch.from_numpy(np.array(images, dtype=np.float32, order="C"))
    return images.detach().cpu().float()


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
        column = "labels[:, 0]" if found.shape[-1:] == (1,) else "labels.argmax(1) of one-hot rows"
        raise ValueError(
            f"labels of {name} ({found.dtype}, shape {tuple(found.shape)}) {rule}"
            + (f" Write {remedy}." if found.dtype in _WHOLE else "")
            + (f" Write {column}." if found.ndim == 2 else "")
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
