"""May a run stand beside a reference? Both values are named where it may not."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robustloss.notation import eps_text
from robustloss.results.compact.content import Baseline
from robustloss.results.run import Run
from robustloss.runs.comparable import NotComparableError, check_data, check_equal
from robustloss.runs.meaning import (
    fill_network,
    fill_training,
    find_attack_differences,
    list_differences,
    spec_of,
)

_START = "`robustloss show --reference` prints the spec to start from."


def check_conditions(run: Run, reference: Run) -> None:
    """Refuse a run of other data, another network, another training or other attacks.

    A loss may override keys of [train] and [model]; the tables themselves must be equal.

    Args:
        run: With its provenance; nothing of it need be computed yet.
        reference: Likewise.

    Raises:
        NotComparableError: Names what differs, with both values.
    """
    check_data(run, reference)
    sides = run, reference
    why = f"A reference compares only with losses on the same network. {_START}"
    models = [fill_network(spec_of(side).get("model") or {}) for side in sides]
    check_equal(sides, models, sorted({*models[0], *models[1]}), "model.{}", why)
    why = f"A reference compares only with losses that are trained alike. {_START}"
    trains = [fill_training(side, {}) for side in sides]
    remedy = (
        f'Write precision = {json.dumps(trains[1].get("precision"))} under [train]: with "auto" '
        f"the machine decides. {_START}"
    )
    check_equal(sides, trains, ["precision"], "train.{}", remedy)
    check_equal(sides, trains, sorted({*trains[0], *trains[1]}), "train.{}", why)
    first, other = (
        {attack["label"]: attack for attack in spec_of(side).get("attacks") or ()} for side in sides
    )
    told = f"{run.path} and {reference.path} cannot be compared: "
    if first.keys() != other.keys():
        raise NotComparableError(
            f"{told}the attacks are {_list(first)} in the first and {_list(other)} in the second. "
            f"All attacks together make the worst case. {_START}"
        )
    for label, attack in first.items():
        differences = find_attack_differences(attack, other[label])
        budgets = [sorted({e for e in each["eps"] if e > 0}) for each in (attack, other[label])]
        if budgets[0] != budgets[1]:
            one, two = (", ".join(map(eps_text, each)) for each in budgets)
            differences["eps"] = one, two
        if differences:
            each = list_differences(differences, "the first", "the second")
            raise NotComparableError(f"{told}{label} is another attack, {each}. {_START}")


def check_images(run: Run, reference: Baseline) -> None:
    """Refuse a run that attacked other test images, or trained with other seeds alone.

    Args:
        run: With its cells.
        reference: With its index.

    Raises:
        NotComparableError: Names what differs, with both values.
    """
    check_index(run.path, run.cells[0].record().index, reference)
    check_seeds(run.path, [cell.seed for cell in run.cells], reference)


def check_index(path: Path, index: np.ndarray, reference: Baseline) -> None:
    """Refuse other test images than those of a reference.

    Args:
        path: Of what saw the images, for the message.
        index: (N,) their positions in the original file.
        reference: With its index.

    Raises:
        NotComparableError: Names what differs, with both values.
    """
    if not np.array_equal(index, reference.index):
        one, two = (f"{i.size} from number {i[0]} to {i[-1]}" for i in (index, reference.index))
        raise NotComparableError(
            f"{path} and {reference.path} cannot be compared: the test images are {one} in the "
            f"first and {two} in the second."
        )


def check_seeds(path: Path, seeds: Iterable[int], reference: Baseline) -> None:
    """Refuse a run that has no seed in common with a reference.

    Args:
        path: Of the run, for the message.
        seeds: Those of its trainings.
        reference: With its cells.

    Raises:
        NotComparableError: Names the seeds of both.
    """
    own, others = {*seeds}, {cell.seed for cell in reference.cells}
    if not own & others:
        one, two = (", ".join(map(str, sorted(each))) for each in (own, others))
        raise NotComparableError(
            f"{path} and {reference.path} cannot be compared: the seeds are {one} in the first "
            f"and {two} in the second. Tests compare networks of the same seed: give the "
            "run a seed of the reference."
        )


def _list(attacks: Mapping[str, Any]) -> str:
    return ", ".join(sorted(attacks))
