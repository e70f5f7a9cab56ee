"""Tables [report] and [reference]: how a run is shown, and beside which numbers of others.

No key of a stored file depends on it: a changed table of others computes nothing anew.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from robustloss.notation import eps_text
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.base import (
    Eps,
    Labelled,
    ListOf,
    Name,
    Table,
    as_tuple,
    check_each,
    declare,
    inner_tables,
    read_text,
)
from robustloss.spec.errors import Problems, SpecError, explain, rule_error
from robustloss.spec.text import literal

OfRun = TypeVar("OfRun", bound=Labelled)
CLEAN = "none"  # the attack of a row about clean images
MOST_ROWS = 1000
MOST_LETTERS = 500


def _as_names(value: object) -> object:
    return (value,) if isinstance(value, str) else as_tuple(value)


class ReportSpec(Table):
    """Table [report]: what the losses are compared with, which stand out, how much is drawn."""

    baseline: str | None = declare(
        "label of the loss that the others are compared with", None, shown="the first loss"
    )
    highlight: Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(check_each)] = (
        declare("labels of losses to highlight in the result", (), kind="list of text")
    )
    published: Annotated[
        tuple[Name, ...], BeforeValidator(_as_names), AfterValidator(check_each)
    ] = declare(
        "JSON files of numbers that others published, shown beside the measured ones; relative to "
        "the spec (robustloss guide reading)",
        (),
        kind="text, or list of text",
        shown="none",
    )
    all: bool = declare("draw everything, also what the page leaves out", False)


class ReferenceSpec(Table):
    """Table [reference]: the losses of others beside which a run is shown."""

    beside: Name | None = declare(
        "reference whose losses stand in a second report beside those of the run: a name of "
        "`robustloss list references`, or a file of `robustloss baseline` relative to the spec",
        None,
        shown="none",
    )


# --- the file that `published` names -------------------------------------------------------------


def _check_line(text: str) -> str:
    if not text.isprintable() or (text and not text.strip()) or len(text) > MOST_LETTERS:
        raise rule_error(f"must be one line of 1 to {MOST_LETTERS} printable characters.")
    return text.strip()


class PublishedRow(Table):
    """One row of a published table: a loss, an attack at one eps, and what was found of it."""

    loss: Name = declare("label or name of a loss of the run", example="L-GM")
    attack: Name = declare('label or name of an attack of the run; "none" is clean images', CLEAN)
    eps: Eps = declare('budget, as in [[attacks]]: 0.1 or "8/255"', 0.0)
    error: float | None = declare("in the unit of the table", None)
    low: float | None = declare("lower end of the error's interval", None)
    high: float | None = declare("upper end of the error's interval", None)
    auroc: float | None = declare("of the detector, over all images: in [0, 1]", None)

    @field_validator("loss", "attack")
    @classmethod
    def check_line(cls, text: str) -> str:
        """Refuse what is no name."""
        return _check_line(text)

    @field_validator("auroc")
    @classmethod
    def check_auroc(cls, value: float | None) -> float | None:
        """Refuse an area outside [0, 1]."""
        if value is not None and not 0 <= value <= 1:
            remedy = " Divide percent by 100." if 1 < value <= 100 else ""
            raise rule_error(f"must lie in [0, 1], whatever the unit of the errors.{remedy}")
        return value

    @model_validator(mode="after")
    def check_keys(self) -> Self:
        """Refuse a row that says nothing, or in which keys contradict each other."""
        if self.error is None and self.auroc is None:
            self._refuse("error", "must be given where auroc is not: the row says nothing else.")
        if self.attack.casefold() in (CLEAN, "clean") and self.eps > 0:
            self._refuse("attack", f"must be an attack where eps (={self.eps:g}) is above 0.")
        if (self.low is None) != (self.high is None):
            key, other = ("low", "high") if self.low is None else ("high", "low")
            self._refuse(key, f"must be given with {other}: an interval has two ends.")
        if self.low is not None and self.high is not None:
            if self.error is None:
                self._refuse("error", "must be given with low and high, which are its interval.")
            elif not self.low <= self.error <= self.high:
                rule = f"must hold low (={self.low:g}) <= error <= high (={self.high:g})."
                self._refuse("error", f"{rule} Swap the ends, or mend the number.")
        return self


class PublishedTable(Table):
    """A file of published numbers."""

    source: Name = declare(
        "the full reference, with table or page",
        example="Wan et al., Rethinking Feature Distribution, CVPR 2018, Table 6",
    )
    short: str = declare("what tables call it", "", shown="the name of the file")
    caveat: str = declare("what the source leaves open, a sentence", "")
    unit: Literal["percent", "fraction"] = declare("of error, low and high", example="percent")
    rows: ListOf[PublishedRow] = declare("the numbers", example=[{"loss": "L-GM", "error": 0.39}])

    @field_validator("source", "short", "caveat")
    @classmethod
    def check_line(cls, text: str) -> str:
        """Refuse text of several lines, and a source of spaces."""
        return _check_line(text)

    @model_validator(mode="after")
    def check_units(self) -> Self:
        """Refuse errors that cannot be in the unit of the table."""
        problems, most = Problems(), 100.0 if self.unit == "percent" else 1.0
        if len(self.rows) > MOST_ROWS:
            self._refuse("rows", f"must be at most {MOST_ROWS}: no page can show more.")
        for i, row in enumerate(self.rows):
            for key in ("error", "low", "high"):
                value = getattr(row, key)
                if value is not None and not 0 <= value <= most:
                    hint = ' Write "unit": "percent".' if most == 1 and 1 < value <= 100 else ""
                    rule = f'must lie in [0, {most:g}], as "unit": "{self.unit}" says.{hint}'
                    problems.add(("rows", i, key), value, rule)
        problems.raise_if_any()
        attacked = [row.error for row in self.rows if row.eps > 0 and row.error is not None]
        if self.unit == "percent" and attacked and 0 < max(attacked) <= 1:
            rule = "makes every error under attack at most 1 %: these look like fractions. Write "
            self._refuse("unit", f'{rule}"fraction", and divide the errors by 100 if they are not.')
        return self


def read_published(
    names: Sequence[str], folder: Path, losses: Sequence[Labelled], attacks: Sequence[AttackSpec]
) -> tuple[dict[str, Any], ...]:
    """Read the published tables that a spec names, with the labels of its losses and attacks.

    Args:
        names: The files.
        folder: Where relative paths begin.
        losses: Of the run. A row about another loss keeps its word for it; the report tells it.
        attacks: Of the run, likewise.

    Returns:
        Each table as plain values: source, short, caveat, and rows of label, attack_label, eps,
        error, low, high, auroc. Errors are fractions.

    Raises:
        SpecError: A file is absent or no such table, or none of its rows is about the run.
    """
    tables = []
    for name in names:
        try:
            tables.append(_read_table(folder / os.path.expanduser(name), losses, attacks))
        except SpecError as error:
            where = f"report.published (={literal(name)}): "
            raise SpecError("\n".join(where + line for line in str(error).split("\n"))) from None
    return tuple(tables)


def _read_table(
    path: Path, losses: Sequence[Labelled], attacks: Sequence[AttackSpec]
) -> dict[str, Any]:
    if not path.exists():
        raise SpecError(
            f"{path} does not exist. Name a JSON file, relative to the spec, or take it out."
        )
    text = read_text(path, "a JSON file of published numbers")
    try:
        content = json.loads(text, object_pairs_hook=_refuse_repeated_keys)
        table = PublishedTable.model_validate(content)
    except ValidationError as error:
        if not isinstance(content, dict):
            raise SpecError('must hold an object: {"source": "...", "rows": [...]}.') from None
        raise explain(error, PublishedTable, inner_tables(PublishedTable), json=True) from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise SpecError(f"is no JSON at {place}: {error.msg}. Mend it there.") from None
    except (ValueError, RecursionError) as error:  # of thousands of digits, or nested too deep
        if isinstance(error, SpecError):
            raise
        raise SpecError("is no JSON of published numbers: too long or too deep.") from None
    try:
        rows = _match_rows(table, losses, attacks)
    except ValidationError as error:
        raise explain(error, PublishedTable, inner_tables(PublishedTable), json=True) from None
    short = table.short or path.stem
    return {"source": table.source, "short": short, "caveat": table.caveat, "rows": rows}


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if repeated := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
        raise SpecError(f"{literal(repeated[0])} stands twice in one object. Remove one.")
    return dict(pairs)


def _match_rows(
    table: PublishedTable, losses: Sequence[Labelled], attacks: Sequence[AttackSpec]
) -> list[dict[str, Any]]:
    """Return the rows with the labels that their losses and attacks have in the run."""
    problems, rows, about_run = Problems(), [], False
    first: dict[tuple, int] = {}
    unit = 100 if table.unit == "percent" else 1
    for i, row in enumerate(table.rows):
        clean = row.eps == 0
        loss = _find("loss", row.loss, losses, i, problems)
        attack = None if clean else _find("attack", row.attack, attacks, i, problems)
        label = loss.label if loss else row.loss
        attack_label = CLEAN if clean else attack.label if attack else row.attack
        j = first.setdefault((label, attack_label, row.eps), i)
        if j != i:
            problems.add(("rows", i), row.loss, f"repeats rows[{j}]. Remove one.")
        about_run |= bool(loss and (clean or (attack and row.eps in attack.eps)))
        errors = {key: getattr(row, key) for key in ("error", "low", "high")}
        # rounded: 23.63 percent is the fraction 0.2363, not 0.23629999999999998
        shares = {k: None if v is None else round(v / unit, 12) for k, v in errors.items()}
        place = {"label": label, "attack_label": attack_label, "eps": row.eps}
        rows.append({**place, **shares, "auroc": row.auroc})
    problems.raise_if_any()
    if not about_run:
        budgets = (f"{attack.label} ({', '.join(map(eps_text, attack.eps))})" for attack in attacks)
        raise SpecError(
            "has no row about this run. Its losses are "
            f"{', '.join(literal(loss.label) for loss in losses)}; its attacks and their eps: "
            f"{', '.join(budgets)}. Write them so, or take the key out."
        )
    return rows


def _find(key: str, text: str, tables: Sequence[OfRun], i: int, problems: Problems) -> OfRun | None:
    """Return the loss or attack that a row means; None for none of the run."""
    found = [table for table in tables if table.label == text]
    found = found or [table for table in tables if table.is_called(text)]
    if len(found) > 1:
        labels = " and ".join(literal(table.label) for table in found)
        problems.add(("rows", i, key), text, f"is the name of {labels}. Write one of these labels.")
    return found[0] if len(found) == 1 else None
