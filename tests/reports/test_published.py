"""Published numbers: which tables belong to which run, and how they stand beside ours."""

from types import SimpleNamespace
from typing import Any

import pytest

from reports.published import published_crops, published_errors
from reports.tables_crops import crops_table

FGSM = SimpleNamespace(name="fgsm", label="FGSM", norm="linf")
PGD = SimpleNamespace(name="pgd", label="PGD", norm="linf")
VGG = {"backbone": "vgg13_cifar", "feature_dim": 384}


def numbers(data: str, losses: list[dict], **spec: dict) -> Any:
    rows = [
        {"loss": "lgm", "label": "B", "seed": 0, "crops": crops, "n": 200,
         "top1_error": 0.25, "top1_low": 0.2, "top1_high": 0.3,
         "top5_error": 0.05 if crops == 1 else None, "top5_low": 0.03, "top5_high": 0.08}
        for crops in (1, 10)
    ]  # fmt: skip
    return SimpleNamespace(
        run=SimpleNamespace(provenance={"data": {"name": data}}, results={"crops": rows}),
        spec={"losses": losses, **spec},
        labels=[loss["label"] for loss in losses],
        attacks=[FGSM, PGD],
    )


SIX = [
    {"name": "softmax", "label": "A"},
    {"name": "lgm", "label": "B", "params": {"alpha": 0.3}},
    {"name": "lgm", "label": "C", "params": {"alpha": 0.7}},
    {"name": "cosface", "label": "D"},
]


@pytest.mark.parametrize(
    ("augment", "softmax", "lgm"), [("none", 0.2561, 0.2380), ("crop_flip", 0.2160, 0.2076)]
)
def test_table_3_stands_with_its_own_augmentation(augment, softmax, lgm):
    run = numbers("cifar100", SIX, model=VGG, train={"augment": augment})
    (table,) = published_errors(run, FGSM)
    assert table.error == {"A": {0.0: softmax}, "B": {0.0: lgm}}
    assert set(table.spread) == {"A", "B"}


def test_clean_errors_stand_with_the_first_attack_only():
    run = numbers("cifar100", SIX, model=VGG, train={"augment": "none"})
    assert published_errors(run, PGD) == []


def test_another_network_or_augmentation_is_not_the_papers():
    other = {"backbone": "resnet18_cifar", "feature_dim": 512}
    for model, augment in ((other, "none"), (VGG, "shift")):
        run = numbers("cifar100", SIX, model=model, train={"augment": augment})
        assert published_errors(run, FGSM) == []


def test_mnist_has_the_rows_of_both_papers():
    losses = [*SIX[:1], {"name": "l_softmax", "label": "E", "params": {"margin": 3}}]
    run = numbers("mnist", losses, model={"feature_dim": 100})
    found = {table.short: table for table in published_errors(run, FGSM)}
    assert set(found) == {"Liu et al. 2016", "Wan et al. 2018, Table 6"}
    assert found["Liu et al. 2016"].error == {"A": {0.0: 0.0040}, "E": {0.0: 0.0031}}
    assert "Another network" in found["Liu et al. 2016"].caveat
    plane = numbers("mnist", losses, model={"feature_dim": 2})
    assert [t.short for t in published_errors(plane, FGSM)] == ["Wan et al. 2018, Table 6"]


def test_table_4_stands_below_crops_of_imagenet():
    run = numbers("ImageNet", [SIX[0], {**SIX[1], "params": {"alpha": 0.01}}])
    found = published_crops(run)
    assert found is not None
    assert found.error["A"] == {1: (0.235, 0.0755), 10: (0.226, 0.0692)}
    table = crops_table(run)
    assert table is not None
    texts = [[entry.text for entry in row] for row in table.rows]
    short = "published (Wan et al. 2018, Table 4)"
    assert texts == [
        ["B", "0", "25.00 [20.00, 30.00]", "5.00 [3.00, 8.00]", "25.00 [20.00, 30.00]", "n/a"],
        [f"B: {short}", "n/a", "22.70", "7.14", "21.90", "6.05"],
    ]
    assert "Table 4" in table.notes[0]


def test_other_folders_have_no_published_crops_and_other_runs_no_table():
    run = numbers("image_folder", SIX)
    assert published_crops(run) is None
    assert crops_table(run).notes == []
    run.run.results = {}
    assert crops_table(run) is None
