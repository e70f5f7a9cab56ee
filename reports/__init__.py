"""How to show a run: figures, tables and one self-contained page, drawn without torch.

From low to high: `words` (numbers as text), `reading` (what a run holds), `drawing` (how figures
and tables look), `chapters` (one for each question of a reader), `page` (the HTML file). It may
import `run_files`, `metrics`, `spec`, `results` and `analysis`; `runs` and `cli` call
`build_report`. Begin with `page.contents`, the list of every table and figure, then read one
chapter.
"""

from robustloss.reports.page.build import build_report

__all__ = ["build_report"]
