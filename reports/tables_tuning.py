"""The search for each loss's values: what was tried, what it changed, what was kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.reports.numbers import Numbers
from robustloss.reports.table import Entry, Table
from robustloss.reports.words import NOTHING, span

Row = Mapping[str, Any]


def tuning_tables(numbers: Numbers) -> list[Table]:
    """What each loss kept, with the spread over its trials, and every trial."""
    rows = numbers.run.trials
    if not rows:
        return []
    labels = [label for label in numbers.labels if any(row["label"] == label for row in rows)]
    eps = fgsm_eps(rows)
    return [_kept(labels, rows, eps), _every(labels, rows, eps)]


def fgsm_eps(rows: Sequence[Row]) -> list[float]:
    """The budgets of the trials' FGSM, rising."""
    return sorted({float(row["eps"]) for row in rows if row["eps"] is not None})


def trials_of(rows: Sequence[Row], label: str) -> list[list[Row]]:
    """The rows of a loss, trial by trial."""
    numbers = dict.fromkeys(row["trial"] for row in rows if row["label"] == label)
    return [[r for r in rows if r["label"] == label and r["trial"] == n] for n in numbers]


def settings(row: Row) -> str:
    """Searched values as text: "lr 0.02, alpha 1"."""
    return ", ".join(f"{key} {short(value)}" for key, value in row["settings"].items())


def short(value: object) -> str:
    """A searched value as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kept(labels: Sequence[str], rows: Sequence[Row], eps: Sequence[float]) -> Table:
    body, data = [], []
    for label in labels:
        trials = trials_of(rows, label)
        firsts = [trial[0] for trial in trials]
        kept = next((row for row in firsts if row["chosen"]), None)
        errors = [r["validation_error"] for r in firsts if r["validation_error"] is not None]
        texts = [
            str(len(trials)),
            str(len(trials) - len(errors)),
            settings(kept) if kept else "none finished",
            _percent(kept["validation_error"]) if kept else NOTHING,
            span(errors, 2, 100.0),
        ]
        for each in eps:
            tried = [r for r in rows if r["label"] == label and r["eps"] == each]
            own = [r["fgsm_error"] for r in tried if r["chosen"]]
            texts += [_percent(own[0]) if own else NOTHING]
            texts += [span([r["fgsm_error"] for r in tried], 1, 100.0)]
        body.append([Entry(label), *(Entry(text, kind="" if kept else "gap") for text in texts)])
        data += [dict(row) for row in rows if row["label"] == label and row["chosen"]]
    n = next((row["n"] for row in rows if row["n"] is not None), 0)
    heads = [head for each in eps for head in (f"FGSM {each:.4g}, kept", f"FGSM {each:.4g}, tried")]
    return Table(
        "tuning",
        "Tuning",
        "Every loss had the same number of trials and kept the values of the smallest clean "
        "validation error (ties: the smaller cross-entropy on validation images, then the first). "
        "Attacked images and test images chose nothing: errors here, in percent, are of "
        f"{n:,} validation images, also under FGSM. “Tried”: lowest to highest trial. All trials "
        f"have seed {rows[0]['seed']}: the network's initial weights are the same, and so is the "
        "order of the images, but for losses of pairs, which fill their batches class by class.",
        ["loss", "trials", "diverged", "kept", "validation error, kept", "tried", *heads],
        body,
        [_flat(row) for row in data],
    )


def _every(labels: Sequence[str], rows: Sequence[Row], eps: Sequence[float]) -> Table:
    body = []
    for label in labels:
        for trial in trials_of(rows, label):
            first = trial[0]
            attacked = {float(r["eps"]): r["fgsm_error"] for r in trial if r["eps"] is not None}
            failed = first["validation_error"] is None
            loss = first["validation_loss"]  # null where it is infinite too
            texts = [
                NOTHING if failed else _percent(first["validation_error"]),
                NOTHING if loss is None else f"{loss:.4f}",
                *(_percent(attacked.get(each)) for each in eps),
                "kept" if first["chosen"] else str(first["reason"] or ""),
            ]
            kind = "top" if first["chosen"] else "gap" if failed else ""
            body.append(
                [Entry(label), Entry(settings(first)), *(Entry(text, kind=kind) for text in texts)]
            )
    return Table(
        "tuning-trials",
        "Every trial",
        "Errors of validation images in percent, clean and under FGSM; cross-entropy of the "
        "logits on clean ones in nats. In bold what was kept.",
        ["loss", "values", "validation error", "validation loss",
         *(f"FGSM {each:.4g}" for each in eps), "remark"],
        body,
        [_flat(row) for label in labels for row in rows if row["label"] == label],
        left=2,
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.2f}"


def _flat(row: Row) -> dict[str, object]:
    return {**row, "settings": settings(row)}
