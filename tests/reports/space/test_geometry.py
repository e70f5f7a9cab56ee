"""The feature space in the report: figures and tables say what the run's files say."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustloss.reports.chapters.run.learning import _is_late
from robustloss.reports.chapters.space.embedding import same_start
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.page.notes import annotate, shows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown
from robustloss.results.run import Run, load_run
from tests.drawing import build_report
from tests.reports.markup import Page
from tests.reports.synthetic import write_run
from tests.reports.tables import make_tables
from tests.reports.world import MANY, Layout, Mock, MockAttack

CHOSEN = ("softmax", "center", "L-GM (alpha 1)", "Weighted softmax", "L-Softmax (m 2)",
          "L-Softmax (m 4)", "CosFace (s 30, m 0.15)", "Triplet (semi-hard)")  # fmt: skip
PLAIN = Layout(
    mocks=[m for m in MANY if m.label in CHOSEN], seeds=(0,), n=200, grid=40, geometry=True,
    attacks=(MockAttack(eps=(0.1, 0.2, 0.3)),),
)  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-D run with eight losses that explains itself, rendered."""
    path = write_run(tmp_path_factory.mktemp("runs") / "told", PLAIN)
    build_report(path)
    return path


@pytest.fixture(scope="module")
def numbers(told: Path) -> Numbers:
    return Numbers(load_run(told), 10)


@pytest.fixture(scope="module")
def tables(numbers: Numbers) -> dict[str, Table]:
    return {table.name: table for table in make_tables(numbers)}


def arrays(run: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(run / "report/figures" / f"{name}.npz") as found:
        return dict(found)


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_chapter_has_figures_of_the_paper_and_the_rest_under_details(told: Path) -> None:
    page = Page((told / "report/index.html").read_text(encoding="utf-8"))
    order = [page.ids.index(k) for k in (
        "error-vs-eps", "detection-vs-eps-fgsm", "space", "embedding", "alpha", "boundaries",
        "feature-space", "trust", "details", "geometry-test", "margins",
    )]  # fmt: skip
    assert order == sorted(order)
    assert len(page.ids) == len(set(page.ids))
    html = (told / "report/index.html").read_text(encoding="utf-8")
    paper = [re.sub("<[^>]+>", "", each) for each in re.findall(r"<h3>.*?</h3>", html)]
    paper = [text for text in paper if text.startswith("Figure")]
    assert "Figure 1. Where do the classes lie?" in paper
    assert "Figure 2. How does alpha widen the margin?" in paper  # as in the paper, not boundaries
    details = Page((told / "report/details.html").read_text(encoding="utf-8"))
    assert {"untrained", "confusion-clean", "confusion-fgsm", "norms",
            "center-estimates"} <= set(details.ids)  # fmt: skip


def test_an_older_run_renders_without(rendered: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(rendered, tmp_path / "old"))
    results = json.loads((old / "results.json").read_text(encoding="utf-8"))
    for key in ("per_class", "geometry", "margins", "center_estimates"):
        del results[key]
    (old / "results.json").write_text(json.dumps(results), encoding="utf-8")
    build_report(old)
    page = Page((old / "report/index.html").read_text(encoding="utf-8"))
    assert "embedding" in page.ids
    for name in ("untrained", "boundaries", "norms", "margins", "geometry-test", "per-class"):
        assert name not in page.ids


def test_embedding_shows_training_and_test_images_and_vectors(told: Path) -> None:
    found = arrays(told, "embedding")
    run = load_run(told)
    for cell in run.cells:
        stored = cell.reference()
        assert (found[f"{cell.slug}:train_points"] == stored["train_features"]).all()
        assert (found[f"{cell.slug}:points"] == cell.record().features).all()
        kind = "rays" if cell.loss in ("softmax", "weighted_softmax", "l_softmax", "cosface") else (
            "centers")  # fmt: skip
        assert found[f"{cell.slug}:{kind}"].shape[0] == 10
        assert f"{cell.slug}:{'centers' if kind == 'rays' else 'rays'}" not in found
    rays, weights = found["softmax:rays"], run.cells[0].reference()["class_vectors"]
    ends = rays[:, 1] / np.linalg.norm(rays[:, 1], axis=1, keepdims=True)
    assert ends == pytest.approx(weights / np.linalg.norm(weights, axis=1, keepdims=True), abs=1e-6)
    assert (rays[:, 0] == 0).all()


def test_equal_starts_are_checked_bit_for_bit(told: Path) -> None:
    shown = Shown(load_run(told))
    labels = [mock.label for mock in PLAIN.mocks]
    assert same_start(shown, labels) == [labels]
    known = shown.space("center")
    assert not isinstance(known, str)
    assert known.untrained is not None
    shown._known["center", "feature space"] = replace(
        known, untrained=np.nextafter(known.untrained, 9)
    )
    apart = same_start(shown, labels)
    assert apart == [[k for k in labels if k != "center"], ["center"]]


def test_boundaries_are_the_stored_fields_of_the_stored_pair(told: Path) -> None:
    found = arrays(told, "boundaries")
    for cell in load_run(told).cells:
        stored = cell.reference()
        pair = found[f"{cell.slug}:pair"]
        assert pair.tolist() == stored["boundary_pair"].tolist()
        for name, key in (("free", "boundary_free"), ("a", "boundary_a"), ("b", "boundary_b")):
            assert (found[f"{cell.slug}:{name}"] == stored[key]).all()
        assert set(found[f"{cell.slug}:labels"]) == set(pair)
        assert (f"{cell.slug}:closed_free" in found) == (cell.loss != "triplet")


def test_alpha_figure_lies_on_its_closed_form(told: Path) -> None:
    rows = read(told / "report/figures/alpha.csv")
    for row in (r for r in rows if r["kind"] == "closed form"):
        t = 1 / (1 + (1 + float(row["alpha"])) ** 0.5)
        assert float(row["boundary"]) == pytest.approx(t)
        assert float(row["margin_share"]) == pytest.approx(1 - 2 * t)
    measured = [r for r in rows if r["kind"] == "measured"]
    assert [r["label"] for r in measured] == ["L-GM (alpha 1)"]
    assert float(measured[0]["margin_share"]) == pytest.approx(1 - 2 / (1 + 2**0.5), abs=0.03)


def test_confusions_count_every_error(told: Path) -> None:
    run = load_run(told)
    for name, attack, eps in (("confusion-clean", "none", 0.0), ("confusion-fgsm", "FGSM", 0.2)):
        rows = read(told / "report/figures" / f"{name}.csv")
        errors = {(r["label"], r["attack_label"], r["eps"]): r["error"] for r in run.rows}
        for mock in PLAIN.mocks:
            own = [r for r in rows if r["label"] == mock.label]
            assert len(own) == 100
            wrong = sum(float(r["percent"]) for r in own if r["true_class"] != r["predicted_class"])
            # twenty images of each class, so the mean over rows is the error
            assert wrong / 1000 == pytest.approx(errors[mock.label, attack, eps])


def test_geometry_tables_say_what_the_results_say(
    told: Path, numbers: Numbers, tables: dict[str, Table]
) -> None:
    known = {(r["label"], r["split"]): r for r in numbers.run.results["geometry"]}
    for split in ("test", "train", "untrained"):
        rows = read(told / f"report/tables/geometry-{split}.csv")
        assert [r["label"] for r in rows] == numbers.labels
        for row in rows:
            assert float(row["fisher_ratio"]) == known[row["label"], split]["fisher_ratio"]
    table = tables["geometry-test"]
    place = table.header.index("between ÷ within")
    for row in table.rows:
        own = known[row[0].text, "test"]
        ratio = own["between_distance"] / own["within_distance"]
        assert float(row[place].text) == pytest.approx(ratio, rel=0.005)
    assert len(tables["geometry-train"].header) == len(table.header) + 2
    page = (told / "report/index.html").read_text(encoding="utf-8")
    assert page.index('id="geometry-test"') < page.index("<summary>Distances and angles: training")


def test_lemma_1_is_stated_where_both_losses_stand(told: Path, tables: dict[str, Table]) -> None:
    assert "½ D log 2π" in " ".join(tables["geometry-test"].notes)
    run = load_run(told)
    rows = [r for r in run.rows if r["loss"] != "center"]
    without = Numbers(Run(run.path, run.results | {"rows": rows}), 10)
    named = {t.name: t for t in make_tables(without)}
    assert "Lemma 1" not in " ".join(named["geometry-test"].notes)


def test_margin_table_shows_the_nearest_pair(numbers: Numbers, tables: dict[str, Table]) -> None:
    table = tables["margins"]
    for row in table.rows:
        own = [r for r in numbers.run.results["margins"] if r["label"] == row[0].text]
        near = min(own, key=lambda r: r["length"])
        assert len(own) == 45
        cells = dict(zip(table.header, (e.text for e in row), strict=True))
        assert cells["nearest pair"] == f"class {near['class_a']}, class {near['class_b']}"
        if cells["margin"] == "no margin":
            assert near["margin"] == pytest.approx(0, abs=1e-9)
        else:
            assert float(cells["margin"]) == pytest.approx(near["margin"], rel=0.01)
        pair_loss = row[0].text.startswith("Triplet")
        assert (cells["closed form"] == "n/a") == pair_loss
        assert (cells["difference"] == "n/a") == pair_loss


def test_class_table_adds_up_to_the_clean_error(told: Path, numbers: Numbers) -> None:
    rows = read(told / "report/tables/per-class.csv")
    for label in numbers.labels:
        own = [r for r in rows if r["label"] == label]
        missed = sum(int(r["false_negatives"]) for r in own)
        assert missed == sum(int(r["false_positives"]) for r in own)
        error = numbers.get(label, "none", 0.0, "error")
        assert error is not None
        assert missed / 200 == pytest.approx(error.mean)


def test_balanced_error_needs_unequal_classes_or_weights(told: Path) -> None:
    run = load_run(told)

    def names(counts: list[int], losses: set[str]) -> set[str]:
        data = run.provenance["data"] | {"class_counts": counts}
        rows = [r for r in run.rows if r["loss"] in losses]
        results = run.results | {"provenance": run.provenance | {"data": data}, "rows": rows}
        return {t.name for t in make_tables(Numbers(Run(run.path, results), 10))}

    assert "balanced" in names([100] * 10, {"softmax", "weighted_softmax"})
    assert "balanced" in names([100] * 9 + [10], {"softmax"})
    assert "balanced" not in names([100] * 10, {"softmax"})


def test_top_5_of_more_than_ten_classes(told: Path) -> None:
    run = load_run(told)
    assert "top5" not in {t.name for t in make_tables(Numbers(run, 10))}
    rows = [
        row | {"error": 0.2, "top5_error": 0.05} if row["label"] == "softmax" else row
        for row in run.rows
    ]
    found = {t.name: t for t in make_tables(Numbers(Run(run.path, run.results | {"rows": rows})))}
    assert [[e.text for e in row] for row in found["top5"].rows] == [["softmax", "20.0", "5.00"]]


def test_tuples_of_pair_losses(tables: dict[str, Table]) -> None:
    rows = [[e.text for e in row] for row in tables["tuples"].rows]
    assert rows == [["Triplet (semi-hard)", "900", "180", "16.7 %"]]  # 5 epochs of 1.5 of 45 s


def test_pair_losses_are_not_measured_before_the_fit(told: Path, numbers: Numbers) -> None:
    assert [k for k in numbers.labels if _is_late(numbers, k)] == ["Triplet (semi-hard)"]
    page = Page((told / "report/details.html").read_text(encoding="utf-8"))
    assert "Not measured before the end: the error of Triplet (semi-hard)" in page.text


def test_every_table_that_shows_an_annealed_loss_says_so_once(
    numbers: Numbers, tables: dict[str, Table]
) -> None:
    annealed = [m.label for m in PLAIN.mocks if m.note]
    assert annealed == ["L-Softmax (m 2)", "L-Softmax (m 4)"]
    checked = 0
    for table in tables.values():
        found = [n for n in table.notes if "margin annealed" in n]
        assert len(found) == any(shows(table, k) for k in annealed)
        checked += len(found)
        assert annotate(numbers, table).notes == table.notes  # again changes nothing
    assert checked >= 8
    assert found == [] or found[0].startswith("L-Softmax (m 2) and L-Softmax (m 4): ")


def test_a_remark_on_the_data_stands_beside_its_errors(told: Path) -> None:
    run = load_run(told)
    data = run.provenance["data"] | {"summary": "JPEG copy, not the original"}
    results = run.results | {"provenance": run.provenance | {"data": data}}
    found = {t.name: t.notes for t in make_tables(Numbers(Run(run.path, results), 10))}
    assert "Data: JPEG copy, not the original." in found["error-fgsm"]
    assert not any("JPEG" in note for note in found["training"])


def test_shows_finds_rows_and_columns_not_words() -> None:
    table = Table("t", "t", "GM", ["loss", "center"], [[Entry("L-GM"), Entry("GM")]], [])
    assert shows(table, "L-GM")
    assert shows(table, "center")
    assert not shows(table, "GM")


def test_many_classes_get_a_table_of_pairs(tmp_path: Path) -> None:
    layout = Layout(mocks=MANY[2:4], classes=30, dim=20, seeds=(0,), n=300, geometry=True,
                    attacks=(MockAttack(eps=(0.2,)),))  # fmt: skip
    run = write_run(tmp_path / "run", layout)
    build_report(run)
    assert not list((run / "report/figures").glob("confusion-*"))
    rows = read(run / "report/tables/confused-fgsm.csv")
    assert 2 <= len(rows) <= 2 * 20
    pairs = [(r["true_class"], r["predicted_class"]) for r in rows]
    means = [
        sum(float(r["share"]) for r in rows if (r["true_class"], r["predicted_class"]) == p)
        for p in dict.fromkeys(pairs)
    ]
    assert means == sorted(means, reverse=True)
    assert json.loads((run / "results.json").read_text())["geometry"]


@pytest.mark.parametrize("mocks", [MANY[::3], pytest.param(MANY, marks=pytest.mark.slow)])
def test_many_losses_render(tmp_path: Path, mocks: tuple[Mock, ...]) -> None:
    layout = Layout(mocks=mocks, seeds=(0,), n=60, grid=12, geometry=True, dim=2,
                    attacks=(MockAttack(eps=(0.2,)),))  # fmt: skip
    run = write_run(tmp_path / "run", layout)
    page = Page(build_report(run, dpi=20, figures="laid out").read_text(encoding="utf-8"))
    for mock in mocks:
        assert mock.label in page.text
    details = Page((run / "report/details.html").read_text(encoding="utf-8"))
    assert {"embedding", "boundaries"} <= set(page.ids)
    assert {"roc-fgsm", "learning-curves", "norms"} <= set(details.ids)
