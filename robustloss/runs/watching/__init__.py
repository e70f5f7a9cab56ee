"""Who hears of a run while it computes: a display, a log, somebody's own class.

`audience.gathering` gathers them, and passes every event on. None of them can end a run: a log that
cannot be written (`log`) and a class that fails (`own`) are left out, and a line says so.
`first_seed` shows the table of the first seed. Begin with `audience`.
"""
