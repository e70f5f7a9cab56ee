"""How to show a run: figures, tables and one self-contained page, drawn without torch.

From low to high: `words` (numbers as text), `reading` (what a run holds), `drawing` (how figures
and tables look), `chapters` (one for each question of a reader), `page` (the HTML file). It may
import `run_files`, `work_folders`, `metrics`, `spec`, `results` and `analysis`; `runs` and `cli`
call `build_report`. Begin with `page.contents`, the list of every table and figure, then read one
chapter.
"""

import os
import sys
from contextlib import suppress

if "matplotlib" not in sys.modules:
    # A backend that this environment lacks, such as that of the notebook which started the process,
    # would end the import. Figures here need none; pyplot beside them gets the one that was named.
    _backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = _backend

from robustloss.reports.page.build import build_report

__all__ = ["build_report"]
