"""Times an epoch of MNIST training: ours against the plain loop, in turn, with the same network.

    python scripts/time_epoch.py [--data DIR] [--repeats 3] [--backbone lenet_plus]

The plain loop is what a tutorial shows: torchvision's data set with transforms, a DataLoader with
two workers, float32, SGD. Prints both medians and their ratio; only the ratio means something on
a shared machine.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

from robustloss.data import load_dataset
from robustloss.idx import data_root
from robustloss.models import build_classifier
from robustloss.spec import TrainSpec
from robustloss.train import train


def new_model(dataset, backbone):
    build = {
        "loss": "softmax",
        "loss_params": {},
        "backbone": backbone,
        "backbone_params": {},
        "feature_dim": 100,
        "num_classes": 10,
        "image_shape": dataset.image_shape,
        "mean": dataset.mean,
        "std": dataset.std,
    }
    torch.manual_seed(0)
    return build_classifier(build)


def plain_epoch(dataset, backbone, root):
    """One epoch over the 60,000 images; returns seconds an image."""
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    images = torchvision.datasets.MNIST(root, train=True, transform=transform)
    loader = torch.utils.data.DataLoader(images, batch_size=128, shuffle=True, num_workers=2)
    model = new_model(dataset, backbone)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    began = time.perf_counter()
    model.train()
    for batch, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), labels).backward()
        optimizer.step()
    return (time.perf_counter() - began) / len(images)


def our_epoch(dataset, backbone):
    """One epoch over our training images, validation included; returns seconds an image."""
    spec = TrainSpec(epochs=1, batch_size=128, lr=0.02)
    model = new_model(dataset, backbone)
    began = time.perf_counter()
    train(model, dataset, spec, seed=0, device=torch.device("cpu"))
    return (time.perf_counter() - began) / dataset.train.n


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backbone", default="lenet_plus")
    options = parser.parse_args()
    root = options.data or data_root(None)
    dataset = load_dataset("mnist", root=root)
    times = [
        (plain_epoch(dataset, options.backbone, root), our_epoch(dataset, options.backbone))
        for _ in range(options.repeats)
    ]
    plain, ours = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = sorted(p / o for p, o in times)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.backbone}")
    print(f"plain loop  {60_000 * plain:7.1f} s an epoch of 60,000 images (median)")
    print(f"robustloss  {60_000 * ours:7.1f} s an epoch of 60,000 images (median)")
    print(
        f"ratio       {statistics.median(ratios):7.2f} (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


if __name__ == "__main__":
    main()
