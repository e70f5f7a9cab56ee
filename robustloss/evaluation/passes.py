"""One pass of a model over images, as a Record: N images, B in a batch, K classes, D features."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.attacks.ball import distance
from robustloss.data.images import ImageSet
from robustloss.losses.base import check_logits
from robustloss.models.classifier import AnyClassifier
from robustloss.results.records import Record

VERSION = 1  # raise when the same weights and attack would give another record

PICTURES = 64
LAYOUT = torch.channels_last  # the layout in which CPU and GPU convolutions are fastest

Report = Callable[[float, float, str], None]  # done, total, text
Arrays = dict[str, NDArray]


def to_numpy(tensor: Tensor) -> NDArray:
    """Return the values of a tensor, on whatever device, as an array."""
    return tensor.detach().cpu().numpy()


class Columns:
    """The arrays of a Record, filled batch by batch.

    They have their final size from the first batch on. Small arrays that stay while large tensors
    come and go would leave holes in the memory, and the process would grow by every batch.

    Args:
        n: Images of the whole pass.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.arrays: Arrays = {}
        self.filled: dict[str, int] = {}
        self.pictures: list[NDArray] = []

    def add(self, **values: Tensor | None) -> None:
        """Append one batch by the names of its arrays; values that are None are left out.

        Raises:
            ValueError: A batch with another shape or type than the first.
        """
        for name, value in values.items():
            if value is None:
                continue
            part = to_numpy(value)
            if name not in self.arrays:
                self.arrays[name] = np.empty((self.n, *part.shape[1:]), part.dtype)
            whole, start = self.arrays[name], self.filled.get(name, 0)
            if (part.shape[1:], part.dtype) != (whole.shape[1:], whole.dtype):
                raise ValueError(
                    f"{name} of the first batch is {whole.dtype} {whole.shape[1:]} an image, of a "
                    f"later one {part.dtype} {part.shape[1:]}. Return the same from every batch."
                )
            self.filled[name] = start + len(part)
            whole[start : self.filled[name]] = part

    def add_pictures(self, images: Tensor) -> None:
        """Keep the first images of the pass, for pictures."""
        missing = PICTURES - sum(len(part) for part in self.pictures)
        if missing > 0:
            self.pictures.append(np.array(to_numpy(images[:missing]), order="C"))

    def finish(self) -> Arrays:
        """Return each array, of all batches.

        Raises:
            ValueError: An array that some batches lack.
        """
        for name, filled in self.filled.items():
            if filled < self.n:
                raise ValueError(
                    f"{name} is there for {filled} of {self.n} images. Return it from every batch."
                )
        return self.arrays

    def make_record(self, images: ImageSet) -> Record:
        """Return the Record of the images that were added."""
        none = [np.zeros((0, *images.shape), np.float32)]
        absent: dict[str, Any] = dict.fromkeys(("features", "zero_gradient", "radius"))
        return Record(
            index=to_numpy(images.index),
            labels=to_numpy(images.labels),
            images=np.concatenate(self.pictures or none),
            **(absent | self.finish()),
        )


@torch.no_grad()
def add_outputs(
    columns: Columns,
    model: AnyClassifier,
    images: Tensor,
    clean: Tensor,
    *,
    norm: str | None = None,
    pictures: bool = True,
) -> None:
    """Append what a model says of a batch of images.

    Args:
        columns: Takes the arrays.
        model: In eval mode, on the device of the images.
        images: (B,C,H,W) as they are shown to the model.
        clean: (B,C,H,W) as they were; the difference gives the size of the change.
        norm: Of the attack that made the images. Sizes in L1 are kept only of attacks in L1.
        pictures: Also keep the first images of the pass.
    """
    features, logits, likelihood = model.outputs(images.contiguous(memory_format=LAYOUT))
    for name, value in (("logits", logits), ("class_log_likelihood", likelihood)):
        check_logits(value, images, model.head.num_classes, name)
        if not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"{name}() returned NaN or infinite values. Lower train.lr, or mend the loss."
            )
    change = (images - clean).flatten(1)
    columns.add(
        features=features,
        logits=logits.float(),
        class_log_likelihood=likelihood.float(),
        linf=change.abs().amax(1),
        l2=torch.linalg.vector_norm(change, dim=1),
        l1=distance(change, "l1") if norm == "l1" else None,
    )
    if pictures:
        columns.add_pictures(images)


def clean_record(model: AnyClassifier, images: ImageSet) -> Record:
    """Return the Record of unattacked images.

    Args:
        model: In eval mode, on the device of the images.
        images: N images.
    """
    columns = Columns(images.n)
    for piece in images.passes():
        batch = images.batch(piece)
        add_outputs(columns, model, batch, batch)
    return columns.make_record(images)
