"""Which flags concern a number: what puts a mark on it, in every table and figure."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from robustloss.results.columns import Row

# These concern the clean pass too; every other check is about attacks.
CLEAN_CHECKS = ("output_not_repeatable", "output_depends_on_batch", "output_is_probability")
TRANSFER = "transfer_beats_white_box"


class FlagIndex:
    """Look-up of the table `flags` of one run."""

    def __init__(self, flags: Iterable[Mapping[str, Any]]) -> None:
        self._flags: dict[tuple, list[Row]] = {}
        for flag in flags:
            eps = flag.get("eps")
            eps = None if eps is None or math.isnan(eps) else float(eps)
            key = (flag.get("label"), flag.get("attack_label"), eps)
            self._flags.setdefault(key, []).append(dict(flag))

    def of_attack(self, label: str, attack: str, eps: float | None) -> list[Row]:
        """Return the flags that concern one number: of the loss, of loss and attack, or of its eps.

        Args:
            label: Of the loss.
            attack: Label of the attack.
            eps: None asks for a number of the whole error curve, which every eps concerns.
        """
        if eps is None:
            known = (f for (k, a, _), flags in self._flags.items()
                     if k == label and a in (None, attack) for f in flags)  # fmt: skip
            return [flag for flag in known if flag.get("eps") != 0]
        keys = [(label, None, None), (label, attack, None), (label, attack, float(eps))]
        found = [flag for key in keys for flag in self._flags.get(key, [])]
        if eps == 0:
            found = [f for f in found if f.get("eps") == 0 or f.get("check") in CLEAN_CHECKS]
            found += self._flags.get((label, "none", 0.0), [])
        return found

    def of_worst_case(
        self, label: str, attacks: Sequence[str], strongest: Collection[str], eps: float | None
    ) -> list[Row]:
        """Return the flags that concern the worst case over some attacks.

        A weak attack's flaw does not reach the worst case when another attack is stronger: it
        carries the flags of the loss, those of the attack that is strongest alone at this eps, and
        every sign that an attack from outside (a transfer) does better than what it holds.

        Args:
            label: Of the loss.
            attacks: Labels of the attacks of the norm.
            strongest: Labels of those that are strongest alone, one for each seed.
            eps: None for a number of the whole error curve.
        """
        found: list[Row] = []
        for attack in attacks:
            for flag in self.of_attack(label, attack, eps):
                own = flag.get("attack_label") is None or attack in strongest
                if (own or flag.get("check") == TRANSFER) and flag not in found:
                    found.append(flag)
        return found
