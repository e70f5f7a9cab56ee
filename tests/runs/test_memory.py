"""How much memory an evaluation takes: what its images need, and nothing twice."""

import resource
import subprocess
import sys

import torch
from torch import nn

import robustloss
from robustloss import progress

PIXELS = 3 * 32 * 32  # bytes of an image
BATCH = 500


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 5, 4), nn.Linear(196, 10)

    def forward(self, images):
        return self.linear(self.conv(images).relu().flatten(1))


def batches(count):
    drawn = torch.Generator().manual_seed(0)
    for _ in range(0, count, BATCH):
        levels = torch.randint(0, 256, (BATCH, 3, 32, 32), generator=drawn)
        yield levels / 255, torch.randint(0, 10, (BATCH,), generator=drawn)


def peak_of(count):
    """Return the largest memory in bytes of a process that evaluates so many images."""
    code = f"from tests.runs.test_memory import measure; measure({count})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def measure(count):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    robustloss.evaluate(
        Small().eval(),
        batches(count),
        attacks=["fgsm"],
        quick=True,
        progress=progress.Silent(),
    )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def test_the_peak_grows_by_hardly_more_than_the_images():
    more = 20_000
    # The first thousands of images fill what an attack and its checks need for any number.
    grown = (peak_of(8_000 + more) - peak_of(8_000)) / more
    assert grown < 1.5 * PIXELS, f"{grown:.0f} bytes an image, {PIXELS} are its pixels"
