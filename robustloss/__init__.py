"""robustloss: train one network with different losses, attack each, report what happens.

The names below are imported on first use, so that ``import robustloss`` stays free of torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "load_spec": "robustloss.spec.load",
    "run": "robustloss.runs.runner",
    "evaluate": "robustloss.runs.in_memory",
    "build_report": "robustloss.reports",
    "load_run": "robustloss.results.run",
    "load_classifier": "robustloss.runs.classifier",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'robustloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
