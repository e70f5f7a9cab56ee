"""Rows of `detection` and `out_of_distribution` by hand: every population, few scores."""

from pathlib import Path

from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from tests.reports.synthetic_geometry_tables import Row, place, row, run

EPS = (0.1, 0.3)
SCORES = ("class_log_likelihood", "marginal_log_likelihood", "knn", "my.module:odd_score")
POPULATIONS = {"all": 0.9, "successful": 0.95, "failed": 0.8, "noise": 0.55}
OUTSIDE = {"fashion": "Fashion-MNIST", "noise": "uniform noise"}
DENSITY = ("gm",)


def has(loss: str, score: str) -> bool:
    return score != "marginal_log_likelihood" or loss in DENSITY


def area(score: str, population: str, eps: float, seed: int) -> float | None:
    """No attack of eps 0.1 succeeds."""
    if population == "successful" and eps == 0.1:
        return None
    return POPULATIONS[population] - 0.05 * SCORES.index(score) + 0.01 * seed


def detection_rows(losses: tuple[str, ...], seeds: tuple[int, ...]) -> list[Row]:
    return [
        place(loss, seed) | {
            "attack": "fgsm", "attack_label": "FGSM", "norm": "linf", "eps": eps, "score": score,
            "population": population, "n_clean": 200,
            "n_attacked": 0 if (found := area(score, population, eps, seed)) is None else 100,
            **_points(found), "undetected_success_at_1fpr": 0.04,
            "undetected_success_at_5fpr": 0.02, "threshold_5fpr": -3.0,
            "clean_rejected_fraction": 0.05, "adapted": None,
        }
        for loss in losses for seed in seeds for eps in EPS for score in SCORES
        if has(loss, score) for population in POPULATIONS
    ]  # fmt: skip


def _points(found: float | None) -> Row:
    if found is None:
        return dict.fromkeys(("auroc", "auroc_low", "auroc_high", "average_precision",
                              "tpr_at_1fpr", "tpr_at_5fpr", "clean_rejected_at_95tpr",
                              "equal_error_rate"))  # fmt: skip
    return {
        "auroc": found, "auroc_low": found - 0.03, "auroc_high": found + 0.02,
        "average_precision": found, "tpr_at_1fpr": 0.4, "tpr_at_5fpr": 0.6,
        "clean_rejected_at_95tpr": 0.3, "equal_error_rate": 0.12,
    }  # fmt: skip


def outside_rows(losses: tuple[str, ...], seeds: tuple[int, ...]) -> list[Row]:
    return [
        place(loss, seed) | {
            "outside": outside, "outside_name": name, "score": score, "n_clean": 200,
            "n_outside": 50, **_points(0.9 - 0.1 * SCORES.index(score)), "caught_at_5fpr": 0.7,
        }
        for loss in losses for seed in seeds for outside, name in OUTSIDE.items()
        for score in SCORES if has(loss, score)
    ]  # fmt: skip


def detected_run(
    losses: tuple[str, ...] = ("softmax", "gm"), seeds: tuple[int, ...] = (0, 1)
) -> Run:
    attacked = [row(k, s, attack="fgsm", attack_label="FGSM", norm="linf", eps=e)
                for k in losses for s in seeds for e in EPS]  # fmt: skip
    rows = [*(row(k, s) for k in losses for s in seeds), *attacked]
    plain = run(losses, rows=rows, detection=detection_rows(losses, seeds))
    outside = outside_rows(losses, seeds)
    return Run(Path("nowhere"), plain.results | {"out_of_distribution": outside})


def detected_numbers(seeds: tuple[int, ...] = (0, 1)) -> Numbers:
    return Numbers(detected_run(seeds=seeds), 10)
