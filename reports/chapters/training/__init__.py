"""How did the training go? Learning curves, what it cost, the search for each loss's values.

Begin with `table`.
"""
