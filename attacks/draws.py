"""Models that draw at random when they are asked: the mean of several calls as one model.

An attack on such a model sees another gradient at every call, and an image that fools one call need
not fool the next. With `eot = n` an attack gets the mean of n calls instead of the model, and its
images are judged by the mean of n calls too.

What is averaged is the posterior. Athalye et al. ("Obfuscated gradients give a false sense of
security", ICML 2018) follow the gradient of the expected output, expectation over transformation.
A prediction by the mean softmax of n calls is that of Liu et al. ("Towards robust neural networks
via random self-ensemble", ECCV 2018), and its cross-entropy is what Salman et al. ("Provably robust
deep learning via adversarially trained smoothed classifiers", NeurIPS 2019) climb. AutoAttack's
version "rand" instead averages the gradients of each call's own loss, over 20 calls, and judges by
a single call.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustloss.attacks.base import Attack
from robustloss.attacks.sealing import seeding_generators
from robustloss.attacks.witness import is_ours


def mean_of_logits(draws: Tensor) -> Tensor:
    """Return logits (B,K) whose softmax is the mean softmax of some draws.

    Their logsumexp is the mean one, so that scores such as the energy keep their scale. Class
    log-likelihoods are averaged in the same way.

    Args:
        draws: (S,B,K), logits of S calls.
    """
    totals = draws.logsumexp(dim=2, keepdim=True)
    return (draws - totals).logsumexp(dim=0) - math.log(len(draws)) + totals.mean(dim=0)


class MeanOfDraws(nn.Module):
    """The mean of several calls of a model; whatever else the model offers is the model's own.

    A pass with gradients holds the graphs of all calls: see `images_at_once`.

    Args:
        model: draws anew at every call.
        draws: calls, at least 1.
        seed: decides what the model draws, together with how often this one was asked before; the
            random state outside is left alone. None draws from the state outside.
    """

    def __init__(self, model: nn.Module, draws: int, seed: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.draws = draws
        self.seed = seed
        self.asked = 0
        self.training = model.training

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name in modules or "model" not in modules:
            return super().__getattr__(name)
        return getattr(modules["model"], name)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to logits (B,K)."""
        return mean_of_logits(torch.stack(self._call(self.model, images)))

    def features(self, images: Tensor) -> Tensor:
        """Map images to their mean features (B,D)."""
        return torch.stack(self._call(self.model.features, images)).mean(dim=0)  # type: ignore[arg-type]

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B,K) and class log-likelihoods (B,K)."""
        logits, likelihood = zip(*self._call(self.model.joint, images), strict=True)  # type: ignore[arg-type]
        return mean_of_logits(torch.stack(logits)), mean_of_logits(torch.stack(likelihood))

    def scored(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B,K), and the means of the score's goals (B,K) and of the score (B,)."""
        logits, *rest = zip(*self._call(self.model.scored, images), strict=True)  # type: ignore[arg-type]
        goals, score = (torch.stack(each).mean(dim=0) for each in rest)
        return mean_of_logits(torch.stack(logits)), goals, score

    def outputs(self, images: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return features (B,D) or None, logits (B,K) and class log-likelihoods (B,K)."""
        calls = self._call(self.model.outputs, images)  # type: ignore[arg-type]
        features, logits, likelihood = zip(*calls, strict=True)
        mean = None if features[0] is None else torch.stack(features).mean(dim=0)
        return mean, mean_of_logits(torch.stack(logits)), mean_of_logits(torch.stack(likelihood))

    def _call(self, ask: Callable[[Tensor], Any], images: Tensor) -> list[Any]:
        """Return what each of the calls says of the images."""
        if self.seed is None:
            return [ask(images) for _ in range(self.draws)]
        self.asked += 1
        with seeding_generators(images.device, (self.seed + self.asked) % 2**63):
            return [ask(images) for _ in range(self.draws)]


def count_draws(attack: Attack) -> int:
    """Return the calls of the model whose mean an attack gets: its `eot`, 1 for most attacks.

    Args:
        attack: counted as 1 unless it is ours; what `eot` means in another is its own affair.
    """
    return int(getattr(attack, "eot", 1)) if is_ours(attack) else 1


def most_draws(attacks: Sequence[Attack]) -> int:
    """Return the calls whose mean judges the images of some attacks: the most of any of them.

    The clean error and those of all attacks are then errors of the same model.

    Args:
        attacks: whatever `build_attack` returned.
    """
    return max(map(count_draws, attacks), default=1)


def average_draws(model: nn.Module, draws: int, seed: int | None = None) -> nn.Module:
    """Return the mean of some calls of a model; for one call the model itself.

    Args: as for `MeanOfDraws`.
    """
    return model if draws == 1 else MeanOfDraws(model, draws, seed)


def images_at_once(attack: Attack, batch_size: int) -> int:
    """Return how many images an attack gets at once, so that `eot` needs no more memory.

    Args:
        attack: whatever `build_attack` returns.
        batch_size: images whose graphs are held at once.
    """
    return max(1, batch_size // count_draws(attack))
