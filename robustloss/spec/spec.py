"""The spec: every choice that decides a run, as plain values, checked before anything is computed.

A spec names the data, the network, the training, the losses and the attacks. Its cells, one per
(loss, seed), are what a run computes. Nothing here imports torch: whether a named loss, attack,
backbone or data set exists, and what its own parameters may be, is for its builder to say.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from robustloss.spec.attacks import AttackSpec
from robustloss.spec.base import Seed, Table, as_tuple
from robustloss.spec.data import DataSpec
from robustloss.spec.detection import ChecksSpec, DetectionSpec, OutsideSpec
from robustloss.spec.errors import Problems, rule_error
from robustloss.spec.losses import LossSpec, ModelSpec, TuningSpec
from robustloss.spec.search import name_of, trial_values
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


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise rule_error(
            "must be at most 80 letters a-z, digits, '.', '_' or '-': it names the run folder. "
            f"Write name = {literal(slug(name)[:80] or 'my-run')}."
        )
    return name


class ResourcesSpec(Table):
    """Table [resources]: what one cell asks of a Ray cluster, and how long it may take anywhere."""

    cpus: int = Field(
        default=1, ge=1, le=1024, description="executor ray: CPU cores, so torch threads, a cell"
    )
    gpus: float = Field(
        default=1.0, gt=0, le=1, description="executor ray on CUDA: share of a GPU a cell takes"
    )
    retries: int = Field(
        default=3,
        ge=0,
        le=100,
        description="executors processes and ray: new starts of a cell whose process or node died",
    )
    split: int | None = Field(
        default=None,
        ge=1,
        description="test images of a part, so that several workers attack one cell; a multiple of "
        "attacks[].batch_size; none: a cell is one piece of work",
    )
    minutes: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="a cell, or a part of one, that takes longer has failed, and the others go on; "
        "none: no limit",
    )


class Spec(Table):
    """A whole spec, valid and complete. `load_spec` makes it."""

    name: Annotated[str, AfterValidator(_check_name)] = Field(
        description="names the run folder runs/NAME", examples=["my-run"]
    )
    seeds: Annotated[tuple[Seed, ...], BeforeValidator(as_tuple), Field(min_length=1)] = Field(
        default=(0,),
        description="one training of every loss per seed",
        json_schema_extra={"shown_type": "list of integers >= 0"},
    )
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    detection: DetectionSpec = DetectionSpec()
    checks: ChecksSpec = ChecksSpec()
    resources: ResourcesSpec = ResourcesSpec()
    tuning: TuningSpec = TuningSpec()
    losses: Annotated[tuple[LossSpec, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    attacks: Annotated[tuple[AttackSpec, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    outside: Annotated[tuple[OutsideSpec, ...], BeforeValidator(as_tuple)] = ()

    _text: str = PrivateAttr("")
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        problems = Problems()
        for i, seed in enumerate(seeds):
            if seed in seeds[:i]:
                problems.add((i,), seed, "is listed twice. Remove one.")
        problems.raise_if_any()
        return seeds

    @field_validator("losses", "attacks", "outside")
    @classmethod
    def _labels_differ(cls, tables: tuple[Any, ...], info: Any) -> tuple[Any, ...]:
        problems = Problems()
        first: dict[str, int] = {}
        for i, table in enumerate(tables):
            j = first.setdefault(table.slug, i)
            if j != i:
                twin = f"{info.field_name}[{j}].label (={literal(tables[j].label)})"
                rule = f"names the same files as {twin}: {table.slug!r}. Give it another label."
                problems.add((i, "label"), table.label, rule)
        problems.raise_if_any()
        return tables

    @field_validator("outside")
    @classmethod
    def _not_the_data(cls, tables: tuple[OutsideSpec, ...], info: Any) -> tuple[OutsideSpec, ...]:
        data = info.data.get("data")  # absent if it is wrong itself
        if data is None:
            return tables
        problems = Problems()
        for i, table in enumerate(tables):
            if table.name == "held_out_classes" and data.classes is None:
                rule = "needs data.classes, the classes that are learnt, as [0, 1, 2, 3, 4]."
                problems.add((i, "name"), table.name, rule)
            elif table.name == data.name != "image_folder":
                rule = 'is the data set itself. Name another, or "held_out_classes" with '
                problems.add((i, "name"), table.name, f"{rule}data.classes.")
        problems.raise_if_any()
        return tables

    @model_validator(mode="after")
    def _trials_are_equal(self) -> "Spec":
        problems = Problems()
        trained = [(i, loss) for i, loss in enumerate(self.losses) if not loss.given]
        asked = self.tuning.trials
        tuned = [(i, loss) for i, loss in trained if loss.search]
        if not tuned and asked is not None:
            rule = "needs losses with search = { key = [values] }: there is nothing to try."
            problems.add(("tuning", "trials"), asked, rule)
        first: tuple[int, int] | None = None
        for i, loss in trained if tuned else ():
            place, count = ("losses", i, "search"), loss.combinations()
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
    def _parts_are_whole_batches(self) -> "Spec":
        split = self.resources.split
        problems = Problems()
        if split is not None:
            common = lcm(*(attack.batch_size for attack in self.attacks))
            for i, attack in enumerate(self.attacks):
                if split % attack.batch_size:
                    rule = f"must be a multiple of attacks[{i}].batch_size (={attack.batch_size}): "
                    rule += "a part begins where a batch does. Write for example split = "
                    rule += f"{-(-split // common) * common}, or change batch_size."
                    problems.add(("resources", "split"), split, rule)
        problems.raise_if_any()
        return self

    @property
    def text(self) -> str:
        """The source, verbatim; of a spec given as a dict, its TOML."""
        return self._text or to_toml(self.plain())

    @property
    def folder(self) -> Path:
        """Where relative paths of plug-ins begin: the folder of the spec file."""
        return self._folder

    def plain(self) -> dict[str, Any]:
        """Every value, defaults included, as JSON holds it; `load_spec` reads it back."""
        return self.model_dump(mode="json")

    def cells(self, seeds: Sequence[int] | None = None) -> tuple[CellSpec, ...]:
        """What a run computes: losses in the order of the file, then seeds.

        A model that was trained elsewhere has no seed: it is one cell, under the first of them.

        Args:
            seeds: instead of the spec's own.
        """
        wanted = tuple(self.seeds if seeds is None else seeds)
        return tuple(
            CellSpec(loss, self._model(loss), self.train.overridden(loss.train), seed)
            for loss in self.losses
            for seed in (wanted[:1] if loss.given else wanted)
        )

    def trials(self) -> tuple[TrialSpec, ...]:
        """The trainings that choose the values of every search; all with the first seed."""
        found = []
        for loss in self.losses:
            values = trial_values(loss.search, self.tuning.trials) if loss.search else []
            for number, each in enumerate(values, 1):
                tried = loss.with_values(each)
                train = self.train.overridden(tried.train)
                found.append(
                    TrialSpec(tried, self._model(tried), train, self.seeds[0], number, each)
                )
        return tuple(found)

    @property
    def tried(self) -> "Spec":
        """This spec with the first values of every search: what it costs, and what it builds."""
        trials = self.trials()
        return self.tuned({trial.label: trial.values for trial in reversed(trials)})

    def tuned(self, chosen: Mapping[str, Mapping[str, Any]]) -> "Spec":
        """This spec with chosen values, by label, in place of the searches."""
        losses = [
            loss.with_values(chosen[loss.label]) if loss.label in chosen else loss
            for loss in self.losses
        ]
        found = self.model_copy(update={"losses": tuple(losses), "tuning": TuningSpec()})
        found._text, found._folder = self._text, self._folder
        return found

    def _model(self, loss: LossSpec) -> ModelSpec:
        return self.model.overridden(loss.model_keys)
