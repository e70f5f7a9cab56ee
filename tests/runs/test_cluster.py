"""Cells on a Ray cluster: mistakes, the numbers of one process, nodes that die."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from robustloss.cells.jobs import CellJob, Part
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.executors import cluster as cluster_module
from robustloss.runs.executors.choose import cell_threads, check_executor
from robustloss.spec.load import load_spec
from tests.small_run import SPEC, Told, changed, files, numbers

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.usefixtures("no_report"),
]


@pytest.fixture
def cluster():
    """A head without cores; the test adds the nodes."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'robustloss[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def test_without_ray_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(cluster_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs Ray, which is not installed; pip install"):
        check_executor("ray")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("ray:nowhere", r"must be ray, ray:auto or ray:HOST:PORT"),
        ("ray:", r"must be ray, ray:auto or ray:HOST:PORT"),
        ("ray:host:99999", r"must be ray, ray:auto or ray:HOST:PORT"),
        ("ray:127.0.0.1:1", r"nothing answers at 127.0.0.1:1 .*ray start --head --port=1"),
    ],
)
def test_a_bad_address_is_told_in_one_line(monkeypatch, name, rule):
    monkeypatch.setattr(cluster_module.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match=rule) as caught:
        check_executor(name)
    assert "\n" not in str(caught.value)


def test_threads_of_a_cell_are_the_cores_it_asks_for():
    assert cell_threads("ray", load_spec(SPEC)) == 1
    assert cell_threads("ray:auto", load_spec(changed(resources={"cpus": 3}))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_two_nodes_give_the_numbers_of_one_process(
    cluster, one_thread, tmp_path, monkeypatch, shared
):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    spec = changed(seeds=[0])
    runner.run(spec, out=tmp_path / "serial")
    if not shared:  # a mark that no worker finds: each works in a folder of its own
        monkeypatch.setattr(cluster_module, "MARK", ".elsewhere")
    assert runner.run(spec, out=tmp_path / "ray", executor="ray").exit_code == 0
    assert numbers(tmp_path / "ray") == numbers(tmp_path / "serial")
    assert files(tmp_path / "ray") == files(tmp_path / "serial")
    assert not list((tmp_path / "ray").glob(".ray-run"))


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_two_nodes_share_the_images_of_one_cell(cluster, one_thread, tmp_path, monkeypatch, shared):
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    attacks = [
        {"name": "fgsm", "eps": [0, 0.1], "batch_size": 16},
        {"name": "adaptive_joint", "params": {"steps": 2}, "eps": [0.3], "batch_size": 32},
    ]
    spec = changed(seeds=[0], losses=[{"name": "lgm"}], attacks=attacks)
    runner.run(spec, out=tmp_path / "serial")
    if not shared:
        monkeypatch.setattr(cluster_module, "MARK", ".elsewhere")
    split = spec | {"resources": {"split": 32}}
    told = Told()
    assert runner.run(split, out=tmp_path / "ray", executor="ray", progress=told).exit_code == 0
    assert told.in_parts()
    assert files(tmp_path / "ray") == files(tmp_path / "serial")
    assert not list((tmp_path / "ray").glob("cells/**/*.part"))
    assert not list((tmp_path / "ray").glob("cells/**/parts.json"))


def test_a_part_takes_along_what_it_reads_and_brings_what_it_made(tmp_path):
    spec = load_spec(SPEC)
    job = CellJob(spec, spec.cells()[0], tmp_path, "cpu", None)
    names = ["model-1.safetensors", "reference-1.npz", "none-0-1.npz", "fgsm-0.1-1.npz"]
    names += ["fgsm-0.1-1.0-40.part", "scores-1.npz", "cell.json"]
    for name in names:
        (tmp_path / name).write_text(name)

    def sent(task):
        _, begins = cluster_module._readable(replace(job, task=task))
        return set(cluster_module._read_files(tmp_path, begins))

    assert sent("cell") == set(names)
    assert sent("preparation") == sent(Part(0, (0.0, 0.1), 40, 80)) == set(names[:3])
    assert sent(Part(0, (0.1,), 40, 80)) == set(names[:2])
    before = {"kept": b"1", "changed": b"1", "gone": b"1"}
    after = {"kept": b"1", "changed": b"2", "new": b"3"}
    assert cluster_module._changes(before, after) == {"changed": b"2", "gone": None, "new": b"3"}


LOGGED = """
import os
from pathlib import Path

from robustloss.losses.softmax import SoftmaxHead


class Logged(SoftmaxHead):
    def start(self, class_counts):
        super().start(class_counts)
        with Path(__file__).with_name("starts.log").open("a") as log:
            log.write(f"{os.getpid()}\\n")
"""

BROKEN = """
from robustloss.losses.softmax import SoftmaxHead


class Broken(SoftmaxHead):
    def start(self, class_counts):
        raise RuntimeError("on purpose")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_dies_twice_costs_only_its_cells(cluster, one_thread, tmp_path):
    (tmp_path / "logged.py").write_text(LOGGED)
    losses = [{"name": "logged.py:Logged", "label": "logged"}]
    text = load_spec(changed(losses=losses, seeds=list(range(24)))).text
    path = tmp_path / "spec.toml"
    path.write_text(text)
    log = tmp_path / "starts.log"
    runner.run(path, out=tmp_path / "serial")
    assert len(log.read_text().split()) == 24
    log.unlink()
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    doomed = cluster.add_node(num_cpus=1)
    with ThreadPoolExecutor(1) as pool:  # nodes can only be added by the main thread
        running = pool.submit(runner.run, path, out=tmp_path / "ray", executor="ray")
        for begun in (4, 12):
            while len(log.read_text().split() if log.exists() else []) < begun:
                assert not running.done()
                time.sleep(0.05)
            cluster.remove_node(doomed, allow_graceful=False)
            doomed = cluster.add_node(num_cpus=1, wait=False)
        assert not running.done()
        outcome = running.result()
    assert outcome.failures == []
    assert load_run(tmp_path / "ray").rows == load_run(tmp_path / "serial").rows
    starts = len(log.read_text().split())
    assert 24 <= starts <= 24 + 2  # a node of one core loses one cell at each death


@pytest.mark.slow
def test_what_a_plugin_throws_is_a_failure_and_no_retry(cluster, one_thread, tmp_path):
    cluster.add_node(num_cpus=1)
    (tmp_path / "broken.py").write_text(BROKEN)
    losses = [{"name": "softmax"}, {"name": "broken.py:Broken", "label": "broken"}]
    path = tmp_path / "spec.toml"
    path.write_text(load_spec(changed(losses=losses, seeds=[0])).text)
    outcome = runner.run(path, out=tmp_path / "ray", executor="ray")
    assert outcome.exit_code == 1
    assert [(f["label"], "on purpose" in f["reason"]) for f in outcome.failures] == [
        ("broken", True)
    ]
