"""Every table and every figure of a report, in the order of the page."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from robustloss.reports.chapters.detection.adaptive import (
    auroc_table,
    every_adaptive_table,
    guarded,
    rejection_table,
)
from robustloss.reports.chapters.detection.coverage import add_coverage
from robustloss.reports.chapters.detection.curves import add_detection_curves
from robustloss.reports.chapters.detection.detected import Detected
from robustloss.reports.chapters.detection.fall import add_falls
from robustloss.reports.chapters.detection.likelihoods import add_likelihoods
from robustloss.reports.chapters.detection.outside import add_outside, outside_tables
from robustloss.reports.chapters.detection.populations import populations_table
from robustloss.reports.chapters.detection.roc import add_rocs
from robustloss.reports.chapters.detection.scores import add_score_curves, add_score_heat
from robustloss.reports.chapters.detection.table import detection_table, scores_table
from robustloss.reports.chapters.differences.forest import add_forest
from robustloss.reports.chapters.differences.matrix import differences_table
from robustloss.reports.chapters.errors.attack import attack_table, cost_table
from robustloss.reports.chapters.errors.curves import add_error_curves
from robustloss.reports.chapters.errors.images import add_images
from robustloss.reports.chapters.errors.radius import radius_table
from robustloss.reports.chapters.errors.radius_curves import add_radius_curves
from robustloss.reports.chapters.errors.table import error_table
from robustloss.reports.chapters.errors.transfer import add_transfers, matrices, transfer_table
from robustloss.reports.chapters.errors.worst_case import overview_table, worst_table
from robustloss.reports.chapters.overview.losses import glance_table, seed_table
from robustloss.reports.chapters.predictions.calibration import calibration_table
from robustloss.reports.chapters.predictions.classes import balance_table, class_table
from robustloss.reports.chapters.predictions.confusion import add_confusions, confusion_tables
from robustloss.reports.chapters.predictions.posterior import add_log_odds, add_posteriors
from robustloss.reports.chapters.predictions.reliability import (
    add_calibration_curves,
    add_reliability,
)
from robustloss.reports.chapters.predictions.top5 import crops_table, top5_table
from robustloss.reports.chapters.space.alpha import add_alpha
from robustloss.reports.chapters.space.boundary import add_boundaries
from robustloss.reports.chapters.space.centers import add_center_estimates
from robustloss.reports.chapters.space.embedding import add_embedding, add_untrained
from robustloss.reports.chapters.space.likelihood_map import add_likelihood_map
from robustloss.reports.chapters.space.norms import add_norms
from robustloss.reports.chapters.space.tables import (
    center_table,
    geometry_tables,
    margin_table,
    tuple_table,
)
from robustloss.reports.chapters.training.learning import add_learning_curves
from robustloss.reports.chapters.training.table import training_table
from robustloss.reports.chapters.training.tuning import add_tuning, tuning_tables
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import looks
from robustloss.reports.drawing.table import Table
from robustloss.reports.page.checks import flags_table
from robustloss.reports.page.notes import annotate
from robustloss.reports.reading.featured import featured
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.scene import Scenes
from robustloss.reports.reading.views import Shown

Drawing = Callable[[Album], object]  # adds one figure or a few, or none where there is nothing
Maker = Callable[[], Table | list[Table] | None]  # makes one table or a few, or none

NOT_MADE = " could not be made: "  # stands in the gap of a table or figure that failed

ADAPTIVE = (auroc_table, rejection_table, every_adaptive_table)
OF_ATTACK = (attack_table, calibration_table, scores_table, differences_table)
OF_RUN = (
    outside_tables,
    top5_table,
    balance_table,
    class_table,
    crops_table,
    cost_table,
    tuning_tables,
    training_table,
    seed_table,
    geometry_tables,
    margin_table,
    center_table,
    tuple_table,
)


def make_tables(numbers: Numbers, shown: Shown) -> list[Table]:
    """Make every table of the report, in the order of the page: what sums up comes first.

    Args:
        numbers: Of the run.
        shown: The models whose single predictions are counted.
    """
    detected = Detected(numbers)
    makers: list[Maker] = [partial(glance_table, numbers)]
    for norm in numbers.norms:
        for case in [case for case in numbers.worst_cases if case.norm == norm]:
            makers += [partial(worst_table, numbers, case), partial(overview_table, numbers, case)]
        makers.append(partial(radius_table, numbers, norm))
    for each in guarded(numbers):
        makers += [partial(make, each) for make in ADAPTIVE]
    makers += [partial(transfer_table, matrix) for matrix in matrices(numbers)]
    for attack in numbers.attacks:
        makers.append(partial(error_table, numbers, attack))
        if attack.strengths:
            makers += [
                partial(detection_table, numbers, attack),
                partial(populations_table, numbers, detected, attack),
                *(partial(make, numbers, attack) for make in OF_ATTACK),
            ]
    makers += [partial(make, numbers) for make in OF_RUN]
    makers += [partial(confusion_tables, numbers, shown), partial(flags_table, numbers)]
    tables: list[Table] = []
    for make in makers:
        with leaving_gap("a table", shown.gaps):
            made = make()
            found = made if isinstance(made, list) else [made]
            tables += [annotate(numbers, table) for table in found if table and table.rows]
    return tables


@contextmanager
def leaving_gap(what: str, gaps: list[str]) -> Iterator[None]:
    """Note what goes wrong in the block as a gap of the page; a full disk ends the report.

    Args:
        what: The block makes.
        gaps: Takes the reason.
    """
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        gaps.append(
            f"{what}{NOT_MADE}{type(error).__name__}: {error} "
            f"({Path(place.filename).name}, line {place.lineno})"
        )


def list_drawings(numbers: Numbers, shown: Shown) -> list[Drawing]:
    """List what draws the figures, in the order of the page; neighbours read the same files.

    Args:
        numbers: Of the run.
        shown: The models whose single images are shown.
    """
    look, detected, scenes = looks(numbers.labels), Detected(numbers), Scenes(numbers, shown)

    def of_attack(attack: AttackInfo) -> list[Drawing]:
        return [
            lambda album: add_detection_curves(album, numbers, detected, attack, look),
            lambda album: add_posteriors(album, scenes.of(attack)),
            lambda album: add_log_odds(album, scenes.of(attack)),
            lambda album: add_likelihoods(album, scenes.of(attack)),
            lambda album: add_rocs(album, scenes.of(attack), look),
            lambda album: add_coverage(album, scenes.of(attack), look),
            lambda album: add_reliability(album, numbers, attack),
            lambda album: add_calibration_curves(album, numbers, attack, look),
            lambda album: add_forest(album, numbers, attack),
            lambda album: add_score_curves(album, numbers, detected, attack, look),
            lambda album: add_score_heat(album, numbers, detected, attack),
            lambda album: add_likelihood_map(album, scenes.of(attack)),
            lambda album: add_images(album, scenes.of(attack)),
        ]

    return [
        lambda album: add_error_curves(album, numbers, look),
        lambda album: add_radius_curves(album, numbers, shown, look),
        lambda album: add_falls(album, numbers),
        lambda album: add_transfers(album, numbers),
        *(drawing for attack in featured(numbers) for drawing in of_attack(attack)),
        lambda album: add_outside(album, numbers, shown),
        lambda album: add_embedding(album, numbers, shown),
        lambda album: add_untrained(album, numbers, shown),
        lambda album: add_boundaries(album, numbers, shown),
        lambda album: add_alpha(album, numbers, shown),
        lambda album: add_confusions(album, numbers, shown),
        lambda album: add_norms(album, numbers, shown),
        lambda album: add_center_estimates(album, numbers),
        lambda album: add_tuning(album, numbers),
        lambda album: add_learning_curves(album, numbers, look),
    ]
