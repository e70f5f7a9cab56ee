"""The parts of a training on several processes that one process can check."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustloss.cells.jobs import CellJob
from robustloss.cells.keys import numerics
from robustloss.cells.weights import CellWeights
from robustloss.cli import commands
from robustloss.data.decode import Recipe
from robustloss.data.images import ImageSet
from robustloss.data.load import load_dataset
from robustloss.data.streamed import ImageFiles, StreamedImages
from robustloss.losses.softmax import SoftmaxHead
from robustloss.models.classifier import Classifier
from robustloss.models.weight_files import load_tensors, save_tensors
from robustloss.runs import runner
from robustloss.runs.executors.torchrun import check_shared
from robustloss.seeding import derive_seed, seed_global
from robustloss.spec.data import DataSpec
from robustloss.spec.load import load_spec
from robustloss.spec.training import TrainSpec
from robustloss.storage import digest, read_json
from robustloss.training import processes
from robustloss.training import train as training
from robustloss.training.augment import augment
from robustloss.training.batches import balanced_batches, batch_length, shuffled_batches
from robustloss.training.objective import Objective, is_known
from robustloss.training.shared_batch import share_of
from tests.small_model import new_model
from tests.small_run import Counted, changed
from tests.training.processes_worker import Network

CPU = torch.device("cpu")


def group_of(size, rank=0):
    """A group that sends nothing."""
    group = processes.Group()
    group.size, group.rank = size, rank
    return group


@pytest.fixture
def digits():
    return load_dataset(DataSpec(name="digits", train_size=20), quiet=True)


def test_shares_cut_a_batch_without_a_gap():
    for count in (2, 7, 8, 41):
        for size in (2, 3, 7):
            shares = [share_of(count, rank, size) for rank in range(size)]
            assert [i for share in shares for i in range(share.start, share.stop)] == list(
                range(count)
            )
            lengths = [share.stop - share.start for share in shares]
            assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("kind", ["none", "shift", "crop", "crop_flip", "crop_flip_cutout"])
@pytest.mark.parametrize("size", [None, (6, 5)])
def test_a_share_is_moved_as_the_whole_batch_is(kind, size):
    images = torch.randint(0, 255, (9, 1, 8, 8), dtype=torch.uint8)
    whole = augment(images, kind, 3, size=size)
    parts = [augment(images[a:b], kind, 3, size=size, of=(a, 9)) for a, b in ((0, 4), (4, 9))]
    assert torch.equal(torch.cat(parts), whole)


def test_what_torchrun_cannot_share_is_told():
    spec = load_spec(changed())
    check_shared(spec, "serial", "cpu")
    with pytest.raises(ValueError, match="torchrun has started"):
        check_shared(spec, "processes:2", "cpu")
    with pytest.raises(ValueError, match="cannot be shared by torchrun"):
        check_shared(spec, "serial", "mps")
    with pytest.raises(ValueError, match="minutes cannot be kept"):
        check_shared(load_spec(changed(resources={"minutes": 5})), "serial", "cpu")


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 2), ("cuda", 4), ("cpu", 0)])
def test_as_many_processes_as_gpus_are_taken(monkeypatch, device, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    check_shared(load_spec(changed()), "serial", device)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"--nproc-per-node \(=3\) must .* \(=2\).*-node 2, or"):
        check_shared(load_spec(changed()), "serial", "cuda")


@pytest.mark.parametrize(
    ("loss", "batch_size", "size", "message"),
    [
        ("softmax", 2, 3, r"train.batch_size \(=2\) makes batches of 2, .* 3 processes; start at "),
        ("softmax", 50, 21, "a training set of 20 images makes batches of 20, .* at most 20"),
        ("triplet", 19, 17, r"train.batch_size \(=19\) for 10 classes .* of 16, .* at most 16"),
    ],
)
def test_more_processes_than_images_of_a_batch_are_refused(
    digits, monkeypatch, loss, batch_size, size, message
):
    monkeypatch.setattr(processes, "_current", group_of(size))
    settings = TrainSpec.model_validate({"epochs": 1, "batch_size": batch_size})
    with pytest.raises(ValueError, match=message):
        training.train(new_model(digits, loss), digits, settings, seed=0, device=CPU)


@pytest.mark.parametrize("batch_size", [1, 7, 19, 20, 41, 500])
def test_the_length_of_a_batch_is_known_before(batch_size):
    labels = torch.arange(10).repeat(12)
    shuffled = next(shuffled_batches(120, batch_size, 0, 0))
    assert batch_length(120, 10, batch_size, "shuffled") == len(shuffled)
    balanced = next(balanced_batches(labels, 10, batch_size, 0, 0))
    assert batch_length(120, 10, batch_size, "balanced") == len(balanced)


# --- what the files are called -------------------------------------------------------------------


def weights_of(folder, train_size=200):
    spec = load_spec(changed(seeds=[0]))
    data = load_dataset(DataSpec(name="digits", train_size=train_size), quiet=True)
    return CellWeights(CellJob(spec, spec.cells()[0], folder, "cpu", None), data)


def test_the_number_of_processes_names_the_weights_and_not_the_checkpoint(tmp_path, monkeypatch):
    alone = weights_of(tmp_path)
    literal = digest(*alone.ingredients.values(), numerics(CPU))
    assert alone.key == literal  # as before there were several
    for size in (2, 3):
        monkeypatch.setattr(processes, "_current", group_of(size))
        weights = weights_of(tmp_path)
        assert weights.key == f"{literal}-x{size}"
        assert weights.checkpoint == alone.checkpoint


def test_other_data_or_code_are_told_with_both_values(tmp_path):
    weights, other = weights_of(tmp_path), weights_of(tmp_path, train_size=100)
    weights.check_ingredients(weights_of(tmp_path / "elsewhere").ingredients)
    there, here = (each.dataset.training_checksum for each in (weights, other))
    with pytest.raises(
        ValueError, match=rf"training data \(='{here}'\) is '{there}' in rank 0.* give every"
    ):
        other.check_ingredients(weights.ingredients)
    train = {**weights.ingredients["train"], "precision": "bfloat16"}
    found = {**weights.ingredients, "the source of the loss": "1f", "train": train}
    with pytest.raises(ValueError, match=r"loss .* '1f' .*; train: precision .* 'bfloat16'"):
        weights.check_ingredients(found)


@pytest.mark.usefixtures("no_report")
def test_weights_that_several_trained_serve_one(tmp_path, monkeypatch):
    spec = changed(seeds=[0], losses=[{"name": "softmax"}])
    runner.run(spec, out=tmp_path / "run", device="cpu")
    (path,) = (tmp_path / "run").rglob("model-*")
    shared = path.rename(path.with_name(f"{path.stem}-x4.safetensors"))
    (mark,) = (tmp_path / "run").rglob("cell.json")
    mark.unlink()
    counted = Counted(monkeypatch)
    runner.run(spec, out=tmp_path / "run", device="cpu")
    assert counted.trained == 0
    assert read_json(mark, checked=True)["files"]["model"] == shared.name
    runner.run(spec, out=tmp_path / "other", device="cpu", reuse=tmp_path / "run")
    assert counted.trained == 0
    assert [each.name for each in (tmp_path / "other").rglob("model-*")] == [shared.name]
    shared.write_bytes(b"damaged")
    runner.run(spec, out=tmp_path / "run", device="cpu")
    assert counted.trained == 1
    assert path.exists()


def test_a_training_that_goes_on_with_fewer_keeps_the_number_that_it_had(
    digits, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    settings = TrainSpec.model_validate({"epochs": 3, "batch_size": 10, "precision": "float32"})
    path = tmp_path / "checkpoint.safetensors"
    training.train(new_model(digits), digits, settings, seed=0, device=CPU, checkpoint=path)
    tensors, meta = load_tensors(path)  # after two of three epochs
    for line in meta["log"]["curve"]:
        line["processes"] = 4
    meta["log"]["processes"] = 4
    del meta["tensors"]
    save_tensors(path, tensors, meta)
    log = training.train(new_model(digits), digits, settings, seed=0, device=CPU, checkpoint=path)
    assert log.processes == 4
    assert [line.get("processes") for line in log.curve] == [4, 4, None]


# --- what each process computes ------------------------------------------------------------------


class Drawing(SoftmaxHead):
    """Draws in its loss."""

    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        return terms._replace(regulariser=torch.rand(len(labels)))


class Still:
    """Stands for the adversary of TRADES."""

    def divergence(self, clean, attacked):
        return torch.zeros(len(clean))


def test_each_process_drops_other_units_and_the_heads_draw_the_same():
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    outputs, draws = [], []
    for rank in range(2):
        backbone = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
        backbone.register_forward_hook(lambda *call: outputs.append(call[2] == 0))
        head = Drawing(16, 3)
        model = Classifier(backbone, head, [0.0], [1.0])
        objective = Objective(model, "float32", Still(), processes.Group())
        objective.head_seed = 7
        seed_global(CPU, derive_seed("step", rank))
        draws.append(objective(images, images.clone(), labels, 0.0).regulariser)
    clean, attacked, other_clean, other_attacked = outputs
    assert not torch.equal(clean, other_clean)
    assert not torch.equal(attacked, other_attacked)
    assert torch.equal(*draws)


def test_code_of_others_may_use_other_parameters_in_every_step(digits):
    assert is_known(new_model(digits))
    assert not is_known(Classifier(Network(False), SoftmaxHead(8, 10), digits.mean, digits.std))
    assert not is_known(Classifier(nn.Flatten(), Drawing(64, 10), digits.mean, digits.std))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_passes_of_a_validation_decode_each_image_once(monkeypatch, size):
    """None is decoded ahead that another process reads."""
    decoded = []

    def start(self, positions):
        decoded.extend(self.source.paths[self.positions[positions]].tolist())
        return torch.zeros(len(positions), *self.source.shape, dtype=torch.uint8), []

    monkeypatch.setattr(StreamedImages, "_start", start)
    monkeypatch.setattr(ImageSet, "pass_size", 4)
    n, names = 30, np.array([f"{i}.png" for i in range(30)], dtype=object)
    labels = torch.arange(n) % 10
    model = Classifier(nn.Flatten(), SoftmaxHead(64, 10), [0.0], [1.0])
    total = 0
    for rank in range(size):
        images = StreamedImages(ImageFiles(Path(), names, Recipe(1, (8, 8), None)))
        images = ImageSet(images, labels, torch.arange(n), 255.0)
        total += n * training.error_rate(model, images, "float32", group_of(size, rank))
    assert sorted(decoded) == sorted(names.tolist())
    with torch.no_grad():
        predicted = int(model(torch.zeros(1, 1, 8, 8)).argmax())
    assert total == pytest.approx(int((labels != predicted).sum()))


def test_a_command_that_torchrun_started_goes_on_by_torchrun(monkeypatch):
    assert commands._program() == "robustloss"
    for name, value in (
        ("TORCHELASTIC_RUN_ID", "1"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_WORLD_SIZE", "2"),
    ):
        monkeypatch.setenv(name, value)
    assert commands._program() == "torchrun --nproc-per-node 2 -m robustloss"
    logged = commands._program(["run", "mnist", "--log", "l.jsonl"])
    assert logged == "torchrun --nproc-per-node 2 -m robustloss --"
    monkeypatch.setenv("WORLD_SIZE", "6")
    several = "torchrun --nnodes ... --rdzv-endpoint ... --nproc-per-node 2 -m robustloss"
    assert commands._program() == several
