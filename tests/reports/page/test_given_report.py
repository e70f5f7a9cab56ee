"""What the page says of models that were trained elsewhere."""

import json

import pytest

from robustloss.reports.page.contents import Contents, make_tables
from robustloss.reports.page.run_facts import describe_run, list_facts, measure_run
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.published import _fits
from robustloss.results.run import load_run
from tests.reports.page.test_build import SMALL
from tests.reports.synthetic import write_run


@pytest.fixture
def given(tmp_path):
    folder = write_run(tmp_path / "run", SMALL)
    results = json.loads((folder / "results.json").read_text())
    losses = results["provenance"]["spec"]["losses"]

    def changed(*places):
        for i in places:
            losses[i] |= {"name": "given", "model": "mine.py:make", "train": {}}
        (folder / "results.json").write_text(json.dumps(results))
        return Numbers(load_run(folder)), [loss["label"] for loss in losses]

    return changed


def test_given_models_stand_beside_the_trained_ones(given):
    numbers, labels = given(1)
    lead = describe_run(numbers)
    assert f", beside {labels[1]}, trained elsewhere." in lead
    assert lead.startswith(f"One network trained with {labels[0]}, ")
    assert numbers.run.table().caption.startswith("Errors in percent, ")
    assert labels[1] not in lead.split("beside")[0]
    assert {"Network", "Training"} <= dict(list_facts(numbers)).keys()


def test_where_nothing_was_trained_no_training_and_no_network_are_told(given):
    numbers, labels = given(*range(len(given()[1])))
    assert (
        describe_run(numbers).split(", trained elsewhere, under attack.")[0].startswith(labels[0])
    )
    assert measure_run(numbers).startswith(f"{len(labels)} models · ")
    facts = list_facts(numbers)
    assert not {"Network", "Training", "Loss", "Seeds", "Notes from training"} & dict(facts).keys()
    told = [text for name, text in facts if name == "Model"]
    assert len(told) == len(labels)
    assert all("(given), model mine.py:make" in text for text in told)
    tables = make_tables(Contents(numbers))
    assert not any("loss" in table.header for _, own in tables for table in own)
    captions = " ".join(
        [numbers.run.table().caption, *(t.caption for _, own in tables for t in own)]
    )
    assert "training seed" not in captions


def test_published_numbers_stand_beside_no_given_model():
    wanted, spec = {"model": {"backbone": "lenet_plus"}}, {"model": {"backbone": "lenet_plus"}}
    assert _fits(wanted, spec, {"name": "lgm"})
    assert not _fits(wanted, spec, {"name": "lgm", "weights": "w.safetensors"})
    assert not _fits(wanted, spec, {"name": "given", "model": "mine.py:make"})
