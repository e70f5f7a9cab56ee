"""Which attack comes nearest: each attack's smallest changes against the best that any found."""

from collections.abc import Mapping, Sequence

import numpy as np

from robustloss.analysis.outcomes import Outcome, find_radius
from robustloss.results.schema import Row

TIE = 1e-3  # of a radius: attacks that differ by less have found the same
NAMES = ("n_compared", "smallest_share", "mean_excess", "optimality")


def optimality_columns(
    clean_wrong: np.ndarray, attacks: Mapping[str, Sequence[Outcome]]
) -> dict[str, Row]:
    """Compare the attacks of one norm, image by image, by the smallest change that fools.

    An attack that looks for the smallest change is held against the smallest that any attack found.
    One with fixed eps is held against that change rounded up to its own eps, the best that it could
    have found: it is not worse for the gaps between them.

    Only images are compared that are right without an attack and that some attack fools. All
    others are the same to every attack.

    Args:
        clean_wrong: (N,) bool, wrong without an attack.
        attacks: the outcomes of each attack, by label, all of one norm.

    Returns:
        By label: `n_compared`, the number of images; `smallest_share`, the share on which the
        attack found the best that it could (a tie counts for all); `mean_excess`, by how much it
        needed more, in eps; `optimality`, 1 less that excess over the excess of an attack that
        finds nothing. Null for a single attack, and without images. What was not found counts as
        the largest of the best radii.

    Source: AttackBench (Cinà et al., AAAI 2025): 1 less the area between an attack's curve of
        accuracy against eps and the lower envelope of all attacks, over the largest such area,
        all up to the largest of the best radii. Rounding up is ours.
    """
    found = {label: _smallest_changes(own) for label, own in attacks.items()}
    best = np.min([*found.values()], axis=0)
    compared = np.isfinite(best) & ~clean_wrong
    if len(attacks) < 2 or not compared.any():
        return {label: dict.fromkeys(NAMES) for label in attacks}
    best = best[compared]
    columns: dict[str, Row] = {}
    for label, own in attacks.items():
        needed, goal, limit = found[label][compared], best, best.max()
        if find_radius(own) is None:
            grid = np.sort([*(_as_radius(one.eps) for one in own), np.inf])
            goal = grid[np.searchsorted(grid, best)]
        excess = (np.minimum(needed, limit) - np.minimum(goal, limit)).mean()
        room = (limit - np.minimum(goal, limit)).mean()
        columns[label] = {
            "n_compared": int(compared.sum()),
            "smallest_share": float((needed <= goal * (1 + TIE)).mean()),
            "mean_excess": float(excess),
            "optimality": float(1 - excess / room) if room > 0 else None,
        }
    return columns


def _smallest_changes(own: Sequence[Outcome]) -> np.ndarray:
    """Return the radius (N,) or the smallest eps at which one attack fools; inf where none does."""
    radius = find_radius(own)
    if radius is not None:
        return radius.astype(np.float64)
    wrong = [np.where(one.wrong, _as_radius(one.eps), np.inf) for one in own]
    return np.min(wrong, axis=0)


def _as_radius(eps: float) -> float:
    """Return an eps as the float32 that radii are: the harness holds images to it."""
    return float(np.float32(eps))
