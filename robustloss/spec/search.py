"""Table [tuning] and the key `search` of [[losses]]: which values every loss tries."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from robustloss.spec.base import Count, Table, declare
from robustloss.spec.errors import Problems
from robustloss.spec.training import TrainSpec

TRAIN_KEYS = frozenset(TrainSpec.model_fields)
"""Searched keys of these names are keys of [train]; all others are parameters of the loss."""

MAX_COMBINATIONS = 100_000
"""Combinations of a search of lists: each is looked at, even where few are tried."""


class TuningSpec(Table):
    """Table [tuning]: how many values every loss may try."""

    trials: Count | None = declare(
        "trainings that every loss gets to find its values, chosen by the clean validation error; "
        "fewer than the search has combinations are drawn at random",
        None,
        le=1000,
        shown="all combinations",
    )
    epochs: Count | None = declare(
        "passes over the training images in a trial; fewer than in [train] save time, and favour "
        "values that learn fast",
        None,
        le=10_000,
        shown="those of the loss",
    )
    choose: Literal["best", "first"] | None = declare(
        'values that a loss keeps: "best", those of the smallest clean validation error; "first", '
        "the first in the lists whose error is not shown to be larger than that (5 % level)",
        None,
        shown="the best",
    )


def check_search(
    search: Mapping[str, Any], params: Mapping[str, Any], train: Mapping[str, Any]
) -> None:
    """Refuse a search that cannot be read.

    Args:
        search: by key a list of values, or a range {low, high, log}.
        params: the loss's own parameters; what is searched cannot stand there too.
        train: likewise its keys of [train].

    Raises:
        ValidationError: key, value, rule and remedy.
    """
    problems = Problems()
    for key, values in search.items():
        if key in params or key in train:
            where = "params" if key in params else "train"
            problems.add(("search", key), values, f"stands in {where} too. Remove one of them.")
        elif rule := _broken_rule(values):
            problems.add(("search", key), values, rule)
        elif key in TRAIN_KEYS:
            ends = values
            if isinstance(values, Mapping):
                ends = [float(values["low"]), float(values["high"])]
            for value in ends:
                try:
                    TrainSpec.model_validate({key: value})
                except ValidationError as error:
                    reason = error.errors()[0]["msg"].lower()
                    rule = f"is no value of train.{key}: {reason}."
                    problems.add(("search", key), value, rule)
    problems.raise_if_any()
    if (count := combinations(search) or 0) > MAX_COMBINATIONS:
        rule = (
            f"has {count:,} combinations, more than {MAX_COMBINATIONS:,}. Shorten its lists, or "
            "give a range as { low = 0.01, high = 1.0 }."
        )
        problems.add(("search",), list(search), rule)
    problems.raise_if_any()


def _broken_rule(values: Any) -> str:
    """Return the rule that a list or a range of values breaks; "" where it breaks none."""
    if isinstance(values, Mapping):
        ends = [values.get("low"), values.get("high")]
        numbers = all(type(end) in (int, float) for end in ends)
        if not numbers or not values.keys() <= {"low", "high", "log"}:
            return "must have low and high, numbers, and may have log = true."
        if not isinstance(values.get("log", False), bool):
            return "must have log = true or log = false."
        if not values["low"] < values["high"]:
            return "must have low below high."
        if values.get("log") and values["low"] <= 0:
            return "must have low above 0: it is logarithmic."
        return ""
    if not isinstance(values, list) or not values:
        return "must be a list of values, or { low = 0.01, high = 1.0, log = true }."
    if not all(isinstance(value, (str, bool, int, float)) for value in values):
        return "must list numbers, texts, or true and false."
    if len({repr(value) for value in values}) < len(values):
        return "lists a value twice. Remove one."
    return ""


def combinations(search: Mapping[str, Any]) -> int | None:
    """Count the combinations of a search; None where it has a range."""
    if any(isinstance(values, Mapping) for values in search.values()):
        return None
    return math.prod(len(values) for values in search.values())


def trial_values(search: Mapping[str, Any], trials: int | None) -> list[dict[str, Any]]:
    """Return the values of every trial, the same at every call.

    Args:
        search: as `check_search` takes it.
        trials: how many; None for all combinations. Fewer than the combinations are drawn without
            replacement. With a range every trial draws anew, and a key of the same range gets the
            same draws for every loss.
    """
    if combinations(search) is None:
        assert trials is not None, "the spec refuses a range without a number of trials"
        drawn: list[dict[str, Any]] = [{} for _ in range(trials)]
        for key, values in search.items():
            for number, trial in enumerate(drawn):
                share = _share(key, repr(values), number)
                if not isinstance(values, Mapping):
                    trial[key] = values[int(share * len(values))]
                    continue
                low, high = values["low"], values["high"]
                log = values.get("log")
                value = low * (high / low) ** share if log else low + share * (high - low)
                # three digits: a table shows them whole
                trial[key] = min(max(float(f"{value:.3g}"), low), high)
        return drawn
    grid = [dict(zip(search, each, strict=True)) for each in itertools.product(*search.values())]
    if trials is None or trials >= len(grid):
        return grid
    # By a hash, not by a generator: the same combination comes at the same place in any search.
    order = sorted(range(len(grid)), key=lambda number: _share("grid", repr(grid[number])))
    return [grid[number] for number in sorted(order[:trials])]


def shared_search(
    searches: Iterable[Mapping[str, Mapping[str, Any]] | None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the search that one more loss can make too, and the table [tuning] of it.

    Args:
        searches: Those of the other losses, with the keys "search" and "tuning"; None for a loss
            that tries nothing.

    Returns:
        Theirs, if all try the same values of the same keys of [train]; otherwise two empty tables.
    """
    first, *others = [*searches] or [None]
    if first is None or any(other != first for other in others):
        return {}, {}
    if not first["search"].keys() <= TRAIN_KEYS:
        return {}, {}
    return dict(first["search"]), dict(first["tuning"])


def _share(*parts: object) -> float:
    """Return a number in [0, 1) that the parts decide."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def name_of(values: Mapping[str, Any]) -> str:
    """Return the folder name of a trial's values, the same in a longer search."""
    text = json.dumps(dict(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
