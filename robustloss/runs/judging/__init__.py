"""Is a finished run good enough? By its gates, and against an earlier run.

`against` finds out whether two runs may be compared, and has `analysis.baseline` compare them.
"""
