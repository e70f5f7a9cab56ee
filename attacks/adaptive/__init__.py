"""Attacks that know the detector."""
