"""The contract checks of a loss that are shipped, as `robustloss check-loss` runs them.

Begin with `check`, which has the table of checks. `values` and `state` hold the checks, `subject`
the loss under check, `toy` the problem that every loss must learn.
"""
