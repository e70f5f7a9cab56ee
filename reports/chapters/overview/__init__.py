"""Which loss is better? All losses at a glance, differences between them, ranks.

Begin with `losses`; `comparison` and `forest` say which differences are more than chance.
"""
