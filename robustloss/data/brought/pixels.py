"""Images and labels in the forms that people have become uint8 (N, C, H, W) and int64 (N,)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustloss.data.files import DataError, join_names
from robustloss.data.folders.load import SHARE_OF_MEMORY, memory_size
from robustloss.data.reader import ArrayContent, Part
from robustloss.data.streamed import PixelFile
from robustloss.spec.data import DataSpec

CHUNK = 2_000_000  # values that are looked at together, so that memory stays flat
TOLERANCE = 1e-3  # of a level: what float32 leaves of v/255; float16 leaves more
CHANNELS = (1, 3)
MOST_CLASSES = 100_000


@dataclass(frozen=True, eq=False)
class Given:
    """Images and labels of one set, as somebody gave them.

    Attributes:
        images: (N, H, W), (N, C, H, W) or (N, H, W, C); uint8, or floating point in [0, 1].
        labels: (N,) or (N, 1) integers.
        images_name: how messages call the images.
        labels_name: how messages call the labels.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    images_name: str
    labels_name: str


def as_array(value: object) -> NDArray[Any] | None:
    """Return an array or a tensor as an array; None for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return value if isinstance(value, np.ndarray) else None


def build_content(
    given: Mapping[str, Given],
    data: DataSpec,
    *,
    where: str,
    class_names: Sequence[str] = (),
    files: str = "",
    size: tuple[int, int] | None = None,
    remark: str = "",
) -> ArrayContent:
    """Check images and labels, and bring them into the one form of this project.

    Args:
        given: by the name of the set: train, and test and validation where there are any.
        data: whose key `layout` is heeded.
        where: how messages call the place, as ``data.file (='data.npz')``.
        class_names: in the order of the labels; () for the labels themselves.
        files: as in `Content`.
        size: as in `ArrayContent`.
        remark: as in `ArrayContent`.

    Raises:
        DataError: the images or labels are none that networks can be trained on.
    """
    labels = {name: check_labels(one, where) for name, one in given.items()}
    names = check_classes(given, labels, class_names, where)
    images = {name: _check_images(one, where) for name, one in given.items()}
    for one in given.values():
        _check_values(one, where)
    layout = _choose_layout(given, data.layout, where)
    scale, rounded = _choose_scale(list(images.values()))
    shapes = {given[name].images_name: _shape_of(array, layout) for name, array in images.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(
            f"{where}: all images must have one shape (C, H, W), got {told}. Resize or convert "
            "them alike."
        )
    if rounded:
        remark = "; ".join(filter(None, (remark, "floating point images rounded to 256 levels")))
    parts, file = {}, None
    if fits_in_memory(sum(array.size for array in images.values())):
        for name, array in images.items():
            parts[name] = Part.whole(_as_pixels(array, layout, scale), labels[name])
    else:
        file = PixelFile(next(iter(shapes.values())))
        for name, array in images.items():
            places = np.arange(len(file), len(file) + len(array))
            parts[name] = Part(places, labels[name], places - places[0])
            for piece in _pieces(array):
                file.append(_as_pixels(piece, layout, scale))
    return ArrayContent(
        where=where,
        files=files,
        train=parts["train"],
        test=parts.get("test"),
        validation=parts.get("validation"),
        class_names=names,
        file=file,
        scale=scale,
        size=size,
        remark=remark,
    )


def fits_in_memory(needed: int) -> bool:
    """Tell whether so many bytes of images are kept in memory: a quarter of it at most."""
    return needed <= memory_size() // SHARE_OF_MEMORY


def _shape_of(images: NDArray[Any], layout: str) -> tuple[int, ...]:
    """Return (C, H, W)."""
    one = images.shape[1:]
    return {"nhw": (1, *one), "nchw": one, "nhwc": (one[-1], *one[:-1])}[layout]


def check_labels(given: Given, where: str) -> NDArray[np.int64]:
    """Return the labels as integers (N,), one for each image.

    Args:
        given: of which images, only their number counts.
        where: how messages call the place.

    Raises:
        DataError: there is no image, or the labels are no classes.
    """
    labels, name = given.labels, f"{where}: {given.labels_name}"
    if not len(given.images.shape) or not given.images.shape[0]:
        raise DataError(f"{where}: {given.images_name} holds no images. Give one of each class.")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise DataError(
            f"{name} has shape {labels.shape}, but must hold one class for each image. Of one-hot "
            "rows take labels.argmax(1)."
        )
    if labels.shape != given.images.shape[:1]:
        raise DataError(
            f"{name} has shape {labels.shape}, but must have ({given.images.shape[0]},): one label "
            f"for each image of {given.images_name}."
        )
    if labels.dtype.kind not in "iu":
        kind = {"U": "text", "S": "text", "b": "true and false"}.get(labels.dtype.kind)
        raise DataError(
            f"{name} holds {kind or labels.dtype}, but labels must be integers 0 to K - 1, one for "
            "each class. Number them, as names, labels = np.unique(labels, return_inverse=True)."
        )
    return labels.astype(np.int64)


def check_classes(
    given: Mapping[str, Given],
    labels: Mapping[str, NDArray[np.int64]],
    class_names: Sequence[str],
    where: str,
) -> tuple[str, ...]:
    """Return the names of the classes, which are numbered from 0 without a gap.

    Args:
        given: by the name of the set; how messages call its labels.
        labels: of each set, (N,).
        class_names: in the order of the labels; () for the labels themselves.
        where: how messages call the place.

    Raises:
        DataError: a label outside the classes, or a class without a training image.
    """
    for name, own in labels.items():
        low, high = int(own.min()), int(own.max())
        if low < 0 or high >= (len(class_names) or MOST_CLASSES):
            rule = f"0 to {len(class_names) - 1}" if class_names else "0 to K - 1"
            raise DataError(
                f"{where}: {given[name].labels_name} lie in [{low}, {high}], but must lie in "
                f"{rule}, one number for each class. Number the classes from 0."
            )
    known = np.unique(labels["train"])
    count = len(class_names) or max(int(own.max()) for own in labels.values()) + 1
    if count < 2:
        raise DataError(
            f"{where}: {given['train'].labels_name} has one class, but networks learn to tell two "
            "or more. Give images of another class."
        )
    if len(known) < count:
        absent = sorted({*range(count)} - {*known.tolist()})
        told = [class_names[label] if class_names else label for label in absent]
        hint = " They seem to begin at 1: take 1 off." if absent == [0] else ""
        raise DataError(
            f"{where}: {given['train'].labels_name} has no image of class {join_names(told)}, but "
            f"each class from 0 to {count - 1} must be in training.{hint or ' Number them anew.'}"
        )
    return tuple(class_names) or tuple(map(str, range(count)))


def _check_images(given: Given, where: str) -> NDArray[Any]:
    """Refuse arrays that are no images by their type or shape."""
    images, name = given.images, f"{where}: {given.images_name}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(
            f"{name} has shape {images.shape}, but must be (N, H, W), (N, C, H, W) or (N, H, W, C)."
            " Reshape it."
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(
            f"{name} is {images.dtype}, but must be uint8 in 0 to 255, or floating point in [0, 1]."
            " Of whole numbers up to 255 take images.astype(np.uint8)."
        )
    return images


def _pieces(images: NDArray[Any]) -> list[NDArray[Any]]:
    return np.array_split(images, max(1, images.size // CHUNK))


def _check_values(given: Given, where: str) -> None:
    """Refuse floating point images outside [0, 1], or with values that are no numbers."""
    if given.images.dtype == np.uint8:
        return
    name = f"{where}: {given.images_name}"
    pieces = _pieces(given.images)
    if not all(np.isfinite(piece).all() for piece in pieces):
        raise DataError(f"{name} holds NaN or infinity, but images lie in [0, 1]. Mend them.")
    low = float(min(piece.min() for piece in pieces))
    high = float(max(piece.max() for piece in pieces))
    if low < 0 or high > 1:
        remedy = "Clip what lies a little outside, or scale them."
        if low < 0:
            remedy = "Undo the normalisation: the network normalises for itself."
        elif high > 2:
            remedy = "Divide by 255, or give uint8."
        raise DataError(f"{name} lies in [{low:g}, {high:g}], but must lie in [0, 1]. {remedy}")


def _choose_layout(given: Mapping[str, Given], asked: str | None, where: str) -> str:
    """Return where the channels stand: "nhw" (there are none), "nchw" or "nhwc"."""
    one = given["train"]
    for other in given.values():
        if other.images.ndim != one.images.ndim:
            raise DataError(
                f"{where}: {one.images_name} has shape {one.images.shape} and {other.images_name} "
                f"{other.images.shape}. Give both in the same layout."
            )
    if one.images.ndim == 3:
        return "nhw"
    places = {"nchw": 1, "nhwc": 3}
    fits = [
        layout
        for layout, axis in places.items()
        if all(each.images.shape[axis] in CHANNELS for each in given.values())
    ]
    shape = f"{where}: {one.images_name} has shape {one.images.shape}"
    if asked is not None and asked not in fits:
        raise DataError(
            f"{shape}, which data.layout (={asked!r}) gives "
            f"{one.images.shape[places[asked]]} channels, but images have 1 or 3. Give the layout "
            "that they have, or leave it out."
        )
    if asked is None and len(fits) != 1:
        if fits:
            raise DataError(f'{shape}, which fits both. Say data.layout = "nchw" or "nhwc".')
        raise DataError(f"{shape}, but images have 1 or 3 channels, as axis 1 or last. Convert.")
    return asked or fits[0]


def _choose_scale(images: Sequence[NDArray[Any]]) -> tuple[float, bool]:
    """Return the value that becomes 1, and whether the images have to be rounded.

    Floating point images are kept to the bit where they are multiples of 1/255, or of one other
    1/n, such as the sixteenths of scikit-learn's digits. Others are rounded to 256 levels.
    """
    if all(array.dtype == np.uint8 for array in images):
        return 255.0, False
    floats = [array for array in images if array.dtype != np.uint8]
    scales = [255.0]
    if len(floats) == len(images):
        values = np.unique(floats[0][:200])
        if len(values) <= 256:
            scales += [float(n) for n in range(1, 255) if _are_levels(values, n)]
    for scale in scales:
        if all(_are_levels(piece, scale) for array in floats for piece in _pieces(array)):
            return scale, False
    return 255.0, True


def _are_levels(values: NDArray[Any], scale: float) -> bool:
    """Tell whether values are multiples of 1/scale, but for how floating point rounds them."""
    tolerance = max(TOLERANCE, float(np.finfo(values.dtype).eps) * scale)
    levels = values.astype(np.float64) * scale
    return bool((np.abs(levels - levels.round()) <= tolerance).all())


def _as_pixels(images: NDArray[Any], layout: str, scale: float) -> NDArray[np.uint8]:
    """Return (N, C, H, W) uint8."""
    if images.dtype != np.uint8:
        pixels = np.empty(images.shape, np.uint8)
        pieces = zip(_pieces(images), _pieces(pixels), strict=True)
        for piece, into in pieces:
            into[...] = (piece.astype(np.float64) * scale).round()
        images = pixels
    if layout == "nhw":
        images = images[:, None]
    if layout == "nhwc":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)
