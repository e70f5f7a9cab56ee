"""How often is each loss fooled, by which attack, at which eps?

Begin with `table`, the paper's Table 6, and `curves`. `worst_case` puts the attacks of a norm
together, `radius` and `radius_curves` ask how far the first mistake is, `transfer` shows the images
of one loss to the others.
"""
