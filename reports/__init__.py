"""How to show a run: figures, tables and one self-contained page, drawn without torch."""

from robustloss.reports.page.build import build_report

__all__ = ["build_report"]
