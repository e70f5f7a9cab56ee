"""Attacks that look for the worst image within eps."""
