"""One file for each table of results.json, or for a few that belong together.

`of_cell` and `of_run` say which tables there are and what each is made from; `measured` computes
once what several tables of a cell need.
"""
