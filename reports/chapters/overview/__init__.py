"""Which loss is better? All losses at a glance, differences, ranks."""
