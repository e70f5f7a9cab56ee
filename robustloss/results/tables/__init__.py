"""The tables of results.json, in the order in which it has them: `first`, `detailed`, `compared`.

`schema` puts them together; import them from there. `shared` has the columns that several have.
"""
