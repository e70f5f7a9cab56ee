"""What decides a stored file beside data, weights and settings: whose code, and which machine."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import torch

from robustloss import attacks
from robustloss.attacks.plugins import source_digest
from robustloss.evaluation import probes
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.plugins import is_plugin
from robustloss.spec.spec import Spec

# Attacks and losses whose code is another package's: what stands before the colon, the package.
_ADAPTED = {
    "torchattacks": "torchattacks",
    "autoattack": "pyautoattack",
    "pml": "pytorch-metric-learning",
}


def plugin_digest(name: str, folder: Path) -> str:
    """Returns what decides a name's code beside our versions, "" for a built-in.

    That is a digest of the user's source, or the package and version that an attack is taken from.
    """
    if is_plugin(name):
        return source_digest(name, (folder,))
    package = _ADAPTED.get(name.partition(":")[0])
    return f"{package} {importlib.metadata.version(package)}" if package else ""


def numerics(device: torch.device) -> list[object]:
    """Returns what of the machine decides the bits of a result."""
    return [device.type, torch.get_num_threads() if device.type == "cpu" else 0]


def attack_params(attack: AttackSpec, folder: Path) -> dict:
    """Returns what build_attack takes beside the name; a plug-in is looked for in the folder."""
    params = dict(attack.params)
    return {**params, "folders": (folder,)} if is_plugin(attack.name) else params


def probe_eps(spec: Spec, built: Sequence[attacks.Attack]) -> float:
    """Returns the L-inf budget of the trial attacks: the spec's, or the smallest of its attacks."""
    if spec.checks.eps is not None:
        return spec.checks.eps
    bounded = (a for a, call in zip(spec.attacks, built, strict=True) if call.norm == "linf")
    return min((e for a in bounded for e in a.eps if e > 0), default=probes.DEFAULT_EPS)
