"""A folder whose weights were trained by older defaults: the run says why it trains again."""

import pytest

from robustloss.runs import runner
from robustloss.spec.training import FORMER_DEFAULTS
from tests.small_run import Told, changed

TRAIN = {"epochs": 1, "batch_size": 40, "precision": "float32"}
LOSSES = [{"name": "softmax"}, {"name": "lgm", "train": {"lr": 0.02}}]
SMALL = {"seeds": [0], "checks": {"images": 0}, "losses": LOSSES}
CHANGES = {
    "lr": "of train.lr has changed from 0.05 to 0.1",
    "max_grad_norm": "of train.max_grad_norm has changed from false to 1.0",
}


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The folder of a run that says itself what were the defaults."""
    folder = tmp_path_factory.mktemp("older")
    runner.run(changed(**SMALL, train={**TRAIN, **FORMER_DEFAULTS}), out=folder)
    return folder


def ends(spec, folder):
    told = Told()
    runner.run(spec, out=folder, progress=told)
    return [(e.stage, e.text) for e in told.events if e.stage in ("done", "cached", "failed")]


def test_a_run_by_older_defaults_says_which_have_changed(older):
    """In the order of the run: what another change trains anew, nothing, changed defaults."""
    assert ends(changed(**SMALL, train={**TRAIN, "lr": 0.3, "max_grad_norm": 2.0}), older) == [
        ("done", ""),
        ("done", ""),
    ]
    assert ends(changed(**SMALL, train={**TRAIN, **FORMER_DEFAULTS}), older)[0][1] == ""
    assert ends(changed(**SMALL, train=TRAIN), older) == [
        ("done", f"retrained: the default {CHANGES['lr']} and {CHANGES['max_grad_norm']}"),
        ("done", f"retrained: the default {CHANGES['max_grad_norm']}"),  # it has its own rate
    ]
    assert ends(changed(**SMALL, train=TRAIN), older) == [("cached", ""), ("cached", "")]
