"""One package for each question of a reader; no chapter imports another.

A function of a chapter looks at one thing, a whole run (`Numbers`) or an attack of it (`Scene`). It
returns a Table, or yields figures as `Plot`, each with its numbers and words. A chapter may import
`words`, `reading` and `drawing`; `page.contents` lists its functions in the order of the page.
Begin with `detection.table` for a table and `result.curves` for a figure.
"""
