"""One package for each question of a reader; no chapter imports another.

A chapter turns `reading.numbers.Numbers` into tables and figures, each in a file of its own. It may
import `words`, `reading` and `drawing`; `page.contents` alone imports it, in the order of the page.
Begin with `errors.table` for a table and `errors.curves` for a figure.
"""
