"""From a trained model to Records: one pass over the clean images, one over each attacked set.

Shape suffixes: E budgets, N images, B batch, K classes, D feature.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.images import ImageSet
from robustloss.losses.base import check_logits
from robustloss.models.classifier import AnyClassifier
from robustloss.results.records import Record

VERSION = 1  # raise when the same weights and attack would give another record

PICTURES = 64
LAYOUT = torch.channels_last  # the layout in which CPU and GPU convolutions are fastest

Report = Callable[[float, float, str], None]  # done, total, text
Arrays = dict[str, NDArray]


class Columns:
    """Gathers the arrays of a Record batch by batch."""

    def __init__(self) -> None:
        self.parts: dict[str, list[NDArray]] = {}
        self.pictures: list[NDArray] = []

    def add(self, **values: Tensor | None) -> None:
        """Appends one batch; values that are None are left out."""
        for name, value in values.items():
            if value is not None:
                self.parts.setdefault(name, []).append(value.detach().cpu().numpy())

    def add_pictures(self, images: Tensor) -> None:
        """Keeps the first images of the pass, for pictures."""
        missing = PICTURES - sum(len(part) for part in self.pictures)
        if missing > 0:
            self.pictures.append(images[:missing].detach().cpu().contiguous().numpy())

    def joined(self) -> dict[str, NDArray]:
        """Returns the arrays of all batches as one each."""
        return {name: np.concatenate(parts) for name, parts in self.parts.items()}

    def record(self, images: ImageSet) -> Record:
        """Returns the Record of the images that were added."""
        joined = self.joined()
        return Record(
            index=images.index.cpu().numpy(),
            labels=images.labels.cpu().numpy(),
            logits=joined["logits"],
            class_log_likelihood=joined["class_log_likelihood"],
            features=joined.get("features"),
            linf=joined["linf"],
            l2=joined["l2"],
            zero_gradient=joined.get("zero_gradient"),
            radius=joined.get("radius"),
            images=np.concatenate(self.pictures) if self.pictures else _no_pictures(images),
            outside=joined.get("outside"),
            predictions_8bit=joined.get("predictions_8bit"),
        )


@torch.no_grad()
def add_outputs(
    columns: Columns, model: AnyClassifier, images: Tensor, clean: Tensor, *, pictures: bool = True
) -> None:
    """Appends what a model says of a batch of images."""
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
    )
    if pictures:
        columns.add_pictures(images)


def _no_pictures(images: ImageSet) -> NDArray:
    shape = images.batch(slice(0, 1)).shape[1:]
    return np.zeros((0, *shape), np.float32)


def passed_record(
    model: AnyClassifier,
    images: ImageSet,
    passes: Iterable[tuple[Tensor, Tensor]],
    *,
    pictures: bool = True,
) -> Record:
    """Returns the Record of images as they are shown to the model.

    Args:
        model: In eval mode, on the device of the images.
        images: N images; their index and labels are the record's.
        passes: Batch by batch what is shown (B,C,H,W), and the unchanged images.
        pictures: Keep the first of them.
    """
    columns = Columns()
    for shown, clean in passes:
        add_outputs(columns, model, shown, clean, pictures=pictures)
    return columns.record(images)


def clean_record(model: AnyClassifier, images: ImageSet) -> Record:
    """Returns the Record of unattacked images; the model is in eval mode on their device."""
    starts = range(0, images.n, images.pass_size)
    batches = (images.batch(slice(start, start + images.pass_size)) for start in starts)
    return passed_record(model, images, ((batch, batch) for batch in batches))
