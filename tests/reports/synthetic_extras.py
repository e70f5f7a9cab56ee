"""What came with the strong attacks: probe, transfer matrix and cost of a synthetic run."""

from collections.abc import Mapping, Sequence

import numpy as np

from robustloss.analysis.checks.from_probe import trace_name
from robustloss.analysis.checks.from_transfer import transfer_beats_white_box
from robustloss.analysis.checks.unit_tests import unit_name
from robustloss.analysis.tables.transfers import transfer_rows
from robustloss.results.records import Record
from robustloss.results.transfers import Transfer
from tests.reports.world import Layout

PASSES = {"one_step": (1, 1), "iterative": (41, 40), "black_box": (1000, 0),
          "minimum_norm": (300, 150), "adaptive": (120, 120)}  # fmt: skip


def probe(layout: Layout, records: Mapping[tuple[str, float], Record]) -> dict[str, np.ndarray]:
    """The arrays of probe-KEY.npz: cross-entropy misses a tenth, one attack is still rising."""
    clean = records[("none", 0.0)]
    n = min(100, clean.n)
    wrong, logits = ~clean.correct[:n], clean.logits[:n]
    hard = np.arange(n) % 10 == 0
    arrays = {
        "labels": clean.labels[:n], "eps": np.array(0.1), "logits": logits, "logits_again": logits,
        "gradient_zero": hard & False, "gradient_not_finite": hard & False,
        "wrong_clean": wrong, "wrong_cross_entropy": wrong | ~hard,
        "wrong_margin": wrong | True, "temperatures": np.array([10.0, 100.0]),
        "wrong_rescaled": np.stack([wrong | ~hard] * 2), "wrong_unbounded": wrong | True,
    }  # fmt: skip
    for attack in layout.attacks:
        if attack.kind == "iterative":
            levels = np.linspace(-9, -1, 20)[:, None] if attack.name == "apgd_ce" else 1.0
            name = trace_name(attack.label)
            arrays[name] = (np.zeros((20, n)) + levels).astype(np.float32)
            arrays[f"{name}_eps"] = np.array(0.1)
            unit = unit_name(attack.label, 0)
            arrays |= {unit: np.stack([~hard | True, hard]), f"{unit}_eps": np.array(0.1)}
    return arrays


def transfers(layout: Layout, cells: Sequence[Mapping]) -> tuple[list[dict], list[dict]]:
    """Rows and flags of a matrix in which softmax is hit harder from outside than by itself."""
    attack = next(a for a in layout.attacks if a.kind == "iterative")
    labels = np.arange(layout.n) % layout.classes
    found = []
    for seed in layout.seeds:
        own = {c["label"]: {r["eps"]: r["error"] for r in c["rows"] if
                            r["attack_label"] == attack.label}
               for c in cells if c["seed"] == seed}  # fmt: skip
        for source in own:
            for eps in (e for e in attack.eps if e > 0):
                rows = [
                    _fooled(labels, layout.classes, own[target][eps] * _share(source, target))
                    for target in own
                ]
                found.append(
                    Transfer(source, tuple(own), attack.name, attack.label, attack.norm, eps, seed,
                             labels, np.stack(rows))
                )  # fmt: skip
    clean = {(r["label"], r["seed"]): r["error"] for c in cells for r in c["rows"]
             if r["attack_label"] == "none"}  # fmt: skip
    losses = {c["label"]: c["loss"] for c in cells}
    return transfer_rows(found, clean), transfer_beats_white_box(found, losses)


def _share(source: str, target: str) -> float:
    if source == target:
        return 1.0
    return 1.3 if (source, target) == ("center", "softmax") else 0.25 + 0.03 * len(source)


def _fooled(labels: np.ndarray, classes: int, share: float) -> np.ndarray:
    wrong = np.arange(len(labels)) < round(min(1.0, share) * len(labels))
    return np.where(wrong, (labels + 1) % classes, labels)


def attack_cost(layout: Layout) -> list[dict]:
    """provenance["attack_cost"]: one entry per cell and attack."""
    return [
        {"label": mock.label, "seed": seed, "attack_label": a.label, "images": layout.n,
         "budgets": 1 if a.kind == "minimum_norm" else sum(e > 0 for e in a.eps),
         "forward": layout.n * PASSES[a.kind][0], "backward": layout.n * PASSES[a.kind][1],
         "seconds": 0.01 * sum(PASSES[a.kind]) + 0.1 * seed}
        for mock in layout.mocks
        for seed in layout.seeds
        if (mock.label, seed) not in layout.failed
        for a in layout.attacks
    ]  # fmt: skip
