"""Marks † on numbers that a check doubts, with footnotes: value, threshold, remedy."""

from collections.abc import Iterable, Mapping
from typing import Any

from robustloss.notation import eps_text
from robustloss.reports.reading.numbers import WORST, AttackInfo, Numbers
from robustloss.reports.words import NOTHING

Flag = Mapping[str, Any]


class Marks:
    """Numbers the checks that fired on a table, and writes their footnotes."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self._notes: dict[str, dict[str, Flag]] = {}

    def on(self, label: str, attack: AttackInfo, eps: float | None) -> str:
        """Return the marks of one number: "†1", or nothing.

        Args:
            label: Of the loss.
            attack: An attack or a worst case.
            eps: None for a number of the whole error curve.
        """
        return self.of(flags_of(self.numbers, label, attack, eps))

    def of(self, flags: Iterable[Flag]) -> str:
        """Return the marks of a number that these flags concern."""
        found = set()
        for flag in flags:
            check = str(flag.get("check"))
            self._notes.setdefault(check, {})[place(flag)] = flag
            found.add([*self._notes].index(check) + 1)
        return " ".join(f"†{number}" for number in sorted(found))

    def notes(self) -> list[str]:
        """Return one footnote a check: its first place in full, and how many more there are."""
        out = []
        for i, (check, flags) in enumerate(self._notes.items()):
            where, first = next(iter(flags.items()))
            more = len(flags) - 1
            rest = f" And {more} more of this kind, listed under “Checks”." if more else ""
            out.append(
                f"†{i + 1} {check_name(check)}: {where} ({measurement([first])}). "
                f"{first.get('message')}{rest}"
            )
        return out


def flags_of(numbers: Numbers, label: str, attack: AttackInfo, eps: float | None) -> list[Flag]:
    """Return the flags that concern one number of an attack, or of a worst case.

    Args:
        numbers: Of the run.
        label: Of the loss.
        attack: An attack or a worst case.
        eps: None for a number of the whole error curve.
    """
    if attack.name != WORST:
        return list(numbers.flags(label, attack.label, eps))
    at = attack.strengths if eps is None else (eps,)
    strongest = {row["strongest"] for e in at for row in numbers.rows(label, attack.label, e)}
    attacks = [other.label for other in numbers.of_norm(attack.norm)]
    return list(numbers.flag_index.of_worst_case(label, attacks, strongest, eps))


def names(flags: Iterable[Flag]) -> str:
    """Return the checks behind some flags, for a CSV field."""
    return " ".join(sorted({str(flag.get("check")) for flag in flags}))


def check_name(check: str) -> str:
    """Return a check's key in words."""
    return check.replace("_", " ")


def place(flag: Flag) -> str:
    """Return which number a flag doubts."""
    parts = [str(flag.get("label"))]
    if flag.get("attack_label"):
        parts.append(str(flag["attack_label"]))
    if flag.get("eps") is not None:
        parts.append(f"eps {eps_text(flag['eps'])}")
    if flag.get("seed") is not None:
        parts.append(f"seed {flag['seed']}")
    return ", ".join(parts)


def measurement(flags: Iterable[Flag]) -> str:
    """Return what a check measured, and from where on it fires: "value 0.1 to 0.3, threshold 0.1".

    Args:
        flags: Of one check.
    """
    flags, parts = list(flags), []
    for key in ("value", "threshold"):
        known = [float(flag[key]) for flag in flags if flag.get(key) is not None]
        low, high = (f"{end(known):.3g}" if known else NOTHING for end in (min, max))
        parts.append(f"{key} {low if low == high else f'{low} to {high}'}")
    return ", ".join(parts)
