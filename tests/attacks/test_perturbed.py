"""What `perturb` returns says itself what it is, and how often the attack succeeded."""

import torch

from robustloss.attacks import build_attack, iter_perturb, perturb
from tests.attacks.models import BinaryLinear, images


def attacked(name="fgsm", eps=(0.0, 8 / 255, 1.0)):
    model, inputs = BinaryLinear(), images(20)
    labels = model(inputs).argmax(dim=1)
    labels[0] = 1 - labels[0]  # wrong without an attack
    return perturb(build_attack(name), model, inputs, labels, eps=eps, batch_size=7), model, labels


def test_success_is_that_the_prediction_is_not_the_label():
    found, model, labels = attacked()
    assert found.eps == (0.0, 8 / 255, 1.0)
    expected = torch.stack([model(each).argmax(dim=1) != labels for each in found.adv_inputs])
    assert torch.equal(found.success, expected)
    assert found.success[0].tolist() == [True] + [False] * 19
    assert found.success[2].all()  # a ball that holds every image


def test_it_says_what_it_is_in_a_few_lines():
    found, _, _ = attacked()
    lines = repr(found).splitlines()
    assert lines[0].startswith("Perturbed: 20 images of ")
    assert lines[1] == "eps 0: 1 of 20 wrong (5.0 %)"
    assert lines[2].startswith("eps 8/255: ")
    assert "adv_inputs[i]" in lines[-1]
    assert "radius" not in lines[-1]
    html = found._repr_html_()
    assert html.count("<li>") == 3
    assert "<style" not in html
    assert "radius" in repr(attacked("deepfool")[0])


def test_judging_counts_as_no_query_of_the_attack_and_leaves_the_model_alone():
    found, model, labels = attacked(eps=(0.1, 0.2))
    assert (found.queries.forward, found.queries.backward) == (20, 20)
    model.train()
    inputs = images(20)
    part = next(iter_perturb(build_attack("fgsm"), model, inputs, labels, eps=[0.1]))
    assert part.success is None
    assert "eps 0.1" in repr(part)
    perturb(build_attack("fgsm"), model, inputs, labels, eps=[0.1])
    assert model.training
