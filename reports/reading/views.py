"""What figures need of the stored records: read once, reduced at once, gaps kept as reasons."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from robustloss.analysis.detection.scores import SCORES
from robustloss.metrics.rates import max_log_posterior, threshold_at_fpr
from robustloss.notation import eps_text
from robustloss.reports.reading.feature_space import Space, space
from robustloss.results.finished_cell import Cell
from robustloss.results.numbers import Attack
from robustloss.results.records import Record
from robustloss.results.run import Run
from robustloss.results.scores import StoredScores

FALSE_ALARMS = 0.05
UNREADABLE = (OSError, ValueError, KeyError)  # a file that is missing, damaged, or of another kind

Part = TypeVar("Part")


@dataclass(frozen=True)
class View:
    """One pass over the test images, as the figures want it."""

    labels: np.ndarray  # (N,) class indices
    predictions: np.ndarray
    score: np.ndarray  # (N,) log-likelihood at the predicted class, nats
    posterior: np.ndarray  # (N,) of the predicted class
    log_odds: np.ndarray  # (N,) its logit, from the log domain: finite where float32 reads 1
    features: np.ndarray | None  # (N, D), or None where none were stored
    images: np.ndarray  # (M, C, H, W) the first images
    index: np.ndarray  # (N,) position of each image in its file

    @property
    def wrong(self) -> np.ndarray:
        """(N,) bool."""
        return self.predictions != self.labels

    @property
    def n(self) -> int:
        """Images."""
        return len(self.labels)


def view(record: Record, *, keep_features: bool) -> View:
    """Reduce a record to what is drawn.

    Args:
        record: Of one pass.
        keep_features: Whether its features are drawn; they are the largest part of it.
    """
    log_p = max_log_posterior(record.logits)
    with np.errstate(divide="ignore"):  # beyond a logit gap of 745 the odds are infinite
        log_odds = log_p - np.log(-np.expm1(log_p))
    features = record.features if keep_features else None
    score = SCORES["class_log_likelihood"](record)
    return View(record.labels, record.predictions, score, np.exp(log_p), log_odds, features,
                record.images, record.index)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """What one model says about clean validation data, and where its centers lie."""

    threshold: float  # score below which 5 % of the clean validation images are rejected
    levels: tuple[float, float, float]  # scores below which 1, 5 and 50 % of them lie
    centers: np.ndarray | None  # (K, D) or None
    # x (G,), y (G,) and the log-likelihood at the predicted class (G, G), or None
    grid: tuple[np.ndarray, np.ndarray, np.ndarray] | None


def reference(arrays: Mapping[str, np.ndarray]) -> Reference:
    """Reduce the stored reference arrays of a cell to what is drawn of them."""
    likelihood = np.asarray(arrays["validation_class_log_likelihood"], float)
    score = _at(likelihood, arrays["validation_logits"].argmax(1))
    low, mid, half = (float(q) for q in np.quantile(score, (0.01, 0.05, 0.5)))
    grid = None
    if "grid_x" in arrays:
        values = np.asarray(arrays["grid_class_log_likelihood"], float)
        at_predicted = _at(values, arrays["grid_prediction"])
        grid = (np.asarray(arrays["grid_x"]), np.asarray(arrays["grid_y"]), at_predicted)
    return Reference(
        threshold_at_fpr(score, FALSE_ALARMS), (low, mid, half), arrays.get("centers"), grid
    )


def _at(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, np.asarray(chosen)[..., None], axis=-1)[..., 0]


class Shown:
    """The models whose single images are shown: of each loss the first finished seed.

    What cannot be read is the reason in words, in place of the value; figures show it as a gap.

    Attributes:
        cells: By label; a loss without a finished cell is missing.
        gaps: Every file that could not be read, and why.
    """

    def __init__(self, run: Run) -> None:
        self.cells: dict[str, Cell] = {}
        self.gaps: list[str] = []
        self._failed = {f.get("label"): f.get("stage") for f in run.failures}
        cells, gaps = run.readable_cells  # one damaged cell.json must not hide the others
        self.gaps += gaps
        self._every = sorted(cells, key=lambda c: c.seed)
        for cell in self._every:
            self.cells.setdefault(cell.label, cell)
        self._known: dict[tuple[str, str], object] = {}  # by label, and what was read

    @property
    def classes(self) -> int | None:
        """Number of classes, None without a readable cell."""
        return next((cell.num_classes for cell in self.cells.values()), None)

    def words(self, labels: list[str]) -> str:
        """Return the sentence that says which models the pictures of single images show."""
        found = {k: self.cells[k].seed for k in labels if k in self.cells}
        if len({cell.seed for cell in self._every}) == 1:
            return ""  # there is no other
        if len(set(found.values())) == 1:
            return f"Shown: seed {next(iter(found.values()))} of each loss."
        each = ", ".join(f"{k} seed {seed}" for k, seed in found.items())
        return f"Shown: the first finished seed of each loss ({each})."

    def clean(self, label: str) -> View | str:
        """Return the clean pass."""
        return self._once(
            label, "clean record", lambda cell: view(cell.record(), keep_features=True)
        )

    def attacked(self, label: str, attack: Attack, eps: float) -> View | str:
        """Return one attacked pass, which is not kept in memory here."""
        return self._load(
            label,
            f"record of {attack.label} at eps {eps_text(eps)}",
            lambda cell: view(cell.record(attack.label, eps), keep_features=cell.feature_dim == 2),
        )

    def radii(self, label: str, attack: Attack) -> list[np.ndarray]:
        """Return (N,) radii for every readable seed; clean mistakes have radius 0."""
        out = []
        for cell in self._every:
            if cell.label == label:
                try:
                    clean = cell.record()
                    radius = cell.record(attack.label, attack.strengths[0]).radius
                except UNREADABLE as error:
                    self.gaps.append(f"{label}, seed {cell.seed}: radii of {attack.label}: {error}")
                    continue
                if radius is not None:
                    out.append(np.where(clean.correct, radius, 0.0))
        return out

    def reference(self, label: str) -> Reference | str:
        """Return thresholds, centers and grid."""
        return self._once(
            label, "clean validation scores", lambda cell: reference(cell.reference())
        )

    def scores(self, label: str) -> StoredScores | str:
        """Return the stored scores of every pass."""
        return self._once(label, "stored scores", lambda cell: cell.scores())

    def space(self, label: str) -> Space | str:
        """Return training and untrained features, class vectors and boundaries."""
        if isinstance(known := self.reference(label), str):
            return known  # the same file: one gap is enough
        return self._once(label, "feature space", lambda cell: space(cell.reference(), cell.loss))

    def _once(self, label: str, what: str, load: Callable[[Cell], Part]) -> Part | str:
        """Load something of a loss, and keep it: several figures ask for it."""
        if (label, what) not in self._known:
            self._known[label, what] = self._load(label, what, load)
        return self._known[label, what]  # type: ignore[return-value]

    def _load(self, label: str, what: str, load: Callable[[Cell], Part]) -> Part | str:
        """Load something of a loss, or return why it cannot be loaded."""
        if label not in self.cells:
            stage = self._failed.get(label)
            return f"no finished seed: {stage} failed" if stage else "no finished seed"
        cell = self.cells[label]
        try:
            return load(cell)
        except UNREADABLE as error:
            gap = f"{label}, seed {cell.seed}: {what} cannot be read: {error}"
            self.gaps += [gap] if gap not in self.gaps else []  # two figures may ask for one file
            return f"{what} cannot be read"
