"""Images made on one loss, shown to another: the transfer matrix of a run, from stored files."""

from collections.abc import Iterable, Mapping

from robustloss.analysis.outcomes import error_columns
from robustloss.results.schema import TABLES, Row
from robustloss.results.transfers import Transfer


def transfer_rows(
    transfers: Iterable[Transfer], clean_errors: Mapping[tuple[str, int], float]
) -> list[Row]:
    """Return the transfer matrix: one row per seed, source, target, attack and eps.

    Args:
        transfers: the content of the run's transfer files, in any order.
        clean_errors: error without an attack, by (loss label, seed).

    Returns:
        Rows of the table `transfer`, sorted. `target_clean_error` is null for a target
        without one.
    """
    rows = [
        {
            "seed": one.seed,
            "source": one.source,
            "target": target,
            "attack": one.attack,
            "attack_label": one.attack_label,
            "norm": one.norm,
            "eps": one.eps,
            "target_clean_error": clean_errors.get((target, one.seed)),
        }
        | error_columns(wrong)
        for one in transfers
        for target, wrong in one.wrong.items()
    ]
    return TABLES["transfer"].arrange(rows)
