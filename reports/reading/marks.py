"""Marks † on numbers that a check doubts, with footnotes: value, threshold, remedy."""

from collections.abc import Iterable

from robustloss.notation import eps_text
from robustloss.reports.words import NOTHING
from robustloss.results.columns import Row

Flag = Row


class Marks:
    """Numbers the checks that fired on a table, and writes their footnotes."""

    def __init__(self) -> None:
        self._notes: dict[str, dict[str, Flag]] = {}

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
    """Return what one check measured, and where it fires: "value 0.1 to 0.3, threshold 0.1"."""
    flags, parts = list(flags), []
    for key in ("value", "threshold"):
        known = [float(flag[key]) for flag in flags if flag.get(key) is not None]
        low, high = (f"{end(known):.3g}" if known else NOTHING for end in (min, max))
        parts.append(f"{key} {low if low == high else f'{low} to {high}'}")
    return ", ".join(parts)
