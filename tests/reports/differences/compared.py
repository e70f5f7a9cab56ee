"""Runs with comparisons written by hand, and the ranks that follow from them."""

from itertools import combinations
from pathlib import Path

from robustloss.analysis.tables.ranks import rank_rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from robustloss.results.schema import TABLES

ERRORS = {"A": 0.10, "B": 0.15, "C": 0.12}


def comparison(a, b, eps, metric="error", *, shown=False, difference=-0.05, **place):
    """Return one row of the table `comparisons`; the difference is that of a − b."""
    return dict.fromkeys(TABLES["comparisons"].names) | {
        **{"unit": "seeds", "label_a": a, "label_b": b, "metric": metric},
        **{"attack": "fgsm" if eps else "none", "attack_label": "FGSM" if eps else "none"},
        **{"norm": "linf", "eps": eps, "n_seeds": 3, "difference": difference},
        **{"low": difference - 0.01, "high": difference + 0.02, "shown": shown},
        **place,
        **{"p_adjusted": 0.01 if shown else 0.5, "minimum_detectable": 0.031},
    }


def compared(labels=tuple(ERRORS), shown=("AB",)) -> list[dict]:
    """Return every pair of some losses, clean and at two eps; those of ``shown`` are shown."""
    return [
        comparison(
            a, b, eps, metric, shown=a + b in shown, difference=_error(a) - _error(b),
            value_a=_error(a) + eps, value_b=_error(b) + eps,
        )
        for eps in (0.0, 0.1, 0.2)
        for metric in (("error", "auroc_all", "undetected_success_at_5fpr") if eps else ("error",))
        for a, b in combinations(labels, 2)
    ]  # fmt: skip


def _error(label: str) -> float:
    return ERRORS.get(label, 0.2)


def numbers(labels, comparisons, *, baseline=None, flags=()) -> Numbers:
    """Return the numbers of a run of these losses, with the ranks that the comparisons give."""
    rows = [
        {"loss": "lgm", "label": label, "seed": 0, "norm": "linf" if eps else None, "n": 100}
        | {"attack": "fgsm" if eps else "none", "attack_label": "FGSM" if eps else "none"}
        | {"eps": eps, "error": 0.1, "error_low": 0.05, "error_high": 0.2}
        for label in labels
        for eps in (0.0, 0.1, 0.2)
    ]
    spec = {"losses": [{"label": label} for label in labels], "attacks": [{"label": "FGSM"}]}
    if baseline:
        spec["report"] = {"baseline": baseline}
    tables = {k: [] for k in ("summary", "detection", "training", "worst_case", "failures")}
    ranked = [row for row in comparisons if row["value_a"] is not None]
    tables |= {"comparisons": comparisons, "ranks": rank_rows(ranked), "flags": list(flags)}
    results = {"name": "toy", "provenance": {"spec": spec}, "rows": rows}
    return Numbers(Run(Path(), results | tables))
