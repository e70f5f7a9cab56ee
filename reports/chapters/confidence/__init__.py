"""How sure is the network of its answers, clean and under attack, and class by class?

Begin with `calibration`.
"""
