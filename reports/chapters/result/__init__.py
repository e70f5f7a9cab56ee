"""The first screen: the verdict in a few sentences, and the table of all losses.

Begin with `verdict`.
"""
