"""Data sets that are folders or archives of image files."""
