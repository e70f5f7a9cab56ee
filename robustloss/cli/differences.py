"""What `robustloss try` says: its plan, the difference to each other loss, a row in LaTeX."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from robustloss.cli.listing import cost_lines
from robustloss.cli.terminal import console
from robustloss.notation import interval_text, one_line, printable
from robustloss.reports.chapters.differences.comparison import Compared
from robustloss.reports.drawing.table import latex_text
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene, chosen_eps, strongest
from robustloss.reports.words import counted, eps_name
from robustloss.results.run import load_run
from robustloss.spec.plugins import plugins_of

if TYPE_CHECKING:
    from robustloss.runs.beside import Plan


def show_plan(plan: "Plan", data: str | None = None) -> None:
    """Print what a try will do; where others must be computed first, what that will cost.

    The cost is timed, which takes seconds, unless that would execute code that the spec names.

    Args:
        plan: Of the try.
        data: The folder with the data sets.
    """
    size = f"{counted(len(plan.others.losses), 'loss')}, {counted(len(plan.own.seeds), 'seed')}"
    if plan.reference is not None:
        labels = counted(len(plan.reference.labels), "loss")
        lines = [
            f"Beside the reference {plan.reference.name} ({labels}), with "
            f"{counted(len(plan.own.seeds), 'seed')} of the {len(plan.others.seeds)} that it has."
        ]
    elif plan.finished is not None:
        lines = [f"Beside {plan.folder} ({size}), which is read and not computed again."]
    else:
        lines = [
            f"{plan.folder} holds no finished run, here or in a folder above, so the losses of "
            f"{plan.others.name} ({size}) come first. They are kept: the next try computes your "
            "loss alone. If you have such a run elsewhere: --against RUN."
        ]
        if plan.passed_over is not None:
            lines.append(
                f"{plan.passed_over} is finished, but of another state of the spec. To stand "
                f"beside it all the same: --against {plan.passed_over}."
            )
        if not plugins_of(plan.others):
            lines += cost_lines(plan.others, None if data is None else Path(data))
    lines.append(f"Then {plan.label}, in {plan.out}.")
    for line in lines:
        print(printable(line), flush=True)


def show_differences(folder: Path, label: str) -> None:
    """Print how a loss differs from each other loss of a run, and its row in LaTeX.

    Args:
        folder: Of the run, which has its report.
        label: Of the loss.
    """
    numbers, screen = Numbers(load_run(folder)), console()
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    attack = strongest(numbers, [each for each in attacks if each.norm == attacks[0].norm])
    found = None if attack is None else Compared(Scene(numbers, attack))
    print()
    if attack is None or found is None or label not in found.labels:
        print(printable(f"No test compares {label} with another loss on attacked images."))
    else:
        text = (
            f"{label} minus each other loss, error in percentage points under {attack.label}: "
            f"negative where {label} errs less. {found.unit_words()} * is a difference shown (p at "
            "most .05, adjusted for all comparisons of the run). Without *, no difference is "
            "shown, even where an interval excludes 0: the intervals are not adjusted, the stars "
            "are."
        )
        screen.print(printable(text), markup=False)
        screen.print(_difference_table(found, label, (0.0, *chosen_eps(attack))))
    tables = folder / "report" / "tables" / "losses.tex"
    lines = tables.read_text(encoding="utf-8").splitlines()
    table = numbers.result
    name = next(table.name_of(row) for row in table.rows if row.label == label)
    first = f"{latex_text(name)} & "
    start = next((i for i, line in enumerate(lines) if line.startswith(first)), len(lines))
    row = lines[start : start + 1]
    row += [line for line in lines[start + 1 : start + 2] if line.startswith(" & ")]  # intervals
    print(printable("\n".join([f"\nIts row in {tables}:", *row])))


def _difference_table(found: Compared, label: str, places: tuple[float, ...]) -> Table:
    """Return a row for each other loss and a column for each eps, 0 for the clean images."""
    table = Table(box=None, pad_edge=False)
    table.add_column("minus")
    for eps in places:
        table.add_column(eps_name(eps), justify="right")
    for other in found.labels:
        if other == label:
            continue
        cells = []
        for eps in places:
            row = found.get("error", eps, label, other)
            if row is None:
                cells.append("n/a")
                continue
            text = interval_text(row["difference"], row["low"], row["high"], unit=100.0)
            sign = "+" if row["difference"] > 0 else ""
            cells.append(f"{sign}{text} {'*' if row['shown'] else ' '}")
        table.add_row(escape(one_line(other)), *cells)
    return table
