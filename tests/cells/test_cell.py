"""What names a record on disk, and how many of them a cell holds at once."""

import weakref
from pathlib import Path

import pytest

from robustloss.cells import keys
from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob
from robustloss.data.load import load_dataset
from robustloss.results import records as stored
from robustloss.results.records import LazyRecords, load_record
from robustloss.spec.data import DataSpec
from robustloss.spec.load import load_spec
from tests.small_run import SPEC


def record_key(folder: Path, **attack) -> str:
    spec = load_spec({**SPEC, "attacks": [{"eps": [0.1], "label": "attack", **attack}]})
    (table,) = spec.attacks
    code = keys.plugin_digest(table.name, folder)
    return keys.attacked_key([], table, 0.1, seed=0, code=code)


@pytest.mark.parametrize(
    ("name", "package"), [("torchattacks:PGD", "torchattacks"), ("autoattack", "pyautoattack")]
)
def test_an_adapted_attack_goes_by_its_packages_version(monkeypatch, tmp_path, name, package):
    asked = []

    def version(name):
        asked.append(name)
        return "1.2.3"

    monkeypatch.setattr(keys.importlib.metadata, "version", version)
    assert keys.plugin_digest(name, tmp_path) == f"{package} 1.2.3"
    assert asked == [package]
    old = record_key(tmp_path, name=name)
    assert record_key(tmp_path, name=name) == old
    assert record_key(tmp_path, name=name, batch_size=10) != old
    monkeypatch.setattr(keys.importlib.metadata, "version", lambda name: "1.2.4")
    assert record_key(tmp_path, name=name) != old


def test_built_ins_have_no_source_to_go_by(tmp_path):
    for name in ("fgsm", "softmax", "small_cnn", "torchvision:resnet18"):
        assert keys.plugin_digest(name, tmp_path) == ""


def test_batch_size_decides_for_other_peoples_attacks_only(tmp_path):
    (tmp_path / "mine.py").write_text("def attack(model, inputs, labels, eps): return inputs\n")
    for name, decides in (
        ("fgsm", False),
        ("torchattacks:PGD", True),
        (f"{tmp_path}/mine.py:attack", True),
    ):
        names = {record_key(tmp_path, name=name, batch_size=size) for size in (10, 20)}
        assert len(names) == 1 + decides, name


def test_a_cell_holds_few_of_its_records_at_once(monkeypatch, tmp_path):
    alive: list[weakref.ref] = []
    most = 0

    def counted(path):
        nonlocal most
        record = load_record(path)
        alive.append(weakref.ref(record))
        most = max(most, sum(each() is not None for each in alive))
        return record

    attacks = [
        {"name": name, "label": name, "eps": [0.05, 0.1, 0.15, 0.2, 0.25]}
        for name in ("fgsm", "mifgsm")
    ]
    spec = load_spec({**SPEC, "attacks": attacks})
    dataset = load_dataset(
        DataSpec(name="digits", train_size=200, validation_size=60, test_size=80), quiet=True
    )
    job = CellJob(spec, spec.cells()[0], tmp_path, "cpu", None)
    assert run_cell(job, dataset, lambda event: None) is None
    (tmp_path / spec.cells()[0].folder / "cell.json").unlink()
    for path in tmp_path.rglob("scores-*.npz"):
        path.unlink()
    monkeypatch.setattr(stored, "load_record", counted)
    assert run_cell(job, dataset, lambda event: None) is None
    assert len(alive) > 2 * 10  # attacked images and their controls
    assert most <= 3, "the clean record, and one to look at; the last one until it is replaced"


def test_lazy_records_are_made_when_asked_for(tmp_path):
    made = []
    lazy = LazyRecords({key: lambda key=key: made.append(key) or key for key in "abc"})
    assert list(lazy) == ["a", "b", "c"]
    assert len(lazy) == 3
    assert made == []
    assert (lazy["b"], lazy["b"]) == ("b", "b")
    assert made == ["b", "b"]
    with pytest.raises(KeyError):
        lazy["d"]


def test_the_score_that_an_attack_aims_at_decides(monkeypatch):
    aware = {"name": "adaptive_joint", "label": "attack", "eps": [0.1]}
    tables = [
        load_spec({**SPEC, "attacks": [aware | {"params": params}]}).attacks[0]
        for params in ({}, {"score": "energy"}, {"score": "knn"})
    ]

    def key(table, code, fit_size=100):
        return keys.attacked_key(
            [], table, 0.1, seed=0, code="", fit_size=fit_size, score_code=code
        )

    first = [key(tables[0], None), *(key(table, "") for table in tables[1:])]
    assert len(set(first)) == 3
    assert key(tables[1], "another source") != first[1]
    assert key(tables[1], "", fit_size=99) != first[1]  # it is fitted on other images
    for module in (keys.scores, keys.torch_scores):
        with monkeypatch.context() as patch:
            patch.setattr(module, "VERSION", module.VERSION + 1)
            assert key(tables[1], "") != first[1]
            assert key(tables[0], None) == first[0]
