"""robustloss: train one network with different losses, attack each, report what happens.

The rooms, and who imports whom: a room imports what stands below it, never the reverse. Two wings
stand on one ground and meet where a cell is computed. The left wing makes images, models and
records with torch; the right one turns stored files into numbers and never imports torch.

                          cli
                           |
                         runs - executors/
                           |
                         cells --------------------------+
                  +--------+--------+                    |
              training          evaluation               |            reports
                  +-------+---------+  +-----------------+              page
                       models                            |              chapters
                  +-------+-------+                   analysis <------  drawing
                data            losses                results           reading
                  |               |                   metrics           words
                spec           attacks
          -- ground: storage  array_files  image_files  run_files  work_folders  seeding --
          --         progress  notation                                                  --

`tests/test_architecture.py` holds the exact arrows. The sources of `robustloss.attacks` and
`robustloss.reports` lie at the top of the repository, in `attacks/` and `reports/`.

To follow a run, read `runs.runner.run`, then `cells.cell` (one loss and one seed), then
`reports.page.build`. To add a loss, an attack, a score or a data set, begin with `losses.base`,
`attacks.base`, `analysis.detection` or `data.catalogue`. What decides a run is in `spec`; what it
leaves on disk is in `results`.

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
    "check": "robustloss.runs.judging.check",
    "export": "robustloss.runs.proof.export",
    "verify": "robustloss.runs.proof.verify",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'robustloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOME, *(name for name in globals() if name.startswith("__"))])
