"""Transfer between the losses of a run: the right images to the right models, kept and renewed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robustloss.array_files import read_arrays, write_arrays
from robustloss.attacks import build_attack, perturb
from robustloss.cells import transfer
from robustloss.data.load import load_dataset
from robustloss.evaluation import attacked
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.classifier import load_classifier
from robustloss.spec.data import DataSpec
from tests.small_run import SPEC, changed, numbers

pytestmark = pytest.mark.usefixtures("no_report")


TRANSFER = changed(
    seeds=[0],
    attacks=[
        {"name": "fgsm", "label": "fgsm", "eps": [0, 0.1, 0.2], "transfer": True},
        {"name": "pgd", "label": "pgd", "eps": [0.1], "params": {"steps": 3}},
    ],
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    from robustloss import reports

    folder = tmp_path_factory.mktemp("transfer") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: Path(path), raising=False)
        assert runner.run(TRANSFER, out=folder).exit_code == 0
    return folder


def stored(folder):
    found = {}
    for path in sorted(folder.glob("transfer/seed-*/*.npz")):
        arrays, meta = read_arrays(path)
        found[meta["source"], meta["attack_label"], meta["eps"]] = path, arrays, meta
    return found


def test_each_source_budget_and_target_stands_there_once(done):
    found = stored(done)
    assert set(found) == {(s, "fgsm", e) for s in ("softmax", "L-GM") for e in (0.1, 0.2)}
    for _, arrays, meta in found.values():
        assert meta["targets"] == ["softmax", "L-GM"]
        assert arrays["predictions"].shape == (2, 80)


def test_predictions_are_those_of_the_targets_on_the_sources_images(done):
    test = load_dataset(
        DataSpec(name="digits", train_size=200, validation_size=60, test_size=80)
    ).test
    models = {k: load_classifier(done, loss=k, seed=0) for k in ("softmax", "L-GM")}
    inputs = test.batch(slice(None))
    for (source, _, eps), (_, arrays, _) in stored(done).items():
        args = (build_attack("fgsm"), models[source], inputs, test.labels)
        adv_inputs = perturb(*args, eps=[eps], index=test.index).adv_inputs[0]
        for row, target in zip(arrays["predictions"], models.values(), strict=True):
            expected = target(adv_inputs).argmax(1).numpy()
            assert (row == expected).mean() >= 0.98  # float noise of another thread count


def test_diagonal_is_the_attack_on_the_model_itself(done):
    rows = {(r["label"], r["attack_label"], r["eps"]): r["error"] for r in load_run(done).rows}
    for (source, attack, eps), (_, arrays, meta) in stored(done).items():
        own = arrays["predictions"][meta["targets"].index(source)]
        assert float(np.mean(own != arrays["labels"])) == rows[source, attack, eps]


def test_second_run_computes_nothing_and_a_damaged_file_is_made_anew(done, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(done, tmp_path / "copy"))
    calls = []
    real = attacked.transferred_predictions
    monkeypatch.setattr(
        attacked,
        "transferred_predictions",
        lambda *args: calls.append(args[2].eps) or real(*args),
    )
    runner.run(TRANSFER, out=folder)
    assert calls == []
    path = stored(folder)["L-GM", "fgsm", 0.2][0]
    before = path.read_bytes()
    path.write_bytes(before[:-40] + b"x" + before[-39:])
    runner.run(TRANSFER, out=folder)
    assert calls == [[0.2]]
    assert path.read_bytes() == before
    assert numbers(folder) == numbers(done)
    arrays, meta = read_arrays(path)  # what no model answers and no attack has
    for predictions, norm in ((-1, "linf"), (10, "linf"), (0, "<b>|")):
        forged = {**arrays, "predictions": np.full_like(arrays["predictions"], predictions)}
        write_arrays(path, forged, {**meta, "norm": norm})
        runner.run(TRANSFER, out=folder)
        assert path.read_bytes() == before


def test_another_wording_of_labels_computes_nothing(done, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(done, tmp_path / "copy"))
    monkeypatch.setattr(attacked, "transferred_predictions", lambda *args: 1 / 0)
    spec = json.loads(json.dumps(TRANSFER))
    del spec["losses"][0]["label"], spec["attacks"][0]["label"]
    assert runner.run(spec, out=folder).exit_code == 0
    rows = load_run(folder).transfer
    assert {row["source"] for row in rows} == {row["target"] for row in rows} == {"Softmax", "L-GM"}
    assert {row["attack_label"] for row in rows} == {"FGSM"}


def test_retrained_target_is_judged_anew(done, tmp_path):
    folder = Path(shutil.copytree(done, tmp_path / "copy"))
    spec = json.loads(json.dumps(TRANSFER))
    spec["losses"][1]["params"] = {"alpha": 0.5}
    runner.run(spec, out=folder)
    fresh = set(folder.glob("transfer/seed-0/*.npz")) - {
        folder / "transfer" / "seed-0" / path.name for path, _, _ in stored(done).values()
    }
    assert len(fresh) == 4  # the images of softmax too: one of their targets changed


def test_one_loss_or_no_attack_that_transfers_has_no_second_stage(tmp_path):
    from robustloss.spec.load import load_spec

    assert transfer.transfer_seeds(load_spec(SPEC), []) == []
    alone = load_spec({**TRANSFER, "losses": [{"name": "softmax"}]})
    assert transfer.transfer_seeds(alone, []) == []


def test_failed_cell_is_left_out_of_the_matrix(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from robustloss.losses import LOSSES\n"
        "class Bad(LOSSES['softmax']):\n"
        "    def loss(self, features, labels, *, progress):\n"
        "        raise RuntimeError('no')\n"
    )
    losses = [*TRANSFER["losses"], {"name": str(tmp_path / "bad.py") + ":Bad", "label": "bad"}]
    outcome = runner.run({**TRANSFER, "losses": losses}, out=tmp_path / "run")
    assert outcome.exit_code == 1
    assert all(
        meta["targets"] == ["softmax", "L-GM"] for *_, meta in stored(tmp_path / "run").values()
    )
    assert len(stored(tmp_path / "run")) == 4


def test_transfer_that_fails_is_told_and_costs_no_other_number(done, tmp_path, monkeypatch):
    real = attacked.transferred_predictions
    calls = []

    def second_fails(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("no more")
        return real(*args, **kwargs)

    monkeypatch.setattr(attacked, "transferred_predictions", second_fails)
    outcome = runner.run(TRANSFER, out=tmp_path / "run", reuse=done)
    assert outcome.exit_code == 1
    (failure,) = outcome.failures
    assert (failure["label"], failure["stage"]) == ("L-GM", "transfer")
    assert failure["reason"] == "transfer of fgsm: no more"
    run = load_run(tmp_path / "run")
    assert run.rows == load_run(done).rows
    assert {row["source"] for row in run.transfer} == {"softmax"}
    assert runner.run(TRANSFER, out=tmp_path / "run").exit_code == 0
    assert load_run(tmp_path / "run").transfer == load_run(done).transfer
