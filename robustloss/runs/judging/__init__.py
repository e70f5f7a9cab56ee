"""Is a finished run good enough? By its gates, and against an earlier run.

Begin with `check`, which calls `analysis.gates` and `against`. `against` finds out whether two runs
may be compared, and has `analysis.baseline` compare them; `words` makes verdicts of it.
"""
