"""Models that draw at random: with eot an attack gets the mean of several calls."""

import math

import pytest
import torch
from torch import nn

import robustloss
from robustloss.attacks import PluginError, build_attack, perturb
from robustloss.attacks.draws import MeanOfDraws, mean_of_logits

PIXELS, EPS, WEIGHT, LEAD = 400, 0.1, 0.05, 1.2
MOST = EPS * PIXELS * WEIGHT  # 2: by how much an attack can lower the mean margin


class NoisyWeights(nn.Module):
    """Logits (1, 1 + z/100), z = (x − 0.4)·(w + σξ) + LEAD − MOST, ξ normal, new for each image.

    On grey images z has the mean LEAD, and MOST less where each pixel is lowered by EPS.

    So small a z leaves the softmax linear: its mean is that of the mean weights.
    """

    threshold = -math.inf

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        self.register_buffer("weight", torch.full((PIXELS,), WEIGHT))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        noise = self.sigma * torch.randn(len(images), PIXELS)
        z = ((images - 0.4).flatten(1) * (self.get_buffer("weight") + noise)).sum(1) + LEAD - MOST
        return torch.stack((torch.ones_like(z), 1 + 0.01 * z), dim=1)

    def joint(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self(images)
        return logits, logits


def grey(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((n, 1, 20, 20), 0.5), torch.ones(n, dtype=torch.int64)


def mean_margins(adv_inputs: torch.Tensor) -> torch.Tensor:
    return WEIGHT * (adv_inputs - 0.5).flatten(1).sum(1) + LEAD


def test_mean_has_the_mean_posterior_and_the_mean_energy():
    draws = 30 * torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    mean = mean_of_logits(draws)
    torch.testing.assert_close(mean.softmax(1), draws.softmax(2).mean(0))
    torch.testing.assert_close(mean.logsumexp(1), draws.logsumexp(2).mean(0))


@pytest.mark.parametrize("calls", [1, 16])
def test_signs_of_fgsm_are_right_as_often_as_the_normal_law_says(calls):
    """A pixel's gradient is w + σξ/√n, of the right sign with probability Φ(w√n/σ)."""
    images, labels = grey(40)
    found = perturb(build_attack("fgsm", eot=calls), NoisyWeights(0.25), images, labels, eps=[EPS])
    right = (found.adv_inputs[0] < 0.5).double().mean().item()
    expected = 0.5 * (1 + math.erf(WEIGHT * math.sqrt(calls) / 0.25 / math.sqrt(2)))
    assert right == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(40 * PIXELS))
    assert found.queries == (40 * calls, 40 * calls)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("fgsm", {"objective": "margin"}),
        ("pgd", {"steps": 5}),
        ("mifgsm", {"steps": 5}),
        ("apgd_ce", {"steps": 5}),
        ("adaptive_selective", {"steps": 8, "random_start": False}),
    ],
)
def test_noise_hides_the_gradient_of_one_call_and_not_of_many(name, params):
    """Against the mean weights, not against draws: LEAD is less than MOST, so every image falls."""
    (images, labels), model = grey(12), NoisyWeights(0.25)
    plain, averaged = (
        perturb(build_attack(name, **params, eot=n), model, images, labels, eps=[EPS])
        for n in (1, 40)
    )
    assert (mean_margins(plain.adv_inputs[0]) > 0.3).all()
    assert (mean_margins(averaged.adv_inputs[0]) < 0).all()
    assert averaged.success is not None
    assert averaged.success.float().mean() > 0.9
    most = build_attack(name, **params, eot=40).passes(1)
    assert all(0 < made <= 12 * limit for made, limit in zip(averaged.queries, most, strict=True))


def test_mean_with_a_seed_draws_the_same_again_and_leaves_the_state_outside():
    (images, _), model = grey(3), NoisyWeights(1.0)
    state = torch.get_rng_state()
    first, other = MeanOfDraws(model, 2, seed=5), MeanOfDraws(model, 2, seed=5)
    moved = images + 0.1
    answers = [first(moved), first(moved)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(answers[0], other(moved))
    assert not torch.equal(answers[0], answers[1])


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("pgd", {"eot": 0}, r"eot \(=0\) must be at least 1"),
        (
            "fab",
            {"eot": 5},
            r"fab.eot: fab cannot average calls of the model. Use fgsm, pgd, mifgsm, apgd_ce",
        ),
        ("autoattack", {"eot": 5}, 'Use version = "rand"'),
    ],
)
def test_refuses_what_cannot_be_averaged(name, params, message):
    with pytest.raises(PluginError, match=message):
        build_attack(name, **params)


def test_mark_goes_from_the_attack_that_averages_and_stays_on_the_others():
    (images, labels), sigma = grey(20), 0.15
    labels[0] = 0
    attacks = [
        {"name": "pgd", "label": label, "eps": [EPS], "params": {"steps": 5, "eot": calls}}
        for label, calls in (("plain", 1), ("too few", 2), ("averaged", 16))
    ]
    run = robustloss.evaluate(NoisyWeights(sigma), images, labels, attacks, noise=False, checks=3)
    errors = {row["attack_label"]: row["error"] for row in run.rows}
    # Judged by the mean of 16 calls, the clean images too: one label is wrong.
    assert errors["none"] == errors["plain"] == 1 / 20
    assert errors["averaged"] == 1.0
    assert "mean posterior of 16 calls" in str(run.table())
    flags = {(flag["check"], flag["attack_label"]): flag for flag in run.flags}
    assert "params = { eot = 20 }" in flags["output_not_repeatable", "plain"]["message"]
    assert not [flag for flag in flags if flag[1] in ("averaged", None)]
    assert ("output_not_repeatable", "too few") not in flags
    # Two means of n calls have the cosine 1 / (1 + σ²/(n w²)).
    cosine = 1 - flags["too_few_draws", "too few"]["value"]
    assert cosine == pytest.approx(1 / (1 + sigma**2 / (2 * WEIGHT**2)), abs=0.1)
