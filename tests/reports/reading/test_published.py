"""Published numbers: which tables belong to which run, and how they stand beside ours."""

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from robustloss.losses import LOSSES
from robustloss.reports.chapters.confidence.classes import crops_table
from robustloss.reports.chapters.detection.table import detection_table
from robustloss.reports.chapters.paper.error import _error_rows, error_table, introduce_paper
from robustloss.reports.drawing.table import markdown
from robustloss.reports.page.page import split_caption
from robustloss.reports.page.summary import MOST_LINES, summarise_run
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.published import _tables, published_crops, published_errors
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import Estimate
from robustloss.results.published import describe_published
from robustloss.results.run import Run

FGSM = AttackInfo("FGSM", "fgsm", "linf", (0.0, 0.1), "fgsm")
PGD = AttackInfo("PGD", "pgd", "linf", (0.1,), "pgd")
VGG = {"backbone": "vgg13_cifar", "feature_dim": 384}


def numbers(called: str, losses: list[dict], **spec: dict) -> Any:
    rows = [
        {"loss": "lgm", "label": "B", "seed": 0, "crops": crops, "n": 200,
         "top1_error": 0.25, "top1_low": 0.2, "top1_high": 0.3,
         "top5_error": 0.05 if crops == 1 else None, "top5_low": 0.03, "top5_high": 0.08}
        for crops in (1, 10)
    ]  # fmt: skip
    named: dict[str, Any] = {"name": called}
    if called == "ImageNet":
        names = [f"n{k:08d}" for k in range(1000)]
        named = {"name": "image_folder", "label": called, "class_names": names}
    return SimpleNamespace(
        run=SimpleNamespace(provenance={"data": named}, results={"crops": rows}),
        spec={"losses": losses, **spec},
        data=named,
        labels=[loss["label"] for loss in losses],
        attacks=[FGSM, PGD],
    )


SIX = [
    {"name": "softmax", "label": "A"},
    {"name": "lgm", "label": "B", "params": {"alpha": 0.3}},
    {"name": "lgm", "label": "C", "params": {"alpha": 0.7}},
    {"name": "lgm", "label": "C2", "params": {"alpha": 0.3, "likelihood_weight": 0.01}},
    {"name": "lgm", "label": "C3"},  # alpha 1
    {"name": "cosface", "label": "D"},
]


@pytest.mark.parametrize(
    ("augment", "softmax", "lgm"), [("none", 0.2561, 0.2380), ("crop_flip", 0.2160, 0.2076)]
)
def test_table_3_stands_with_its_own_augmentation(augment, softmax, lgm):
    run = numbers("cifar100", SIX, model=VGG, train={"augment": augment})
    (table,) = published_errors(run, FGSM)
    assert table.error == {"A": {0.0: softmax}, "B": {0.0: lgm}}
    assert {*table.quotes} == {"A", "B"}
    assert table.quotes["A"][0.0].startswith(f"{100 * softmax:.2f} ± 0.0")


def test_clean_errors_stand_with_the_first_attack_only():
    run = numbers("cifar100", SIX, model=VGG, train={"augment": "none"})
    assert published_errors(run, PGD) == []


def test_another_network_or_augmentation_is_not_the_papers():
    other = {"backbone": "resnet18_cifar", "feature_dim": 512}
    for model, augment in ((other, "none"), (VGG, "shift")):
        run = numbers("cifar100", SIX, model=model, train={"augment": augment})
        assert published_errors(run, FGSM) == []
    plain = {"model": VGG, "train": {"augment": "none"}}
    for data in ({"train_size": 5000}, {"class_fractions": [0.1] * 100}):
        assert published_errors(numbers("cifar100", SIX, **plain, data=data), FGSM) == []


def test_what_a_loss_overrides_decides_whether_it_is_the_papers():
    own = [SIX[0], {**SIX[1], "train": {"augment": "crop_flip"}}]
    run = numbers("cifar100", own, model=VGG, train={"augment": "none"})
    found = {table.short: table.error for table in published_errors(run, FGSM)}
    assert found == {
        "Wan et al. 2018, Table 3, C100": {"A": {0.0: 0.2561}},
        "Wan et al. 2018, Table 3, C100+": {"B": {0.0: 0.2076}},
    }


def test_a_parameter_that_is_left_out_has_the_published_value_only_where_that_is_our_default():
    run = numbers("mnist", [{"name": "l_softmax", "label": "E"}], model={"feature_dim": 100})
    assert published_errors(run, FGSM)[0].error == {"E": {0.0: 0.0031}}  # margin 4
    rows = [(table, row) for table in _tables() for row in table["rows"]]
    for table, row in rows:
        accepted = inspect.signature(LOSSES[row["loss"]]).parameters
        for key, value in row["params"].items():
            is_default = accepted[key].default == value
            assert (key in row.get("defaults", ())) == is_default, (table["short"], row)


def mnist(**data: object) -> Any:
    """A run of softmax and L-Softmax on MNIST with given clean errors and no attacked ones."""
    losses = [
        SIX[0],
        {"name": "l_softmax", "label": "E", "params": {"margin": 2}, "train": {"epochs": 4}},
    ]
    run = numbers("mnist", losses, model={"feature_dim": 100}, train={"epochs": 3})
    own = {"A": (0.006, 0.005, 0.008), "E": (0.1231, 0.1022, 0.1344)}
    run.error = lambda label, attack, eps: Estimate(*own[label], 2, (), None) if not eps else None
    run.flags_of = lambda *place: []
    run.get = lambda *place: None
    run.images, run.seeds = 1000, [0, 1]
    run.run.failures = run.run.flags = []
    run.data |= data
    return run


def test_published_value_and_difference_stand_below_ours():
    run = mnist()
    table = error_table(Scene(run, FGSM))
    texts = [[entry.text for entry in row] for row in table.rows]
    assert table.header == ["loss", "clean", "eps 0.1"]
    assert texts == [
        ["A", "0.60 [0.50, 0.80]", "n/a"],
        ["published (Wan et al. 2018, Table 6)", "0.68", "24.08"],
        ["difference", "−0.08", "–"],
        ["published (Liu et al. 2016)", "0.40", "–"],
        ["difference", "+0.20", "–"],
        ["E", "12.3 [10.2, 13.4]", "n/a"],
        ["published (Liu et al. 2016)", "0.32", "–"],
        ["difference", "+12.0", "–"],
    ]
    bold = [row[1].text for row in table.rows if row[1].kind == "top"]
    assert bold == ["+0.20", "+12.0"]  # the published value lies outside our interval
    assert "| *published (Liu et al. 2016)* | *0.40* | – |" in markdown(table)
    assert split_caption(table.caption)[0] == (
        "Error in percent on 1,000 test images, mean over 2 training seeds."
    )
    assert [note.count("Liu et al.,") for note in table.notes] == [0, 1]
    tables = published_errors(run, FGSM)
    data = {r["eps"]: (r["published_error"], r["published_source"])
            for r in _error_rows(Scene(run, FGSM), "A", tables[::-1])}  # fmt: skip
    assert data == {0.0: (0.0040, "Liu et al. 2016"), 0.1: (0.2408, "Wan et al. 2018, Table 6")}


def test_seeds_have_a_column_where_they_differ():
    run = mnist()
    own = {"A": 2, "E": 1}
    run.error = lambda label, *_: Estimate(0.5, 0.4, 0.6, own[label], (), None)
    table = error_table(Scene(run, FGSM))
    assert table.header[:2] == ["loss", "seeds"]
    assert [row[1].text for row in table.rows if row[0].text in own] == ["2", "1"]
    assert "mean over" not in table.caption


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train": 6000, "test": 1000},
         "Trained on 6,000 of 60,000 images for 3–4 epochs, tested on 1,000 of 10,000; Wan et "
         "al. 2018 used all of them. "),
        ({"train": 55_000, "test": 10_000},
         "Trained on 55,000 of 60,000 images for 3–4 epochs, tested on all 10,000; Wan et al. "
         "2018 used all of them. "),
        ({"train": 60_000, "test": 10_000}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_the_chapter_begins_with_how_much_smaller_the_run_is(data, said):
    outside = "2 of 3 published values lie outside our 95 % intervals."
    assert introduce_paper(mnist(**data)) == said + outside


def test_where_nothing_matches_the_chapter_says_so_in_one_sentence():
    assert introduce_paper(mnist(name="digits", train=997, test=500)) == (
        "Wan et al. (CVPR 2018) give no numbers for these data and losses; the table and figures "
        "have the form of theirs."
    )


def test_some_classes_of_a_data_set_are_not_the_papers_data():
    run = mnist()
    run.spec["data"] = {"classes": [0, 1, 2]}
    assert published_errors(run, FGSM) == []


def test_mnist_has_the_rows_of_both_papers():
    losses = [*SIX[:1], {"name": "l_softmax", "label": "E", "params": {"margin": 3}}]
    run = numbers("mnist", losses, model={"feature_dim": 100})
    found = {table.short: table for table in published_errors(run, FGSM)}
    assert list(found) == ["Wan et al. 2018, Table 6", "Liu et al. 2016"]
    assert found["Liu et al. 2016"].error == {"A": {0.0: 0.0040}, "E": {0.0: 0.0031}}
    assert "Another network" in found["Liu et al. 2016"].caveat
    plane = numbers("mnist", losses, model={"feature_dim": 2})
    assert [t.short for t in published_errors(plane, FGSM)] == ["Wan et al. 2018, Table 6"]


def test_a_loss_trained_on_attacked_images_is_not_the_papers():
    attacked = {"adversarial": {"attack": "pgd"}}
    assert published_errors(numbers("mnist", SIX[:1], train=attacked), FGSM) == []
    both = [{**SIX[0], "train": attacked}, {**SIX[5], "name": "center"}]
    (table,) = published_errors(numbers("mnist", both), FGSM)
    assert list(table.error) == ["D"]


def test_table_4_stands_below_crops_of_imagenet():
    run = numbers("ImageNet", [SIX[0], {**SIX[1], "params": {"alpha": 0.01}}])
    found = published_crops(run)
    assert found is not None
    assert found.error["A"] == {1: (0.235, 0.0755), 10: (0.226, 0.0692)}
    table = crops_table(run)
    assert table is not None
    texts = [[entry.text for entry in row] for row in table.rows]
    assert texts == [
        ["B", "0", "25.0 [20.0, 30.0]", "5.00 [3.00, 8.00]", "25.0 [20.0, 30.0]", "n/a"],
        ["published", "n/a", "22.70 ± 0.20", "7.14 ± 0.08", "21.90 ± 0.10", "6.05 ± 0.03"],
    ]
    assert table.notes[0].startswith("Published: Wan et al., ")
    assert "Table 4. All 3 published values lie within our 95 % intervals." in table.notes[0]


def test_other_folders_have_no_published_crops_and_other_runs_no_table():
    run = numbers("image_folder", SIX)
    assert published_crops(run) is None
    assert crops_table(run).notes == []
    run.run.results = {}
    assert crops_table(run) is None


def test_another_folder_that_kept_the_label_is_not_imagenet():
    run = numbers("ImageNet", [SIX[0]])
    assert published_crops(run) is not None
    run.run.provenance["data"]["class_names"] = ["ant", "bee"]
    assert published_crops(run) is None


LGM = "L-GM (alpha 1)"
OWN = {
    "source": "Doe et al. 2030, Table 2",
    "short": "Doe et al. 2030",
    "caveat": "",
    "rows": [
        {"label": label, "attack_label": attack, "eps": eps, "error": error, "low": low,
         "high": high, "auroc": auroc}
        for label, attack, eps, error, low, high, auroc in (
            (LGM, "none", 0.0, 0.0039, None, None, None),
            (LGM, "FGSM", 0.1, 0.2363, 0.228, 0.244, 0.91),
            ("ArcFace", "FGSM", 0.1, 0.5, None, None, None),
        )
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def with_table(run):
    """The rendered run as one whose spec named a published table."""
    provenance = {**run.provenance, "published": [OWN]}
    return Numbers(Run(run.path, {**run.results, "provenance": provenance}))


def test_a_table_of_ones_own_stands_below_error_and_auroc(with_table):
    scene = Scene(with_table, with_table.attacks[0])
    rows = [[entry.text for entry in row] for row in error_table(scene).rows]
    place = next(i for i, row in enumerate(rows) if row[0] == LGM)
    assert rows[place + 1][0] == "published (Doe et al. 2030)"  # Wan et al. have rows there too
    assert [text for text in rows[place + 1] if text != "–"][1:] == ["0.39", "23.63 [22.80, 24.40]"]
    found = detection_table(scene)
    quoted = [[e.text for e in row] for row in found.rows if row[0].kind == "published"]
    assert quoted == [["published", "0.1", "0.910", *["–"] * (len(found.header) - 3)]]
    assert [r["published_auroc"] for r in found.data if r["label"] == LGM] == [0.91, None]
    assert found.notes[-1].startswith("Published: Doe et al. 2030, Table 2.")


def test_what_is_not_in_the_run_is_told_on_the_page_and_in_the_terminal(with_table):
    absent = "Not in this run: ArcFace, FGSM eps 0.1."
    words = introduce_paper(with_table)
    assert words.endswith(absent)
    first, clean, attacked, last = describe_published(with_table.run.results)
    assert first.startswith("Published, Doe et al. 2030, Table 2;")
    assert clean.startswith(f"  {LGM}, clean: error 0.39 % (")
    assert attacked.startswith(f"  {LGM}, FGSM eps 0.1: error 23.63 [22.80, 24.40] % (")
    assert "; AUROC 0.910 (" in attacked
    assert last == f"  {absent}"
    many = {**OWN, "rows": [OWN["rows"][0]] * 50}
    results = with_table.run.results
    long = {**results, "provenance": {**with_table.run.provenance, "published": [many]}}
    assert describe_published(long)[-1] == "  and 30 more in the report"
    summary = summarise_run(with_table, "It is so.", [])
    assert f"- {LGM}, clean: error 0.39 % (" in summary
    assert len(summary.splitlines()) <= MOST_LINES


def test_an_entry_of_robustbench_stands_with_its_own_training_only():
    attack = AttackInfo("AutoAttack", "autoattack", "linf", (8 / 255,), "autoattack")
    losses = [{"name": "mmc", "label": "M"}, {"name": "softmax", "label": "S"}]
    pgd = {"attack": "pgd", "norm": "linf", "eps": 8 / 255, "steps": 7}
    run = numbers("cifar10", losses, train={"adversarial": pgd})
    found = {table.short: table.error for table in published_errors(run, attack)}
    assert found == {
        "RobustBench, Madry2018Towards": {"S": {0.0: 0.1286, 8 / 255: 0.5596}},
        "RobustBench, Pang2020Rethinking": {"M": {0.0: 0.1911, 8 / 255: 0.5652}},
    }
    plain = numbers("cifar10", losses, train={})
    assert [t.short for t in published_errors(plain, attack)] == ["RobustBench, Standard"]
