"""A cell as its tables see it: what several of them need is computed here, once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robustloss.analysis.detection.adaptive import SCORES
from robustloss.analysis.detection.compute import CLEAN_KEY
from robustloss.analysis.detection.separation import (
    Numbers,
    area_columns,
    check_same_images,
    compare,
    compare_sides,
)
from robustloss.analysis.outcomes import Outcome, reduce_record
from robustloss.metrics.bootstrap import Resamples, draw_resamples
from robustloss.metrics.calibration import RESAMPLES, fit_temperature
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.records import Record, validation_record
from robustloss.results.schema import Row, cell_place
from robustloss.results.scores import CLEAN, VALIDATION, Pass, StoredScores
from robustloss.spec.attack_kinds import attack_kind
from robustloss.spec.detection import LIKELIHOOD

CLEAN_ENTRY = {"attack": "none", "attack_label": "none", "norm": None, "eps": 0.0}

Arrays = Mapping[str, np.ndarray]
Records = Mapping[tuple[str, float], Record]


@dataclass(frozen=True, eq=False)
class MeasuredPass:
    """The clean test images, or one attack on them at one eps, while the record is in memory.

    Attributes:
        place: the columns that say of which cell and pass a row is.
        record: what the model said.
        scores: (N,) detection scores by name.
        separation: how well each score separates the images from clean ones: by score and
            population the numbers of the table `detection`; of the clean pass only how well it
            tells right predictions from wrong ones, population "clean".
        outcome: what is kept when the record is not.
    """

    place: Row
    record: Record
    scores: Arrays
    separation: Mapping[str, Mapping[str, Numbers]]
    outcome: Outcome

    @property
    def repeats_clean(self) -> bool:
        """Whether it is an attack at eps 0, which leaves the clean images as they are."""
        return self.place["attack"] != "none" and self.place["eps"] == 0


@dataclass(frozen=True, eq=False)
class MeasuredCell:
    """What the tables of a cell are made from.

    Attributes:
        facts: of cell.json: "loss", "label", "seed" and "files" with the list "records".
        reference: the arrays of reference-KEY.npz.
        stored: every score of every pass.
        detection_scores: names of the scores of the tables of detection.
        probe: the arrays of probe-KEY.npz, or nothing.
        training: the line of the learning curve at which the weights stood, or nothing.
        clean: the clean pass.
        kept_scores: names of the scores of the outcomes: of the worst case, and of the table of
            adaptive attacks where there are any.
        resamples: of the test images.
        temperature: fitted on the validation images; None where it is not asked for.
        outcomes: of the attacks that aim at the label, as far as they are measured.
    """

    facts: Mapping[str, Any]
    reference: Arrays
    stored: StoredScores
    detection_scores: Sequence[str]
    probe: Arrays
    training: Mapping[str, Any]
    clean: MeasuredPass
    kept_scores: tuple[str, ...]
    resamples: Resamples
    temperature: float | None
    outcomes: list[Outcome] = field(default_factory=list)


def measure_cell(
    records: Records,
    reference: Arrays,
    facts: Mapping[str, Any],
    stored: StoredScores,
    detection_scores: Sequence[str],
    probe: Arrays | None,
    training: Mapping[str, Any] | None,
    *,
    temperature: bool,
) -> MeasuredCell:
    """Measure the clean pass, and what all passes share.

    Args:
        records: by (attack_label, eps).
        reference: see `MeasuredCell`.
        facts: see `MeasuredCell`.
        stored: see `MeasuredCell`.
        detection_scores: see `MeasuredCell`.
        probe: see `MeasuredCell`.
        training: see `MeasuredCell`.
        temperature: whether to fit one.
    """
    adaptive = [e for e in facts["files"]["records"] if attack_kind(e["attack"]) == "adaptive"]
    named = (
        (*SCORES, *(e["score"] for e in adaptive if "score" in e)) if adaptive else (LIKELIHOOD,)
    )
    # The scores of every pass take room, so they are kept only where a table needs them.
    kept = tuple(name for name in dict.fromkeys(named) if name in stored.names)
    record = records[CLEAN_KEY]
    scores = {name: stored.get(name, CLEAN) for name in stored.names}
    outcome = reduce_record(CLEAN_ENTRY, record, {name: scores[name] for name in kept})
    areas = {
        name: {"clean": {"n_clean": record.n, "n_attacked": 0} | area_columns(own, outcome.wrong)}
        for name, own in scores.items()
    }
    validation = validation_record(reference)
    return MeasuredCell(
        facts=facts,
        reference=reference,
        stored=stored,
        detection_scores=detection_scores,
        probe=probe or {},
        training=training or {},
        clean=MeasuredPass(cell_place(facts) | CLEAN_ENTRY, record, scores, areas, outcome),
        kept_scores=kept,
        resamples=draw_resamples(record.n, RESAMPLES),
        temperature=fit_temperature(validation.logits, validation.labels) if temperature else None,
    )


def measure_passes(measured: MeasuredCell, records: Records) -> Iterator[MeasuredPass]:
    """Measure the attacked passes one after the other, in the order of cell.json.

    Args:
        measured: the cell.
        records: by (attack_label, eps). Each is looked up once and not kept: only one is in memory
            where the mapping loads them lazily.

    Raises:
        ValueError: a record of other images than the clean one.
    """
    clean, stored = measured.clean, measured.stored
    everybody = np.ones(clean.record.n, bool)
    for entry in measured.facts["files"]["records"]:
        key = entry["attack_label"], float(entry["eps"])
        if key == CLEAN_KEY:
            continue
        record = records[key]
        check_same_images(clean.record, record)
        scores, separation, control = {}, {}, Pass("noise", *key)
        for name in stored.names:
            validation = stored.get(name, VALIDATION)
            scores[name] = stored.get(name, Pass("attacked", *key))
            separation[name] = compare(
                clean.record.correct, ~record.correct, clean.scores[name], scores[name], validation
            )
            if stored.has(name, control):
                separation[name]["noise"] = compare_sides(
                    clean.scores[name],
                    stored.get(name, control),
                    everybody,
                    everybody,
                    threshold_at_fpr(validation, 0.05),
                )
        kept = {name: scores[name] for name in measured.kept_scores}
        outcome = reduce_record(entry, record, kept, stored.wrong.get(control))
        place = {name: entry[name] for name in ("attack", "attack_label", "norm")}
        place = cell_place(measured.facts) | place | {"eps": key[1]}
        yield MeasuredPass(place, record, scores, separation, outcome)
