"""Images made on one loss, shown to another: the transfer matrix of a run, from stored files."""

from collections.abc import Iterable, Mapping

from robustloss.metrics.intervals import wilson
from robustloss.results.schema import TABLES, Row
from robustloss.results.transfers import Transfer


def transfer_rows(
    transfers: Iterable[Transfer], clean_errors: Mapping[tuple[str, int], float]
) -> list[Row]:
    """The transfer matrix: one row per seed, source, target, attack and eps.

    Args:
        transfers: the content of the run's transfer files, in any order.
        clean_errors: error without an attack, by (loss label, seed).

    Returns:
        Rows of the table `transfer`, sorted. `target_clean_error` is null for a target
        without one.
    """
    rows = []
    for one in transfers:
        for target, wrong in one.wrong.items():
            count = int(wrong.sum())
            low, high = wilson(count, wrong.size)
            row = {
                "seed": one.seed,
                "source": one.source,
                "target": target,
                "attack": one.attack,
                "attack_label": one.attack_label,
                "norm": one.norm,
                "eps": one.eps,
                "n": wrong.size,
                "error": count / wrong.size,
                "error_low": low,
                "error_high": high,
                "target_clean_error": clean_errors.get((target, one.seed)),
            }
            rows.append(row)
    return TABLES["transfer"].arrange(rows)
