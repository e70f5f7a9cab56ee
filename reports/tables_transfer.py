"""The transfer matrix as a table: source by target, one block for each eps."""

from robustloss.reports.marks import Marks, names
from robustloss.reports.matrix import Matrix
from robustloss.reports.table import Entry, Table
from robustloss.reports.tables_error import interval_words
from robustloss.reports.words import estimate


def transfer_table(matrix: Matrix) -> Table:
    """Rows: on which loss the images were made; columns: which loss sees them."""
    marks = Marks(matrix.numbers)
    clean = [Entry(estimate(matrix.clean(k), unit=100, digits=2)) for k in matrix.labels]
    rows = [[Entry("clean"), Entry("(no attack)"), *clean]]
    data = []
    for eps in matrix.eps:
        for source in matrix.labels:
            row = [Entry(f"{eps:.4g}"), Entry(source)]
            for target in matrix.labels:
                found = matrix.get(source, target, eps)
                flags = matrix.flags(source, target, eps) if found else []
                text = estimate(found, unit=100, digits=2)
                row.append(Entry(text, marks.of(flags), "top" if source == target else ""))
                data.append(_data(matrix, source, target, eps))
            rows.append(row)
    name = matrix.attack.label
    return Table(
        f"transfer-{matrix.attack.slug}",
        f"Transfer of {name} between the losses",
        f"Error in percent of the loss of the column on images that {name} made on the loss of "
        "the row. Bold, on the diagonal: white box, the attack sees the very model. An error off "
        "the diagonal that is above the one on it in the same column means that the white-box "
        f"attack did not find what another model's images do. {interval_words(matrix.numbers)}",
        ["eps", "made on", *(f"shown to {label}" for label in matrix.labels)],
        rows,
        data,
        marks.notes(),
        left=2,
    )


def _data(matrix: Matrix, source: str, target: str, eps: float) -> dict[str, object]:
    found, clean = matrix.get(source, target, eps), matrix.clean(target)
    return {
        "source": source, "target": target, "attack_label": matrix.attack.label,
        "norm": matrix.attack.norm, "eps": eps, "n_seeds": found.n_seeds if found else 0,
        "error": found.mean if found else None, "low": found.low if found else None,
        "high": found.high if found else None, "interval": found.interval if found else None,
        "target_clean_error": clean.mean if clean else None,
        "marks": names(matrix.flags(source, target, eps)),
    }  # fmt: skip
