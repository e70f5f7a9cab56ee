"""Every table and every figure of a report, in the chapters of the page: one question each."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

from robustloss.reports.chapters.confidence import calibration, classes, confusion
from robustloss.reports.chapters.detection import adaptive, implied, outside, roc, scores, shifts
from robustloss.reports.chapters.detection import curves as detection_curves
from robustloss.reports.chapters.detection import table as detection
from robustloss.reports.chapters.differences import forest, further, matrix, order
from robustloss.reports.chapters.images import attacked
from robustloss.reports.chapters.paper import error, histograms
from robustloss.reports.chapters.result import attack as attack_tables
from robustloss.reports.chapters.result import curves, radius, transfer, worst_case
from robustloss.reports.chapters.result import table as result
from robustloss.reports.chapters.run import learning, tuning
from robustloss.reports.chapters.run import table as training
from robustloss.reports.chapters.space import boundary, embedding, likelihood_map, norms
from robustloss.reports.chapters.space import tables as space
from robustloss.reports.drawing.table import Table
from robustloss.reports.page.checks import flags_table, unit_test_table
from robustloss.reports.reading.guarded import guarded
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.scene import Scene, featured, list_shown, strongest
from robustloss.results.numbers import WORST

NOT_MADE = " could not be made: "  # stands in the gap of a table or figure that failed


@dataclass(frozen=True, eq=False)
class Item:
    """One thing that a chapter shows: a table, a figure, or a few that are made together."""

    name: str  # how its files are called, without the attack: "roc" for roc-fgsm.png
    title: str  # what the contents call it
    # returns a table, a list of them or None; of figures, an iterable of `Plot`
    make: Callable[[], Any]
    draws: bool = False  # it makes figures
    attack: str = ""  # slug of the attack that it is about; "" for the whole run
    # the choices of an attack under which the page shows it; empty for all of them
    choices: tuple[str, ...] = ()
    detail: bool = False  # it stands under Details, and its figures are drawn on demand only

    @property
    def file(self) -> str:
        """How its files are called, with the attack."""
        return f"{self.name}-{self.attack}" if self.attack else self.name


@dataclass(frozen=True)
class Chapter:
    """One question of a reader, and what answers it."""

    key: str  # anchor on the page
    title: str  # the question
    words: str  # one or two sentences that say how to read the chapter; may be empty
    items: Sequence[Item]  # in the order of the page


@dataclass(frozen=True)
class Choice:
    """What a reader can choose at the top of the page: the worst case, or one attack."""

    key: str  # of the choice, made of slugs
    label: str  # as the page calls it
    attack: AttackInfo  # an attack, or a worst case


class Contents:
    """Every table and figure of a report, in the chapters of the page.

    Attributes:
        numbers: Of the run.
        choices: The worst case of each norm, then the attacks that are shown in full.
        chapters: In the order of the page.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self._scene: Scene | None = None
        self._featured = featured(numbers)
        cases = numbers.worst_cases if self._featured else []
        self.choices = [
            Choice(case.slug, case.label[:1].upper() + case.label[1:], case) for case in cases
        ]
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
        """Return the items that are figures; with details, also those under Details."""
        return [item for item in self.list_items() if item.draws and (details or not item.detail)]

    def _make(self, of: Callable[[Scene], Any], attack: AttackInfo) -> Any:
        """Call ``of`` with an attack; what the last one read stays in memory, no other."""
        if self._scene is None or self._scene.attack != attack:
            self._scene = Scene(self.numbers, attack)
        return of(self._scene)

    def _tables(
        self, name: str, title: str, of: Callable[[Scene], Any], *, draws: bool = False,
        first: bool = False,
    ) -> list[Item]:  # fmt: skip
        """Return an item for each attack that was run; of figures, that a reader can choose.

        Args:
            name, title, draws: See `Item`.
            of: Makes the tables or figures of one attack.
            first: Under the worst case, the first attack stands in; else the strongest one.
        """
        items = []
        for attack in self._featured if draws else list_shown(self.numbers):
            if attack.strengths:
                make, choices = partial(self._make, of, attack), self._choices_of(attack, first)
                items.append(Item(name, title, make, draws, attack.slug, choices, not choices))
        return items

    _figures = partialmethod(_tables, draws=True)

    def _choices_of(self, attack: AttackInfo, first: bool) -> tuple[str, ...]:
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
        numbers = self.numbers
        items = [
            _table("result", "Errors and detection", result.result_table, numbers),
            _figure("error-vs-eps", "Error against eps", curves.plot_error_curves, numbers),
        ]
        details: list[Item] = []
        for norm in numbers.norms:
            for case in [case for case in numbers.worst_cases if case.norm == norm]:
                scene = Scene(numbers, case)
                details += [
                    _table("worst", "Worst case", worst_case.worst_table, scene),
                    _table("overview", "Every attack", worst_case.overview_table, scene),
                ]
            details.append(_table("radius", "Radius", radius.radius_table, numbers, norm))
        moved = transfer.matrices(numbers)
        details += [
            _figure("error-vs-radius", "Radius", radius.plot_radius_curves, numbers),
            *(_table("transfer", "Transfer", transfer.transfer_table, each) for each in moved),
            _figure("transfer", "Transfer between losses", transfer.plot_transfers, numbers),
            *self._tables("attack", "Success and confidence", attack_tables.attack_table),
            _table("attack-cost", "Cost of the attacks", attack_tables.cost_table, numbers),
            _table("seeds", "Every seed", result.seed_table, numbers),
        ]
        return Chapter("result", "Result", "", [*items, *_aside(details)])

    def _paper(self) -> Chapter:
        plain = [Scene(self.numbers, a) for a in self.numbers.attacks if not a.strengths]
        sure, likely = "Figure 3: confidence", "Figure 4: likelihood"
        logit = "Confidence on a logit axis"
        items = [
            *self._tables("error", "Table 6: error", error.error_table, first=True),
            *(_table("error", "Table 6: error", error.error_table, scene) for scene in plain),
            *self._figures("posterior", sure, histograms.plot_posteriors, first=True),
            *self._figures("likelihood", likely, histograms.plot_likelihoods, first=True),
            *_aside(self._figures("posterior-logit", logit, histograms.plot_log_odds)),
        ]
        return Chapter("paper", "Beside the paper", error.introduce_paper(self.numbers), items)

    def _detection(self) -> Chapter:
        numbers, figures, tables = self.numbers, self._figures, self._tables
        every_norm = guarded(numbers)
        known = [each for each in every_norm if each.aimed]
        words = (
            "A detector rejects images that look unlikely to the network. AUROC is how often a "
            "clean image looks more likely than an attacked one (1: always, 0.5: guessing); FPR, "
            "the false positive rate, is the share of clean images rejected."
        )
        more, every = "Naive and adaptive", "Every adaptive number"
        theory = [_table("implied", "Detector and theory", implied.implied_tables, numbers)]
        doubted = implied.is_doubted(numbers)
        others, name = "Images of another kind", "likelihood-map"
        items = [
            *figures("detection-vs-eps", "AUROC against eps", detection_curves.plot_areas),
            *tables("detection", "Detection", detection.detection_table),
            _figure("adaptive-fall", "Attacks that know it", adaptive.plot_falls, numbers),
            *(_table("adaptive-auroc", more, adaptive.auroc_table, each) for each in known),
            *(theory if doubted else ()),
            *figures("scores-heat", "Other scores", scores.plot_score_heat),
            _table("outside", others, outside.likelihood_tables, numbers),
            _table("shifts", "Shifted images", shifts.shift_table, numbers),
        ]
        details = [
            _figure("outside", others, outside.plot_outside, numbers),
            _table("shifts-severity", "By severity", shifts.severity_table, numbers),
            _table("outside-scores", "By score", outside.score_tables, numbers),
            *(() if doubted else theory),
            *(_table("adaptive-rejection", "Rejection", adaptive.rejection_table, each)
              for each in known),
            *(_table("adaptive-every", every, adaptive.every_adaptive_table, each)
              for each in every_norm),
            *tables("populations", "Populations", detection.populations_table),
            *tables("scores", "Scores", detection.scores_table),
            *tables("risk", "Risk", detection.risk_table),
            *figures("scores-vs-eps", "Scores against eps", scores.plot_score_curves),
            *figures("roc", "ROC curves", roc.plot_rocs),
            *figures("coverage", "Error against coverage", detection_curves.plot_coverage),
            *figures(name, "Likelihood in the plane", likelihood_map.plot_likelihood_map),
        ]  # fmt: skip
        return Chapter("detection", "Is the attack noticed?", words, [*items, *_aside(details)])

    def _differences(self) -> Chapter:
        words = (
            "A difference counts as shown if a test finds it at the 5 % level, adjusted for all "
            "comparisons of the run. One that is not shown may still exist."
        )
        many = len(self.numbers.labels) > matrix.FEW
        order_item = _table("order", "Order of the losses", order.order_table, self.numbers)
        items = [
            *([order_item] if many else []),
            *self._figures("forest", "Differences to the baseline", forest.plot_forest),
            *self._tables("differences", "Pairs of losses", matrix.differences_table),
            *_aside([_table("further", "Other numbers", further.further_table, self.numbers)]),
        ]
        return Chapter("differences", "Are the differences real?", words, items)

    def _confidence(self) -> Chapter:
        numbers = self.numbers
        tables = self._tables("confidence", "Calibration error", calibration.confidence_table)
        sure, against = "Confidence and accuracy", "Calibration against eps"
        kept = [Scene(numbers, attack) for attack in numbers.keeping if attack.strengths]
        details = [
            *self._tables("calibration", "Calibration", calibration.calibration_table),
            *(
                _table("calibration", "Calibration", calibration.calibration_table, each)
                for each in kept
            ),
            *self._figures("calibration-vs-eps", against, calibration.plot_calibration_curves),
            _figure("confusion", "Confusion", confusion.plot_confusions, numbers),
            _table("confusion", "Confusion", confusion.confusion_tables, numbers),
            _table("top5", "Top-5 error", classes.top5_table, numbers),
            _table("balance", "Balanced error", classes.balance_table, numbers),
            _table("per-class", "Error by class", classes.class_table, numbers),
            _table("crops", "Ten crops", classes.crops_table, numbers),
        ]
        items = [
            *(item for item in tables if item.choices),
            *(
                _table(
                    "confidence", "Attacks on the confidence", calibration.confidence_table, each
                )
                for each in kept
            ),
            *self._figures("reliability", sure, calibration.plot_reliability),
            *_aside(details),
        ]
        return Chapter("confidence", "How sure is it?", "", items)

    def _space(self) -> Chapter:
        numbers, name = self.numbers, "Figure 1: feature space"
        details = [
            _table("geometry", "Distances and angles", space.geometry_tables, numbers),
            _table("collapse", "Neural collapse", space.collapse_table, numbers),
            _figure("untrained", "Before training", embedding.plot_untrained, numbers),
            _figure("norms", "Feature norms", norms.plot_norms, numbers),
            _figure("center-estimates", "Centers", norms.plot_center_estimates, numbers),
            _table("margins", "Margins", space.margin_table, numbers),
            _table("class-means", "Class means", space.center_table, numbers),
            _table("tuples", "Pairs and triplets", space.tuple_table, numbers),
        ]
        items = [
            _figure("embedding", name, embedding.plot_embedding, numbers),
            _figure("alpha", "Figure 2: margin", boundary.plot_alpha, numbers),
            _figure("boundaries", "Boundaries", boundary.plot_boundaries, numbers),
            _table("space", "Distances", space.space_table, numbers),
            *_aside(details),
        ]
        return Chapter("space", "Why: the feature space", "", items)

    def _images(self) -> Chapter:
        items = self._figures("images", "Attacked images", attacked.plot_images)
        return Chapter("images", "What it looks like", "", items)

    def _trust(self) -> Chapter:
        words = (
            "Checks look for signs that an error is low because an attack failed, not because the "
            "network is robust. One that fires is a reason to look; silence proves nothing."
        )
        details = [
            _table("flags", "Every mark", flags_table, self.numbers),
            _table("unit-tests", "Breakable networks", unit_test_table, self.numbers),
        ]
        items = _aside(details)
        return Chapter("trust", "Can I trust it?", words, items)

    def _run(self) -> Chapter:
        numbers = self.numbers
        items = [
            _table("training", "Training", training.training_table, numbers),
            _figure("learning-curves", "Learning curves", learning.plot_learning_curves, numbers),
            _table("tuning", "Tuning", tuning.tuning_tables, numbers),
            _figure("tuning", "Tuning", tuning.plot_tuning, numbers),
        ]
        return Chapter("run", "What was run", "", _aside(items))


def _table(name: str, title: str, of: Callable[..., Any], *words: Any) -> Item:
    """Return the item of tables, made by calling ``of`` with these words."""
    return Item(name, title, partial(of, *words))


def _figure(name: str, title: str, of: Callable[[Numbers], Any], numbers: Numbers) -> Item:
    return Item(name, title, partial(of, numbers), draws=True)


def _aside(items: Sequence[Item]) -> list[Item]:
    """Return the items as those that stand under Details."""
    return [replace(item, detail=True) for item in items]


def make_tables(contents: Contents) -> list[tuple[Item, list[Table]]]:
    """Make every table of the report, with the item that it belongs to."""
    made = []
    for item in contents.list_items():
        if not item.draws:
            with leaving_gap("a table", contents.numbers.shown.gaps):
                found = item.make()
                tables = found if isinstance(found, list) else [found]
                kind = contents.numbers.kind
                made.append((item, [_name_rows(t, kind) for t in tables if t and t.rows]))
    return made


def _name_rows(table: Table, kind: str) -> Table:
    """Return the table with the column of losses under this heading."""
    return replace(table, header=[kind if head == "loss" else head for head in table.header])


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
