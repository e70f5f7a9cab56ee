"""The table that the page begins with, every loss by eps and detection; and every single row."""

from collections import Counter

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.facts import basis_words, data_remark, images
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_NAMES, Estimate
from robustloss.results.result_table import ResultTable

_EPS = {
    "linf": "each pixel, where 1 is from black to white",
    "l2": "the length of the whole change",
    "l1": "the sum over all pixels",
}


def result_table(numbers: Numbers) -> Table:
    """Return the result table of a run as the page and the files show it."""
    found = numbers.result
    names = {row.label: found.name_of(row) for row in found.rows}
    wanted = (numbers.spec.get("report") or {}).get("highlight") or ()
    rows = [[Entry(name)] for name in names.values()]
    for place, column in enumerate(found.columns):
        cells = [row.cells[place] for row in found.rows]
        best = _best_row(numbers, found, place)
        for i, cell in enumerate(cells):
            kind = "gap" if cell.mean is None else "top" if i == best else ""
            rows[i].append(Entry(cell.text(column), found.mark(cell), kind))
    detection = [column.head for column in found.columns if column.metric != "error"]
    words = (
        " AUROC, all images: how often a clean image has a higher likelihood than an attacked one, "
        "fooled or not; 1 is always, 0.5 is guessing, below 0.5 attacked images look more typical "
        "than clean ones. Fooled and unnoticed: percentage of initially correct images that are "
        "wrong after the attack and pass a threshold that rejects 5 % of clean validation images."
    )
    best_words = " Best adaptive: on each image the best of the attacks that know the detector."
    any_words = " Any attack: an image counts if at least one attack fools it and passes unnoticed."
    norms = "; ".join(f"{NORM_NAMES[norm]}: {_EPS[norm]}" for norm in numbers.norms)
    return Table(
        "losses",
        "Errors and detection",
        f"{found.caption.replace('percent', f'percent of {images(numbers)} test images', 1)} Eps: "
        f"how much an attack may change an image ({norms}). Clean mistakes count; in the worst "
        "case an image counts if any attack fools it. Bold: the best number, if paired tests show "
        "it better than every other number without a mark."
        f"{words if detection else ''}{best_words if 'best adaptive' in detection else ''}"
        f"{any_words if 'any attack' in detection else ''}",
        [found.kind, *(column.head for column in found.columns)],
        rows,
        [
            {"label": row.label, "metric": column.metric, "attack_label": column.attack_label,
             "norm": column.norm, "eps": column.eps, "n_seeds": cell.n_seeds, "mean": cell.mean,
             "low": cell.low, "high": cell.high, "interval": cell.interval,
             "marks": " ".join(cell.checks)}
            for row in found.rows
            for column, cell in zip(found.columns, row.cells, strict=True)
        ],
        [*(f"†{number} {text}" for number, text in enumerate(found.notes.values(), 1)),
         *([f"Data: {remark}."] if (remark := data_remark(numbers)) else [])],
        of_errors=True,
        groups=[("", 1), *Counter(column.group for column in found.columns).items()],
        basis=basis_words(numbers),
        highlight=[name for label, name in names.items() if label in wanted],
    )  # fmt: skip


def _best_row(numbers: Numbers, table: ResultTable, place: int) -> int | None:
    """Return the row of the best unmarked number of a column, if it is shown to be the best."""
    column = table.columns[place]
    sign = 1 if column.lower_is_better else -1
    known = sorted(
        (sign * mean, i, row.label)
        for i, row in enumerate(table.rows)
        if (mean := row.cells[place].mean) is not None and not row.cells[place].checks
    )
    if len(known) < 2:
        return None
    (_, best, label), *others = known
    where = (column.metric, column.attack_label, column.norm, column.eps)
    return best if all(numbers.differ(label, other, *where) for *_, other in others) else None


SEED_COLUMNS = [
    Column("loss", "label"),
    Column("attack", "attack_label", words=lambda label: "clean" if label == "none" else label),
    Column("seed", "seed", words=str),
    Column("eps", "eps", words=eps_text),
    Column("error", "error", 100.0, 2),
    Column("AUROC, all", "auroc_all", 1.0, 3),
    Column("AUROC, successful", "auroc_successful", 1.0, 3),
    Column("successful attacks", "n_successful"),
    Column("fooled and unnoticed", "undetected_success_at_5fpr", 100.0, 2, checks=()),
]


def seed_table(numbers: Numbers) -> Table:
    """Return every row of results.json, as it stands there."""
    place = {label: i for i, label in enumerate(numbers.labels)}
    found = sorted(
        numbers.run.rows,
        key=lambda r: (place[r["label"]], r["seed"], r["attack_label"] != "none",
                       r["attack_label"], r["eps"]),
    )  # fmt: skip
    rows = []
    for r in found:
        if r["eps"] == 0 and r["attack_label"] != "none":
            continue  # an attack at eps 0 changes nothing: the row of the clean images again
        flags = numbers.flag_index.of_attack(r["label"], r["attack_label"], r["eps"])
        one = ("auroc_all", "auroc_successful", "undetected_success_at_5fpr")
        row = {
            **r,
            "error": Estimate(r["error"], r["error_low"], r["error_high"], 1, (), None),
            **{k: Estimate(r[k], None, None, 1, (), None) for k in one if r[k] is not None},
            "flags": [flag for flag in flags if flag.get("seed") in (None, r["seed"])],
        }
        rows.append(row)
    marks = Marks()
    return Table(
        "seeds",
        "Every seed",
        "Every loss, attack and seed; [low, high] is a 95 % Wilson interval over test images. The "
        "CSV has every column of results.json.",
        *lay_out(SEED_COLUMNS, rows, marks)[:2],  # the CSV has every column of a row
        found,
        marks.notes(),
        left=2,
        of_errors=True,
    )
