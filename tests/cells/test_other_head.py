"""A head on the network of another loss: nothing is trained for it, and the network is the same."""

import pytest
import torch

from robustloss import load_classifier, load_run, run
from robustloss.cells.weights import CellWeights
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import SPEC, Counted

OTHER = {"head": "nearest_mean", "of": "L-GM"}
LOSSES = [OTHER, {"name": "lgm", "label": "L-GM", "params": {"alpha": 0.5}}]


@pytest.fixture
def folder(tmp_path, no_report):
    return tmp_path / "run"


def test_the_network_of_another_loss_gets_the_head(folder, monkeypatch, own_cells):
    spec = {**SPEC, "seeds": [0], "losses": LOSSES}
    counted = Counted(monkeypatch)
    run(spec, out=folder)
    assert counted.trained == 1
    own = load_classifier(folder, loss="L-GM", seed=0)
    other = load_classifier(folder, loss="L-GM, nearest mean", seed=0)
    images = torch.rand(8, 1, 8, 8)
    assert torch.equal(own.features(images), other.features(images))
    nearest = torch.cdist(other.features(images), other.head.centers).argmin(1)
    assert torch.equal(other(images).argmax(1), nearest)
    found = load_run(folder)
    assert {row["label"] for row in found.rows} == {"L-GM", "L-GM, nearest mean"}
    (log,) = (each for each in found.results["training"] if each["label"] != "L-GM")
    assert log["seconds"] == 0
    assert "nearest class mean" in log["note"]
    # Where the other's weights are not there it trains the network again, which is the same.
    monkeypatch.setattr(CellWeights, "_find_trained", lambda self: None)
    for path in folder.glob("cells/*mean/*/*.safetensors"):
        path.unlink()
    run(spec, out=folder)
    assert counted.trained == 2
    again = load_classifier(folder, loss="L-GM, nearest mean", seed=0).state_dict()
    assert {n: v.tolist() for n, v in again.items()} == {
        n: v.tolist() for n, v in other.state_dict().items()
    }


def test_its_training_is_that_of_the_other():
    spec = load_spec({**SPEC, "losses": LOSSES})
    other, own = spec.losses
    assert other.label == "L-GM, nearest mean"
    assert (other.name, other.params) == (own.name, own.params) == ("lgm", {"alpha": 0.5})
    assert load_spec(spec.plain()).plain() == spec.plain()
    assert load_spec(spec.as_written()).losses == spec.losses
    searched = load_spec(
        {**SPEC, "losses": [OTHER, {"name": "lgm", "label": "L-GM", "search": {"lr": [0.1, 0.2]}}]}
    )
    assert len(searched.trials()) == 2
    chosen = searched.substitute({"L-GM": {"lr": 0.2}})
    assert [loss.train for loss in chosen.losses] == [{"lr": 0.2}] * 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"of": "LGN"}, r'losses\[0\].of \(="LGN"\) is the label of no loss: it must be one of "L'),
        ({"of": None}, r"losses\[0\]"),
        ({"head": None}, "needs head"),
        ({"head": "knn"}, "nearest_mean"),
        ({"params": {"alpha": 1.0}}, 'must be left out: of = "L-GM" decides it'),
        ({"train": {"lr": 0.1}}, 'must be left out: of = "L-GM" decides it'),
        ({"search": {"lr": [0.1]}}, 'must be left out: of = "L-GM" decides the training'),
        ({"weights": "mine.pt"}, "weights .* must be left out"),
    ],
)
def test_what_it_cannot_be_is_refused(keys, message):
    with pytest.raises(SpecError, match=message):
        load_spec({**SPEC, "losses": [{**OTHER, **keys}, LOSSES[1]]})


def test_a_model_from_elsewhere_keeps_its_head():
    losses = [{**OTHER, "of": "theirs"}, {"model": "file.py:make", "label": "theirs"}]
    with pytest.raises(SpecError, match="was not trained here"):
        load_spec({**SPEC, "losses": losses})
    with pytest.raises(SpecError, match="needs the label of another loss"):
        load_spec({**SPEC, "losses": [{"name": "softmax", "head": "nearest_mean"}]})
