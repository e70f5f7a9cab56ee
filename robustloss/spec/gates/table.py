"""Table [[gates]]: the bounds that a run is judged by. No stored key depends on it."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from robustloss.spec.base import (
    MAX_LABEL,
    Eps,
    Name,
    PlainTable,
    Table,
    as_tuple,
    declare,
    raise_at,
)
from robustloss.spec.errors import Problems, rule_error


class GateSpec(Table):
    """One table [[gates]]: a number of the run, and the bound that it must keep."""

    metric: Name = declare(
        "the number: robustloss list metrics, or any of results.json as calibration.brier",
        example="worst_case_error",
    )
    label: Name | None = declare(
        "loss, by its label or name; loss = means the same", None, shown="every loss"
    )
    attack: Name | None = declare(
        'attack, by its label or name; "worst case" and "best of adaptive" are over all',
        None,
        shown="the only one",
    )
    eps: Eps | None = declare(
        "budget of the attack, as the spec has it", None, shown="the only one above 0"
    )
    score: Name | None = declare("detection score", None, shown="class_log_likelihood")
    population: Literal["all", "successful", "failed", "noise"] | None = declare(
        "attacked images that are set against clean ones", None, shown="all"
    )
    where: PlainTable = declare(
        'other columns of the table, as { split = "test" }, where it has several rows', {}
    )
    max: float | None = declare("greatest value, included; an error of 5 % is 0.05", None)
    min: float | None = declare("least value, included", None)
    interval: Literal["upper", "lower"] | None = declare(
        "judge this end of the 95 % interval", None, shown="judge the value"
    )
    severity: Literal["fail", "warn"] = declare("what a broken bound does to the check", "fail")
    name: Name | None = declare("what tables call it", None, shown="metric, attack and eps")

    @model_validator(mode="before")
    @classmethod
    def read_loss(cls, keys: object) -> object:
        """Read `loss` as `label`: results.json has both words, and one meaning is meant."""
        if isinstance(keys, Mapping) and "loss" in keys:
            if keys.get("label") is not None:
                raise rule_error("has label and loss, which mean the same. Take one out.")
            return {("label" if key == "loss" else key): value
                    for key, value in keys.items() if key != "label"}  # fmt: skip
        return keys

    @model_validator(mode="after")
    def check_bound(self) -> Self:
        """Refuse a gate with two bounds or none, and a name that is no line."""
        if self.max is not None and self.min is not None:
            raise_at("max", self.max, f"and min (={self.min}) are two bounds. Write two gates.")
        if self.max is None and self.min is None:
            raise rule_error("needs max or min. Write for example max = 0.05.")
        if self.name is not None and not (self.name.isprintable() and len(self.name) <= MAX_LABEL):
            raise_at("name", self.name, f"must be one line of 1 to {MAX_LABEL} characters.")
        return self


def check_names(gates: tuple[GateSpec, ...]) -> tuple[GateSpec, ...]:
    """Return the gates, if no two of them have one name."""
    problems, first = Problems(), dict[str, int]()
    for i, gate in enumerate(gates):
        if gate.name is not None and (j := first.setdefault(gate.name, i)) != i:
            rule = f"is the name of gates[{j}] too. Give it another name."
            problems.add((i, "name"), gate.name, rule)
    problems.raise_if_any()
    return gates


Gates = Annotated[tuple[GateSpec, ...], BeforeValidator(as_tuple), AfterValidator(check_names)]


class BaselineSpec(Table):
    """Table [baseline]: what a run is compared with, and by how much it may be worse."""

    file: Name = declare(
        "a run folder or a file of robustloss baseline, seen from this file",
        example="mnist-baseline.npz",
    )
    tolerance: PlainTable = declare(
        "by how much a number may be worse, by metric, as { error = 0.01 }", {}
    )
    metrics: Annotated[tuple[Name, ...], BeforeValidator(as_tuple)] = declare(
        "which are tested: error, worst_case_error, auroc, undetected_success, median_radius",
        (),
        shown="all",
    )


class GateFile(Table):
    """A file of gates, without a spec."""

    gates: Gates = ()
    baseline: BaselineSpec | None = None
