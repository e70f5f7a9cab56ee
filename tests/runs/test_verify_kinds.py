"""`robustloss verify` of runs from memory, with code of their author, and with trials."""

import numpy as np
import pytest
import torch

import robustloss
from robustloss.progress import Silent
from robustloss.runs import runner
from robustloss.storage import read_json, write_json
from tests.runs.test_verify import SPEC, failures, reseal
from tests.small_run import changed

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")


def test_an_evaluation_of_a_model_in_memory(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    images, labels = torch.rand(30, 1, 4, 4), torch.arange(30) % 3
    robustloss.evaluate(
        model, images, labels, ["fgsm"], quick=True, out=tmp_path / "run", progress=Silent()
    )
    found = robustloss.verify(tmp_path / "run")
    assert found
    assert "the images of this run were in memory" in str(found)
    np.savez(tmp_path / "x.npz", images=images.numpy(), labels=labels.numpy())
    with pytest.raises(ValueError, match="Without IMAGES its files and numbers are verified"):
        robustloss.verify(tmp_path / "run", tmp_path / "x.npz")


def test_code_of_the_author_is_executed_only_with_leave(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from robustloss.losses.softmax import SoftmaxHead\nclass Mine(SoftmaxHead):\n    pass\n"
    )
    name = f"{tmp_path}/mine.py:Mine"
    spec = changed(seeds=[0], losses=[{"name": name}], attacks=[{"name": "fgsm", "eps": [0.1]}],
                   checks={"images": 0})  # fmt: skip
    runner.run(spec, out=tmp_path / "run")
    found = robustloss.verify(tmp_path / "run")
    assert found
    assert "is code that the run's author wrote" in str(found)
    found = robustloss.verify(tmp_path / "run", allow_plugins=True)
    assert {each.state for each in found.findings} == {"pass"}
    assert "(the first 64 images)" in str(found)


def test_a_function_that_makes_the_data_is_executed_only_with_leave(tmp_path, command):
    (tmp_path / "data.py").write_text(
        "from pathlib import Path\nimport numpy as np\n"
        "def make():\n"
        "    Path(__file__).with_suffix('.ran').touch()\n"
        "    x = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), np.uint8)\n"
        "    return {'train': (x[:60], np.arange(60) % 3), 'test': (x[60:], np.arange(30) % 3)}\n"
    )
    spec = changed(seeds=[0], data={"name": f"{tmp_path}/data.py:make"}, checks={"images": 0},
                   losses=[{"name": "softmax"}], attacks=[{"name": "fgsm", "eps": [0.1]}],
                   records={"images": "all"})  # fmt: skip
    out = tmp_path / "run"
    runner.run(spec, out=out)
    ran = tmp_path / "data.ran"
    ran.unlink()
    found = robustloss.verify(out)
    assert found
    assert "code of the run's author makes the data" in str(found)
    for words in (
        ("verify", out),
        ("export", out, "--attack", "fgsm", "--format", "png", "--out", tmp_path / "png"),
    ):
        status, told, err = command(*map(str, words))
        assert status == (2 if words[0] == "export" else 0), err
        assert "code of the run's author makes the data" in told + err
        assert not ran.exists()
    status, _, err = command(*map(str, words), "--plugins")
    assert (status, err) == (0, "")
    assert ran.exists()
    assert robustloss.verify(out, allow_plugins=True)


def test_trials_are_made_anew_from_their_folders(tmp_path):
    spec = SPEC | {
        "seeds": [0],
        "losses": [{"name": "softmax", "search": {"lr": [0.01, 0.02]}}],
        "attacks": [{"name": "fgsm", "eps": [0.1]}],
        "outside": [],
    }
    runner.run(spec, out=tmp_path / "run")
    assert robustloss.verify(tmp_path / "run"), failures(tmp_path / "run")
    results = read_json(tmp_path / "run" / "results.json")
    results["trials"][0]["validation_error"] += 0.01
    write_json(tmp_path / "run" / "results.json", results, sort_keys=False)
    reseal(tmp_path / "run")
    assert "results.json is not what its cells give: trials[0]" in failures(tmp_path / "run")


def test_an_evaluation_keeps_what_its_spec_says(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    spec = {"attacks": [{"name": "fgsm", "eps": [0.1]}], "records": {"images": "all"}}
    images = torch.rand(70, 1, 4, 4), torch.arange(70) % 3
    how = {"checks": 0, "noise": False, "progress": Silent()}
    robustloss.evaluate(model, *images, spec, out=tmp_path / "run", **how)
    with np.load(robustloss.export(tmp_path / "run", "fgsm", out=tmp_path / "a.npz")) as found:
        change = np.abs(found["images"] - images[0].numpy()).max()
    assert 0.09 < change < 0.1001
