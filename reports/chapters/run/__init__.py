"""What was run: training, its curves, and the search for the values of a loss.

Begin with `table`.
"""
