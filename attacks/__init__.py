"""How to perturb images: attacks behind one signature, and the harness that runs them.

What lives here: `base` says what an attack is, `harness` runs one and trusts none. Every attack
stands on `ball`, `objectives`, `arguments` and `noise` and lives in a room by its threat:
`bounded/` (the worst image within eps), `nearest/` (the smallest change), `adaptive/` (knows the
detector), `adapted/` (other libraries' attacks). `build` names them all; `plugins` loads anybody's.

May import: nothing else of robustloss, since any torch module that maps images in [0,1] to logits
can be attacked. May be imported by: losses (`plugins` only), models, training, evaluation, cells,
runs and cli; spec keeps the torch-free facts of each attack in `robustloss.spec.attack_kinds`.

Begin reading at `base`, then `harness`, then `bounded/fgsm` as the shortest attack.
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
