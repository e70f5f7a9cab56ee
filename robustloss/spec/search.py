"""Which values a loss tries: combinations of lists, or draws from ranges; the same for all."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from robustloss.spec.errors import Problems
from robustloss.spec.training import TrainSpec

WHOLE = tuple(TrainSpec.model_fields)  # searched keys of this name are of [train], others params
_SCALAR = (str, bool, int, float)
_RANGE = {"low", "high", "log"}


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
        elif rule := _range_rule(values) if isinstance(values, Mapping) else _list_rule(values):
            problems.add(("search", key), values, rule)
        elif key in WHOLE:
            for value in _tried(values):
                if rule := _train_rule(key, value):
                    problems.add(("search", key), value, rule)
    problems.raise_if_any()


def combinations(search: Mapping[str, Any]) -> int | None:
    """How many combinations a search has; None where it has a range."""
    if any(isinstance(values, Mapping) for values in search.values()):
        return None
    return math.prod(len(values) for values in search.values())


def trial_values(search: Mapping[str, Any], trials: int | None) -> list[dict[str, Any]]:
    """The values of every trial.

    Args:
        search: as `check_search` takes it.
        trials: how many; None for all combinations. Fewer than the combinations are drawn without
            replacement. With a range every trial draws anew, and a key of the same range gets the
            same draws for every loss.
    """
    if combinations(search) is None:
        assert trials is not None, "the spec refuses a range without a number of trials"
        return [{k: _draw(k, v, number) for k, v in search.items()} for number in range(trials)]
    grid = [dict(zip(search, each, strict=True)) for each in itertools.product(*search.values())]
    if trials is None or trials >= len(grid):
        return grid
    chosen = sorted(range(len(grid)), key=lambda number: _share("grid", repr(grid[number])))
    return [grid[number] for number in sorted(chosen[:trials])]


def name_of(values: Mapping[str, Any]) -> str:
    """A folder name of searched values, the same in a longer search."""
    text = json.dumps(dict(values), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _draw(key: str, values: Any, number: int) -> Any:
    share = _share(key, repr(values), number)
    if not isinstance(values, Mapping):
        return values[int(share * len(values))]
    low, high = values["low"], values["high"]
    found = low * (high / low) ** share if values.get("log") else low + share * (high - low)
    return min(max(float(f"{found:.3g}"), low), high)  # three digits: a table shows them whole


def _share(*parts: object) -> float:
    """A number in [0, 1) that the parts decide."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _list_rule(values: Any) -> str:
    if not isinstance(values, list) or not values:
        return "must be a list of values, or { low = 0.01, high = 1.0, log = true }."
    if not all(isinstance(value, _SCALAR) for value in values):
        return "must list numbers, texts, or true and false."
    if len({repr(value) for value in values}) < len(values):
        return "lists a value twice. Remove one."
    return ""


def _range_rule(values: Mapping[str, Any]) -> str:
    numbers = [values.get("low"), values.get("high")]
    if not values.keys() <= _RANGE or not all(type(each) in (int, float) for each in numbers):
        return "must have low and high, numbers, and may have log = true."
    if not isinstance(values.get("log", False), bool):
        return "must have log = true or log = false."
    if not values["low"] < values["high"]:
        return "must have low below high."
    return "must have low above 0: it is logarithmic." if _bad_log(values) else ""


def _bad_log(values: Mapping[str, Any]) -> bool:
    return bool(values.get("log")) and values["low"] <= 0


def _tried(values: Any) -> list[Any]:
    if isinstance(values, Mapping):
        return [float(values["low"]), float(values["high"])]
    return list(values)


def _train_rule(key: str, value: Any) -> str:
    try:
        TrainSpec.model_validate({key: value})
    except ValidationError as error:
        return f"is no value of train.{key}: {error.errors()[0]['msg'].lower()}."
    return ""
