"""Attacks in L1 all the way through a run: rows, worst case, radii, noise, proof and page."""

import numpy as np
import pytest

import robustloss
from robustloss.results.records import load_record
from robustloss.runs import runner
from tests.small_run import changed

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = changed(
    seeds=[0],
    losses=[{"name": "lgm"}],
    attacks=[
        {"name": "apgd_ce", "params": {"norm": "l1", "steps": 5}, "eps": [0, 2, 4]},
        {"name": "fmn", "params": {"norm": "l1", "steps": 10}, "eps": [4]},
        {"name": "adaptive_selective", "params": {"norm": "l1", "steps": 3}, "eps": [4]},
    ],
    data={"name": "digits", "train_size": 200, "validation_size": 60, "test_size": 40},
    checks={"images": 0},
    records={"images": "worst"},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("l1") / "run"
    assert runner.run(SPEC, out=folder).exit_code == 0
    return folder


def test_every_number_is_of_l1(run):
    found = robustloss.load_run(run)
    attacked = [row for row in found.rows if row["attack"] != "none"]
    assert {row["norm"] for row in attacked} == {"l1"}
    worst = {row["eps"]: row for row in found.worst_case}
    assert sorted(worst) == [2, 4]
    for row in attacked:
        assert row["eps"] == 0 or row["error"] <= worst[row["eps"]]["error"]
    radii = {row["attack"]: row["median_radius"] for row in found.radii}
    assert 0 < radii["worst_case"] <= radii["fmn"]
    (cell,) = found.cells
    for entry in cell.files["records"]:
        if entry["eps"] > 0:
            record = cell.record(entry["attack_label"], entry["eps"])
            assert 0 < record.l1.max() <= entry["eps"] * (1 + 1e-6)
            assert (record.l1 >= record.l2 * (1 - 1e-6)).all()
            assert not record.outside.any()
            noise = load_record(cell.folder / entry["noise"])
            np.testing.assert_allclose(noise.l1, record.l1, rtol=1e-3, atol=1e-6)


def test_its_images_can_be_exported_and_verified(run, tmp_path):
    assert not robustloss.verify(run).failures
    file = robustloss.export(run, "worst-case", eps=4, norm="l1", out=tmp_path / "worst.npz")
    found = robustloss.verify(run, file)
    assert not found.failures
    assert found.fooled["fooled"] > 0
    with pytest.raises(ValueError, match=r"norm \(=linf\) must be one of l1"):
        robustloss.export(run, "worst-case", eps=4, norm="linf", out=tmp_path / "other.npz")


def test_the_page_calls_it_l1_and_says_what_its_eps_is(run):
    page = (run / "report" / "index.html").read_text()
    assert "L1: the sum over all pixels" in page
    assert "L∞:" not in page
    assert "worst case of up to 3 attacks, L1" in " ".join(page.split())
