"""Attacks of other libraries behind our signature."""
