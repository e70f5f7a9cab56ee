"""What a run leaves on disk, and how it is read.

`schema` has every table and column of results.json, which `tables` declares by subject; begin
there. `run` and `finished_cell` read a run folder and a cell, `records`, `scores` and `transfers`
are the arrays that they name, `checking`, `layout` and `provenance` say what a file of somebody
else must be to be read, `write` makes results.json, `numbers` looks up its numbers by loss, attack
and eps. Imports `storage`, `array_files`, `image_files` and `notation`; everything that makes or
reads numbers may import this package.
"""
