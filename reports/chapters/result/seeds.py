"""Every row of results.json."""

from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Table, lay_out
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import Estimate

SEED_COLUMNS = [
    Column("loss", "label"),
    Column("attack", "attack_label", words=lambda label: "clean" if label == "none" else label),
    Column("seed", "seed", words=str),
    Column("eps", "eps", words=eps_text),
    Column("error", "error", 100.0, 2),
    Column("AUROC, all", "auroc_all", 1.0, 3),
    Column("AUROC, successful", "auroc_successful", 1.0, 3),
    Column("n successful", "n_successful"),
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
        rows.append(
            {
                **r,
                "error": Estimate(r["error"], r["error_low"], r["error_high"], 1, (), None),
                **{
                    k: r[k] if r[k] is None else Estimate(r[k], None, None, 1, (), None)
                    for k in one
                },
                "flags": [flag for flag in flags if flag.get("seed") in (None, r["seed"])],
            }
        )
    marks = Marks()
    header, entries, _ = lay_out(SEED_COLUMNS, rows, marks)  # the CSV has every column of a row
    return Table(
        "seeds",
        "Every seed",
        "Every loss, attack and seed; [low, high] is a 95 % Wilson interval over test images. The "
        "CSV has every column of results.json.",
        header,
        entries,
        found,
        marks.notes(),
        left=2,
        of_errors=True,
    )
