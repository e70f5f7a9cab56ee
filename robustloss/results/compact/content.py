"""What a baseline holds: of every cell and pass, what happened to each test image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robustloss.results.run import Run
from robustloss.results.schema import Row

REFERENCE_MARK = " (reference, "  # ends the label of a loss of a reference, with version and ")"

# Of results.json, as they were, but for times: what a result table and its marks are made from.
TABLES_KEPT = (
    *("rows", "worst_case", "radii", "adaptive", "detection", "calibration", "geometry"),
    *("collapse", "training", "flags"),
)


@dataclass(frozen=True, eq=False)
class PassOutcome:
    """What one attack at one budget did to each of N test images; or the clean images.

    Attributes:
        attack: name of the attack; "none" for the clean images.
        attack_label: its name in tables.
        norm: of eps; None for the clean images.
        eps: budget.
        wrong: (N,) bool, the image is classified wrongly.
        accepted: (N,) bool, the score reaches the threshold that rejects 5 % of the clean
            validation images; None where the budget was not attacked, and `wrong` is read from the
            radii of a minimum-norm attack.
        scores: (N,) float16, the log-likelihood of the predicted class in the units of
            `CellOutcomes`, so rounded before anything is computed from it; None likewise.
    """

    attack: str
    attack_label: str
    norm: str | None
    eps: float
    wrong: np.ndarray
    accepted: np.ndarray | None = None
    scores: np.ndarray | None = None

    @property
    def place(self) -> Row:
        """The columns that name the pass in a table."""
        names = ("attack", "attack_label", "norm", "eps")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class CellOutcomes:
    """One loss and one seed.

    Attributes:
        loss: key or plug-in name.
        label: the loss's name in tables.
        seed: training seed.
        weights: digest of the weights; equal ones are of the same network. None where the run does
            not say.
        threshold: log-likelihood below which the detector rejects, at 5 % false alarms; nats.
        shift: the log-likelihood at which a score is 0, nats.
        scale: nats of one unit of the scores.
        passes: the clean images first, then every attack at every eps > 0.
        radii: (N,) float16 or float32, the smallest perturbation that a minimum-norm attack found,
            by label of the attack; inf where it found none.
    """

    loss: str
    label: str
    seed: int
    weights: str | None
    threshold: float
    shift: float
    scale: float
    passes: tuple[PassOutcome, ...]
    radii: Mapping[str, np.ndarray]

    @property
    def clean(self) -> PassOutcome:
        """The clean images."""
        return self.passes[0]

    def likelihood(self, one: PassOutcome) -> np.ndarray:
        """Return the log-likelihoods (N,) of one of its scored passes, nats."""
        assert one.scores is not None
        return one.scores.astype(np.float64) * self.scale + self.shift

    def relabel(self, attacks: Mapping[str, str]) -> "CellOutcomes":
        """Return the cell with its attacks called otherwise.

        Args:
            attacks: new labels by old ones; other attacks are left out.
        """
        passes = tuple(
            replace(one, attack_label=attacks[one.attack_label])
            for one in self.passes[1:]
            if one.attack_label in attacks
        )
        radii = {attacks[label]: r for label, r in self.radii.items() if label in attacks}
        return replace(self, passes=(self.clean, *passes), radii=radii)


@dataclass(frozen=True, eq=False)
class Baseline:
    """A run, reduced to what a later run is compared with.

    Attributes:
        path: the run folder or the file that it was read from.
        name: of the run.
        provenance: versions, data, seeds, device and resolved spec; no times.
        index: (N,) positions of the test images in the original file.
        cells: by loss, then by seed.
        tables: the tables `TABLES_KEPT` of results.json, of `detection` what is about the
            log-likelihood. A file of an older version has the first three.
    """

    path: Path
    name: str
    provenance: Mapping[str, Any]
    index: np.ndarray
    cells: tuple[CellOutcomes, ...]
    tables: Mapping[str, list[Row]]

    @cached_property
    def run(self) -> Run:
        """The run as far as the baseline tells it: name, provenance and the kept tables."""
        return Run(
            self.path, {"name": self.name, "provenance": dict(self.provenance), **self.tables}
        )
