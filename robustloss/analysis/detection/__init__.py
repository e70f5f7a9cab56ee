"""Scores of a Record, and how well they tell attacked images from clean ones."""
