"""How to perturb images: attacks behind one signature, and the harness that runs them.

Any torch module that maps images in [0,1] to logits can be attacked: nothing of robustloss is used.
"""

from robustloss.attacks.base import Attack, AttackError, AttackOutput, Queries
from robustloss.attacks.build import ATTACKS, VERSION, build_attack
from robustloss.attacks.harness import Perturbed, iter_perturb, perturb
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.plugins import PluginError

__all__ = [
    "ATTACKS",
    "VERSION",
    "Attack",
    "AttackError",
    "AttackOutput",
    "ImageNoise",
    "Perturbed",
    "PluginError",
    "Queries",
    "build_attack",
    "iter_perturb",
    "perturb",
]
