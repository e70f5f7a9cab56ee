"""From tables, figures and sentences to one HTML file.

This is the top of the report: it may import every chapter, and only ``robustloss.reports`` itself
imports it. Begin with ``contents``: it lists every table and figure in the order of the page, and
a new one is added there. ``build`` makes the report, ``press`` draws the figures in several
processes, ``page`` fills the template; the other modules write what stands between the tables.
"""
