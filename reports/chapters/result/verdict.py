"""The result in two or three sentences that claim no more than the tests and intervals do."""

from collections.abc import Sequence

from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import strongest
from robustloss.reports.words import NOTHING, counted, eps_name, few, listed
from robustloss.results.result_table import ResultCell, ResultTable

MOST_NAMED = 3  # losses that are shown to differ; more are counted
Found = dict[str, ResultCell]  # a number of every loss that has it


def verdict(numbers: Numbers) -> list[str]:
    """Return at most three sentences: errors, which differences are shown, detection."""
    if not numbers.run.rows:
        return ["No cell finished, so there is no result."]
    table = numbers.result
    found = [_errors(table), _differences(numbers, table), describe_detection(table)]
    return [numbers.speak(sentence) for sentence in found if sentence]


def _errors(table: ResultTable) -> str:
    """Say how often the losses err, clean and at the smallest eps."""
    text = f"{_span(_column(table, 'clean'), 100.0)} % of the clean images are misclassified"
    attacked = next((c for c in table.columns if c.metric == "error" and c.eps > 0), None)
    if attacked is None:
        return f"{text}; no attack was run."
    found = _column(table, attacked.key)
    worst = attacked.attack == "worst_case"
    place = "in the worst case" if worst else f"under {attacked.attack_label}"
    text += f", and {_span(found, 100.0)} % {place} at {eps_name(attacked.eps)}"
    sound = {label: cell for label, cell in found.items() if not cell.checks}
    marked = len(found) - len(sound)
    least = min(_means(sound), default=0.0)
    best = [label for label, cell in sound.items() if cell.mean == least]
    fewest = f"fewest: {few(best)}" if len(best) < len(sound) else ""
    aside = f"{marked} marked † not counted" if marked else ""
    words = "; ".join(filter(None, [fewest, aside]))
    return f"{text} ({words})." if words else f"{text}."


def _differences(numbers: Numbers, table: ResultTable) -> str:
    """Say which losses are shown to differ from the baseline, where the errors were named.

    Older runs compare no worst case; there it is under the strongest attack of the first norm.
    """
    baseline = numbers.baseline
    every = [
        row for row in numbers.compared
        if row["metric"] == "error" and baseline in (row["label_a"], row["label_b"])
    ]  # fmt: skip
    named = next((c for c in table.columns if c.metric == "error" and c.eps > 0), None)
    if named is None:
        return ""
    eps, name = named.eps, named.attack_label
    place = (name, named.norm, eps)
    rows = [row for row in every if (row["attack_label"], row["norm"], row["eps"]) == place]
    if not rows:
        attack = strongest(numbers, [a for a in numbers.attacking if a.norm == named.norm])
        if attack is None:
            return ""
        eps, name = attack.strengths[0], attack.label
        rows = [row for row in every if (row["attack_label"], row["eps"]) == (name, eps)]
    groups: dict[str, list[str]] = {"fewer": [], "more": [], "": []}
    for row in rows:
        other = row["label_b"] if row["label_a"] == baseline else row["label_a"]
        sign = row["difference"] * (1 if row["label_a"] == other else -1)
        groups["" if not row["shown"] else "more" if sign > 0 else "fewer"].append(other)
    parts: list[str] = []
    for what, names in groups.items():
        if names:
            verb = "" if parts else " errors are shown" if what else " is shown"
            many = str(len(names)) if parts else counted(len(names), numbers.kind)
            own = listed(names) if len(names) <= MOST_NAMED else many
            parts.append(f"{what or 'no difference'}{verb} for {own}")
    if not parts:
        return ""
    one = "" if rows[0]["unit"] == "seeds" or numbers.nothing_trained else ", one seed"
    return f"Against {baseline}, {', '.join(parts)} ({name}, {eps_name(eps)}{one})."


def describe_detection(table: ResultTable) -> str:
    """Say whether attacked images look unlikely, and what an attack does that knows the detector.

    The interval of each AUROC decides, against 0.5.
    """
    naive = next((column for column in table.columns if column.key == "auroc-naive"), None)
    if naive is None or not (found := _column(table, naive.key)):
        return ""
    groups: dict[str, list[str]] = {"less likely": [], "more likely": [], "": []}
    for label, cell in found.items():
        above = cell.low is not None and cell.low > 0.5
        below = cell.high is not None and cell.high < 0.5
        groups["less likely" if above else "more likely" if below else ""].append(label)
    *shown, open_ = groups.values()
    parts: list[str] = []
    for what, names in zip(groups, shown, strict=False):
        if names:
            than = "" if parts else " than clean ones"
            parts.append(f"{what}{than}{_named(names, found, table.kind)}")
    start = f"Under {naive.attack_label} at {eps_name(naive.eps)} images"
    if not parts:
        text = f"{start} are not shown to look less or more likely than clean ones"
    else:
        text = f"{start} look {' and '.join(parts)}"
        text += f"; no difference is shown{_named(open_, found, table.kind)}" if open_ else ""
    text += f": AUROC over all images {_span(found, 1.0)} (guessing: 0.5)"
    known = _column(table, "auroc-adaptive")
    if not known:
        return f"{text}."
    return f"{text}, {_span(known, 1.0)} under the best adaptive attack."


def _named(names: Sequence[str], found: Found, kind: str) -> str:
    """Return for which losses something holds, where it does not hold for all: " for A and B"."""
    if len(names) == len(found):
        return ""
    return f" for {listed(names) if len(names) <= MOST_NAMED else counted(len(names), kind)}"


def _column(table: ResultTable, key: str) -> Found:
    """Return the cells of one column that have a number; none where there is no such column."""
    places = [i for i, column in enumerate(table.columns) if column.key == key]
    return {
        row.label: row.cells[i]
        for i in places
        for row in table.rows
        if row.cells[i].mean is not None
    }


def _means(found: Found) -> Sequence[float]:
    return [cell.mean for cell in found.values() if cell.mean is not None]


def _span(found: Found, unit: float) -> str:
    """Return the lowest and the highest mean: "0.7 to 1.4"; "n/a" where no loss has one."""
    if not found:
        return NOTHING
    digits = 3 if unit == 1.0 else 1
    ends = [f"{unit * end(_means(found)):.{digits}f}" for end in (min, max)]
    return " to ".join(dict.fromkeys(ends))
