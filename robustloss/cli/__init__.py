"""The command line: it parses words, calls what Python calls too, and says what came of it.

It may import every room, and nothing imports it. What is heavy is imported inside the commands, so
that `robustloss --help` comes at once. Begin with `commands`: `main` is the entry point, and each
command is one function. `options` reads the words that several commands take, `mistakes` and
`saying` are how a command ends. `listing` and `cost` are behind `list` and `show`, `differences`
behind `try`, `terminal` prints results, `guide` reads the pages of `robustloss/guide`.
"""
