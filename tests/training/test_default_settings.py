"""Training without a table [train]: no loss may become NaN, at any size of data and batch.

The small grid runs with every test, the larger one with `pytest -m slow`. More of it, one line of
JSON a training:

    python -m tests.training.test_default_settings mnist,fashion_mnist 2000,6000 32,128,512 5
"""

import json
import sys
import time

import pytest
import torch

from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.losses import LOSSES
from robustloss.models import build
from robustloss.models.classifier import compute_features
from robustloss.seeding import using_seed
from robustloss.spec.load import load_spec
from robustloss.training.train import train

SMALL = {"model": {"backbone": "digits_cnn", "feature_dim": 32}}  # of digits, 8 x 8 pixels
FOLDERS = {"cifar10-jpeg": {"name": "image_folder", "folder": "cifar10-jpeg.tar.xz"}}
# The margin of L-Softmax (m 4) grows over 20,000 steps as published: in a hundred it comes
# too fast. And 27 steps, of 2,500 images, are too few for two more.
TOO_FEW_STEPS = {"l_softmax": 0.42}
TOO_FEW_OF_27 = {"l_softmax": 0.42, "a_softmax": 0.45, "arcface": 0.36}


def load(name, **sizes):
    sizes = {"validation_size": 1000, "test_size": 10, **sizes}
    table = {**FOLDERS.get(name, {"name": name}), **({} if name == "digits" else sizes)}
    try:
        return load_dataset(load_spec(spec_of("softmax", data=table)).data, download=False)
    except DataError as error:
        pytest.skip(f"no {name} here: {error}")


def spec_of(loss, **tables):
    attacks = [{"name": "fgsm", "eps": [0.1]}]
    tables = {"model": {"backbone": "lenet_plus"}, **tables}  # digits have another by default
    return {"name": "defaults", "losses": [{"name": loss}], "attacks": attacks, **tables}


def error_of(dataset, spec, position=0):
    """Trains the first cell of a loss; returns the share of validation images that are wrong."""
    cell = load_spec(spec).cells()[position]
    with using_seed("weights", cell.seed):
        network = build.describe_network(cell, dataset)
        model = build.build_with_weights(None, network, ())
    train(model, dataset, cell.train, seed=cell.seed, device=torch.device("cpu"))
    validation = dataset.validation
    logits = model.head.logits(compute_features(model, validation))
    return float((logits.argmax(1) != validation.labels).float().mean())


@pytest.fixture(scope="module")
def few_clothes():
    return load("fashion_mnist", train_size=2500)


@pytest.mark.parametrize("loss", ["softmax", "center", "gm", "lgm", "cosface", "triplet"])
def test_a_short_training_by_defaults_learns(few_clothes, loss):
    train = {"epochs": 3, "batch_size": 256}  # 27 steps
    assert error_of(few_clothes, spec_of(loss, train=train)) <= 0.30


@pytest.mark.parametrize("name", ["mnist", "mnist-paper"])
def test_a_shipped_spec_learns_from_few_images(name):
    cut = load("mnist", train_size=2000)
    spec = load_spec(name).plain()
    spec["train"]["epochs"] = 2
    assert error_of(cut, spec) <= 0.30  # softmax


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [64, 128, 256])
@pytest.mark.parametrize("images", [2500, 4000])
@pytest.mark.parametrize("loss", LOSSES)
def test_three_epochs_of_clothes(loss, images, batch_size):
    train = {"epochs": 3, "batch_size": batch_size}
    clothes = load("fashion_mnist", train_size=images)
    exceptions = TOO_FEW_OF_27 if (images, batch_size) == (2500, 256) else TOO_FEW_STEPS
    assert error_of(clothes, spec_of(loss, train=train)) <= exceptions.get(loss, 0.30)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [32, 512])
@pytest.mark.parametrize("data", ["mnist", "fashion_mnist", "digits"])
@pytest.mark.parametrize("loss", LOSSES)
def test_all_losses_by_defaults(loss, data, batch_size):
    dataset = load(data, train_size=6000)
    tables = {"train": {"batch_size": batch_size}} | (SMALL if data == "digits" else {})
    if data == "digits":
        tables["train"]["epochs"] = 20  # 997 images make 1 to 31 steps an epoch
    assert error_of(dataset, spec_of(loss, **tables)) <= 0.40


if __name__ == "__main__":
    names, sizes, batches, epochs, *losses = sys.argv[1:]
    torch.set_num_threads(1)
    for data in names.split(","):
        for size in map(int, sizes.split(",")):
            dataset = load(data, train_size=size)
            tables = SMALL if data == "digits" else {}
            for batch_size in map(int, batches.split(",")):
                settings = {"epochs": int(epochs), "batch_size": batch_size}
                for loss in losses or LOSSES:
                    began = time.monotonic()
                    try:
                        error = 100 * error_of(dataset, spec_of(loss, train=settings, **tables))
                        found = {"error": round(error, 2)}
                    except RuntimeError as failure:  # a divergence
                        found = {"failed": str(failure)}
                    place = {"data": data, "images": dataset.train.n, **settings, "loss": loss}
                    seconds = round(time.monotonic() - began, 1)
                    print(json.dumps({**place, **found, "seconds": seconds}), flush=True)
