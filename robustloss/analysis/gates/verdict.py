"""What judging a run comes to: a verdict for each gate and loss, as a table, JUnit XML and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args
from xml.etree import ElementTree

from robustloss.notation import one_line, printable

Status = Literal["pass", "warn", "fail"]

JSON_VERSION = 1  # of `Verdicts.as_json`; a new key does not raise it
MOST_NAMED, MOST_LABELS = 4, 5  # gates, and losses of each, that the line names
_HEADS = ("gate", "loss", "measured", "bound", "verdict")


@dataclass(frozen=True)
class Verdict:
    """What one gate says of one loss.

    Attributes:
        name: Of the gate.
        label: Of the loss; "" where the whole run is judged.
        status: "pass", "fail", or "warn" for what is as bad and fails nothing.
        measured: The number with its interval as tables show it: "13.4 [11.9, 15.0] %", "n/a".
        bound: What it must keep: "at most 15 %".
        text: A sentence: why it does not pass, or why the number is in doubt; often nothing.
        facts: What programs need: names and numbers, plain values that JSON holds too.
    """

    name: str
    label: str
    status: Status
    measured: str
    bound: str
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Verdicts:
    """All verdicts on a run; true where none of them is "fail".

    Attributes:
        run: Name of the run.
        verdicts: In the order of the gates, then of the losses.
        what: By what the run was judged: "gates", "comparisons", or both.
        notes: What a reader must know of all of them, a sentence or two each.
    """

    run: str
    verdicts: tuple[Verdict, ...]
    what: str = "gates"
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.of_status("fail")

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __repr__(self) -> str:
        return self.as_text()

    def of_status(self, status: Status) -> list[Verdict]:
        """Return the verdicts of one status."""
        return [verdict for verdict in self.verdicts if verdict.status == status]

    def describe(self) -> str:
        """Return one line: "1 of 3 passed. Failed: clean_error (L-GM). Warned: ece (GM)."."""
        parts = [f"{len(self.of_status('pass'))} of {len(self)} passed."]
        for word, found in (("Failed", self.of_status("fail")), ("Warned", self.of_status("warn"))):
            labels: dict[str, list[str]] = {}
            for verdict in found:
                labels.setdefault(verdict.name, []).append(verdict.label)
            named = [
                name + (f" ({_list_some(own, MOST_LABELS)})" if any(own) else "")
                for name, own in labels.items()
            ]
            parts += [f"{word}: {_list_some(named, MOST_NAMED, '; ')}."] if named else []
        return one_line(" ".join(parts))

    def as_text(self) -> str:
        """Return the line, a table with a row for each verdict, and a line for each sentence."""
        rows = [_HEADS, *((v.name, v.label, v.measured, v.bound, _word(v)) for v in self.verdicts)]
        head = one_line(f"{self.what.capitalize()} of {self.run}: {self.describe()}")
        lines = [head, "", *_align(rows)]
        told = [v for v in self.verdicts if v.text]
        texts = (f"{v.name}{f', {v.label}' if v.label else ''}: {v.text}" for v in told)
        lines += [*([""] if told else []), *map(one_line, texts)]
        lines += [*([""] if self.notes else []), *(one_line(f"Note: {n}") for n in self.notes)]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return all as plain values; names of keys stay, new ones may be added.

        Returns:
            schema_version, run, what, passed, counts by status, notes, and verdicts: a dict for
            each with the attributes of `Verdict`; its facts stand among them.
        """
        rows = [asdict(verdict) for verdict in self.verdicts]
        facts = [row.pop("facts") for row in rows]
        counts = {status: len(self.of_status(status)) for status in get_args(Status)}
        return {
            "schema_version": JSON_VERSION,
            "run": self.run,
            "what": self.what,
            "passed": bool(self),
            "counts": counts,
            "notes": list(self.notes),
            "verdicts": [row | own for row, own in zip(rows, facts, strict=True)],
        }

    def as_junit(self) -> str:
        """Return JUnit XML of the form that pytest writes (xunit2): a test case for each verdict.

        A warning passes, with its sentence as the output of the test. No time and no host stand in
        it, so equal runs give equal bytes.
        """
        counts = {"tests": len(self), "failures": len(self.of_status("fail")), "errors": 0}
        attributes: Any = {name: str(count) for name, count in counts.items()}
        root = ElementTree.Element("testsuites", name="robustloss", **attributes)
        suite = ElementTree.SubElement(
            root, "testsuite", name=one_line(f"robustloss check {self.run}"), skipped="0",
            **attributes, time="0.000",
        )  # fmt: skip
        place = one_line(f"robustloss.{self.what}.{self.run}")
        for verdict in self.verdicts:
            name = one_line(f"{verdict.name}{f' [{verdict.label}]' if verdict.label else ''}")
            case = ElementTree.SubElement(
                suite, "testcase", classname=place, name=name, time="0.000"
            )
            said = printable(f"{verdict.measured}, {verdict.bound}. {verdict.text}".rstrip())
            if verdict.status == "fail":
                failure = ElementTree.SubElement(case, "failure", message=one_line(said))
                failure.text = said
            elif verdict.text:
                output = ElementTree.SubElement(case, "system-out")
                output.text = f"{verdict.status}: {said}"
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="unicode")
        return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _list_some(names: Sequence[str], most: int, comma: str = ", ") -> str:
    more = len(names) - most
    return comma.join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _word(verdict: Verdict) -> str:
    return "FAIL" if verdict.status == "fail" else verdict.status


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of texts as lines with aligned columns."""
    shown = [[one_line(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
