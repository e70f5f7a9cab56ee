"""results.json of somebody else: what is wrong with it is said, whatever it is."""

import json
import random
import warnings
from pathlib import Path

import pytest

from robustloss.reports.page.build import build_report
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.checking import naming_missing_columns
from robustloss.results.run import load_run
from robustloss.storage import CorruptFile
from tests.reports.synthetic import write_run
from tests.reports.tables import make_tables

JUNK = [None, True, -1, 0, 10**30, 1e300, -1e300, "", "x", "<b>", [], {}, [1], {"a": 1}, 0.5]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("shape") / "run")


@pytest.fixture
def changed(whole, tmp_path):
    """A function that writes the results with something changed and loads them."""

    def load(change):
        results = json.loads((whole / "results.json").read_text())
        change(results)
        (tmp_path / "results.json").write_text(json.dumps(results))
        return load_run(tmp_path)

    return load


def test_what_a_run_writes_is_accepted(changed):
    assert changed(lambda results: None).rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["rows"][1].update(error="much"), r"rows\[1\].error is 'much'"),
        (lambda r: r["rows"][0].update(error_low=True), r"rows\[0\].error_low is True"),
        (lambda r: r["detection"][2].update(score=7), r"detection\[2\].score is 7"),
        (lambda r: r["detection"].append(3), r"detection\[\d+\] is no table row"),
        (
            lambda r: r["summary"][0].update(values=["a"]),
            r"summary\[0\].values\[0\] is 'a': it should be a valid number",
        ),
        (lambda r: r["per_class"][0].update(predicted="3"), r"per_class\[0\].predicted is '3'"),
        (lambda r: r["provenance"].update(spec=[]), r"provenance.spec is \[\]"),
        (
            lambda r: r["provenance"]["spec"].update(losses=[{"label": 3}]),
            r"provenance.spec.losses\[0\].label is 3",
        ),
        (
            lambda r: r["provenance"]["spec"]["attacks"][0].update(eps="0.1"),
            r"provenance.spec.attacks\[0\].eps is '0.1'",
        ),
        (lambda r: r["provenance"]["data"].update(test="all"), "provenance.data.test is 'all'"),
        (lambda r: r["rows"][0].update(label="x" * 500, error=[]), r"error is \[\]"),
    ],
)
def test_the_place_of_a_mistake_is_named(changed, change, message):
    with pytest.raises(CorruptFile, match=message):
        changed(change)


def test_a_column_that_is_null_throughout_is_named(whole, tmp_path):
    import shutil

    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    results = json.loads((folder / "results.json").read_text())
    for row in results["rows"]:
        row["error"] = None
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(CorruptFile, match=r"rows\[0\].error is null"):
        build_report(folder)


@pytest.mark.parametrize("error", [KeyError, TypeError, IndexError, AttributeError, ValueError])
def test_a_null_is_named_whatever_it_makes_a_reader_raise(whole, error):
    file, results = Path("results.json"), json.loads((whole / "results.json").read_text())
    with pytest.raises(error, match="mine"), naming_missing_columns(file, results):
        raise error("mine")  # nothing is missing: a fault of our own
    results["detection"][1]["score"] = None
    with (
        pytest.raises(CorruptFile, match=r"detection\[1\].score is null"),
        naming_missing_columns(file, results),
    ):
        raise error("mine")


@pytest.mark.parametrize("label", ["", " ", "\n=1+2", "none", "\u200b"])
def test_a_label_of_nothing_is_a_label(whole, tmp_path, label):
    import shutil

    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    text = (folder / "results.json").read_text()
    old = json.loads(text)["rows"][0]["label"]
    (folder / "results.json").write_text(text.replace(json.dumps(old), json.dumps(label)))
    build_report(folder)
    shown = label.replace("\n", " ")
    lines = (folder / "report/tables/rows.csv").read_text(encoding="utf-8").split("\n")
    assert any(f",{shown.replace('=', chr(39) + '=')}," in line for line in lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("error_low"), "has no 'error_low'"),
        (lambda row: row.update(error=None), "error is null"),
    ],
)
def test_a_missing_column_is_named_when_a_report_needs_it(whole, tmp_path, change, message):
    import shutil

    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    results = json.loads((folder / "results.json").read_text())
    change(results["rows"][3])
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(CorruptFile, match=rf"rows\[3\].{message}. Run `robustloss run`"):
        build_report(folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".report")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("auroc_high"), "has no 'auroc_high'"),
        (lambda row: row.update(auroc_low=None), "auroc_low is null"),
    ],
)
def test_an_interval_of_one_end_is_named(changed, change, message):
    def damaged(results):
        results["detection"][2].update(auroc_low=0.8, auroc_high=0.9)
        change(results["detection"][2])

    run = changed(damaged)
    told = rf"detection\[2\].{message}"
    with pytest.raises(CorruptFile, match=told), naming_missing_columns(run.path, run.results):
        raise KeyError("auroc_high")


def places(value, path=()):
    """Every place of a JSON value; of long lists the first three."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def damage(results, rng, everywhere):
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        *way, last = rng.choice(everywhere)
        target = results
        try:
            for key in way:
                target = target[key]
            if rng.random() < 0.3:
                del target[last]
            else:
                target[last] = rng.choice(JUNK)
        except (KeyError, IndexError, TypeError):
            pass  # an earlier change took the place away


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_damage_is_refused_or_harmless(whole, changed, count):
    rng = random.Random(0)
    everywhere = list(places(json.loads((whole / "results.json").read_text())))
    outcomes = {"tables": 0, "refused": 0}
    for _ in range(count):
        try:
            run = changed(lambda results: damage(results, rng, everywhere))
            told = naming_missing_columns(run.path / "results.json", run.results)
            with warnings.catch_warnings(), told:
                warnings.simplefilter("ignore", RuntimeWarning)  # 1e300 overflows when squared
                make_tables(Numbers(run, 10))
            outcomes["tables"] += 1
        except ValueError:  # CorruptFile is one: a clear message
            outcomes["refused"] += 1
    assert min(outcomes.values()) > count / 6
