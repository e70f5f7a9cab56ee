"""The table and the figures of the paper, made from the run: Table 6, Figures 3 and 4.

Begin with `error`, Table 6; `histograms` has Figures 3 and 4. Figures 1 and 2 stand in `space`.
"""
