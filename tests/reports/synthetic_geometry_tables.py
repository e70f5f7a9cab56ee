"""A run of rows alone, small enough to be worked out by hand: no folder, no arrays."""

from pathlib import Path

from robustloss.results.run import Run

Row = dict[str, object]
LABELS = {"softmax": "softmax", "center": "Center", "gm": "GM", "triplet": "Triplet"}


def place(loss: str, seed: int = 0) -> Row:
    return {"loss": loss, "label": LABELS.get(loss, loss), "seed": seed}


def row(loss: str, seed: int = 0, **more: object) -> Row:
    """A clean row of `rows`."""
    found = place(loss, seed) | {
        "attack": "none", "attack_label": "none", "norm": None, "eps": 0.0, "n": 200,
        "error": 0.1, "error_low": 0.066, "error_high": 0.149, "auroc_all": None,
        "auroc_successful": None, "n_successful": None, "undetected_success_at_5fpr": None,
    }  # fmt: skip
    return found | more


def geometry(loss: str, split: str = "test", seed: int = 0, **more: object) -> Row:
    found = place(loss, seed) | {
        "split": split, "n": 200, "feature_dim": 2, "norm_mean": 10.0, "norm_p5": 8.0,
        "norm_p95": 12.0, "within_distance": 2.0, "between_distance": 9.0,
        "between_distance_min": 5.0, "nearest_a": 0, "nearest_b": 2, "fisher_ratio": 12.5,
        "within_angle_deg": 4.0, "between_angle_deg": 90.0, "between_angle_min_deg": 60.25,
        "gradient_norm_mean": None, "gradient_norm_correlation": None,
    }  # fmt: skip
    return found | more


def margin(loss: str, places: tuple, closed: tuple = (None,) * 3, **more: object) -> Row:
    """One pair of classes, its means 4 apart; places: boundary, under a, under b."""
    found = place(loss) | {"class_a": 0, "class_b": 1, "length": 4.0}
    for prefix, (free, a, b) in (("", places), ("closed_", closed)):
        found |= {
            f"{prefix}boundary": free, f"{prefix}boundary_a": a, f"{prefix}boundary_b": b,
            f"{prefix}margin": None if None in (a, b) else (b - a) * 4.0,
        }  # fmt: skip
    apart = [abs(x - y) for x, y in zip(places, closed, strict=True) if None not in (x, y)]
    return found | {"difference": max(apart, default=None)} | more


def by_class(loss: str, class_index: int, missed: int, taken: int, **more: object) -> Row:
    """A class of a hundred images, a hundred others."""
    found = place(loss) | {
        "attack": "none", "attack_label": "none", "norm": None, "eps": 0.0,
        "class_index": class_index, "n": 100, "error": missed / 100, "error_low": 0.02,
        "error_high": 0.11, "predicted": 100 - missed + taken, "false_positives": taken,
        "false_negatives": missed, "false_positive_rate": taken / 100,
    }  # fmt: skip
    return found | more


def estimates(loss: str, seed: int = 0, **more: object) -> Row:
    found = place(loss, seed) | {
        "batch_size": 128, "images_per_class": 12.8, "batch_mean_error": 0.6,
        "expected_error": 0.5, "centers_error": None, "within_distance": 2.0,
    }  # fmt: skip
    return found | more


def log(loss: str, seed: int = 0, **more: object) -> Row:
    """A training of two epochs, 10 and 20 seconds."""
    curve = [{"epoch": 1, "seconds": 10.0}, {"epoch": 2, "seconds": 20.0}]
    found = place(loss, seed) | {"epochs": 2, "curve": curve, "seconds": 30.0, "parameters": 9}
    return found | {"precision": "float32", "note": ""} | more


def tuples(first: float, last: float, seconds: float | None) -> list[Row]:
    return [
        {"epoch": 1, "seconds": 10.0, "tuples": first, "tuple_seconds": seconds},
        {"epoch": 2, "seconds": 20.0, "tuples": last, "tuple_seconds": seconds},
    ]


def run(
    losses: tuple[str, ...] = ("softmax",), data: Row | None = None, **tables: list[Row]
) -> Run:
    """A run of these losses whose results hold only the given tables."""
    known = {"name": "mnist", "class_names": ["zero", "one", "two"], "test": 200} | (data or {})
    spec = {"losses": [{"name": k, "label": LABELS.get(k, k)} for k in losses], "attacks": []}
    empty = dict.fromkeys(("summary", "detection", "worst_case", "flags", "failures"), ())
    results = {
        "name": "by hand",
        "provenance": {"data": known, "spec": spec},
        "rows": [row(k) for k in losses],
        "training": [log(k) for k in losses],
    }
    return Run(Path("nowhere"), {k: list(v) for k, v in empty.items()} | results | tables)
