"""A run against an earlier one: is a loss shown worse than it was?

`reduce` makes of a run what a baseline holds. `judge` compares two of them, test by test. Both are
values in memory; `runs.against` finds out whether two runs may be compared at all.
"""
