"""Are the differences real? Every loss against every other, and against the baseline.

Begin with `comparison`, which looks the differences up; `forest` draws them, `matrix` tables them.
"""
