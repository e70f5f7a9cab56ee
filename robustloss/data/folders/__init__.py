"""Data sets that are folders, or tar archives, of image files.

`listing` finds the files, `survey` looks at each of them once, and `load` is the reader that does
both.
"""
