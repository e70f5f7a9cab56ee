"""Data sets that are folders, or tar archives, of image files.

`unpack` makes folders of archives, `listing` finds the files, `survey` looks at each of them once,
and `load` is the reader that does all of it.
"""
