"""Which cell and which pass of a run somebody means, and the data and models behind them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustloss.data.files import DataError
from robustloss.data.images import Dataset
from robustloss.data.load import load_dataset
from robustloss.notation import NORM_NAMES, eps_text
from robustloss.results.finished_cell import Cell
from robustloss.results.run import Run
from robustloss.runs.meaning import spec_of
from robustloss.spec.base import Eps
from robustloss.spec.data import DataSpec
from robustloss.spec.errors import did_you_mean
from robustloss.spec.prefixes import is_plugin
from robustloss.spec.text import literal, slug

WORST_CASE = "worst-case"


class UntoldError(ValueError):
    """What cannot be told here; the text says why."""


def choose_cell(run: Run, loss: str | None, seed: int | None) -> Cell:
    """Return the cell of a loss and a seed; each may be left out where the run has one alone.

    Args:
        run: Finished.
        loss: Its label in any case, or its name.
        seed: Its training seed.

    Raises:
        ValueError: There is no such cell, or several.
    """
    cells = run.cells
    labels = list(dict.fromkeys(cell.label for cell in cells))
    if loss is None and len(labels) > 1:
        raise ValueError(f"loss: this run has {len(labels)}. Name one of {', '.join(labels)}.")
    if loss is not None:
        exact = [cell for cell in cells if cell.label == loss]
        cells = tuple(
            exact or (c for c in cells if loss == c.loss or slug(loss) in (c.slug, slug(c.label)))
        )
    if not cells:
        hint = did_you_mean(loss or "", [*labels, *(cell.loss for cell in run.cells)]) or "."
        raise ValueError(f"loss (={loss}) must be one of {', '.join(labels)}{hint}")
    seeds = [cell.seed for cell in cells]
    if seed is None and len(cells) > 1:
        named = ", ".join(f"{cell.label} seed {cell.seed}" for cell in cells)
        raise ValueError(f"seed: several models are meant ({named}). Name the seed, and the label.")
    found = [cell for cell in cells if seed is None or cell.seed == seed]
    if len(found) != 1:
        raise ValueError(f"seed (={seed}) must be one of {', '.join(map(str, seeds))}.")
    return found[0]


def read_eps(eps: float | str | None) -> float | None:
    """Return a budget, which may be a fraction as text such as "8/255".

    Raises:
        ValueError: It is none.
    """
    if eps is None:
        return None
    number = eps
    if isinstance(eps, str):
        try:
            number = TypeAdapter(Eps).validate_python(eps)
        except ValidationError:
            number = math.nan
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number < 1e9:
        raise ValueError(f"eps (={eps}) must be a number >= 0 or a fraction such as 8/255.")
    return float(number)


def choose_pass(
    cell: Cell, attack: str, eps: float | None, norm: str | None
) -> tuple[str, str, float]:
    """Return attack label (or `WORST_CASE`), norm and eps of an attacked pass of a cell.

    Args:
        cell: Of a run.
        attack: The attack's label in any case, its name, or "worst-case".
        eps: Its budget; None where it has one alone.
        norm: For a worst case of a run that has several.

    Raises:
        ValueError: There is no such pass, or several.
    """
    entries = [e for e in cell.files["records"] if e["norm"] and e["eps"] > 0]
    labels = list(dict.fromkeys(entry["attack_label"] for entry in entries))
    if norm is not None and norm not in (norms := sorted({e["norm"] for e in entries})):
        raise ValueError(f"norm (={norm}) must be one of {', '.join(norms)}.")
    if slug(attack) == WORST_CASE:
        label, own = WORST_CASE, entries
    else:
        wanted = [one for one in labels if one == attack] or [
            one
            for one in labels
            if slug(one) == slug(attack)
            or any(e["attack"] == attack.casefold() for e in entries if e["attack_label"] == one)
        ]
        if len(wanted) != 1:
            known = [WORST_CASE, *labels]
            hint = did_you_mean(attack, known) or "."
            raise ValueError(f"attack (={attack}) must be one of {', '.join(known)}{hint}")
        (label,) = wanted
        own = [entry for entry in entries if entry["attack_label"] == label]
    own = [entry for entry in own if norm in (None, entry["norm"])]
    places = sorted({(entry["norm"], float(entry["eps"])) for entry in own})
    if eps is not None:
        places_there = [place for place in places if math.isclose(place[1], eps, rel_tol=1e-9)]
        if not places_there:
            near = min(places, key=lambda place: abs(place[1] - eps))
            raise ValueError(
                f"eps (={eps_text(eps)}) is not an eps of {label}, which has {_list_eps(places)}. "
                f"The nearest is {eps_text(near[1])}."
            )
        places = places_there
    there = sorted({place[0] for place in places})
    if len(there) > 1 and len({place[1] for place in places}) == 1:
        raise ValueError(f"norm: {label} has several at this eps. Name one of {', '.join(there)}.")
    if len(places) > 1:
        raise ValueError(f"eps: {label} has {_list_eps(places)}. Name one.")
    return label, *places[0]


def _list_eps(places: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{eps_text(eps)} ({NORM_NAMES.get(norm, norm)})" for norm, eps in places)


def load_data(run: Run, data: str | Path | None, *, allow_plugins: bool) -> Dataset:
    """Load the data of a run anew, from files that are here; nothing is fetched.

    Args:
        run: Its provenance says which data, and their checksum.
        data: The folder with the data sets; None for the default, see `load_dataset`.
        allow_plugins: Whether to execute code of the run's author that makes the data.

    Raises:
        UntoldError: They are not here, were in memory, or need code that was not allowed.
            ValueError: They are others.
    """
    table = spec_of(run).get("data") or {}
    name = str(table.get("name"))
    if is_plugin(name) and not allow_plugins:
        raise UntoldError(
            f"code of the run's author makes the data (data.name = {literal(name)}), which would "
            "run with your rights. Read it first. If you trust it, say so: allow_plugins=True, or "
            "--plugins on the command line"
        )
    if name == "in_memory":
        raise UntoldError(
            "the images of this run were in memory, and its folder does not hold them"
        )
    try:
        dataset = load_dataset(
            DataSpec.model_validate(table),
            near=run.path,
            root=None if data is None else Path(data),
            download=False,
            quiet=True,
        )
    except (DataError, OSError, ValueError) as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise UntoldError(f"the data are not here ({text}). Name their folder with --data") from (
            error
        )
    stated: Any = (run.provenance.get("data") or {}).get("checksum")
    if stated is None:
        raise UntoldError("an older version stored no checksum of the data")
    if dataset.checksum != stated:
        raise ValueError(
            f"the data here have checksum {dataset.checksum}, those of the run {stated}: "
            "images, labels or sets differ"
        )
    return dataset
