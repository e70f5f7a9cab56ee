"""A finished run in one small file: which images each attack fooled, their scores and radii.

`robustloss baseline` writes it, `robustloss check --baseline` reads it; it may be committed beside
a project. Begin with `content`, which says what such a file holds; `file` reads and writes it.
"""
