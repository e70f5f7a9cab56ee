"""Which loss is better? All losses at a glance."""
