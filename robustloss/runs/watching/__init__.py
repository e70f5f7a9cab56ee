"""Who hears of a run while it computes: a display, a log, somebody's own class.

`audience.gathering` gathers them, and passes every event on. None of them can end a run: a log that
cannot be written (`log`) and a class that fails (`own`) are left out, and a line says so. Begin
with `audience`.
"""
