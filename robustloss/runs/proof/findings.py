"""What a verification found: a finding for each thing that was looked at, told in fewer lines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from robustloss.notation import one_line

State = Literal["pass", "fail", "open"]
_SHOWN = {"pass": "pass", "fail": "FAIL", "open": "open"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: such as "L-GM seed 0, FGSM at eps 0.1".
        state: "pass"; "fail"; or "open", which cannot be told.
        detail: what was found.
        cell: such as "L-GM seed 0", with which `what` begins; "" of the run or of images.
        seen: which images were looked at, such as "500 images"; "" where none were.
    """

    what: str
    state: State
    detail: str
    cell: str = ""
    seen: str = ""

    def __str__(self) -> str:
        return one_line(f"{_SHOWN[self.state]}  {self.what}: {self.detail}")

    @property
    def part(self) -> str:
        """What of its cell was looked at, such as "FGSM at eps 0.1"."""
        return self.what.removeprefix(self.cell).removeprefix(", ")


@dataclass(frozen=True, repr=False)
class Verification:
    """What came of `robustloss.verify`; true when something was looked at and nothing failed.

    Attributes:
        findings: All of them, in order.
        fooled: Of images that were brought: n, fooled, share, low, high (the 95 % Wilson interval)
            and outside (images that leave box or ball, which count as not fooled); else None.
    """

    findings: tuple[Finding, ...]
    fooled: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return not self.failures and any(each.state == "pass" for each in self.findings)

    @property
    def failures(self) -> list[Finding]:
        """What is not as it should be."""
        return [each for each in self.findings if each.state == "fail"]

    @property
    def summary(self) -> str:
        """The outcome in a sentence."""
        counts = {state: sum(each.state == state for each in self.findings) for state in _SHOWN}
        text = f"{counts['pass']} passed, {counts['fail']} failed"
        return f"{text}, {counts['open']} cannot be told." if counts["open"] else f"{text}."

    def condense(self) -> list[str]:
        """Return what did not fail in few lines.

        Of what passed that is one for each cell; of what cannot be told, one for all cells alike.
        What is of the run as a whole, or of images that were brought, keeps its line.
        """
        lines: dict[tuple[str, ...], list[Finding]] = {}  # what shares a line, in order
        for each in self.findings:
            key: tuple[str, ...] = (each.state, each.what, each.detail)
            if each.cell:
                shared = (each.cell,) if each.state == "pass" else (each.part, each.detail)
                key = (each.state, *shared)
            if each.state != "fail":
                lines.setdefault(key, []).append(each)
        return [_write_line(shared) for shared in lines.values()]

    def __repr__(self) -> str:
        return "\n".join([*map(str, self.failures), *self.condense(), self.summary])


def _write_line(shared: Sequence[Finding]) -> str:
    """Return the line of findings that share one."""
    first = shared[0]
    if len(shared) == 1:
        return str(first)
    shown = _SHOWN[first.state]
    if first.state == "open":
        cells = name_some([each.cell for each in shared], len(shared) if len(shared) < 4 else 2)
        return one_line(f"{shown}  {first.part} of {len(shared)} cells ({cells}): {first.detail}")
    seen: dict[str, dict[str, list[str]]] = {}  # by images looked at, then by attack: its eps
    for each in shared:
        name, at, eps = each.part.rpartition(" at eps ")
        seen.setdefault(each.seen, {}).setdefault(name + at, []).append(eps)
    told = []
    for images, parts in seen.items():
        text = "; ".join(f"{name}{', '.join(eps)}" for name, eps in parts.items())
        told.append(f"{text} ({images})" if images else text)
    return one_line(f"{shown}  {first.cell}: {'; '.join(told)}")


def name_some(texts: Sequence[str], most: int = 3) -> str:
    """Return the first of some texts, and how many more there are."""
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
