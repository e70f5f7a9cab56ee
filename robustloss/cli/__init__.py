"""The command line: it parses words, calls what Python calls too, and says what came of it.

It may import every room, and nothing imports it. What is heavy is imported inside the commands, so
that `robustloss --help` comes at once. Begin with `commands`: `main` is the entry point, and each
command is one function. `listing` and `cost` are behind `list` and `show`, `terminal` has the
tables that are printed, `guide` reads the pages of `robustloss/guide`.
"""
