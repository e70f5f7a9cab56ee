"""What a verification found: one line for each thing that was looked at."""

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
    """

    what: str
    state: State
    detail: str

    def __str__(self) -> str:
        return one_line(f"{_SHOWN[self.state]}  {self.what}: {self.detail}")


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

    def __repr__(self) -> str:
        return "\n".join([*map(str, self.findings), self.summary])


def name_some(texts: Sequence[str], most: int = 3) -> str:
    """Return the first of some texts, and how many more there are."""
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more
