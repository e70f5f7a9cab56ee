"""Checks of the transfer matrix: does a transferred image beat the white box?."""

from collections.abc import Mapping, Sequence

import numpy as np

from robustloss.analysis.checks.catalogue import CHECKS, better_rival, make_flag
from robustloss.results.schema import TABLES, Row, aims_at_label
from robustloss.results.transfers import Transfer


def transfer_beats_white_box(transfers: Sequence[Transfer], losses: Mapping[str, str]) -> list[Row]:
    """Flag losses that images made on another loss fool more often than images made on themselves.

    Compared for the same attack, eps, seed and images; a target without its own white-box file
    is left out.

    Args:
        transfers: the content of the run's transfer files, in any order.
        losses: name of each loss by label.

    Returns:
        Rows of the table `flags`, sorted, at (target, attack, eps).

    Raises:
        ValueError: files to be compared are not of the same images.

    Source: Carlini et al. 2019, "On evaluating adversarial robustness", section 5 (transfer).
    """
    check = "transfer_beats_white_box"
    groups: dict[tuple[int, str, float], dict[str, Transfer]] = {}
    aimed = (one for one in transfers if aims_at_label(one.attack))
    for one in sorted(aimed, key=lambda one: one.source):
        groups.setdefault((one.seed, one.attack_label, one.eps), {})[one.source] = one
    flags = []
    for (seed, attack_label, eps), group in groups.items():
        first = next(iter(group.values()))
        for other in group.values():
            if not np.array_equal(first.labels, other.labels):
                raise ValueError(
                    f"labels of the images made on {first.source!r} and on {other.source!r} "
                    "differ: both must hold the same images in the same order."
                )
        for target, own in group.items():
            rivals = {
                source: one.wrong[target]
                for source, one in group.items()
                if source != target and target in one.targets
            }
            if gain := better_rival(own.wrong[target], rivals, CHECKS[check].threshold):
                cell = {"loss": losses[target], "label": target, "seed": seed}
                words = {"rival": gain.rival}
                flags.append(make_flag(check, cell, gain.value, attack_label, eps, **words))
    return TABLES["flags"].arrange(flags)
