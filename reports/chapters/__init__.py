"""One package for each question of the report; no chapter imports another."""
