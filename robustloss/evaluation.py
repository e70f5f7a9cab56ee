"""From a trained model to Records: one pass over the clean images, one over each attacked set.

Shape suffixes: E budgets, N images, B batch, K classes, D feature.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustloss import geometry
from robustloss.attacks import Perturbed, Queries, iter_perturb
from robustloss.attacks.base import Attack, Norm
from robustloss.attacks.geometry import to_8bit
from robustloss.attacks.recorded import kept_recordings
from robustloss.data import Dataset, ImageSet
from robustloss.landscape import UNTRAINED, landscape_arrays
from robustloss.losses.base import LossHead, check_logits
from robustloss.metrics import threshold_at_fpr
from robustloss.models import AnyClassifier, Classifier, all_features
from robustloss.results import Record

VERSION = 1  # raise when the same weights and attack would give another record

PICTURES = 64
GRID = 240  # points a side of the likelihood map
_LAYOUT = torch.channels_last  # the layout in which CPU and GPU convolutions are fastest
FALSE_ALARMS = 0.05  # of the clean validation images, for the detector's threshold

Report = Callable[[float, float, str], None]  # done, total, text
Spend = Callable[[Queries, float], None]  # passes of an attack, its seconds
Arrays = dict[str, NDArray]


class _Columns:
    """Gathers the arrays of a Record batch by batch."""

    def __init__(self) -> None:
        self.parts: dict[str, list[NDArray]] = {}
        self.pictures: list[NDArray] = []

    def add(self, **values: Tensor | None) -> None:
        for name, value in values.items():
            if value is not None:
                self.parts.setdefault(name, []).append(value.detach().cpu().numpy())

    def add_pictures(self, images: Tensor) -> None:
        missing = PICTURES - sum(len(part) for part in self.pictures)
        if missing > 0:
            self.pictures.append(images[:missing].detach().cpu().contiguous().numpy())

    def joined(self) -> dict[str, NDArray]:
        return {name: np.concatenate(parts) for name, parts in self.parts.items()}

    def record(self, images: ImageSet) -> Record:
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
def _add_outputs(
    columns: _Columns, model: AnyClassifier, images: Tensor, clean: Tensor, *, pictures: bool = True
) -> None:
    features, logits, likelihood = model.outputs(images.contiguous(memory_format=_LAYOUT))
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
    columns = _Columns()
    for shown, clean in passes:
        _add_outputs(columns, model, shown, clean, pictures=pictures)
    return columns.record(images)


def clean_record(model: AnyClassifier, images: ImageSet) -> Record:
    """Returns the Record of unattacked images; the model is in eval mode on their device."""
    starts = range(0, images.n, images.pass_size)
    batches = (images.batch(slice(start, start + images.pass_size)) for start in starts)
    return passed_record(model, images, ((batch, batch) for batch in batches))


def _rounded_predictions(
    model: AnyClassifier, images: Tensor, clean: Tensor, eps: float, norm: Norm
) -> Tensor:
    """Returns (B,) the classes of attacked images as a file of 8 bits would hold them."""
    return _classes(model, to_8bit(images, clean, eps, norm))


class LikelihoodView(nn.Module):
    """What an attack on the detector may see: logits, likelihoods, features and the threshold.

    Args:
        model: The classifier.
        threshold: Log-likelihood of the predicted class below which an input is rejected.
        class_means: (K,D) mean features of every class, for attacks that aim at them.
    """

    def __init__(
        self, model: AnyClassifier, threshold: float, class_means: NDArray | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.threshold = threshold
        self.class_means: Tensor | None = None
        if class_means is not None:
            self.class_means = torch.from_numpy(class_means).to(next(model.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B,C,H,W) to logits (B,K)."""
        return self.model(images)

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (B,K) and class log-likelihoods (B,K), in nats."""
        return self.model.joint(images)

    def features(self, images: Tensor) -> Tensor:
        """Maps images to features (B,D)."""
        return self.model.features(images)


def detector_view(model: AnyClassifier, reference: Arrays) -> LikelihoodView:
    """Returns a model with its detector, for attacks on both."""
    return LikelihoodView(model, detector_threshold(reference), class_means(reference))


@kept_recordings()
def attacked_records(
    model: AnyClassifier,
    images: ImageSet,
    attack: Attack,
    *,
    eps: Sequence[float],
    seed: int,
    batch_size: int,
    clean: Record | None = None,
    threshold: float | None = None,
    class_means: NDArray | None = None,
    eight_bit: bool = False,
    spend: Spend = lambda queries, seconds: None,
    report: Report = lambda done, total, text: None,
) -> dict[float, Record]:
    """Attacks every image at every budget and passes the results through the model.

    Args:
        model: In eval mode, on the device of the images.
        images: The images to attack.
        attack: See attacks.ATTACKS.
        eps: E budgets, in pixel units (linf) or Euclidean length (l2).
        seed: Decides the attack's randomness, together with each image's index.
        batch_size: Images a batch.
        clean: The Record of the unattacked images, for budget 0: they are not passed once more.
        threshold: The detector's threshold, for attacks that need the likelihood.
        class_means: See `class_means`, for such attacks too.
        eight_bit: Also classify the attacked images rounded to multiples of 1/255.
        spend: Called with the queries and the seconds of every batch.
        report: Called with (images done, images, text).

    Returns:
        A Record for each budget.
    """
    target: nn.Module = model
    if attack.needs == "likelihood":
        if threshold is None:
            raise ValueError(f"{attack.name} needs a detector threshold.")
        target = LikelihoodView(model, threshold, class_means)
    if clean is None and 0 in eps:
        raise ValueError("eps 0 needs the clean record.")
    columns = {budget: _Columns() for budget in eps}
    for start, inputs, perturbed in _batches(target, images, attack, eps, seed, batch_size):
        for number, budget in enumerate(eps):
            columns[budget].add(
                zero_gradient=perturbed.zero_gradient,
                radius=perturbed.radius,
                outside=perturbed.outside,
            )
            if budget > 0:
                attacked = perturbed.adv_inputs[number]
                _add_outputs(columns[budget], model, attacked, inputs)
                if eight_bit:
                    rounded = _rounded_predictions(model, attacked, inputs, budget, attack.norm)
                    columns[budget].add(predictions_8bit=rounded)
        spend(perturbed.queries, perturbed.seconds)
        done = start + len(inputs)
        report(done, images.n, _progress(columns, images, done))
    records = {}
    for budget in list(columns):
        part = columns.pop(budget)  # and its batches: only one budget is held twice
        unchanged = clean if budget == 0 else None
        records[budget] = replace(unchanged, **part.joined()) if unchanged else part.record(images)
    return records


@torch.no_grad()
def _classes(model: AnyClassifier, images: Tensor) -> Tensor:
    return model(images.contiguous(memory_format=_LAYOUT)).argmax(1)


@kept_recordings()
def transferred_predictions(
    source: nn.Module,
    targets: Sequence[AnyClassifier],
    images: ImageSet,
    attack: Attack,
    *,
    eps: Sequence[float],
    seed: int,
    batch_size: int,
) -> list[NDArray]:
    """Attacks one model and shows the images to others.

    Args:
        source: The attacked model, as `detector_view` gives it.
        targets: T models that have not been asked by the attack.
        images: N images on the models' device.
        attack: See attacks.ATTACKS.
        eps: E budgets, above 0.
        seed: Decides the attack's randomness, together with each image's index.
        batch_size: Images a batch.

    Returns:
        For each budget the predicted classes, (T,N) int64.
    """
    parts: dict[float, list[Tensor]] = {budget: [] for budget in eps}
    for _, _, perturbed in _batches(source, images, attack, eps, seed, batch_size):
        for budget, attacked in zip(eps, perturbed.adv_inputs, strict=True):
            parts[budget].append(torch.stack([_classes(model, attacked) for model in targets]))
    return [torch.cat(part, dim=1).cpu().numpy() for part in parts.values()]


def _progress(columns: dict[float, _Columns], images: ImageSet, done: int) -> str:
    """Returns the error at the largest budget so far, for a progress bar."""
    budget = max(columns)
    if budget == 0:
        return "eps 0"
    logits = np.concatenate(columns[budget].parts["logits"])
    error = (logits.argmax(1) != images.labels[:done].cpu().numpy()).mean()
    return f"eps {budget:.4g} error {100 * error:.1f} %"


def _batches(
    target: nn.Module,
    images: ImageSet,
    attack: Attack,
    eps: Sequence[float],
    seed: int,
    batch_size: int,
) -> Iterator[tuple[int, Tensor, Perturbed]]:
    """Yields (start, clean images (B,C,H,W), Perturbed) batch by batch, so memory stays flat."""
    for start in range(0, images.n, batch_size):
        piece = slice(start, start + batch_size)
        clean = images.batch(piece).contiguous(memory_format=_LAYOUT)
        for perturbed in iter_perturb(
            attack,
            target,
            clean,
            images.labels[piece],
            eps=eps,
            seed=seed,
            batch_size=batch_size,
            index=images.index[piece],
        ):
            yield start, clean, perturbed


def fit_subset(images: ImageSet, size: int) -> ImageSet:
    """Returns a fixed, stratified subset of a set, as of the training images to fit scores on."""
    if size >= images.n:
        return images
    order = torch.argsort(images.labels, stable=True)
    positions = torch.div(torch.arange(size) * images.n, size, rounding_mode="floor")
    return images.take(order[positions.to(order.device)].sort().values)


@torch.no_grad()
def reference_arrays(
    model: AnyClassifier,
    dataset: Dataset,
    device: torch.device,
    fit_size: int,
    *,
    loss: str = "",
    params: Mapping[str, Any] | None = None,
    untrained: Classifier | None = None,
) -> Arrays:
    """Returns what scores, thresholds and pictures need beside the records.

    The clean validation pass (``validation_*``), features of a training subset (``train_*``), if
    the model has any, the centers (K,D) of a head that has some, for 2-D features the class
    log-likelihoods on a grid that spans the training features with a margin, and what
    `landscape_arrays` finds.

    Args:
        model: Trained, in eval mode, on the device.
        dataset: Its data.
        device: Where to compute.
        fit_size: Training images to fit scores on.
        loss: Its name in the spec; decides the closed form of its boundaries.
        params: The loss's parameters in the spec.
        untrained: The network as it was before training; its features of some test images of
            every class are ``untrained_features``. Batch normalisation has its first statistics.
    """
    validation = clean_record(model, dataset.validation.to(device))
    arrays: Arrays = {
        "validation_index": validation.index,
        "validation_labels": validation.labels,
        "validation_logits": validation.logits,
        "validation_class_log_likelihood": validation.class_log_likelihood,
    }
    if validation.features is None:  # a given model: nothing to fit scores on
        return arrays
    fit = clean_record(model, fit_subset(dataset.train, fit_size).to(device))
    assert fit.features is not None
    arrays |= {
        "validation_features": validation.features,
        "train_features": fit.features,
        "train_labels": fit.labels,
    }
    if not isinstance(model.head, LossHead):
        return arrays
    centers = getattr(model.head, "centers", None)
    shape = (model.head.num_classes, model.head.feature_dim)
    if isinstance(centers, Tensor) and tuple(centers.shape) == shape:
        arrays["centers"] = centers.detach().float().cpu().numpy()
    grid = _grid(model.head, fit.features, device) if model.head.feature_dim == 2 else {}
    arrays |= grid
    arrays |= landscape_arrays(model.head, loss, params or {}, fit.features, fit.labels, grid)
    if untrained is not None:
        some = fit_subset(dataset.test, UNTRAINED).to(device)  # a folder may be sorted by class
        arrays["untrained_features"] = all_features(untrained.to(device), some).cpu().numpy()
        arrays["untrained_labels"] = some.labels.cpu().numpy()
    return arrays


def _grid(head: LossHead, features: NDArray, device: torch.device) -> Arrays:
    low, high = features.min(0), features.max(0)
    margin = 0.35 * (high - low)
    xs, ys = (np.linspace(low[i] - margin[i], high[i] + margin[i], GRID) for i in (0, 1))
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    batches = torch.from_numpy(points).float().to(device).split(4096)
    likelihood = torch.cat([head.class_log_likelihood(batch) for batch in batches])
    predictions = torch.cat([head.logits(batch).argmax(1) for batch in batches])
    return {
        "grid_x": xs.astype(np.float32),
        "grid_y": ys.astype(np.float32),
        "grid_class_log_likelihood": likelihood.cpu().numpy().reshape(GRID, GRID, -1),
        "grid_prediction": predictions.cpu().numpy().reshape(GRID, GRID),
    }


def detector_threshold(reference: Arrays) -> float:
    """Returns the log-likelihood below which 5 % of the clean validation images fall."""
    likelihood = reference["validation_class_log_likelihood"]
    predicted = reference["validation_logits"].argmax(1)
    return threshold_at_fpr(likelihood[np.arange(len(predicted)), predicted], FALSE_ALARMS)


def class_means(reference: Arrays) -> NDArray | None:
    """Returns the mean clean training features (K,D) of every class; NaN for one without any.

    None where the model offers no features.
    """
    if "train_features" not in reference:
        return None
    classes = reference["validation_logits"].shape[1]
    features, labels = reference["train_features"], reference["train_labels"]
    return geometry.class_means(features, labels, classes).astype(np.float32)
