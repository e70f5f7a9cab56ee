"""Spec: every choice that decides a run, as plain values, checked before anything is computed.

A spec names the data, the network, the training, the losses and the attacks. Its cells, one per
(loss, seed), are what a run computes. Nothing here imports torch: whether a named loss, attack,
backbone or data set exists, and what its own parameters may be, is for its builder to say.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from robustloss.spec.attacks import AttackSpec, add_adaptive, find_aim
from robustloss.spec.base import ListOf, Seed, Table, as_tuple, check_each, declare
from robustloss.spec.data import FIXED_SETS, DataSpec, OutsideSpec, ShiftSpec
from robustloss.spec.detection import LIKELIHOOD, ChecksSpec, DetectionSpec
from robustloss.spec.errors import Problems, choice_rule, rule_error
from robustloss.spec.gates.table import Gates
from robustloss.spec.losses import LossSpec, ModelSpec
from robustloss.spec.prefixes import is_plugin
from robustloss.spec.report import ReferenceSpec, ReportSpec
from robustloss.spec.resources import RecordsSpec, ResourcesSpec
from robustloss.spec.search import TuningSpec, combinations, name_of, trial_values
from robustloss.spec.text import literal, slug, to_toml
from robustloss.spec.training import TrainSpec


@dataclass(frozen=True)
class CellSpec:
    """One (loss, seed) with the network and the training that hold for it."""

    loss: LossSpec
    model: ModelSpec
    train: TrainSpec
    seed: int

    @property
    def label(self) -> str:
        """The loss as tables and figures call it."""
        return self.loss.label

    @property
    def folder(self) -> str:
        """Where the cell lives, relative to the run folder."""
        return f"cells/{self.loss.slug}/seed-{self.seed}"


@dataclass(frozen=True)
class TrialSpec(CellSpec):
    """One training that only serves to choose the values of a loss's search."""

    number: int
    values: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Where the trial lives, relative to the run folder: a longer search finds it again."""
        return f"trials/{self.loss.slug}/{name_of(self.values)}"


class Spec(Table):
    """A whole spec, valid and complete. `load_spec` makes it."""

    name: str = declare("names the run folder runs/NAME", example="my-run")
    seeds: Annotated[ListOf[Seed], AfterValidator(check_each)] = declare(
        "one training of every loss per seed", (0,), kind="list of integers >= 0"
    )
    data: DataSpec = DataSpec()
    model: ModelSpec = Field(ModelSpec(), validate_default=True)
    train: TrainSpec = TrainSpec()
    detection: DetectionSpec = DetectionSpec()
    checks: ChecksSpec = ChecksSpec()
    resources: ResourcesSpec = ResourcesSpec()
    records: RecordsSpec = RecordsSpec()
    tuning: TuningSpec = TuningSpec()
    losses: ListOf[LossSpec]
    attacks: ListOf[AttackSpec]
    outside: Annotated[tuple[OutsideSpec, ...], BeforeValidator(as_tuple)] = ()
    shifts: Annotated[tuple[ShiftSpec, ...], BeforeValidator(as_tuple)] = ()
    report: ReportSpec = ReportSpec()
    reference: ReferenceSpec = ReferenceSpec()
    gates: Gates = ()

    # No fields: where a spec came from decides nothing that is computed.
    _text: str = PrivateAttr("")
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def text(self) -> str:
        """The source, verbatim; of a spec given as a dict, its TOML."""
        return self._text or to_toml(self.as_written())

    @property
    def folder(self) -> Path:
        """Where relative paths of plug-ins begin: the folder of the spec file."""
        return self._folder

    def plain(self) -> dict[str, Any]:
        """Return every value, defaults included, as JSON holds it."""
        return self.model_dump(mode="json")

    def as_written(self) -> dict[str, Any]:
        """Return every value but the labels that were left out, for `load_spec` to read back.

        A label that is given names files, one that is left out does not.
        """
        plain = self.plain()
        for key in ("losses", "attacks", "outside", "shifts"):
            for table, values in zip(getattr(self, key), plain[key], strict=True):
                if "label" not in table.model_fields_set:
                    del values["label"]
        return plain

    def cells(self, seeds: Sequence[int] | None = None) -> tuple[CellSpec, ...]:
        """Return what a run computes: losses in the order of the file, then seeds.

        A model that was trained elsewhere has no seed: it is one cell, under the first of them.

        Args:
            seeds: instead of the spec's own.
        """
        seeds = self.seeds if seeds is None else seeds
        return tuple(
            CellSpec(loss, *self._model_and_train(loss), seed)
            for loss in self.losses
            for seed in (seeds[:1] if loss.given else seeds)
        )

    def trials(self) -> tuple[TrialSpec, ...]:
        """Return the trainings that choose the values of every search; all with the first seed."""
        trials = []
        for loss in self.losses:
            values = trial_values(loss.search, self.tuning.trials) if loss.search else []
            for number, each in enumerate(values, 1):
                # One seed chooses the values; with them, all seeds are trained.
                tried = loss.substitute(each)
                model, train = self._model_and_train(tried)
                if self.tuning.epochs is not None:
                    train = train.override({"epochs": self.tuning.epochs})
                trials.append(TrialSpec(tried, model, train, self.seeds[0], number, each))
        return tuple(trials)

    def _model_and_train(self, loss: LossSpec) -> tuple[ModelSpec, TrainSpec]:
        return self.model.override(loss.model_keys), self.train.override(loss.train)

    def substitute(self, values: Mapping[str, Mapping[str, Any]]) -> "Spec":
        """Return this spec with values in place of searches.

        Args:
            values: by the label of the loss, by key. Other losses keep their search.
        """
        losses = tuple(
            loss.substitute(values[trained])
            if (trained := loss.of or loss.label) in values
            else loss
            for loss in self.losses
        )
        spec = self.model_copy(update={"losses": losses, "tuning": TuningSpec()})
        spec._text, spec._folder = self._text, self._folder
        return spec

    @property
    def first_trial(self) -> "Spec":
        """This spec with the first values of every search, to know what it costs and builds."""
        return self.substitute(
            {trial.label: trial.values for trial in self.trials() if trial.number == 1}
        )

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Refuse a name that cannot name a folder."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
            raise rule_error(
                "must be at most 80 letters a-z, digits, '.', '_' or '-': it names the run folder. "
                f"Write name = {literal(slug(name)[:80] or 'my-run')}."
            )
        return name

    @field_validator("losses", mode="before")
    @classmethod
    def copy_trainings(cls, tables: Any) -> Any:
        """Give a loss with `of` the name and the training of that loss."""
        if not isinstance(tables, list | tuple):
            return tables
        others = {
            each.label: table
            for table in tables
            if isinstance(table, Mapping) and "of" not in table and (each := _read_loss(table))
        }
        problems = Problems()
        copied = []
        for i, table in enumerate(tables):
            if isinstance(table, Mapping) and "of" in table:
                table, wrong = _copy_training(table, others)
                if wrong:
                    problems.add((i, wrong[0]), table[wrong[0]], wrong[1])
            copied.append(table)
        problems.raise_if_any()
        return copied

    @field_validator("losses", "attacks", "outside", "shifts")
    @classmethod
    def check_labels(cls, tables: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        """Refuse two labels that would name the same files.

        Two files may each have a class of one name: both are then called by their files too.
        """
        names = Counter(name for each in tables for name in {each.slug, slug(each.label)})
        for table in tables:
            if names[slug(table.label)] > 1 and is_plugin(table.file_label):
                table._complete({"label": table.file_label})
        problems = Problems()
        first: dict[str, int] = {}
        for i, table in enumerate(tables):
            for name in dict.fromkeys((table.slug, slug(table.label))):
                j = first.setdefault(name, i)
                if j != i:
                    twin = f"{info.field_name}[{j}].label (={literal(tables[j].label)})"
                    rule = f"names the same files as {twin}: {name!r}. Give it another label."
                    problems.add((i, "label"), table.label, rule)
                    break
        problems.raise_if_any()
        return tables

    @field_validator("attacks")
    @classmethod
    def check_aims(cls, attacks: tuple[AttackSpec, ...], info: Any) -> tuple[AttackSpec, ...]:
        """Refuse to aim at a score that nobody computes."""
        detection = info.data.get("detection")  # absent if it is wrong itself
        if detection is None:
            return attacks
        problems = Problems()
        for i, attack in enumerate(attacks):
            aim = find_aim(attack)
            if aim not in (None, LIKELIHOOD, *detection.scores):
                rule = "is not among detection.scores, so nothing would show what it found."
                problems.add((i, "params", "score"), aim, f"{rule} Add it there.")
        problems.raise_if_any()
        return attacks

    @field_validator("outside")
    @classmethod
    def check_outside(cls, tables: tuple[OutsideSpec, ...], info: Any) -> tuple[OutsideSpec, ...]:
        """Refuse the data set itself, and classes that are not held out."""
        data = info.data.get("data")  # absent if it is wrong itself
        if data is None:
            return tables
        problems = Problems()
        for i, table in enumerate(tables):
            if table.name == "held_out_classes" and data.classes is None:
                rule = "needs data.classes, the classes that are learnt, as [0, 1, 2, 3, 4]."
                problems.add((i, "name"), table.name, rule)
            elif table.name == data.name in FIXED_SETS or (
                ":" in table.name and (table.name, table.params) == (data.name, data.params)
            ):
                rule = 'is the data set itself. Name another, or "held_out_classes" with '
                problems.add((i, "name"), table.name, f"{rule}data.classes.")
        problems.raise_if_any()
        return tables

    @field_validator("model")
    @classmethod
    def fit_network(cls, model: ModelSpec, info: Any) -> ModelSpec:
        """Give digits of 8 x 8 pixels a network that does not halve them down to nothing."""
        data = info.data.get("data")  # absent if it is wrong itself
        if data is None or data.name != "digits" or "backbone" in model.model_fields_set:
            return model
        return model.override({"backbone": "digits_cnn"})

    @field_validator("report")
    @classmethod
    def check_report(cls, report: ReportSpec, info: Any) -> ReportSpec:
        """Put the label of a loss in place of its name, or of the label in other words.

        Refuses a baseline or a highlight that is no loss of the spec.
        """
        losses = info.data.get("losses", ())  # absent if wrong themselves
        labels = [loss.label for loss in losses]
        problems = Problems()

        def find(text: str, *place: int | str) -> str:
            found = [text] if text in labels else [o.label for o in losses if o.is_called(text)]
            if losses and len(found) != 1:
                rule = choice_rule(text, labels, quote=True)
                problems.add(place, text, f"is the label of no loss: it {rule}")
            return found[0] if found else text

        known: dict[str, Any] = {}
        if report.baseline is not None:
            known["baseline"] = find(report.baseline, "baseline")
        if report.highlight:
            each = enumerate(report.highlight)
            known["highlight"] = tuple(find(text, "highlight", i) for i, text in each)
        problems.raise_if_any()
        return report.override(known) if known else report

    @model_validator(mode="after")
    def check_trials(self) -> Self:
        """Give every loss the same number of trials: the one with more would win by their number.

        Without [tuning] trials, each search must therefore have as many combinations as the first.
        """
        problems = Problems()
        trained = [(i, x) for i, x in enumerate(self.losses) if x.trains]
        asked = self.tuning.trials
        if not any(loss.search for _, loss in trained):
            for key, value in self.tuning:
                if value is not None:  # a spec in full has null where it says nothing
                    rule = "needs losses with search = { key = [values] }: there is nothing to try."
                    problems.add(("tuning", key), value, rule)
            trained = []
        first: tuple[int, int] | None = None  # number and combinations of the first searched loss
        for i, loss in trained:
            place, count = ("losses", i, "search"), combinations(loss.search)
            if self.tuning.epochs is not None and "epochs" in loss.search:
                rule = "is how long every trial trains. Remove it, or search for no epochs."
                problems.add(("tuning", "epochs"), self.tuning.epochs, rule)
            if self.tuning.choose == "first" and loss.search and count is None:
                rule = "needs lists: the values of a range have no order. List values, "
                rule += 'or write choose = "best".'
                problems.add(("tuning", "choose"), "first", rule)
            if not loss.search:
                rule = "must be given: every loss gets the same number of trials. Write for "
                problems.add(place, {}, f"{rule}example search = {{ lr = [0.01, 0.03, 0.1] }}.")
            elif count is None and asked is None:
                rule = "has a range, which has any number of values. Write [tuning] trials = 10."
                problems.add(place, loss.search, rule)
            elif count is not None and asked is not None and count < asked:
                rule = f"has {count} combinations, fewer than tuning.trials (={asked}). List more "
                problems.add(place, loss.search, f"{rule}values, or lower it.")
            elif asked is None and count is not None:
                first = first or (i, count)
                if count != first[1]:
                    less = min(count, first[1])
                    rule = f"has {count} combinations, losses[{first[0]}].search has {first[1]}: "
                    rule += "every loss gets the same number of trials. List as many, or write "
                    problems.add(place, loss.search, f"{rule}[tuning] trials = {less}.")
        problems.raise_if_any()
        return self

    @model_validator(mode="after")
    def add_attacks(self) -> Self:
        """Add the attacks that `detection.adapt` asks for."""
        problems = Problems()
        try:
            self._complete({"attacks": add_adaptive(self.attacks, self.detection)})
        except ValueError as error:
            problems.add(("detection", "adapt"), True, str(error))
        problems.raise_if_any()
        return self

    @model_validator(mode="after")
    def check_split(self) -> Self:
        """Let every part of a cell begin where a batch of each attack begins."""
        split = self.resources.split
        if split is None:
            return self
        problems = Problems()
        common = lcm(*(attack.batch_size for attack in self.attacks))
        for i, attack in enumerate(self.attacks):
            if split % attack.batch_size:
                rule = f"must be a multiple of attacks[{i}].batch_size (={attack.batch_size}): "
                rule += "a part begins where a batch does. Write for example split = "
                rule += f"{-(-split // common) * common}, or change batch_size."
                problems.add(("resources", "split"), split, rule)
        problems.raise_if_any()
        return self


_TRAINING = ("name", "params", "train", "model")  # keys of [[losses]] that decide a training


def _read_loss(table: Mapping[str, Any]) -> LossSpec | None:
    """Return a table [[losses]]; None where something is wrong with it, which is told elsewhere."""
    with suppress(ValidationError):
        return LossSpec.model_validate(table)
    return None


def _copy_training(
    table: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """Return a table [[losses]] with the training of the loss that its `of` names.

    Args:
        table: With the key `of`.
        others: The tables that have their own training, by label.

    Returns:
        The table; and what is wrong with it as key and rule, or None.
    """
    wanted = table["of"]
    found = [label for label in others if isinstance(wanted, str) and slug(label) == slug(wanted)]
    if len(found) != 1:
        rule = f"is the label of no loss: it {choice_rule(wanted, [*others], quote=True)}"
        return dict(table), ("of", rule)
    source = others[found[0]]
    if source.get("weights") or isinstance(source.get("model"), str):
        rule = "was not trained here: its head cannot be exchanged. Name a loss that is trained."
        return dict(table), ("of", rule)
    for key in _TRAINING:
        if key in table and table[key] != source.get(key):
            return dict(table), (key, f'must be left out: of = "{found[0]}" decides it.')
    training = {key: source[key] for key in _TRAINING if key in source}
    return {"label": f"{found[0]}, nearest mean", **table, **training, "of": found[0]}, None
