"""Attacks that look for the smallest change that fools the model."""
