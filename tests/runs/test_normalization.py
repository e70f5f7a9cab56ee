"""A model in memory that wants normalised images: its gradient, its numbers, and mistakes."""

import numpy as np
import pytest
import torch
from torch import nn

import robustloss
from robustloss import progress
from tests.models.test_given import classifier
from tests.runs.test_in_memory import evaluate, rand


def linear():
    """A linear model of images (3,2,2) of mean MEAN and deviation STD, and one that divides so."""
    mean, std = (torch.tensor(each).view(3, 1) for each in (MEAN, STD))
    outside = nn.Linear(12, 3)
    weight = outside.weight.detach().view(3, 3, 4)
    inside = nn.Linear(12, 3)
    with torch.no_grad():
        inside.weight.copy_((weight / std).flatten(1))
        inside.bias.copy_(outside.bias - (weight * mean / std).sum((1, 2)))
    return nn.Sequential(nn.Flatten(), outside), nn.Sequential(nn.Flatten(), inside)


MEAN, STD = [0.2, 0.5, 0.7], [0.5, 0.25, 0.1]


def test_the_gradient_passes_through_the_normalisation(tmp_path):
    """FGSM on a linear model of two classes reaches the worst logits: w.x - eps |w|, w over std."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    grey = ((0.5 - torch.tensor(MEAN)) / torch.tensor(STD)).repeat_interleave(4)
    with torch.no_grad():
        model[1].bias.copy_(-(model[1].weight @ grey))  # so images of grey 0.5 are on the border
    images = 0.4 + 0.2 * rand(40, 3, 2)[0]  # no clip at 0 or 1 for an eps of 0.02
    labels = torch.arange(40) % 2
    fgsm = {"attacks": [{"name": "fgsm", "eps": [0.02]}], "seeds": [0]}
    keys = {"quick": True, "out": tmp_path, "progress": progress.Silent()}
    run = robustloss.evaluate(
        model, images, labels, fgsm, normalize={"mean": MEAN, "std": STD}, **keys
    )
    weight = model[1].weight.detach().double().view(2, 3, 4) / torch.tensor(STD).view(1, 3, 1)
    gap = (weight[1] - weight[0]).flatten()  # of the logits, by pixel value
    margin = (images.double() - 0.5).flatten(1) @ gap * (2 * labels - 1)  # of the true class
    errors = {row["attack"]: row["error"] for row in run.rows}
    assert errors["none"] == (margin < 0).double().mean().item()
    assert errors["fgsm"] == (margin - 0.02 * gap.abs().sum() < 0).double().mean().item()
    assert errors["none"] < errors["fgsm"] < 1
    stored = next(tmp_path.glob("cells/*/seed-0/fgsm-*.npz"))
    logits = torch.from_numpy(np.load(stored)["logits"]).double()
    found = (logits[:, 1] - logits[:, 0]) * (2 * labels - 1)
    torch.testing.assert_close(found, margin - 0.02 * gap.abs().sum(), atol=1e-4, rtol=1e-4)


def test_normalize_is_what_the_model_would_have_inside_and_decides_the_numbers(tmp_path):
    images, labels = rand(30, 3, 2)
    torch.manual_seed(0)
    outside, inside = linear()

    def found(model, **keys):
        run = evaluate({"A": model}, images, labels % 3, out=tmp_path, quick=True, **keys)
        return [row["error"] for row in run.rows]

    plain, same = found(outside), found(inside)
    given = found(outside, normalize={"mean": tuple(MEAN), "std": torch.tensor(STD).double()})
    assert given == same != plain
    count = len(list(tmp_path.glob("cells/*/*/model-*")))
    assert found(outside, normalize="imagenet") != given
    assert len(list(tmp_path.glob("cells/*/*/model-*"))) == count + 1
    numbers = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    found(outside, normalize=numbers)
    assert len(list(tmp_path.glob("cells/*/*/model-*"))) == count + 1
    assert found(outside, normalize={"mean": MEAN, "std": STD}) == given


@pytest.mark.parametrize(
    ("normalize", "message"),
    [
        ({"mean": [0.5], "std": [0.5]}, r"normalize.mean \(=\[0.5\]\) must have one .* images, 3"),
        ({"mean": MEAN, "std": STD[:2]}, r"normalize.std \(=.*as many numbers as mean, 3"),
        ({"mean": MEAN, "std": [0.5, 0, 0.5]}, r"^normalize.std\[1\] \(=0\) must lie in .0, 1."),
        ({"mean": MEAN, "std": [0.5, -1.0, 0.5]}, r"normalize.std\[1\] \(=-1.0\) must lie in"),
        ({"mean": [120, 0.5, 0.5], "std": STD}, r"mean\[0\] \(=120\) .* Divide mean and std by"),
        ({"mean": MEAN, "std": [58.4, 0.5, 0.5]}, r"std\[0\] \(=58.4\) .* Divide mean and std by"),
        ({"mean": 0.5, "std": STD}, r"normalize.mean \(=0.5\) must be a list with one number"),
        ({"mean": [], "std": []}, r"normalize.mean \(=\[\]\) must be a list with one number"),
        ({"mean": [True] * 3, "std": STD}, "normalize.mean .* must be a list with one number"),
        ({"mean": [float("nan")] * 3, "std": STD}, r"normalize.mean\[0\] .*must be a finite"),
        ({"mean": MEAN}, r'normalize \(=.* must be "imagenet", or a table of mean and std'),
        ("cifar", r'normalize \(="cifar"\) must be "imagenet", or a table of mean and std'),
        (0.5, "normalize .* must be"),
    ],
)  # fmt: skip
def test_a_normalisation_that_cannot_be_right_is_told(normalize, message, tmp_path):
    images, labels = rand(6, 3, 2)
    with pytest.raises(ValueError, match=message):
        evaluate(linear()[0], images, labels % 3, normalize=normalize, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_classifier_of_a_run_is_not_normalised_twice():
    images, labels = rand()
    with pytest.raises(ValueError, match=r"normalised twice. Leave normalize out"):
        evaluate(classifier(), images, labels, normalize={"mean": [0.3], "std": [0.4]})
