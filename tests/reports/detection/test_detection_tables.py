"""Tables and figures of detection rows, against rows written by hand."""

from pathlib import Path

import pytest

from robustloss.reports.chapters.detection.curves import plot_areas
from robustloss.reports.chapters.detection.outside import likelihood_tables, score_tables
from robustloss.reports.chapters.detection.scores import (
    plot_score_curves,
    plot_score_heat,
    short_area,
)
from robustloss.reports.chapters.detection.table import (
    detection_table,
    populations_table,
    scores_table,
)
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import report_style
from robustloss.reports.drawing.table import Table
from robustloss.reports.reading.detected import in_order
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene
from robustloss.results.run import Run
from tests.reports.synthetic_detection import POPULATIONS, SCORES, detected_numbers, detected_run

LIKELIHOOD = "class_log_likelihood"


def texts(table: Table) -> list[list[str]]:
    return [[entry.text for entry in row] for row in table.rows]


def test_each_population_has_its_row_with_n_and_interval() -> None:
    numbers = detected_numbers(seeds=(0,))
    table = populations_table(Scene(numbers, numbers.attacks[0]))
    assert table is not None
    rows = {tuple(r[:3]): r[3:] for r in texts(table)}
    assert len(rows) == 2 * 2 * len(POPULATIONS)
    assert rows[("softmax", "0.3", "attack failed")] == [
        "100", "0.800 [0.770, 0.820]", "12.0", "40.0", "60.0", "30.0",
    ]  # fmt: skip
    # nothing succeeded at 0.1: n/a and n 0, not an AUROC of 0
    assert rows[("GM", "0.1", "attack successful")] == ["0", *["n/a"] * 5]
    assert len({d["undetected_success_at_1fpr"] for d in table.data}) == 2  # 0.04, and no number


def test_over_seeds_the_interval_is_that_of_the_seeds() -> None:
    numbers = detected_numbers()
    found = numbers.detected.get("GM", "FGSM", 0.3, LIKELIHOOD, "all")
    assert found is not None
    assert found.values == (0.9, 0.91)
    assert found.interval == "t over seeds"
    assert found.mean == pytest.approx(0.905)
    assert numbers.detected.count("GM", "FGSM", 0.3, LIKELIHOOD, "all") == 200


def test_noise_stands_beside_the_attack_in_the_table_of_detection() -> None:
    numbers = detected_numbers(seeds=(0,))
    table = detection_table(Scene(numbers, numbers.attacks[0]))
    # this run has no other number: columns of n/a stand in the file alone
    assert list(table.header) == ["loss", "eps", "AUROC, noise control"]
    assert {row[2] for row in texts(table)} == {"0.550 [0.520, 0.570]"}
    assert {"auroc_all", "auroc_successful", "undetected_success_at_5fpr"} <= set(table.data[0])
    # what the page leaves out stands in the file
    assert table.data[0]["undetected_success_at_1fpr"] == 0.04
    assert {"n_successful", "tpr_at_1fpr", "tpr_at_5fpr", "tpr_at_5fpr_successful"} <= set(
        table.data[0]
    )


def test_an_attack_that_stops_at_the_first_error_is_told_with_its_detection() -> None:
    numbers = detected_numbers()
    attack = numbers.attacks[0]

    def told() -> bool:
        return any("keep = first" in note for note in detection_table(Scene(numbers, attack)).notes)

    assert not told()
    numbers.spec["attacks"] = [{"label": attack.label, "params": {"keep": "first"}}]
    assert told()
    numbers.spec["attacks"] = [{"label": "other", "params": {"keep": "first"}}]
    assert not told()


def test_runs_without_controls_have_no_such_column_and_table() -> None:
    run = detected_run()
    for row in run.results["detection"]:
        row.pop("auroc_low"), row.pop("auroc_high"), row.pop("equal_error_rate")
    run.results["detection"] = [
        row for row in run.detection if row["population"] in ("all", "successful")
    ]
    old = {k: v for k, v in run.results.items() if k != "out_of_distribution"}
    numbers = Numbers(Run(Path("nowhere"), old), 10)
    attack = numbers.attacks[0]
    table = populations_table(Scene(numbers, attack))
    assert {row[2] for row in texts(table)} == {"all attacked images", "attack successful"}
    assert "equal error rate" not in table.header
    assert "AUROC, noise control" not in detection_table(Scene(numbers, attack)).header
    assert likelihood_tables(numbers) == score_tables(numbers) == []


def test_a_score_that_a_loss_does_not_have_has_no_row() -> None:
    numbers = detected_numbers()
    table = scores_table(Scene(numbers, numbers.attacks[0]))
    assert table is not None
    rows = [r[:2] for r in texts(table)]
    assert ["GM", "marginal likelihood"] in rows
    assert ["softmax", "marginal likelihood"] not in rows
    assert rows[2] == ["softmax", "my.module:odd score"]


def test_a_score_stands_beside_its_own_attack_or_is_called_not_attacked(tmp_path: Path) -> None:
    run = detected_run(seeds=(0,))
    aware = [
        row | {"attack": "adaptive_joint", "attack_label": label, "adapted": row["score"] == "knn",
               "auroc": row["auroc"] and row["auroc"] - less}
        for label, less in (("joint", 0.5), ("longer", 0.6))
        for row in run.detection if row["eps"] == 0.1
    ]  # fmt: skip
    numbers = Numbers(Run(Path("nowhere"), run.results | {"detection": run.detection + aware}), 10)
    assert numbers.detected.attacked == ["knn"]
    scene = Scene(numbers, numbers.attacks[0])
    table = scores_table(scene)
    assert table is not None
    assert table.header[-1] == "its own attack, eps 0.1"  # the largest that has one
    own = {(row[1], row[-1]) for row in texts(table)}
    naive = numbers.detected.get("GM", "FGSM", 0.1, "knn", "all")
    assert naive is not None
    lowest = f"{naive.mean - 0.6:.3f} "
    assert {text for score, text in own if score != "nearest neighbours"} == {"not attacked"}
    assert all(text.startswith(lowest) for score, text in own if score == "nearest neighbours")
    assert any(note.startswith("Not attacked:") for note in detection_table(scene).notes)
    album = Album(tmp_path, formats=())
    with report_style():
        album.add(plot_score_heat(scene))
    spared = "log-likelihood, marginal likelihood, my.module:odd score"
    assert f"Not attacked by an adaptive attack: {spared}." in album.pictures[0].caption
    assert "judged under the adaptive attack that aims at it" in album.pictures[0].caption
    heat = (tmp_path / "scores-heat-fgsm.csv").read_text().splitlines()
    assert f"0.1,own attack,GM,knn,{naive.mean - 0.6}," in "\n".join(heat)
    drawn = album.pictures[0].alt
    assert "eps 0.1: each score under an attack on it: softmax best with nearest" in drawn
    assert "attack successful" not in drawn


def test_outside_sets_are_columns() -> None:
    numbers = detected_numbers(seeds=(0,))
    (lean,), (every,) = likelihood_tables(numbers), score_tables(numbers)
    assert list(lean.header) == ["loss", "score", "fashion: AUROC", "fashion: caught",
                                 "noise: AUROC", "noise: caught"]  # fmt: skip
    assert texts(lean)[0] == ["softmax", "log-likelihood", *["0.900 [0.870, 0.920]", "70.0"] * 2]
    assert "fashion (Fashion-MNIST), 50 images" in lean.caption
    assert len(every.rows) == 3 + 4
    assert {d["n_outside"] for d in every.data} == {50}


def test_scores_stand_in_one_order_plug_ins_last() -> None:
    assert in_order(reversed(SCORES)) == [
        "class_log_likelihood", "marginal_log_likelihood", "knn", "my.module:odd_score",
    ]  # fmt: skip


def test_an_area_below_one_never_reads_as_one() -> None:
    assert [short_area(v) for v in (0.5, 0.9994, 0.9996, 1.0, 0.0)] == [
        ".500", ".999", ">.999", "1", ".000",
    ]  # fmt: skip


def test_figures_of_scores_hold_the_numbers_of_the_rows(tmp_path: Path) -> None:
    numbers, album = detected_numbers(), Album(tmp_path, formats=())
    scene = Scene(numbers, numbers.attacks[0])
    with report_style():
        album.add(plot_score_curves(scene))
        album.add(plot_score_heat(scene))
    assert [p.name for p in album.pictures] == ["scores-vs-eps-fgsm", "scores-heat-fgsm"]
    curves, heat = ((tmp_path / f"{p.name}.csv").read_text() for p in album.pictures)
    assert "nearest neighbours,GM,0.3,0.855" in curves  # 0.95 - 2 x 0.05 + 0.005
    assert "nearest neighbours,GM,0.1,," in curves  # a gap where nothing succeeded
    assert "0.3,noise,GM,class_log_likelihood,0.555" in heat
    assert "softmax,marginal_log_likelihood,," in heat
    assert "The CSV has the other populations too" in album.pictures[1].caption
    assert "noise" not in album.pictures[1].alt  # drawn are all and successful attacks
    assert "successful: softmax best with log-likelihood 0.955, GM" in album.pictures[1].alt


def test_every_eps_begins_a_row_of_the_heat_table(tmp_path: Path) -> None:
    run = detected_run()
    run.results["detection"] = [r for r in run.detection if r["population"] != "noise"]
    numbers = Numbers(run, 10)
    with report_style():
        Album(tmp_path, formats=()).add(plot_score_heat(Scene(numbers, numbers.attacks[0])))
    drawing = (tmp_path / "scores-heat-fgsm.csv").read_text()
    assert "noise" not in drawing
    assert drawing.count("0.3,failed,") == 2 * len(SCORES)


def drawn(numbers: Numbers, folder: Path) -> tuple[Album, set[str]]:
    album = Album(folder, formats=())
    with report_style():
        album.add(plot_areas(Scene(numbers, numbers.attacks[0])))
    return album, set((folder / "detection-vs-eps-fgsm.csv").read_text().splitlines())


@pytest.mark.parametrize("losses", [("softmax", "gm"), tuple(f"loss {i}" for i in range(9))])
def test_curves_of_the_attack_and_of_noise_stand_in_one_figure(
    tmp_path: Path, losses: tuple[str, ...]
) -> None:
    numbers = Numbers(detected_run(losses, seeds=(0,)), 10)
    album, lines = drawn(numbers, tmp_path)
    last = numbers.labels[-1]
    (picture,) = album.pictures
    # the numbers are the same whether a frame shows a loss or, of a crowd, a population
    assert len(lines) == 1 + len(losses) * 3 * 2
    assert f'"AUROC, all attacked images",{last},0.1,0.9,0.87,0.92' in lines
    assert f'"AUROC, successful attacks",{last},0.1,,,' in lines  # none succeeded
    assert any(line.startswith(f'"AUROC, noise control",{last},0.3,0.55,') for line in lines)
    wanted = f"{last}: all attacked images 0.900, successful attacks 0.950, noise control 0.550"
    assert wanted in picture.alt
    assert "Noise control: random noise as large" in picture.caption
    assert ("Bands" in picture.caption) == (len(losses) == 2)


def test_curves_of_a_run_without_noise_do_not_speak_of_it(tmp_path: Path) -> None:
    run = detected_run()
    run.results["detection"] = [r for r in run.detection if r["population"] != "noise"]
    album, lines = drawn(Numbers(run, 10), tmp_path)
    assert not any("noise" in line for line in lines)
    assert "oise" not in album.pictures[0].caption + album.pictures[0].alt
