"""Outcomes of trainings that were never made: images, seeds, and how much either varies.

A training is right or wrong on an image by a chance that the image, the attack, and the training
decide: images are easy or hard for every network, a training is a little better or worse on all of
them, and it has images of its own.
"""

from __future__ import annotations

import numpy as np

from robustloss.results.compact.content import CellOutcomes, PassOutcome

N = 400
ATTACKS = (("fgsm", "FGSM", (0.1, 0.2)), ("pgd", "PGD", (0.1, 0.2)))
LOSSES = ("softmax", "L-GM", "center")


class Images:
    """Test images: how hard each is, for every network."""

    def __init__(self, random: np.random.Generator, n: int = N) -> None:
        self.random, self.n = random, n
        self.hard = random.normal(size=n)
        self.typical = random.normal(size=n)

    def train(
        self,
        label: str,
        seed: int,
        *,
        worse: float = 0.0,
        spread: float = 0.25,
        own: float = 0.7,
    ) -> CellOutcomes:
        """One training under every attack.

        Args:
            label: of the loss.
            seed: of the training.
            worse: how much harder every image is for it, in logits.
            spread: standard deviation over trainings, in logits.
            own: standard deviation over images that are this training's alone, in logits.
        """
        draw = self.random
        level, drift = worse + spread * draw.normal(), spread * draw.normal()
        image = self.hard + own * draw.normal(size=self.n)

        def outcome(attack, attack_label, norm, eps):
            chance = 1 / (1 + np.exp(5 - 30 * eps * (1 + 0.1 * (attack == "pgd")) - level - image))
            scores = self.typical + draw.normal(size=self.n) - (8 * eps * (1 - drift / 4))
            wrong = draw.random(self.n) < chance
            scores = scores + worse * (eps > 0) / 4  # what is noticed less is worse too
            return PassOutcome(
                attack, attack_label, norm, eps, wrong, scores > -1.6, scores.astype(np.float16)
            )

        passes = [outcome("none", "none", None, 0.0)]
        passes += [outcome(a, name, "linf", eps) for a, name, all_eps in ATTACKS for eps in all_eps]
        hardness = image + level + 0.5 * draw.normal(size=self.n)
        radius = (0.2 * np.exp(-0.3 * hardness)).astype(np.float16)
        norm_passes = [
            PassOutcome("fab", "FAB", "linf", eps, passes[0].wrong | (radius <= np.float16(eps)))
            for eps in (0.1, 0.2)
        ]
        weights = str(draw.integers(2**62))
        return CellOutcomes(
            label, label, seed, weights, -1.6, 0.0, 1.0, (*passes, *norm_passes), {"FAB": radius}
        )

    def train_all(self, seeds, **how) -> dict[str, list[CellOutcomes]]:
        """Every loss, each with these seeds."""
        return {label: [self.train(label, seed, **how) for seed in seeds] for label in LOSSES}
