"""How figures and tables look, whatever they show.

Begin with `table` (one list of columns gives the page and the CSV file) and `frames` (panels, their
titles and their legend). `style` has sizes, fonts and colours; `album` keeps the figures of one
report with their numbers and captions. It may import `words` and `reading`, and no chapter.
"""
