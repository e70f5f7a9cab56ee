"""The run directory: written, read back, and refused where it is none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robustloss import array_files, storage
from robustloss.analysis.tables import of_cell
from robustloss.results import finished_cell
from robustloss.results.records import Record, save_record
from robustloss.results.run import load_run
from robustloss.storage import CorruptFile
from tests.written import write_results


def record(seed: int, n: int = 6) -> Record:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)).astype(np.float32)
    return Record(
        index=np.arange(n),
        labels=np.arange(n) % 3,
        logits=logits,
        class_log_likelihood=logits - 7,
        features=None,
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=np.zeros(n, bool),
        radius=None,
        images=np.zeros((2, 1, 4, 4), np.float32),
    )


def write_cell(run: Path, label: str, seed: int) -> dict:
    """Leave the files of one finished cell, as the runner does."""
    slug = label.lower()
    folder = run / "cells" / slug / f"seed-{seed}"
    clean, attacked = record(seed), record(seed + 100)
    save_record(folder / "none-0-k.npz", clean)
    save_record(folder / "fgsm-0.1-k.npz", attacked)
    names = ("index", "labels", "logits", "class_log_likelihood")
    reference = {f"validation_{name}": getattr(clean, name) for name in names}
    array_files.write_arrays(folder / "scores-k.npz", reference)
    storage.write_json(folder / "train.json", {"epochs": 2, "seconds": 0.5}, checked=True)
    entry = {"norm": None, "eps": 0.0, "file": "none-0-k.npz"}
    entries = [
        {"attack": "none", "attack_label": "none"} | entry,
        {"attack": "fgsm", "attack_label": "FGSM", "norm": "linf", "eps": 0.1}
        | {"file": "fgsm-0.1-k.npz"},
    ]
    cell = {
        "schema_version": 1,
        **{"loss": "lgm", "label": label, "slug": slug, "seed": seed, "key": "k"},
        **{"num_classes": 3, "feature_dim": 2, "density": True},
        "files": {"training": "train.json", "scores": "scores-k.npz", "records": entries},
    }
    records = {("none", 0.0): clean, ("FGSM", 0.1): attacked}
    cell |= of_cell.cell_numbers(records, reference, cell)
    storage.write_json(folder / "cell.json", cell, checked=True)
    return cell


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "toy"
    cells = [write_cell(folder, label, seed) for label in ("Soft", "GM") for seed in (10, 2)]
    write_cell(folder, "Old", 0)  # its loss has since been taken out of the spec
    write_results(
        folder,
        name="toy",
        provenance={"spec": {"losses": [{"label": "Soft"}, {"label": "GM"}]}, "seconds": 1.5},
        cells=cells,
        training=[{"loss": "lgm", "label": c["label"], "seed": c["seed"]} for c in cells],
        failures=[
            {"loss": "x", "label": "X", "seed": s, "stage": "train", "reason": "loss is NaN"}
            for s in (1, 0)
        ],
    )
    return folder


def test_results_have_the_schema(run):
    data = json.loads((run / "results.json").read_text())
    assert ", ".join(data) == (
        "schema_version, name, provenance, rows, summary, detection, training, worst_case, radii, "
        "adaptive, transfer, per_class, geometry, collapse, margins, center_estimates, "
        "out_of_distribution, calibration, reliability, shifts, corruption, crops, "
        "comparisons, ranks, unit_tests, flags, failures, digest"
    )
    assert data["schema_version"] == finished_cell.SCHEMA_VERSION == 1
    for table in ("rows", "detection", "summary"):
        assert ", ".join(data[table][0]).startswith("loss, label, ")
    keys = [(row["label"], row["seed"], row["attack_label"], row["eps"]) for row in data["rows"]]
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == 8
    assert [(row["label"], row["seed"]) for row in data["failures"]] == [("X", 0), ("X", 1)]
    assert len(data["detection"]) == 4 * 5 * 4  # cells, scores without features, populations
    # per loss: two rows, a worst case, the curves of FGSM and of the worst case
    assert len(data["summary"]) == 2 * (2 * 18 + 5 + 2 * 6)


def test_results_do_not_depend_on_the_order_in_which_cells_finished(run, tmp_path):
    data = load_run(run).results
    paths = sorted(run.glob("cells/[sg]*/*/cell.json"), reverse=True)
    other = write_results(
        tmp_path / "other",
        name="toy",
        provenance=data["provenance"],
        cells=(storage.read_json(path, checked=True) for path in paths),
        training=data["training"][::-1],
        failures=data["failures"][::-1],
    )
    assert other == data
    written = (tmp_path / "other" / "results.json").read_bytes()
    assert written == (run / "results.json").read_bytes()


def test_a_run_gives_its_tables_and_its_cells_in_the_order_of_the_spec(run):
    found = load_run(run)
    assert (found.name, found.path) == ("toy", run)
    for table in ("rows", "summary", "detection", "training", "flags", "failures", "provenance"):
        assert getattr(found, table) == found.results[table]
    places = [(cell.label, cell.seed) for cell in found.cells]
    assert places == [("Soft", 2), ("Soft", 10), ("GM", 2), ("GM", 10)]


def test_a_cell_gives_its_files(run):
    cell = load_run(str(run)).cells[0]
    assert (cell.loss, cell.slug, cell.num_classes, cell.feature_dim) == ("lgm", "soft", 3, 2)
    assert cell.density
    np.testing.assert_array_equal(cell.record().logits, record(2).logits)
    np.testing.assert_array_equal(cell.record("FGSM", 0.1).logits, record(102).logits)
    np.testing.assert_array_equal(cell.reference()["validation_logits"], record(2).logits)
    assert cell.training() == {"epochs": 2, "seconds": 0.5}
    with pytest.raises(
        ValueError, match=r"no record of FGSM at eps 0\.2; there are: none at 0, FG"
    ):
        cell.record("FGSM", 0.2)


@pytest.mark.parametrize("file", ["fgsm-0.1-k.npz", "scores-k.npz", "train.json", "cell.json"])
def test_an_altered_file_of_a_cell_is_never_used(run, file):
    path = run / "cells" / "soft" / "seed-2" / file
    path.write_bytes(path.read_bytes().replace(b"5", b"6", 1))
    found = load_run(run)

    def use_everything():
        cell = found.cells[0]
        return cell.record("FGSM", 0.1), cell.reference(), cell.training()

    with pytest.raises(CorruptFile, match=f"{file} .*altered"):
        use_everything()


@pytest.mark.parametrize("name", ["../seed-10/none-0-k.npz", "/etc/passwd", "..\\x", "", ".."])
def test_a_cell_cannot_point_outside_its_folder(run, name):
    path = run / "cells" / "soft" / "seed-2" / "cell.json"
    data = storage.read_json(path, checked=True)
    data["files"]["records"][0]["file"] = name
    storage.write_json(path, data, checked=True)
    with pytest.raises(CorruptFile, match=r"names a file outside it|cannot be read"):
        load_run(run).cells[0].record()


def test_a_cell_must_be_complete(run):
    path = run / "cells" / "soft" / "seed-2" / "cell.json"
    data = storage.read_json(path, checked=True)
    del data["slug"]
    storage.write_json(path, data, checked=True)
    with pytest.raises(CorruptFile, match="has no 'slug'"):
        finished_cell.load_cell(path)


@pytest.mark.parametrize(
    ("name", "value"), [("seed", "1/../../../x"), ("seed", True), ("label", 3), ("files", [])]
)
def test_a_cell_of_another_kind_is_refused(run, name, value):
    path = run / "cells" / "soft" / "seed-2" / "cell.json"
    data = storage.read_json(path, checked=True)
    storage.write_json(path, data | {name: value}, checked=True)
    with pytest.raises(
        CorruptFile, match=rf"{name} is .*: it should be a.* (integer|str|dictionary)"
    ):
        finished_cell.load_cell(path)


def change(run: Path, **values) -> None:
    data = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(data | values))


def test_what_is_no_finished_run_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"absent\) must be a folder that `robustloss run` wrote"):
        load_run(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"results\.json\) must be .* Did you mean .*toy\?"):
        load_run(run / "results.json")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"has no results\.json \(no run folder\)"):
        load_run(tmp_path / "other")
    for folder in (tmp_path, run / "cells"):
        with pytest.raises(ValueError, match=r"has no results\.json \(no run folder; .*toy is one"):
            load_run(folder)
    (run / "results.json").unlink()
    (run / "spec.toml").write_text("")
    with pytest.raises(ValueError, match="the run has not finished: start it again to continue"):
        load_run(run)


def test_results_of_an_older_run_still_load(run):
    data = json.loads((run / "results.json").read_text())
    for table in ("radii", "adaptive", "transfer", "crops"):
        del data[table]
    data["worst_case"] = []
    (run / "results.json").write_text(json.dumps(data))
    found = load_run(run)
    assert found.radii == found.adaptive == found.transfer == found.worst_case == []
    assert found.rows == data["rows"]


def test_cells_of_an_older_run_still_give_results(run, tmp_path):
    cells = [storage.read_json(path, checked=True) for path in run.glob("cells/soft/*/cell.json")]
    for cell in cells:
        del cell["worst_case"], cell["radii"], cell["adaptive"]
        for row in cell["rows"]:
            del row["outside_fraction"], row["error_8bit"]
    found = write_results(
        tmp_path / "other", name="toy", provenance={}, cells=cells, training=[], failures=[]
    )
    assert found["worst_case"] == found["radii"] == found["adaptive"] == []
    assert len(found["summary"]) == 2 * 16 + 2 * 2  # of the tables rows and calibration


def test_rows_computed_between_cells_stand_beside_those_of_the_cells(run, tmp_path):
    cells = [storage.read_json(path, checked=True) for path in run.glob("cells/soft/*/cell.json")]
    place = {"loss": "lgm", "label": "A", "seed": 0}
    transfer = [
        {"seed": 0, "source": source, "target": target, "attack_label": "PGD", "eps": 0.1}
        for source in ("Soft", "GM")
        for target in ("Soft", "GM")
    ]
    more = {
        "worst_case": [place | {"norm": "l2", "eps": 9.0, "error": 1.0}
                       | dict.fromkeys(("error_low", "error_high"), 1.0)],
        "radii": [place | {"attack": "cw", "attack_label": "CW", "norm": "l2"}],
        "adaptive": [place | {"norm": "l2", "eps": 9.0, "attack_label": "a", "score": "b"}],
        "flags": [place | {"check": "transfer_beats_white_box", "attack_label": "PGD", "eps": 0.1}],
    }  # fmt: skip
    path = tmp_path / "other"
    write_results(
        path, name="toy", provenance={}, cells=cells, training=[], failures=[],
        transfer=transfer, **more,
    )  # fmt: skip
    found = load_run(path)
    assert [(row["source"], row["target"]) for row in found.transfer] == [
        ("GM", "GM"), ("GM", "Soft"), ("Soft", "GM"), ("Soft", "Soft")
    ]  # fmt: skip
    for table, rows in more.items():
        ours = [row for row in getattr(found, table) if row["label"] == "A"]
        assert ours == rows
        of_cells = sum(len(cell[table]) for cell in cells)
        assert len(getattr(found, table)) == of_cells + 1
    assert any(row["eps"] == 9.0 and row["attack"] == "worst_case" for row in found.summary)


def test_a_newer_schema_is_refused(run):
    change(run, schema_version=2)
    with pytest.raises(ValueError, match=r"has schema_version 2, .* up to 1\. Update robustloss"):
        load_run(run)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schema_version": "1"}, r"no whole number 'schema_version' \(='1'\)"),
        ({"schema_version": True}, "no whole number 'schema_version'"),
        ({"rows": None}, "has no list 'rows'. Run `robustloss run` again"),
        ({"provenance": []}, "has no dict 'provenance'"),
        ({"name": 3}, "has no str 'name'"),
        ({"transfer": None}, "has no list 'transfer'"),
        ({"rows": [{"label": "softmax"}]}, r"has a row \(number 0\) without attack, .* seed"),
        ({"rows": [3]}, r"has a row \(number 0\) without"),
    ],
)
def test_damaged_results_are_refused(run, values, message):
    change(run, **values)
    with pytest.raises(CorruptFile, match=message):
        load_run(run)


def test_truncated_results_are_refused(run):
    path = run / "results.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptFile, match="is not valid JSON"):
        load_run(run)


def test_a_run_folder_may_be_moved(run, tmp_path):
    shutil.move(run, tmp_path / "elsewhere")
    assert load_run(tmp_path / "elsewhere").cells[0].record().n == 6
