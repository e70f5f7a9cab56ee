"""Errors class by class against scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from robustloss.analysis.tables.classes import balanced_error, class_rows, top5_error

PLACE = {"loss": "gm", "label": "GM", "seed": 0, "attack": "none", "eps": 0.0}


def record(num_classes=12, n=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, n, p=np.arange(1, num_classes + 1) / 78)
    logits = rng.normal(size=(n, num_classes)) + 2.0 * np.eye(num_classes)[labels]
    predictions = logits.argmax(1)
    return SimpleNamespace(
        labels=labels, logits=logits, predictions=predictions, correct=predictions == labels, n=n
    )


def test_balanced_and_top5_error_are_scikit_learns():
    found = record()
    wanted = 1.0 - balanced_accuracy_score(found.labels, found.predictions)
    assert balanced_error(found) == pytest.approx(wanted)
    accuracy = top_k_accuracy_score(found.labels, found.logits, k=5, labels=np.arange(12))
    assert top5_error(found) == pytest.approx(1.0 - accuracy)


def test_up_to_ten_classes_have_no_top5_error():
    found = record()
    found.logits = found.logits[:, :10]
    assert top5_error(found) is None


def test_of_equal_logits_the_lower_class_comes_first():
    found = record()
    found.logits = np.zeros_like(found.logits)
    assert top5_error(found) == (found.labels >= 5).mean()


def test_counts_are_those_of_the_confusion_matrix():
    found = record()
    counts = confusion_matrix(found.labels, found.predictions)
    rows = class_rows(found, PLACE)
    for k, row in enumerate(rows):
        assert row["class_index"] == k
        assert row["n"] == counts[k].sum()
        assert row["predicted"] == counts[:, k].sum()
        assert row["false_negatives"] == counts[k].sum() - counts[k, k]
        assert row["false_positives"] == counts[:, k].sum() - counts[k, k]
        assert row["error"] == pytest.approx(1 - counts[k, k] / counts[k].sum())
        others = counts.sum() - counts[k].sum()
        assert row["false_positive_rate"] == pytest.approx(row["false_positives"] / others)
        assert row["error_low"] < row["error"] < row["error_high"]


def test_a_class_without_images_has_no_error_but_may_be_predicted():
    found = record()
    found.labels = np.where(found.labels == 3, 4, found.labels)
    found.correct = found.predictions == found.labels
    row = class_rows(found, PLACE)[3]
    assert (row["n"], row["error"], row["error_low"]) == (0, None, None)
    assert row["false_positives"] == row["predicted"] > 0
    assert balanced_error(found) == pytest.approx(
        np.mean([r["error"] for r in class_rows(found, PLACE) if r["n"]])
    )


def test_many_classes_are_told_for_the_clean_pass_only():
    found = record()
    found.logits = np.pad(found.logits, ((0, 0), (0, 90)), constant_values=-9.0)
    assert len(class_rows(found, PLACE)) == 102
    assert class_rows(found, {**PLACE, "attack": "fgsm"}) == []
