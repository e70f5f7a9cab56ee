"""The report on one screen of text, for a pull request or a model card."""

from collections.abc import Sequence

from robustloss.analysis.gates.judge import describe_gates
from robustloss.analysis.learning import describe_unlearnt
from robustloss.notation import eps_text
from robustloss.reports.chapters.detection.adaptive import ANY, BEST, guarded
from robustloss.reports.drawing.table import markdown_text
from robustloss.reports.page.checks import verdicts
from robustloss.reports.page.notes import count_problems, list_failures, warning
from robustloss.reports.page.run_facts import list_facts, list_provenance, measure_run
from robustloss.reports.reading.marks import check_name
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import estimate, in_percent, listed
from robustloss.results.published import describe_published
from robustloss.results.result_table import ResultTable
from robustloss.spec.detection import score_words

MOST_LINES = 60
MOST_LOSSES = 19  # rows of the table; ten losses more would leave no room for anything else
MOST_NAMED = 3
MOST_PUBLISHED = 8
_FACTS = ("Data", "Checksum", "Seeds", "Command", "Versions", "Machine", "Digest")


def summarise_run(numbers: Numbers, verdict: str, gaps: Sequence[str]) -> str:
    """Return summary.md, at most 60 lines of Markdown in which no text of the user's is markup.

    Args:
        numbers: Of the run.
        verdict: The result in two or three sentences.
        gaps: Files that could not be read, and why.
    """
    table, status = numbers.result, describe_status(numbers, gaps)
    gates, _ = describe_gates(numbers.run)
    first = [
        f"# {markdown_text(numbers.run.name)}",
        markdown_text(measure_run(numbers)),
        *([] if status.startswith("complete,") else [f"**Status:** {markdown_text(status)}"]),
        markdown_text(numbers.speak(" ".join([verdict, *describe_unlearnt(numbers.run.results)]))),
        *([f"**Gates:** {markdown_text(gates)}"] if gates else []),
    ]
    head = [line for text in first for line in (text, "")]
    last = ["", "## What was not tested", "", markdown_text(warning(numbers))]
    last += ["", "## What was run", "", *_items(_facts(numbers), len(_FACTS))]
    if not table.rows:
        return "\n".join([*head[:-1], *last]) + "\n"
    head += _table(table)
    published = _items([*map(str.strip, describe_published(numbers.run.results))], MOST_PUBLISHED)
    if published:
        head += ["", "## Beside published numbers", "", *published]
    # Headings and the blank lines around them leave this much for the two lists between.
    room = MOST_LINES - len(head) - len(last) - 6
    marks, detection = _marks(numbers, table), _detection(numbers)
    of_marks = _items(marks, max(room // 2, room - len(detection)))
    of_detection = _items(detection, room - len(of_marks))
    middle = ["", "## Detection under attacks that know the detector", "", *of_detection]
    middle += ["", "## Checks that fired", "", *of_marks]
    return "\n".join([*head, *middle, *last]) + "\n"


def describe_status(numbers: Numbers, gaps: Sequence[str]) -> str:
    """Return whether the run is complete; else what is missing or in doubt, and why.

    Args:
        numbers: Of the run.
        gaps: Files that could not be read, and why.
    """
    done, asked = numbers.run.counts
    failures = list_failures(numbers)
    more = f" and {len(failures) - MOST_NAMED} more" if len(failures) > MOST_NAMED else ""
    failed = f"{'; '.join(failures[:MOST_NAMED])}{more}" if failures else ""
    problems = [*numbers.run.doubts, count_problems(numbers, gaps), failed]
    found = " ".join(text for text in problems if text)
    return found or f"complete, {done} of {asked} cells finished."


def _table(table: ResultTable) -> list[str]:
    """Return caption and rows of the result table; its notes stand with the checks."""
    lines = table.as_markdown().splitlines()[: 4 + len(table.rows)]
    more = len(table.rows) - MOST_LOSSES
    return lines if more <= 0 else [*lines[:-more], "", f"And {more} more in index.html."]


def _detection(numbers: Numbers) -> list[str]:
    """Return a line for each norm and loss: AUROC without and with knowledge of the detector."""
    lines = []
    for each in (each for each in guarded(numbers) if each.aimed):
        known = each.of_kind(BEST) or each.of_kind("adaptive")
        for label in numbers.labels if known else ():
            best, eps = known[0], each.eps[-1]
            name = "the best adaptive attack" if best.kind == BEST else best.label
            before = [
                (r.label, each.get(label, r, eps, "auroc_all")) for r in each.of_kind("naive")
            ]
            after = each.get(label, best, eps, "auroc_all")
            worst = (each.worst or known)[0]
            passed = each.get(label, worst, eps, "undetected_success_at_5fpr")
            risk = each.get(label, worst, eps, "augrc")
            every = ", any attack" if worst.kind == ANY else ""
            naive = "".join(f"{estimate(v)} under {name}, " for name, v in before[:1] if v)
            lines.append(
                f"{label}, {each.norm_name} eps {eps_text(eps)}: AUROC {naive}{estimate(after)} "
                f"under {name}; fooled and unnoticed{every} {in_percent(passed)} %"
                + (f", AUGRC {in_percent(risk)} %" if risk else "")
            )
    if lines and (spared := [score_words(score) for score in numbers.detected.spared]):
        lines.insert(0, f"Not attacked: {listed(spared)}.")  # first, as many losses are cut short
    return lines or ["None was run: detection numbers hold only against attacks that ignore it."]


def _marks(numbers: Numbers, table: ResultTable) -> list[str]:
    """Return a line for each check that fired: first those that mark numbers of the table."""
    marks = [f"†{number} {note}" for number, note in enumerate(table.notes.values(), 1)]
    told = {check_name(check) for check in table.notes}
    fired = [found for found in verdicts(numbers) if found.state == "fired"]
    marks += [
        f"{found.name} ({found.result}): {found.example.split('. ')[0].rstrip('.')}."
        for found in fired
        if found.name not in told
    ]
    return marks or ["None."]


def _facts(numbers: Numbers) -> list[str]:
    """Return data, checksum, seeds, command, versions and device, as far as they are known."""
    known = {**dict(list_facts(numbers)), **dict(list_provenance(numbers))}
    known["Data"] = dict(list_facts(numbers)).get("Data", "")
    known["Checksum"] = str(numbers.data.get("checksum") or "")
    return [f"{name}: {known[name]}" for name in _FACTS if known.get(name)]


def _items(lines: Sequence[str], most: int) -> list[str]:
    """Return lines as a list; what is beyond the most that fit is counted."""
    if len(lines) > most:
        lines = [*lines[: most - 1], f"and {len(lines) - most + 1} more in index.html"]
    return [f"- {markdown_text(line)}" for line in lines]
