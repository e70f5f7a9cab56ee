"""A complete run folder without any training: Gaussian features, pushed by a mock attack.

The files are written through the same functions as those of a real run, so the report cannot tell
the difference; the numbers are plausible, not real.
"""

from pathlib import Path

import numpy as np

from robustloss.analysis.tables.of_cell import cell_numbers
from robustloss.array_files import write_arrays
from robustloss.results.records import Record, save_record
from robustloss.spec.load import load_spec
from robustloss.spec.text import slug
from robustloss.storage import digest, digest_content, read_json, write_json, write_text
from tests.reports import synthetic_geometry
from tests.reports.synthetic_extras import attack_cost, probe, transfers
from tests.reports.world import Layout, Mock, MockAttack, World
from tests.written import write_results

PLAIN = Layout()
CLEAN = MockAttack("none", "none", "", (0.0,))


def write_run(path: Path, layout: Layout = PLAIN) -> Path:
    """Write the run folder and return it."""
    spec = load_spec(_spec(layout, path.name))
    write_text(path / "spec.toml", spec.text)
    cells, training = [], []
    for mock in layout.mocks:
        for seed in layout.seeds:
            if (mock.label, seed) not in layout.failed:
                cell, curve = _write_cell(path, layout, mock, seed)
                cells.append(cell)
                training.append(curve)
    failures = [
        {
            "loss": next(m.name for m in layout.mocks if m.label == label),
            "label": label,
            "seed": seed,
            "stage": "train",
            "reason": "the loss became NaN in epoch 2, step 131. Lower train.lr (=0.05).",
        }
        for label, seed in layout.failed
    ]
    provenance = _provenance(layout, spec.plain())
    if layout.geometry:
        provenance["data"] |= {
            "class_names": [f"class {k}" for k in range(layout.classes)],
            "class_counts": [5500 - 300 * k for k in range(layout.classes)],
        }
    matrix, flags = transfers(layout, cells) if layout.strong else ([], [])
    write_results(
        path,
        name=path.name,
        provenance=provenance,
        cells=cells,
        training=training,
        failures=failures,
        transfer=matrix,
        flags=flags,
    )
    if layout.geometry:
        _explain(path, cells)
    return path


def _explain(path: Path, cells: list[dict]) -> None:
    """Write the tables of the geometry into results.json, whatever writes the others."""
    results = read_json(path / "results.json")
    for key in ("per_class", "geometry", "margins", "center_estimates"):
        results[key] = [row for cell in cells for row in cell["explained"][key]]
    for row in results["rows"]:
        own = [
            r["error"] for r in results["per_class"]
            if (r["label"], r["seed"], r["attack_label"], r["eps"])
            == (row["label"], row["seed"], row["attack_label"], row["eps"])
        ]  # fmt: skip
        row |= {"balanced_error": sum(own) / len(own), "top5_error": None}
    del results["digest"]
    results["digest"] = digest_content(results)
    write_json(path / "results.json", results, sort_keys=False)


def _spec(layout: Layout, name: str) -> dict:
    return {
        "name": slug(name) or "synthetic",
        "seeds": list(layout.seeds),
        "data": {"name": layout.data},
        "model": {"backbone": "lenet_plus", "feature_dim": layout.dim},
        "train": {"epochs": layout.epochs},
        "losses": [{"name": m.name, "label": m.label, "params": m.params} for m in layout.mocks],
        "attacks": [
            {"name": a.name, "label": a.label, "eps": list(a.eps)}
            for a in layout.attacks or [MockAttack()]
        ],
    }


def _provenance(layout: Layout, spec: dict) -> dict:
    return {
        "robustloss": "0.1.0", "torch": "2.15.0+cpu", "torchvision": "0.29.2", "numpy": "2.4.6",
        "python": "3.11.2", "platform": "Linux-6.1-x86_64", "device": "cpu (Mock CPU, 2 cores)",
        "threads": 2, "precision": "bfloat16",
        "data": {"name": layout.data, "checksum": digest(layout.data), "train": 55000,
                 "validation": 5000, "test": layout.n},
        "seeds": list(layout.seeds), "started": "2026-11-22T10:00:00+00:00",
        "finished": "2026-11-22T10:11:40+00:00", "seconds": 700.4, "spec": spec,
        "command": ["robustloss", "run", "mnist"],
        **({"attack_cost": attack_cost(layout)} if layout.strong else {}),
    }  # fmt: skip


def _write_cell(path: Path, layout: Layout, mock: Mock, seed: int) -> tuple[dict, dict]:
    order = [m.label for m in layout.mocks].index(mock.label)
    random = np.random.default_rng([order, seed, layout.dim])
    world = World(layout, mock, random)
    folder = path / "cells" / slug(mock.label) / f"seed-{seed}"
    key = digest(mock.label, seed)
    entries: list[dict] = []
    records = {}
    labels = np.arange(layout.n) % layout.classes
    clean_features = world.draw(labels, random)
    images = _images(layout, labels[:64])
    plans = [(CLEAN, 0.0)]
    plans += [(a, float(e)) for a in layout.attacks for e in a.eps]
    for number, (attack, eps) in enumerate(plans):
        features, radius = world.attack(clean_features, labels, attack, eps)
        pixels = images
        if eps:
            noise = np.random.default_rng([number, order]).standard_normal(images.shape)
            pixels = np.clip(images + eps * np.sign(noise), 0, 1).astype(np.float32)
        record = world.record(features, labels, pixels, attack, eps, radius)
        entry = {
            "attack": attack.name, "attack_label": attack.label, "norm": attack.norm or None,
            "eps": eps, "file": f"{slug(attack.label)}-{eps:g}-{key}.npz",
        }  # fmt: skip
        save_record(folder / entry["file"], record)
        records[(attack.label, eps)] = record
        entries.append(entry)
    scores = world.reference(random)
    if layout.geometry:
        scores |= synthetic_geometry.arrays(layout, world, scores, records[("none", 0.0)], seed)
    write_arrays(folder / f"scores-{key}.npz", scores)
    training = _training(layout, records[("none", 0.0)], random)
    if layout.geometry:
        training["note"] = mock.note
        training["curve"] = synthetic_geometry.tuple_curve(mock, training["curve"])
    write_json(folder / "train.json", {"key": key, **training}, checked=True)
    cell = {
        "schema_version": 1, "loss": mock.name, "label": mock.label, "slug": slug(mock.label),
        "seed": seed, "key": key, "num_classes": layout.classes, "feature_dim": layout.dim,
        "density": mock.name in ("gm", "lgm"),
        "files": {"model": f"model-{key}.safetensors", "training": "train.json",
                  "scores": f"scores-{key}.npz", "records": entries},
    }  # fmt: skip
    known = probe(layout, records) if layout.strong else None
    if known is not None:
        cell["files"]["probe"] = f"probe-{key}.npz"
        write_arrays(folder / f"probe-{key}.npz", known)
    cell |= cell_numbers(records, scores, cell, probe=known)
    write_json(folder / "cell.json", cell, checked=True)
    place = {"loss": mock.name, "label": mock.label, "seed": seed}
    if layout.geometry:
        cell["explained"] = synthetic_geometry.rows(layout, world, scores, records, place)
    return cell, place | training


def _images(layout: Layout, labels: np.ndarray) -> np.ndarray:
    """Strokes that differ by class: enough to see what an attack does to them."""
    channels, high, wide = layout.shape
    y, x = np.mgrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
    out = np.zeros((len(labels), *layout.shape), np.float32)
    for i, label in enumerate(labels):
        angle, bend = np.pi * label / layout.classes, 0.4 * np.sin(i)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        stroke = np.exp(-(((across - bend * along**2) / 0.16) ** 2)) * (np.abs(along) < 0.75)
        tint = np.linspace(1, 0.4, channels)[:, None, None]
        out[i] = np.clip(stroke * tint, 0, 1)
    return out


def _training(layout: Layout, clean: Record, random: np.random.Generator) -> dict:
    final = max(float((~clean.correct).mean()), 0.002)
    curve = []
    for epoch in range(1, layout.epochs + 1):
        decay = np.exp(-3.0 * (epoch - 1) / max(layout.epochs - 1, 1))
        wobble = 1 + 0.08 * random.standard_normal()
        curve.append(
            {"epoch": epoch, "loss": float(0.02 + 2 * decay * wobble),
             "classification": float(0.01 + 1.5 * decay), "regulariser": float(0.01 + 0.5 * decay),
             "train_error": float(final * 0.8 * wobble + 0.1 * decay),
             "validation_error": float(final * wobble + 0.06 * decay), "lr": 0.05 * decay,
             "seconds": 9.0 * epoch}
        )  # fmt: skip
    return {"epochs": layout.epochs, "curve": curve, "seconds": 45.0, "steps": 430 * layout.epochs,
            "precision": "bfloat16", "parameters": 221_834}  # fmt: skip
