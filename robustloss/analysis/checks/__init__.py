"""Checks of the numbers: which of them could be an artefact of the attack?

`catalogue` lists every check with its threshold and its words; `from_records`, `from_probe` and
`from_transfer` compute them, each from the files that it is named after.
"""
