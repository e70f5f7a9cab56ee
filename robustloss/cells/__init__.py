"""One cell, a (loss, seed), computed into its folder: weights, records, scores, numbers.

Begin with `cell.run_cell`, the order of the stages, and with `keys`, which says what is computed
again when something changes. From low to high: `jobs` (what is asked for), `keys`, `weights`,
`workplace` (what all stages share), `records` and `measures` (files of a cell, read or computed),
`trial` (one training of a search), `cell`, `transfer` (work between finished cells).

Imports every package below `runs` but `metrics` and `reports`; `runs` alone imports this.
"""
