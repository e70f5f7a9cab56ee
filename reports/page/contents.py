"""Every table and every figure of a report, in the chapters of the page: one question each."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from robustloss.reports.chapters.confidence.calibration import calibration_table, confidence_table
from robustloss.reports.chapters.confidence.classes import balance_table, class_table
from robustloss.reports.chapters.confidence.confusion import add_confusions, confusion_tables
from robustloss.reports.chapters.confidence.reliability import (
    add_calibration_curves,
    add_reliability,
)
from robustloss.reports.chapters.confidence.top5 import crops_table, top5_table
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
from robustloss.reports.chapters.detection.outside import add_outside, outside_tables
from robustloss.reports.chapters.detection.populations import populations_table
from robustloss.reports.chapters.detection.roc import add_rocs
from robustloss.reports.chapters.detection.scores import add_score_curves, add_score_heat
from robustloss.reports.chapters.detection.table import detection_table, scores_table
from robustloss.reports.chapters.differences.forest import add_forest
from robustloss.reports.chapters.differences.matrix import differences_table
from robustloss.reports.chapters.images.attacked import add_images
from robustloss.reports.chapters.paper.error import error_table, introduce_paper
from robustloss.reports.chapters.paper.likelihoods import add_likelihoods
from robustloss.reports.chapters.paper.posterior import add_log_odds, add_posteriors
from robustloss.reports.chapters.result.attack import attack_table, cost_table
from robustloss.reports.chapters.result.curves import add_error_curves
from robustloss.reports.chapters.result.radius import radius_table
from robustloss.reports.chapters.result.radius_curves import add_radius_curves
from robustloss.reports.chapters.result.seeds import seed_table
from robustloss.reports.chapters.result.table import result_table
from robustloss.reports.chapters.result.transfer import add_transfers, matrices, transfer_table
from robustloss.reports.chapters.result.worst_case import overview_table, worst_table
from robustloss.reports.chapters.run.learning import add_learning_curves
from robustloss.reports.chapters.run.table import training_table
from robustloss.reports.chapters.run.tuning import add_tuning, tuning_tables
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
    space_table,
    tuple_table,
)
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import looks
from robustloss.reports.drawing.table import Table
from robustloss.reports.page.checks import flags_table
from robustloss.reports.reading.featured import featured, strongest
from robustloss.reports.reading.numbers import WORST, AttackInfo, Numbers
from robustloss.reports.reading.scene import Scenes
from robustloss.reports.reading.views import Shown

Drawing = Callable[[Album], object]  # adds one figure or a few, or none where there is nothing
Maker = Callable[[], Table | list[Table] | None]  # makes one table or a few, or none

NOT_MADE = " could not be made: "  # stands in the gap of a table or figure that failed


@dataclass(frozen=True, eq=False)
class Item:
    """One thing that a chapter shows: a table, a figure, or a few that are made together.

    Attributes:
        name: How its files are called, without the attack: "roc" for roc-fgsm.png.
        title: What the contents call it.
        make: Makes the tables; None for figures.
        draw: Draws the figures; None for tables.
        attack: Slug of the attack that it is about; "" for the whole run.
        choices: The choices of an attack under which the page shows it; empty for all of them.
        detail: It stands under Details, and its figures are drawn on demand only.
    """

    name: str
    title: str
    make: Maker | None = None
    draw: Drawing | None = None
    attack: str = ""
    choices: tuple[str, ...] = ()
    detail: bool = False


@dataclass(frozen=True)
class Chapter:
    """One question of a reader, and what answers it.

    Attributes:
        key: Anchor on the page.
        title: The question.
        words: One or two sentences that say how to read the chapter; may be empty.
        items: In the order of the page.
    """

    key: str
    title: str
    words: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Choice:
    """What a reader can choose at the top of the page: the worst case, or one attack.

    Attributes:
        key: Of the choice, made of slugs.
        label: As the page calls it.
        attack: An attack, or a worst case.
    """

    key: str
    label: str
    attack: AttackInfo


class Contents:
    """Every table and figure of a report, in the chapters of the page.

    Attributes:
        numbers, shown: Of the run.
        choices: The worst case of each norm, then the attacks that are shown in full.
        chapters: In the order of the page.
    """

    def __init__(self, numbers: Numbers, shown: Shown) -> None:
        self.numbers, self.shown = numbers, shown
        self._look = looks(numbers.labels)
        self._detected, self._scenes = Detected(numbers), Scenes(numbers, shown)
        self._featured = featured(numbers)
        cases = numbers.worst_cases if self._featured else []
        self.choices = [Choice(case.slug, _capital(case.label), case) for case in cases]
        self.choices += [Choice(a.slug, a.label, a) for a in self._featured]
        self.chapters = [
            self._result(), self._paper(), self._detection(), self._differences(),
            self._confidence(), self._space(), self._images(), self._trust(), self._run(),
        ]  # fmt: skip

    def list_items(self) -> list[Item]:
        """Return every item, those of one attack together: they read the same files."""
        items = [item for chapter in self.chapters for item in chapter.items]
        order = [choice.key for choice in self.choices]
        return sorted(items, key=lambda item: order.index(item.choices[-1]) if item.choices else -1)

    def list_drawings(self, *, details: bool) -> list[Item]:
        """Return the items that are figures.

        Args:
            details: Also those under Details.
        """
        return [item for item in self.list_items() if item.draw and (details or not item.detail)]

    def _scene(self, of: Callable[..., Any], *words: Any) -> Callable[[Album, AttackInfo], Any]:
        """Return how to draw one attack by a function of album, scene and these words."""
        return lambda album, attack: of(album, self._scenes.of(attack), *words)

    def _each(
        self, name: str, title: str, of: Callable[..., Any], *, figure: bool = False,
        detail: bool = False, first: bool = False,
    ) -> list[Item]:  # fmt: skip
        """Return an item for each attack that a reader can choose, or for each that was run.

        Args:
            name, title, detail: See `Item`.
            of: Makes the table from an attack, or draws into an album from an attack.
            figure: It draws.
            first: Under the worst case, the first attack stands in; else the strongest one.
        """
        items = []
        for attack in self._featured if figure else self.numbers.attacks:
            if attack.strengths:
                item = (
                    _figure(name, title, of, attack) if figure else _table(name, title, of, attack)
                )
                choices = self._choices_of(attack, first=first)
                aside = detail or not choices
                items.append(replace(item, attack=attack.slug, choices=choices, detail=aside))
        return items

    def _choices_of(self, attack: AttackInfo, *, first: bool) -> tuple[str, ...]:
        """Return under which choices an attack is shown: its own, and worst cases it stands for."""
        keys = []
        for choice in self.choices:
            if choice.attack == attack:
                keys.append(choice.key)
            elif choice.attack.name == WORST:
                own = [a for a in self._featured if a.norm == choice.attack.norm]
                own = own or self._featured
                stands_in = own[0] if first else strongest(self.numbers, own)
                if attack == stands_in:
                    keys.append(choice.key)
        return tuple(keys)

    def _result(self) -> Chapter:
        numbers, shown = self.numbers, self.shown
        main = [
            _table("result", "All losses", result_table, numbers),
            _figure("error-vs-eps", "Error against eps", add_error_curves, numbers, self._look),
        ]
        items: list[Item] = []
        for norm in numbers.norms:
            for case in [case for case in numbers.worst_cases if case.norm == norm]:
                items += [
                    _table("worst", "Worst case", worst_table, numbers, case),
                    _table("overview", "Every attack", overview_table, numbers, case),
                ]  # fmt: skip
            items.append(_table("radius", "Radius", radius_table, numbers, norm))
        items += [
            _figure("error-vs-radius", "Radius", add_radius_curves, numbers, shown, self._look),
            *(_table("transfer", "Transfer", transfer_table, each) for each in matrices(numbers)),
            _figure("transfer", "Transfer between losses", add_transfers, numbers),
            *self._each("attack", "Success and confidence", partial(attack_table, numbers)),
            _table("attack-cost", "Cost of the attacks", cost_table, numbers),
            _table("seeds", "Every seed", seed_table, numbers),
        ]  # fmt: skip
        return Chapter("result", "Result", "", [*main, *map(_as_detail, items)])

    def _paper(self) -> Chapter:
        numbers = self.numbers
        plain = [a for a in numbers.attacks if not a.strengths]
        return Chapter(
            "paper", "Beside the paper",
            introduce_paper(numbers),
            [
                *self._each("error", "Table 6: error", partial(error_table, numbers), first=True),
                *(_table("error", "Table 6: error", error_table, numbers, a) for a in plain),
                *self._each("posterior", "Figure 3: confidence",
                            self._scene(add_posteriors),
                            figure=True, first=True),
                *self._each("likelihood", "Figure 4: likelihood",
                            self._scene(add_likelihoods),
                            figure=True, first=True),
                *self._each("posterior-logit", "Confidence on a logit axis",
                            self._scene(add_log_odds),
                            figure=True, detail=True),
            ],
        )  # fmt: skip

    def _detection(self) -> Chapter:
        numbers, shown, found = self.numbers, self.shown, self._detected
        look = self._look
        known = guarded(numbers)
        return Chapter(
            "detection", "Is the attack noticed?",
            "A detector rejects images that look unlikely to the network. AUROC is how often a "
            "clean image looks more likely than an attacked one (1: always, 0.5: guessing); FPR, "
            "the false positive rate, is the share of clean images rejected.",
            [
                *self._each("detection-vs-eps", "AUROC against eps",
                            lambda album, a: add_detection_curves(album, numbers, found, a, look),
                            figure=True),
                *self._each("detection", "Detection", partial(detection_table, numbers)),
                _figure("adaptive-fall", "An attack that knows it", add_falls, numbers),
                *(_table("adaptive-auroc", "Naive and adaptive", auroc_table, g) for g in known),
                *self._each("scores-heat", "Other scores",
                            lambda album, a: add_score_heat(album, numbers, found, a), figure=True),
                _table("outside", "Images not of the data", lambda: outside_tables(numbers)[:1]),
                *map(_as_detail, (
                    _figure("outside", "Images not of the data", add_outside, numbers, shown),
                    _table("outside-scores", "By score", lambda: outside_tables(numbers)[1:]),
                    *(_table("adaptive-rejection", "Rejection", rejection_table, g) for g in known),
                    *(_table("adaptive-every", "Every adaptive number", every_adaptive_table, g)
                      for g in known),
                    *self._each("populations", "Populations",
                                partial(populations_table, numbers, found)),
                    *self._each("scores", "Scores", partial(scores_table, numbers)),
                    *self._each("scores-vs-eps", "Scores against eps",
                                lambda album, a: add_score_curves(album, numbers, found, a, look),
                                figure=True),
                    *self._each("roc", "ROC curves",
                                self._scene(add_rocs, look), figure=True),
                    *self._each("coverage", "Error against coverage",
                                self._scene(add_coverage, look), figure=True),
                    *self._each("likelihood-map", "Likelihood in the plane",
                                self._scene(add_likelihood_map), figure=True),
                )),
            ],
        )  # fmt: skip

    def _differences(self) -> Chapter:
        numbers = self.numbers
        return Chapter(
            "differences", "Are the differences real?",
            "A difference is shown if a test finds it at the 5 % level with all comparisons of the "
            "run counted. A difference that is not shown may exist all the same.",
            [
                *self._each("forest", "Differences to the baseline",
                            lambda album, a: add_forest(album, numbers, a), figure=True),
                *self._each("differences", "Pairs of losses", partial(differences_table, numbers)),
            ],
        )  # fmt: skip

    def _confidence(self) -> Chapter:
        numbers, shown, look = self.numbers, self.shown, self._look
        return Chapter(
            "confidence", "How sure is it?", "",
            [
                *(item for item in self._each("confidence", "Calibration error",
                                              partial(confidence_table, numbers))
                  if item.choices),
                *self._each("reliability", "Confidence and accuracy",
                            lambda album, a: add_reliability(album, numbers, a), figure=True),
                *map(_as_detail, (
                    *self._each("calibration", "Calibration", partial(calibration_table, numbers)),
                    *self._each("calibration-vs-eps", "Calibration against eps",
                                lambda album, a: add_calibration_curves(album, numbers, a, look),
                                figure=True),
                    _figure("confusion", "Confusion", add_confusions, numbers, shown),
                    _table("confusion", "Confusion", confusion_tables, numbers, shown),
                    _table("top5", "Top-5 error", top5_table, numbers),
                    _table("balance", "Balanced error", balance_table, numbers),
                    _table("per-class", "Error by class", class_table, numbers),
                    _table("crops", "Ten crops", crops_table, numbers),
                )),
            ],
        )  # fmt: skip

    def _space(self) -> Chapter:
        numbers, shown = self.numbers, self.shown
        return Chapter(
            "space", "Why: the feature space", "",
            [
                _figure("embedding", "Figure 1: feature space", add_embedding, numbers, shown),
                _figure("alpha", "Figure 2: margin", add_alpha, numbers, shown),
                _figure("boundaries", "Boundaries", add_boundaries, numbers, shown),
                _table("space", "Distances", space_table, numbers),
                *map(_as_detail, (
                    _table("geometry", "Distances and angles", geometry_tables, numbers),
                    _figure("untrained", "Before training", add_untrained, numbers, shown),
                    _figure("norms", "Feature norms", add_norms, numbers, shown),
                    _figure("center-estimates", "Centers", add_center_estimates, numbers),
                    _table("margins", "Margins", margin_table, numbers),
                    _table("class-means", "Class means", center_table, numbers),
                    _table("tuples", "Pairs and triplets", tuple_table, numbers),
                )),
            ],
        )  # fmt: skip

    def _images(self) -> Chapter:
        return Chapter(
            "images", "What it looks like", "",
            self._each("images", "Attacked images",
                       self._scene(add_images), figure=True),
        )  # fmt: skip

    def _trust(self) -> Chapter:
        return Chapter(
            "trust", "Can I trust it?",
            "Checks look for signs that an error is low because an attack failed, not because the "
            "loss is robust. One that fires is a reason to look; one that does not is no proof.",
            [_as_detail(_table("flags", "Every mark", flags_table, self.numbers))],
        )  # fmt: skip

    def _run(self) -> Chapter:
        numbers = self.numbers
        items = [
            _table("training", "Training", training_table, numbers),
            _figure("learning-curves", "Learning curves", add_learning_curves, numbers, self._look),
            _table("tuning", "Tuning", tuning_tables, numbers),
            _figure("tuning", "Tuning", add_tuning, numbers),
        ]
        words = "The settings of the run, and what it takes to repeat and to cite it."
        return Chapter("run", "What was run", words, [_as_detail(item) for item in items])


def _table(name: str, title: str, of: Callable[..., Any], *words: Any) -> Item:
    """Return the item of a table, made by calling ``of`` with these words."""
    return Item(name, title, make=partial(of, *words))


def _figure(name: str, title: str, of: Callable[..., Any], *words: Any) -> Item:
    """Return the item of a figure, drawn by calling ``of`` with an album and these words."""
    return Item(name, title, draw=lambda album: of(album, *words))


def _as_detail(item: Item) -> Item:
    return replace(item, detail=True)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def make_tables(contents: Contents) -> list[tuple[Item, list[Table]]]:
    """Make every table of the report, with the item that it belongs to.

    Args:
        contents: Of the report; what cannot be made is a gap of its models.
    """
    made = []
    for item in contents.list_items():
        if item.make:
            with leaving_gap("a table", contents.shown.gaps):
                found = item.make()
                tables = found if isinstance(found, list) else [found]
                made.append((item, [table for table in tables if table and table.rows]))
    return made


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
