"""How often is each loss wrong? The first screen of the page, and every number behind it.

Begin with `verdict` and `table`. `curves` draws error against eps, `worst_case` puts attacks of a
norm together, `radius` asks how far the first mistake is, `transfer` shows the images of one loss
to the others.
"""
