"""Agreement with foolbox, ART, torchattacks and pyautoattack on the same model and images."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchattacks
from sklearn.datasets import load_digits
from torch import Tensor, nn

from robustloss.attacks import build_attack, perturb
from robustloss.attacks.ball import distance

ROOT = Path(__file__).parents[2]
STEPS, SHARE = 20, 0.1  # of PGD: gradients, and step size over eps
# What the reference AutoAttack is made of, with its numbers of steps, targets and queries.
OURS: dict[str, dict[str, object]] = {
    "apgd_ce": {"steps": 100, "restarts": 1},
    "apgd_dlr": {"steps": 100, "restarts": 1, "targets": 9},
    "fab": {"norm": "linf", "steps": 100},
    "square": {"queries": 5000},
}


class Trained(NamedTuple):
    model: nn.Module
    inputs: Tensor
    labels: Tensor


@pytest.fixture(scope="module")
def digits() -> Trained:
    """A small network at a few percent error, and 256 images that it has not seen."""
    found = load_digits()
    inputs = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(found.target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24 * 16, 10),
        )
        adam = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(60):
            batch = torch.randint(0, len(inputs) - 256, (128,))
            loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
    model.eval()
    # 256 images: a mean over them divides by a power of two, which rounds nothing.
    unseen = Trained(model, inputs[-256:], labels[-256:])
    assert (model(unseen.inputs).argmax(dim=1) != unseen.labels).double().mean() < 0.15
    return unseen


def of_foolbox(attack: str, on: Trained, eps: float, **keys) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(on.model, bounds=(0, 1), device="cpu")
    run = getattr(foolbox.attacks, attack)(**keys)
    return run(model, on.inputs, on.labels, epsilons=eps)[1]


def of_art(attack: str, on: Trained, **keys) -> Tensor:
    pytest.importorskip("art")
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(
        on.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(on.inputs.shape[1:]),
        nb_classes=10,
        clip_values=(0, 1),
        device_type="cpu",
    )
    run = getattr(evasion, attack)(model, batch_size=len(on.inputs), **keys)
    return torch.from_numpy(run.generate(on.inputs.numpy(), y=on.labels.numpy()))


def ours(on: Trained, name: str, eps: float, **params) -> Tensor:
    return perturb(
        build_attack(name, **params), on.model, on.inputs, on.labels, eps=[eps]
    ).adv_inputs[0]


@pytest.mark.parametrize("eps", [0.05, 0.2])
@pytest.mark.parametrize("peer", ["foolbox", "art", "torchattacks", "adapter"])
def test_fgsm_is_the_same_image(digits, peer: str, eps: float) -> None:
    theirs = {
        "foolbox": lambda: of_foolbox("LinfFastGradientAttack", digits, eps, random_start=False),
        "art": lambda: of_art("FastGradientMethod", digits, eps=eps),
        "torchattacks": lambda: torchattacks.FGSM(digits.model, eps)(digits.inputs, digits.labels),
        "adapter": lambda: ours(digits, "torchattacks:FGSM", eps),
    }[peer]()
    torch.testing.assert_close(ours(digits, "fgsm", eps), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("peer", ["foolbox", "art", "torchattacks", "adapter"])
def test_pgd_from_the_image_predicts_the_same(digits, peer: str) -> None:
    eps, step = 0.1, SHARE * 0.1
    theirs = {
        "foolbox": lambda: of_foolbox(
            "LinfPGD", digits, eps, steps=STEPS, abs_stepsize=step, random_start=False
        ),
        "art": lambda: of_art(
            "ProjectedGradientDescentPyTorch",
            digits,
            eps=eps,
            eps_step=step,
            max_iter=STEPS,
            num_random_init=0,
            verbose=False,
        ),
        "torchattacks": lambda: torchattacks.PGD(digits.model, eps, step, STEPS, False)(
            digits.inputs, digits.labels
        ),
        "adapter": lambda: ours(
            digits, "torchattacks:PGD", eps, alpha=step, steps=STEPS, random_start=False
        ),
    }[peer]()
    own = ours(digits, "pgd", eps, steps=STEPS, step_size=SHARE, random_start=False, keep="last")
    predictions = [digits.model(images).argmax(dim=1) for images in (own, theirs)]
    assert (predictions[0] == predictions[1]).double().mean() >= 0.995
    wrong = (predictions[0] != digits.labels).double().mean()
    assert 0.1 < wrong < 0.9  # neither is trivial


def test_l2_pgd_of_the_adapter_is_as_strong_as_ours(digits) -> None:
    own = ours(digits, "pgd", 0.8, norm="l2", steps=STEPS, keep="last")
    theirs = ours(digits, "torchattacks:PGDL2", 0.8, steps=STEPS)
    errors = [
        float((digits.model(images).argmax(dim=1) != digits.labels).double().mean())
        for images in (own, theirs)
    ]
    assert errors[1] == pytest.approx(errors[0], abs=0.02)
    assert 0.2 < errors[0] < 0.95


# --- real MNIST -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(real_data) -> Trained:
    """The backbone small_cnn after one epoch, and 200 test images."""
    from robustloss.data.load import load_dataset
    from robustloss.models.build import build_classifier
    from robustloss.seeding import using_seed
    from robustloss.spec.data import DataSpec
    from robustloss.spec.training import TrainSpec
    from robustloss.training import train as training

    data = load_dataset(
        DataSpec(name="mnist", test_size=200), root=real_data, download=False, quiet=True
    )
    build = {
        "loss": "softmax",
        "loss_params": {},
        "backbone": "small_cnn",
        "backbone_params": {},
        "feature_dim": 32,
        "num_classes": 10,
        "image_shape": data.image_shape,
        "mean": data.mean,
        "std": data.std,
    }
    with using_seed("weights", 0):
        model = build_classifier(build)
    spec = TrainSpec(epochs=1, precision="float32")
    training.train(model, data, spec, seed=0, device=torch.device("cpu"))
    images = data.test.batch(slice(0, 200))
    labels = data.test.labels
    assert (model.eval()(images).argmax(dim=1) != labels).double().mean() < 0.05
    return Trained(model, images.contiguous(), labels)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.mnist
def test_carlini_wagner_is_as_near_as_foolbox(mnist) -> None:
    foolbox = pytest.importorskip("foolbox")
    theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=200)
    model = foolbox.PyTorchModel(mnist.model, bounds=(0, 1), device="cpu")
    _, found, fooled = theirs(model, mnist.inputs, mnist.labels, epsilons=None)
    length = distance(found - mnist.inputs, "l2").masked_fill(~fooled, torch.inf)
    attack = build_attack("cw", search_steps=5, steps=200)
    radius = perturb(attack, mnist.model, mnist.inputs, mnist.labels, eps=[1.0]).radius
    print(f"median L2: ours {radius.median():.4f}, foolbox {length.median():.4f}")
    assert radius.isfinite().all()
    assert radius.median() <= 1.05 * length.median()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.mnist
def test_carlini_wagner_of_the_adapter_moves_black_and_white_pixels(mnist) -> None:
    on = Trained(mnist.model, (mnist.inputs[:50] > 0.5).float(), mnist.labels[:50])
    raw = torchattacks.CW(on.model, c=1, steps=1000, lr=0.01)(on.inputs, on.labels)
    assert torch.equal(raw, on.inputs)
    attack = build_attack("torchattacks:CW", c=10)
    found = perturb(attack, on.model, on.inputs, on.labels, eps=[1.0])
    print(f"fooled: {int(found.radius.isfinite().sum())} of 50")
    assert found.radius.isfinite().double().mean() > 0.9


REFERENCE = """
import sys
import numpy as np
import torch
from pyautoattack import AutoAttack

torch.manual_seed(0)
model = torch.load(sys.argv[1], weights_only=False).eval().requires_grad_(False)
arrays = np.load(sys.argv[2])
inputs, labels = (torch.from_numpy(arrays[key]) for key in ("inputs", "labels"))
attack = AutoAttack(model, norm="Linf", eps=float(sys.argv[3]), version="standard", seed=0)
_, predictions = attack.run_standard_evaluation(inputs, labels, batch_size=len(inputs))
np.save(sys.argv[4], (predictions != labels).numpy())
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.mnist
def test_worst_case_is_as_strong_as_the_reference(mnist, tmp_path) -> None:
    """In a process of its own: the reference ends every trace function."""
    pytest.importorskip("pyautoattack")
    eps = 0.1
    on = Trained(mnist.model, mnist.inputs[:100], mnist.labels[:100])
    torch.save(on.model, tmp_path / "model.pt")
    np.savez(tmp_path / "data.npz", inputs=on.inputs.numpy(), labels=on.labels.numpy())
    arguments = [tmp_path / "model.pt", tmp_path / "data.npz", str(eps), tmp_path / "wrong.npy"]
    subprocess.run([sys.executable, "-c", REFERENCE, *map(str, arguments)], check=True, cwd=ROOT)
    reference = torch.from_numpy(np.load(tmp_path / "wrong.npy"))
    fooled = {
        name: on.model(ours(on, name, eps, **params)).argmax(dim=1) != on.labels
        for name, params in OURS.items()
    }
    worst = torch.stack(list(fooled.values())).any(dim=0)
    shares = ", ".join(f"{name} {int(wrong.sum())}" for name, wrong in fooled.items())
    print(f"eps {eps}: reference {int(reference.sum())}, ours {int(worst.sum())} ({shares})")
    assert int((reference & ~worst).sum()) <= 1
