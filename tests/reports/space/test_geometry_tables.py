"""Tables of the feature space, cell by cell, of rows that one can work out by hand."""

import re
from types import SimpleNamespace
from typing import cast

import pytest

from robustloss.reports.drawing.table import Table, latex, markdown
from robustloss.reports.page.run_facts import list_facts, list_provenance, measure_run
from robustloss.reports.reading.facts import class_key
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import published_errors
from robustloss.reports.words import few
from robustloss.results.run import Run
from tests.reports import synthetic_geometry_tables as hand
from tests.reports.drawing.test_tables import EVIL
from tests.reports.markup import Page
from tests.reports.tables import make_tables


def tables(run: Run, classes: int = 3) -> dict[str, Table]:
    return {table.name: table for table in make_tables(Numbers(run, classes))}


def texts(table: Table) -> list[list[str]]:
    return [[entry.text for entry in row] for row in table.rows]


def test_geometry_of_one_seed() -> None:
    found = tables(hand.run(geometry=[hand.geometry("softmax")]))["geometry-test"]
    assert list(found.header) == [
        "loss", "between ÷ within", "Fisher ratio", "angle within", "angle between",
        "within class", "between classes", "nearest two", "norm",
    ]  # fmt: skip
    assert texts(found) == [
        ["softmax", "4.50", "12.5", "4.0°", "90.0° (least 60.2°)", "2.00", "9.00",
         "5.00 (zero, two)", "10.0 (8 to 12)"],
    ]  # fmt: skip


def test_geometry_over_seeds_has_the_mean_of_ratios_and_says_when_pairs_vary() -> None:
    rows = [
        hand.geometry("softmax"),
        hand.geometry("softmax", seed=1, within_distance=3.0, nearest_b=1),
    ]
    found = texts(tables(hand.run(geometry=rows))["geometry-test"])[0]
    # t(0.975, 1) = 12.706: 2 and 3 give 2.5 and 6.35 to either side, cut at 0
    assert found[5] == "2.50 [0.00, 8.85]"
    assert found[6] == "9.00"  # both seeds agree: no interval of no width
    assert found[7] == "5.00 (varies)"
    assert found[1].startswith("3.75 ")  # mean of 4.5 and 3, not 9 / 2.5


def test_one_class_alone_has_no_distance_to_another() -> None:
    nothing = dict.fromkeys(
        ("between_distance", "between_distance_min", "nearest_a", "nearest_b",
         "between_angle_deg", "between_angle_min_deg", "fisher_ratio")
    )  # fmt: skip
    rows = [hand.geometry("softmax", **nothing), hand.geometry("center")]
    found = texts(tables(hand.run(("softmax", "center"), geometry=rows))["geometry-test"])
    assert found[0] == [
        "softmax", "n/a", "n/a", "4.0°", "n/a", "2.00", "n/a", "n/a", "10.0 (8 to 12)"
    ]  # fmt: skip


def test_gradient_columns_stand_in_the_training_table_only() -> None:
    rows = [
        hand.geometry("softmax"),
        hand.geometry("softmax", "train", gradient_norm_mean=0.25,
                      gradient_norm_correlation=-0.5),
    ]  # fmt: skip
    found = tables(hand.run(geometry=rows))
    assert texts(found["geometry-train"])[0][5:7] == ["0.250", "−0.500"]
    assert "gradient" not in found["geometry-test"].header
    assert "geometry-untrained" not in found


def test_margins_of_a_margin_loss_of_softmax_and_of_a_pair_loss() -> None:
    rows = [
        hand.margin("softmax", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        hand.margin("gm", (0.5, 0.375, 0.625), (0.5, 0.37, 0.63)),
        hand.margin("gm", (0.5, 0.25, 0.75), (0.5, 0.25, 0.75), class_b=2, length=8.0),
        hand.margin("triplet", (0.4, None, None)),
    ]
    found = tables(hand.run(("softmax", "gm", "triplet"), margins=rows))["margins"]
    assert texts(found) == [
        ["softmax", "zero, one", "4", "0.500", "0.500", "0.500", "no margin", "no margin", "0.0 %",
         "0.0 %", "1", "0.0e+00"],
        # the second pair: a margin of 2 on a length of 8
        ["GM", "zero, one", "4", "0.500", "0.375", "0.625", "1", "1.04", "25.0 %", "25.0 %", "2",
         "5.0e−03"],
        ["Triplet", "zero, one", "4", "0.400", "n/a", "n/a", "n/a", "n/a", "n/a", "n/a",
         "1 (0 with both)", "n/a"],
    ]  # fmt: skip


def test_per_class_has_wilson_and_both_kinds_of_mistakes() -> None:
    rows = [hand.by_class("softmax", 0, 5, 2), hand.by_class("softmax", 1, 0, 3)]
    found = tables(hand.run(per_class=rows))["per-class"]
    assert texts(found) == [
        ["softmax", "zero", "100", "5.00 [2.00, 11.00]", "5", "2", "2.000"],
        ["softmax", "one", "100", "0.00 [2.00, 11.00]", "0", "3", "3.000"],
    ]


def test_of_many_classes_the_twenty_worst_are_shown_and_all_kept() -> None:
    rows = [hand.by_class("softmax", k, k, 0) for k in range(25)]
    rows.append(hand.by_class("softmax", 25, 0, 0, error=None, error_low=None, error_high=None))
    data = {"class_names": [f"c{k}" for k in range(26)]}
    found = tables(hand.run(data=data, per_class=rows), 26)["per-class"]
    assert [line[1] for line in texts(found)] == [f"c{k}" for k in range(5, 25)]
    assert len(found.data) == 26
    assert "the 20 classes with the highest error" in found.caption


@pytest.mark.parametrize(("counts", "told"), [((100, 150, 100), False), ((100, 151, 100), True)])
def test_balanced_error_from_one_and_a_half_on(counts: tuple[int, ...], told: bool) -> None:
    run = hand.run(
        data={"class_counts": list(counts)}, rows=[hand.row("softmax", balanced_error=0.125)]
    )
    found = tables(run)
    assert ("balanced" in found) == told
    if told:
        assert texts(found["balanced"]) == [["softmax", "clean", "10.0", "12.5", "+2.50"]]


def test_class_means_are_in_units_of_the_spread() -> None:
    rows = [hand.estimates("softmax"), hand.estimates("center", centers_error=0.1)]
    found = tables(hand.run(("softmax", "center"), center_estimates=rows))["class-means"]
    assert texts(found) == [
        ["softmax", "128", "12.8", "2.00", "0.250", "0.300", "n/a"],
        ["Center", "128", "12.8", "2.00", "0.250", "0.300", "0.0500"],
    ]
    assert "averages batches into its centers" in found.caption


def test_tuples_of_first_and_last_epoch_and_their_share_of_the_time() -> None:
    run = hand.run(
        ("softmax", "triplet"),
        training=[hand.log("softmax"), hand.log("triplet", curve=hand.tuples(900, 30, 1.5))],
    )
    assert texts(tables(run)["tuples"]) == [["Triplet", "900", "30.0", "10.0 %"]]
    run.results["training"][1]["curve"] = hand.tuples(900, 30, None)  # not timed on a GPU
    assert texts(tables(run)["tuples"]) == [["Triplet", "900", "30.0"]]


def test_the_training_table_holds_the_largest_gpu_memory_of_a_loss() -> None:
    run = hand.run(
        ("softmax", "gm"),
        training=[
            hand.log("softmax", peak_bytes=3 * 2**20),
            hand.log("softmax", peak_bytes=7 * 2**20),
            hand.log("gm", peak_bytes=None),  # on a CPU
        ],
    )
    found = tables(run)["training"]
    place = list(found.header).index("GPU memory")
    assert [row[place] for row in texts(found)] == ["7 MiB", "n/a"]
    assert [row["peak_bytes"] for row in found.data] == [3 * 2**20, 7 * 2**20, None]


def test_the_key_of_the_classes_says_names_only_where_there_are_some() -> None:
    def key(names: list[str], classes: int = 2) -> str:
        found = SimpleNamespace(data={"class_names": names}, classes=classes)
        return class_key(cast("Numbers", found))

    assert key(["airplane", "bird"]) == "Classes: 0 airplane, 1 bird. "
    assert key(["d\udcffg", "cat"]) == "Classes: 0 d?g, 1 cat. "  # a folder name that is not UTF-8
    assert key(["0", "1"]) == key([]) == ""
    assert key([f"kind {k}" for k in range(100)], 100) == ""  # a colour bar; no list of so many


def test_an_older_run_has_none_of_them() -> None:
    run = hand.run(("softmax", "triplet"), data={"class_names": []})
    for log in run.results["training"]:
        del log["note"]
    assert set(tables(run)) == {"losses", "training", "seeds"}


def test_a_note_is_a_footnote_of_every_table_with_that_loss_and_of_no_other() -> None:
    run = hand.run(
        ("softmax", "gm"),
        training=[hand.log("softmax"), hand.log("gm", note="lambda from 1000 to 0.000687")],
        margins=[hand.margin("softmax", (0.5, 0.5, 0.5))],
        geometry=[hand.geometry("softmax"), hand.geometry("gm")],
    )
    found = tables(run)
    note = "GM: lambda from 1000 to 0.000687."
    for name in ("training", "seeds", "geometry-test"):
        assert list(found[name].notes).count(note) == 1
        assert latex(found[name]).count("0.000687") == 1
    assert note not in found["margins"].notes


def test_lemma_1_is_stated_with_its_conditions() -> None:
    rows = [hand.geometry("center"), hand.geometry("gm")]
    (note,) = tables(hand.run(("center", "gm"), geometry=rows))["geometry-test"].notes
    assert "identity covariance and uniform priors" in note
    assert "½ D log 2π per image" in note
    assert not tables(hand.run(("gm",), geometry=rows[1:]))["geometry-test"].notes


def test_class_names_are_no_markup() -> None:
    data = {"class_names": [EVIL, "one", "two"]}
    found = tables(
        hand.run(
            data=data,
            geometry=[hand.geometry("softmax")],
            margins=[hand.margin("softmax", (0.5, 0.4, 0.6))],
            per_class=[hand.by_class("softmax", 0, 5, 2)],
        )
    )
    for name in ("geometry-test", "margins", "per-class"):
        for text in (markdown(found[name]), latex(found[name])):
            assert "<b>" not in text
            assert "\\input{" not in text


JPEG = {
    "name": "cifar10", "label": "CIFAR-10 (JPEG)", "checksum": "01be",
    "summary": "read from JPEG files, 32x32 pixels",
    "converted": {"count": 12, "files": ["a.png", "b.png", "c.png", "d.png"]},
}  # fmt: skip


def test_data_go_by_their_label_with_what_is_remarkable_about_them() -> None:
    numbers = Numbers(hand.run(data=JPEG), 3)
    assert " · CIFAR-10 (JPEG) · 200 test images · " in measure_run(numbers)
    facts = dict(list_facts(numbers))
    assert facts["Data"] == "CIFAR-10 (JPEG): 200 test images"
    assert facts["About the data"] == "read from JPEG files, 32x32 pixels"
    converted = "12 images to the channels of the others: a.png, b.png, c.png and others"
    assert facts["Converted"] == converted
    told = dict(list_provenance(numbers))
    assert told["Data"] == "CIFAR-10 (JPEG) (cifar10), checksum 01be"
    plain = dict(list_facts(Numbers(hand.run(), 3)))
    assert plain["Data"] == "mnist: 200 test images"
    assert not plain.keys() & {"About the data", "Converted"}


def test_the_machine_is_told_without_what_else_a_run_notes(run: Run) -> None:
    known = run.provenance | {"transfers": [{"seed": 0}], "published": ["own.json"], "cores": 2}
    numbers = Numbers(Run(run.path, run.results | {"provenance": known}), 10)
    machine = dict(list_provenance(numbers))["Machine"]
    assert re.match(r"platform \S+, device cpu.*, cores 2, precision .*, threads 2$", machine)


def test_published_numbers_go_by_the_name_of_the_data(run: Run) -> None:
    def matched(**data: str) -> int:
        known = run.provenance | {"data": run.provenance["data"] | data}
        numbers = Numbers(Run(run.path, run.results | {"provenance": known}), 10)
        return len(published_errors(numbers, numbers.attacks[0]))

    assert matched(label="digits of a friend") == matched() > 0
    assert matched(name="digits", label="mnist") == 0


def test_a_remark_stands_once_under_every_table_of_errors() -> None:
    found = tables(hand.run(data=JPEG, per_class=[hand.by_class("softmax", 0, 5, 2)]))
    note = "Data: read from JPEG files, 32x32 pixels."
    assert list(found["per-class"].notes).count(note) == 1
    assert list(found["seeds"].notes).count(note) == 1
    assert note not in found["training"].notes


def test_the_loss_stays_in_sight_wherever_its_column_is(html: str) -> None:
    table = html[html.index('id="radius-linf"') :]
    assert '<th scope="col" class="text">attack</th>' in table
    assert '<th scope="col" class="text key">loss</th>' in table
    assert '<td class="text key">softmax</td>' in table
    error = html[html.index('id="error-fgsm"') : html.index('id="radius-linf"')]
    assert '<th scope="row" class="text first key short">softmax</th>' in error
    assert Page(html).ids.count("radius-linf") == 1


def test_many_names_are_cut_to_five_places() -> None:
    assert few([]) == ""
    assert few(list("abcde")) == "a, b, c, d and e"
    assert few(list("abcdefg")) == "a, b, c, d and 3 others"
